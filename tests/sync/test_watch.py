"""Recorded trainings replayed step by step under a watch, against what had happened by each step.

The expectation is made of the recorder's step list and of what the callback reported live, never by the
rules under test. A fake clock stands for time, HTTP is real.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_AND_EVERY, MakeRun, chosen, one_in, sampled
from double import ClearMLDouble
from test_cli import COMMAND
from test_golden import expected_of
from timelines import Clock, Step, Watch, digests, put, renamed, replayed, timeline
from uploading import end_state, fails, upload

from yolo_clearml.events import STATUS
from yolo_clearml.server.destination import RUNTIME_DESTINATION
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers
from yolo_clearml.sync.outcomes import Delivered, Failed, UpToDate

_REFUSED = 0.05  # seconds that a server is waited for that refuses at once
_ANSWERED = 20.0  # seconds that one is waited for that may be slow today
FINISHED = ["v8.0.220-detect", "v8.4.190-detect", "v8.4.190-segment"]
KILLED, RESUMED = "v8.4.190-detect-killed", "v8.4.190-detect-resumed"
LATER = 2400.0  # seconds between a death and the resume: enough to be taken for dead
STALE = 1800.0  # seconds


def looked_at(steps: Sequence[Step]) -> list[int]:
    """The steps that changed something, and so are worth a look."""
    return [number for number, step in enumerate(steps) if step.changes]


def steps_of(name: str) -> tuple[Step, ...]:
    return timeline(name, LATER if name == RESUMED else 0.0)


# -- what should be there ---------------------------------------------------------------------------------


def trained(step: Step) -> bool:
    """An epoch has ended, and a checkpoint says of which release it is."""
    return step.rows > 0 and "weights/last.pt" in step.files


def scalars_by(name: str, rows: int, run: Path) -> dict[tuple[str, str, int], float]:
    """What the callback had reported when so many epochs were over, but for epoch times."""
    wanted: dict[tuple[str, str, int], float] = {}
    if name == "v8.0.220-detect":  # reported by the rules of the next release, see the facts about it
        table = list(csv.DictReader(io.StringIO((run / "results.csv").read_text()), skipinitialspace=True))
        for i, row in enumerate(table):
            for column, value in row.items():
                title = {"train": "train", "lr": "lr"}.get(column.strip().split("/")[0], "val")
                if "/" in column:
                    wanted[title, column.strip(), i] = float(value)
        return wanted
    for title, series, iteration, value, _ in expected_of(name)["scalars"]:
        key = (title, series, iteration)
        if iteration < rows and title != "Epoch Time":
            wanted.setdefault(key, value)  # the final evaluation's extra point comes later
    return wanted


def images_by(name: str, step: Step) -> dict[tuple[str, str, int], str]:
    """Mosaics from the second epoch on; of validation what is drawn; with the file of each."""
    files = {n: re.fullmatch(r"(train|val)_batch([0-2])((?:_[a-z]+)?\.jpg)", n) for n in step.files}
    return {
        ("Mosaic" if m[1] == "train" else "Validation", m[1] + m[3], int(m[2])): n
        for n, m in files.items()
        if m and (m[1] == "val" or step.rows >= 2)
    }


def assert_by_now(
    server: ClearMLDouble, name: str, step: Step, run: Path, status: str = "", last: bool = False
) -> None:
    """Everything on the server is what had happened by ``step``, and nothing more."""
    if not trained(step):
        assert {} == server.tasks
        assert {} == server.files
        return
    expected = expected_of(name)
    over = "results.png" in step.files  # drawn last of all
    ((task_id, task),) = server.tasks.items()
    assert (status or ("completed" if over else "in_progress")) == task["status"]
    assert (expected["project"], expected["tags"]) == (
        server.projects[task["project"]]["name"],
        task["tags"],
    )
    assert expected["task_name"] == task["name"]

    scalars = server.scalars(task_id)
    wanted = scalars_by(name, step.rows, run)
    got = {key: event["value"] for key, event in scalars.items() if key[0] != "Epoch Time"}
    assert wanted.keys() == got.keys()
    assert wanted == pytest.approx(got, rel=1e-5)
    timed = name != "v8.0.220-detect"  # its results.csv has no time
    assert set(range(step.rows if timed else 0)) == {i for title, _, i in scalars if title == "Epoch Time"}

    images = images_by(name, step)
    stored = {key[:3]: server.file_of(event["url"]) for key, event in server.images(task_id).items()}
    assert {key: (run / file).read_bytes() for key, file in images.items()} == stored
    if last:
        final = {(t, s, i) for t, s, i, *_ in expected["images"] if t == "Mosaic"}
        assert final == {key for key in images if key[0] == "Mosaic"}

    plots = {(t, v, i) for t, v, i, *_ in expected["plots"]} if over else set()
    if status == "stopped":
        plots = {("results", "plot image", 0)}  # drawn by us
    assert plots == set(server.plots(task_id))

    singles = {n: value for n, value, _ in expected["single_values"]}
    parameters = singles.pop("model/parameters")
    told = {n: event["value"] for n, event in server.single_values(task_id).items()}
    assert parameters == told.pop("model/parameters")
    finals = {n: v for n, v in singles.items() if not n.startswith("model/")} if over else {}
    assert finals.keys() == told.keys()
    assert finals == pytest.approx(told, rel=0, abs=0.025)

    models = [server.file_of(model["uri"]) for model in server.models.values()]
    assert [(run / "weights" / "best.pt").read_bytes()] * over == models
    assert len(images) + len(plots) + over == len(server.files)


def comparable(server: ClearMLDouble) -> dict[str, Any]:
    """Everything on the server but the times, which were read off files as they were when it was sent.

    Of the console the last line: that a training was taken for dead meanwhile stays said there.
    """
    state = end_state(server)
    for task in state["tasks"].values():
        task["log"] = task["log"][-1:]
        task["hyperparams"]["properties"].pop("trained_from")
        for kind in ("training_stats_scalar", "training_debug_image", "plot"):
            for event in task[kind].values():
                event.pop("timestamp")
        for variants in task["last_metrics"].values():
            for variant in variants.values():
                variant.pop("timestamp", None)
    return state


def times_of(server: ClearMLDouble) -> dict[Any, int]:
    (task_id,) = server.tasks
    scalars = {key: event["timestamp"] for key, event in server.scalars(task_id).items()}
    return scalars | {key[:3]: event["timestamp"] for key, event in server.images(task_id).items()}


def uploaded(monkeypatch: pytest.MonkeyPatch, runs: Iterable[Path]) -> tuple[dict[str, Any], dict[Any, int]]:
    """Give what a plain upload of directories makes, on a server of its own, and the times if one run."""
    paths = list(runs)
    with monkeypatch.context() as patch, ClearMLDouble() as double:
        for variable, value in double.environ.items():
            patch.setenv(variable, value)
        ledgers = {path: path / ".yolo-clearml.json" for path in paths}
        for ledger in ledgers.values():
            if ledger.exists():
                ledger.rename(ledger.with_name(".kept"))
        assert [] == fails(upload(paths))
        for ledger in ledgers.values():
            ledger.unlink()
            if ledger.with_name(".kept").exists():
                ledger.with_name(".kept").rename(ledger)
        return comparable(double), times_of(double) if len(paths) == 1 else {}


def assert_as_uploaded(server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """The server ends as after a plain upload of the directory as it is now."""
    wanted, times = uploaded(monkeypatch, [run])
    assert wanted == comparable(server)
    got = times_of(server)
    assert times.keys() == got.keys()
    assert max(abs(times[key] - got[key]) for key in times) < 1000  # milliseconds


# -- step by step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FINISHED, KILLED, RESUMED])
def test_a_replay_ends_with_the_very_run_that_was_left(tmp_path: Path, make_run: MakeRun, name: str) -> None:
    """The last step's directory is the recorded run, byte for byte."""
    for step in timeline(name):
        put(step, tmp_path / "replayed")
    run = make_run(name)
    assert digests(run) == digests(tmp_path / "replayed")
    times = {path.name: path.stat().st_mtime for path in run.iterdir() if path.is_file()}
    for file, written in times.items():
        assert written == pytest.approx((tmp_path / "replayed" / file).stat().st_mtime, abs=0.005)


