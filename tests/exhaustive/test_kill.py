"""Killed anywhere and run again, the server and the ledger end as if nothing had happened."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_AND_EVERY, Doubles, chosen, numbers, sampled
from double import ClearMLDouble
from killing import WHEN, Abandoned, hidden, killed_at_request, killed_at_step
from test_cli import COMMAND
from tunings import as_tuning
from uploading import end_state, fails
from uploading import upload as upload_soon

from yolo_clearml.cli.metrics import Metrics
from yolo_clearml.errors import LedgerUnwritable
from yolo_clearml.events import ModelFile, Part
from yolo_clearml.library import Options
from yolo_clearml.library import upload as export
from yolo_clearml.replay.rules import Wishes
from yolo_clearml.replay.wanted import Wanted
from yolo_clearml.rundir.choice import FileChoice
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, Ledger
from yolo_clearml.sync.outcomes import Delivered, Facts, Failed, UpToDate
from yolo_clearml.sync.work import Aim

pytestmark = pytest.mark.usefixtures("told_at_once")
upload = functools.partial(upload_soon, timeout=20.0)  # a machine may be busy
# -- what is done, and to what ----------------------------------------------------------------------------


def nothing(double: ClearMLDouble, run: Path) -> None:
    """Leave the server as empty as it is."""


def told(double: ClearMLDouble, run: Path) -> None:
    """Upload it."""
    assert [] == fails(upload([run]))


def told_and_changed(double: ClearMLDouble, run: Path) -> None:
    """Upload it, and draw a picture anew."""
    told(double, run)
    redraw(run)


def redraw(run: Path) -> None:
    """Put another picture in the place of one, a minute later."""
    picture = run / "val_batch0_pred.jpg"
    drawn = picture.stat().st_mtime + 60
    shutil.copy(run / "train_batch0.jpg", picture)
    os.utime(picture, (drawn, drawn))


def told_and_lost(double: ClearMLDouble, run: Path) -> None:
    """Upload it, and lose the files on the server."""
    told(double, run)
    double.files.clear()


def with_more_models(double: ClearMLDouble, run: Path) -> None:
    """Put models beside best.pt, a folder among them."""
    (run / "weights" / "best.onnx").write_bytes(b"onnx")
    (run / "weights" / "best_saved_model").mkdir()
    (run / "weights" / "best_saved_model" / "saved_model.pb").write_bytes(b"model")


def with_notes(double: ClearMLDouble, run: Path) -> None:
    """Put a further file beside what the training left."""
    (run / "notes.txt").write_text("it converges")
    os.utime(run / "notes.txt", (1.6e9, 1.6e9))


def with_a_validation(double: ClearMLDouble, run: Path) -> None:
    """Upload the training, and put pictures of a validation beside it."""
    told(double, run)
    (run.parent / "val").mkdir(exist_ok=True)
    shutil.copy2(run / "val_batch0_pred.jpg", run.parent / "val" / "val_batch0_pred.jpg")
    shutil.copy2(run / "val_batch0_pred.jpg", run.parent / "val" / "val_batch1_pred.jpg")


def with_a_tuning(double: ClearMLDouble, run: Path) -> None:
    """Upload the training, and put into its place the tuning that it is of."""
    told(double, as_tuning(run))


def made_by_hand(double: ClearMLDouble, run: Path) -> None:
    """Make an empty task of another name."""
    project = double.ask("projects.create", name="elsewhere", description="")["id"]
    double.ask("tasks.create", name="by hand", project=project, type="training")


@dataclass(frozen=True)
class Case:
    """A command, and what there was before it."""

    prepare: Callable[[ClearMLDouble, Path], None]
    requests: int  # at the least
    options: dict[str, Any] = field(default_factory=dict)
    given: bool = False  # with --task-id, the task there is
    since: str = ""  # the first request of interest
    validated: bool = False  # with --val-of, and a validation beside the run

    def command(self, double: ClearMLDouble, run: Path) -> dict[str, Any]:
        """Give its options."""
        given = {"task_id": next(iter(double.tasks))} if self.given else {}
        return self.options | given | ({"validations": (run.parent / "val",)} if self.validated else {})


CASES = {
    "upload": Case(nothing, 15),
    "of what changed": Case(told_and_changed, 7),
    "--new": Case(told, 15, {"new": True}),
    "--task-id": Case(made_by_hand, 15, given=True),
    "--move": Case(told, 7, {"move": True, "wishes": Wishes("Lab/Moved", "shapes")}),
    "--verify": Case(nothing, 8, {"aim": Aim.DELIVER_AND_VERIFY}, since="tasks.completed"),
    "verify": Case(told, 8, {"aim": Aim.VERIFY}),
    "--models": Case(
        with_more_models, 15, {"wanted": Wanted(models=frozenset(ModelFile))}, since="models.create"
    ),
    "--artifacts": Case(
        with_notes, 8, {"wanted": Wanted(artifacts=FileChoice(("notes.txt",)))}, since="models.create"
    ),
    "--val-of": Case(with_a_validation, 9, validated=True),
    "of a tuning": Case(with_a_tuning, 14),
    **{f"--without {part.value}": Case(nothing, 8, {"wanted": Wanted(frozenset({part}))}) for part in Part},
}


@dataclass(frozen=True)
class Begun:
    """A run and its ledger as they were before a command, to be put there again and again."""

    run: Path
    kept: Path

    @classmethod
    def of(cls, run: Path) -> Begun:
        kept = run.parent.parent / "kept"
        shutil.copytree(run, kept)
        return cls(run, kept)

    def empty(self) -> None:
        """Put everything as it was before anything was reported."""
        shutil.rmtree(self.run)
        shutil.copytree(self.kept, self.run)


def assert_settled(double: ClearMLDouble, run: Path, **asked: Any) -> None:
    """There is nothing left to do, and nothing left over."""
    count = len(double.requests)
    (outcome,) = upload([run], **asked)
    assert isinstance(outcome, UpToDate)
    assert count == len(double.requests)
    assert [LEDGER_NAME] == hidden(run)


def comparable(double: ClearMLDouble) -> Any:
    """Everything on the server but what a dice has thrown: that which distinguishes the copies of --new."""
    keys = [task["runtime"]["yolo_clearml"] for task in double.tasks.values() if task["runtime"]]
    copies = {key: f"copy {number}" for number, key in enumerate(keys) if len(key) > min(map(len, keys))}

    def told_apart(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: told_apart(inner) for name, inner in value.items()}
        return copies.get(value, value) if isinstance(value, str) else value

    return told_apart(end_state(double))


# -- at every request -------------------------------------------------------------------------------------


@FEW_AND_EVERY
@pytest.mark.parametrize(
    ("name", "ledger", "when"),
    [
        ("upload", "kept", "never"),
        ("upload", "lost", "after"),
        # what comes between two requests is a step of the test after this one, so "after" is all there is
        *sampled(
            [(name, "kept", "after") for name in CASES], lambda case: "wanted" not in CASES[case[0]].options
        ),
    ],
)
def test_killed_at_every_request(
    server: ClearMLDouble,
    doubles: Doubles,
    small_run: Path,
    scratch: Path,
    name: str,
    ledger: str,
    when: str,
    every: bool,
) -> None:
    """SIGKILL before or after the server carries out each single request; the same command, run again."""
    case = CASES[name]
    begun = Begun.of(small_run)
    case.prepare(server, small_run)
    before = len(server.requests)
    assert [] == fails(upload([small_run], **case.command(server, small_run)))
    asked = [request.endpoint for request in server.requests[before:]]
    first = asked.index(case.since) + 1 if case.since else 1
    assert len(asked) - first + 1 >= case.requests
    wanted, ended = comparable(server), FileLedgers().load(small_run)
    assert ("aim" in case.options) is (ended.verified is not None)
    for number in chosen(range(first, len(asked) + 1), every):
        begun.empty()
        with doubles() as double:
            case.prepare(double, small_run)
            options = case.command(double, small_run)
            command = functools.partial(upload, [small_run], **options)
            assert killed_at_request(double, number, when, command), number
            if ledger == "lost":
                (small_run / LEDGER_NAME).unlink(missing_ok=True)
            assert [] == fails(upload([small_run], **options)), number
            assert wanted == comparable(double), number
            same = {name: value for name, value in options.items() if name in ("wanted", "validations")}
            assert_settled(double, small_run, **same)
            there = FileLedgers().load(small_run)
            assert (ended.run, ended.sent, ended.facts) == (there.run, there.sent, there.facts), number
            assert (ended.verified is None) is (there.verified is None), number
        assert [] == list(scratch.iterdir())


@FEW_AND_EVERY
def test_force_killed_anywhere_is_finished_by_a_plain_upload(
    server: ClearMLDouble, doubles: Doubles, small_run: Path, every: bool
) -> None:
    """--force says that what the server has is unknown; so must the ledger, before anything is sent."""
    begun = Begun.of(small_run)
    told(server, small_run)
    before, wanted = len(server.requests), end_state(server)
    upload([small_run], force=True)
    forgotten = 0
    for number in chosen(range(1, len(server.requests) - before + 1), every):
        begun.empty()
        with doubles() as double:
            told_and_lost(double, small_run)
            known, lost = FileLedgers().load(small_run), end_state(double)
            assert killed_at_request(double, number, "after", lambda: upload([small_run], force=True))
            begins = FileLedgers().load(small_run) != known
            forgotten += begins
            assert [] == fails(upload([small_run]))
            assert (wanted if begins else lost) == end_state(double), number
            assert_settled(double, small_run)
    assert forgotten > (10 if every else 0)


def test_killed_again_and_again(server: ClearMLDouble, doubles: Doubles, small_run: Path) -> None:
    """Each process gets one request further than the one before it: in the end all is there, once."""
    begun = Begun.of(small_run)
    told(server, small_run)
    wanted = end_state(server)
    for when in WHEN:
        begun.empty()
        with doubles() as double:
            number = 1
            while killed_at_request(double, number, when, lambda: upload([small_run])):
                number += 1
            assert number >= 8
            assert wanted == end_state(double)
            assert_settled(double, small_run)


# -- at every step on disk --------------------------------------------------------------------------------


@FEW_AND_EVERY
def test_killed_at_every_step_on_disk(
    server: ClearMLDouble, doubles: Doubles, small_run: Path, scratch: Path, every: bool
) -> None:
    """SIGKILL before each opening, fsync, rename, close and removal, until the upload gets through."""
    told(server, small_run)
    wanted = end_state(server)
    (small_run / LEDGER_NAME).unlink()
    for number in numbers(every, 5, 20, 45, 60):
        with doubles() as double:
            killed = killed_at_step(number, lambda: upload([small_run]))
            assert {*hidden(small_run)} <= {LEDGER_NAME, f"{LEDGER_NAME}.tmp"}
            assert [] == fails(upload([small_run]))
            assert wanted == end_state(double), number
            assert_settled(double, small_run)
            (small_run / LEDGER_NAME).unlink()
        if not killed:
            break
    assert number >= 60
    assert [] == list(scratch.iterdir())


@pytest.mark.parametrize("full", [False, True])
def test_a_ledger_saved_again_and_again_is_never_behind(
    server: ClearMLDouble, tmp_path: Path, full: bool
) -> None:
    """Killed at every step of saving it, also where the disk is full from some save on.

    It holds the last save that returned, or one that was begun after it; saved again, nothing is left over.
    """
    number, killed = 0, True
    while killed:
        number += 1
        run, returned = tmp_path / f"run{number}", tmp_path / f"returned{number}"
        run.mkdir()
        returned.touch()

        def save(run: Path = run, returned: Path = returned) -> None:
            with FileLedgers().hold(run) as held:
                for count in range(1, 5):
                    if full and count == 3:
                        fill(run)
                    held.save(Ledger(run="k", task=str(count)))
                    with returned.open("ab", buffering=0) as file:
                        file.write(b"x")

        killed = killed_at_step(number, save)
        known, done = int(FileLedgers().load(run).task or 0), returned.stat().st_size
        assert done <= known <= done + 1, number
        with FileLedgers().hold(run) as held:
            assert str(known or None) == str(held.ledger.task)
            held.save(Ledger(run="k", task="again"))
        assert "again" == FileLedgers().load(run).task
        assert [LEDGER_NAME] == hidden(run)
    assert number > 30


def fill(folder: Path) -> None:
    """Let nothing more be written into a folder, for the rest of this process."""
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        genuine(descriptor)

    os.fsync = fsync  # type: ignore[assignment]  # called with a number


@FEW_AND_EVERY
def test_an_export_killed_at_every_step(
    server: ClearMLDouble, small_run: Path, tmp_path: Path, scratch: Path, every: bool
) -> None:
    """--offline: never half a zip under its name; the next export makes the same and leaves nothing over."""

    def sent(folder: Path) -> list[str]:
        return fails(list(export([small_run], Options(offline=folder))))

    def held(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".tmp"}

    assert [] == sent(tmp_path / "whole")
    whole = tmp_path / "whole"
    wanted = [held(whole)[name] for name in sorted(held(whole))]
    for number in numbers(every, 3, 8, 15):
        folder = tmp_path / "out" / str(number)
        folder.parent.mkdir(exist_ok=True)
        killed = killed_at_step(number, lambda folder=folder: sent(folder))  # type: ignore[misc]
        for path in folder.glob("*.zip"):
            assert zipfile.ZipFile(path).testzip() is None
        assert [] == sent(folder), number
        assert sorted(held(whole)) == sorted(path.name for path in folder.iterdir())
        if not killed:
            break
    assert number >= 15
    assert [] == hidden(small_run)
    assert [] == list(scratch.iterdir())
    assert 2 == len(wanted)


def test_metrics_killed_at_every_step(server: ClearMLDouble, tmp_path: Path, scratch: Path) -> None:
    """--metrics: the old counts or the new; the next call goes on from them and leaves nothing over."""

    def count(path: Path, times: int = 1) -> None:
        counted = Metrics(path, going_on=False, now=lambda: 1000.0)
        for _ in range(times):
            counted.note(Failed(tmp_path, Facts(), LedgerUnwritable("It failed.", "Mend it.")))
        with counted:
            pass

    def failures(path: Path) -> float:
        lines = path.read_text().splitlines()
        return next(
            float(line.split()[1]) for line in lines if line.startswith("yolo_clearml_failures_total")
        )

    number, killed = 0, True
    while killed:
        number += 1
        path = tmp_path / "collector" / str(number) / "m.prom"
        path.parent.mkdir(parents=True)
        count(path)
        killed = killed_at_step(number, lambda path=path: count(path, 2))  # type: ignore[misc]
        known = failures(path)
        assert known == 3 if not killed else known in (1, 3)
        count(path)
        assert known + 1 == failures(path)
        assert ["m.prom"] == [file.name for file in path.parent.iterdir()], number
    assert number > 2
    assert [] == list(scratch.iterdir())


# -- the ledger lost, damaged, of others ------------------------------------------------------------------


@FEW_AND_EVERY
def test_a_ledger_cut_anywhere_costs_nothing(server: ClearMLDouble, small_run: Path, every: bool) -> None:
    """A true one, cut at each byte, counts as lost; cut at some, the task is found and ends the same."""
    told(server, small_run)
    wanted, path = end_state(server), small_run / LEDGER_NAME
    whole = path.read_bytes()
    assert len(whole) > 1000
    for cut in chosen(range(len(whole) - 1), every, 100):
        path.write_bytes(whole[:cut])
        assert Ledger() == FileLedgers().load(small_run), cut
    for cut in chosen([*range(0, len(whole) - 1, len(whole) // 12), len(whole) - 2], every):
        path.write_bytes(whole[:cut])
        assert [] == fails(upload([small_run]))
        assert wanted == end_state(server)
        assert_settled(server, small_run)


@pytest.mark.parametrize("of", ["a newer version", "another server", "another workspace", "another run"])
def test_a_ledger_of_others_costs_nothing(server: ClearMLDouble, small_run: Path, of: str) -> None:
    """What it says of a task is not believed, and what it knows as sent is sent."""
    told(server, small_run)
    wanted, path = end_state(server), small_run / LEDGER_NAME
    server.files.clear()
    known = json.loads(path.read_bytes())
    told_by_others: dict[str, dict[str, Any]] = {
        "a newer version": {"version": 2, "tasks": [known["task"]]},
        "another server": {"server": "http://elsewhere:8008", "configured": "other", "settled": "other"},
        "another workspace": {"server": known["server"] + "x", "configured": "other", "settled": "other"},
        "another run": {"run": "0" * 32, "settled": "other"},
    }
    path.write_text(json.dumps({**known, "task": "0" * 32, **told_by_others[of]}))
    assert [] == fails(upload([small_run]))
    assert wanted == end_state(server)
    assert_settled(server, small_run)
    assert 1 == json.loads(path.read_bytes())["version"]


# -- no space ---------------------------------------------------------------------------------------------


class Unwritable:
    """Folders that take nothing any more from the ``at``-th step in them on."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, error: int, *folders: Path) -> None:
        self._at, self._error, self._folders = at, error, folders
        self.steps = 0
        opening, syncing, replacing = os.open, os.fsync, os.replace

        def open_(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & os.O_RDWR:
                self._step(Path(path))
            return opening(path, flags, *arguments, **options)

        def fsync(descriptor: int) -> None:
            self._step(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            syncing(descriptor)

        def replace(old: Any, new: Any) -> None:
            self._step(Path(new))
            replacing(old, new)

        patch.setattr(os, "open", open_)
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "replace", replace)

    def _step(self, path: Path) -> None:
        if any(path.is_relative_to(folder) for folder in self._folders):
            self.steps += 1
            if self.steps >= self._at:
                raise OSError(self._error, os.strerror(self._error))


@FEW_AND_EVERY
@pytest.mark.parametrize(
    ("where", "error"), [("run", errno.ENOSPC), ("run", errno.EROFS), ("everywhere", errno.ENOSPC)]
)
def test_a_disk_that_fills_at_every_step(
    server: ClearMLDouble,
    doubles: Doubles,
    monkeypatch: pytest.MonkeyPatch,
    small_run: Path,
    tmp_path: Path,
    where: str,
    error: int,
    every: bool,
) -> None:
    """Nothing can be written from each step on: the state directory takes over, or that is said."""
    told(server, small_run)
    wanted = end_state(server)
    (small_run / LEDGER_NAME).unlink()
    begun, state = Begun.of(small_run), tmp_path / "state"
    folders = [small_run] if where == "run" else [small_run, state]
    for at in numbers(every, 1, 9, 20):
        with doubles() as double:
            with monkeypatch.context() as patch:
                limits = Unwritable(patch, at, error, *folders)
                (outcome,) = upload([small_run])
                met = limits.steps >= at
                if where == "run":
                    assert isinstance(outcome, Delivered), outcome
                    assert wanted == end_state(double), at
                    count = len(double.requests)
                    (outcome,) = upload([small_run])
                    assert (UpToDate, count) == (type(outcome), len(double.requests)), at
                elif met:
                    assert isinstance(outcome, Failed)
                    assert isinstance(outcome.error, LedgerUnwritable)
            assert [] == fails(upload([small_run]))
            assert wanted == end_state(double), at
            redraw(small_run)
            assert [Delivered] == [type(outcome) for outcome in upload([small_run])]
            count = len(double.requests)
            assert [UpToDate] == [type(outcome) for outcome in upload([small_run])]
            assert count == len(double.requests)
            shutil.rmtree(state, ignore_errors=True)
            begun.empty()
        if not met:
            break
    assert at >= 20


# -- what is left over ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", sampled(["watch", "upload", "verify"], "watch".__eq__))
def test_a_killed_process_leaves_nothing_behind(
    server: ClearMLDouble, small_run: Path, scratch: Path, tmp_path: Path, command: str
) -> None:
    """No process that it began, no temporary file, and nothing in the user's home."""
    home, asked = tmp_path / "home", "events.add_batch"
    home.mkdir()
    if command == "verify":
        told(server, small_run)
        asked = "files:GET"
    before = hidden(small_run)
    children: list[subprocess.Popen[bytes]] = []
    begun = threading.Event()

    def kill(endpoint: str, _: int) -> None:
        if endpoint == asked and begun.wait(60):
            children[0].kill()
            children[0].wait()
            raise Abandoned

    server.before_request = kill
    environ = {**os.environ, "HOME": str(home), "TMPDIR": str(scratch)}
    call = [*COMMAND, command, str(small_run)]
    children.append(subprocess.Popen(call, env=environ, start_new_session=True, stderr=subprocess.DEVNULL))
    begun.set()
    assert -signal.SIGKILL == children[0].wait(60)
    server.before_request = None
    with pytest.raises(ProcessLookupError):
        os.killpg(children[0].pid, 0)
    assert {*hidden(small_run)} <= {*before, LEDGER_NAME}
    assert [] == [*scratch.iterdir(), *home.iterdir()]
    assert [] == fails(upload([small_run]))
    assert_settled(server, small_run)
