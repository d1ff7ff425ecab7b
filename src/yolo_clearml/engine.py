"""The loop: look, plan, subtract the ledger, deliver the rest, note what was acknowledged.

`visit` does that for one run, `sync` for a stream of them: a stream that ends is ``upload``, one that gives
a run again whenever something changed is ``watch``. Both yield Outcomes and know no terminal; they import
neither clearml nor matplotlib, which the sink does when there is something to send.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import (
    HoldsLess,
    OurFault,
    RunBusy,
    RunGone,
    RunUnreadable,
    TaskOffLimits,
    UsageError,
    YoloClearmlError,
)
from .events import Plan, RunState
from .finding import Found
from .ledger import Held, Ledger, Ledgers, settled_stamp
from .places import left_out, notes, unreadable
from .rules import Wishes, fitness_by_epoch, main_metric, plan
from .scan import NotARun, Run, listing, scan
from .sinks import Acknowledged, Noted, Prover, Reminder, Revived, Sent, Sink, acknowledged

if TYPE_CHECKING:
    from .compare import Verdict

_CURVE = 16  # values; as many characters of a line


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
    latest: float | None = None  # value of the main metric
    fitness: float | None = None  # the best so far
    curve: tuple[float, ...] = ()  # of the fitness, a few values evenly spaced
    events: int = 0  # points, images and plots that there are to tell by now
    left_out: tuple[str, ...] = ()  # files that are there and not sent, each with why; all in `missing` too

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
    """Everything there was to tell is acknowledged."""

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
    revived: bool = False  # the server had stopped the task meanwhile, for it had heard nothing of it


@dataclass(frozen=True, slots=True)
class UpToDate:
    """There was nothing to tell, or it was not asked to be told."""

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
    """A look, without sending: there is something to tell."""

    run: Path
    facts: Facts
    task_id: str | None
    url: str | None
    pending: int  # events that are still to be sent; 0: only what is no event, as a status


Outcome: TypeAlias = "Started | Progress | Delivered | UpToDate | Skipped | Failed | Gone"


class Lazily:
    """Makes a sink when the first run needs it, once for all of them."""

    def __init__(self, make: Callable[[], Sink], load: Callable[[], object] | None = None) -> None:
        """Make it with ``make``; ``load`` does of that what takes long and can be done before."""
        self._make, self._load = make, load
        self._loading: threading.Thread | None = None
        self._lock = threading.Lock()
        self._sink: Sink | None = None

    def __call__(self) -> Sink:
        """Give the sink; runs that need it at the same time wait for the one that makes it."""
        with self._lock:
            if self._sink is None:
                if self._loading is not None:
                    self._loading.join()
                self._sink = self._make()
            return self._sink

    def begin(self) -> None:
        """Say that a run will need it: what takes long is begun in a thread of its own, the first time.

        What goes wrong there is met again, and told, by whoever makes it. The thread keeps the process from
        ending, for Python does not bear that in the middle of an import.
        """
        with self._lock:
            load, self._load = self._load, None
            if load is not None and self._sink is None:
                self._loading = threading.Thread(target=_without_a_word, args=(load,), name="load")
                self._loading.start()

    def renew(self) -> None:
        """Make another one next time: a sink remembers who did not answer, and does not ask again."""
        with self._lock:
            self._sink = None


def _without_a_word(load: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        load()


class Aim(Enum):
    """What a visit is for."""

    DELIVER = "deliver"
    DELIVER_AND_VERIFY = "deliver and verify"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class _Live:
    """A live run as the last visit left it, everything told."""

    key: str
    task: str
    settled: str  # stamp of its files
    outcome: UpToDate


@dataclass(slots=True)
class Work:
    """What is done with each run, and how."""

    sink: Lazily  # made when the first run has something to send
    ledgers: Ledgers
    server_hint: str  # changes when the server may have; known without asking the sink
    wishes: Wishes = field(default_factory=Wishes)
    stale_after: float | None = None  # seconds; None: see scan.scan
    force: bool = False  # send everything again, into the same task
    new: bool = False  # make a new task
    aim: Aim = Aim.DELIVER
    task_id: str | None = None  # complete this task, whoever made it
    follow: tuple[Path, ...] = ()  # real paths of folders that a link in a run may lead into
    silence: float | None = None  # seconds, after which a live run's task is told so unasked; None: never
    now: Callable[[], float] = time.time  # seconds since the epoch
    live: dict[Path, _Live] = field(default_factory=dict)
    asked: str = field(init=False)  # all that a plan depends on beside the run, in words

    def __post_init__(self) -> None:
        self.asked = repr((self.wishes, self.stale_after))  # what is followed shows in the listing


@dataclass(frozen=True, slots=True)
class Visit:
    """A run to be visited."""

    run: Path
    keep_alive: bool = False  # where there is nothing to tell a live run's task, tell it that


def sync(
    runs: Iterable[Found | Visit | Gone | None],
    work: Work,
    jobs: int = 1,
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Bring ClearML up to date with every run that ``runs`` gives, in turn; yields what happens.

    At most ``jobs`` runs at a time, and none at the same time as itself if ``runs`` does not give it again
    before its last outcome was yielded; a None says that there is nothing to visit at the moment, and a Gone
    is passed on. A run that fails does not stop the others; an error that all of them would meet is met by
    the sink once. After ``stop`` is set no further run is begun. Raises what ``runs`` raises.
    """
    stop = stop or threading.Event()
    outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def visit_one(asked: Visit) -> None:
        try:
            if not stop.is_set():
                for outcome in visit(asked.run, work, asked.keep_alive):
                    outcomes.put(outcome)
                    if stop.is_set():
                        break
        except Exception as fault:  # noqa: BLE001  nothing is swallowed, and the other runs are not to blame
            error = OurFault(
                f"Unforeseen {type(fault).__name__}: {fault}.",
                "This is a fault of yolo-clearml's own; report it.",
            )
            error.__cause__ = fault
            outcomes.put(Failed(asked.run, Facts(), error))
        finally:
            outcomes.put(None)

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="run") as pool:
        under_way = 0
        try:
            for item in runs:
                if stop.is_set():
                    break
                if isinstance(item, NotARun):
                    yield Skipped(item.path, item.reason, item.hint)
                elif isinstance(item, Gone):
                    yield item
                elif item is not None:
                    asked = item if isinstance(item, Visit) else Visit(item)
                    settled = _if_settled(asked.run, work)
                    if settled is not None:
                        yield settled
                    else:
                        pool.submit(visit_one, asked)
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


