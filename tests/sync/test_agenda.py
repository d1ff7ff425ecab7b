"""Which run a watch visits next, and when: a fake clock, no disk, no server."""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MakeRun, long_after
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from yolo_clearml.errors import (
    FileNotTaken,
    FileServerUnreachable,
    NotConfigured,
    RunBusy,
    RunChanged,
    RunGone,
    RunUnreadable,
    ServerFailing,
    ServerRefused,
    ServerUnreachable,
    YoloClearmlError,
)
from yolo_clearml.events import RunState
from yolo_clearml.rundir.finding import Found
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync.agenda import Agenda, follow
from yolo_clearml.sync.ledger import NoLedgers
from yolo_clearml.sync.outcomes import (
    Delivered,
    Facts,
    Failed,
    Gone,
    Outcome,
    Progress,
    Skipped,
    Started,
    UpToDate,
)
from yolo_clearml.sync.sinks import RecordingSink
from yolo_clearml.sync.work import Lazily, Visit, Work

A, B, C = Path("a"), Path("b"), Path("c")
WALL = 1_800_000_000.0  # seconds since the epoch, when a test begins
SILENCE = 3.0  # seconds without a word that are dared at first, and the most in the end
KEEP_ALIVE = 1500.0


def facts(state: RunState) -> Facts:
    return Facts(name="train", state=state, epochs=3)


def delivered(run: Path, state: RunState = RunState.FINISHED, again: float | None = None) -> Delivered:
    return Delivered(run, facts(state), "1" * 32, None, 5, 1, 100, (), again)


def up_to_date(run: Path, state: RunState = RunState.FINISHED, again: float | None = None) -> UpToDate:
    return UpToDate(run, facts(state), "1" * 32, None, again)


def failed(run: Path, kind: type[YoloClearmlError] = ServerRefused) -> Failed:
    return Failed(run, Facts(), kind("It went wrong.", "Do something."))


def away(run: Path) -> Failed:
    return failed(run, ServerUnreachable)


class Time:
    """A clock that moves when asked to, and counts who waits for it."""

    def __init__(self) -> None:
        self.wall, self.clock = WALL, 0.1
        self.rests: list[float] = []
        self.asked = 0  # times before ClearML was asked again
        self.stop = threading.Event()
        self.later: Callable[[], None] = lambda: None  # what happens meanwhile

    def agenda(self, once: bool = False) -> Agenda:
        return Agenda(self.retry, self.stop, once, lambda: self.wall, lambda: self.clock, self.rest)

    def retry(self) -> None:
        self.asked += 1

    def rest(self, seconds: float) -> None:
        assert seconds > 0, "it spins"
        self.rests.append(seconds)
        self.go(min(seconds, 0.2))
        self.later()

    def go(self, seconds: float) -> None:
        self.wall, self.clock = self.wall + seconds, self.clock + seconds


@pytest.fixture
def time() -> Time:
    return Time()


def taken(agenda: Agenda) -> list[Path]:
    """Everything that is due now, in turn; it stays under way."""
    paths: list[Path] = []
    while (item := agenda.due()) is not None:
        paths.append(item.run if isinstance(item, Visit) else item.path)
    return paths


def when_due(agenda: Agenda, time: Time, within: float = 4000.0, step: float = 0.05) -> float:
    """Seconds from now until the next visit, which is then under way; inf if there is none."""
    began = time.clock
    while time.clock - began < within:
        if agenda.due() is not None:
            return round(time.clock - began, 3)
        time.go(step)
    return math.inf


def visited(agenda: Agenda, outcome: Outcome) -> None:
    """Let the one run that is due be visited with this outcome."""
    assert [outcome.run] == taken(agenda)
    agenda.settle(outcome)


# -- what is due, and in which order ----------------------------------------------------------------------


def test_what_was_found_is_due_at_once_and_in_order(time: Time) -> None:
    """A run found is visited without waiting, each once, in the order they were found."""
    agenda = time.agenda()
    for run in (B, A, C, A):
        agenda.notice(run)
    assert [B, A, C] == taken(agenda)


def test_a_change_waits_for_what_comes_with_it(time: Time) -> None:
    """A row, its checkpoint and its pictures come together: one visit, a moment after the first of them."""
    agenda = time.agenda()
    agenda.notice(A, changed=True)
    assert [] == taken(agenda)
    assert 0.2 <= when_due(agenda, time) <= 0.5


