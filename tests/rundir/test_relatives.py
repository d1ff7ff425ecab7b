"""What forks and elder relatives leave is recognised, reported by the nearest rules, and said to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from test_cli import Run, run_cli
from test_scan import (
    BEGAN,
    COLUMNS,
    ENDED,
    JPEG,
    PNG,
    ROWS,
    WROTE,
    checkpoint,
    put,
    reason_of,
    run_of,
    training,
)

from yolo_clearml.errors import RunUnreadable
from yolo_clearml.events import Plan, Points, Properties
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.scan import scan

__all__ = ["run_cli"]  # a fixture

YOLOV5 = "train/box_loss train/obj_loss train/cls_loss metrics/precision metrics/recall metrics/mAP_0.5"
YOLOV5 += " metrics/mAP_0.5:0.95 val/box_loss val/obj_loss val/cls_loss x/lr0 x/lr1 x/lr2"
YOLOV9 = YOLOV5.replace("cls_loss", "dfl_loss").replace("obj_loss", "cls_loss")
OPTIONS = {"weights": "a.pt", "data": "data.yaml", "epochs": 2, "optimizer": "SGD", "cos_lr": False}
SEVEN = {**OPTIONS, "noplots": False, "seed": 0}


def yolov5_like(path: Path, columns: str, options: dict[str, object]) -> Path:
    """Write what a trainer of YOLOv5's shape leaves, without weights."""
    put(path / "opt.yaml", "".join(f"{name}: {value}\n" for name, value in options.items()), BEGAN)
    put(path / "hyp.yaml", "lr0: 0.01\n", BEGAN)
    names = ["epoch", *columns.split()]
    rows = [",".join(f"{name:>20}" for name in names)]
    rows += [",".join(f"{value:>20}" for value in (epoch, *[0.5] * (len(names) - 1))) for epoch in range(2)]
    put(path / "results.csv", "\n".join((*rows, "")), WROTE)
    put(path / "results.png", PNG, ENDED)
    return path


def replayed(path: Path, wishes: Wishes = Wishes()) -> Plan:
    return plan(run_of(path), wishes)


def release_of(plan: Plan) -> str:
    (told,) = [e.values["release"] for r in plan.reports for e in r.events if isinstance(e, Properties)]
    return told


def titles_of(plan: Plan) -> set[str]:
    points = [report.events for report in plan.reports if isinstance(report.events, Points)]
    return {title for each in points for title, _ in each.curves}


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        (YOLOV9, SEVEN, "It was trained by YOLOv9's trainer, as train/dfl_loss shows"),
        (YOLOV5, {**SEVEN, "flat_cos_lr": False}, "YOLOv9's trainer, as 'flat_cos_lr' in opt.yaml shows"),
        (YOLOV5, OPTIONS, "by YOLOv5 6.1, which had no ClearML callback"),
        (
            YOLOV5,
            {"weights": "a.pt", "adam": False, "linear_lr": False},
            "by YOLOv5 6.0, which had no ClearML",
        ),
        (YOLOV5.replace("obj", "theta"), SEVEN, "a fork of YOLOv5, as the columns train/theta_loss shows"),
    ],
)
def test_relatives_of_yolov5_are_reported_as_it_would_have(
    tmp_path: Path, columns: str, options: dict[str, object], said: str
) -> None:
    """Their release is a guess, and that is said once; every curve is there."""
    got = replayed(yolov5_like(tmp_path / "exp", columns, options))
    (note,) = got.notes
    assert said.replace("columns train/theta_loss", "column train/theta_loss") in note
    assert note.endswith("it is reported as the callback of YOLOv5 7.0, the nearest, would have.")
    assert ("7.0.0 (guessed)", "YOLOv5", ("YOLOv5",)) == (release_of(got), got.project, got.tags)
    assert {"train", "metrics", "val", "x"} == titles_of(got)


@pytest.mark.parametrize(
    "more", ["", " metrics/circle_mAP metrics/circle_mAP_50", " train/seg_loss val/seg_loss"]
)
def test_yolov5_itself_is_no_relative(tmp_path: Path, more: str) -> None:
    """With the classes' own columns of its package, and of a segmentation."""
    got = replayed(yolov5_like(tmp_path / "exp", YOLOV5 + more, SEVEN))
    assert ((), "7.0.0") == (got.notes, release_of(got))


def with_columns(path: Path, names: Sequence[str], version: str) -> Path:
    """Make a finished training with losses of these names, whose checkpoints say ``version``."""
    run = training(path)
    header = COLUMNS.replace("train/loss", ",".join(f"train/{name}" for name in names))
    rows = [row.replace(",0.", ",1" * (len(names) - 1) + ",0.", 1) for row in ROWS]
    put(run / "results.csv", "\n".join((header, *rows, "")), WROTE)
    for name in ("last.pt", "best.pt"):
        checkpoint(run / "weights" / name, version=version)
    return run


def test_yolov10_is_recognised(tmp_path: Path) -> None:
    """By its two heads' losses; its checkpoints say which release it was made from."""
    names = ("box_om", "cls_om", "dfl_om", "box_oo", "cls_oo", "dfl_oo")
    got = replayed(with_columns(tmp_path / "train", names, "8.1.34"))
    said = "It was trained by YOLOv10, a fork of Ultralytics, as the columns train/box_om, train/box_oo,"
    assert (
        f"{said} train/cls_om shows; it is reported by the rules of 8.1.34, the nearest known;"
        " --rules chooses others." in got.notes
    )
    assert ("8.1.34", "YOLOv8") == (release_of(got), got.project)
    chosen = replayed(tmp_path / "train", Wishes(rules=(8, 3, 100)))
    assert any(note.endswith("it is reported by the rules of 8.3.100.") for note in chosen.notes)


