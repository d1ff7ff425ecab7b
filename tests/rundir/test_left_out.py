"""One file that nobody may read, or that git-lfs has not fetched, keeps nothing else back."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import Ended, Run, run_cli, small
from test_files import refuse
from test_scan import BEGAN, refused, run_of, training

from yolo_clearml.events import RunState
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.places import LfsPointer, lfs_pointer

__all__ = ["run_cli", "small"]  # fixtures

NAME = "v8.4.190-detect"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0f" * 32 + "\nsize 6250000\n"


# -- unreadable --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rest"), [("results.png", (89, 13)), ("best.pt", (89, 13))])
def test_an_unreadable_file_keeps_nothing_else_back(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, name: str, rest: tuple[int, int]
) -> None:
    """Everything else is sent, the file is named, 3; once it can be read, just that is sent."""
    run = make_run(NAME)
    make_run("v8.4.190-detect-noplots")
    (path,) = run.rglob(name)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, name, errno.EACCES)
        ended = run_cli("upload", "--json", "--exclude", "*noplots", "runs")
        line = json.loads(ended.out)
        said = f"runs/{path.relative_to(run.parent)} cannot be read: Permission denied;"
        said += " nothing else is left out."
        assert (3, "failed", said) == (ended.status, line["outcome"], line["reason"])
        assert "Make it readable, then run the same command again." == line["hint"]
        assert rest[1] == line["files"]
        (task,) = server.tasks.values()
        assert ("completed", task["id"]) == (task["status"], line["task_id"])
        before = len(server.requests)
        ended = run_cli(
            "upload", "--exclude", "*noplots", "runs"
        )  # it is not settled, and nothing is sent twice
        assert (3, "") == (ended.status, ended.out)
        assert said in ended.err
        assert not [r for r in server.requests[before:] if "events" in str(r) or "files:" in str(r)]
    ended = run_cli("upload", "--exclude", "*noplots", "runs")
    assert (0, "") == (ended.status, ended.err)
    assert " 1 file (" in ended.out
    assert Ended(0, "", "") == run_cli("upload", "--exclude", "*noplots", "runs")
    assert 1 == len(server.tasks)


def test_what_cannot_be_read_takes_nothing_back(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Without its checkpoints the run holds less than ClearML, and the files are why."""
    run = make_run(NAME)
    assert 0 == run_cli("upload", run).status
    before = server.snapshot()
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, "best.pt", errno.EACCES)
        refuse(patch, "last.pt", errno.EACCES)
        assert Ended(0, "", "") == run_cli("upload", run)  # all of it is there
        ended = run_cli("upload", "--force", run)
        assert (3, "") == (ended.status, ended.out)
        assert "weights/last.pt cannot be read: Permission denied" in ended.err
    assert before == server.snapshot()


def test_status_verify_and_a_dry_run_name_it_too(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 from each: what could not be read is not verified, and not up to date."""
    run = make_run(NAME)
    refuse(monkeypatch, "results.png", errno.EACCES)
    said = f"runs/{NAME}/results.png cannot be read: Permission denied"
    ended = run_cli("upload", "--dry-run", "runs")
    assert (3, True) == (ended.status, said in ended.err)
    assert f"runs/{NAME}: would send 88 events, 13 files" in ended.out
    run_cli("upload", "runs")
    for command in ("status", "verify"):
        ended = run_cli(command, "runs")
        assert (3, True) == (ended.status, said in ended.out + ended.err)
        assert "verified, " not in ended.out
    assert run.is_dir()


def test_a_folder_of_weights_that_cannot_be_listed(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as good as its files: everything else is sent, and then just the model."""
    run = make_run("v8.3.100-detect")
    genuine = os.scandir

    def scandir(folder: Path) -> object:
        if Path(folder).name == "weights":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return genuine(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        ended = run_cli("upload", run)
        assert (3, "") == (ended.status, ended.out)
        assert "/weights cannot be read: Permission denied; nothing else is left out." in ended.err
        assert "--rules" in ended.err  # what else is to be said of the run
    ended = run_cli("upload", run)
    assert (0, 1) == (ended.status, len(server.tasks))
    assert " 1 file (" in ended.out


@pytest.mark.parametrize("name", ["args.yaml", "results.csv"])
def test_without_rows_or_arguments_the_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing can be said of it."""
    path = training(tmp_path / "train")
    refuse(monkeypatch, name, errno.EACCES)
    assert f"{path / name} cannot be read: Permission denied." == refused(path)


def test_a_live_run_is_followed_all_the_same(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again anyway, and its task must be kept alive: it is said, and no failure yet."""
    make_run("v8.4.190-detect-killed")
    refuse(monkeypatch, "labels.jpg", errno.EACCES)
    monkeypatch.setenv("YOLO_CLEARML_STALE_AFTER", "1e9")
    ended = run_cli("upload", "runs")
    assert 0 == ended.status
    assert "labels.jpg cannot be read: Permission denied; nothing else is left out. Make it" in ended.err
    monkeypatch.delenv("YOLO_CLEARML_STALE_AFTER")
    assert 3 == run_cli("upload", "runs").status


# -- git-LFS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (POINTER, 6_250_000),
        (POINTER.replace("\n", "\r\n"), 6_250_000),
        (POINTER.replace("oid", "ext-0-foo sha256:" + "1" * 64 + "\noid"), 6_250_000),
        (POINTER.replace("git-lfs.github.com", "hawser.github.com"), 6_250_000),
        (POINTER[:-1], None),
        (POINTER + "x" * 1024, None),
        ("x" + POINTER, None),
        ("version https://git-lfs.github.com/spec/v1\n", None),
        ("", None),
    ],
)
def test_a_pointer_is_known_by_its_lines(text: str, size: int | None) -> None:
    """Those of git-lfs' specification, in a file of less than 1,024 bytes."""
    assert (None if size is None else LfsPointer(size)) == lfs_pointer(text.encode())