def test_further_changes_postpone_nothing(time: Time) -> None:
    """A file that is written without end keeps no visit off."""
    agenda = time.agenda()
    for _ in range(4):
        agenda.notice(A, changed=True)
        time.go(0.1)
    assert [A] == taken(agenda)


def test_what_changed_comes_before_what_waits_from_the_start(time: Time) -> None:
    """A row of a live run is not queued behind a thousand old runs."""
    agenda = time.agenda()
    for number in range(1000):
        agenda.notice(Path(f"old{number}"))
    agenda.notice(A, changed=True)
    time.go(1)
    item = agenda.due()
    assert isinstance(item, Visit)
    assert A == item.run


def test_a_found_run_that_changes_as_well_is_visited_once(time: Time) -> None:
    """Found and changed are one reason."""
    agenda = time.agenda()
    agenda.notice(A)
    agenda.notice(A, changed=True)
    time.go(1)
    assert [A] == taken(agenda)
    agenda.settle(up_to_date(A))
    time.go(10)
    assert [] == taken(agenda)


def test_a_run_is_not_given_while_it_is_visited(time: Time) -> None:
    """Whatever is noticed meanwhile, and it is visited again for that afterwards, once."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    for _ in range(3):
        agenda.notice(A, changed=True)
        agenda.notice(A)
        time.go(100)
        assert [] == taken(agenda)
    agenda.settle(delivered(A))
    assert 0.2 <= when_due(agenda, time) <= 0.5
    agenda.settle(up_to_date(A))
    assert math.inf == when_due(agenda, time)


def test_an_ended_run_is_left_alone_until_it_changes(time: Time) -> None:
    """A resume in place is noticed like anything else."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A))
    assert math.inf == when_due(agenda, time)
    assert [] == agenda.open_runs
    agenda.notice(A, changed=True)
    assert when_due(agenda, time) < 0.5


def test_steps_of_a_visit_end_nothing(time: Time) -> None:
    """Started and Progress leave the run under way."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    agenda.settle(Started(A, Facts(), 5))
    agenda.settle(Progress(A, 5))
    agenda.notice(A, changed=True)
    time.go(10)
    assert [] == taken(agenda)


# -- what only looks like a run ---------------------------------------------------------------------------


def test_what_is_no_run_is_given_once_for_each_reason(time: Time) -> None:
    """However often a look finds it; a folder that turns into another kind is named again."""
    agenda = time.agenda()
    for reason in ("is a validation", "is a validation", "is a prediction", "is a prediction"):
        agenda.notice(NotARun(A, reason, "Nothing to do."))
    assert [A, A] == taken(agenda)
    agenda.settle(Skipped(A, "is a validation", ""))
    assert ([], []) == (taken(agenda), agenda.open_runs)


def test_what_becomes_a_run_is_visited(time: Time) -> None:
    """The word that it was none leaves it open."""
    agenda = time.agenda(once=True)
    agenda.notice(NotARun(A, "is a prediction", "Nothing to do."))
    agenda.notice(A, changed=True)
    assert [A] == taken(agenda)
    agenda.settle(Skipped(A, "is a prediction", ""))
    assert [A] == agenda.open_runs
    assert when_due(agenda, time) < 0.5


def test_a_run_under_way_is_no_run_for_nobody(time: Time) -> None:
    """A word about its folder must not end the visit, or there could be two of them at a time."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    agenda.notice(NotARun(A, "is a validation", "Nothing to do."))
    assert [] == taken(agenda)
    agenda.settle(Skipped(B, "is a validation", ""))
    agenda.notice(A, changed=True)
    time.go(1)
    assert [] == taken(agenda)


# -- when time alone is a reason --------------------------------------------------------------------------


def test_again_is_kept(time: Time) -> None:
    """A live run is looked at when it counts as dead, if nothing is written by then."""
    agenda = time.agenda()
    agenda.notice(A)
    dead = time.wall + 700
    visited(agenda, delivered(A, RunState.LIVE, again=dead))
    visits = []
    while time.wall < dead:
        when_due(agenda, time)
        visits.append(time.wall)
        agenda.settle(up_to_date(A, RunState.LIVE, again=dead))
    assert visits[-1] == pytest.approx(dead, abs=1)
    when_due(agenda, time)
    agenda.settle(delivered(A, RunState.STOPPED))
    assert math.inf == when_due(agenda, time)


