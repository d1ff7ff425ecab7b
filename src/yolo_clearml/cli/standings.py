"""How runs stand, a line for each: sorted, filtered, as aligned text or as JSON."""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from typing import Any, TypeAlias

from typing_extensions import assert_never

from ..events import RunState
from ..sync.outcomes import Facts, Failed, Pending, Skipped, UpToDate
from .console import json_line
from .terminal import below, common_folder, epochs_text, natural
from .wording import counted, printable, without, write_line

Standing: TypeAlias = "UpToDate | Pending | Skipped | Failed"

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = ".:-=+*%#"  # where the output's encoding has no others
_GAP = "  "
_NARROWEST = 12  # characters of a run's name on a narrow terminal
_LAST = 24  # characters of the last column there, where a name needs the room
_TITLES = ("run", "state", "epochs", "fitness", "", "ClearML")


class SortKey(str, Enum):
    """What the lines are sorted by; runs that are alike in it by path."""

    PATH = "path"
    STATE = "state"
    EPOCHS = "epochs"
    FITNESS = "fitness"
    PENDING = "pending"


class StateName(str, Enum):
    """What the lines can be filtered by."""

    LIVE = "live"
    FINISHED = "finished"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    FAILED = "failed"


def chosen(
    standings: Iterable[Standing], states: Collection[StateName], pending_only: bool, by: SortKey
) -> list[Standing]:
    """Filter and sort; what only looks like a run is left out unless it is asked for.

    Numbers are sorted with the highest first, a run that has none last.
    """
    kept = [
        standing
        for standing in standings
        if (_state(standing) in states if states else not isinstance(standing, Skipped))
        and not (pending_only and not isinstance(standing, (Pending, Failed)) and not _is_unsure(standing))
    ]
    kept.sort(key=lambda standing: natural(standing.run))
    key: Callable[[Standing], Any] = {
        SortKey.PATH: lambda standing: 0,
        SortKey.STATE: lambda standing: list(StateName).index(_state(standing)),
        SortKey.EPOCHS: lambda standing: -_facts(standing).epochs,
        SortKey.FITNESS: lambda standing: -_number(_facts(standing).fitness),
        SortKey.PENDING: lambda standing: -(standing.pending if isinstance(standing, Pending) else -1),
    }[by]
    return sorted(kept, key=key)


def left_out(
    standings: Iterable[Standing],
    kept: Collection[Standing],
    states: Collection[StateName],
    pending_only: bool,
) -> str | None:
    """Name what `chosen`, which kept ``kept``, left out and nobody asked it to; and why there is nothing."""
    skipped = sum(isinstance(standing, Skipped) for standing in standings)
    those = " or ".join(state.value for state in states)
    if pending_only:
        nothing = (
            f"No run that is {those} has anything to send." if states else "No run has anything to send."
        )
    elif states:
        nothing = f"No run is {those}."
    else:
        # directories, for what a validation has left is no run
        are, them = ("is", "it") if skipped == 1 else ("are", "them")
        directories = "1 directory" if skipped == 1 else f"{skipped} directories"
        return f"{directories} {are} skipped; -v or --state skipped names {them}." if skipped else None
    return None if kept else nothing


def write_json(standings: Iterable[Standing]) -> None:
    """Write a JSON object for each on stdout: that of an upload, with more of what is known."""
    for standing in standings:
        facts = _facts(standing)
        more = {
            "pending": standing.pending if isinstance(standing, (Pending, Failed)) else 0,
            "of_epochs": facts.of_epochs,
            # what is not finite, as only a ledger from elsewhere can hold, is no JSON
            "fitness": facts.fitness if math.isfinite(_number(facts.fitness)) else None,
            "curve": [value for value in facts.curve if math.isfinite(value)],
        }
        write_line(sys.stdout, json.dumps({**(json_line(standing) or {}), **more}))


