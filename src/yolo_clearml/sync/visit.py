"""One run: look, plan, subtract the ledger, deliver the rest, note what was acknowledged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import system
from ..errors import (
    HoldsLess,
    RunBusy,
    RunGone,
    RunUnreadable,
    TaskOffLimits,
    UsageError,
    YoloClearmlError,
)
from ..events import Plan, RunState
from ..replay.rules import Wishes, fitness_by_epoch, main_metric, plan
from ..replay.wanted import Wanted, in_words
from ..rundir.further import with_further
from ..rundir.identity import run_key
from ..rundir.listing import listing
from ..rundir.places import left_out, notes, unreadable
from ..rundir.run import NotARun, Run
from ..rundir.scan import scan
from ..rundir.tuning import beside
from .family import children_left
from .ledger import Held, Ledger, settled_stamp
from .outcomes import Delivered, Facts, Failed, Outcome, Pending, Progress, Skipped, Started, UpToDate
from .placing import as_found, as_made, put_in_place
from .sinks import Acknowledged, Noted, Prover, Reminder, Revived, Sent, acknowledged
from .verdict import Verdict
from .work import Aim, Live, Work

_CURVE = 16  # values; as many characters of a line


def recognised(path: Path, work: Work, unasked: bool = False) -> UpToDate | tuple[str, Ledger]:
    """Compare the files with what the ledger holds; where it is not the same, give both.

    Where ClearML's configuration has changed since, the server is to be asked first, but for a look that is
    to be ``unasked``.
    """
    ledger = work.ledgers.load(path)
    wanted = work.wanted_of(ledger.wanted)
    settled = _stamp(path, work, wanted)
    sure = ledger.configured == work.server_hint
    proven = sure and ledger.verified == settled
    enough = work.aim is Aim.DELIVER or (work.aim is Aim.DELIVER_AND_VERIFY and proven)
    chosen = work.task_id in (None, ledger.task)
    chosen = chosen and wanted.stored() == ledger.wanted
    asked = work.force or work.new or work.move  # of the server, whatever the ledger knows
    if ledger.settled == settled and (sure or unasked) and enough and chosen and not asked:
        facts = Facts.restored(ledger.facts)
        return UpToDate(path, facts, ledger.task, ledger.url, verified=proven, unsure=not sure)
    return settled, ledger


def _stamp(path: Path, work: Work, wanted: Wanted) -> str:
    """Stamp all files that a visit looks at."""
    further = wanted.further(work.follow).listed(path)
    listed = listing(path, work.follow)
    return settled_stamp((*listed, *beside(path, listed), *further), work.asked)


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
    unread: RunUnreadable | None = None  # of files that the run has and nobody may read
    revived: bool = False  # as in Delivered
    moved: str | None = None  # where its task was moved from and to, in a sentence
    wanted: Wanted = field(default_factory=Wanted)  # asked for now, or remembered
    links: tuple[str, ...] = ()  # files that are links or pointers, in sentences


def visit(path: Path, work: Work, keep_alive: bool = False) -> Iterator[Outcome]:
    """Bring ClearML up to date with one run; the last outcome shows how it went, and that it is over."""
    so_far = _SoFar()
    try:
        outcome = yield from _visited(path, work, keep_alive, so_far)
    except HoldsLess as less:
        # with what is behind a link it may hold all of it
        outcome = Skipped(path, str(less), " ".join(so_far.links) or less.hint)
        if so_far.unread is not None:
            outcome = _failed(path, so_far.unread, so_far)  # it may hold less for that alone
    except YoloClearmlError as error:
        outcome = _failed(path, error, so_far)
    yield outcome


def standing(path: Path, work: Work) -> UpToDate | Pending | Skipped | Failed:
    """Give how one run stands, from its directory and its ledger alone."""
    so_far = _SoFar()
    try:
        looked = _look(path, work, so_far, unasked=True)
    except YoloClearmlError as error:
        return _failed(path, error, so_far)
    if not isinstance(looked, _Looked):
        return looked
    ledger = _of_run(so_far.ledger, looked.planned.key)
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
    there = os.path.lexists(system.reach(path))
    error = error if so_far.moved is None else error.after(so_far.moved)
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
    """A run that was scanned and planned, because its ledger does not show that it is settled."""

    planned: Plan
    settled: str  # stamp of the files before they were read
    live: bool
    again: float | None  # as in Delivered
    notes: tuple[str, ...]  # of files that are links or pointers


def _look(path: Path, work: Work, so_far: _SoFar, unasked: bool = False) -> _Looked | UpToDate | Skipped:
    looked = recognised(path, work, unasked)
    if isinstance(looked, UpToDate):
        return looked
    settled, ledger = looked
    so_far.ledger = ledger
    if not unasked and (
        not ledger.sent or work.force or work.new or work.move or work.aim is not Aim.DELIVER
    ):
        with contextlib.suppress(OSError):
            if (path / "results.csv").lstat().st_size:  # then there is something to send, or to read back
                work.sink.begin()
    run = scan(path, work.now(), work.stale_after, work.follow)
    if isinstance(run, NotARun):
        return Skipped(path, run.reason, run.hint, run.again)
    so_far.wanted = work.wanted_of(_of_run(ledger, run_key(run)).wanted)
    run = with_further(run, so_far.wanted.further(work.follow))
    planned = so_far.wanted.chosen(plan(run, work.wishes), run, work.wishes.rules)
    if not work.new and work.task_id is None:
        planned, so_far.notes = as_made(planned, ledger, work)
    so_far.facts = _with_left_out(facts_of(run, planned, work.wishes), ledger, planned)
    so_far.links = tuple(notes(run.places))
    unread, live = unreadable(path, run.places), run.state is RunState.LIVE
    if unread is not None and live:  # which is looked at again anyway, and must be kept alive
        so_far.notes += (f"{unread} {unread.hint}",)
    else:
        so_far.unread = unread
    return _Looked(planned, settled, live, run.again, so_far.links)


def _of_run(ledger: Ledger, key: str) -> Ledger:
    """Give a ledger, or an empty one where it is of another training in the same directory."""
    return ledger if ledger.run == key else Ledger(run=key)


def _with_left_out(facts: Facts, ledger: Ledger, planned: Plan) -> Facts:
    return replace(facts, without=tuple(in_words(ledger.left_out(planned))))


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
    alive = looked.live and (keep_alive or _needs_ping(path, work))
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
        hints = " ".join((so_far.unread.hint, *outcome.notes))  # a failure has no notes of its own
        raise RunUnreadable(str(so_far.unread), hints)
    if looked.live and outcome.task_id is not None:
        facts, task, url = outcome.facts, outcome.task_id, outcome.url
        same = UpToDate(path, facts, task, url, looked.again)
        work.live[path] = Live(looked.planned.key, task, looked.settled, same)
    return replace(outcome, again=looked.again)


def _kept_alive(path: Path, known: Live, work: Work, so_far: _SoFar) -> bool:
    """Ping a live run's task, so that it goes on, where that is all there is to do; else False."""
    again = known.outcome.again
    same = _stamp(path, work, work.wanted_of({})) == known.settled
    sink = work.sink()
    if not same or (again is not None and work.now() >= again) or not isinstance(sink, Reminder):
        return False
    so_far.facts, so_far.pending = known.outcome.facts, 0
    so_far.ledger = Ledger(task=known.task, url=known.outcome.url)
    return sink.keep_alive(known.task, known.key)