def test_again_of_what_has_no_row_yet(time: Time) -> None:
    """It is open until it has died."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, Skipped(A, "has not finished an epoch yet", "", time.wall + 60))
    assert [A] == agenda.open_runs
    assert 60 == pytest.approx(when_due(agenda, time), abs=1)
    agenda.settle(Skipped(A, "died before its first epoch ended", ""))
    assert [] == agenda.open_runs


def test_a_live_task_is_kept_alive(time: Time) -> None:
    """Pinged in time, by a visit that states so; a delivery counts as well."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE))
    for _ in range(3):
        assert SILENCE == pytest.approx(when_due(agenda, time), abs=0.1)
        agenda.settle(up_to_date(A, RunState.LIVE))
    time.go(SILENCE - 1)
    agenda.notice(A, changed=True)
    time.go(0.5)
    visited(agenda, delivered(A, RunState.LIVE))
    assert SILENCE == pytest.approx(when_due(agenda, time), abs=0.1)


def test_the_silence_that_is_dared_grows_with_the_time_that_went_well(time: Time) -> None:
    """Seconds at first, for no server states how long it waits; after a day, 25 minutes of the two hours."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE))
    began, words = time.clock, []
    while time.clock - began < 2 * 86400:
        words.append((time.clock - began, when_due(agenda, time, step=1.0)))
        agenda.settle(up_to_date(A, RunState.LIVE))
    assert words[0][1] <= SILENCE + 1
    assert all(silence <= max(SILENCE, at / 40) + 2 for at, silence in words)
    assert KEEP_ALIVE - 1 <= words[-1][1] <= KEEP_ALIVE + 1
    assert len([at for at, _ in words if at < 3600]) < 200
    assert len(words) < 450


def silences(agenda: Agenda, time: Time, within: float, patience: float) -> list[float]:
    """Seconds between two words, in turn, to a server that stops the task after ``patience`` seconds."""
    began, found = time.clock, []
    while time.clock - began < within:
        found.append(when_due(agenda, time))
        revived = found[-1] > patience
        agenda.settle(replace(up_to_date(A, RunState.LIVE), revived=revived))
    return found


@pytest.mark.parametrize("patience", [6.0, 60.0, 600.0])
def test_a_server_of_less_patience_stops_a_task_once(time: Time, patience: float) -> None:
    """The administrator has set fewer seconds; when that was seen, a word comes in time, to the end."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE))
    found = silences(agenda, time, 86400, patience)
    late = [silence for silence in found if silence > patience]
    assert 1 == len(late)
    assert sum(found[: found.index(late[0])]) > 25 * patience
    assert max(found[found.index(late[0]) + 1 :]) < 0.6 * patience


def test_a_machine_that_slept_blames_no_server(time: Time) -> None:
    """The task was stopped in the night that one of the clocks knows nothing of."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE))
    silences(agenda, time, 40 * 2000, math.inf)
    time.wall += 8 * 3600
    when_due(agenda, time)
    agenda.settle(replace(up_to_date(A, RunState.LIVE), revived=True))
    assert KEEP_ALIVE == pytest.approx(when_due(agenda, time), abs=1)


def test_many_live_runs_do_not_besiege_a_server(time: Time) -> None:
    """A word every three seconds on the average, of all of them."""
    agenda = time.agenda()
    runs = [Path(f"run{number}") for number in range(20)]
    for run in runs:
        agenda.notice(run)
    for run in taken(agenda):
        agenda.settle(delivered(run, RunState.LIVE))
    words = 0
    for _ in range(3000):
        time.go(0.2)
        for run in taken(agenda):
            words += 1
            agenda.settle(up_to_date(run, RunState.LIVE))
    assert 150 <= words <= 220


def test_only_a_visit_that_is_due_for_it_keeps_alive(time: Time) -> None:
    """A visit for a change that reports nothing puts the keep-alive off by nothing."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE))
    time.go(SILENCE - 1)
    agenda.notice(A, changed=True)
    time.go(0.5)
    assert Visit(A, keep_alive=False) == agenda.due()
    agenda.settle(up_to_date(A, RunState.LIVE))
    time.go(0.5)
    assert Visit(A, keep_alive=True) == agenda.due()


