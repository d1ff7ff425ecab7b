"""Trainings that YOLOv5 7.0 and Ultralytics did not write themselves: their forks and elder relatives.

What each writes into its save_dir was read in its source, which is named below. They are reported by the
rules of the nearest release whose callback is known, and a note states that; what keeps its rows elsewhere
is none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

# The losses of every trainer of Ultralytics 8.0.100 to 8.4.190, those of a distillation and of semantic
# segmentation too (`loss_names` in ultralytics/models/*/*/train.py), with or without "_loss" at the end; and
# of YOLOv5 6.0 to 7.0 (utils/loggers/__init__.py, segment/train.py).
_LOSSES = frozenset(
    "angle aux box ce cls dfl dgrad dice dis dlog giou kobj l1 loss pose rle seg sem".split()  # noqa: SIM905
)
_YOLOV5_LOSSES = frozenset(("box", "obj", "cls", "seg"))
# github.com/THU-MIG/yolov10, ultralytics/models/yolov10/train.py; ultralytics/__init__.py has 8.1.34
_YOLOV10_LOSSES = frozenset(f"{loss}_{head}" for loss in ("box", "cls", "dfl") for head in ("om", "oo"))
# github.com/WongKinYiu/yolov9, train.py, train_dual.py and train_triple.py: options that YOLOv5 has not
_YOLOV9_OPTIONS = frozenset(("flat_cos_lr", "fixed_lr", "min_items", "close_mosaic"))
# github.com/meituan/YOLOv6, tools/train.py; yolov6/core/engine.py writes its curves for TensorBoard alone
_YOLOV6_OPTIONS = frozenset(("data_path", "conf_file", "output_dir"))
_MOST_NAMED = 3  # columns in a sentence
_LONGEST_VERSION = 30  # characters


@dataclass(frozen=True, slots=True)
class Relative:
    """Whose trainer wrote a run, if not that of a release whose callback is known."""

    text: str  # what it is and what shows that, a sentence without its end


def relative_of(
    yolov5: bool, columns: Collection[str], arguments: Mapping[str, object], version: str | None
) -> Relative | None:
    """Give which fork or elder relative wrote a run, by what it holds; None where nothing shows that.

    ``version`` is what a checkpoint states, if that is no release of Ultralytics 8.
    """
    named = [column.partition("/") for column in columns]
    losses: dict[str, str] = {}  # the first column of each
    for of, _, name in named:
        if of in ("train", "val"):
            losses.setdefault(name.removesuffix("_loss"), f"{of}/{name}")
    if yolov5:
        return _of_yolov5(losses, arguments)
    if version is not None:
        return Relative(
            f"Its checkpoint is of version {version[:_LONGEST_VERSION]!r}, a fork's: no release of"
            " Ultralytics 8 is called so"
        )
    strange = [column for loss, column in losses.items() if loss not in _LOSSES]
    if not strange:
        return None
    if losses.keys() & _YOLOV10_LOSSES:
        return Relative(f"It was trained by YOLOv10, a fork of Ultralytics, as {_some(strange)} shows")
    return Relative(
        f"It was trained by a fork of Ultralytics, or one's own trainer, as {_some(strange)} shows"
    )


def _of_yolov5(losses: Mapping[str, str], arguments: Mapping[str, object]) -> Relative | None:
    options = sorted(_YOLOV9_OPTIONS & arguments.keys())
    if "dfl" in losses or options:
        shown = losses.get("dfl") or f"{options[0]!r} in opt.yaml"
        return Relative(f"It was trained by YOLOv9's trainer, as {shown} shows")
    strange = [column for loss, column in losses.items() if loss not in _YOLOV5_LOSSES]
    if strange:
        return Relative(f"It was trained by a fork of YOLOv5, as {_some(strange)} shows")
    # train.py of YOLOv5: --seed and --noplots came with 6.2, --optimizer and --cos-lr in place of --adam and
    # --linear-lr with 6.1; the ClearML logger (utils/loggers/clearml) came with 6.2
    if "adam" in arguments or "linear_lr" in arguments:
        return Relative("It was trained by YOLOv5 6.0, which had no ClearML callback, as its options show")
    if not arguments.keys() & {"seed", "noplots"} and "optimizer" in arguments:
        return Relative("It was trained by YOLOv5 6.1, which had no ClearML callback, as its options show")
    return None


def why_foreign(path: Path, yolov5: bool, arguments: Mapping[str, object]) -> tuple[str, str] | None:
    """Give, as it goes on after "it", why a training without results.csv has none, and a hint; else None.

    opt.yaml, hyp.yaml and results.txt are YOLOv7's (github.com/WongKinYiu/yolov7, train.py) and those of
    YOLOv5 to 5.0.
    """
    if not yolov5 and len(_YOLOV6_OPTIONS & arguments.keys()) > 1:
        return "is a training of YOLOv6, which writes its curves for TensorBoard alone", _NOT_READ
    if yolov5 and os.path.lexists(path / "results.txt"):
        stated = f"{arguments.get('weights')} {arguments.get('cfg')}".lower()
        v7 = "yolov7" in stated or "v5_metric" in arguments
        who = (
            "YOLOv7"
            if v7
            else "YOLOv5 before 6.0"
            if "yolov5" in stated
            else "YOLOv7 or of YOLOv5 before 6.0"
        )
        return f"is a training of {who}, which writes results.txt and no results.csv", _NOT_READ
    return None


_NOT_READ = "That is not read, so there is nothing to report."


def _some(columns: Collection[str]) -> str:
    named = sorted(columns)[:_MOST_NAMED]
    return f"the column {named[0]}" if len(named) == 1 else f"the columns {', '.join(named)}"
