"""A watch that is killed anywhere, while the run grows, and one whose clock is set: it ends all the same."""

from __future__ import annotations

import functools
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_AND_EVERY, Doubles, MakeRun, chosen, long_after, one_in, sampled
from double import ClearMLDouble
from killing import WHEN, hidden, killed_at_request, killed_at_step
from test_watch import comparable
from timelines import Clock, Step, Watch, looks, put
from uploading import end_state, fails
from uploading import upload as upload_soon

from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Delivered, UpToDate

pytestmark = pytest.mark.usefixtures("told_at_once")
upload = functools.partial(upload_soon, timeout=20.0)  # a machine may be busy
DETECT = "v8.4.190-detect"
PARTS = looks(DETECT)
DAY = 86400.0  # seconds


def grow(part: tuple[Step, ...], run: Path, clock: Clock) -> None:
    """Put what a part of the training changed on disk."""
    for step in part:
        put(step, run)
        clock.reach(step.at)


def see(watch: Watch, run: Path) -> None:
    """Let a watch look."""
    assert [] == fails(watch.see(run))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], int]:
    """What is on the server after each part, under a watch that lives through all; and its requests."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    clock, states = Clock(0.0), []
    with pytest.MonkeyPatch.context() as patch, ClearMLDouble() as double:
        patch.setenv("CLEARML_CONFIG_FILE", str(run.parent / "no-clearml.conf"))
        patch.setenv("YOLO_CLEARML_STATE_DIR", str(run.parent / "state"))
        for name, value in double.environ.items():
            patch.setenv(name, value)
        watch = Watch(clock)
        for part in PARTS:
            grow(part, run, clock)
            see(watch, run)
            states.append(comparable(double))
        (task,) = double.tasks.values()
        assert ("completed", 1) == (task["status"], len(double.models))
        return states, len(double.requests)


Undisturbed = tuple[list[Any], int]


def assert_over(double: ClearMLDouble, run: Path) -> None:
    """There is nothing left to do, and nothing left over."""
    count = len(double.requests)
    assert [UpToDate] == [type(outcome) for outcome in upload([run], now=lambda: PARTS[-1][-1].at)]
    assert count == len(double.requests)
    assert [LEDGER_NAME] == hidden(run)


@FEW_AND_EVERY
@pytest.mark.parametrize("ledger", ["kept", "lost"])
def test_killed_at_every_request(
    server: ClearMLDouble,
    doubles: Doubles,
    undisturbed: Undisturbed,
    tmp_path: Path,
    scratch: Path,
    ledger: str,
    every: bool,
) -> None:
    """SIGKILL after each request; the next watch comes at once, or when the training has gone on."""
    states, requests = undisturbed
    assert requests > 25
    reached = tmp_path / "reached"
    for number in chosen(range(1, requests + 1), every):
        run, clock = tmp_path / f"run{number}", Clock(0.0)

        def live(run: Path = run, clock: Clock = clock) -> None:
            watch = Watch(clock)
            for at, part in enumerate(PARTS):
                grow(part, run, clock)
                reached.write_text(str(at))
                see(watch, run)

        with doubles() as double:
            assert killed_at_request(double, number, "after", live), number
            if ledger == "lost":
                (run / LEDGER_NAME).unlink(missing_ok=True)
            # the clock of the process that was killed is no longer there
            now = Clock(0.0)
            there = int(reached.read_text())
            for part in PARTS[: there + 1]:
                now.reach(part[-1].at)
            if number % 2 and there + 1 < len(PARTS):
                there += 1
                grow(PARTS[there], run, now)
            watch = Watch(now)
            see(watch, run)
            assert states[there] == comparable(double), number
            for part in PARTS[there + 1 :]:
                grow(part, run, now)
            see(watch, run)
            assert states[-1] == comparable(double), number
            assert_over(double, run)
    assert [] == list(scratch.iterdir())


@pytest.mark.exhaustive
@pytest.mark.parametrize("at", ["step on disk", *WHEN])
def test_killed_again_and_again(
    server: ClearMLDouble, undisturbed: Undisturbed, tmp_path: Path, scratch: Path, at: str
) -> None:
    """At each part of the training watches are killed, each one step after the last, until one lives."""
    states, _ = undisturbed
    run, clock, kills = tmp_path / "run", Clock(0.0), 0
    for part, wanted in zip(PARTS, states, strict=True):
        grow(part, run, clock)
        number, killed = 0, True
        while killed:
            number += 1
            if at in WHEN:
                killed = killed_at_request(server, number, at, lambda: see(Watch(clock), run))
            else:
                killed = killed_at_step(number, lambda: see(Watch(clock), run))
            assert {*hidden(run)} <= {LEDGER_NAME, f"{LEDGER_NAME}.tmp"}
            kills += killed
        assert wanted == comparable(server)
    assert kills > 15
    assert_over(server, run)
    assert [] == list(scratch.iterdir())


# -- a clock that is set ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "part", "back"),
    sampled(itertools.product([-DAY, DAY], range(len(PARTS)), [True, False]), one_in(5)),
)
def test_a_clock_that_is_set_while_it_watches(
    server: ClearMLDouble, undisturbed: Undisturbed, tmp_path: Path, part: int, by: float, back: bool
) -> None:
    """By a day, before any part of the training, for that part or for good: it ends all the same."""
    run, clock = tmp_path / "run", Clock(0.0)
    watch = Watch(clock)
    for number, grown in enumerate(PARTS):
        grow(grown, run, clock)
        clock.wrong = by if number == part or (number > part and not back) else 0.0
        see(watch, run)
    assert undisturbed[0][-1] == comparable(server)


@pytest.mark.parametrize("first", [-DAY, DAY])
def test_a_clock_that_is_set_between_any_two_looks_at_it(
    server: ClearMLDouble,
    undisturbed: Undisturbed,
    tmp_path: Path,
    first: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There and back, in the middle of each visit and each exchange, for everything in this process."""
    run, clock = tmp_path / "run", Clock(0.0)
    genuine, turns = time.time, itertools.count()

    def jump(endpoint: str, number: int) -> None:
        clock.wrong = first if number % 2 else 0.0

    server.before_request = jump
    monkeypatch.setattr(time, "time", lambda: genuine() + (first if next(turns) % 2 else 0.0))
    watch = Watch(clock)
    for part in PARTS:
        grow(part, run, clock)
        clock.wrong = 0.0
        see(watch, run)
    assert undisturbed[0][-1] == comparable(server)


def test_a_dead_run_under_a_clock_that_is_set_back(server: ClearMLDouble, make_run: MakeRun) -> None:
    """To before its death, so that it seems to live where the ledger is lost; set right, it ends the same."""
    run = make_run("v8.4.190-detect-killed")
    told_at = (run / "weights" / "last.pt").stat().st_mtime
    assert [] == fails(upload([run]))
    wanted, count = end_state(server), len(server.requests)
    for back in (Clock(told_at + 60), Clock(told_at - DAY)):
        assert [UpToDate] == [type(outcome) for outcome in upload([run], now=back)]
        assert count == len(server.requests)
        (run / LEDGER_NAME).unlink()
        assert [Delivered] == [type(outcome) for outcome in upload([run], now=back)]
        (task,) = server.tasks.values()
        assert "in_progress" == task["status"]
        assert [] == fails(upload([run], now=long_after))
        assert wanted == end_state(server)
        count = len(server.requests)
        assert [UpToDate] == [type(outcome) for outcome in upload([run])]
        assert count == len(server.requests)
