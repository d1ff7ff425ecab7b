"""A live run without news: its task hears in time that it goes on, from a watch and from uploads by cron."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble, state
from timelines import Clock, Watch

from yolo_clearml import library
from yolo_clearml.events import RunState
from yolo_clearml.library import Options
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, Progress, Started, UpToDate
from yolo_clearml.sync.sinks import RecordingSink

PATIENT = Options(timeout=2.0, stale_after=1e9)  # under which a run that died years ago is live
LONG = 1600.0  # seconds without a word


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Give a run that is in the middle of an epoch."""
    return make_run("v8.4.190-detect-killed")


def upload(run: Path, options: Options = PATIENT) -> Outcome:
    *_, outcome = library.upload([run], options)
    assert not isinstance(outcome, (Started, Progress, Failed))
    return outcome


def age(run: Path, seconds: float) -> None:
    """Let the ledger be written so long ago."""
    then = time.time() - seconds
    os.utime(run / LEDGER_NAME, (then, then))


def asked(server: ClearMLDouble, since: int) -> list[str]:
    return [request.endpoint for request in server.requests[since:]]


# -- upload, every few minutes ----------------------------------------------------------------------------


def test_an_upload_pings_a_live_task(server: ClearMLDouble, run: Path) -> None:
    """Nothing new for 25 minutes: a ping, of which nothing is said; before that and after it, nothing."""
    assert isinstance(upload(run), Delivered)
    before = len(server.requests)
    assert isinstance(upload(run), UpToDate)
    age(run, 1400)
    assert isinstance(upload(run), UpToDate)
    assert [] == asked(server, before)
    age(run, LONG)
    outcome = upload(run)
    assert isinstance(outcome, UpToDate)
    assert (RunState.LIVE, ()) == (outcome.facts.state, outcome.notes)
    assert 1 == asked(server, before).count("tasks.ping")
    before = len(server.requests)
    assert isinstance(upload(run), UpToDate)
    assert [] == asked(server, before)


def test_cron_keeps_a_task_alive_through_an_epoch_of_ten_hours(server: ClearMLDouble, run: Path) -> None:
    """Every ten minutes, by the clock of the server, whose watchdog never stops it."""
    passes = [0]
    server.clock = lambda: time.time() + 600 * len(passes)
    upload(run)
    for number in range(60):
        passes.append(number)
        age(run, time.time() - (run / LEDGER_NAME).stat().st_mtime + 600)
        upload(run)
        assert [] == server.run_watchdog()


def test_a_ledger_from_the_future_proves_nothing(server: ClearMLDouble, run: Path) -> None:
    """A clock that was wrong must not silence a task for years."""
    upload(run)
    age(run, -86400)
    before = len(server.requests)
    upload(run)
    assert "tasks.ping" in asked(server, before)


def test_a_task_that_was_stopped_between_two_uploads_goes_on(server: ClearMLDouble, run: Path) -> None:
    """Cron was off for the night; the first upload takes the task up again, though no epoch ended."""
    upload(run)
    (task,) = server.tasks.values()
    server.clock = lambda: time.time() + 8000
    assert [task["id"]] == server.run_watchdog()
    age(run, 8000)
    outcome = upload(run)
    assert isinstance(outcome, UpToDate)
    assert outcome.revived
    assert "in_progress" == task["status"]


def test_an_ended_run_needs_no_word(server: ClearMLDouble, run: Path) -> None:
    """However old its ledger: a second upload makes no request, were a file written again as it was."""
    for options in (PATIENT, Options(timeout=2.0)):
        upload(run, options)
    before = len(server.requests)
    for _ in range(2):
        age(run, 1e7)
        assert isinstance(upload(run, Options(timeout=2.0)), UpToDate)
        assert [] == asked(server, before)
        written = (run / "labels.jpg").stat().st_mtime + 1
        os.utime(run / "labels.jpg", (written, written))


