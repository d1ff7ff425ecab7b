"""The loop: look, plan, subtract the ledger, deliver the rest, note what was acknowledged.

`sync` is the whole of ``upload`` (one pass) and of ``watch`` (many). It yields Outcomes and knows no
terminal; it imports neither clearml nor matplotlib, which the sink does when there is something to send.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

from .errors import OurFault, YoloClearmlError
from .events import Plan, RunState
from .ledger import Held, Ledger, Ledgers, settled_stamp
from .rules import Wishes, best_so_far, plan
from .scan import Found, NotARun, Run, scan, stamps
from .sinks import Acknowledged, Sent, Sink, file_size


@dataclass(frozen=True, slots=True)
class Facts:
    """What a line of output says of a run."""

    name: str | None = None  # of its task
    state: RunState | None = None
    epochs: int = 0  # rows of results.csv
    of_epochs: int | None = None  # that were asked for
    best: tuple[str, float] | None = None  # the main metric and its best value so far
    missing: tuple[str, ...] = ()  # what the callback would have known and the directory does not hold
    project: str | None = None  # of its task
    tags: tuple[str, ...] = ()  # of its task, when it was made

    def stored(self) -> dict[str, Any]:
        """Give the facts as JSON can hold them, for the ledger."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"state": self.state.value if self.state else None}

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Facts:
        """Read what `stored` gave; facts that do not fit count as unknown."""
        try:
            state, best = stored.get("state"), stored.get("best")
            return cls(
                project=stored.get("project"),
                name=stored.get("name"),
                tags=tuple(map(str, stored.get("tags", ()))),
                state=RunState(state) if state else None,
                epochs=int(stored.get("epochs", 0)),
                of_epochs=stored.get("of_epochs"),
                best=(str(best[0]), float(best[1])) if best else None,
                missing=tuple(map(str, stored.get("missing", ()))),
            )
        except (ValueError, TypeError, IndexError, KeyError):
            return cls()


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
    """Everything there was to tell is acknowledged."""

    run: Path
    facts: Facts
    task_id: str
    url: str | None
    events: int
    files: int
    size: int  # bytes of files
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UpToDate:
    """There was nothing to tell."""

    run: Path
    facts: Facts
    task_id: str | None
    url: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Looks like a run and has nothing to report, or must not be reported to."""

    run: Path
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong with this run; what was acknowledged before is remembered."""

    run: Path
    facts: Facts
    error: YoloClearmlError
    task_id: str | None = None
    url: str | None = None


Outcome: TypeAlias = "Started | Progress | Delivered | UpToDate | Skipped | Failed"


@dataclass(slots=True)
class Work:
    """What is done with each run, and how."""

    sink: Callable[[], Sink]  # called when the first run has something to send
    ledgers: Ledgers
    server_hint: str  # changes when the server may have; known without asking the sink
    wishes: Wishes = field(default_factory=Wishes)
    stale_after: float | None = None  # seconds; None: see scan.scan
    force: bool = False  # send everything again, into the same task
    new: bool = False  # make a new task
    now: Callable[[], float] = time.time  # seconds since the epoch


