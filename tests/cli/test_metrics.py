"""Counts for Prometheus: what the file holds, that it is always whole, what goes on from call to call."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble, Status
from prometheus_client.parser import text_string_to_metric_families
from test_cli import COMMAND, Run, run_cli, small

from yolo_clearml.cli import metrics
from yolo_clearml.cli.metrics import Metrics, MetricsUnwritable
from yolo_clearml.errors import RunUnreadable, UsageError, YoloClearmlError
from yolo_clearml.events import RunState
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

__all__ = ["run_cli", "small"]  # fixtures

PREFIX = "yolo_clearml_"
ERROR = RunUnreadable("It is bad.", "Mend it.")


def told(path: Path) -> dict[str, float]:
    """Read a file as Prometheus does: each sample's name, without the prefix, and its value."""
    samples = [s for family in text_string_to_metric_families(path.read_text()) for s in family.samples]
    assert all(sample.name.startswith(PREFIX) for sample in samples)
    named = {
        sample.name.removeprefix(PREFIX) + "".join(f" {v}" for v in sample.labels.values()): sample.value
        for sample in samples
    }
    assert len(named) == len(samples)
    return named


def delivered(name: str, state: RunState = RunState.FINISHED, events: int = 10) -> Delivered:
    return Delivered(Path(name), Facts(state=state), "t", None, events, 1, 100, ())


def count(path: Path, *outcomes: Outcome, now: float = 1000.0) -> dict[str, float]:
    """Count the outcomes of one call; gives what the file holds afterwards."""
    with Metrics(path, going_on=False, now=lambda: now) as counted:
        for outcome in outcomes:
            counted.note(outcome)
    return told(path)


def test_runs_are_counted_by_state_and_what_was_sent(tmp_path: Path) -> None:
    """A run counts once, as it was last seen; progress is no outcome."""
    got = count(
        tmp_path / "m.prom",
        Started(Path("a"), Facts(state=RunState.LIVE), 5),
        Progress(Path("a"), 5),
        delivered("a", RunState.LIVE, 3),
        delivered("a", events=4),
        delivered("b", RunState.STOPPED, 5),
        UpToDate(Path("c"), Facts(state=RunState.LIVE), "t", None),
        UpToDate(Path("e"), Facts(), "t", None),
        Skipped(Path("d"), "is a validation", ""),
        delivered("moved away"),
        Gone(Path("moved away")),
    )
    expected = {
        **{"runs live": 1, "runs finished": 1, "runs stopped": 1, "runs skipped": 1, "runs unknown": 1},
        **{"runs_failing": 0, "failures_total": 0, "events_sent_total": 22},
        **{"last_success_timestamp_seconds": 1000, "seconds_since_last_success": 0},
    }
    assert expected == got


def test_the_format_is_that_of_the_textfile_collector(tmp_path: Path) -> None:
    """Each family has its help and its type once, a counter ends in _total, and there are no time stamps."""
    count(tmp_path / "m.prom", delivered("a"))
    text = (tmp_path / "m.prom").read_text()
    lines = text.splitlines()
    types = dict(line.split()[2:] for line in lines if line.startswith("# TYPE"))
    assert {
        "yolo_clearml_runs": "gauge",
        "yolo_clearml_runs_failing": "gauge",
        "yolo_clearml_events_sent_total": "counter",
        "yolo_clearml_failures_total": "counter",
        "yolo_clearml_last_success_timestamp_seconds": "gauge",
        "yolo_clearml_seconds_since_last_success": "gauge",
    } == types
    assert set(types) == {line.split()[2] for line in lines if line.startswith("# HELP")}
    assert [2] * 10 == [len(line.split()) for line in lines if not line.startswith("#")]
    assert text.endswith("\n")


def test_a_failure_counts_until_the_run_fares_better(tmp_path: Path) -> None:
    """What arrived before it counts as sent; a state that is known is written; success is not now."""
    path = tmp_path / "m.prom"
    bad = Failed(Path("a"), Facts(state=RunState.FINISHED), ERROR, events=7)
    unknown = Failed(Path("b"), Facts(), ERROR)
    got = count(path, bad, unknown)
    assert (2, 2, 7) == (got["runs_failing"], got["failures_total"], got["events_sent_total"])
    assert (1, 1) == (got["runs finished"], got["runs unknown"])
    assert "last_success_timestamp_seconds" not in got
    assert "seconds_since_last_success" not in got
    got = count(path, bad, delivered("a"), unknown, Gone(Path("b")), now=2000.0)
    assert (0, 4, 24) == (got["runs_failing"], got["failures_total"], got["events_sent_total"])
    assert 2000 == got["last_success_timestamp_seconds"]
    got = count(path, bad, delivered("a"), unknown, Skipped(Path("b"), "is no run", ""), now=2500.0)
    assert (0, 2500) == (got["runs_failing"], got["last_success_timestamp_seconds"])


