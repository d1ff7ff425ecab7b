"""What came of looking at a run, and the facts that a line of output shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import YoloClearmlError
from ..events import RunState
from .verdict import Verdict


@dataclass(frozen=True, slots=True)
class Facts:
    """What a line of output shows of a run."""

    name: str | None = None  # of its task
    state: RunState | None = None
    epochs: int = 0  # rows of results.csv
    of_epochs: int | None = None  # that were asked for
    best: tuple[str, float] | None = None  # the main metric and its best value so far
    missing: tuple[str, ...] = ()  # what the callback would have known and the directory does not hold
    project: str | None = None  # of its task
    tags: tuple[str, ...] = ()  # of its task, when it was made
    latest: float | None = None  # value of the main metric
    fitness: float | None = None  # the best so far
    curve: tuple[float, ...] = ()  # of the fitness, a few values evenly spaced
    events: int = 0  # points, images and plots that there are to report by now
    left_out: tuple[str, ...] = ()  # files that are there and not sent, each with why; all in `missing` too
    without: tuple[str, ...] = ()  # what a person has left out, by the names of its parts

    def stored(self) -> dict[str, Any]:
        """Give the facts as JSON can hold them, for the ledger."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"state": self.state.value if self.state else None}

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Facts:
        """Read what `stored` gave; facts that do not fit count as unknown."""
        try:
            state, best = stored.get("state"), stored.get("best")
            asked = stored.get("of_epochs")
            return cls(
                project=_text(stored.get("project")),
                name=_text(stored.get("name")),
                tags=tuple(map(str, stored.get("tags", ()))),
                state=RunState(state) if state else None,
                epochs=int(stored.get("epochs", 0)),
                of_epochs=None if asked is None else int(asked),
                best=(str(best[0]), float(best[1])) if best else None,
                latest=_number(stored.get("latest")),
                fitness=_number(stored.get("fitness")),
                curve=tuple(map(float, stored.get("curve", ()))),
                events=int(stored.get("events", 0)),
                missing=tuple(map(str, stored.get("missing", ()))),
                left_out=tuple(map(str, stored.get("left_out", ()))),
                without=tuple(map(str, stored.get("without", ()))),
            )
        except (ValueError, TypeError, LookupError, OverflowError):  # the last of an integer of 1e999
            return cls()


def _text(stored: Any) -> str | None:
    return None if stored is None else str(stored)


def _number(stored: Any) -> float | None:
    return None if stored is None else float(stored)


@dataclass(frozen=True, slots=True)
class Started:
    """A run has something to send."""

    run: Path
    facts: Facts
    size: int  # bytes of files to send


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of a run's files went out."""

    run: Path
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """Everything there was to report is acknowledged."""

    run: Path
    facts: Facts
    task_id: str
    url: str | None
    events: int
    files: int
    size: int  # bytes of files
    notes: tuple[str, ...]
    again: float | None = None  # seconds since the epoch; when to look again, though nothing is written
    proof: Verdict | None = None  # what reading everything back has shown; None: it was not asked for
    revived: bool = False  # the server had stopped the task meanwhile, for it had been sent nothing of it
    waits_for: tuple[Path, ...] = ()  # trainings of a tuning that ClearML has no task of


@dataclass(frozen=True, slots=True)
class UpToDate:
    """There was nothing to report, or only a look was asked for."""

    run: Path
    facts: Facts
    task_id: str | None
    url: str | None
    again: float | None = None  # as in Delivered
    proof: Verdict | None = None  # as in Delivered
    verified: bool = False  # the ledger remembers such a proof, of these very files
    unsure: bool = False  # of a look without asking: ClearML's configuration has changed since
    notes: tuple[str, ...] = ()
    revived: bool = False  # as in Delivered
    waits_for: tuple[Path, ...] = ()  # as in Delivered


@dataclass(frozen=True, slots=True)
class Skipped:
    """Looks like a run and has nothing to report, or must not be reported to."""

    run: Path
    reason: str
    hint: str
    again: float | None = None  # as in Delivered


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong with this run; what was acknowledged before is remembered."""

    run: Path
    facts: Facts
    error: YoloClearmlError
    task_id: str | None = None
    url: str | None = None
    pending: int | None = None  # events that are still to be sent; None: unknown
    events: int = 0  # that arrived before it went wrong; so did the files
    files: int = 0
    size: int = 0  # bytes of files


@dataclass(frozen=True, slots=True)
class Gone:
    """A run that was followed is not there any more."""

    run: Path


@dataclass(frozen=True, slots=True)
class Pending:
    """A look, without sending: there is something to report."""

    run: Path
    facts: Facts
    task_id: str | None
    url: str | None
    pending: int  # events that are still to be sent; 0: only what is no event, as a status


Outcome: TypeAlias = "Started | Progress | Delivered | UpToDate | Skipped | Failed | Gone"