def _if_settled(path: Path, work: Work) -> UpToDate | None:
    """Recognise a run that has nothing to tell, as most: to hand it to a thread would cost more than this."""
    try:
        looked = _settled(path, work)
    except Exception:  # noqa: BLE001  the visit meets it as well, and tells
        return None
    return looked if isinstance(looked, UpToDate) else None


def _settled(path: Path, work: Work, unasked: bool = False) -> UpToDate | tuple[str, Ledger]:
    """Compare the files with what the ledger says; where it is not the same, give both.

    Where ClearML's configuration has changed since, the server is to be asked first, but for a look that is
    to be ``unasked``.
    """
    settled = settled_stamp(listing(path, work.follow), work.asked)
    ledger = work.ledgers.load(path)
    sure = ledger.configured == work.server_hint
    proven = sure and ledger.verified == settled
    enough = work.aim is Aim.DELIVER or (work.aim is Aim.DELIVER_AND_VERIFY and proven)
    chosen = work.task_id in (None, ledger.task)
    if ledger.settled == settled and (sure or unasked) and enough and chosen and not (work.force or work.new):
        facts = Facts.restored(ledger.facts)
        return UpToDate(path, facts, ledger.task, ledger.url, verified=proven, unsure=not sure)
    return settled, ledger


@dataclass(slots=True)
class _SoFar:
    """What is known of a run when something goes wrong with it."""

    facts: Facts = field(default_factory=Facts)
    ledger: Ledger = field(default_factory=Ledger)
    pending: int | None = None  # events
    events: int = 0  # acknowledged in this visit
    files: int = 0
    size: int = 0  # bytes of files
    notes: tuple[str, ...] = ()  # that came up while it was looked at and delivered
    unread: RunUnreadable | None = None  # what is to be said of files that the run has and nobody may read
    revived: bool = False  # as in Delivered


def visit(path: Path, work: Work, keep_alive: bool = False) -> Iterator[Outcome]:
    """Bring ClearML up to date with one run; the last outcome says how it went, and that it is over."""
    so_far = _SoFar()
    try:
        outcome = yield from _visited(path, work, keep_alive, so_far)
    except HoldsLess as less:
        outcome = Skipped(path, str(less), less.hint)
        if so_far.unread is not None:
            outcome = _failed(path, so_far.unread, so_far)  # it may hold less for that alone
    except YoloClearmlError as error:
        outcome = _failed(path, error, so_far)
    yield outcome


