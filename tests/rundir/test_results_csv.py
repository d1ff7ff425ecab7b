"""Whatever bytes a results.csv holds, its complete rows are read and nothing else is taken for one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from yolo_clearml.rundir.results_csv import Row, Table, last_stretch, latest_rows, parse

TABLES = sorted(SAMPLES.glob("*/results.csv"))

# what lines are made of, so that generated files get further than the first byte
PIECES = st.sampled_from(
    [
        "epoch",
        "time",
        "a/b",
        ",",
        ",",
        ",",
        "1",
        "2",
        "10",
        "0.5",
        "-1e3",
        "nan",
        "inf",
        " ",
        "\r",
        "\n",
        "\n",
    ]
)
FILES = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=40).map(lambda pieces: ("epoch,a\n" + "".join(pieces)).encode()),
    st.lists(PIECES, max_size=40).map(lambda pieces: "".join(pieces).encode()),
)


def epochs(table: Table) -> list[int]:
    return [row.epoch for row in table.rows]


def of_epochs(*printed: int) -> Table:
    """A file with these epochs, each row with its own line number as value."""
    lines = "".join(f"{epoch},{number}\n" for number, epoch in enumerate(printed))
    return parse(b"epoch,train/loss\n" + lines.encode())


# -- growing files


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_every_cut_of_a_real_file_gives_a_prefix_of_its_rows(path: Path) -> None:
    """A file seen at any byte of its growth has the rows whose newline is there, and no other."""
    data = path.read_bytes()
    whole = parse(data)
    for n in range(len(data) + 1):
        cut = parse(data[:n])
        complete = max(0, data[:n].count(b"\n") - 1)
        assert whole.rows[:complete] == cut.rows
        assert () == cut.malformed


@given(data=FILES, n=st.integers(0, 300))
def test_every_cut_of_any_file_gives_a_prefix_of_its_rows(data: bytes, n: int) -> None:
    """No later byte changes or takes back a row; the columns, once known, stay."""
    whole, cut = parse(data), parse(data[:n])
    # as text, for nan is not equal to itself
    assert repr(whole.rows[: len(cut.rows)]) == repr(cut.rows)
    assert cut.columns in ((), whole.columns)


@given(data=FILES)
def test_any_bytes_are_read_without_complaint(data: bytes) -> None:
    """Every row has a value per column, and every line that is no row is blank or named."""
    table = parse(data)
    assert all(len(table.columns) == len(row.values) and row.epoch >= 0 for row in table.rows)
    blank = sum(not line.strip() for line in data.split(b"\n")[1:-1])
    if table.columns:
        assert data.count(b"\n") == 1 + len(table.rows) + len(table.malformed) + blank


# -- the styles releases and spreadsheets write


def test_padded_cells_read_as_plain_ones() -> None:
    """Releases to 8.3.0 print ``%23s,`` and ``%23.5g``; names and numbers are the same without the blanks."""
    names = ("epoch", "train/box_loss", "lr/pg0")
    padded = "".join(f"{name:>23}," for name in names).rstrip(",") + "\n"
    padded += "".join(f"{value:>23.5g}," for value in (3, 0.123456, 1e-05)).rstrip(",") + "\n"
    table = parse(padded.encode())
    assert ("train/box_loss", "lr/pg0") == table.columns
    assert [(3, (0.12346, 1e-05))] == [(row.epoch, row.values) for row in table.rows]


def test_six_digits_are_read_as_printed() -> None:
    """Releases from 8.3.9 on print ``%.6g`` without padding, with the time beside the epoch."""
    table = parse(b"epoch,time,lr/pg0\n1,0.391009,0.000297232\n12,1.2e+06,9.9e-07\n")
    assert ("time", "lr/pg0") == table.columns
    assert [(1, (0.391009, 0.000297232)), (12, (1200000.0, 9.9e-07))] == [
        (row.epoch, row.values) for row in table.rows
    ]


def test_a_spreadsheets_byte_order_mark_and_line_ends_change_nothing() -> None:
    """A file saved with BOM and CRLF gives the same rows, bytes of the line included."""
    plain = b"epoch,train/loss\n1,0.5\n2,0.25\n"
    saved = b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n")
    assert parse(plain) == parse(saved)
    assert [b"1,0.5", b"2,0.25"] == [row.raw for row in parse(saved).rows]


def test_what_is_not_finite_is_kept_for_the_rules_to_judge() -> None:
    """nan and inf, as Python prints them and in capitals, and a number too large to hold, are values."""
    (row,) = parse(b"epoch,a,b,c,d\n1,nan,-inf,INF,1e999\n").rows
    assert math.isnan(row.values[0])
    assert (-math.inf, math.inf, math.inf) == row.values[1:]


# -- what must not be taken for a row


@pytest.mark.parametrize(
    "line",
    [
        b'1,"0.5"',  # quoted
        b"1,0,5",  # a decimal comma
        b"1,1_0",  # Python would read 10
        b"1,0x10",
        b"1,infinity",
        b"1,1e",
        b"1,.",
        b"1,",
        b"1",
        b"1,0.5,",
        "1,٣".encode(),  # Arabic digits, which Python would read as 3
        "1,０".encode(),  # a full-width digit
        b"1,0.5\0",
        b"\0\0\0\0",
        b"1,0.5 0.5",
        b"1,0.5\r1",
        b"1;0.5",
        b"nan,0.5",
        b"inf,0.5",
        b"-1,0.5",
        b"1.5,0.5",
        b"10000001,0.5",  # more epochs than anybody trains
        b"1e300,0.5",
        b"epoch,train/loss",
        b"\xff\xfe,0.5",
    ],
)
def test_a_line_that_is_no_row_is_named_and_read_over(line: bytes) -> None:
    """The rows around it are read, and its number is known."""
    table = parse(b"epoch,train/loss\n1,0.5\n" + line + b"\n2,0.25\n")
    assert ([1, 2], (3,)) == (epochs(table), table.malformed)


def test_a_torn_line_that_another_process_went_on_with_is_no_row() -> None:
    """After a crash in the middle of a line the next process appends to it; the rows after it are read."""
    table = parse(b"epoch,train/loss,lr/pg0\n1,0.5,0.1\n2,0.42,0.25,0.1\n3,0.2,0.1\n")
    assert ([1, 3], (3,)) == (epochs(table), table.malformed)


def test_blank_lines_are_nothing() -> None:
    """Empty lines are neither rows nor faults."""
    table = parse(b"epoch,train/loss\n\n1,0.5\n  \r\n\n2,0.25\n")
    assert ([1, 2], ()) == (epochs(table), table.malformed)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Epoch,train/loss",
        b'"epoch","train/loss"',
        b"epoch;train/loss",
        b"step,train/loss",
        b"epoch,train/loss,train/loss",
        b"epoch,epoch",
        b"epoch,train/loss,",
        b"epoch,\xff",
        b"epoch" + b",a" * 1_000_000,
        b"epoch" + b"".join(b",a%d" % i for i in range(1000)),
        b"\0" * 10_000,
    ],
    ids=lambda header: repr(header[:24]),
)
def test_without_a_sound_header_there_is_no_table(header: bytes) -> None:
    """Columns that are not certain, such as doubled ones, give no columns and no rows."""
    assert Table((), (), (1,)) == parse(header + b"\n1,0.5\n")


def test_a_row_of_a_million_cells_is_no_row() -> None:
    """A line is counted before it is taken apart."""
    assert Table(("a",), (), (2,)) == parse(b"epoch,a\n1" + b",1" * 1_000_000 + b"\n")


def test_a_long_run_of_digits_is_read_in_no_time() -> None:
    """A cell of digits that turns out to be no number costs as many steps as it has characters."""
    assert (2,) == parse(b"epoch,a\n1," + b"1" * 1_000_000 + b"x\n").malformed


def test_of_endless_faults_a_thousand_are_named() -> None:
    """A binary file does not fill the memory with line numbers."""
    assert tuple(range(2, 1002)) == parse(b"epoch,a\n" + b"?\n" * 5000).malformed


# -- which rows count


def test_a_column_is_found_by_its_name() -> None:
    """Its values come a number per row; a name that is not there gives nothing."""
    table = parse(b"epoch,a,b\n1,2,3\n2,4,6\n")
    assert ((3.0, 6.0), None, None) == (table.column("b"), table.column("c"), table.column("epoch"))


@pytest.mark.parametrize(
    ("printed", "newest", "earlier"),
    [
        ((1, 2, 3), (1, 2, 3), 0),
        ((1, 2, 3, 4, 5, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5), 5),
        ((1, 2, 1, 2, 3, 1), (1,), 5),
        ((0, 1, 2, 0, 1), (0, 1), 3),  # zero-based releases
        ((1, 2, 3, 2, 3, 4), (1, 2, 3, 2, 3, 4), 0),  # a resume repeats later epochs only
        ((), (), 0),
    ],
)
def test_the_newest_training_in_a_file_begins_with_the_first_epoch(
    printed: tuple[int, ...], newest: tuple[int, ...], earlier: int
) -> None:
    """Old releases append a second training to the file of the first; a resume goes on with the same."""
    table, count = last_stretch(of_epochs(*printed))
    assert (list(newest), earlier) == (epochs(table), count)
    assert [float(number) for number in range(earlier, len(printed))] == [row.values[0] for row in table.rows]


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        ((1, 2, 2, 3), (0, 2, 3)),  # killed before the checkpoint, then resumed
        ((1, 2, 3, 2, 3, 4), (0, 3, 4, 5)),
        ((1, 3, 2), (0, 2, 1)),
    ],
)
def test_of_a_doubled_epoch_the_later_row_counts(printed: tuple[int, ...], lines: tuple[int, ...]) -> None:
    """One row per epoch is left, in order of epochs."""
    table = latest_rows(of_epochs(*printed))
    assert sorted(set(printed)) == epochs(table)
    assert [float(line) for line in lines] == [row.values[0] for row in table.rows]


def test_faults_are_remembered_through_every_choice_of_rows() -> None:
    """What was unreadable is still known when only the newest rows are kept."""
    table = Table(("a",), (Row(1, (1.0,), b"1,1"),), (7,))
    assert (7,) == latest_rows(last_stretch(table)[0]).malformed


def test_a_column_name_beyond_any_training_is_no_header() -> None:
    """ClearML's index takes no names of more than 32,766 bytes; 200 characters are plenty."""
    for length, columns in ((200, 1), (201, 0)):
        assert columns == len(parse(f"epoch,{'x' * length}\n1,2\n".encode()).columns)