def test_totals_go_on_from_call_to_call_and_success_is_remembered(tmp_path: Path) -> None:
    """As cron calls; the states are those of the last call alone."""
    path = tmp_path / "m.prom"
    count(path, delivered("a"), delivered("b"), now=1000.0)
    got = count(path, delivered("a", events=1), Failed(Path("b"), Facts(), ERROR), now=1600.0)
    assert (21, 1) == (got["events_sent_total"], got["failures_total"])
    assert (1, 1) == (got["runs finished"], got["runs unknown"])
    assert (1000, 600) == (got["last_success_timestamp_seconds"], got["seconds_since_last_success"])


def test_a_call_that_ends_with_an_error_is_no_success(tmp_path: Path) -> None:
    """The counts are written all the same, and the error stays the one that it was."""
    path = tmp_path / "m.prom"
    count(path, delivered("a"), now=1000.0)
    for action in (str, lambda: os.rename(tmp_path, tmp_path.with_name("away"))):
        with pytest.raises(KeyError), Metrics(path, going_on=False, now=lambda: 2000.0) as counted:
            counted.note(delivered("a"))
            action()
            raise KeyError("ours")
    got = told(tmp_path.with_name("away") / "m.prom")
    assert (20, 1000) == (got["events_sent_total"], got["last_success_timestamp_seconds"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"yolo_clearml_events_sent_total\n",
        b"yolo_clearml_events_sent_total many\n",
        b"{}{}",
    ],
    ids=["empty", "no-text", "no-value", "no-number", "other"],
)
def test_a_damaged_file_begins_afresh(tmp_path: Path, content: bytes) -> None:
    """No error, for the runs matter more than their number."""
    (tmp_path / "m.prom").write_bytes(content)
    assert 10 == count(tmp_path / "m.prom", delivered("a"))["events_sent_total"]


def test_what_others_wrote_there_is_not_counted(tmp_path: Path) -> None:
    """Samples of another program, were they called alike."""
    (tmp_path / "m.prom").write_text("events_sent_total 5\nother_events_sent_total 7\n")
    assert 10 == count(tmp_path / "m.prom", delivered("a"))["events_sent_total"]