@pytest.mark.parametrize("version", ["10.1.1", "0.1.0", "5.0", "9.0.0", "a fork of mine" * 1000])
def test_a_version_that_is_no_release_is_a_forks(tmp_path: Path, version: str) -> None:
    """Its number says nothing: by 0.1.0 it would get YOLOv5's rules, by 10.1.1 the newest release's."""
    run = with_columns(tmp_path / "train", ["box_loss"], version)
    got = replayed(run)
    (note,) = [note for note in got.notes if "a fork's" in note]
    assert note.startswith(f"Its checkpoint is of version {version[:30]!r}, a fork's")
    assert (False, None) == (
        run_of(run).releases.known,
        None if run_of(run).releases.first[0] == 8 else "odd",
    )
    assert release_of(got).endswith(" (guessed)")
    assert got.project != "YOLOv5"


def test_losses_of_every_trainer_of_ultralytics_are_known(tmp_path: Path) -> None:
    """Of a detection, a pose, a semantic segmentation, a distillation, with and without "_loss"."""
    names = (
        "box cls_loss dfl_loss pose_loss kobj_loss rle_loss sem_loss angle_loss giou_loss l1_loss l1_loss2"
    )
    known = names.split()[:-1]
    known += ["ce_loss", "dice_loss", "aux_loss", "dis_loss", "loss"]
    assert None is run_of(with_columns(tmp_path / "a", known, "8.4.190")).relative
    relative = run_of(with_columns(tmp_path / "b", [*known, "wiou_loss"], "8.4.190")).relative
    assert relative is not None
    said = (
        "It was trained by a fork of Ultralytics, or one's own trainer, as the column train/wiou_loss shows"
    )
    assert said == relative.text


# -- what keeps its rows elsewhere -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({"weights": "yolov7.pt", "cfg": ""}, "YOLOv7"),
        ({"weights": "''", "cfg": "cfg/training/yolov7-tiny.yaml"}, "YOLOv7"),
        ({"weights": "a.pt", "v5_metric": False}, "YOLOv7"),
        ({"weights": "yolov5s.pt", "notest": False}, "YOLOv5 before 6.0"),
        ({"weights": "a.pt"}, "YOLOv7 or of YOLOv5 before 6.0"),
    ],
)
def test_results_txt_is_named_and_skipped(tmp_path: Path, options: dict[str, object], who: str) -> None:
    """Never "died before its first epoch": it has finished, or trains right now."""
    put(tmp_path / "opt.yaml", "".join(f"{name}: {value}\n" for name, value in options.items()), BEGAN)
    put(tmp_path / "results.txt", "0/2 1.2G 0.07\n", WROTE)
    put(tmp_path / "results.png", PNG, ENDED)
    for now in (WROTE + 10, WROTE + 1e7):
        said = f"is a training of {who}, which writes results.txt and no results.csv"
        assert said == reason_of(tmp_path, now)


def test_yolov6_is_named_and_skipped(run_cli: Run, tmp_path: Path) -> None:
    """Its args.yaml is of another shape."""
    path = tmp_path / "exp"
    put(path / "args.yaml", "data_path: d.yaml\nconf_file: c.py\nimg_size: 640\noutput_dir: runs\n", BEGAN)
    put(path / "weights" / "best_ckpt.pt", b"PK", WROTE)
    ended = run_cli("upload", "--dry-run", path)
    said = (
        f"{path.name}: skipped: it is a training of YOLOv6, which writes its curves for TensorBoard alone. "
    )
    assert 0 == ended.status
    assert ended.err.startswith(said)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["results.png"], "although the training has finished"),
        (["val_batch0_pred.jpg"], "although epochs were trained, as val_batch0_pred.jpg shows"),
        (["BoxF1_curve.png"], "although epochs were trained, as BoxF1_curve.png shows"),
        (["weights/last.pt"], "although epochs were trained, as weights/last.pt shows"),
    ],
)
def test_a_missing_table_is_the_reason_where_epochs_were_trained(
    tmp_path: Path, there: list[str], said: str
) -> None:
    """Also without weights; and what an earlier training has left shows nothing."""
    put(tmp_path / "args.yaml", "epochs: 3\n", BEGAN)
    put(tmp_path / "labels.jpg", JPEG, BEGAN + 8)
    put(tmp_path / "train_batch0.jpg", JPEG, BEGAN + 8)
    assert "died before its first epoch ended" == reason_of(tmp_path)
    for name in there:
        put(tmp_path / name, PNG if name.endswith("png") else JPEG, BEGAN - 100)
    assert "died before its first epoch ended" == reason_of(tmp_path)
    for name in there:
        put(tmp_path / name, PNG if name.endswith("png") else JPEG, BEGAN + 60)
    with pytest.raises(RunUnreadable, match=f"results.csv is missing {said}"):
        scan(tmp_path, BEGAN + 1e7)


def test_a_first_validation_is_no_lost_table(tmp_path: Path) -> None:
    """Of a training of one epoch its pictures are there before its row is."""
    put(tmp_path / "args.yaml", "epochs: 1\n", BEGAN)
    put(tmp_path / "val_batch0_pred.jpg", JPEG, BEGAN + 60)
    assert "has not finished an epoch yet" == reason_of(tmp_path, BEGAN + 61)
