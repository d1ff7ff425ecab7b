"""The core of it all where nothing is that only POSIX has; see windows_like.py for what that is."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_AND_EVERY, ROOT, Doubles, numbers
from double import ClearMLDouble
from killing import hidden, killed_at_request, killed_at_step
from test_files import (
    fifo,
    file_for_a_folder,
    folder,
    link_to_a_file,
    link_to_a_folder,
    link_to_itself,
    link_to_nowhere,
    secret,
)
from test_layers import ORDER
from test_ledger import FULL
from uploading import end_state, fails, in_child, upload
from windows_like import Windows, system_as, windows_like

from yolo_clearml import library, system
from yolo_clearml.cli.interruption import Interruption
from yolo_clearml.errors import RunBusy
from yolo_clearml.library import Options
from yolo_clearml.rundir.files import open_regular, replacing
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, Ledger
from yolo_clearml.sync.outcomes import Delivered, Skipped, UpToDate
from yolo_clearml.sync.work import Aim

pytestmark = pytest.mark.usefixtures("told_at_once")


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[Windows]:  # pytest asks who the user is for its folder, before
    with windows_like() as stand_in, pytest.MonkeyPatch.context() as more:
        more.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))
        yield stand_in


@pytest.fixture
def patch(windows: Windows) -> Iterator[pytest.MonkeyPatch]:
    """Give what changes more than Windows does, and is undone before that is."""
    with pytest.MonkeyPatch.context() as more:
        yield more


# -- the stand-in itself ----------------------------------------------------------------------------------


def test_the_stand_in_refuses_what_windows_has_not(windows: Windows, tmp_path: Path) -> None:
    """Or the tests below would show nothing."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"")
    other.write_bytes(b"")
    with pytest.raises(ImportError):
        importlib.import_module("fcntl")
    with pytest.raises(NotImplementedError):
        os.open("a", os.O_RDONLY, dir_fd=0)
    with pytest.raises(PermissionError):
        os.open(tmp_path, os.O_RDONLY)
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "getuid", "fchmod"):
        assert not hasattr(os, name)
    assert not (hasattr(signal, "SIGHUP") or hasattr(signal, "SIGPIPE"))
    with path.open("rb"):
        for act in (path.unlink, lambda: other.replace(path), lambda: path.rename(other)):
            with pytest.raises(PermissionError):
                act()
    descriptor = os.open(path, os.O_RDWR)
    assert system.lock(descriptor)
    with pytest.raises(PermissionError):
        path.read_bytes()
    os.close(descriptor)
    assert b"" == path.read_bytes()
    other.replace(path)


@pytest.mark.parametrize("other", ["linux", "darwin"])
def test_what_is_right_elsewhere_fails_there(
    windows: Windows, patch: pytest.MonkeyPatch, tmp_path: Path, other: str
) -> None:
    """With the other branch of the one module, nothing is read, held or written."""
    (tmp_path / "results.csv").write_bytes(b"")
    for name, value in vars(system_as(other)).items():
        if not name.startswith("__"):
            patch.setattr(system, name, value, raising=False)
    with pytest.raises(AttributeError), open_regular(tmp_path, "results.csv"):
        pass
    with pytest.raises(AttributeError), FileLedgers().hold(tmp_path):
        pass
    with pytest.raises(AttributeError), replacing(tmp_path / "m.prom") as file:
        file.write(b"")


@pytest.fixture
def fresh_modules() -> Iterator[None]:
    """Let every module of the package be imported anew."""
    mine = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "yolo_clearml"}
    for name in mine:
        del sys.modules[name]
    sys.modules["yolo_clearml.system"] = mine["yolo_clearml.system"]
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "yolo_clearml"]:
        del sys.modules[name]
    sys.modules.update(mine)


def test_every_module_can_be_imported(windows: Windows, fresh_modules: None) -> None:
    """As none could while one of them took fcntl and SIGPIPE when it was."""
    for module in ORDER:
        if module not in ("__main__", "system"):
            importlib.import_module(f"yolo_clearml.{module}")


# -- the core ---------------------------------------------------------------------------------------------


def settled(server: ClearMLDouble, run: Path) -> None:
    """There is nothing left to do, and one file of ours."""
    before = len(server.requests)
    (outcome,) = upload([run])
    assert isinstance(outcome, UpToDate)
    assert (before, [LEDGER_NAME]) == (len(server.requests), hidden(run))


