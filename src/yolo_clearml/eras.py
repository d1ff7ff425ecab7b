"""What differs between Ultralytics releases, as rows of data; the rules know no release.

Source of every row: trainings with the callback on, recorded release by release. A date of change between
two recorded releases is given as the first release seen to behave so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

Release: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class PlotRule:
    """Pictures that end up in the Plots tab."""

    pattern: str  # glob over file names in the run directory
    title: str = "{stem}"
    at_last_epoch: bool = False  # iteration is the last epoch instead of 0


@dataclass(frozen=True, slots=True)
class Era:
    """How one stretch of releases reports a training."""

    since: Release
    project: str = "YOLOv8"  # where the run names none
    tag: str = "YOLOv8"
    default_project_prefix: str | None = None  # a project that starts so counts as not named
    default_name: str | None = None  # the name that the trainer gives when the user gives none,
    default_task_name: str | None = None  # and the task name it turns into
    sections: tuple[tuple[str, str], ...] = (("General", "args"),)  # section name, file it comes from
    extra_arguments: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    argument_types: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    none_type: str | None = None  # ClearML type of an argument that is None
    titles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # column prefix to title
    series_keeps_prefix: bool = True
    mosaic_title: str = "Mosaic"
    mosaic_epoch: int = 1  # zero-based epoch whose end reports the mosaics
    plots: tuple[PlotRule, ...] = ()
    single_values: bool = True
    fitness: tuple[float, float] = (0.1, 0.9)  # weights of mAP50 and mAP50-95
    model_name: str = "{name}"
    never_on_disk: tuple[str, ...] = ()  # facts the callback knew and no file holds
    final_evaluation: str = "the final evaluation's extra point"


_FIXED_PLOTS = tuple(
    PlotRule(f"{stem}.png")
    for stem in (
        "results",
        "confusion_matrix",
        "confusion_matrix_normalized",
        "F1_curve",
        "PR_curve",
        "P_curve",
        "R_curve",
    )
)
_DRAWN_PLOTS = (
    PlotRule("labels.jpg"),
    PlotRule("results.png"),
    PlotRule("*_curve.png"),
    PlotRule("confusion_matrix_normalized.png"),
)
_RAW_MATRIX = PlotRule("confusion_matrix.png")

_REFERENCE = Era(
    since=(8, 0, 222),
    titles=MappingProxyType({"metrics": "val"}),
    plots=_FIXED_PLOTS,
    never_on_disk=("model/GFLOPs", "model/speed_PyTorch(ms)"),
    final_evaluation="the final evaluation's second point at the last iteration",
)
_8_3_20 = replace(_REFERENCE, since=(8, 3, 20), project="Ultralytics", tag="Ultralytics")
_8_3_175 = replace(_8_3_20, since=(8, 3, 175), titles=MappingProxyType({}))
_8_3_200 = replace(_8_3_175, since=(8, 3, 200), fitness=(0.0, 1.0))
_8_3_253 = replace(_8_3_200, since=(8, 3, 253), plots=_DRAWN_PLOTS)
_8_3_254 = replace(_8_3_253, since=(8, 3, 254), plots=(*_DRAWN_PLOTS, _RAW_MATRIX))
_8_4_75 = replace(
    _8_3_254, since=(8, 4, 75), final_evaluation="the final evaluation's extra point after the last iteration"
)
_8_4_190 = replace(
    _8_4_75,
    since=(8, 4, 190),
    extra_arguments=MappingProxyType({"_ignore_remote_overrides_": True}),
)

ERAS: tuple[Era, ...] = (
    # also for older releases: what they reported, the previous epoch's metrics as "train", nobody wants
    _REFERENCE,
    _8_3_20,
    _8_3_175,
    _8_3_200,
    _8_3_253,
    _8_3_254,
    _8_4_75,
    _8_4_190,
)

YOLOV5 = Era(
    since=(7, 0, 0),
    project="YOLOv5",
    tag="YOLOv5",
    default_project_prefix="runs/",
    default_name="exp",
    default_task_name="Training",
    sections=(("Args", "args"), ("Hyperparameters", "hyp")),
    # The live callback saw argparse's declared types; the file has lost them for these.
    argument_types=MappingProxyType({"evolve": "int", "freeze": "int"}),
    none_type="str",
    series_keeps_prefix=False,
    mosaic_title="Mosaics",
    mosaic_epoch=0,
    # The pictures arrived through ClearML's matplotlib hook, titled by the figure's own caption.
    plots=(
        PlotRule("labels_correlogram.jpg", "untitled 00"),
        PlotRule("labels.jpg", "untitled 01"),
        PlotRule("F1_curve.png", "F1-Confidence Curve", at_last_epoch=True),
        PlotRule("PR_curve.png", "Precision-Recall Curve", at_last_epoch=True),
        PlotRule("P_curve.png", "Precision-Confidence Curve", at_last_epoch=True),
        PlotRule("R_curve.png", "Recall-Confidence Curve", at_last_epoch=True),
        PlotRule("confusion_matrix.png", "Confusion Matrix", at_last_epoch=True),
        PlotRule("results.png", "metrics/mAP_0.5:0.95", at_last_epoch=True),
    ),
    single_values=False,
    model_name="{name} - Best Model",
    never_on_disk=("Args/hyp",),
    final_evaluation="",
)

# Arguments that first appear in a release looked at: what tells releases apart without a checkpoint.
_NEW_ARGUMENTS: tuple[tuple[str, Release], ...] = (
    ("cls_remap", (8, 4, 190)),
    ("compile", (8, 3, 254)),
    ("cutmix", (8, 3, 175)),
)


def parse_release(text: str) -> Release | None:
    """Read ``8.3.100`` (a suffix like ``.dev0`` or ``rc1`` is ignored); None where it is no release."""
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})(?!\d)(?:\.(\d{1,4})(?!\d)|(?!\.\d))", text.strip(), re.ASCII)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def era_of(release: Release) -> Era:
    """Give the era that a release of Ultralytics belongs to; older ones count as the first era."""
    if release < (8, 0, 0):
        return YOLOV5
    return next((era for era in reversed(ERAS) if era.since <= release), ERAS[0])


def guess_release(columns: Collection[str], arguments: Collection[str]) -> Release:
    """Guess the release from the shape of results.csv and the names in args.yaml.

    ``time`` came with 8.3.20; the arguments tell the later eras apart.
    """
    if "time" not in columns:
        return (8, 3, 0)
    return next((release for name, release in _NEW_ARGUMENTS if name in arguments), (8, 3, 20))
