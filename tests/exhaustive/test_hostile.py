"""Directories made to do harm go through the whole program, and nothing but words about them comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from double import ClearMLDouble
from hostile import CANARY, DELIVERED, EXECUTED, KINDS, TREE, Hostile, make_tree
from test_cli import COMMAND, Ended, Run, run_cli

from yolo_clearml.sync.ledger import LEDGER_NAME

__all__ = ["run_cli"]  # a fixture

MEMORY = 600  # MiB; the largest single file among the hostile ones costs less than 300
# of the kinds of what is no file, two are enough where each run costs a second
ONLINE = [part for kind in KINDS if kind not in ("link out", "device") for part in ("--exclude", f"* {kind}")]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([*TREE][::11], id="few"),
        pytest.param([*TREE], id="every", marks=pytest.mark.exhaustive),
    ],
)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[Path, Hostile]]:
    """Give the folder of hostile runs, and what is said of each."""
    folder = tmp_path_factory.mktemp("hostile")
    return folder, make_tree(folder, request.param)


@pytest.fixture
def tree(
    made: tuple[Path, dict[Path, Hostile]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[Path, Hostile]]:
    """Give all hostile runs, without a ledger, and go into their folder; nothing there may change."""
    folder, runs = made
    before = contents(folder)
    yield runs
    for run in runs:
        (run / LEDGER_NAME).unlink(missing_ok=True)
    assert before == contents(folder)


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Give what is below a folder; reading each file would take a terabyte's time."""
    found = [*folder.rglob("*")]
    status = {
        str(path): path.stat(follow_symlinks=False) for path in found if path.is_symlink() or path.is_file()
    }
    return {path: (s.st_mode, s.st_size, s.st_mtime_ns) for path, s in status.items()}


def told(ended: Ended) -> dict[str, dict[str, Any]]:
    """Read JSON lines: by run, the last of each."""
    return {line["run"]: line for line in map(json.loads, ended.out.splitlines())}


def assert_as_promised(ended: Ended, runs: dict[Path, Hostile]) -> None:
    """Each run is delivered, or refused with the sentence it deserves; and nothing escaped."""
    assert (3, "") == (ended.status, ended.err)
    lines = told(ended)
    wrong = {}
    for run, hostile in runs.items():
        line = lines.pop(str(run), None)
        if hostile.said == DELIVERED:
            right = line is not None and line.get("outcome") not in ("failed", "skipped")
        else:
            right = line is None or hostile.said in str(line.get("reason"))
            right = right and (line is not None or "died" in hostile.said)
        if not right:
            wrong[str(run)] = line
    assert {} == wrong
    assert {} == lines
    assert_harmless(ended)


def assert_harmless(ended: Ended) -> None:
    """No terminal is steered, nothing was executed, and nothing outside a run was read."""
    for stream in (ended.out, ended.err):
        odd = {c for c in stream if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"}
        assert set() == odd
        assert CANARY.decode() not in stream
        assert "Traceback" not in stream
        assert "Unforeseen" not in stream


def assert_nothing_escaped(folder: Path, server: ClearMLDouble | None = None) -> None:
    assert [] == [*folder.rglob(EXECUTED)]
    assert not Path(EXECUTED).exists()
    if server is not None:
        assert [] == [name for name, content in server.files.items() if CANARY in content]
        assert CANARY.decode() not in repr(server.requests)


def among(runs: dict[Path, Hostile], left_out: list[str]) -> dict[Path, Hostile]:
    endings = tuple(part[1:] for part in left_out if part.startswith("*"))
    return {run: hostile for run, hostile in runs.items() if not run.name.endswith(endings)}


# A process begins with the peak of the one that forks it, so a small one does.
LAUNCHER = """
import os, subprocess, sys
out, err = (open(os.path.join(sys.argv[1], name), "wb") for name in ("out", "err"))
process = subprocess.Popen(sys.argv[2:], stdout=out, stderr=err)
_, status, used = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss)
"""


def in_a_process(folder: Path, *arguments: object) -> tuple[Ended, int]:
    """Run the program in a process of its own; gives how it ended, and its largest memory in MiB."""
    command = [sys.executable, "-S", "-c", LAUNCHER, str(folder), *COMMAND, *map(str, arguments)]
    status, largest = map(int, subprocess.check_output(command).split())
    texts = ((folder / name).read_text("utf-8") for name in ("out", "err"))
    return Ended(status, *texts), largest // (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize(
    "arguments", [("status",), ("upload", "--dry-run")], ids=lambda arguments: arguments[-1]
)
def test_a_look_at_hostile_runs(
    arguments: tuple[str, ...], run_cli: Run, tree: dict[Path, Hostile], made: tuple[Path, object]
) -> None:
    """Each gets its sentence, and the words on a terminal are as harmless as those in JSON."""
    folder, _ = made
    assert_as_promised(run_cli(*arguments, "-v", "--json", folder / "runs"), tree)
    assert_harmless(run_cli(*arguments, "-v", folder / "runs"))
    assert_nothing_escaped(folder)