@pytest.mark.parametrize("name", FINISHED)
def test_at_each_step_the_server_knows_what_had_happened(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Curves as they grow, mosaics in the second epoch, and what the end brings only then."""
    steps, run = steps_of(name), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    watch = Watch(clock)
    for _, step, outcomes in replayed(steps, run, clock, lambda _: watch):
        assert [] == fails(outcomes)
        assert_by_now(server, name, step, run, last=step is steps[-1])
    (task,) = server.tasks.values()
    parameters = {
        n: {"type": p.get("type"), "value": p["value"]} for n, p in task["hyperparams"]["General"].items()
    }
    assert expected_of(name)["hyperparams_General"] == parameters
    assert_as_uploaded(server, monkeypatch, run)
    count = len(server.requests)
    assert [UpToDate] == [type(outcome) for outcome in watch.see(run)]
    assert count == len(server.requests)


def test_a_killed_training_is_stopped_when_nothing_writes_to_it_any_more(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """in_progress to the last second of half an hour, then stopped, without anything being noticed."""
    steps, run = steps_of(KILLED), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    watch = Watch(clock)
    for _, step, outcomes in replayed(steps, run, clock, lambda _: watch):
        assert [] == fails(outcomes)
        assert_by_now(server, KILLED, step, run)
    died = max(path.stat().st_mtime for path in run.rglob("*.*") if path.suffix != ".json")
    assert [] == fails(list(watch.outcomes(died + STALE - 1 - clock.at)))
    assert_by_now(server, KILLED, steps[-1], run)
    (outcome,) = watch.outcomes(3)
    assert isinstance(outcome, Delivered)
    assert_by_now(server, KILLED, steps[-1], run, status="stopped")
    assert_as_uploaded(server, monkeypatch, run)


@pytest.mark.parametrize("gap", [0.0, LATER])
def test_a_resumed_training_goes_on_in_the_same_task(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gap: float
) -> None:
    """Resumed at once it was never stopped; resumed after its death was seen, the stopped task goes on."""
    steps, run = timeline(RESUMED, gap), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    watch = Watch(clock)
    first = [step for step in steps if step.part == 0]
    for _, step, outcomes in replayed(first, run, clock, lambda _: watch):
        assert [] == fails(outcomes)
        assert_by_now(server, RESUMED, step, run)
    (task_id,) = server.tasks
    if gap:
        list(watch.outcomes(STALE))
        assert_by_now(server, RESUMED, first[-1], run, status="stopped")
    for _, step, outcomes in replayed(steps[len(first) :], run, clock, lambda _: watch):
        assert [] == fails(outcomes)
        (task,) = server.tasks.values()
        assert ("completed" if "results.png" in step.files else "in_progress") == task["status"]
    assert [task_id] == list(server.tasks)
    assert_by_now(server, RESUMED, steps[-1], run, last=True)
    parameters = {n: p["value"] for n, p in server.tasks[task_id]["hyperparams"]["General"].items()}
    wanted = {n: p["value"] for n, p in expected_of(RESUMED)["hyperparams_General"].items()}
    assert wanted == parameters
    assert_as_uploaded(server, monkeypatch, run)


@pytest.mark.parametrize("name", [FINISHED[1], RESUMED])
def test_at_the_pace_it_was_recorded_at_it_ends_the_same(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Steps come faster than a watch looks: many are seen as one, and none is lost."""
    steps, run = steps_of(name), tmp_path / "run"
    clock = Clock(steps[0].at)
    watch = Watch(clock)
    for step in steps:
        assert [] == fails(list(watch.outcomes(step.at - clock.at)))
        put(step, run)
        watch.notice(run)
    assert [Delivered] == [type(outcome) for outcome in watch.outcomes(1)]
    assert_by_now(server, name, steps[-1], run, last=True)
    assert_as_uploaded(server, monkeypatch, run)


# -- restarted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ledger"),
    sampled(
        [*zip(FINISHED, ["kept", "lost", "kept"], strict=True), (RESUMED, "kept"), (RESUMED, "lost")],
        {(FINISHED[0], "kept"), (FINISHED[1], "lost")}.__contains__,
    ),
)
def test_killed_and_restarted_between_all_steps(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, ledger: str
) -> None:
    """A new watch at each step, with and without the ledger, reports what one that lives through it does."""
    steps, run = timeline(name), tmp_path / "run"
    clock = Clock(steps[0].at)
    for _, step, outcomes in replayed(steps, run, clock, lambda _: Watch(clock)):
        assert [] == fails(outcomes)
        assert_by_now(server, name, step, run, last=step is steps[-1])
        if ledger == "lost":
            (run / LEDGER_NAME).unlink(missing_ok=True)
    assert_as_uploaded(server, monkeypatch, run)