def test_a_live_run_that_was_known_is_pinged_at_once(time: Time) -> None:
    """Nobody knows when its task last heard of it."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, up_to_date(A, RunState.LIVE))
    assert Visit(A, keep_alive=True) == agenda.due()
    agenda.settle(up_to_date(A, RunState.LIVE))
    assert SILENCE == pytest.approx(when_due(agenda, time), abs=0.1)


@pytest.mark.parametrize("began", [0.1, 0.3, 1e-3, 12345.678, 8.1e6 + 1 / 3])
def test_a_keep_alive_at_its_very_moment_is_one(time: Time, began: float) -> None:
    """Whatever a sum of seconds is rounded to, or the visit would be for nothing, and again."""
    time.clock = began
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE))
    time.clock = began + SILENCE
    assert Visit(A, keep_alive=True) == agenda.due()


@pytest.mark.parametrize("jump", [-86400.0, 86400.0, -1e9, 1e9])
def test_a_clock_that_is_set_does_no_harm(time: Time, jump: float) -> None:
    """Changes are seen and keep-alives kept as before; a run is visited about once a second at the most."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, delivered(A, RunState.LIVE, again=time.wall + 1800))
    time.wall += jump
    agenda.notice(A, changed=True)
    assert when_due(agenda, time) < 0.5
    began = time.clock
    for _ in range(100):
        agenda.settle(up_to_date(A, RunState.LIVE, again=WALL + 1800))
        assert when_due(agenda, time, within=1600, step=0.1) <= KEEP_ALIVE + 1
    assert 70 <= time.clock - began


# -- failures ---------------------------------------------------------------------------------------------


def test_a_run_that_fails_is_tried_again_later_and_later(time: Time) -> None:
    """Twice as late each time, from seconds to ten minutes, and not for all at the same moment."""
    pauses = []
    for _ in range(20):
        agenda = time.agenda()
        agenda.notice(A)
        assert [A] == taken(agenda)
        mine = []
        for _ in range(12):
            agenda.settle(failed(A))
            mine.append(when_due(agenda, time))
        pauses.append(mine)
    for number in range(12):
        full = min(600.0, 2.0 * 2**number)
        given = [mine[number] for mine in pauses]
        assert full / 2 <= min(given) <= max(given) <= full + 0.1
        assert len(set(given)) > 3


def test_a_success_ends_the_row_of_failures(time: Time) -> None:
    """The next failure waits for seconds again, and a change is a reason at once."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    for _ in range(6):
        agenda.settle(failed(A))
        when_due(agenda, time)
    agenda.settle(delivered(A))
    agenda.notice(A, changed=True)
    assert when_due(agenda, time) < 0.5
    agenda.settle(failed(A))
    assert when_due(agenda, time) <= 2.1


@pytest.mark.parametrize(
    "kind", [ServerRefused, ServerFailing, RunBusy, FileNotTaken, NotConfigured, YoloClearmlError]
)
def test_a_change_is_no_reason_to_ask_again_what_was_refused(
    time: Time, kind: type[YoloClearmlError]
) -> None:
    """The server's answer does not depend on the next row; it is waited for, and then one visit does."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    for _ in range(7):
        agenda.settle(failed(A, kind))
        when_due(agenda, time)
    agenda.settle(failed(A, kind))
    for _ in range(20):
        agenda.notice(A, changed=True)
        time.go(1)
        assert [] == taken(agenda)
    assert 80 <= when_due(agenda, time)


