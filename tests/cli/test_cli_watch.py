"""The command ``watch``, as a user types it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import MakeRun, one_in, sampled
from double import ClearMLDouble, Hang
from test_cli import COMMAND, Run, run_cli, small
from typer.main import get_command

from yolo_clearml.cli import app as cli
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers

__all__ = ["run_cli", "small"]  # fixtures


def parsed(*arguments: str) -> dict[str, Any]:
    """Give the parameters of a call of ``watch``, without carrying it out."""
    group = get_command(cli.app)
    watch: Any = group.get_command(typer.Context(group), "watch")  # type: ignore[attr-defined]
    return dict(watch.make_context("watch", list(arguments)).params)


@pytest.mark.parametrize(
    ("poll", "roots", "arguments"),
    [
        (None, ["runs"], ["runs"]),
        (5.0, ["runs"], ["--poll", "runs"]),
        (5.0, ["runs"], ["runs", "--poll"]),
        (5.0, ["runs", "more"], ["runs", "--poll", "more"]),
        (2.5, ["runs"], ["--poll", "2.5", "runs"]),
        (2.0, ["runs"], ["--poll=2", "runs"]),
        (5.0, ["runs"], ["--poll", "--once", "runs"]),
        (5.0, ["2"], ["--poll", "--", "2"]),
        (None, ["--poll"], ["--", "--poll"]),
    ],
)
def test_poll_may_stand_without_its_seconds(
    monkeypatch: pytest.MonkeyPatch, poll: float | None, roots: list[str], arguments: list[str]
) -> None:
    """A path after it is not taken for them."""
    monkeypatch.delenv("YOLO_CLEARML_POLL", raising=False)
    got = parsed(*arguments)
    assert (poll, [Path(root) for root in roots]) == (got["poll"], list(got["roots"]))


def test_once_brings_everything_up_to_date_and_ends(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun
) -> None:
    """A line per run with its address; the second time there is nothing to say."""
    make_run("v8.4.190-detect-noplots", "a"), make_run("v8.4.190-classify", "deep/down/b")
    ended = run_cli("watch", "--once", "runs")
    assert (0, "", 2) == (ended.status, ended.err, ended.out.count("\n"))
    assert {"completed"} == {task["status"] for task in server.tasks.values()}
    lines = sorted(ended.out.splitlines())
    assert lines[0].startswith("runs/a: finished, epoch 3 of 3, mAP50-95(B) ")
    assert lines[1].startswith("runs/deep/down/b: finished, epoch 5 of 5, accuracy_top1 1.000: sent ")
    assert all(f"/tasks/{task}/" in ended.out for task in server.tasks)
    assert (0, "", "") == run_cli("watch", "--once", "runs")


def test_json_is_a_line_for_each_change(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """The same object as of ``upload``."""
    ended = run_cli("watch", "--once", "--json", small)
    line = json.loads(ended.out)
    assert (0, "", "delivered", "finished") == (ended.status, ended.err, line["outcome"], line["state"])


def test_a_run_that_fails_does_not_keep_once_for_ever(
    run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries it is given up with its reason, said once; the others are delivered; 3."""
    monkeypatch.setattr("yolo_clearml.sync.agenda._RUN_PAUSES", (0.01, 0.05))
    (make_run("v8.3.100-detect") / "args.yaml").unlink()
    ended = run_cli("watch", "--once", "-q", "runs")
    assert (3, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert ended.err.startswith("runs/v8.3.100-detect: failed: runs/v8.3.100-detect/args.yaml is missing.")
    assert 1 == len(server.tasks)


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_a_root_that_is_none(run_cli: Run, server: ClearMLDouble, tmp_path: Path, root: str) -> None:
    """2, with what a root is."""
    (tmp_path / "file").write_text("")
    ended = run_cli("watch", root)
    assert (2, "") == (ended.status, ended.out)
    assert "Give a run directory" in ended.err


def test_without_a_configuration_it_ends(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """78: no waiting makes ClearML configured."""
    for name in server.environ:
        monkeypatch.delenv(name)
    ended = run_cli("watch", small)
    assert (78, "") == (ended.status, ended.out)
    assert "clearml-init" in ended.err


def test_with_refused_credentials_it_ends(
    run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun
) -> None:
    """77, said once for all runs: the configuration is read once."""
    make_run("v8.4.190-classify"), make_run("v8.3.100-detect")
    server.refuse_credentials = True
    ended = run_cli("watch", "runs")
    assert (77, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert "Create new ones" in ended.err


def test_credentials_that_are_refused_after_an_outage(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """77: that ended it, though another run waits for the server still."""
    monkeypatch.setattr("yolo_clearml.sync.agenda._SERVER_PAUSES", (0.05, 0.1))
    make_run("v8.4.190-detect-noplots"), make_run("v8.4.190-classify")
    server.refuse_credentials = True
    server.stop_api()
    threading.Timer(3.0, server.start_api).start()
    ended = run_cli("watch", "--timeout", "1", "--jobs", "1", "runs")
    assert (77, "") == (ended.status, ended.out)
    assert "It is asked again" in ended.err
    assert "refuses the credentials" in ended.err


def test_a_server_that_comes_back_is_noticed(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is away is said once, that it answers again as well; then everything is delivered."""
    monkeypatch.setattr("yolo_clearml.sync.agenda._SERVER_PAUSES", (0.05, 0.1))
    server.stop_api()
    threading.Timer(3.0, server.start_api).start()
    ended = run_cli("watch", "--once", "--timeout", "1", small)
    assert 0 == ended.status
    away, back = ended.err.splitlines()
    assert "It is asked again until it answers; nothing is lost." in away
    assert "ClearML answers again." == back
    assert ["completed"] == [task["status"] for task in server.tasks.values()]


@pytest.mark.parametrize(
    ("status", "number"), sampled([(130, signal.SIGINT), (143, signal.SIGTERM)], one_in(2))
)
def test_a_signal_ends_it_while_it_waits(
    server: ClearMLDouble, make_run: MakeRun, tmp_path: Path, status: int, number: signal.Signals
) -> None:
    """At once, with a word; the task stays in progress, the ledger is true."""
    run = make_run("v8.4.190-detect-killed")
    # so that a run of long ago counts as live
    process = subprocess.Popen(
        [*COMMAND, "watch", "--stale-after", "900000000", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "epoch 3 of 8" in process.stdout.readline()
    first = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (status, "") == (process.returncode, out)
    assert time.monotonic() - first < 5
    assert err.startswith("Stopping ")
    assert err.endswith("run the same command again for the rest.\n")
    (task,) = server.tasks.values()
    ledger = FileLedgers().load(run)
    assert ("in_progress", task["id"]) == (task["status"], ledger.task)
    assert "epoch/2" in ledger.sent


@pytest.mark.exhaustive
def test_a_signal_ends_it_during_a_request_that_hangs(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Within five seconds; what was not acknowledged is not in the ledger."""
    run = make_run("v8.4.190-detect-killed")
    begun = threading.Event()
    server.before_request = lambda endpoint, count: begun.set() if endpoint == "events.add_batch" else None
    server.fault("events.add_batch", Hang(30.0), times=1)
    process = subprocess.Popen([*COMMAND, "watch", "-q", str(run)], stderr=subprocess.PIPE, text=True)
    assert begun.wait(20)
    first = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (143, "") == (process.returncode, err)
    assert time.monotonic() - first < 5
    assert not any(key.startswith("epoch/") for key in FileLedgers().load(run).sent)


def test_a_new_row_arrives_within_two_seconds(
    server: ClearMLDouble, make_run: MakeRun, tmp_path: Path
) -> None:
    """From the moment it was written to that of the server's answer; in a run that appeared meanwhile."""
    source = make_run("v8.4.190-detect-killed", "../source")
    arrived = threading.Event()
    server.after_request = lambda endpoint, count: arrived.set() if endpoint == "events.add_batch" else None
    runs = tmp_path / "runs"
    runs.mkdir(exist_ok=True)
    command = [*COMMAND, "watch", "--stale-after", "900000000", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "waiting for the first" in process.stderr.readline()
        rows = (source / "results.csv").read_text().splitlines(keepends=True)
        (source / "results.csv").write_text("".join(rows[:2]))
        shutil.copytree(source, runs / "deep" / "exp")
        assert arrived.wait(20)  # it imports clearml first
        # the pictures follow in a batch of their own
        assert process.stdout is not None
        assert "epoch 1 of 8" in process.stdout.readline()
        for row in rows[2:]:
            arrived.clear()
            with (runs / "deep" / "exp" / "results.csv").open("a") as file:
                file.write(row)
            assert arrived.wait(2.0)
            process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    (task,) = server.tasks
    assert {0, 1, 2} == {iteration for _, _, iteration in server.scalars(task)}
    assert (runs / "deep" / "exp" / LEDGER_NAME).exists()