@FEW_AND_EVERY
@pytest.mark.parametrize("name", [FINISHED[1], RESUMED])
def test_away_from_any_step_to_the_end(
    monkeypatch: pytest.MonkeyPatch, server: ClearMLDouble, tmp_path: Path, name: str, every: bool
) -> None:
    """A watch sees a single step and is killed; another, a day later, finds the rest done and sends it."""
    steps = timeline(name)
    whole = tmp_path / "whole"
    for step in steps:
        put(step, whole)
    wanted, _ = uploaded(monkeypatch, [whole])
    for seen in chosen(looked_at(steps)[:-1], every):
        run = tmp_path / f"seen{seen}"
        clock = Clock(steps[0].at)
        with ClearMLDouble() as double:
            for variable, value in double.environ.items():
                monkeypatch.setenv(variable, value)
            for step in steps[: seen + 1]:
                put(step, run)
            clock.reach(steps[seen].at)
            assert [] == fails(Watch(clock).see(run, changed=False))
            assert_by_now(double, name, steps[seen], run)
            for step in steps[seen + 1 :]:
                put(step, run)
            clock.reach(steps[-1].at + 86400)
            assert [] == fails(Watch(clock).see(run, changed=False))
            assert wanted == comparable(double), seen


@FEW_AND_EVERY
def test_away_between_any_two_steps(
    monkeypatch: pytest.MonkeyPatch, server: ClearMLDouble, tmp_path: Path, every: bool
) -> None:
    """Killed after one step and back at another, it reports what had happened by then."""
    steps = timeline(RESUMED)
    looks = [n for n in looked_at(steps) if trained(steps[n])][::2]
    for first, second in chosen([*itertools.combinations(looks, 2)], every):
        run = tmp_path / f"{first}-{second}"
        clock = Clock(steps[0].at)
        with ClearMLDouble() as double:
            for variable, value in double.environ.items():
                monkeypatch.setenv(variable, value)
            for number, step in enumerate(steps[: second + 1]):
                put(step, run)
                clock.reach(step.at)
                if number in (first, second):
                    assert [] == fails(Watch(clock).see(run))
            assert_by_now(double, RESUMED, steps[second], run)