def _needs_ping(path: Path, work: Work) -> bool:
    """Check whether a run's task has had no report or ping for long; its ledger is written at each."""
    if work.silence is None:
        return False
    written = work.ledgers.written(path)
    # a time that is yet to come proves nothing
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
    # what was sent before it was left out is compared, and all where another server was told what is wanted
    unwanted = ledger.left_out(looked.planned) if ours or work.wanted is not None else frozenset()
    verdict = sink.verify(replace(looked.planned, unwanted=unwanted), path, ledger.task, ledger.copy)
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
    """Collect what a line of output shows of a run."""
    asked = run.tuning.asked if run.tuning is not None else run.args.get("epochs")
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
        events=acknowledged(planned.wanted).events,
        missing=planned.missing,
        left_out=left_out(run.places),
    )


def _evenly(values: Sequence[float], most: int) -> Sequence[float]:
    """Take so many values at the most, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


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
    empty = Ledger(run=planned.key, wanted=so_far.wanted.stored())
    ledger = replace(held.ledger, wanted=empty.wanted) if held.ledger.run == planned.key else empty
    if work.task_id not in (None, ledger.task):
        ledger = empty
    # a --new that was killed goes on with what it had begun: run again, it must not make one task more
    anew = work.new and not ledger.anew
    pending = planned.wanted if work.force or anew else ledger.pending(planned)
    so_far.ledger, so_far.pending = ledger, acknowledged(pending).events
    if pending or alive or work.move or ledger.configured != work.server_hint:
        sink = work.sink()
        server = sink.server
        elsewhere = server is not None and server != ledger.server
        if not elsewhere and ledger.task is not None and ledger.configured != work.server_hint:
            # a server that was set up anew, or is at the end of a tunnel, may have the address of another
            elsewhere = not sink.has(ledger.task)
        if elsewhere:
            ledger, pending = replace(empty, server=server), planned.wanted
            anew = work.new
        if ledger.configured != work.server_hint:  # nobody has read anything back from here
            ledger = replace(ledger, configured=work.server_hint, verified=None)
    if work.move:
        before = ledger
        ledger, so_far.moved = put_in_place(planned, ledger, so_far.facts, work)
        if ledger.task != before.task:  # it is not in ClearML any more
            pending = planned.wanted
        elif ledger != before:
            held.save(ledger)
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
                ledger, pending = replace(ledger, sent={}), planned.wanted
                so_far.facts, left_there = as_found(delivery, so_far.facts, work)
                so_far.notes += (left_there,) if left_there else ()
            so_far.facts = _with_left_out(so_far.facts, ledger, planned)
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
    waits_for = children_left(path, ledger.pending(planned))
    if waits_for:
        settled = None  # what is to become of them is not shown by the files here
    asked = (ledger.configured, ledger.wanted) != (held.ledger.configured, held.ledger.wanted)
    pinged = alive and not pending and work.silence is not None  # see `_needs_ping`
    if ledger.anew or asked or pinged or (settled is not None and ledger.settled != settled):
        held.save(replace(ledger, settled=settled, anew=False, facts=so_far.facts.stored()))
    if not pending:
        notes = so_far.notes if settled is not None else ()  # or it would be repeated at every look
        notes = notes if so_far.moved is None else (*planned.notes, *so_far.notes, so_far.moved)
        task, url = ledger.task, ledger.url
        return UpToDate(
            path, so_far.facts, task, url, notes=notes, revived=so_far.revived, waits_for=waits_for
        )
    sent = (so_far.events, so_far.files, so_far.size)
    all_notes = (*planned.notes, *so_far.notes, *filter(None, [so_far.moved]))
    return Delivered(
        *(path, so_far.facts, ledger.task or "", ledger.url, *sent, all_notes),
        revived=so_far.revived,
        waits_for=waits_for,
    )
