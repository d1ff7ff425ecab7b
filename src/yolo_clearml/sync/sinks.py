"""Where reports go: the protocol of a sink, and the one that only records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from ..events import (
    Artifact,
    DrawnPlot,
    Event,
    Image,
    OutputModel,
    Plan,
    Plot,
    Points,
    Report,
    Scalar,
    SingleValue,
    but_points,
)
from .verdict import Verdict


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes of files that are on their way; for a progress bar, not a promise."""

    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Reports that have arrived, to be remembered at once."""

    reports: tuple[Report, ...]
    events: int  # points, images and plots that were sent for them
    files: int
    size: int  # bytes of those files


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a person should know of this delivery."""

    text: str  # a sentence


@dataclass(frozen=True, slots=True)
class Revived:
    """The server had stopped the task, because nothing was reported to it for too long; it goes on."""


Step: TypeAlias = "Sent | Acknowledged | Noted | Revived"


class Delivery(Protocol):
    """An open task (or an export of one) that reports can be delivered to."""

    @property
    def task_id(self) -> str:
        """The task's id."""

    @property
    def url(self) -> str | None:
        """Where a person sees the task; None where nobody can."""

    @property
    def fresh(self) -> bool:
        """Not the task the ledger knows, or reset since: it holds nothing the ledger may count on."""

    def found_in(self) -> tuple[str | None, str] | None:
        """Give the project and name of a task that was there before; None where it was made just now."""

    def deliver(self, reports: Sequence[Report], over: Collection[str] = ()) -> Iterator[Step]:
        """Send the reports in order; each is acknowledged once, after everything in it has arrived.

        Of a task that somebody else reported, what it holds already is not sent again, but for the reports
        with keys in ``over``, which go over whatever is there. Without any reports, only let the server know
        that the training goes on.

        Raises a YoloClearmlError at the first that cannot be sent; what was acknowledged before stays so.
        """


class Sink(Protocol):
    """Opens deliveries; made once and shared by all runs of a call, from several threads."""

    @property
    def server(self) -> str | None:
        """Whose acknowledgements the ledger keeps; None: whatever the ledger holds."""

    def has(self, task_id: str) -> bool:
        """Check whether a task that the ledger knows is there."""

    def open(
        self, plan: Plan, root: Path, task_id: str | None, copy: str, given: str | None = None
    ) -> AbstractContextManager[Delivery]:
        """Open the task of ``plan``, whose files lie below ``root``.

        ``task_id`` is the task the ledger knows, ``copy`` what keeps it apart from other tasks of the
        run; ``given`` is the task a person asks for, whoever made it.
        A task that does not exist is made, but nothing is reported to it yet.
        """


@runtime_checkable
class Prover(Protocol):
    """A sink that can read back what it sent."""

    def verify(self, plan: Plan, root: Path, task_id: str | None, copy: str) -> Verdict:
        """Compare everything in ``plan`` with what the task holds; raises a YoloClearmlError."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the task of a run is, after it was to be moved."""

    task_id: str
    url: str | None  # where a person sees it; None where nobody can
    text: str | None  # what was done, a sentence; None: it was there already


@runtime_checkable
class Mover(Protocol):
    """A sink whose tasks can be put into another project, and be given another name."""

    def move(
        self,
        plan: Plan,
        wanted: tuple[str | None, str | None],
        known: tuple[str, str] | None,
        task_id: str | None,
        copy: str,
    ) -> Moved | None:
        """Put the task of ``plan`` where it is wanted, if there is one; what it holds stays as it is.

        ``wanted`` are project and name, None where it keeps its own; ``known`` those that the ledger knows.
        The task is looked for as `Sink.open` does. Raises a YoloClearmlError where it must not be moved.
        """


def from_to(was: tuple[str | None, str], to: tuple[str | None, str]) -> str:
    """Write where a task comes from and goes, each with project and name."""
    (old_project, old_name), (new_project, new_name) = was, to
    old = repr(old_name) + ("" if old_project is None else f" in {old_project!r}")
    return f"from {old} to {new_name!r}" + ("" if new_project is None else f" in {new_project!r}")


@runtime_checkable
class Reminder(Protocol):
    """A sink whose server takes the task of a live run for dead when nothing is reported to it."""

    def keep_alive(self, task_id: str, key: str) -> bool:
        """Let the server know that the training of the run with this key goes on.

        False where its task is not in progress, or not its own: then it is to be opened.
        """


@dataclass(slots=True)
class RecordingSink:
    """Keeps what would be sent, and acknowledges all of it; for a dry run."""

    server: str | None = None
    recorded: dict[Path, tuple[Plan, tuple[Report, ...]]] = field(default_factory=dict)

    def has(self, task_id: str) -> bool:
        """Nothing here forgets what was reported to it."""
        return True

    def move(
        self,
        plan: Plan,
        wanted: tuple[str | None, str | None],
        known: tuple[str, str] | None,
        task_id: str | None,
        copy: str,
    ) -> Moved | None:
        """Tell where a task that the ledger knows would go; of others, nothing is known here."""
        if task_id is None or known is None:
            return None
        to = (wanted[0] or known[0], wanted[1] or known[1])
        text = None if to == known else f"The task would be moved {from_to(known, to)}."
        return Moved(task_id, None, text)

    @contextmanager
    def open(
        self, plan: Plan, root: Path, task_id: str | None, copy: str, given: str | None = None
    ) -> Iterator[Delivery]:
        """Open a delivery that touches nothing."""
        yield _Recording(self, plan, root, task_id or "")


@dataclass(slots=True)
class _Recording:
    _sink: RecordingSink
    _plan: Plan
    _root: Path
    task_id: str
    url: str | None = None
    fresh: bool = False

    def found_in(self) -> None:
        """Nobody has looked."""

    def deliver(self, reports: Sequence[Report], over: Collection[str] = ()) -> Iterator[Step]:
        self._sink.recorded[self._root] = (self._plan, tuple(reports))
        yield acknowledged(reports)


def acknowledged(reports: Sequence[Report]) -> Acknowledged:
    """Count what an acknowledgement of ``reports`` stands for."""
    count = sum(len(report.events) for report in reports if isinstance(report.events, Points))
    events = list(but_points(reports))
    count += sum(isinstance(e, (Scalar, SingleValue, Image, Plot, DrawnPlot)) for e in events)
    sizes = [size for e in events if (size := file_size(e)) is not None]
    return Acknowledged(tuple(reports), count, len(sizes), sum(sizes))


def file_size(event: Event) -> int | None:
    """Size in bytes of the file an event brings along; None where it brings none; 0 where yet to be drawn."""
    if isinstance(event, (Image, Plot, OutputModel, Artifact)):
        return event.file.size
    return 0 if isinstance(event, DrawnPlot) else None
