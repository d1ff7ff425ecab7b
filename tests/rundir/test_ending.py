"""What a directory without weights shows of its training's end, and that an old release's resume is one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun, long_after
from test_scan import (
    BEGAN,
    COLUMNS,
    DRAWN,
    ENDED,
    JPEG,
    PNG,
    ROWS,
    WROTE,
    checkpoint,
    put,
    reason_of,
    renew,
    run_of,
    training,
)

from yolo_clearml.events import RunState

OLD_COLUMNS = "epoch,train/loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0"
OLD_ROWS = tuple(f"{n},{1 / n:.5g},0.{n},0.{n},0.001" for n in range(1, 10))
PLOTS = ("F1_curve.png", "confusion_matrix.png", "results.png", "val_batch0_pred.jpg")
OWN = "/home/somebody/runs/train/weights/last.pt"
DAY = 86400.0


def of_old(path: Path, epochs: int = 3, rows: int = 3, **more: object) -> Path:
    """Make a finished training without weights, of a release without a time column."""
    arguments: dict[str, Any] = {"exist_ok": False, "patience": 50, "seed": 0, **more}
    training(path, **arguments, epochs=epochs)
    shutil.rmtree(path / "weights")
    for picture in path.glob("*.png"):
        picture.unlink()
    lines = [",".join(f"{cell:>23}" for cell in line.split(",")) for line in (OLD_COLUMNS, *OLD_ROWS[:rows])]
    put(path / "results.csv", "\n".join((*lines, "")), WROTE)
    for name in PLOTS:
        put(path / name, PNG if name.endswith("png") else JPEG, ENDED)
    return path


def without_weights(path: Path, **more: Any) -> Path:
    shutil.rmtree(training(path, **more) / "weights")
    return path


# -- resumed by a release that does not say so


@pytest.mark.parametrize(
    "model", [OWN, "runs/train/weights/last.pt", "C:\\my\\runs\\train\\weights\\last.pt"]
)
def test_a_resume_of_an_old_release_keeps_the_older_pictures(tmp_path: Path, model: str) -> None:
    """To 8.1.40 args.yaml keeps resume: false, and model is the run's own checkpoint."""
    place = "C:\\my\\runs\\train" if "\\" in model else "/home/somebody/runs/train"
    path = of_old(tmp_path / "train", exist_ok=True, model=model, resume=False, save_dir=place)
    os.utime(path / "args.yaml", (WROTE - 20, WROTE - 20))
    put(path / "labels.jpg", JPEG, WROTE - 18)
    run = run_of(path)
    assert (RunState.FINISHED, ()) == (run.state, run.unfit)
    assert {*DRAWN, *PLOTS} <= set(run.files)


@pytest.mark.parametrize("model", ["yolov8n.pt", "/home/somebody/runs/train2/weights/last.pt", "weights.pt"])
def test_a_training_from_other_weights_is_no_resume(tmp_path: Path, model: str) -> None:
    """exist_ok: what is older than args.yaml is of the training before."""
    path = of_old(tmp_path / "train", exist_ok=True, model=model, resume=False)
    os.utime(path / "args.yaml", (WROTE - 20, WROTE - 20))
    assert f"{DRAWN[1]}: older than args.yaml, so of an earlier training" in run_of(path).unfit


def test_a_training_begun_again_from_its_own_weights_is_no_resume(tmp_path: Path) -> None:
    """It draws its first batch again; what it has not drawn again is not its own."""
    path = of_old(tmp_path / "train", exist_ok=True, model=OWN, resume=False)
    os.utime(path / "args.yaml", (WROTE - 20, WROTE - 20))
    put(path / "train_batch0.jpg", JPEG, WROTE - 10)
    assert "train_batch1.jpg: older than args.yaml, so of an earlier training" in run_of(path).unfit


def test_an_old_resume_that_has_no_row_yet_is_the_run_it_resumes(tmp_path: Path) -> None:
    """A day later, and it is alive again; where another training may have been begun, nobody can say yet."""
    for exist_ok in (False, True):
        path = training(tmp_path / str(exist_ok), stripped=False, exist_ok=exist_ok, model=OWN, resume=False)
        put(path / "results.csv", "\n".join((OLD_COLUMNS, *OLD_ROWS[:2], "")), WROTE)
        os.utime(path / "args.yaml", (WROTE + DAY, WROTE + DAY))
        if exist_ok:
            assert "has not finished an epoch yet" == reason_of(path, WROTE + DAY + 10)
        else:
            run = run_of(path, WROTE + DAY + 10)
            assert (RunState.LIVE, 2, ()) == (run.state, len(run.table.rows), run.unfit)


