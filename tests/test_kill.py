"""Killed anywhere and run again, the server ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from uploading import end_state, fails, in_child, upload

from yolo_clearml.engine import Delivered, UpToDate
from yolo_clearml.ledger import LEDGER_NAME


@pytest.fixture
def small_run(make_run: MakeRun) -> Path:
    """Give a finished run with one of each kind of report, so that every step occurs and few twice."""
    run = make_run("v8.4.190-detect")
    for name in ("labels", "BoxF1_curve", "BoxP_curve", "BoxR_curve", "BoxPR_curve", "confusion_matrix"):
        for path in run.glob(f"{name}*"):
            path.unlink()
    for name in ("train_batch1.jpg", "train_batch2.jpg", "val_batch0_labels.jpg"):
        (run / name).unlink()
    return run


def upload_in_child(run: Path, prepare: Callable[[], object] = lambda: None) -> bool:
    """Upload in a process of its own; tells whether it was killed."""

    def action() -> None:
        prepare()
        upload([run])

    status = in_child(action)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def assert_recovers(server: ClearMLDouble, run: Path, wanted: dict[str, Any]) -> None:
    """Run again: the server ends as it should, and then there is nothing left to do."""
    assert [] == fails(upload([run]))
    assert wanted == end_state(server)
    count = len(server.requests)
    (outcome,) = upload([run])
    assert isinstance(outcome, UpToDate)
    assert count == len(server.requests)
    assert [LEDGER_NAME] == [path.name for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("ledger", ["kept", "lost"])
def test_killed_at_every_request(
    monkeypatch: pytest.MonkeyPatch, server: ClearMLDouble, small_run: Path, when: str, ledger: str
) -> None:
    """SIGKILL before or after the server carries out each single request, with and without the ledger."""
    upload([small_run])
    wanted, requests = end_state(server), len(server.requests)
    assert requests >= 15
    (small_run / LEDGER_NAME).unlink()
    for number in range(1, requests + 1):
        with ClearMLDouble() as double:
            for name, value in double.environ.items():
                monkeypatch.setenv(name, value)
            victim: list[int] = []

            def kill(endpoint: str, count: int, number: int = number, victim: list[int] = victim) -> None:
                if count == number:
                    os.kill(victim[0], signal.SIGKILL)

            setattr(double, f"{when}_request", kill)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.read(read, 1)  # until the server knows whom to kill
                try:
                    upload([small_run])
                finally:
                    os._exit(99)
            victim.append(child)
            os.write(write, b"!")
            assert signal.SIGKILL == os.waitpid(child, 0)[1], number
            os.close(read)
            os.close(write)
            double.before_request = double.after_request = None
            if ledger == "lost":
                (small_run / LEDGER_NAME).unlink(missing_ok=True)
            assert_recovers(double, small_run, wanted)
            (small_run / LEDGER_NAME).unlink()


def kill_at(number: int) -> None:
    """Make this process kill itself at its ``number``-th step of writing the ledger, counted from 1."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step

    os.fsync = counted(os.fsync)
    os.replace = counted(os.replace)
    os.close = counted(os.close)


def test_killed_at_every_step_of_writing_the_ledger(
    monkeypatch: pytest.MonkeyPatch, server: ClearMLDouble, small_run: Path
) -> None:
    """SIGKILL before each fsync, rename and close, until the upload gets through untouched."""
    upload([small_run])
    wanted = end_state(server)
    (small_run / LEDGER_NAME).unlink()
    number, killed = 0, True
    while killed:
        number += 1
        with ClearMLDouble() as double:
            for name, value in double.environ.items():
                monkeypatch.setenv(name, value)
            killed = upload_in_child(small_run, lambda number=number: kill_at(number))  # type: ignore[misc]
            assert_recovers(double, small_run, wanted)
            (small_run / LEDGER_NAME).unlink()
    assert number > 40


def test_a_live_run_killed_while_it_ends_is_ended_by_the_next_pass(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """A picture changes after the task was completed, and the process dies before it completes it again."""
    run = make_run("v8.4.190-detect")
    upload([run])
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch0_pred.jpg")
    victims: list[int] = []

    def kill(endpoint: str, count: int) -> None:
        if endpoint == "events.add_batch" and not victims:
            victims.append(count)
            os.kill(child, signal.SIGKILL)

    server.before_request = kill
    child = os.fork()
    if child == 0:
        try:
            upload([run])
        finally:
            os._exit(99)
    assert signal.SIGKILL == os.waitpid(child, 0)[1]
    (task,) = server.tasks.values()
    assert "in_progress" == task["status"]
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert "completed" == task["status"]


def test_force_killed_half_way_is_finished_by_a_plain_upload(server: ClearMLDouble, small_run: Path) -> None:
    """--force says that what the server has is unknown; so must the ledger, before anything is sent."""
    upload([small_run])
    wanted = end_state(server)
    server.files.clear()
    victims: list[int] = []

    def kill(endpoint: str, count: int) -> None:
        if endpoint == "tasks.started" and not victims:
            victims.append(count)
            os.kill(child, signal.SIGKILL)

    server.before_request = kill
    child = os.fork()
    if child == 0:
        try:
            upload([small_run], force=True)
        finally:
            os._exit(99)
    assert signal.SIGKILL == os.waitpid(child, 0)[1]
    assert_recovers(server, small_run, wanted)