def standing(path: Path, work: Work) -> UpToDate | Pending | Skipped | Failed:
    """Tell how one run stands, from its directory and its ledger alone."""
    so_far = _SoFar()
    try:
        looked = _look(path, work, so_far, unasked=True)
    except YoloClearmlError as error:
        return _failed(path, error, so_far)
    if not isinstance(looked, _Looked):
        return looked
    ledger = so_far.ledger if so_far.ledger.run == looked.planned.key else Ledger()
    pending = acknowledged(ledger.pending(looked.planned)).events
    if so_far.unread is not None:
        so_far.pending = pending
        return _failed(path, so_far.unread, so_far)
    if ledger.pending(looked.planned):
        return Pending(path, so_far.facts, ledger.task, ledger.url, pending)
    unsure = ledger.configured != work.server_hint
    return UpToDate(path, so_far.facts, ledger.task, ledger.url, looked.again, unsure=unsure)


def _failed(path: Path, error: YoloClearmlError, so_far: _SoFar) -> Failed:
    _drop_frames(error)
    there = os.path.lexists(path)
    failure = error if there else RunGone(f"{path} is not there any more.", "Give the path it has now.")
    ledger = so_far.ledger
    return Failed(
        path,
        so_far.facts,
        failure,
        ledger.task,
        ledger.url,
        so_far.pending,
        so_far.events,
        so_far.files,
        so_far.size,
    )


@dataclass(frozen=True, slots=True)
class _Looked:
    """A run that was scanned and planned, because its ledger does not say that it is settled."""

    planned: Plan
    settled: str  # stamp of the files before they were read
    live: bool
    again: float | None  # as in Delivered
    notes: tuple[str, ...]  # of files that are links or pointers


def _look(path: Path, work: Work, so_far: _SoFar, unasked: bool = False) -> _Looked | UpToDate | Skipped:
    looked = _settled(path, work, unasked)
    if isinstance(looked, UpToDate):
        return looked
    settled, ledger = looked
    so_far.ledger = ledger
    if not unasked and (not ledger.sent or work.force or work.new or work.aim is not Aim.DELIVER):
        with contextlib.suppress(OSError):
            if (path / "results.csv").lstat().st_size:  # then there is something to send, or to read back
                work.sink.begin()
    run = scan(path, work.now(), work.stale_after, work.follow)
    if isinstance(run, NotARun):
        return Skipped(path, run.reason, run.hint, run.again)
    planned = plan(run, work.wishes)
    if not work.new and work.task_id is None:
        planned, so_far.notes = _as_made(planned, ledger, work.wishes)
    so_far.facts = facts_of(run, planned, work.wishes)
    unread, live = unreadable(path, run.places), run.state is RunState.LIVE
    if unread is not None and live:  # which is looked at again anyway, and must be kept alive
        so_far.notes += (f"{unread} {unread.hint}",)
    else:
        so_far.unread = unread
    return _Looked(planned, settled, live, run.again, tuple(notes(run.places)))


def _visited(path: Path, work: Work, keep_alive: bool, so_far: _SoFar) -> Generator[Outcome, None, Outcome]:
    known = work.live.pop(path, None)
    if keep_alive and known is not None and _kept_alive(path, known, work, so_far):
        work.live[path] = known
        return known.outcome
    looked = _look(path, work, so_far)
    if not isinstance(looked, _Looked):
        return looked
    # looking again must find the same: a run that ended is settled, one that lives is not
    # nor is one with a file that could not be read: to be readable changes nothing that is listed
    settled = None if looked.live or so_far.unread else looked.settled
    alive = looked.live and (keep_alive or _unheard(path, work))
    if work.aim is Aim.VERIFY:
        ledger = so_far.ledger
        outcome: Delivered | UpToDate = UpToDate(
            path, so_far.facts, ledger.task, ledger.url, notes=looked.notes
        )
    else:
        with work.ledgers.hold(path) as held:
            outcome = yield from _deliver(path, looked.planned, held, settled, alive, work, so_far)
    if work.aim is not Aim.DELIVER:
        outcome = replace(outcome, proof=_prove(path, looked, settled, work))
    if so_far.unread is not None and not (outcome.proof and outcome.proof.differences):
        told = " ".join((so_far.unread.hint, *outcome.notes))  # a failure has no notes of its own
        raise RunUnreadable(str(so_far.unread), told)
    if looked.live and outcome.task_id is not None:
        facts, task, url = outcome.facts, outcome.task_id, outcome.url
        same = UpToDate(path, facts, task, url, looked.again)
        work.live[path] = _Live(looked.planned.key, task, looked.settled, same)
    return replace(outcome, again=looked.again)


