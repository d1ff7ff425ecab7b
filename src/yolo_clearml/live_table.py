"""A watch on a terminal: a table of the runs under way that is drawn anew whenever something happened."""

from __future__ import annotations

from types import TracebackType

from .engine import Outcome


class LiveTable:
    """The table, and what is said above it."""

    def __enter__(self) -> LiveTable:
        return self

    def show(self, outcome: Outcome) -> None:
        """Take note of an outcome."""

    def say(self, text: str) -> None:
        """Write a line above the table."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table as it is at last."""