class Lazily:
    """Makes a sink when the first run needs it, once for all of them."""

    def __init__(self, make: Callable[[], Sink]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._sink: Sink | None = None

    def __call__(self) -> Sink:
        """Give the sink; runs that need it at the same time wait for the one that makes it."""
        with self._lock:
            if self._sink is None:
                self._sink = self._make()
            return self._sink


def once() -> Iterable[None]:
    """A single pass."""
    return (None,)


def sync(
    find: Callable[[], Iterable[Found]],
    passes: Iterable[object],
    work: Work,
    jobs: int = 1,
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Bring ClearML up to date with every run that ``find`` gives, once per pass; yields what happens.

    At most ``jobs`` runs at a time. A run that fails does not stop the others; an error that all of them
    would meet is met by the sink once. After ``stop`` is set no further run is begun. Raises what ``find``
    raises, and whatever is a fault of ours.
    """
    stop = stop or threading.Event()
    for _ in passes:
        yield from _in_parallel(find(), work, jobs, stop)


def _in_parallel(found: Iterable[Found], work: Work, jobs: int, stop: threading.Event) -> Iterator[Outcome]:
    """Visit runs in threads, and give their outcomes in the order they come."""
    outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def visit_one(path: Path) -> None:
        try:
            if not stop.is_set():
                for outcome in visit(path, work):
                    outcomes.put(outcome)
                    if stop.is_set():
                        break
        except Exception as fault:  # noqa: BLE001  nothing is swallowed, and the other runs are not to blame
            error = OurFault(
                f"Unforeseen {type(fault).__name__}: {fault}.",
                "This is a fault of yolo-clearml's own; report it.",
            )
            error.__cause__ = fault
            outcomes.put(Failed(path, Facts(), error))
        finally:
            outcomes.put(None)

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="run") as pool:
        under_way = 0
        try:
            for item in found:
                if stop.is_set():
                    break
                if isinstance(item, NotARun):
                    yield Skipped(item.path, item.reason, item.hint)
                    continue
                pool.submit(visit_one, item)
                under_way += 1
                # as many may wait as work, so that memory does not grow with the number of runs
                while under_way >= 2 * jobs or not outcomes.empty():
                    outcome = outcomes.get()
                    under_way -= outcome is None
                    if outcome is not None:
                        yield outcome
            while under_way:
                outcome = outcomes.get()
                under_way -= outcome is None
                if outcome is not None:
                    yield outcome
        except BaseException:
            stop.set()  # a fault, or the consumer went away: begin nothing more, let what is under way end
            raise


def visit(path: Path, work: Work) -> Iterator[Outcome]:
    """Bring ClearML up to date with one run; the last outcome says how it went."""
    facts, ledger = Facts(), Ledger()
    try:
        listed = stamps(path)
        ledger = work.ledgers.load(path)
        settled = settled_stamp(listed, work.server_hint, repr((work.wishes, work.stale_after)))
        anew = work.force or work.new
        if ledger.settled == settled and not anew:
            yield UpToDate(path, Facts.restored(ledger.facts), ledger.task, ledger.url)
            return
        run = scan(path, work.now(), work.stale_after)
        if isinstance(run, NotARun):
            yield Skipped(path, run.reason, run.hint)
            return
        planned = plan(run, work.wishes)
        if not work.new:
            planned = _as_made(planned, ledger, work.wishes)
        facts = facts_of(run, planned)
        # looking again must find the same: a run that ended is settled, one that lives is not
        settled_now = settled if run.state is not RunState.LIVE else None
        with work.ledgers.hold(path) as held:
            yield from _deliver(path, planned, facts, held, settled_now, work)
    except YoloClearmlError as error:
        _drop_frames(error)
        yield Failed(path, facts, error, ledger.task, ledger.url)


def _drop_frames(error: BaseException | None) -> None:
    """Let go of the frames an error went through: kept with thousands of failures, each holds a whole run."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def facts_of(run: Run, planned: Plan) -> Facts:
    """Collect what a line of output says of a run."""
    asked = run.args.get("epochs")
    return Facts(
        project=planned.project,
        name=planned.name,
        tags=planned.tags,
        state=run.state,
        epochs=len(run.table.rows),
        of_epochs=asked if isinstance(asked, int) else None,
        best=best_so_far(run),
        missing=planned.missing,
    )


def _as_made(planned: Plan, ledger: Ledger, wishes: Wishes) -> Plan:
    """A task keeps the project, name and tags it was made with; say so where others are wished for."""
    made = Facts.restored(ledger.facts)
    if ledger.run != planned.key or ledger.task is None or made.project is None or made.name is None:
        return planned
    kept = replace(planned, project=made.project, name=made.name, tags=made.tags)
    if kept == planned or wishes == Wishes(rules=wishes.rules):
        return kept
    note = (
        f"ClearML holds this run already, as {made.name!r} in {made.project!r}: --project, --name and --tags"
        " are for a task that is made, as with --new."
    )
    return replace(kept, notes=(*planned.notes, note))


def _deliver(
    path: Path, planned: Plan, facts: Facts, held: Held, settled: str | None, work: Work
) -> Iterator[Outcome]:
    # another training, in the same directory before this one, may have written the ledger there is
    ledger = held.ledger if held.ledger.run == planned.key else Ledger(run=planned.key)
    pending = planned.reports if work.force or work.new else ledger.pending(planned)
    events = files = size = 0
    if pending or ledger.configured != work.server_hint:
        server = work.sink().server
        if server is not None and server != ledger.server:
            ledger, pending = Ledger(server=server, run=planned.key), planned.reports
        ledger = replace(ledger, configured=work.server_hint)
    if pending:
        if work.new:
            ledger = replace(ledger, task=None, url=None, sent={}, copy=uuid4().hex[:8])
            held.save(ledger)  # before the task is made: a crash must not cost a second one
        with work.sink().open(planned, path, ledger.task, ledger.copy) as delivery:
            if delivery.fresh:
                pending = planned.reports
            ledger = replace(
                ledger.forget(pending),
                task=delivery.task_id,
                url=delivery.url,
                settled=None,
                facts=facts.stored(),
            )
            # before the first event: a crash must cost neither a second task nor what --force asked for
            held.save(ledger)
            sizes = (file_size(event) or 0 for report in pending for event in report.events)
            yield Started(path, facts, sum(sizes))
            for step in delivery.deliver(pending):
                match step:
                    case Sent():
                        yield Progress(path, step.size)
                    case Acknowledged():
                        ledger = ledger.acknowledge(step.reports)
                        held.save(ledger)
                        events, files, size = events + step.events, files + step.files, size + step.size
    if settled is not None and ledger.settled != settled:
        held.save(replace(ledger, settled=settled, facts=facts.stored()))
    if pending:
        task = ledger.task or ""
        yield Delivered(path, facts, task, ledger.url, events, files, size, planned.notes)
    else:
        yield UpToDate(path, facts, ledger.task, ledger.url)