@pytest.mark.parametrize(
    "name",
    [
        *("nowhere/m.prom", ".", "file/m.prom", "n" * 300 + "/m.prom", "pipe", "/dev/null"),
        *("m.txt", "m", "prom", "m.prom.new", "file"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, name: str) -> None:
    """No folder, a folder, a pipe or a device, which would be replaced, what node_exporter does not read."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="--metrics") as error:
        Metrics(tmp_path / name, going_on=False)
    assert ".prom" in error.value.hint
    assert {"file", "pipe"} == {path.name for path in tmp_path.iterdir()}


def test_a_file_that_cannot_be_written_is_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a way out, the old file left as it was, and nothing half-written beside it."""
    path = tmp_path / "m.prom"
    count(path, delivered("a"))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MetricsUnwritable, match="No space left on device") as error:
        count(path, delivered("a"))
    assert isinstance(error.value, YoloClearmlError)
    assert (before, ["m.prom"]) == (path.read_bytes(), [file.name for file in tmp_path.iterdir()])


def test_whoever_reads_meanwhile_sees_a_whole_file(tmp_path: Path) -> None:
    """Old or new and never a part of it, however often it is written."""
    path = tmp_path / "m.prom"
    counted = Metrics(path, going_on=False, now=lambda: 1000.0)
    counted.write()
    length = len(told(path))
    done = threading.Event()
    parts: list[int] = []

    def read() -> None:
        while not done.is_set():
            parts.append(len(told(path)))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        counted.note(delivered(f"run{number}"))
        counted.write()
    done.set()
    reader.join()
    assert {length} == set(parts)
    assert 2000 == told(path)["events_sent_total"]


def written_until(path: Path, fits: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Wait until a file holds what fits."""
    pause, ended = threading.Event(), 0
    while not (path.exists() and fits(told(path))):
        ended += 1
        assert ended < 1000
        pause.wait(0.01)
    return told(path)


def test_a_watch_writes_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once and while it goes on, as it has no end; the last file is of its end."""
    monkeypatch.setattr(metrics, "_EVERY", 0.01)
    path = tmp_path / "m.prom"
    with Metrics(path, going_on=True, now=lambda: 1000.0) as counted:
        written_until(path, lambda got: got["runs live"] == 0)
        counted.note(delivered(str(tmp_path), RunState.LIVE))
        written_until(path, lambda got: got["runs live"] == 1)
        counted.note(delivered(str(tmp_path), RunState.FINISHED))
    assert (0, 1) == (told(path)["runs live"], told(path)["runs finished"])
    assert "metrics" not in {thread.name for thread in threading.enumerate()}


def test_a_run_that_was_deleted_fails_no_more(tmp_path: Path) -> None:
    """A watch that drops it has no outcome to count; all would seem ill for ever."""
    (tmp_path / "bad").mkdir()
    with Metrics(tmp_path / "m.prom", going_on=True, now=lambda: 1000.0) as counted:
        counted.note(Failed(tmp_path / "bad", Facts(), ERROR))
        counted.write()
        assert 1 == told(tmp_path / "m.prom")["runs_failing"]
        (tmp_path / "bad").rmdir()
    got = told(tmp_path / "m.prom")
    assert (0, 0, 1) == (got["runs_failing"], got["runs unknown"], got["failures_total"])
    assert 1000 == got["last_success_timestamp_seconds"]


def test_a_watch_that_has_just_begun_is_no_success(tmp_path: Path) -> None:
    """One that a service starts again and again, and that never gets anywhere, must be noticed."""
    path = tmp_path / "m.prom"
    count(path, now=1000.0)
    with pytest.raises(KeyError), Metrics(path, going_on=True, now=lambda: 5000.0):
        written_until(path, lambda got: got["seconds_since_last_success"] == 4000)
        raise KeyError("ended")
    assert 1000 == told(path)["last_success_timestamp_seconds"]


def test_a_clock_that_is_set_back_hides_no_failure(tmp_path: Path) -> None:
    """A success of tomorrow would keep an alarm silent until then: it counts as one of now."""
    path = tmp_path / "m.prom"
    count(path, now=90000.0)
    got = count(path, Failed(tmp_path, Facts(), ERROR), now=1000.0)
    assert (1000, 0) == (got["last_success_timestamp_seconds"], got["seconds_since_last_success"])
    got = count(path, Failed(tmp_path, Facts(), ERROR), now=1600.0)
    assert (1000, 600) == (got["last_success_timestamp_seconds"], got["seconds_since_last_success"])


# -- on the command line ---------------------------------------------------------------------------------


def test_an_upload_is_counted(run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun) -> None:
    """Sent, skipped and failed as the outcomes state; a second call adds nothing."""
    make_run("v8.4.190-val")
    events = 0
    for _ in range(2):
        ended = run_cli("upload", "--json", "--metrics", "m.prom", "runs")
        events += sum(json.loads(text)["events"] for text in ended.out.splitlines())
        got = told(Path("m.prom"))
        assert (0, "") == (ended.status, ended.err)
        assert (1, 1, 0) == (got["runs finished"], got["runs skipped"], got["runs_failing"])
        assert 0 < events == got["events_sent_total"]
    (make_run("v8.3.100-detect") / "args.yaml").unlink()
    assert 3 == run_cli("upload", "-q", "--metrics", "m.prom", "runs").status
    got = told(Path("m.prom"))
    assert (1, 1, events) == (got["runs_failing"], got["failures_total"], got["events_sent_total"])


def test_a_dry_run_counts_nothing(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """It touches nothing, and what would be sent was not."""
    assert 0 == run_cli("upload", "--dry-run", "--metrics", "m.prom", small).status
    assert not Path("m.prom").exists()


def test_an_upload_that_is_stopped_is_no_success(server: ClearMLDouble, small: Path, tmp_path: Path) -> None:
    """Or a cron job that is always cut short would look well for ever."""
    path = tmp_path / "m.prom"
    count(path, now=1000.0)
    begun = threading.Event()
    server.before_request = lambda endpoint, number: begun.set() if endpoint == "events.add_batch" else None
    server.latency = 0.05
    command = [*COMMAND, "upload", "-q", "-j", "1", "--metrics", str(path), str(small)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    assert begun.wait(20)
    process.terminate()
    assert 143 == process.wait(20)
    assert 1000 == told(path)["last_success_timestamp_seconds"]


def test_a_file_that_cannot_be_meant_is_refused_before_anything_is_sent(
    run_cli: Run, server: ClearMLDouble, small: Path
) -> None:
    """2, and no request."""
    ended = run_cli("upload", "--metrics", "nowhere/m.prom", small)
    assert (2, "", []) == (ended.status, ended.out, server.requests)
    assert "--metrics nowhere/m.prom names no file" in ended.err


def test_a_watch_counts(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same counts; a failure that was mended is one no more."""
    server.fault("tasks.create", Status(400), times=1)
    monkeypatch.setattr("yolo_clearml.sync.agenda._RUN_PAUSES", (0.01, 0.05))
    assert 0 == run_cli("watch", "--once", "-q", "--metrics", "m.prom", small).status
    got = told(Path("m.prom"))
    assert (1, 0, 1) == (got["runs finished"], got["runs_failing"], got["failures_total"])
    assert got["last_success_timestamp_seconds"] > 1e9
