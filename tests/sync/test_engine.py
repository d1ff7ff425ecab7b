"""What one visit does, step by step, with a sink in memory: what is reported, and what is remembered."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from test_rules import rows_of
from test_scan import BEGAN, ENDED, JPEG, ROWS, WROTE, put, run_of, training

from yolo_clearml.errors import OurFault, RunGone, ServerFailing, UsageError
from yolo_clearml.events import STATUS, Plan, Report, RunState
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.identity import run_key
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, Ledger, NoLedgers
from yolo_clearml.sync.outcomes import (
    Delivered,
    Facts,
    Failed,
    Gone,
    Outcome,
    Pending,
    Progress,
    Skipped,
    Started,
    UpToDate,
)
from yolo_clearml.sync.sinks import Noted, RecordingSink, Sent, Step, acknowledged
from yolo_clearml.sync.verdict import Difference, Kind, Verdict
from yolo_clearml.sync.visit import facts_of, standing, visit
from yolo_clearml.sync.work import Aim, Lazily, Visit, Work

SERVER = "http://localhost:8008"
LONG_AFTER = ENDED + 1e6
WRONG = Difference(Kind.SCALAR, "a", "b", 1, "1", None)


@dataclass
class Opened:
    """How a task was opened, and what was delivered to it."""

    task_id: str | None
    copy: str
    given: str | None
    before: Ledger  # on disk, when it was opened
    keys: list[str] | None = None  # None: nothing was delivered, not even nothing
    over: set[str] = field(default_factory=set)
    known: Ledger = field(default_factory=Ledger)  # on disk, when the delivery began


@dataclass
class Memory:
    """A sink that takes each report alone, and fails at the report of key ``fails``."""

    server: str | None = SERVER
    fresh: bool = False
    fails: str = ""
    notes: tuple[str, ...] = ()
    on: dict[str, Callable[[], object]] = field(default_factory=dict)  # by a report's key
    answer: Verdict = field(default_factory=lambda: Verdict("t1", "url", 5, (), ()))
    opened: list[Opened] = field(default_factory=list)
    asked: list[tuple[str | None, str]] = field(default_factory=list)

    def has(self, task_id: str) -> bool:
        return self.fails != "gone"

    @contextmanager
    def open(
        self, plan: Plan, root: Path, task_id: str | None, copy: str, given: str | None = None
    ) -> Iterator[Parcel]:
        opened = Opened(task_id, copy, given, FileLedgers().load(root))
        self.opened.append(opened)
        if self.fails == "open":
            raise ServerFailing("It fails.", "Try again.")
        yield Parcel(self, root, opened, given or task_id or "t1", "url", self.fresh)

    def verify(self, plan: Plan, root: Path, task_id: str | None, copy: str) -> Verdict:
        assert plan.key == run_key(run_of(root, LONG_AFTER))
        self.asked.append((task_id, copy))
        return self.answer


@dataclass
class Parcel:
    sink: Memory
    root: Path
    opened: Opened
    task_id: str
    url: str | None
    fresh: bool

    def deliver(self, reports: Sequence[Report], over: Collection[str] = ()) -> Iterator[Step]:
        self.opened.keys, self.opened.over = [], set(over)
        self.opened.known = FileLedgers().load(self.root)
        yield from map(Noted, self.sink.notes)
        for report in reports:
            self.sink.on.get(report.key, lambda: None)()
            if report.key == self.sink.fails:
                raise ServerFailing("It fails.", "Try again.")
            told = acknowledged([report])
            if told.size:
                yield Sent(told.size)
            self.opened.keys.append(report.key)
            yield told


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return training(tmp_path / "train")


@pytest.fixture
def sink() -> Memory:
    return Memory()


def work(sink: Memory, **more: object) -> Work:
    options = {"server_hint": "conf", "now": lambda: LONG_AFTER, **more}
    return Work(Lazily(lambda: sink), FileLedgers(), **options)  # type: ignore[arg-type]


def last(path: Path, sink: Memory, keep_alive: bool = False, **more: Any) -> Outcome:
    *_, outcome = visit(path, work(sink, **more), keep_alive)
    return outcome


def planned(path: Path, now: float = LONG_AFTER) -> Plan:
    return plan(run_of(path, now), Wishes())


def everything(path: Path) -> dict[str, str]:
    return {report.key: report.digest for report in planned(path).reports}


def load(path: Path) -> Ledger:
    return FileLedgers().load(path)


def grow(path: Path) -> None:
    """Another value in the last row, and so another digest of one report."""
    put(path / "results.csv", rows_of(*ROWS[:2], ROWS[2].replace("0.3", "0.31", 1)), WROTE)


# -- a visit


def test_a_first_visit_reports_everything_and_remembers_it(run: Path, sink: Memory) -> None:
    """Every step, every count, and the ledger to the last field."""
    of = planned(run)
    told = acknowledged(of.reports)
    facts = facts_of(run_of(run), of, Wishes())
    started, *progress, delivered = visit(run, work(sink))
    assert Started(run, facts, told.size) == started
    assert [run] * 10 == [step.run for step in progress]
    assert told.size == sum(step.size for step in progress if isinstance(step, Progress))
    assert Delivered(run, facts, "t1", "url", told.events, told.files, told.size, ()) == delivered
    (opened,) = sink.opened
    assert (None, "", None, Ledger(), set()) == (
        opened.task_id,
        opened.copy,
        opened.given,
        opened.before,
        opened.over,
    )
    assert [report.key for report in of.reports] == opened.keys
    # the task is known before the first event
    common = Ledger(server=SERVER, run=of.key, task="t1", url="url", configured="conf", facts=facts.stored())
    assert replace(opened.known, facts=common.facts) == common
    assert json.loads(json.dumps(common.facts)) == load(run).facts == opened.known.facts
    ledger = load(run)
    assert replace(common, sent=everything(run), settled=ledger.settled) == replace(
        ledger, facts=common.facts
    )
    assert ledger.settled


def test_a_second_visit_asks_nobody(run: Path, sink: Memory) -> None:
    """What was reported is known from the ledger alone: its facts, the task, its address."""
    first = last(run, sink)
    assert isinstance(first, Delivered)
    before = load(run)
    again = list(visit(run, Work(Lazily(lambda: pytest.fail("asked")), FileLedgers(), "conf")))
    assert [UpToDate(run, first.facts, "t1", "url")] == again
    assert before == load(run)


def test_what_changed_goes_over_what_is_there(run: Path, sink: Memory) -> None:
    """It and the status; of these the ones reported before go over, and the next visit knows them."""
    last(run, sink)
    grow(run)
    of = planned(run)
    outcome = last(run, sink)
    assert isinstance(outcome, Delivered)
    assert ("t1", ["epoch/2", STATUS]) == (sink.opened[1].task_id, sink.opened[1].keys)
    assert {report.key for report in of.reports} == sink.opened[1].over
    sent = sink.opened[1].known.sent
    assert ("", "", True) == (sent["epoch/2"], sent[STATUS], sink.opened[1].known.settled is None)
    assert (5, 0, 0) == (outcome.events, outcome.files, outcome.size)
    assert everything(run) == load(run).sent


@pytest.mark.parametrize("key", ["args/General", "epoch/1", "plot/results", "model", STATUS])
def test_what_was_acknowledged_before_a_fault_is_remembered(run: Path, sink: Memory, key: str) -> None:
    """The outcome counts it and what is left; the next visit reports the rest, and that alone."""
    of = planned(run)
    keys = [report.key for report in of.reports]
    arrived = acknowledged(of.reports[: keys.index(key)])
    left = acknowledged(of.reports[keys.index(key) :])
    sink.fails = key
    failed = last(run, sink)
    facts = facts_of(run_of(run), of, Wishes())
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ServerFailing)
    assert (
        Failed(
            run,
            facts,
            failed.error,
            "t1",
            "url",
            left.events,
            arrived.events,
            arrived.files,
            arrived.size,
        )
        == failed
    )
    error: BaseException | None = failed.error
    assert error is not None
    assert error.__traceback__ is None
    assert (set(keys[: keys.index(key)]), None) == (set(load(run).sent), load(run).settled)
    assert Pending(run, facts, "t1", "url", left.events) == standing(run, work(sink))
    sink.fails = ""
    assert isinstance(last(run, sink), Delivered)
    assert keys[keys.index(key) :] == sink.opened[1].keys
    assert everything(run) == load(run).sent


def test_a_task_that_cannot_be_opened_leaves_nothing(run: Path, sink: Memory) -> None:
    """All is still to be sent, and no ledger was written."""
    sink.fails = "open"
    failed = last(run, sink)
    assert isinstance(failed, Failed)
    told = acknowledged(planned(run).reports).events
    assert (None, None, told, 0) == (failed.task_id, failed.url, failed.pending, failed.events)
    assert Ledger() == load(run)


def test_an_error_lets_go_of_every_frame(run: Path) -> None:
    """Of its causes as well: thousands of failures would keep thousands of runs."""

    kept: list[BaseException] = []
    try:
        raise OSError("first")
    except OSError as first:
        kept.append(first)

    def refuse() -> Memory:
        try:
            raise ValueError("second") from kept[0]
        except ValueError as second:
            kept.append(second)
            raise ServerFailing("It fails.", "Try again.")  # noqa: B904  the context is the point

    *_, failed = visit(run, Work(Lazily(refuse), FileLedgers(), "conf", now=lambda: LONG_AFTER))
    assert isinstance(failed, Failed)
    assert kept[1] is failed.error.__context__
    assert [None] * 3 == [error.__traceback__ for error in (failed.error, *kept)]


def test_notes_are_of_the_plan_and_of_the_delivery(run: Path, sink: Memory) -> None:
    """In this order."""
    put(run / "args.yaml", (run / "args.yaml").read_text().replace("name: train", "name: t"), BEGAN)
    sink.notes = ("Something.", "More.")
    delivered = last(run, sink)
    assert isinstance(delivered, Delivered)
    assert (*planned(run).notes, "Something.", "More.") == delivered.notes
    assert 3 == len(delivered.notes)
    grow(run)
    delivered = last(run, sink, wishes=Wishes(project="Other"))
    assert isinstance(delivered, Delivered)
    first, second, *others = delivered.notes
    assert (planned(run).notes, True, [*sink.notes]) == ((first,), "--project" in second, others)


def test_force_sends_everything_over_everything(run: Path, sink: Memory) -> None:
    """Into the same task, known or not; and a forced visit that breaks off is gone on with."""
    keys = [report.key for report in planned(run).reports]
    first = Memory()
    last(run, first, force=True)
    assert (keys, set(keys)) == (first.opened[0].keys, first.opened[0].over)
    (run / LEDGER_NAME).unlink()
    last(run, sink)
    assert isinstance(last(run, sink, force=True), Delivered)
    assert ("t1", keys, set(keys)) == (sink.opened[1].task_id, sink.opened[1].keys, sink.opened[1].over)
    sink.fails = "epoch/1"
    last(run, sink, force=True)
    sink.fails = ""
    last(run, sink)
    assert keys[keys.index("epoch/1") :] == sink.opened[3].keys
    assert set(keys) == sink.opened[3].over


def test_new_makes_another_task_that_is_distinct_before_it_is_made(run: Path, sink: Memory) -> None:
    """A crash between the two finds the same one."""
    last(run, sink)
    sink.fails = "open"
    last(run, sink, new=True)
    opened = sink.opened[1]
    assert (None, True) == (opened.task_id, opened.before == load(run))
    before = opened.before
    assert (SERVER, planned(run).key, None, None, {}, None) == (
        before.server,
        before.run,
        before.task,
        before.url,
        before.sent,
        before.settled,
    )
    assert opened.copy == before.copy
    assert 8 == len(opened.copy)
    assert int(opened.copy, 16) >= 0
    sink.fails = ""
    assert isinstance(last(run, sink), Delivered)
    assert (opened.copy, None, list(everything(run))) == (
        sink.opened[2].copy,
        sink.opened[2].task_id,
        sink.opened[2].keys,
    )
    assert isinstance(last(run, sink, new=True), Delivered)
    assert opened.copy != sink.opened[3].copy


def test_everything_is_reported_to_a_task_that_holds_nothing(run: Path, sink: Memory) -> None:
    """Whatever the ledger says it had."""
    last(run, sink)
    grow(run)
    sink.fresh = True
    assert isinstance(last(run, sink), Delivered)
    assert (list(everything(run)), set()) == (sink.opened[1].keys, sink.opened[1].over)


def test_everything_is_reported_to_another_server_and_nothing_for_another_configuration(
    run: Path, sink: Memory
) -> None:
    """The configuration says only that the server must be asked for; a server without a name is any."""
    first = last(run, sink)
    assert isinstance(first, Delivered)
    for server in (SERVER, None):
        sink.server = server
        assert UpToDate(run, first.facts, "t1", "url") == last(run, sink, server_hint=f"other {server}")
        assert (f"other {server}", SERVER) == (load(run).configured, load(run).server)
    assert 1 == len(sink.opened)
    sink.server = "http://elsewhere"
    assert isinstance(last(run, sink, server_hint="third"), Delivered)
    assert (None, "", list(everything(run)), set()) == (
        sink.opened[1].task_id,
        sink.opened[1].copy,
        sink.opened[1].keys,
        sink.opened[1].over,
    )
    assert ("http://elsewhere", "third") == (load(run).server, load(run).configured)


def test_everything_is_reported_to_another_server_behind_the_same_configuration(
    run: Path, sink: Memory
) -> None:
    """Whenever there is something to report, who it is reported to is looked at."""
    last(run, sink)
    grow(run)
    sink.server = "http://elsewhere"
    assert isinstance(last(run, sink), Delivered)
    assert (None, list(everything(run))) == (sink.opened[1].task_id, sink.opened[1].keys)


def test_what_a_given_task_lacks_is_reported_to_it(run: Path, sink: Memory) -> None:
    """Another one than before, of which nothing is known; the same again is up to date."""
    last(run, sink)
    assert isinstance(last(run, sink, task_id="t9"), Delivered)
    opened = sink.opened[1]
    assert (None, "t9", set(), list(everything(run))) == (
        opened.task_id,
        opened.given,
        opened.over,
        opened.keys,
    )
    assert "t9" == load(run).task
    assert isinstance(last(run, sink, task_id="t9"), UpToDate)
    assert isinstance(last(run, sink), UpToDate)
    assert 2 == len(sink.opened)
    grow(run)
    last(run, sink, task_id="t9")
    assert (["epoch/2", STATUS], set(everything(run))) == (sink.opened[2].keys, sink.opened[2].over)
    sink.server = None
    last(run, sink, task_id="t8")
    assert (planned(run).key, "t8") == (load(run).run, load(run).task)


def test_a_server_without_a_name_is_remembered_as_any(run: Path) -> None:
    """What it has of this training is known, and the facts are written anew where they were lost."""
    sink = Memory(server=None)
    last(run, sink)
    before = load(run)
    assert (None, planned(run).key) == (before.server, before.run)
    with FileLedgers().hold(run) as held:
        held.save(replace(before, facts={}, settled=None))
    assert isinstance(last(run, sink), UpToDate)
    assert (before, 1) == (load(run), len(sink.opened))


def test_another_training_in_the_same_place_begins_anew(run: Path, sink: Memory) -> None:
    """Nothing of the ledger is of it."""
    last(run, sink)
    put(run / "results.csv", rows_of(ROWS[0].replace(",30,", ",31,"), *ROWS[1:]), WROTE + 1)
    pending = standing(run, work(sink))
    assert isinstance(pending, Pending)
    assert (None, None) == (pending.task_id, pending.url)
    assert isinstance(last(run, sink), Delivered)
    assert (None, "", set()) == (sink.opened[1].task_id, sink.opened[1].copy, sink.opened[1].over)
    assert planned(run).key == load(run).run


def test_what_a_plan_depends_on_unsettles_a_run(tmp_path: Path, sink: Memory) -> None:
    """The time after which a run counts as dead, and other rules: the files are as they were."""
    path = training(tmp_path / "train", stripped=False)
    assert isinstance(last(path, sink), Delivered)
    assert load(path).settled
    alive = last(path, sink, stale_after=1e9)
    assert isinstance(alive, Delivered)
    assert (RunState.LIVE, STATUS in (sink.opened[1].keys or ())) == (alive.facts.state, True)
    assert isinstance(last(path, sink), Delivered)
    assert isinstance(last(path, sink, wishes=Wishes(rules=(8, 3, 20))), Delivered)
    assert "epoch/0" in (sink.opened[3].keys or ())


# -- a run that lives


def test_a_live_run_is_never_settled_and_is_kept_alive_when_asked(tmp_path: Path, sink: Memory) -> None:
    """Nothing is reported where there is nothing to report, but for the ping that it goes on."""
    path = training(tmp_path / "train", stripped=False)
    now: dict[str, Any] = {"now": lambda: ENDED}
    again = run_of(path, ENDED).again
    assert again is not None
    first = last(path, sink, **now)
    assert isinstance(first, Delivered)
    assert (again, None, RunState.LIVE) == (first.again, load(path).settled, first.facts.state)
    assert UpToDate(path, first.facts, "t1", "url", again) == last(path, sink, **now)
    assert UpToDate(path, first.facts, "t1", "url", again) == standing(path, work(sink, **now))
    assert 1 == len(sink.opened)
    kept = list(visit(path, work(sink, **now), keep_alive=True))
    assert [UpToDate(path, first.facts, "t1", "url", again)] == kept
    assert ("t1", []) == (sink.opened[1].task_id, sink.opened[1].keys)
    # dead by now: the status alone, and then nothing, asked or not
    dead = last(path, sink, keep_alive=True)
    assert isinstance(dead, Delivered)
    assert (None, RunState.STOPPED) == (dead.again, dead.facts.state)
    assert "t1" == sink.opened[2].task_id
    assert STATUS in (sink.opened[2].keys or ())
    assert isinstance(last(path, sink, keep_alive=True), UpToDate)
    put(path / "labels.jpg", JPEG, WROTE + 1)  # the same content: it is looked at, and nothing is reported
    assert isinstance(last(path, sink, keep_alive=True), UpToDate)
    assert 3 == len(sink.opened)


def test_what_is_no_run_is_skipped_with_a_time_to_look_again(tmp_path: Path, sink: Memory) -> None:
    """Without a ledger, and without a sink."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "results.csv", "epoch,time\n", WROTE)
    expected = Skipped(path, "has not finished an epoch yet", "Nothing to report yet.", WROTE + 1800)
    now: dict[str, Any] = {"now": lambda: ENDED}
    assert [expected, expected] == [last(path, sink, **now), standing(path, work(sink, **now))]
    assert ([], Ledger()) == (sink.opened, load(path))


