"""In containers and as strange users: it goes on, or says in a sentence which variable to set."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import COMMAND, Run, run_cli

from yolo_clearml.errors import Exit
from yolo_clearml.sync import ledger
from yolo_clearml.sync.ledger import LEDGER_NAME

__all__ = ["run_cli"]  # a fixture

COMMANDS = ("status", "upload", "verify", "watch --once", "upload --offline sessions", "doctor")


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Give a run that died, so that its results figure is drawn."""
    return make_run("v8.4.190-detect-killed", "exp")


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Let the state directory be looked for anew."""
    ledger._folder_named.cache_clear()
    yield
    ledger._folder_named.cache_clear()


HOMES = {
    "unset": None,
    "empty": "",
    "a file": "{}/file",
    "not there": "{}/nowhere",
    "not to be looked into": "{}/" + "x" * 300,  # by root neither: the name is too long for a look
}


@pytest.fixture(params=HOMES)
def home(
    request: pytest.FixtureRequest,
    run_cli: Run,
    server: ClearMLDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Be a number without a name, with such a home."""

    def nobody(uid: int) -> NoReturn:
        raise KeyError(uid)

    (tmp_path / "file").touch()
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("YOLO_CLEARML_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    value = HOMES[request.param]
    if value is not None:
        monkeypatch.setenv("HOME", value.format(tmp_path))


def test_a_home_that_is_of_no_use(run_cli: Run, server: ClearMLDouble, run: Path, home: None) -> None:
    """Nothing needs it as long as the run directory takes the ledger."""
    for command in COMMANDS:
        ended = run_cli(*command.split(), "runs")
        assert (Exit.OK, 0) == (ended.status, (ended.out + ended.err).count("Traceback")), command
    assert (run / LEDGER_NAME).is_file()
    assert 1 == len(server.tasks)


@pytest.mark.parametrize("home", ["unset", "empty", "a file", "not to be looked into"], indirect=True)
def test_such_a_home_and_a_run_that_takes_no_file(
    run_cli: Run, server: ClearMLDouble, run: Path, home: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is named; nothing is sent that could not be remembered."""
    real = os.open

    def open_(path: str | Path, flags: int, *more: int, **how: int) -> int:
        if flags & os.O_CREAT and Path(path).parent == run:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more, **how)

    monkeypatch.setattr(os, "open", open_)
    ended = run_cli("upload", run)
    assert Exit.SOME_FAILED == ended.status
    assert "YOLO_CLEARML_STATE_DIR" in ended.err
    assert "Traceback" not in ended.err
    assert os.devnull not in ended.err
    assert {} == server.tasks
    assert Exit.SOME_FAILED == run_cli("doctor", run).status


def test_no_folder_for_temporary_files(
    run_cli: Run, server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ClearML's SDK needs one to be imported; what does not need that goes on."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    assert Exit.OK == run_cli("status", "runs").status
    for command in ("upload", "verify"):
        ended = run_cli(command, "runs")
        assert Exit.NOT_CONFIGURED == ended.status
        assert "Set TMPDIR to one that can." in ended.err
        assert "Traceback" not in ended.err
    assert [] == server.requests
    ended = run_cli("doctor", "runs")
    assert Exit.NOT_CONFIGURED == ended.status
    assert "failed       temporary files: There is no folder" in ended.out
    assert "ok           runs: 1 in or below runs can be read" in ended.out


def test_a_current_folder_that_was_deleted(
    run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole paths do; of others it is said what they are relative to."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for command in (
        "status",
        "upload",
        "verify",
        "watch --once",
        f"upload --offline {tmp_path}/out",
        "doctor",
    ):
        assert Exit.OK == run_cli(*command.split(), run).status, command
    for command in ("status .", "watch --once .", f"upload --offline out {run}", "doctor exp"):
        ended = run_cli(*command.split())
        assert Exit.USAGE == ended.status, command
        assert "is a path from the current folder on, which is not there any more." in ended.err


def test_a_home_in_which_the_sdk_looks_for_its_configuration_in_vain(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a process of its own, for it looks once: the variable is named that leads it elsewhere."""
    monkeypatch.delenv("CLEARML_CONFIG_FILE")
    monkeypatch.setenv("HOME", f"{tmp_path}/{'x' * 300}")
    ended = subprocess.run([*COMMAND, "upload", str(run)], capture_output=True, text=True, timeout=120)
    assert (Exit.NOT_CONFIGURED, "") == (ended.returncode, ended.stdout)
    assert "CLEARML_CONFIG_FILE" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {} == server.tasks


# -- for real ---------------------------------------------------------------------------------------------

_READ_ONLY = "mount -o remount,bind,ro / && mount -t tmpfs none {free} && exec "


@pytest.mark.exhaustive
@pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "true"]).returncode != 0,
    reason="needs a mount namespace",
)
@pytest.mark.parametrize(
    ("variables", "statuses"),
    [
        ((), (Exit.OK, Exit.SOME_FAILED, Exit.NOT_CONFIGURED, Exit.NOT_CONFIGURED)),
        (("YOLO_CLEARML_STATE_DIR",), (Exit.OK, *[Exit.NOT_CONFIGURED] * 3)),
        (("YOLO_CLEARML_STATE_DIR", "TMPDIR"), (Exit.OK,) * 4),
    ],
    ids=["nothing to write to", "a state directory", "and one for temporary files"],
)
def test_a_read_only_root(
    variables: tuple[str, ...], statuses: tuple[Exit, ...], server: ClearMLDouble, run: Path, tmp_path: Path
) -> None:
    """As in ``docker run --read-only``: each command in a mount namespace of its own."""
    free = tmp_path / "free"
    free.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "YOLO_CLEARML_STATE_DIR"}
    environment |= dict.fromkeys(variables, str(free)) | {"PYTHONDONTWRITEBYTECODE": "1"}
    for command, status in zip(("status", "upload", "verify", "doctor"), statuses, strict=True):
        script = _READ_ONLY.format(free=free) + '"$@"'
        whole = ["unshare", "-m", "sh", "-c", script, "-", *COMMAND, command, str(run)]
        ended = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=120)
        assert (status, False) == (ended.returncode, "Traceback" in ended.stderr), (command, ended.stderr)
        if status is not Exit.OK:
            said = ended.stdout + ended.stderr
            assert "YOLO_CLEARML_STATE_DIR" in said or "TMPDIR" in said
