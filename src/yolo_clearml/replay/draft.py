"""What the rules collect a plan in, and what ClearML takes of text and numbers. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..events import Event, Report
from ..rundir.release import Release
from ..rundir.results_csv import Row, Table
from ..rundir.run import Run

_LARGEST = (2 - 2**-23) * 2.0**127  # of a 32-bit float; the server refuses a whole batch for a larger one


@dataclass(slots=True)
class Draft:
    """What a plan is collected in."""

    reports: list[Report] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, key: str, *events: Event) -> None:
        """Add a report, unless there is nothing in it."""
        if events:
            self.reports.append(Report(key, events))

    def miss_lines(self, table: Table, of: str) -> None:
        """Note the lines of a table that could not be read, if there are any."""
        if table.malformed:
            lines = ", ".join(map(str, table.malformed[:10]))
            self.missing.append(f"{len(table.malformed)} unreadable lines of {of} (line {lines})")


class Iterations:
    """Epochs as printed to ClearML's zero-based iterations."""

    def __init__(self, run: Run) -> None:
        # zero-based to 8.0.161 and in YOLOv5, one-based from 8.0.162; a file that shows epoch 0 settles it
        rows = run.table.rows
        # a tuning's are as its own figure and header count them, from 1
        self.first = 0 if run.yolov5 or rows[0].epoch == 0 or run.tuning is not None else 1
        self.last = rows[-1].epoch - self.first

    def of(self, row: Row) -> int:
        """Give the iteration of an epoch."""
        return row.epoch - self.first


def sendable(text: str) -> str:
    """Replace what has no UTF-8 form: half a surrogate pair, or a byte of an undecodable file name."""
    return text.encode("utf-8", "replace").decode()


def storable(value: float) -> bool:
    """Whether ClearML can store a value: finite, and within a 32-bit float."""
    return abs(value) <= _LARGEST  # NaN is not either


def why_not_storable(*values: float) -> str:
    """Give in words why values are gaps."""
    return "not finite or too large" if any(map(math.isfinite, values)) else "not finite"


def dotted(release: Release) -> str:
    """Write a release as Ultralytics does: 8.3.100."""
    return ".".join(map(str, release))