def test_a_death_nobody_saw_is_reported_by_the_next_watch(server: ClearMLDouble, tmp_path: Path) -> None:
    """The watch and the training die; a watch that starts the next day stops the task."""
    steps, run = timeline(KILLED), tmp_path / "run"
    clock = Clock(steps[0].at)
    watch = Watch(clock)
    for _ in replayed(steps, run, clock, lambda _: watch):
        pass
    clock.at += 86400
    (outcome,) = Watch(clock).see(run, changed=False)
    assert isinstance(outcome, Delivered)
    assert_by_now(server, KILLED, steps[-1], run, status="stopped")


# -- nothing new for long ---------------------------------------------------------------------------------


def test_a_live_run_without_news_is_kept_alive(server: ClearMLDouble, tmp_path: Path) -> None:
    """An epoch of ten hours: the server hears of it in time, so its watchdog leaves the task."""
    steps, run = timeline(KILLED), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    heard: list[float] = []
    server.before_request = lambda endpoint, _: heard.append(clock.at) if endpoint == "tasks.ping" else None
    watch = Watch(clock, stale_after=1e6)
    for _ in replayed(steps, run, clock, lambda _: watch):
        pass
    began, count = clock.at, len(server.requests)
    for _ in range(10):
        assert [] == fails(list(watch.outcomes(3600)))
        assert [] == server.run_watchdog()
    times = [began, *heard, clock.at]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 1800
    assert 20 <= len(heard) <= 300
    assert 2 >= (len(server.requests) - count) / len(heard)  # the task is looked at, and pinged
    assert_by_now(server, KILLED, steps[-1], run)
    (task,) = server.tasks.values()
    clock.at += 7300
    assert [task["id"]] == server.run_watchdog()
    assert [Delivered] != [type(outcome) for outcome in Watch(clock, stale_after=1e6).see(run)]