@pytest.mark.parametrize("kind", [RunUnreadable, RunChanged])
def test_a_change_may_mend_what_was_wrong_with_the_files(time: Time, kind: type[YoloClearmlError]) -> None:
    """So it is a reason at once."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    for _ in range(8):
        agenda.settle(failed(A, kind))
        when_due(agenda, time)
    agenda.settle(failed(A, kind))
    agenda.notice(A, changed=True)
    assert when_due(agenda, time) < 0.5


def test_a_failing_run_holds_up_no_other(time: Time) -> None:
    """Each has its own pauses."""
    agenda = time.agenda()
    agenda.notice(A)
    visited(agenda, failed(A))
    agenda.notice(B, changed=True)
    time.go(0.5)
    assert [B] == taken(agenda)


# -- ClearML is away --------------------------------------------------------------------------------------


def all_away(time: Time, agenda: Agenda, runs: int) -> list[Path]:
    """So many runs that could not reach the server."""
    paths = [Path(f"run{number}") for number in range(runs)]
    for path in paths:
        agenda.notice(path)
    for path in taken(agenda):
        agenda.settle(away(path))
    return paths


def test_one_run_asks_for_all(time: Time) -> None:
    """Twice as late each time, to a minute; `retry` comes before each asking and at no other time."""
    agenda = time.agenda()
    all_away(time, agenda, 50)
    assert 0 == time.asked
    for number in range(12):
        full = min(60.0, 2.0**number)
        assert full / 2 <= when_due(agenda, time) <= full + 0.1
        assert number + 1 == time.asked
        assert [] == taken(agenda)
        time.go(3)
        assert [] == taken(agenda)
        agenda.settle(away(_asking(agenda)))


def _asking(agenda: Agenda) -> Path:
    assert agenda._asking is not None
    return agenda._asking


def test_when_it_answers_all_are_visited(time: Time) -> None:
    """At once, each once, and without another asking; the next outage begins with short pauses."""
    agenda = time.agenda()
    paths = all_away(time, agenda, 50)
    for _ in range(6):
        when_due(agenda, time)
        agenda.settle(away(_asking(agenda)))
    when_due(agenda, time)
    asking = _asking(agenda)
    agenda.settle(delivered(asking))
    due = taken(agenda)
    assert sorted(set(paths) - {asking}) == sorted(due)
    assert 7 == time.asked
    for path in due:
        agenda.settle(delivered(path))
    assert math.inf == when_due(agenda, time)
    agenda.notice(A)
    visited(agenda, away(A))
    assert when_due(agenda, time) <= 1.1


@pytest.mark.parametrize("kind", [ServerRefused, RunUnreadable, RunBusy])
def test_an_answer_that_is_a_refusal_is_one(time: Time, kind: type[YoloClearmlError]) -> None:
    """The others get their turn, though the one that asked fails in its own way."""
    agenda = time.agenda()
    paths = all_away(time, agenda, 3)
    when_due(agenda, time)
    asking = _asking(agenda)
    agenda.settle(failed(asking, kind))
    assert sorted(set(paths) - {asking}) == sorted(taken(agenda))


def test_an_outage_is_no_failure_of_a_run(time: Time) -> None:
    """After an hour without a server, what goes wrong with the run that asked is its first failure."""
    agenda = time.agenda(once=True)
    all_away(time, agenda, 1)
    for _ in range(60):
        when_due(agenda, time)
        agenda.settle(away(_asking(agenda)))
    when_due(agenda, time)
    agenda.settle(failed(Path("run0"), RunBusy))
    assert [Path("run0")] == agenda.open_runs
    assert when_due(agenda, time) <= 2.1


def test_a_file_server_that_is_away_is_an_outage_too(time: Time) -> None:
    """One asks for all."""
    agenda = time.agenda()
    agenda.notice(A)
    agenda.notice(B)
    for path in taken(agenda):
        agenda.settle(failed(path, FileServerUnreachable))
    assert 0.5 <= when_due(agenda, time) <= 1.1
    assert (1, []) == (time.asked, taken(agenda))


def test_a_late_failure_of_the_same_outage_doubles_nothing(time: Time) -> None:
    """Runs that were under way when the server went fail one after the other."""
    agenda = time.agenda()
    for number in range(30):
        agenda.notice(Path(f"run{number}"))
    for path in taken(agenda):
        agenda.settle(away(path))
        time.go(0.01)
    assert when_due(agenda, time) <= 1.1


def test_the_run_that_asks_is_deleted(time: Time) -> None:
    """Another asks, at once."""
    agenda = time.agenda()
    paths = all_away(time, agenda, 2)
    for _ in range(6):
        when_due(agenda, time)
        agenda.settle(away(_asking(agenda)))
    when_due(agenda, time)
    asking = _asking(agenda)
    agenda.forget(asking)
    assert [path for path in paths if path != asking] == taken(agenda)
    agenda.settle(failed(asking, RunGone))
    assert [] == [path for path in agenda.open_runs if path == asking]


def test_all_that_waited_are_deleted(time: Time) -> None:
    """Nobody asks, and the next outage is a new one."""
    agenda = time.agenda()
    paths = all_away(time, agenda, 3)
    for _ in range(8):
        when_due(agenda, time)
        agenda.settle(away(_asking(agenda)))
    for path in paths:
        agenda.forget(path)
    assert math.inf == when_due(agenda, time)
    asked = time.asked
    agenda.notice(A)
    visited(agenda, away(A))
    assert when_due(agenda, time) <= 1.1
    assert asked + 1 == time.asked


# -- runs that are gone -----------------------------------------------------------------------------------


def test_a_run_that_is_forgotten_is_not_visited(time: Time) -> None:
    """Nor open."""
    agenda = time.agenda()
    agenda.notice(A)
    agenda.forget(A)
    agenda.forget(B)
    assert ([], []) == (taken(agenda), agenda.open_runs)


@pytest.mark.parametrize("known", [A, NotARun(A, "is a prediction", "")])
def test_what_is_forgotten_is_reported_gone(time: Time, known: Found) -> None:
    """Once, though nobody visits it any more, or a table would show it for ever."""
    agenda = time.agenda()
    agenda.notice(known)
    while (item := agenda.due()) is not None:
        agenda.settle(up_to_date(A) if isinstance(item, Visit) else Skipped(A, item.reason, item.hint))
    agenda.forget(A)
    agenda.forget(A)
    assert [Gone(A), None, None] == list(itertools.islice(agenda, 3))


@pytest.mark.parametrize(("told", "outcome"), [(1, delivered(A)), (0, failed(A, RunGone))])
def test_a_run_forgotten_under_way_is_reported_gone_afterwards(
    time: Time, told: int, outcome: Outcome
) -> None:
    """Unless the visit met that itself, which its outcome shows."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    agenda.forget(A)
    agenda.settle(outcome)
    assert told == list(itertools.islice(agenda, 3)).count(Gone(A))