def test_a_real_run_resumed_by_an_old_release(make_run: MakeRun) -> None:
    """As 8.0.220 leaves it: args.yaml and labels.jpg written again, the batches a day older."""
    path = make_run("v8.0.220-detect")
    text = (path / "args.yaml").read_text()
    own = "/home/yolov/work/v8.0.220-detect/runs/detect/train/weights/last.pt"
    written = (path / "results.csv").stat().st_mtime
    put(path / "args.yaml", text.replace("model: tiny-detect.pt", f"model: {own}"), written - 3)
    for batch in path.glob("train_batch*"):
        os.utime(batch, (written - DAY, written - DAY))
    run = run_of(path, long_after())
    assert (RunState.FINISHED, ()) == (run.state, run.unfit)
    assert {f"train_batch{n}.jpg" for n in range(3)} <= set(run.files)


# -- finished, without weights


def test_args_that_were_edited_a_minute_ago_do_not_begin_a_training(tmp_path: Path) -> None:
    """Beside pictures of last week: with exist_ok false no other training can have been begun there."""
    path = without_weights(tmp_path / "train", exist_ok=False)
    os.utime(path / "args.yaml", (WROTE + 7 * DAY, WROTE + 7 * DAY))
    run = run_of(path, WROTE + 7 * DAY + 60)
    assert (RunState.FINISHED, ()) == (run.state, run.unfit)
    assert {*DRAWN, "results.png", "BoxF1_curve.png"} <= set(run.files)


def test_args_that_were_edited_ten_minutes_after_the_end(tmp_path: Path) -> None:
    """While its other files are young as well."""
    path = training(tmp_path / "train", exist_ok=False)
    os.utime(path / "args.yaml", (ENDED + 600, ENDED + 600))
    assert RunState.FINISHED is run_of(path, ENDED + 610).state


def test_args_that_were_edited_do_not_bring_a_dead_run_to_life(tmp_path: Path) -> None:
    """Its checkpoint is of the second of nine epochs, and nothing else was written since."""
    path = training(tmp_path / "train", stripped=False, exist_ok=False, epochs=9)
    os.utime(path / "args.yaml", (WROTE + 7 * DAY, WROTE + 7 * DAY))
    assert RunState.STOPPED is run_of(path, WROTE + 7 * DAY + 60).state


@pytest.mark.parametrize(("epochs", "state"), [(3, RunState.FINISHED), (4, RunState.STOPPED)])
def test_a_training_with_all_its_epochs_has_finished(tmp_path: Path, epochs: int, state: RunState) -> None:
    """Without weights and pictures, as many share it; while it may still draw, it lives."""
    path = without_weights(tmp_path / "train", epochs=epochs)
    for picture in (*path.glob("*.png"), *path.glob("*.jpg")):
        picture.unlink()
    assert state is run_of(path).state
    assert "has no checkpoint yet" == reason_of(path, WROTE + 10)


def test_epochs_that_are_counted_from_nought(tmp_path: Path) -> None:
    """To 8.0.161 and in YOLOv5."""
    path = without_weights(tmp_path / "train", epochs=3)
    (path / "results.png").unlink()
    for rows, state in ((OLD_ROWS[:2], RunState.STOPPED), (OLD_ROWS[:3], RunState.FINISHED)):
        text = "\n".join((OLD_COLUMNS, *(f"{int(row[0]) - 1}{row[1:]}" for row in rows), ""))
        put(path / "results.csv", text, WROTE)
        assert state is run_of(path).state


@pytest.mark.parametrize("epochs", ["null", "three", "3.5", "true", "-1", "0"])
def test_a_number_of_epochs_that_is_none_ends_nothing(tmp_path: Path, epochs: str) -> None:
    """Whoever wrote that: it is not known."""
    path = without_weights(tmp_path / "train", epochs=epochs)
    (path / "results.png").unlink()
    assert RunState.STOPPED is run_of(path).state