def test_uploaded_again_changed_and_verified(
    windows: Windows, server: ClearMLDouble, doubles: Doubles, small_run: Path
) -> None:
    """The end is the same as on Linux."""
    (outcome,) = upload([small_run])
    assert isinstance(outcome, Delivered)
    settled(server, small_run)
    shutil.copy(small_run / "train_batch0.jpg", small_run / "val_batch0_pred.jpg")
    (outcome,) = upload([small_run])
    assert isinstance(outcome, Delivered)
    assert 1 == outcome.files
    (outcome,) = upload([small_run], aim=Aim.VERIFY)
    assert isinstance(outcome, (Delivered, UpToDate)) and outcome.proof is not None
    assert () == outcome.proof.differences
    settled(server, small_run)


@pytest.mark.parametrize("when", [pytest.param("never", marks=pytest.mark.exhaustive), "after"])
@FEW_AND_EVERY
def test_killed_at_a_request_and_run_again(
    windows: Windows, server: ClearMLDouble, doubles: Doubles, small_run: Path, when: str, every: bool
) -> None:
    """Before it is carried out or after; what the killed process has locked is nobody's any more."""
    untouched = small_run.parent.parent / "untouched"
    shutil.copytree(small_run, untouched)
    assert [] == fails(upload([small_run]))
    expected = end_state(server)
    for number in numbers(every, 9):
        shutil.rmtree(small_run)
        shutil.copytree(untouched, small_run)
        with doubles() as double:
            killed = killed_at_request(double, number, when, lambda: upload([small_run], timeout=20.0))
            assert killed or every
            assert [] == fails(upload([small_run], timeout=20.0))
            assert expected == end_state(double)
            settled(double, small_run)
        if not killed:
            return


@pytest.mark.exhaustive
def test_killed_at_every_step_of_a_save(windows: Windows, tmp_path: Path) -> None:
    """The ledger is the old one or the new one, and can be held again."""

    def save() -> None:
        with FileLedgers().hold(tmp_path) as held:
            held.save(FULL)

    for number in numbers(True):
        (tmp_path / LEDGER_NAME).unlink(missing_ok=True)
        with FileLedgers().hold(tmp_path) as held:
            held.save(Ledger(run="old"))
        killed = killed_at_step(number, save)
        assert FileLedgers().load(tmp_path) in ((FULL, Ledger(run="old")) if killed else (FULL,))
        save()
        assert [LEDGER_NAME] == sorted(os.listdir(tmp_path))
        if not killed:
            break


def test_two_at_once(windows: Windows, tmp_path: Path) -> None:
    """One holds it, and another thread or process is refused, reads all the same, and takes nothing away."""

    def refused() -> None:
        with pytest.raises(RunBusy), FileLedgers().hold(tmp_path):
            pass
        assert FULL == FileLedgers().load(tmp_path)

    with FileLedgers().hold(tmp_path) as held:
        held.save(FULL)
        refused()
        assert 0 == in_child(refused)
        assert [LEDGER_NAME, f"{LEDGER_NAME}.lock"] == sorted(os.listdir(tmp_path))
        held.save(FULL)
    assert [LEDGER_NAME] == os.listdir(tmp_path)


def test_a_ledger_that_is_being_read_is_replaced_once_it_is_not(windows: Windows, tmp_path: Path) -> None:
    """A look of another process at it takes no lock, and for as long it cannot be replaced."""
    with FileLedgers().hold(tmp_path) as held:
        held.save(Ledger(run="old"))
        reading = (tmp_path / LEDGER_NAME).open("rb")
        timer = threading.Timer(0.1, reading.close)
        timer.start()
        held.save(FULL)
        timer.join()
    assert windows.refused > 0
    assert FULL == FileLedgers().load(tmp_path)
    assert [LEDGER_NAME] == os.listdir(tmp_path)  # and not in the state directory


def test_one_who_writes_a_file_for_others_is_waited_for(windows: Windows, tmp_path: Path) -> None:
    """As an export or the counts for Prometheus; what a kill left is in nobody's way."""
    path = tmp_path / "m.prom"
    (tmp_path / "m.prom.tmp").write_bytes(b"left")
    (tmp_path / "m.prom.lock").write_bytes(b"")

    def write(text: bytes) -> None:
        with replacing(path) as file:
            file.write(text)

    with replacing(path) as file:
        file.write(b"first")
        other = threading.Thread(target=write, args=(b"second",))
        other.start()
        other.join(0.05)
        assert other.is_alive() and not path.exists()
    other.join(10)
    assert (b"second", ["m.prom"]) == (path.read_bytes(), os.listdir(tmp_path))