@pytest.mark.parametrize("outcome", [delivered(A, RunState.LIVE), failed(A), away(A), failed(A, RunGone)])
def test_a_run_forgotten_under_way_is_gone_when_its_visit_ends(time: Time, outcome: Outcome) -> None:
    """Whatever comes of the visit."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    agenda.notice(A, changed=True)
    agenda.forget(A)
    assert [] == agenda.open_runs
    agenda.settle(outcome)
    assert (math.inf, 0) == (when_due(agenda, time), time.asked)


def test_a_run_that_is_back_is_not_visited_twice_at_a_time(time: Time) -> None:
    """Deleted and made again while the visit goes on: the next one waits for the end of that."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    agenda.forget(A)
    agenda.notice(A, changed=True)
    time.go(5)
    assert [] == taken(agenda)
    agenda.settle(up_to_date(A))
    assert when_due(agenda, time) < 0.5


def test_a_run_that_is_back_before_it_was_missed(time: Time) -> None:
    """A visit found it gone, and by the time that is known there is one again."""
    agenda = time.agenda()
    agenda.notice(A)
    assert [A] == taken(agenda)
    agenda.notice(A, changed=True)
    agenda.settle(failed(A, RunGone))
    assert when_due(agenda, time) < 0.5


# -- the stream -------------------------------------------------------------------------------------------


def stream(agenda: Agenda, time: Time, until: float) -> Iterator[Path]:
    """The runs it gives until then, by the clock; they stay under way unless the caller settles them."""
    for item in agenda:
        if isinstance(item, Visit):
            yield item.run
        if time.clock >= until:
            return


@pytest.mark.parametrize("case", ["nothing", "live", "failing", "away", "stale", "under way"])
def test_it_does_not_spin(time: Time, case: str) -> None:
    """An hour of any kind of waiting takes a few turns a second, each a rest of more than nothing."""
    agenda = time.agenda()
    outcomes: dict[str, Callable[[Path], Outcome | None]] = {
        "nothing": delivered,
        "live": lambda run: up_to_date(run, RunState.LIVE, time.wall + 1800),
        "failing": failed,
        "away": away,
        "stale": lambda run: Skipped(run, "has not finished an epoch yet", "", WALL),
        "under way": lambda _: None,
    }
    agenda.notice(A)
    agenda.notice(B)
    visits = 0
    for run in stream(agenda, time, time.clock + 3600):
        visits += 1
        outcome = outcomes[case](run)
        if outcome is not None:
            agenda.settle(outcome)
    assert len(time.rests) <= 3600 * 5 * 1.1 + visits
    most = {"nothing": 2, "live": 420, "failing": 60, "away": 200, "stale": 7300, "under way": 2}
    assert 2 <= visits <= most[case]


def test_it_ends_when_it_is_stopped(time: Time) -> None:
    """Also with runs that are due."""
    agenda = time.agenda()
    agenda.notice(A)
    agenda.notice(B)
    given = []
    for run in stream(agenda, time, 1e9):
        given.append(run)
        time.stop.set()
    assert [A] == given