def write_table(standings: Sequence[Standing], width: int | None, addresses: bool) -> None:
    """Write aligned lines on stdout; ``width`` is that of a terminal in characters, None: as wide as it gets.

    On a terminal a run's name leads to its task where the terminal can, and ``addresses`` writes them out;
    elsewhere they are the last column.
    """
    if not standings:
        return
    folder = common_folder([standing.run for standing in standings])
    rows = [_cells(standing, folder) for standing in standings]
    # on a terminal a sentence has lines of its own, for beside it no room is left for names
    reasons = [_reason(standing) for standing in standings]
    if width is None:
        rows = [
            (*row[:-1], f"{row[-1]}: {reason}" if reason else row[-1])
            for row, reason in zip(rows, reasons, strict=True)
        ]
    widths = [max(map(len, column)) for column in zip(_TITLES, *rows, strict=True)]
    if width is not None:
        _narrow(widths, width)
    if folder:
        write_line(sys.stdout, f"Below {folder}:")
    write_line(sys.stdout, _line(_TITLES, widths))
    for standing, cells, reason in zip(standings, rows, reasons, strict=True):
        address = None if isinstance(standing, Skipped) else standing.url
        last, *folded = textwrap.wrap(cells[-1], widths[-1]) or [""]
        line = _line((_short(cells[0], widths[0]), *cells[1:-1], last), widths)
        if address is not None and width is not None:
            name = line[: widths[0]]
            line = f"\x1b]8;;{printable(address)}\x1b\\{name}\x1b]8;;\x1b\\{line[widths[0] :]}"
        elif address is not None:
            line = f"{line.ljust(sum(widths) + len(_GAP) * (len(widths) - 1))}{_GAP}{printable(address)}"
        write_line(sys.stdout, line)
        for more in folded:
            write_line(sys.stdout, _line((*("" for _ in widths[1:]), more), widths))
        if width is not None:
            for more in textwrap.wrap(reason, max(1, width - len(_GAP))):
                write_line(sys.stdout, f"{_GAP}{more}")
        if address is not None and width is not None and addresses:
            write_line(sys.stdout, printable(address))
    if width is not None:
        write_line(sys.stderr, _summary(standings))
    unsure = sum(map(_is_unsure, standings))
    if unsure:
        were = "was" if unsure == 1 else "were"
        text = f"{counted(unsure, 'run')} with a ? {were} sent under another configuration of ClearML"
        write_line(sys.stderr, f"{text}; 'yolo-clearml upload' asks this server what it has.")


def _narrow(widths: list[int], width: int) -> None:
    """Make the first and the last column fit into lines of ``width`` characters, the last by folding it."""
    between = sum(widths[1:-1]) + len(_GAP) * (len(widths) - 1)
    last = max(width - between - widths[0], min(widths[-1], _LAST))
    widths[0] = max(min(widths[0], width - between - last), min(widths[0], _NARROWEST))
    widths[-1] = max(1, min(widths[-1], width - between - widths[0]))


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _cells(standing: Standing, folder: str) -> tuple[str, ...]:
    facts = _facts(standing)
    fitness = f"{facts.fitness:.3f}" if facts.fitness is not None else ""
    match standing:
        case UpToDate():
            pending = "verified" if standing.verified else "up to date" + "?" * standing.unsure
            pending += without(facts)
        case Pending():
            end = "to be opened again" if facts.state is RunState.LIVE else "to be completed"
            pending = f"{standing.pending} pending" if standing.pending else end
            pending = (pending if standing.task_id else "not there yet") + without(facts)
        case Skipped():
            pending = "none"
        case Failed():
            pending = "failed"
        case _:
            assert_never(standing)
    curve = sparkline(facts.curve)
    return below(standing.run, folder), _state(standing).value, epochs_text(facts), fitness, curve, pending


def _reason(standing: Standing) -> str:
    """Say why nothing is there or can be said, or nothing."""
    match standing:
        case Skipped():
            return printable(f"it {standing.reason}")
        case Failed():
            return printable(str(standing.error))
        case _:
            return ""


def sparkline(values: Sequence[float]) -> str:
    """Draw a small curve, a character for each value, from the lowest of them to the highest."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    bars = _BARS
    try:
        _BARS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        bars = _PLAIN_BARS
    low, high = min(finite) / 4, max(finite) / 4  # from -1e308 to 1e308 is further than a float holds
    steps = len(bars) - 1
    return "".join(
        bars[round((value / 4 - low) / (high - low) * steps) if high > low else 0] for value in finite
    )


def _summary(standings: Sequence[Standing]) -> str:
    waiting = sum(isinstance(standing, Pending) for standing in standings)
    failed = sum(isinstance(standing, Failed) for standing in standings)
    nothing = "with nothing known to send" if any(map(_is_unsure, standings)) else "with nothing to send"
    parts = [f"{waiting} with something to send"] if waiting else []
    parts += [f"{failed} failed"] if failed else []
    return f"{counted(len(standings), 'run')}, {', '.join(parts) or nothing}."


def _is_unsure(standing: Standing) -> bool:
    """Return whether only ClearML knows if there is something to send."""
    return isinstance(standing, UpToDate) and standing.unsure


def _state(standing: Standing) -> StateName:
    if isinstance(standing, Skipped):
        return StateName.SKIPPED
    state = standing.facts.state
    return StateName(state.value) if isinstance(state, RunState) else StateName.FAILED


def _facts(standing: Standing) -> Facts:
    return Facts() if isinstance(standing, Skipped) else standing.facts


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -math.inf