def test_watched(windows: Windows, server: ClearMLDouble, small_run: Path) -> None:
    """Until every run has ended, by whatever announces changes."""
    outcomes = list(library.watch([small_run.parent], Options(timeout=5.0), once=True))
    assert any(isinstance(outcome, Delivered) for outcome in outcomes)
    settled(server, small_run)


def test_exported(windows: Windows, small_run: Path, tmp_path: Path, drawn_once: None) -> None:
    """Into a zip and the weights beside it, each in the place of an older one."""
    for _ in range(2):
        (_,) = [
            outcome
            for outcome in library.upload([small_run], Options(offline=tmp_path / "sessions"))
            if isinstance(outcome, Delivered)
        ]
        assert [".pt", ".zip"] == sorted(path.suffix for path in (tmp_path / "sessions").iterdir())


def test_a_table_that_is_held_open_is_looked_at_again(
    windows: Windows, patch: pytest.MonkeyPatch, server: ClearMLDouble, small_run: Path
) -> None:
    """By a spreadsheet, or a trainer that shares it with nobody: skipped by name, and no failure."""
    windows.held_open.add(small_run / "results.csv")
    patch.setitem(system.open_below.__globals__, "_PATIENCE", 0.05)
    (outcome,) = upload([small_run])
    assert isinstance(outcome, Skipped)
    assert "held open" in outcome.hint and "results.csv" in outcome.hint
    assert windows.refused > 1  # it was tried for a while
    windows.held_open.clear()
    assert isinstance(upload([small_run])[0], Delivered)


# -- what is not below a run is not read ------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [link_to_a_file, link_to_a_folder, link_to_nowhere, link_to_itself, folder, file_for_a_folder, fifo],
)
def test_what_is_no_regular_file_is_refused(
    windows: Windows, make: Callable[[Path], str], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    name = make(root)
    with pytest.raises(OSError), open_regular(root, name):
        pass


@pytest.mark.parametrize("swap", ["file", "folder", "folder and back"])
def test_a_link_that_comes_between_the_look_and_the_opening_is_refused(
    windows: Windows, patch: pytest.MonkeyPatch, tmp_path: Path, swap: str
) -> None:
    """What was opened is compared with what is there: the nearest that Windows has to openat."""
    root = tmp_path / "run"
    (root / "weights").mkdir(parents=True)
    (root / "weights" / "secret").write_bytes(b"own")
    outside = secret(root)
    genuine = os.open

    def opened(path: Any, flags: int, *mode: int) -> int:
        place = root / "weights" / ("secret" if swap == "file" else "")
        place.rename(tmp_path / "moved")
        place.symlink_to(outside / "secret" if swap == "file" else outside)
        descriptor = genuine(path, flags, *mode)
        if swap == "folder and back":
            place.unlink()
            (tmp_path / "moved").rename(place)
        return descriptor

    patch.setattr(os, "open", opened)
    with pytest.raises(OSError), open_regular(root, "weights/secret"):
        pass


# -- signals, and readers that have gone ------------------------------------------------------------------


def test_ctrl_break_is_a_wish_to_stop(windows: Windows, patch: pytest.MonkeyPatch) -> None:
    """As is the closing of a console: Windows sends the same."""
    patch.setattr("yolo_clearml.cli.interruption._GRACE", 1e6)  # or this process would end
    with Interruption(quiet=True) as interruption:
        signal.raise_signal(signal.SIGBREAK)  # type: ignore[attr-defined,unused-ignore]
        assert interruption.stop.is_set()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "file",
    ["sync/test_upload.py", "rundir/test_files.py", "rundir/test_scan.py", "rundir/test_finding.py"],
)
def test_the_core_of_the_suite_passes_there(file: str) -> None:
    """All tests of what reads and sends, but for those of what Windows has not."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "as_windows", f"tests/{file}"]
    command += ["-k", "not fifo and not device and not socket"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert 0 == ended.returncode, ended.stdout[-4000:] + ended.stderr[-4000:]