def _kept_alive(path: Path, known: _Live, work: Work, so_far: _SoFar) -> bool:
    """Tell a live run's task that it goes on, where that is all there is to do; else False."""
    again = known.outcome.again
    same = settled_stamp(listing(path, work.follow), work.asked) == known.settled
    sink = work.sink()
    if not same or (again is not None and work.now() >= again) or not isinstance(sink, Reminder):
        return False
    so_far.facts, so_far.pending = known.outcome.facts, 0
    so_far.ledger = Ledger(task=known.task, url=known.outcome.url)
    return sink.keep_alive(known.task, known.key)


def _unheard(path: Path, work: Work) -> bool:
    """Tell whether a run's task has heard nothing for long; its ledger is written whenever it hears."""
    if work.silence is None:
        return False
    written = work.ledgers.written(path)
    # a time that is yet to come says nothing
    return written is not None and not 0 <= work.now() - written < work.silence


def _prove(path: Path, looked: _Looked, settled: str | None, work: Work) -> Verdict:
    """Read everything back; that it was the same is remembered until something changes."""
    sink = work.sink()
    if not isinstance(sink, Prover):
        raise UsageError(
            "There is no server to read anything back from.", "Leave --offline or --dry-run out to verify."
        )
    there = work.ledgers.load(path)
    ours = there.run == looked.planned.key and there.server == work.sink().server
    ledger = there if ours else Ledger()
    verdict = sink.verify(looked.planned, path, ledger.task, ledger.copy)
    verdict = replace(verdict, unsent=ledger.task is not None and bool(ledger.pending(looked.planned)))
    if ledger.task is not None and verdict.task_id != ledger.task:
        # the task was deleted, whatever there is instead: nothing that was acknowledged is there any more
        known = replace(ledger, task=None, url=None, sent={}, settled=None, verified=None)
    elif verdict.differences:
        known = replace(ledger, verified=None)
    else:
        proven = ledger.settled == settled and ledger.configured == work.server_hint
        known = replace(ledger, verified=settled if proven else None)
    if known != ledger:  # ours, then
        with contextlib.suppress(RunBusy), work.ledgers.hold(path) as held:
            if held.ledger == ledger:  # what was verified, not what another call has made of it meanwhile
                held.save(known)
    return verdict


def _drop_frames(error: BaseException | None) -> None:
    """Let go of the frames an error went through: kept with thousands of failures, each holds a whole run."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def facts_of(run: Run, planned: Plan, wishes: Wishes) -> Facts:
    """Collect what a line of output says of a run."""
    asked = run.args.get("epochs")
    metric = main_metric(run)
    fitness = fitness_by_epoch(run, wishes)
    return Facts(
        project=planned.project,
        name=planned.name,
        tags=planned.tags,
        state=run.state,
        epochs=len(run.table.rows),
        of_epochs=asked if type(asked) is int else None,
        best=metric[:2] if metric else None,
        latest=metric[2] if metric else None,
        fitness=max(fitness, default=None),
        curve=tuple(float(f"{value:.4g}") for value in _evenly(fitness, _CURVE)),
        events=acknowledged(planned.reports).events,
        missing=planned.missing,
        left_out=left_out(run.places),
    )


def _evenly(values: Sequence[float], most: int) -> Sequence[float]:
    """Take so many values at the most, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


def _as_made(planned: Plan, ledger: Ledger, wishes: Wishes) -> tuple[Plan, tuple[str, ...]]:
    """A task keeps the project, name and tags it was made with; say so where others are wished for."""
    made = Facts.restored(ledger.facts)
    if ledger.run != planned.key or ledger.task is None or made.project is None or made.name is None:
        return planned, ()
    kept = replace(planned, project=made.project, name=made.name, tags=made.tags)
    if kept == planned or wishes == Wishes(rules=wishes.rules):
        return kept, ()
    note = (
        f"ClearML holds this run already, as {made.name!r} in {made.project!r}, and it is left there:"
        " --project, --name and --tags are for a task that is made; --new makes one."
    )
    return kept, (note,)