def test_a_restarted_watch_keeps_alive_what_it_finds(server: ClearMLDouble, tmp_path: Path) -> None:
    """It cannot know when the server last heard of the run, so it pings at once, and goes on pinging."""
    steps, run = timeline(KILLED), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    watch = Watch(clock, stale_after=1e6)
    for _ in replayed(steps, run, clock, lambda _: watch):
        pass
    for _ in range(6):
        clock.at += 1700
        Watch(clock, stale_after=1e6).see(run, changed=False)
        clock.at += 1700
        assert [] == server.run_watchdog()


def test_a_task_that_the_watchdog_stopped_goes_on_with_the_run(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The watch was down for long, so the server took the task for dead; the next row takes it up again."""
    steps, run = timeline(FINISHED[1]), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    rows = [number for number, step in enumerate(steps) if step.event == "on_model_save"]
    for number, step, outcomes in replayed(steps, run, clock, lambda _: Watch(clock, stale_after=1e6)):
        assert [] == fails(outcomes)
        assert_by_now(server, FINISHED[1], step, run)
        if number == rows[1]:
            clock.at += 7300
            assert 1 == len(server.run_watchdog())
            (task,) = server.tasks.values()
            assert "stopped" == task["status"]
            Watch(clock, stale_after=1e6).see(run)
    assert_as_uploaded(server, monkeypatch, run)


def test_what_counts_as_dead_respects_the_longest_epoch(server: ClearMLDouble, tmp_path: Path) -> None:
    """Epochs of twenty minutes: silent for 59 minutes it lives, for 61 it is dead."""
    run, clock = tmp_path / "run", Clock(0.0)
    for step in timeline(KILLED):
        put(step, run)
    header, *rows = (run / "results.csv").read_text().splitlines()
    rows = [re.sub(r"^(\d+),[^,]+", lambda m: f"{m[1]},{1200 * int(m[1])}", row) for row in rows]
    written = (run / "results.csv").stat().st_mtime
    (run / "results.csv").write_text("\n".join([header, *rows, ""]))
    os.utime(run / "results.csv", (written, written))
    clock.at = (run / "weights" / "last.pt").stat().st_mtime
    watch = Watch(clock)
    watch.see(run)
    (task,) = server.tasks.values()
    list(watch.outcomes(59 * 60))
    assert "in_progress" == task["status"]
    list(watch.outcomes(2 * 60))
    assert "stopped" == task["status"]


# -- a person steps in ------------------------------------------------------------------------------------


def test_a_task_that_a_person_aborted_is_left_alone_until_it_is_reset(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run grows and nothing more is written; a person resets the task, and the watch fills it again."""
    from yolo_clearml.server.api import Api

    steps, run = timeline(FINISHED[1]), tmp_path / "run"
    clock = Clock(steps[0].at)
    server.clock = clock
    watch = Watch(clock)
    rows = [number for number, step in enumerate(steps) if step.event == "on_model_save"]
    state: dict[str, Any] = {}
    asked = tries = 0
    for number, _, outcomes in replayed(steps, run, clock, lambda _: watch):
        if number < rows[1]:
            assert [] == fails(outcomes)
        if number == rows[1]:
            (task,) = server.tasks.values()
            Api(2.0).call("tasks.stop", {"task": task["id"]})
            state, asked = end_state(server), len(server.requests)
        if number > rows[1]:
            tries += len(fails(outcomes))
            assert state == end_state(server)
    assert 1 <= tries <= 5  # of nine changes: what was refused is not asked for at each of them
    sentences = fails(list(watch.outcomes(3600)))
    assert sentences
    assert all("aborted" in sentence for sentence in sentences)
    assert len(sentences) < 20
    assert len(server.requests) - asked < 50
    assert state == end_state(server)
    Api(2.0).call("tasks.reset", {"task": task["id"], "force": True})
    assert [] == fails(list(watch.outcomes(601)))
    assert [task["id"]] == list(server.tasks)
    # of a draft, which a reset makes of it, a person may have chosen where its model goes
    server.tasks[task["id"]]["runtime"][RUNTIME_DESTINATION] = server.files_url
    assert_as_uploaded(server, monkeypatch, run)


# -- the server is away -----------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_the_server_is_away_while_a_run_grows(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked ever more rarely, at least once a minute; when it answers, all is reported within a minute."""
    steps, run = timeline(FINISHED[1]), tmp_path / "run"
    clock = Clock(steps[0].at)
    watch = Watch(clock)
    rows = [number for number, step in enumerate(steps) if step.event == "on_model_save"]
    for number, _, outcomes in replayed(steps, run, clock, lambda _: watch):
        if number <= rows[1]:
            assert [] == fails(outcomes)
        if number == rows[1]:
            state = end_state(server)
            server.stop_api()
            watch.timeout = _REFUSED
        assert all(outcome.error.outage for outcome in outcomes if isinstance(outcome, Failed))
        if number > rows[1] and steps[number].changes:
            assert [Failed] == list({type(outcome) for outcome in outcomes})
    for outcome in watch.outcomes(1200):
        assert isinstance(outcome, Failed)
        assert outcome.error.outage
    assert state == end_state(server)
    pauses = [later - earlier for earlier, later in itertools.pairwise(watch.asked)]
    assert max(pauses) <= 61
    assert min(pauses[8:]) >= 30
    assert 20 <= len(watch.asked) <= 60
    watch.timeout = _ANSWERED
    server.start_api()
    outcomes = list(watch.outcomes(61))
    assert isinstance(outcomes[0], Delivered)
    assert [] == fails(outcomes)
    assert_by_now(server, FINISHED[1], steps[-1], run, last=True)
    assert_as_uploaded(server, monkeypatch, run)


def test_a_watch_that_begins_while_the_server_is_away(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It waits, and of several runs a single one asks."""
    runs = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    for name, run in zip([FINISHED[1], FINISHED[2], KILLED], runs, strict=True):
        for step in timeline(name):
            put(step, run)
    clock = Clock(timeline(FINISHED[2])[-1].at)
    server.stop_api()
    watch = Watch(clock, timeout=_REFUSED)
    first = watch.see(*runs)
    assert 3 == len(fails(first))
    later = list(watch.outcomes(600))
    assert 8 <= len(watch.asked) <= 40
    assert len(watch.asked) == len(later)
    watch.timeout = _ANSWERED
    server.start_api()
    delivered = [outcome.run for outcome in watch.outcomes(61) if isinstance(outcome, Delivered)]
    assert sorted(runs) == sorted(delivered)
    assert {"completed": 2, "in_progress": 1} == Counter(task["status"] for task in server.tasks.values())
    list(watch.outcomes(STALE))
    assert uploaded(monkeypatch, runs)[0]["tasks"].keys() == comparable(server)["tasks"].keys()


def test_only_the_file_server_is_away(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Numbers go on arriving, step by step; pictures and the model follow when it is back."""
    name = FINISHED[1]
    steps, run = timeline(name), tmp_path / "run"
    clock = Clock(steps[0].at)
    watch = Watch(clock, timeout=0.5)
    server.stop_files()
    for _, step, outcomes in replayed(steps, run, clock, lambda _: watch):
        assert all(outcome.error.outage for outcome in outcomes if isinstance(outcome, Failed))
        if trained(step):
            (task_id,) = server.tasks
            got = {k: e["value"] for k, e in server.scalars(task_id).items() if k[0] != "Epoch Time"}
            assert scalars_by(name, step.rows, run).keys() == got.keys()
            assert {} == server.files
            assert "in_progress" == server.tasks[task_id]["status"]
    assert "fitness" in server.single_values(task_id)
    list(watch.outcomes(600))
    assert len(watch.asked) <= 40
    server.start_files()
    assert [] == fails(list(watch.outcomes(61)))
    assert_by_now(server, name, steps[-1], run, last=True)
    assert_as_uploaded(server, monkeypatch, run)


# -- many runs --------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_many_runs_at_once(server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Six trainings grow side by side, four are visited at a time: each its own task, all complete."""
    trainings = {
        name: renamed(timeline(recorded), name)
        for name, recorded in {
            "one": FINISHED[0],
            "two": FINISHED[1],
            "three": FINISHED[2],
            "four": RESUMED,
            "five": FINISHED[1],
            "six": KILLED,
        }.items()
    }
    clock = Clock(max(steps[0].at for steps in trainings.values()))
    watch = Watch(clock, jobs=4, once=True)
    longest = max(map(len, trainings.values()))
    runs = [tmp_path / name for name in trainings]
    for number in range(longest):
        grown = []
        for name, steps in trainings.items():
            # all of them end at about the same moment
            begin, end = (len(steps) * n // longest for n in (number, number + 1))
            for step in steps[begin:end]:
                put(step, tmp_path / name)
                grown.append(tmp_path / name)
        assert [] == fails(watch.see(*grown))
        assert not watch.ended
    assert [] == fails(list(watch.outcomes(STALE + 1)))
    assert watch.ended
    assert {"completed": 5, "stopped": 1} == Counter(task["status"] for task in server.tasks.values())
    assert uploaded(monkeypatch, runs)[0] == comparable(server)


# -- real processes ---------------------------------------------------------------------------------------


def start(root: Path, *options: str) -> subprocess.Popen[str]:
    """Start a real watch to which nothing ever dies."""
    call = [*COMMAND, "watch", str(root), "--stale-after", "1000000000", *options]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for another process, not for long."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def iterations(server: ClearMLDouble) -> set[int]:
    return {key[2] for task in list(server.tasks) for key in server.scalars(task)}


@pytest.mark.parametrize(
    "endpoint", sampled(["files:POST", "events.add_batch", "tasks.completed"], "files:POST".__eq__)
)
def test_a_killed_watch_is_finished_by_the_next(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str
) -> None:
    """SIGKILL at the first row, the first picture, the end; the training ends; --once makes it whole."""
    steps, run = timeline(FINISHED[1]), tmp_path / "runs" / "run"
    half = next(n for n, step in enumerate(steps) if step.rows == 2)
    for step in steps[: half + 1]:
        put(step, run)
    victims: list[subprocess.Popen[str]] = []

    def kill(asked: str, _: int) -> None:
        if asked == endpoint and victims:
            victims.pop().kill()

    server.before_request = kill
    process = start(run.parent)
    victims.append(process)
    wait_until(lambda: process.poll() is not None or {0, 1} <= iterations(server))
    for step in steps[half + 1 :]:
        put(step, run)
    process.communicate(timeout=60)
    assert -signal.SIGKILL == process.returncode
    again = start(run.parent, "--once")
    output, _ = again.communicate(timeout=60)
    assert 0 == again.returncode, output
    assert_by_now(server, FINISHED[1], steps[-1], run, last=True)
    assert_as_uploaded(server, monkeypatch, run)


@pytest.mark.parametrize(
    ("number", "status"), sampled([(signal.SIGTERM, 143), (signal.SIGINT, 130)], one_in(2))
)
def test_a_watch_that_is_asked_to_stop_stops_soon(
    server: ClearMLDouble, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Within five seconds, with the promised status; the task goes on, the ledger knows all that was sent."""
    steps, run = timeline(FINISHED[1]), tmp_path / "runs" / "run"
    grown = [step for step in steps if step.rows <= 2]
    for step in grown:
        put(step, run)
    process = start(run.parent)
    wait_until(lambda: STATUS in FileLedgers().load(run).sent)
    asked = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert time.monotonic() - asked < 5
    assert status == process.returncode
    assert_by_now(server, FINISHED[1], grown[-1], run)
    (task_id,) = server.tasks
    assert task_id == FileLedgers().load(run).task
    count = len(server.requests)
    assert [] == fails(upload([run], now=lambda: grown[-1].at))
    assert count == len(server.requests)