def test_a_run_that_vanished_has_failed(run: Path, sink: Memory) -> None:
    """Also while it was visited, whatever the error was."""
    visiting = visit(run, work(sink))
    assert isinstance(next(visiting), Started)
    shutil.rmtree(run)
    *_, failed = visiting
    for outcome in (failed, last(run, sink), standing(run, work(sink))):
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, RunGone)
        assert f"{run} is not there any more." == str(outcome.error)
        assert "Give the path it has now." == outcome.error.hint


# -- how it stands


def test_a_settled_run_is_not_read_to_show_how_it_stands(run: Path, sink: Memory) -> None:
    """Its listing shows it, whatever server is configured by now; to deliver to another one, it is read."""
    delivered = last(run, sink)
    args = run / "args.yaml"
    times = (args.stat().st_atime_ns, args.stat().st_mtime_ns)
    args.write_bytes(b"[" + args.read_bytes()[1:])
    os.utime(args, ns=times)
    assert isinstance(delivered, Delivered)
    assert UpToDate(run, delivered.facts, "t1", "url") == standing(run, work(sink))
    unsure = UpToDate(run, delivered.facts, "t1", "url", unsure=True)
    assert unsure == standing(run, work(sink, server_hint="other"))
    assert isinstance(last(run, sink, server_hint="other"), Failed)


def test_how_a_run_stands_is_known_without_a_server(run: Path, sink: Memory) -> None:
    """All is pending, then nothing; what is remembered is shown of a settled one."""
    facts = facts_of(run_of(run), planned(run), Wishes())
    told = acknowledged(planned(run).reports).events
    assert Pending(run, facts, None, None, told) == standing(run, work(sink))
    last(run, sink)
    assert UpToDate(run, facts, "t1", "url") == standing(run, work(sink))
    unsure = standing(run, work(sink, server_hint="other"))  # may be of another server; nobody asks it
    assert UpToDate(run, facts, "t1", "url", unsure=True) == unsure
    grow(run)
    pending = standing(run, work(sink))
    assert isinstance(pending, Pending)
    assert ("t1", "url", 5) == (pending.task_id, pending.url, pending.pending)
    (run / "args.yaml").write_text("[")
    broken = standing(run, work(sink))
    assert isinstance(broken, Failed)
    assert ("t1", None) == (broken.task_id, broken.pending)
    assert 1 == len(sink.opened)


# -- what a task was made with


def test_a_task_keeps_what_it_was_made_with(run: Path, sink: Memory) -> None:
    """Project, name and tags; whoever wishes for others gets a note, and --new makes one that has them."""
    assert isinstance(last(run, sink, wishes=Wishes("P/Q", "my run", ("a",))), Delivered)
    grow(run)
    delivered = last(run, sink)
    assert isinstance(delivered, Delivered)
    assert ("P/Q", "my run", ("a",), ()) == (
        delivered.facts.project,
        delivered.facts.name,
        delivered.facts.tags,
        delivered.notes,
    )
    note = (
        "ClearML holds this run already, as 'my run' in 'P/Q', and it is left there:"
        " --project, --name and --tags are for a task that is made. 'upload --move' gives it another project"
        " or name, --new makes another."
    )
    for number, (wishes, notes) in enumerate(
        [
            (Wishes("P/Q", "my run", ("a",)), ()),
            (Wishes(rules=(8, 4, 190)), ()),
            (Wishes(project="Other"), (note,)),
            (Wishes(name="other"), (note,)),
            (Wishes(tags=("b",)), (note,)),
        ]
    ):
        put(run / "labels.jpg", JPEG.replace(b"....", b"...%d" % number, 1), WROTE + number)
        delivered = last(run, sink, wishes=wishes)
        assert isinstance(delivered, Delivered)
        assert (notes, "P/Q", "my run") == (delivered.notes, delivered.facts.project, delivered.facts.name)
    silent = last(run, sink, wishes=Wishes(tags=("b",)))
    told = last(run, sink, wishes=Wishes(name="another"))  # said once, and then it is settled
    again = last(run, sink, wishes=Wishes(name="another"))
    assert isinstance(silent, UpToDate)
    assert isinstance(told, UpToDate)
    assert isinstance(again, UpToDate)
    assert ((), (note,), ()) == (silent.notes, told.notes, again.notes)
    for options in ({"task_id": "t9"}, {"new": True}):
        delivered = last(run, sink, wishes=Wishes(name="other"), **options)
        assert isinstance(delivered, Delivered)
        assert ("other", ()) == (delivered.facts.name, delivered.notes)


@pytest.mark.parametrize("facts", [{}, {"project": "p"}, {"name": "n"}])
def test_a_task_of_unknown_names_keeps_none(run: Path, sink: Memory, facts: dict[str, object]) -> None:
    """Where the ledger does not hold both, the run's own are shown."""
    last(run, sink)
    with FileLedgers().hold(run) as held:
        held.save(replace(held.ledger, facts=facts))
    grow(run)
    delivered = last(run, sink)
    assert isinstance(delivered, Delivered)
    assert ("Ultralytics", "train") == (delivered.facts.project, delivered.facts.name)


def test_names_are_of_one_training_and_of_one_task(run: Path, sink: Memory) -> None:
    """Neither the next training in the same place nor the task after a lost one has them."""
    wishes = Wishes("P/Q", "my run", ("a",))
    last(run, sink, wishes=wishes)
    put(run / "results.csv", rows_of(ROWS[0].replace(",30,", ",31,"), *ROWS[1:]), WROTE + 1)
    delivered = last(run, sink)
    assert isinstance(delivered, Delivered)
    assert "Ultralytics" == delivered.facts.project
    put(run / "results.csv", rows_of(ROWS[0].replace(",30,", ",32,"), *ROWS[1:]), WROTE + 2)
    last(run, sink, wishes=wishes)
    sink.answer = Verdict(None, None, 0, (WRONG,), ())
    last(run, sink, aim=Aim.VERIFY)
    delivered = last(run, sink)
    assert isinstance(delivered, Delivered)
    assert "Ultralytics" == delivered.facts.project