@contextlib.contextmanager
def _given_up_if_off_limits(held: Held) -> Iterator[None]:
    """Let the next --new make another task where a person has closed the one that was begun."""
    try:
        yield
    except TaskOffLimits:
        if held.ledger.anew:
            held.save(replace(held.ledger, anew=False))
        raise


def _deliver(
    path: Path,
    planned: Plan,
    held: Held,
    settled: str | None,
    alive: bool,
    work: Work,
    so_far: _SoFar,
) -> Generator[Outcome, None, Delivered | UpToDate]:
    # another training, in the same directory before this one, may have written the ledger there is
    ledger = held.ledger if held.ledger.run == planned.key else Ledger(run=planned.key)
    if work.task_id not in (None, ledger.task):
        ledger = Ledger(run=planned.key)
    # a --new that was killed goes on with what it had begun: run again, it must not make one task more
    anew = work.new and not ledger.anew
    pending = planned.reports if work.force or anew else ledger.pending(planned)
    so_far.ledger, so_far.pending = ledger, acknowledged(pending).events
    if pending or alive or ledger.configured != work.server_hint:
        sink = work.sink()
        server = sink.server
        elsewhere = server is not None and server != ledger.server
        if not elsewhere and ledger.task is not None and ledger.configured != work.server_hint:
            # a server that was set up anew, or is at the end of a tunnel, may have the address of another
            elsewhere = not sink.has(ledger.task)
        if elsewhere:
            ledger, pending = Ledger(server=server, run=planned.key), planned.reports
            anew = work.new
        if ledger.configured != work.server_hint:  # nobody has read anything back from here
            ledger = replace(ledger, configured=work.server_hint, verified=None)
    if pending or alive:
        if anew:
            copy = os.urandom(4).hex()
            ledger = replace(ledger, task=None, url=None, sent={}, copy=copy, settled=None, anew=True)
            held.save(ledger)  # before the task is made: a crash must not cost a second one
        with (
            _given_up_if_off_limits(held),
            work.sink().open(planned, path, ledger.task, ledger.copy, work.task_id) as delivery,
        ):
            if delivery.fresh:
                ledger, pending = replace(ledger, sent={}), planned.reports
            # what was sent before has changed on disk since, and so it goes over what ClearML holds
            over = {report.key for report in pending} if work.force else set(ledger.sent)
            facts = so_far.facts.stored()
            # a proof is of what was there before this delivery
            known = replace(ledger, task=delivery.task_id, url=delivery.url, facts=facts)
            known = replace(known, settled=None, verified=None)
            so_far.ledger, so_far.pending = known, acknowledged(pending).events
            if pending:
                # before the first event: a crash must cost neither a second task nor what --force asked for
                ledger = known.forget(pending, over)
                held.save(ledger)
                yield Started(path, so_far.facts, acknowledged(pending).size)
            for step in delivery.deliver(pending, over):
                match step:
                    case Sent():
                        yield Progress(path, step.size)
                    case Acknowledged():
                        ledger = ledger.acknowledge(step.reports)
                        held.save(ledger)
                        so_far.pending -= acknowledged(step.reports).events
                        so_far.events += step.events
                        so_far.files += step.files
                        so_far.size += step.size
                    case Noted():
                        so_far.notes += (step.text,)
                    case Revived():
                        so_far.revived = True
    asked = ledger.configured != held.ledger.configured
    word = alive and not pending and work.silence is not None  # see `_unheard`
    if ledger.anew or asked or word or (settled is not None and ledger.settled != settled):
        held.save(replace(ledger, settled=settled, anew=False, facts=so_far.facts.stored()))
    if not pending:
        notes = so_far.notes if settled is not None else ()  # or it would be said at every look
        task, url = ledger.task, ledger.url
        return UpToDate(path, so_far.facts, task, url, notes=notes, revived=so_far.revived)
    sent = (so_far.events, so_far.files, so_far.size)
    told = (*planned.notes, *so_far.notes)
    return Delivered(path, so_far.facts, ledger.task or "", ledger.url, *sent, told, revived=so_far.revived)
