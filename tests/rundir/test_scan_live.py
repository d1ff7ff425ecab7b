"""A run that is looked at while it is being written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_scan import ENDED, PNG, ROWS, SAVED, WROTE, checkpoint, put, reason_of, run_of, training

from yolo_clearml.events import RunState
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.rundir.scan import scan

HALF = PNG[:-3]
ROWS_BEFORE_TIMES = "".join(f"{n},{1 / n:.5g},0.1,0.1,0.01\n" for n in (1, 2, 3))


def growing(path: Path) -> Path:
    """Make a training whose third epoch has ended, and whose checkpoints are of that epoch."""
    training(path, stripped=False)
    for name in ("last.pt", "best.pt"):
        checkpoint(path / "weights" / name, epoch=2, optimizer={"lr": 0.1})
    return path


def test_the_row_of_a_long_epoch_comes_before_its_checkpoint(tmp_path: Path) -> None:
    """A row hours younger than the newest checkpoint is no sign of a copy, if the epoch took as long."""
    path = growing(tmp_path / "train")
    put(path / "results.csv", (path / "results.csv").read_text() + "4,9090,0.2,0.4,0.4,0.001\n", WROTE + 9000)
    run = run_of(path, WROTE + 9001)
    assert (RunState.LIVE, False) == (run.state, run.copied)
    assert WROTE + 9000 == run.times.at[4] / 1000
    assert WROTE == run.times.at[3] / 1000


def test_the_best_checkpoint_may_be_old(tmp_path: Path) -> None:
    """While last.pt is being written, best.pt of an early epoch is all that can be read."""
    path = growing(tmp_path / "train")
    rows = "".join(f"{n},{n * 3600},0.2,0.4,0.4,0.001\n" for n in (2, 3, 4))
    put(path / "results.csv", "epoch,time,train/loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0\n", WROTE)
    put(path / "results.csv", (path / "results.csv").read_text() + ROWS[0] + "\n" + rows, WROTE + 4 * 3600)
    checkpoint(path / "weights" / "best.pt", epoch=0, optimizer={}, date=SAVED)
    put(path / "weights" / "last.pt", b"PK\x03\x04", WROTE + 4 * 3600)
    run = run_of(path, WROTE + 4 * 3600 + 1)
    assert (RunState.LIVE, False, ()) == (run.state, run.copied, run.unfit)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
@pytest.mark.parametrize("plots", [True, False])
def test_it_has_not_finished_while_a_checkpoint_is_half_written(
    tmp_path: Path, name: str, plots: bool
) -> None:
    """Checkpoints are stripped one after the other; then it has finished, or died meanwhile."""
    path = training(tmp_path / "train", plots=plots)
    put(path / "weights" / name, b"PK\x03\x04", ENDED)
    assert (RunState.LIVE, ()) == ((run := run_of(path, ENDED + 1)).state, run.unfit)
    assert RunState.FINISHED is run_of(path, ENDED + 1e6).state
    checkpoint(path / "weights" / name, ENDED + 1)
    assert RunState.FINISHED is run_of(path, ENDED + 2).state


def test_it_has_not_finished_while_its_last_picture_is_half_written(tmp_path: Path) -> None:
    """results.png is drawn last; nothing is said of it until it is whole or nobody draws any more."""
    path = training(tmp_path / "train")
    put(path / "results.png", HALF, ENDED)
    assert (RunState.LIVE, ()) == ((run := run_of(path, ENDED + 1)).state, run.unfit)
    dead = run_of(path, ENDED + 1e6)
    assert (RunState.FINISHED, ("results.png: not a whole picture",)) == (dead.state, dead.unfit)
    put(path / "results.png", PNG, ENDED + 1)
    assert RunState.FINISHED is run_of(path, ENDED + 2).state


def test_when_to_look_again(tmp_path: Path) -> None:
    """A live run is looked at when it will have died; one that has ended never."""
    path = growing(tmp_path / "train")
    assert WROTE + 1800 == run_of(path, WROTE + 10).again
    assert WROTE + 60 == run_of(path, WROTE + 10, stale_after=60).again
    assert RunState.STOPPED is run_of(path, WROTE + 60, stale_after=60).state
    assert None is run_of(path, WROTE + 60, stale_after=60).again
    assert None is run_of(training(tmp_path / "done"), WROTE + 60).again


@pytest.mark.parametrize("lacking", ["results.csv", "weights/last.pt", "weights/best.pt"])
def test_when_to_look_again_at_what_is_no_run_yet(tmp_path: Path, lacking: str) -> None:
    """It may die before it becomes one, which is something else to say."""
    path = growing(tmp_path / "train")
    (path / "weights" / "best.pt").unlink()
    (path / "weights" / "last.pt").unlink()
    if lacking == "results.csv":
        (path / lacking).unlink()
    newest = max(file.stat().st_mtime for file in path.iterdir() if file.is_file())
    found = scan(path, WROTE + 10)
    assert isinstance(found, NotARun)
    assert newest + 1800 == found.again
    if lacking == "results.csv":
        assert "died before its first epoch ended" == reason_of(path, WROTE + 1e6)
    else:
        assert RunState.FINISHED is run_of(path, WROTE + 1e6).state  # all its epochs are there


def test_patience_is_that_of_its_epochs(tmp_path: Path) -> None:
    """Three of its longest epochs; three of an average one where the rows hold no times."""
    path = growing(tmp_path / "train")
    put(path / "results.csv", (path / "results.csv").read_text() + "4,3690,0.2,0.4,0.4,0.001\n", WROTE + 3600)
    assert WROTE + 3600 + 3 * 3600 == run_of(path, WROTE + 3700).again
    old = growing(tmp_path / "old")
    header = "epoch,train/loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0\n"
    put(old / "results.csv", header + ROWS_BEFORE_TIMES, WROTE)
    os.utime(old / "train_batch0.jpg", (WROTE - 9000, WROTE - 9000))
    os.utime(old / "args.yaml", (WROTE - 9008, WROTE - 9008))
    assert WROTE + 9000 == run_of(old, WROTE + 10).again