@pytest.mark.parametrize("age", [10, 1e7])
def test_a_clone_without_git_lfs_sends_its_curves(tmp_path: Path, age: float) -> None:
    """However new the clone is, nothing trains in it; the pointers are named, and what fetches them."""
    path = training(tmp_path / "train")
    files = [path for path in path.rglob("*.*") if path.suffix in (".png", ".jpg", ".pt")]
    for file in files:
        file.write_text(POINTER)
    for file in path.rglob("*.*"):
        os.utime(file, (BEGAN, BEGAN))
    run = run_of(path, BEGAN + age)
    got = plan(run, Wishes())
    assert (RunState.FINISHED, {}) == (run.state, run.files)
    assert dict.fromkeys(run.places, LfsPointer(6_250_000)) == run.places
    assert len(files) == len(run.places)
    assert {"epoch/0", "epoch/1", "epoch/2"} < {report.key for report in got.reports}
    (note,) = [note for note in got.notes if "'git lfs pull' fetches them" in note]
    assert note.startswith(
        "weights/best.pt, weights/last.pt, BoxF1_curve.png and 8 more are git-LFS pointers,"
    )
    assert not [note for note in got.notes if "Restore" in note]


def test_a_clone_of_a_dead_run_is_no_live_one(tmp_path: Path) -> None:
    """Fresh files, no checkpoint that can be read: it would be waited for, for half an hour."""
    path = training(tmp_path / "train", stripped=False)
    arguments = (path / "args.yaml").read_text()
    (path / "args.yaml").write_text(re.sub(r"(?m)^epochs: \d+$", "epochs: 9", arguments))
    for file in (*path.glob("*.jpg"), *path.rglob("*.pt")):
        file.write_text(POINTER)
    for file in path.rglob("*.*"):
        os.utime(file, (BEGAN, BEGAN))
    assert RunState.STOPPED is run_of(path, BEGAN + 10).state


@pytest.mark.parametrize(("name", "what"), [("args.yaml", "the arguments"), ("results.csv", "the table")])
def test_a_pointer_in_place_of_what_is_needed(tmp_path: Path, name: str, what: str) -> None:
    """It is no damaged file: git lfs pull brings it."""
    path = training(tmp_path / "train")
    (path / name).write_text(POINTER)
    assert f"{path / name} is a git-LFS pointer, not {what}." == refused(path)


def test_a_pointer_in_place_of_one_picture_of_a_live_run_changes_nothing(tmp_path: Path) -> None:
    """It has a checkpoint, so it trains here."""
    path = training(tmp_path / "train", stripped=False)
    (path / "labels.jpg").write_text(POINTER)
    run = run_of(path, (path / "labels.jpg").stat().st_mtime + 10)
    assert (RunState.LIVE, {"labels.jpg"}) == (run.state, set(run.places))


def test_a_last_line_without_its_end_is_named(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:
    """An editor took it, or a copy stopped within a number: it is not reported, and not in silence."""
    run = make_run("v8.4.190-detect-noplots")
    table = run / "results.csv"
    times = (table.stat().st_atime_ns, table.stat().st_mtime_ns)
    table.write_bytes(table.read_bytes().removesuffix(b"\n"))
    os.utime(table, ns=times)
    ended = run_cli("upload", run)
    assert "The last line of results.csv has no line end, so it may be cut short" in ended.err
    line = json.loads(run_cli("upload", "--force", "--json", run).out)
    assert "the last line of results.csv, which has no end and may be cut short" in line["missing"]
    assert 2 == line["epochs"]
    with table.open("ab") as file:
        file.write(b"\n")
    assert 3 == json.loads(run_cli("upload", "--json", run).out)["epochs"]
