"""--val-of: pictures of validations in the task of their run, once, under titles of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import SAMPLES, MakeRun
from double import ClearMLDouble
from test_cli import Run, run_cli
from uploading import end_state

from yolo_clearml.errors import Exit
from yolo_clearml.library import Options, plan_run, read_run
from yolo_clearml.rundir.further import Further
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync.ledger import LEDGER_NAME

__all__ = ["run_cli"]  # a fixture

SMALL = "v8.4.190-detect-noplots"
PLOTS = {"BoxF1_curve", "BoxPR_curve", "BoxP_curve", "BoxR_curve"}
PLOTS |= {"confusion_matrix", "confusion_matrix_normalized"}


@pytest.fixture
def val(make_run: MakeRun) -> Path:
    """Give what a real `yolo val` left, beside a training in ``train``."""
    make_run(SMALL, "train")
    return make_run("v8.4.190-val", "val2")


def pictures(server: ClearMLDouble) -> tuple[set[str], set[tuple[str, str, int]]]:
    """Give the titles of all plots, and title, series and iteration of all debug images."""
    (task,) = server.tasks
    return {plot[0] for plot in server.plots(task)}, {image[:3] for image in server.images(task)}


def test_they_go_into_the_task_of_the_run(server: ClearMLDouble, val: Path, run_cli: Run) -> None:
    """Below the name of their directory; nothing of the training's own is touched, and no file is added."""
    before = sorted(val.iterdir())
    assert Exit.OK == run_cli("upload", "runs/train").status
    own = pictures(server)
    ended = run_cli("upload", "runs/val2", "--val-of", "runs/train")
    assert ended.out.startswith("runs/train: sent 10 events, 10 files"), ended
    plots, images = pictures(server)
    assert plots == own[0] | {f"val2/{name}" for name in PLOTS}
    names = ("val_labels.jpg", "val_pred.jpg")
    assert images == own[1] | {("val2/Validation", name, batch) for name in names for batch in (0, 1)}
    assert ["completed"] == [task["status"] for task in server.tasks.values()]
    assert before == sorted(val.iterdir())


def test_once_however_often_and_without_the_ledger(server: ClearMLDouble, val: Path, run_cli: Run) -> None:
    """Silent the second time, beside a plain upload in turn, and the same in the end where it was lost."""
    command = ("upload", "runs/val2", "--val-of", "runs/train")
    assert "sent " in run_cli(*command).out  # the training with it
    state = end_state(server)
    for again in (command, ("upload", "runs/train"), command):
        ended = run_cli(*again)
        assert (Exit.OK, "") == (ended.status, ended.out)
    (val.parent / "train" / LEDGER_NAME).unlink()
    assert Exit.OK == run_cli(*command).status
    assert state == end_state(server)


def test_verify_reads_them_back(server: ClearMLDouble, val: Path, run_cli: Run) -> None:
    """A picture that the server lost is named; without the option they are more than the run has."""
    run_cli("upload", "runs/val2", "--val-of", "runs/train")
    verify = ("verify", "runs/val2", "--val-of", "runs/train")
    assert "verified, " in run_cli(*verify).out
    (task,) = server.tasks
    (lost,) = (e for k, e in server.images(task).items() if k[:3] == ("val2/Validation", "val_pred.jpg", 1))
    server.replace_file(lost["url"], None)
    ended = run_cli(*verify)
    assert Exit.SOME_FAILED == ended.status
    assert "image val2/Validation / val_pred.jpg at iteration 1" in ended.out
    assert "verified, " in run_cli("verify", "runs/train").out


def test_what_is_unfit_is_named(val: Path) -> None:
    """A picture cut short, and a directory that went, are neither sent nor passed over in silence."""
    (val / "BoxF1_curve.png").write_bytes((val / "BoxF1_curve.png").read_bytes()[:-20])
    options = Options(validations=(val,))
    run = read_run(val.parent / "train", options)
    assert not isinstance(run, NotARun)
    planned = plan_run(run, options)
    assert "val2/BoxF1_curve.png: not a whole picture" in planned.missing
    assert 9 == sum(report.key.startswith("validation/val2/") for report in planned.reports)
    shutil.rmtree(val)  # after the upload has begun
    assert ["val2/"] == [listed[0] for listed in Further(validations=(val,)).validations_listed()]


def test_a_training_that_goes_on_gets_them_later(val: Path, run_cli: Run, server: ClearMLDouble) -> None:
    """It says so, and sends its own."""
    train = val.parent / "train"
    shutil.rmtree(train)
    shutil.copytree(SAMPLES / "v8.4.190-detect-killed", train)
    ended = run_cli("upload", "runs/val2", "--val-of", "runs/train", "--stale-after", "999999999")
    assert Exit.OK == ended.status
    assert ["in_progress"] == [task["status"] for task in server.tasks.values()]
    assert "The training goes on: the same command sends the pictures of val2 later." in ended.err
    assert not [name for name in pictures(server)[0] if name.startswith("val2/")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("runs/train", "--val-of", "runs/train"), "is not what 'yolo val' leaves"),
        (("runs/val2", "--val-of", "runs"), "is not a run directory"),
        (("runs/val2", "--val-of", "runs/none"), "does not exist"),
        (("runs/val2", "--val-of", "runs/train", "--shard", "1/2"), "--val-of and --shard"),
        (("runs/val2", "--val-of", "runs/train", "--include", "a"), "--val-of and --include"),
        (("runs/val2", "runs/more/val2", "--val-of", "runs/train"), "Two validations are called 'val2'"),
    ],
)
def test_what_is_not_meant_is_refused(
    val: Path, run_cli: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    """Nothing is guessed: each path is a validation, and RUN the one run."""
    shutil.copytree(val, val.parent / "more" / "val2")
    ended = run_cli("upload", *arguments)
    assert (Exit.USAGE, True) == (ended.status, sentence in ended.err), ended


def test_alone_it_is_skipped_with_the_way(val: Path, run_cli: Run) -> None:
    """Whoever uploads the whole tree reads how its pictures get into ClearML."""
    assert "--val-of RUN" in run_cli("upload", "runs", "-v", "--dry-run").err


def test_a_ledger_names_no_directory_to_read(server: ClearMLDouble, val: Path, run_cli: Run) -> None:
    """It may be anybody's: what is remembered in a run directory leads nowhere else."""
    run_cli("upload", "runs/val2", "--val-of", "runs/train")
    ledger = val.parent / "train" / LEDGER_NAME
    assert str(val) not in ledger.read_text()
    stored = json.loads(ledger.read_text())
    ledger.write_text(json.dumps(stored | {"wanted": {"validations": [str(val)]}, "sent": {}}))
    run_cli("upload", "runs/train")
    assert not [r for r in json.loads(ledger.read_text())["sent"] if r.startswith("validation/")]