def test_a_notice_ends_a_rest() -> None:
    """With real clocks: what is noticed while nothing is due is given without waiting for the next reason."""
    agenda = Agenda(lambda: None, threading.Event())
    waiting = (item for item in agenda if item is not None)
    threading.Timer(0.01, agenda.notice, (A,)).start()
    assert Visit(A) == next(waiting)


# -- --once -----------------------------------------------------------------------------------------------


def once(
    time: Time, agenda: Agenda, come: Callable[[Path, int], Outcome], within: float = 1e5
) -> Counter[Path]:
    """Follow a watch that is to end; gives how often each run was visited."""
    visits: Counter[Path] = Counter()
    until = time.clock + within
    for item in agenda:
        assert time.clock < until, "it does not end"
        if isinstance(item, Visit):
            visits[item.run] += 1
            agenda.settle(come(item.run, visits[item.run]))
    return visits


def test_once_ends_when_all_is_delivered(time: Time) -> None:
    """A finished run, and one that dies; no sooner and hardly later."""
    agenda = time.agenda(once=True)
    agenda.notice(A)
    agenda.notice(B)
    dead = time.wall + 1000

    def come(run: Path, number: int) -> Outcome:
        if run == A:
            return delivered(A)
        return delivered(B, RunState.LIVE, dead) if time.wall < dead else delivered(B, RunState.STOPPED)

    visits = once(time, agenda, come)
    assert 1 == visits[A]
    assert visits[B] < 200  # to keep its task alive
    assert 0 <= time.wall - dead <= 1.5


def test_once_waits_for_a_first_run(time: Time) -> None:
    """None at all is not the end: the training may be about to begin."""
    agenda = time.agenda(once=True)
    found = time.clock + 500
    time.later = lambda: agenda.notice(A) if found <= time.clock < found + 0.3 else None
    assert 1 <= once(time, agenda, lambda run, _: delivered(run), within=510)[A] <= 2
    assert found <= time.clock < found + 2


@pytest.mark.parametrize("kind", [ServerRefused, RunUnreadable, RunBusy])
def test_once_gives_up_on_a_run_that_keeps_failing(time: Time, kind: type[YoloClearmlError]) -> None:
    """After five times in a row, the others delivered."""
    agenda = time.agenda(once=True)
    agenda.notice(A)
    agenda.notice(B)
    outcome: dict[Path, Outcome] = {A: failed(A, kind), B: delivered(B)}
    assert {A: 5, B: 1} == once(time, agenda, lambda run, _: outcome[run])


def test_once_waits_for_a_server_however_long(time: Time) -> None:
    """It does not end with what is not delivered only because nobody answers."""
    agenda = time.agenda(once=True)
    agenda.notice(A)
    back = time.clock + 3600

    def come(run: Path, _: int) -> Outcome:
        return away(run) if time.clock < back else delivered(run)

    visits = once(time, agenda, come)
    assert time.clock >= back
    assert 60 <= visits[A] <= 150


def test_once_misses_no_change_of_the_last_moment(time: Time) -> None:
    """What changed during the last visit, or after it, is visited before the end."""
    agenda = time.agenda(once=True)
    agenda.notice(A)

    def come(run: Path, number: int) -> Outcome:
        if number in (1, 2):
            agenda.notice(run, changed=True)
        return delivered(run)

    assert {A: 3} == once(time, agenda, come)


def test_once_waits_for_what_has_no_row_yet(time: Time) -> None:
    """It may still become a run, until it has died."""
    agenda = time.agenda(once=True)
    agenda.notice(A)
    dead = time.wall + 300

    def come(run: Path, _: int) -> Outcome:
        return Skipped(run, "has not finished", "", None if time.wall >= dead else dead)

    assert {A: 2} == once(time, agenda, come)


def test_once_does_not_wait_for_what_was_deleted(time: Time) -> None:
    """A live run is gone, the other has ended: that is all."""
    agenda = time.agenda(once=True)
    agenda.notice(A)
    agenda.notice(B)

    def come(run: Path, _: int) -> Outcome:
        if run == B:
            agenda.forget(A)
        return delivered(run, RunState.LIVE if run == A else RunState.FINISHED)

    assert {A: 1, B: 1} == once(time, agenda, come, within=100)


# -- with the engine --------------------------------------------------------------------------------------