def test_hostile_runs_are_exported(
    run_cli: Run, tree: dict[Path, Hostile], made: tuple[Path, object], tmp_path: Path
) -> None:
    """Each session lies in the folder that was asked for, and holds nothing from elsewhere."""
    folder, _ = made
    assert_as_promised(run_cli("upload", "--offline", "sessions", "--json", folder / "runs"), tree)
    sound = sum(hostile.said == DELIVERED for hostile in tree.values())
    sessions = [*Path("sessions").iterdir()]
    assert sound == sum(path.suffix == ".zip" for path in sessions)
    assert {".zip", ".pt"} == {path.suffix for path in sessions}
    for path in sessions:
        if path.suffix == ".zip":
            with ZipFile(path) as session:
                assert not any(name.startswith("/") or ".." in name.split("/") for name in session.namelist())
                assert not any(CANARY in session.read(name) for name in session.namelist())
    assert_nothing_escaped(folder)
    assert {"sessions"} == {path.name for path in tmp_path.iterdir()} - {"state"}


def test_hostile_runs_are_uploaded_and_verified(
    run_cli: Run, server: ClearMLDouble, tree: dict[Path, Hostile], made: tuple[Path, object], tmp_path: Path
) -> None:
    """In bounded memory, four at a time; what was delivered is verified and then up to date."""
    folder, _ = made
    runs = among(tree, ONLINE)
    ended, memory = in_a_process(tmp_path, "upload", "--json", *ONLINE, folder / "runs")
    assert_as_promised(ended, runs)
    assert memory < MEMORY
    sound = sum(hostile.said == DELIVERED for hostile in runs.values())
    assert sound == len(server.tasks)
    assert {"completed"} == {task["status"] for task in server.tasks.values()}
    assert_nothing_escaped(folder, server)
    proven = run_cli("verify", "--json", *ONLINE, folder / "runs")
    assert_as_promised(proven, runs)
    differing = [line for line in told(proven).values() if line.get("outcome") not in ("verified", "failed")]
    assert [] == [
        line["run"] + repr(line["differences"]) for line in differing if line["outcome"] != "skipped"
    ]
    count = len(server.requests)
    again = run_cli("upload", "--json", *ONLINE, folder / "runs")
    assert_as_promised(again, runs)
    assert sound == sum(line["outcome"] == "up-to-date" for line in told(again).values())
    assert count == len(server.requests)


def test_hostile_runs_are_watched(
    run_cli: Run,
    server: ClearMLDouble,
    tree: dict[Path, Hostile],
    made: tuple[Path, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A watch brings those to ClearML that can be, and names the others; those that an upload has shown to be
    as any other for ClearML are left out."""
    folder, _ = made
    # before it gives up on the others, it tries them for half a minute
    monkeypatch.setattr("yolo_clearml.sync.agenda._RUN_PAUSES", (0.05, 1.0))
    alike = ("dir ", "pt executes ", "yaml ")
    names = [*ONLINE, "--exclude", "* link out", "--exclude", "* device"]
    names += [part for name in alike for part in ("--exclude", f"{name}*")]
    runs = {run: hostile for run, hostile in among(tree, names).items() if not run.name.startswith(alike)}
    ended = run_cli("watch", "--once", "--json", *names, folder / "runs")
    assert_as_promised(ended, runs)
    assert_nothing_escaped(folder, server)