def test_a_dry_run_and_an_export_ping_no_task(server: ClearMLDouble, run: Path, tmp_path: Path) -> None:
    """They ask no server, whatever there is to report to it, and leave the ledger as it is."""
    upload(run)
    age(run, LONG)
    before, written = len(server.requests), (run / LEDGER_NAME).stat().st_mtime_ns
    rehearsal = RecordingSink()
    list(library.upload([run], PATIENT, rehearsal=rehearsal))
    assert {} == rehearsal.recorded
    list(library.upload([run], Options(stale_after=1e9, offline=tmp_path / "sessions")))
    list(library.status([run], PATIENT))
    assert ([], written) == (asked(server, before), (run / LEDGER_NAME).stat().st_mtime_ns)


# -- watch ------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(server: ClearMLDouble, run: Path) -> Watch:
    """Give a watch, at the time when the run's last row was written."""
    clock = Clock((run / "weights" / "last.pt").stat().st_mtime)
    server.clock = clock
    return Watch(clock, stale_after=1e6)


def test_a_word_is_two_small_requests(server: ClearMLDouble, run: Path, watch: Watch) -> None:
    """The task is looked at, and pinged; the ledger is not written again for that."""
    watch.see(run)
    before, ledger = len(server.requests), (run / LEDGER_NAME).stat()
    outcomes = list(watch.outcomes(600))
    assert {UpToDate} == set(map(type, outcomes))
    assert {"tasks.get_all_ex", "tasks.ping"} == set(asked(server, before))
    assert 2 * len(outcomes) == len(asked(server, before))
    assert ledger.st_mtime_ns == (run / LEDGER_NAME).stat().st_mtime_ns


def test_a_row_that_no_event_announced_is_found_by_a_word(
    server: ClearMLDouble, run: Path, watch: Watch
) -> None:
    """What was written since the last visit is reported as well."""
    table = (run / "results.csv").read_text()
    kept, cut = (run / "results.csv").stat(), table.rstrip("\n").rpartition("\n")[0] + "\n"
    (run / "results.csv").write_text(cut)
    watch.see(run)
    (run / "results.csv").write_text(table)
    os.utime(run / "results.csv", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert Delivered in map(type, watch.outcomes(60))


@pytest.mark.parametrize(("patience", "hours"), [(60, 2), (600, 12)])
def test_a_server_with_less_patience_shows_a_live_run_as_stopped_once(
    monkeypatch: pytest.MonkeyPatch,
    server: ClearMLDouble,
    run: Path,
    watch: Watch,
    patience: int,
    hours: int,
) -> None:
    """Whoever runs it has set fewer seconds; no endpoint states it, and the watch finds out."""
    monkeypatch.setattr(state, "WATCHDOG_SECONDS", patience)
    stopped: list[str] = []
    server.before_request = lambda endpoint, number: stopped.extend(server.run_watchdog())
    watch.see(run)
    (task,) = server.tasks.values()
    for _ in range(6 * hours):
        list(watch.outcomes(600))
    assert [task["id"]] == stopped
    assert "in_progress" == task["status"]


@pytest.mark.parametrize("done", ["aborted", "published", "archived", "deleted"])
def test_what_a_person_did_to_the_task_is_respected(
    server: ClearMLDouble, run: Path, watch: Watch, done: str
) -> None:
    """A word to it is none: the run is visited, and that says so; a task that was deleted is made anew."""
    watch.see(run)
    (task,) = server.tasks.values()
    if done == "deleted":
        server.ask("tasks.delete", task=task["id"], force=True, delete_external_artifacts=False)
    elif done == "archived":
        task["system_tags"] = ["archived"]
    else:
        server.ask("tasks.stopped" if done == "aborted" else "tasks.publish", task=task["id"], force=True)
    before = len(server.requests)
    outcomes = list(watch.outcomes(30))
    if done == "deleted":
        assert Delivered in map(type, outcomes)
        assert ["in_progress"] == [task["status"] for task in server.tasks.values()]
    else:
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        assert f"was {done} in ClearML" in str(failures[0].error)
        assert "tasks.ping" not in asked(server, before)