def test_follow_delivers_and_ends(make_run: MakeRun) -> None:
    """Through the engine, with a sink that records: outcomes come out, and settle the agenda."""
    runs = [make_run("v8.4.190-detect", f"train{number}") for number in range(3)]
    sink, stop = RecordingSink(), threading.Event()
    work = Work(Lazily(lambda: sink), NoLedgers(), "server", now=long_after)
    agenda = Agenda(lambda: None, stop, once=True, now=long_after)
    for run in runs:
        agenda.notice(run)
    outcomes = [o for o in follow(agenda, work, 2, stop) if not isinstance(o, (Started, Progress))]
    assert [(run, True) for run in runs] == sorted((o.run, isinstance(o, Delivered)) for o in outcomes)
    assert set(runs) == set(sink.recorded)


def test_follow_makes_no_fuss_of_a_run_that_is_gone(make_run: MakeRun, tmp_path: Path) -> None:
    """It is forgotten, which is no failure; the other is delivered."""
    run, sink, stop = make_run(), RecordingSink(), threading.Event()
    work = Work(Lazily(lambda: sink), NoLedgers(), "server", now=long_after)
    agenda = Agenda(lambda: None, stop, once=True, now=long_after)
    agenda.notice(tmp_path / "gone")
    agenda.notice(run)
    outcomes = [o for o in follow(agenda, work, 1, stop) if not isinstance(o, (Started, Progress))]
    assert [(tmp_path / "gone", Gone), (run, Delivered)] == [(o.run, type(o)) for o in outcomes]


# -- anything in any order --------------------------------------------------------------------------------

RUNS = [Path(f"run{number}") for number in range(4)]
ERRORS = [ServerUnreachable, ServerRefused, RunUnreadable, RunBusy, RunGone, FileServerUnreachable]


class AnyOrder(RuleBasedStateMachine):
    """A watch against a model: which runs are owed a visit that begins after the last notice."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.agenda = self.time.agenda()
        self.owed: set[Path] = set()  # noticed since their last visit began
        self.under_way: set[Path] = set()
        self.gone: set[Path] = set()

    @rule(run=st.sampled_from(RUNS), changed=st.booleans())
    def notice(self, run: Path, changed: bool) -> None:
        self.agenda.notice(run, changed)
        self.owed.add(run)
        self.gone.discard(run)

    @rule(run=st.sampled_from(RUNS))
    def forget(self, run: Path) -> None:
        self.agenda.forget(run)
        self.owed.discard(run)
        self.gone.add(run)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 30.0, 2000.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.time.go(seconds)

    @rule(seconds=st.sampled_from([-5000.0, 5000.0]))
    def clock_is_set(self, seconds: float) -> None:
        self.time.wall += seconds

    @rule()
    def take(self) -> None:
        item = self.agenda.due()
        if item is not None:
            self._begin(item)

    def _begin(self, item: Visit | NotARun) -> None:
        assert isinstance(item, Visit)
        assert item.run not in self.under_way, "visited twice at a time"
        assert item.run not in self.gone, "visited though it is gone"
        self.under_way.add(item.run)
        self.owed.discard(item.run)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), kind=st.integers(0, 4 + len(ERRORS)))
    def end(self, data: st.DataObject, kind: int) -> None:
        run = data.draw(st.sampled_from(sorted(self.under_way)))
        again = self.time.wall + 50
        outcomes: list[Outcome] = [
            delivered(run),
            delivered(run, RunState.LIVE, again),
            up_to_date(run),
            up_to_date(run, RunState.LIVE),
            Skipped(run, "has not finished", "", again),
            *(failed(run, error) for error in ERRORS),
        ]
        self.under_way.discard(run)
        self.agenda.settle(outcomes[kind])

    @invariant()
    def does_not_spin(self) -> None:
        until = self.agenda._until_due()
        if until == 0:
            item = self.agenda.due()
            if item is None:
                assert self.agenda._until_due() > 0, "it spins"
            else:
                self._begin(item)

    def teardown(self) -> None:
        """Nothing noticed is lost: when every visit ends well, each run that is owed one gets it."""
        for run in sorted(self.under_way):
            self.agenda.settle(delivered(run))
        self.under_way.clear()
        for _ in range(40):
            self.time.go(100)
            while (item := self.agenda.due()) is not None:
                self._begin(item)
                assert isinstance(item, Visit)
                self.agenda.settle(delivered(item.run))
                self.under_way.discard(item.run)
        assert set() == self.owed
        assert [] == self.agenda.open_runs


AnyOrder.TestCase.settings = settings(stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase
