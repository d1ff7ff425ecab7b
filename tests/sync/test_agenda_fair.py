"""A watch is fair: whatever the other runs do, a run that is due is begun soon; a fake clock, as before."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from yolo_clearml.errors import RunUnreadable, ServerRefused
from yolo_clearml.events import RunState
from yolo_clearml.sync.agenda import Agenda
from yolo_clearml.sync.outcomes import Delivered, Facts, Failed, Outcome, UpToDate
from yolo_clearml.sync.work import Visit

BUSY = [Path(f"busy{number}") for number in range(20)]
FOUND = [Path(f"found{number}") for number in range(10)]
WALL = 1_800_000_000.0  # seconds since the epoch


def told(run: Path, state: RunState = RunState.LIVE) -> Delivered:
    return Delivered(run, Facts(name="train", state=state, epochs=3), "1" * 32, None, 5, 0, 0, ())


def up_to_date(run: Path, state: RunState = RunState.LIVE) -> UpToDate:
    return UpToDate(run, Facts(name="train", state=state, epochs=3), "1" * 32, None)


@dataclass
class Core:
    """An agenda, and a core so full that something is always due: a visit takes a second."""

    clock: float = 1.0
    begun: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agenda = Agenda(
            lambda: None, threading.Event(), now=lambda: WALL + self.clock, clock=lambda: self.clock
        )

    def begin(self) -> Path | None:
        item = self.agenda.due()
        if not isinstance(item, Visit):
            return None
        self.begun.append(item.run)
        return item.run

    def visit(self, outcome: Outcome | None = None) -> Path | None:
        run = self.begin()
        self.clock += 1.0
        if run is not None:
            self.agenda.settle(outcome or told(run))
        return run

    def grow(self) -> None:
        """Every busy run has another row."""
        for run in BUSY:
            self.agenda.notice(run, changed=True)


@pytest.fixture
def core() -> Core:
    return Core()


def test_what_was_found_late_is_begun_among_rows_without_end(core: Core) -> None:
    """Ten runs appear beside twenty whose rows come faster than they can be sent: each has its turn."""
    core.grow()
    core.clock += 1
    for _ in range(50):
        core.visit()
        core.grow()
    for run in FOUND:
        core.agenda.notice(run)
    for _ in range(2 * len(FOUND)):
        core.visit()
        core.grow()
    assert set(FOUND) <= set(core.begun[-2 * len(FOUND) :])


def test_what_was_found_first_and_grows_is_begun_before_later_rows(core: Core) -> None:
    """A run found at the start that changes while it waits has waited longer than rows that come then."""
    old = [Path(f"old{number}") for number in range(2000)]
    for run in old:
        core.agenda.notice(run)
    core.agenda.notice(FOUND[0])
    core.grow()
    core.clock += 1
    core.agenda.notice(FOUND[0], changed=True)
    assert FOUND[0] in [core.visit() for _ in range(2)]


def test_a_row_is_not_kept_waiting_by_a_pile_of_old_runs(core: Core) -> None:
    """Two thousand finished runs are looked at when a watch starts; a row has every other turn."""
    for number in range(2000):
        core.agenda.notice(Path(f"old{number}"))
    for _ in range(100):
        core.visit(None)
    core.agenda.notice(BUSY[0], changed=True)
    core.clock += 1
    assert BUSY[0] in [core.visit() for _ in range(2)]


def test_a_word_to_a_live_task_is_not_kept_waiting_by_rows(core: Core) -> None:
    """Or the server would stop a run of long epochs beside runs of short ones."""
    core.agenda.notice(FOUND[0])
    core.visit()
    core.grow()
    core.clock += 1
    for _ in range(3000):
        core.visit()
        core.grow()
    turns = [number for number, run in enumerate(core.begun) if run == FOUND[0]]
    # of 21 runs' words each comes when it is due, after a fortieth of the time in the end, and the next turn
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 3000 / 40 + 3


def test_a_word_that_is_late_passes_nobody(core: Core) -> None:
    """It was due while its run was being visited for long; who became due meanwhile has waited longer."""
    core.agenda.notice(FOUND[0])
    core.visit()
    core.agenda.notice(FOUND[0], changed=True)
    core.clock += 1
    assert FOUND[0] == core.begin()
    core.clock += 30  # its word is due within them
    core.agenda.notice(FOUND[1])
    core.clock += 10
    core.agenda.settle(up_to_date(FOUND[0]))
    assert [FOUND[1], FOUND[0]] == [core.begin(), core.begin()]


def test_a_rest_is_idle_where_nothing_is_under_way(core: Core) -> None:
    """What a run needs is begun by its visit; where there is none, there is time for what may be needed."""
    idle: list[float] = []
    agenda = Agenda(
        lambda: None,
        threading.Event(),
        clock=lambda: core.clock,
        rest=lambda _: None,
        idle=lambda: idle.append(core.clock),
    )
    items = iter(agenda)
    agenda.notice(FOUND[0])
    assert [Visit(FOUND[0]), None, None] == [next(items) for _ in range(3)]
    assert [] == idle
    agenda.settle(told(FOUND[0], RunState.FINISHED))
    next(items)
    next(items)
    assert idle


def test_changes_without_end_leave_no_trace(core: Core) -> None:
    """A run that waits stands in a queue once or twice, however often it changes meanwhile."""
    core.agenda.notice(FOUND[0])
    for _ in range(1000):
        core.agenda.notice(FOUND[0], changed=True)
    assert 2 >= len(core.agenda._changed) + len(core.agenda._others)
    assert [FOUND[0]] == [run for run in (core.begin() for _ in range(5)) if run is not None]
    core.agenda.settle(told(FOUND[0], RunState.FINISHED))
    core.clock += 10
    assert core.begin() is None


class Fair(RuleBasedStateMachine):
    """Whatever happens: while a run is due, others are begun at most twice as often as there are runs."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core()
        self.under_way: list[Path] = []
        self.waiting: dict[Path, int] = {}  # runs that are due: begins of others since

    @property
    def agenda(self) -> Agenda:
        return self.core.agenda

    @rule(number=st.integers(0, 7), changed=st.booleans())
    def notice(self, number: int, changed: bool) -> None:
        self.agenda.notice(BUSY[number], changed)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.31, 1.0, 40.0, 700.0, 1600.0]))
    def wait(self, seconds: float) -> None:
        self.core.clock += seconds

    @rule()
    def begin(self) -> None:
        run = self.core.begin()
        if run is None:
            assert not self.waiting
            return
        self.under_way.append(run)
        self.waiting.pop(run, None)
        for other in self.waiting:
            self.waiting[other] += 1

    @precondition(lambda self: self.under_way)
    @rule(
        data=st.data(),
        how=st.sampled_from(["told", "ended", "same", "refused", "unreadable"]),
    )
    def settle(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(run)
        outcomes: dict[str, Outcome] = {
            "told": told(run),
            "ended": told(run, RunState.FINISHED),
            "same": up_to_date(run),
            "refused": Failed(run, Facts(), ServerRefused("No.", "Wait.")),
            "unreadable": Failed(run, Facts(), RunUnreadable("What?", "Mend it.")),
        }
        self.agenda.settle(outcomes[how])

    @invariant()
    def nobody_waits_for_long(self) -> None:
        for path, run in self.agenda._runs.items():
            if run.due is not None and run.due <= self.core.clock and not run.busy:
                self.waiting.setdefault(path, 0)
        runs = len(self.agenda._runs)
        assert all(begins <= 2 * runs for begins in self.waiting.values())


Fair.TestCase.settings = settings(stateful_step_count=80)
TestFair = Fair.TestCase
