"""A tuning and its trainings, in one call: it waits for those that have no task yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..events import Child, Report
from .outcomes import Delivered, Outcome, UpToDate


def children_left(path: Path, pending: Sequence[Report]) -> tuple[Path, ...]:
    """Give the trainings of the tuning at ``path`` that are still to become its children."""
    home = Path(os.path.abspath(path)).parent  # noqa: PTH100  where its links lead is of no concern
    return tuple(home / event.place for r in pending for event in r.events if isinstance(event, Child))


class Waiting:
    """Which tuning is to be visited again, once a training that it waits for has a task.

    Each training is a reason once: that it was delivered, and is not found, is nothing that waiting helps.
    """

    def __init__(self) -> None:
        self._tunings: dict[Path, Path] = {}  # by the training, absolute
        self._delivered: set[Path] = set()  # absolute
        self._told: set[Path] = set()

    def after(self, outcome: Outcome) -> Path | None:
        """Give the tuning to visit because of what came of a visit, if there is one."""
        if not isinstance(outcome, (Delivered, UpToDate)):
            return None
        if outcome.waits_for:
            self._tunings |= dict.fromkeys(outcome.waits_for, outcome.run)
            return self._due(outcome.waits_for)
        if isinstance(outcome, Delivered):
            training = Path(os.path.abspath(outcome.run))  # noqa: PTH100
            self._delivered.add(training)
            return self._due((training,))
        return None

    def _due(self, trainings: Sequence[Path]) -> Path | None:
        due = [t for t in trainings if t in self._tunings and t in self._delivered - self._told]
        self._told.update(due)
        return self._tunings[due[0]] if due else None
