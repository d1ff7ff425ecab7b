"""What is the same of a run wherever it was trained and wherever it is uploaded from."""

from __future__ import annotations

import fcntl
import os
import re
import threading
import unicodedata
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from conftest import MakeRun, long_after
from test_triggers import RUN, ByHand, Silent, Told, watching
from watchdog.events import DirModifiedEvent, FileModifiedEvent
from windows_like import system_as

from yolo_clearml import system
from yolo_clearml.cli import terminal
from yolo_clearml.cli.wording import PLAINLY
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.run import Run
from yolo_clearml.rundir.scan import scan
from yolo_clearml.sync.ledger import FileLedgers, Ledger, _state_path

# -- paths of Windows -------------------------------------------------------------------------------------

DEEP = "\\".join(["deep"] * 50)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("C:\\runs\\exp", "C:\\runs\\exp"),
        ("\\\\server\\share\\runs", "\\\\server\\share\\runs"),
        (f"C:\\{DEEP}", f"\\\\?\\C:\\{DEEP}"),
        (f"C:\\a\\..\\{DEEP}/b", f"\\\\?\\C:\\{DEEP}\\b"),
        (f"\\\\server\\share\\{DEEP}", f"\\\\?\\UNC\\server\\share\\{DEEP}"),
        (f"\\\\?\\C:\\{DEEP}", f"\\\\?\\C:\\{DEEP}"),
    ],
)
def test_a_long_path_of_windows_is_written_so_that_it_is_taken(path: str, expected: str) -> None:
    """Longer than 260 characters it would not be found; a person is shown the plain form."""
    assert expected == system.extended(path)
    assert system.plain(path).replace("\\a\\..", "").replace("/", "\\") == system.plain(expected)


def test_the_table_of_runs_knows_both_kinds_of_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drives differ, a folder ends in a backslash, and what is below it begins without one."""
    monkeypatch.setattr(terminal, "Path", PureWindowsPath)
    monkeypatch.setattr(terminal, "shown_path", str)
    monkeypatch.setattr(terminal, "os", type("Windows", (), {"path": __import__("ntpath"), "sep": "\\"}))
    one, two, other = map(PureWindowsPath, ("C:\\runs\\a", "C:\\runs\\b\\c", "D:\\runs\\a"))
    below: Any = terminal.below
    common: Any = terminal.common_folder
    assert "C:\\runs" == common([one, two])
    assert ["a", "b\\c"] == [below(run, "C:\\runs") for run in (one, two)]
    assert "" == common([one, other])


# -- what Windows writes ----------------------------------------------------------------------------------


def planned(run: Path) -> Any:
    found = scan(run, long_after())
    assert isinstance(found, Run)
    return plan(found, Wishes())


def test_line_ends_of_windows_change_nothing(make_run: MakeRun) -> None:
    """Neither the key nor a value, whether the trainer wrote them or git did."""
    run = make_run()
    before = planned(run)
    for name in ("results.csv", "args.yaml"):
        status = (run / name).stat()
        (run / name).write_bytes((run / name).read_bytes().replace(b"\n", b"\r\n"))
        os.utime(run / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert before == planned(run)


@pytest.mark.parametrize("save_dir", ["runs\\detect\\train7", "D:\\work\\runs\\detect\\train7"])
def test_a_run_of_windows_has_the_same_key_and_name_everywhere(make_run: MakeRun, save_dir: str) -> None:
    """What args.yaml states is taken as it stands there, on whatever system it is read."""
    run = make_run()
    text = (run / "args.yaml").read_text()
    text = re.sub(r"^save_dir: .*$", lambda _: f"save_dir: {save_dir}", text, flags=re.M)
    (run / "args.yaml").write_text(re.sub(r"^name: .*$", "name: null", text, flags=re.M))
    found = planned(run)
    moved = run.rename(run.parent / "elsewhere")
    assert found.key == planned(moved).key
    assert "train7" == found.name


# -- consoles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "…é\N{REPLACEMENT CHARACTER}列"), ("cp1252", "…é?\\u5217"), ("cp437", "~é?\\u5217")],
)
def test_no_name_is_too_much_for_a_console(encoding: str, expected: str) -> None:
    """What it has no character for is written in another way, as wide where a table counts on it."""
    assert expected == "…é\N{REPLACEMENT CHARACTER}列".encode(encoding, PLAINLY).decode(encoding)


# -- macOS ------------------------------------------------------------------------------------------------


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names that differ by case, or by how accents are written, be one; the system knows the true one."""
    monkeypatch.setattr(fcntl, "F_GETPATH", 50, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command, room: _true(descriptor))
    fresh, genuine = system_as("darwin"), os.open
    for name, value in vars(fresh).items():
        if not name.startswith("__"):
            monkeypatch.setattr(system, name, value)

    def opened(path: Any, *args: Any, **options: Any) -> int:
        return genuine(_found(Path(path)) if isinstance(path, Path) else path, *args, **options)

    monkeypatch.setattr(os, "open", opened)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", name).casefold()


def _found(path: Path) -> Path:
    """Find what a path means where case is no part of names; a new file is made as it is called."""
    if not path.is_absolute() or path.exists():
        return path
    parent = _found(path.parent)
    alike = [each for each in parent.iterdir() if _folded(each.name) == _folded(path.name)]
    return alike[0] if alike else parent / path.name


def _true(descriptor: int) -> bytes:
    return os.fsencode(os.readlink(f"/proc/self/fd/{descriptor}")).ljust(1024, b"\0")


def test_a_run_given_in_another_case_has_the_same_ledger(
    on_macos: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the state directory, where it is found by the path of the run."""
    run = tmp_path / "Läufe" / "Exp"
    run.mkdir(parents=True)
    other = tmp_path / unicodedata.normalize("NFD", "läufe") / "exp"
    assert run == system.true_path(other) == system.true_path(run)
    monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))
    (run / ".yolo-clearml.json").mkdir()  # so that the run itself takes no file
    assert _state_path(run) == _state_path(other)
    assert Ledger() == FileLedgers().load(other)


def test_events_by_true_paths_are_of_the_root_that_was_given(tmp_path: Path) -> None:
    """FSEvents announces /private/tmp where /tmp was given, and whole paths for relative ones."""
    run = tmp_path / "private" / "run"
    run.mkdir(parents=True)
    for name in RUN:
        (run / name).write_bytes(b"epoch\n")
    given = tmp_path / "given"
    given.symlink_to(tmp_path / "private")
    told = Told()
    with watching(told, given, kind=ByHand, observe=Silent) as lookout:
        told.heard()
        (run / "results.csv").write_bytes(b"epoch\n1\n")
        lookout.on_any_event(FileModifiedEvent(str(run / "results.csv")))
        lookout.on_any_event(DirModifiedEvent(str(tmp_path / "private")))
        lookout.heed()
    assert ("run", True) in told.heard()
    assert {given / "run"} == set(told.seen)


def test_only_linux_gets_a_hint_about_inotify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nobody could raise its limits."""
    monkeypatch.setattr(system, "INOTIFY", False)
    said: list[str] = []

    class Full(Silent):
        def start(self) -> None:
            raise OSError(28, "No space left on device")

    with ByHand([tmp_path], Told(), said.append, threading.Event(), observe=Full):  # type: ignore[arg-type]
        pass
    assert 1 == len(said)
    assert "inotify" not in said[0] and "looked for every" in said[0]