# -- proof


def test_a_proof_is_remembered_until_something_changes(run: Path, sink: Memory) -> None:
    """What was delivered is read back; then nobody is asked, until it is asked for alone."""
    aim: dict[str, Any] = {"aim": Aim.DELIVER_AND_VERIFY}
    delivered = last(run, sink, **aim)
    assert isinstance(delivered, Delivered)
    assert (sink.answer, [("t1", "")]) == (delivered.proof, sink.asked)
    assert load(run).settled == load(run).verified is not None
    known = UpToDate(run, delivered.facts, "t1", "url", verified=True)
    assert [known, known] == [last(run, sink, **aim), last(run, sink)]
    assert 1 == len(sink.asked)
    asked = last(run, sink, aim=Aim.VERIFY)
    assert UpToDate(run, delivered.facts, "t1", "url", proof=sink.answer) == asked
    assert 2 == len(sink.asked)
    grow(run)
    outcome = last(run, sink, aim=Aim.VERIFY)
    assert isinstance(outcome, UpToDate)
    assert replace(sink.answer, unsent=True) == outcome.proof
    assert (1, None) == (len(sink.opened), load(run).verified)  # of files that were not sent
    assert isinstance(last(run, sink), Delivered)
    assert isinstance(last(run, sink, **aim), UpToDate)
    assert (2, 4) == (len(sink.opened), len(sink.asked))
    assert load(run).settled == load(run).verified is not None


def test_reading_back_writes_nothing_that_was_known(run: Path, sink: Memory) -> None:
    """Of a run that was never sent no ledger is made, and one that says it already is left alone."""
    sink.answer = Verdict(None, None, 0, (WRONG,), ())
    last(run, sink, aim=Aim.VERIFY)
    assert ([(None, "")], Ledger()) == (sink.asked, load(run))
    assert not (run / LEDGER_NAME).exists()
    sink.answer = Verdict("t1", "url", 5, (), ())
    last(run, sink, aim=Aim.DELIVER_AND_VERIFY)
    before = (run / LEDGER_NAME).stat()
    last(run, sink, aim=Aim.VERIFY)
    after = (run / LEDGER_NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_task_that_is_lost_after_its_proof_is_reported_again(run: Path, sink: Memory) -> None:
    """Neither the task nor the proof is remembered."""
    last(run, sink, aim=Aim.DELIVER_AND_VERIFY)
    before = load(run)
    assert before.verified
    sink.answer = Verdict(None, None, 0, (WRONG,), ())
    last(run, sink, aim=Aim.VERIFY)
    assert replace(before, verified=None, task=None, url=None, sent={}, settled=None) == load(run)


def test_a_difference_forgets_the_proof_and_a_lost_task_everything(run: Path, sink: Memory) -> None:
    """So that the next upload makes it good."""
    last(run, sink, aim=Aim.DELIVER_AND_VERIFY)
    before = load(run)
    sink.answer = replace(sink.answer, differences=(WRONG,))
    outcome = last(run, sink, aim=Aim.VERIFY)
    assert isinstance(outcome, UpToDate)
    assert sink.answer == outcome.proof
    assert replace(before, verified=None) == load(run)
    sink.answer = Verdict(None, None, 0, (WRONG,), ())
    last(run, sink, aim=Aim.VERIFY)
    assert replace(before, verified=None, task=None, url=None, sent={}, settled=None) == load(run)
    last(run, sink, aim=Aim.VERIFY)
    assert [("t1", ""), ("t1", ""), ("t1", ""), (None, "")] == sink.asked
    assert isinstance(last(run, sink), Delivered)
    assert list(everything(run)) == sink.opened[1].keys


def test_what_is_sent_after_a_proof_is_not_proven(run: Path, sink: Memory) -> None:
    """All of it again, into another task, or into one that was reset: the same files, and nobody looked."""
    for options, fresh in (({"force": True}, False), ({"new": True}, False), ({"force": True}, True)):
        last(run, sink, aim=Aim.DELIVER_AND_VERIFY)
        assert load(run).settled == load(run).verified is not None
        sink.fresh = fresh
        assert isinstance(last(run, sink, **options), Delivered)
        assert (True, None) == (load(run).settled is not None, load(run).verified)
        sink.fresh = False
        outcome = last(run, sink)
        assert isinstance(outcome, UpToDate)
        assert not outcome.verified


def test_of_another_server_or_training_nothing_is_remembered(run: Path, sink: Memory) -> None:
    """The task is looked for by the run's key, and the ledger stays as it was."""
    last(run, sink)
    before = load(run)
    sink.server = "http://elsewhere"
    outcome = last(run, sink, aim=Aim.VERIFY)
    assert ([(None, "")], before) == (sink.asked, load(run))
    assert isinstance(outcome, UpToDate)
    assert sink.answer == outcome.proof  # nothing is known to be missing of a task that is not known
    sink.server = SERVER
    put(run / "results.csv", rows_of(ROWS[0].replace(",30,", ",31,"), *ROWS[1:]), WROTE + 1)
    last(run, sink, aim=Aim.VERIFY)
    assert ([(None, ""), (None, "")], before) == (sink.asked, load(run))


def test_a_proof_is_no_reason_to_write_over_what_another_call_knows(
    run: Path, sink: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is still at work, or has been while everything was read back."""
    last(run, sink)
    before = load(run)
    verify = sink.verify
    with FileLedgers().hold(run):
        assert isinstance(last(run, sink, aim=Aim.VERIFY), UpToDate)
    assert before == load(run)
    other = replace(before, url="other")

    def meanwhile(*arguments: object) -> Verdict:
        with FileLedgers().hold(run) as held:
            held.save(other)
        return verify(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sink, "verify", meanwhile)
    last(run, sink, aim=Aim.VERIFY)
    assert other == load(run)


def test_a_rehearsal_has_no_task(run: Path) -> None:
    """What it would have reported is counted like anything that is."""
    *_, delivered = visit(run, Work(Lazily(RecordingSink), NoLedgers(), "conf", now=lambda: LONG_AFTER))
    assert isinstance(delivered, Delivered)
    told = acknowledged(planned(run).reports)
    assert ("", None, told.events) == (delivered.task_id, delivered.url, delivered.events)


def test_where_nothing_can_be_read_back_that_is_stated(run: Path) -> None:
    """A rehearsal has no server."""
    of = Work(Lazily(RecordingSink), FileLedgers(), "conf", aim=Aim.VERIFY, now=lambda: LONG_AFTER)
    *_, failed = visit(run, of)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, UsageError)
    assert "There is no server to read anything back from." == str(failed.error)


# -- facts


FACTS = Facts(
    left_out=("weights/best.pt: a link",),
    project="p",
    name="n",
    tags=("a", "b"),
    state=RunState.STOPPED,
    epochs=3,
    of_epochs=9,
    best=("mAP", 0.5),
    latest=0.25,
    fitness=0.125,
    curve=(0.1, 0.2),
    events=7,
    missing=("a", "b"),
    without=("model",),
)


def test_facts_survive_a_ledger() -> None:
    """Every one of them, as JSON has it; without any of them they are unknown."""
    assert FACTS == Facts.restored(json.loads(json.dumps(FACTS.stored())))
    assert Facts() == Facts.restored(Facts().stored()) == Facts.restored({})
    assert not [name for name in Facts.__slots__ if getattr(FACTS, name) == getattr(Facts(), name)]


@pytest.mark.parametrize("name", Facts.__slots__)
def test_facts_that_were_not_stored_are_unknown_and_the_others_are_not(name: str) -> None:
    """As an earlier version leaves them out."""
    stored = {key: value for key, value in FACTS.stored().items() if key != name}
    unknown: dict[str, Any] = {name: getattr(Facts(), name)}
    assert replace(FACTS, **unknown) == Facts.restored(stored)
    assert replace(FACTS, **unknown) == Facts.restored(replace(FACTS, **unknown).stored())


def test_facts_are_of_their_kinds() -> None:
    """Whole numbers are numbers as well, and what is to be text is."""
    stored = {"best": [5, 1], "latest": 1, "fitness": 2, "curve": [3], "tags": [5], "missing": [6]}
    facts = Facts.restored({**stored, "epochs": 4.0, "events": 7.0})
    told = (facts.best, facts.latest, facts.fitness, facts.curve, facts.tags, facts.missing)
    assert repr((("5", 1.0), 1.0, 2.0, (3.0,), ("5",), ("6",))) == repr(told)
    assert repr((4, 7)) == repr((facts.epochs, facts.events))


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "asleep"},
        {"best": ["mAP"]},
        {"best": {"a": 1}},
        {"best": 5},
        {"epochs": "many"},
        {"epochs": None},
        {"latest": "x"},
        {"fitness": []},
        {"curve": 5},
        {"curve": ["x"]},
        {"tags": 5},
        {"missing": None},
    ],
)
def test_facts_that_do_not_fit_are_unknown(wrong: dict[str, object]) -> None:
    """A ledger that another version wrote is no reason to fail."""
    assert Facts() == Facts.restored({**FACTS.stored(), **wrong})


def test_the_facts_of_a_run(run: Path) -> None:
    """What is shown in a line, with a curve of sixteen values at most, the first and the last among them."""
    rows = [f"{n},{n},1,0.5,{'nan' if n == 7 else n / 3000},1" for n in range(1, 33)]
    for count in (32, 17, 16):
        put(run / "results.csv", rows_of(*rows[:count]), WROTE)
        seen = run_of(run)
        facts = facts_of(seen, plan(seen, Wishes()), Wishes())
        finite = [n for n in range(1, count + 1) if n != 7]
        points = [finite[round(i * (len(finite) - 1) / 15)] for i in range(16)] if count > 16 else finite
        assert facts == Facts(
            name="train",
            state=RunState.FINISHED,
            epochs=count,
            of_epochs=3,
            best=("mAP50-95(B)", count / 3000),
            missing=plan(seen, Wishes()).missing,
            project="Ultralytics",
            tags=("Ultralytics",),
            latest=count / 3000,
            fitness=count / 3000,
            curve=tuple(float(f"{n / 3000:.4g}") for n in points),
            events=acknowledged(plan(seen, Wishes()).reports).events,
        )
        assert min(count, 16) - (count == 16) == len(facts.curve)
    put(run / "results.csv", rows_of(*rows[:2], "3,3,1,0.5,0.0,1"), WROTE)
    seen = run_of(run)
    facts = facts_of(seen, plan(seen, Wishes()), Wishes())
    assert (("mAP50-95(B)", 2 / 3000), 0.0, 2 / 3000) == (facts.best, facts.latest, facts.fitness)
    odd = replace(seen, args={"epochs": "x"}, table=replace(seen.table, columns=("a",) * 5))
    facts = facts_of(odd, plan(seen, Wishes()), Wishes())
    assert (None, None, None, None, ()) == (
        facts.of_epochs,
        facts.best,
        facts.latest,
        facts.fitness,
        facts.curve,
    )


# -- many runs


def test_what_a_look_for_runs_gives_is_passed_on(tmp_path: Path, run: Path, sink: Memory) -> None:
    """Runs by path or with a wish, what is none, what is gone, and pauses; each run ends once."""
    other = training(tmp_path / "other", name="other")
    found = [None, NotARun(tmp_path, "why", "what", 5.0), Gone(tmp_path / "gone"), run, Visit(other), None]
    outcomes = list(sync(iter(found), work(sink), jobs=2))
    assert [Skipped(tmp_path, "why", "what"), Gone(tmp_path / "gone")] == outcomes[:2]
    assert {run, other} == {outcome.run for outcome in outcomes if isinstance(outcome, Delivered)}
    again = list(sync([run, Visit(other, keep_alive=True)], work(sink)))
    assert [(UpToDate, run), (UpToDate, other)] == [(type(outcome), outcome.run) for outcome in again]
    assert 2 == len(sink.opened)


def test_a_run_that_has_nothing_to_report_is_handed_to_nobody(run: Path, sink: Memory) -> None:
    """Most have not, and a thread would cost more than the look."""
    last(run, sink)
    looked: list[bool] = []

    class Noting(FileLedgers):
        def load(self, run: Path) -> Ledger:
            looked.append(threading.current_thread() is threading.main_thread())
            return super().load(run)

    (outcome,) = sync([run], replace_ledgers(work(sink), Noting()))
    assert isinstance(outcome, UpToDate)
    assert [True] == looked


def test_what_has_happened_is_yielded_while_there_is_nothing_to_visit(run: Path, sink: Memory) -> None:
    """A stream that goes on for ever would else never end a run."""
    ended = threading.Event()
    seen = []

    def runs() -> Iterator[Path | None]:
        yield run
        for _ in range(1000):
            if ended.wait(0.01):
                break
            yield None
        seen.append(ended.is_set())

    for outcome in sync(runs(), work(sink)):
        if isinstance(outcome, Delivered):
            ended.set()
    assert [True] == seen


def test_a_live_run_of_a_stream_is_kept_alive(tmp_path: Path, sink: Memory) -> None:
    """If the stream says so."""
    path = training(tmp_path / "train", stripped=False)
    of = work(sink, now=lambda: ENDED)
    for visited in (path, Visit(path), Visit(path, keep_alive=True)):
        list(sync([visited], of))
    assert [True, []] == [bool(sink.opened[0].keys), sink.opened[1].keys]
    assert 2 == len(sink.opened)


def test_a_fault_of_ours_is_reported_and_stops_no_other(tmp_path: Path, run: Path, sink: Memory) -> None:
    """With its cause, for the traceback; nothing of it is swallowed."""
    other = training(tmp_path / "other", name="other")

    class Odd(FileLedgers):
        def load(self, run: Path) -> Ledger:
            if run == other:
                raise ZeroDivisionError("odd")
            return super().load(run)

    of = replace_ledgers(work(sink), Odd())
    outcomes = {outcome.run: outcome for outcome in sync([other, run], of)}
    failed = outcomes[other]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, OurFault)
    assert "Unforeseen ZeroDivisionError: odd." == str(failed.error)
    assert "report it" in failed.error.hint
    assert isinstance(failed.error.__cause__, ZeroDivisionError)
    assert Facts() == failed.facts
    assert isinstance(outcomes[run], Delivered)


def replace_ledgers(of: Work, ledgers: FileLedgers) -> Work:
    of.ledgers = ledgers
    return of


def test_after_a_stop_nothing_more_is_begun(tmp_path: Path, sink: Memory) -> None:
    """Neither another run nor the pictures of this one; what was acknowledged is remembered."""
    paths = [training(tmp_path / name, name=name) for name in ("one", "two", "three", "four")]
    stop, taken = threading.Event(), list[Path]()

    def runs() -> Iterator[Path]:
        for path in paths:
            taken.append(path)
            yield path

    sink.on["epoch/1"] = stop.set
    seen = list(sync(runs(), work(sink), stop=stop))
    assert {paths[0]} == {outcome.run for outcome in seen}
    assert not [outcome for outcome in seen if isinstance(outcome, Delivered)]
    assert len(taken) < len(paths)
    assert ([True, False, False, False], 1) == ([bool(load(path).task) for path in paths], len(sink.opened))
    assert ("epoch/2" in load(paths[0]).sent, "model" in load(paths[0]).sent) == (True, False)
    assert [] == list(sync(runs(), work(sink), stop=stop))


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_runs_are_taken_than_can_wait(tmp_path: Path, sink: Memory, jobs: int) -> None:
    """As many as are at work and as many again, however slow they are; so memory does not grow."""
    paths = [training(tmp_path / f"r{n}", name=f"n{n}") for n in range(2 * jobs + 2)]
    taken: list[Path] = []
    enough = threading.Event()

    def runs() -> Iterator[Path]:
        for path in paths:
            taken.append(path)
            if len(taken) == 2 * jobs:
                enough.set()
            yield path

    class Slow(FileLedgers):
        def load(self, run: Path) -> Ledger:
            if threading.current_thread() is not threading.main_thread():
                enough.wait(5)
            return super().load(run)

    outcomes = sync(runs(), replace_ledgers(work(sink), Slow()), jobs)
    first = next(outcomes)
    assert 2 * jobs == len(taken)
    delivered = [outcome.run for outcome in (first, *outcomes) if isinstance(outcome, Delivered)]
    assert paths == (delivered if jobs == 1 else sorted(delivered))


def test_whoever_stops_listening_stops_it(tmp_path: Path, sink: Memory) -> None:
    """Nothing more is begun, and the threads are gone."""
    paths = [training(tmp_path / f"r{n}", name=f"r{n}") for n in range(6)]
    stop = threading.Event()
    outcomes = sync(paths, work(sink), stop=stop)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert stop.is_set()
    assert len(sink.opened) < 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("run")]


def test_what_the_stream_raises_is_raised(run: Path, sink: Memory) -> None:
    """After what is under way has ended; nothing more is begun."""
    stop = threading.Event()

    def runs() -> Iterator[Path]:
        yield run
        raise ZeroDivisionError("odd")

    with pytest.raises(ZeroDivisionError, match="odd"):
        list(sync(runs(), work(sink), stop=stop))
    assert stop.is_set()


def test_a_sink_is_made_once_and_again_when_renewed() -> None:
    """Also where several runs need it at the same time."""
    made: list[Memory] = []

    def make() -> Memory:
        time.sleep(0.01)
        made.append(Memory())
        return made[-1]

    lazily = Lazily(make)
    threads = [threading.Thread(target=lazily) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(made)
    assert lazily() is made[0]
    lazily.renew()
    assert lazily() is made[1]
    assert 2 == len(made)