@pytest.mark.parametrize(
    ("values", "patience", "state"),
    [
        ((0.1, 0.5, 0.4, 0.3), 2, RunState.FINISHED),
        ((0.1, 0.5, 0.4, 0.3), 3, RunState.STOPPED),
        ((0.1, 0.5, 0.4, 0.3), 0, RunState.STOPPED),
        ((0.5, 0.5, 0.4, 0.3), 3, RunState.FINISHED),  # of equals the first counts, since 8.3.100 or so
        ((0.5, 0.5, 0.4, 0.3), 2, RunState.FINISHED),  # before, the last
        ((0.1, 0.2, 0.3, 0.4), 2, RunState.STOPPED),
        ((0.0, 0.0, 0.0, 0.0), 3, RunState.STOPPED),  # val=False
    ],
)
def test_an_early_stop_shows_in_the_rows(
    tmp_path: Path, values: tuple[float, ...], patience: int, state: RunState
) -> None:
    """As many epochs after the best one as patience allows, and no more."""
    path = without_weights(tmp_path / "train", epochs=100, patience=patience)
    (path / "results.png").unlink()
    rows = [f"{n},{n * 30},1,{value},{value},0.001" for n, value in enumerate(values, 1)]
    put(path / "results.csv", "\n".join((COLUMNS, *rows, "")), WROTE)
    assert state is run_of(path).state


@pytest.mark.parametrize(("hours", "state"), [(0.025, RunState.FINISHED), (0.03, RunState.STOPPED)])
def test_a_training_that_was_given_a_time(tmp_path: Path, hours: float, state: RunState) -> None:
    """time= ends it, whatever epochs says: 90 seconds are 0.025 hours."""
    path = without_weights(tmp_path / "train", epochs=3, time=hours)
    (path / "results.png").unlink()
    assert state is run_of(path).state


@pytest.mark.parametrize("exist_ok", [True, False])
@pytest.mark.parametrize("later", [3.0, DAY])
def test_a_table_that_was_saved_again_is_of_a_finished_training(
    tmp_path: Path, exist_ok: bool, later: float
) -> None:
    """results.png, which is drawn last, is older than results.csv then; early or late."""
    path = without_weights(tmp_path / "train", epochs=100, exist_ok=exist_ok)
    os.utime(path / "results.csv", (ENDED + later, ENDED + later))
    run = run_of(path, ENDED + 2 * DAY)
    assert (RunState.FINISHED, ()) == (run.state, run.unfit)
    assert {"results.png", "BoxF1_curve.png"} <= set(run.files)
    if not exist_ok or later < 5:  # as between two files of a copy
        assert RunState.FINISHED is run_of(path, ENDED + later + 10).state
    if not exist_ok:
        assert ENDED == run.times.ended / 1000 or later < 5


def test_results_of_an_earlier_training_do_not_end_a_new_one(tmp_path: Path) -> None:
    """exist_ok: results.png is older than args.yaml, so it is not this training's."""
    path = without_weights(tmp_path / "train", epochs=100, exist_ok=True, save=False)
    os.utime(path / "results.png", (BEGAN - 60, BEGAN - 60))
    assert [RunState.LIVE, RunState.STOPPED] == [run_of(path, WROTE + at).state for at in (10, 1e6)]


@pytest.mark.parametrize("exist_ok", [True, False])
def test_a_slow_copy_of_an_old_release_keeps_its_curves(tmp_path: Path, exist_ok: bool) -> None:
    """File by file, two seconds each, in order of name: F1_curve.png comes before args.yaml."""
    path = of_old(tmp_path / "train", exist_ok=exist_ok)
    before = set(run_of(path).files)
    renew(path, WROTE + 1e6, 2.0)
    run = run_of(path, WROTE + 2e6)
    assert (RunState.FINISHED, before, ()) == (run.state, set(run.files), run.unfit)


def test_checkpoints_outrank_the_rows(tmp_path: Path) -> None:
    """All rows are there, and the last checkpoint was never stripped: it died on its last steps."""
    path = training(tmp_path / "train", stripped=False, exist_ok=False)
    assert RunState.STOPPED is run_of(path).state
    checkpoint(path / "weights" / "last.pt")
    checkpoint(path / "weights" / "best.pt")
    assert RunState.FINISHED is run_of(path).state


def test_rows_of_three(tmp_path: Path) -> None:
    """What is above leans on this: the table of a training has three rows and as many epochs."""
    assert (3, 3) == (len(ROWS), run_of(training(tmp_path / "train")).args["epochs"])
