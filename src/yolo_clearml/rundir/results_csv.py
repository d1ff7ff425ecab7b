"""Bytes of a growing results.csv to complete rows.

A line counts once its newline is there. Cells are separated by commas and padded with blanks by older
releases; a byte order mark and CRLF line ends, as spreadsheets leave them, change nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

_CELL = r"\s*[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|nan|inf)\s*"  # a number, padded or not
_NUMBERS = re.compile(f"{_CELL}(?:,{_CELL})*", re.ASCII | re.IGNORECASE)
_PLAIN = (
    b"0123456789+-.eE, \t\r"  # characters of most lines, which need no pattern: it takes half of the time
)
_MOST_COLUMNS = 1_000  # a detection run has 15; YOLOv5 adds two per class
_LONGEST_COLUMN = 200  # characters of a name; ClearML's index refuses titles of more than 32,766 bytes
_MOST_EPOCHS = 10_000_000  # keeps an epoch number well inside ClearML's 64-bit iteration
_MALFORMED_NAMED = 1_000  # line numbers kept; a binary file would have millions


@dataclass(frozen=True, slots=True)
class Row:
    """One complete line: ``epoch`` as printed, a value per column of the table (NaN and infinities kept)."""

    epoch: int
    values: tuple[float, ...]
    raw: bytes  # the line without its end


@dataclass(frozen=True, slots=True)
class Misfit:
    """A line of numbers with an epoch first, but of another width than the header."""

    line: int  # one-based
    epoch: int
    cells: int
    after: int  # rows of the header's width before it


@dataclass(frozen=True, slots=True)
class Table:
    """What results.csv holds: ``columns`` without ``epoch``, ``rows`` in file order, unusable lines."""

    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    malformed: tuple[int, ...] = ()  # one-based; at most a thousand are named
    misfits: tuple[Misfit, ...] = ()  # those of the malformed ones that may be another training's
    unfinished: bool = False  # a last line without its end, which is no row

    def column(self, name: str) -> tuple[float, ...] | None:
        """Give the values of one column, a number per row; None where there is no such column."""
        if name not in self.columns:
            return None
        index = self.columns.index(name)
        return tuple(row.values[index] for row in self.rows)


def parse(data: bytes) -> Table:
    """Parse every line that ends in a newline; a last, unfinished line is left for later.

    So for any cut, the rows of ``parse(data[:n])`` are a prefix of the rows of ``parse(data)``. A line that
    is no row of the header's shape is counted in ``malformed`` and read over. Without a header that starts
    with ``epoch`` the table has no columns. Raises nothing.
    """
    *lines, rest = data.split(b"\n")
    columns = _header(lines[0]) if lines else None
    if columns is None:
        return Table(malformed=(1,) if lines else ())
    rows: list[Row] = []
    malformed: list[int] = []
    misfits: list[Misfit] = []
    for number, line in enumerate(lines[1:], start=2):
        row = _row(line, len(columns))
        if row is not None:
            rows.append(row)
        elif line.strip() and len(malformed) < _MALFORMED_NAMED:
            malformed.append(number)
            cells = line.count(b",") + 1
            other = _row(line, cells) if cells <= _MOST_COLUMNS else None
            if other is not None:
                misfits.append(Misfit(number, other.epoch, cells, len(rows)))
    return Table(columns[1:], tuple(rows), tuple(malformed), tuple(misfits), bool(rest.strip()))


def last_stretch(table: Table) -> tuple[Table, int]:
    """Keep the rows of the newest training in the file, and count the rows of earlier ones.

    Releases before 8.3.214 append a training with ``exist_ok=True`` to the file of the one before:
    epochs 1..5, 1..5. A resume never begins with the first epoch again, so the last row with the first
    row's epoch begins the newest training. Rows of another width before that are an earlier one's as well.
    """
    if not table.rows:
        return table, 0
    first = table.rows[0].epoch
    start = max(i for i, row in enumerate(table.rows) if row.epoch == first)
    before = {misfit.line for misfit in table.misfits if 0 < misfit.after <= start}
    malformed = tuple(line for line in table.malformed if line not in before)
    misfits = tuple(misfit for misfit in table.misfits if misfit.line not in before)
    stretch = replace(table, rows=table.rows[start:], malformed=malformed, misfits=misfits)
    return stretch, start + len(before)


def of_other_columns(table: Table) -> tuple[Misfit, ...]:
    """Give the rows at the end of the file that a training with other columns has appended to this one.

    Releases before 8.3.214 write no second header. Such rows begin with the first epoch again; what goes on
    counting is one row that was torn and written on in the same line.
    """
    if not table.rows:
        return ()
    after = [misfit for misfit in table.misfits if misfit.after == len(table.rows)]
    again = [i for i, misfit in enumerate(after) if misfit.epoch <= min(1, table.rows[-1].epoch)]
    return tuple(after[again[0] :]) if again else ()


def latest_rows(table: Table) -> Table:
    """Keep one row per epoch, the last: a run killed before its checkpoint repeats an epoch on resume."""
    latest = {row.epoch: row for row in table.rows}
    return replace(table, rows=tuple(latest[epoch] for epoch in sorted(latest)), misfits=())


def repeated_epochs(table: Table) -> frozenset[int]:
    """Give the epochs that have more than one row."""
    counts = Counter(row.epoch for row in table.rows)
    return frozenset(epoch for epoch, count in counts.items() if count > 1)


def _header(line: bytes) -> tuple[str, ...] | None:
    if line.count(b",") >= _MOST_COLUMNS:  # before a million of them are made
        return None
    try:
        names = tuple(cell.strip() for cell in line.decode("utf-8-sig").split(","))
    except UnicodeDecodeError:
        return None
    usable = names[0] == "epoch" and len(set(names)) == len(names)
    return names if usable and all(0 < len(name) <= _LONGEST_COLUMN for name in names) else None


def _row(line: bytes, width: int) -> Row | None:
    """Read one line; None where it is not ``width`` numbers with an epoch first."""
    if line.count(b",") != width - 1:
        return None
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError:
        return None
    # what float() reads beyond such numbers, as 1_0 and infinity, has other characters
    if line.translate(None, _PLAIN) and not _NUMBERS.fullmatch(text):
        return None
    try:
        epoch, *values = map(float, text.split(","))
    except ValueError:
        return None
    if not (0 <= epoch <= _MOST_EPOCHS and epoch == int(epoch)):
        return None
    return Row(int(epoch), tuple(values), line.rstrip(b"\r"))
