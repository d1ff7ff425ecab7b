"""What differs between Ultralytics releases, as rows of data; the rules know no release.

A row begins with the first release that has its rules, read off the releases' own sources (tests/releases.py;
what it found is in tests/golden/releases.json). What a callback set out to report and lost by its own
bookkeeping is reported: the second plot of each kind (8.3.247 to 8.4.102), Validation images (8.0.200 to
8.0.235, of rotated boxes, of RT-DETR), pictures without a batch number (to 8.4.163).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..rundir.fitness import MIXED, STRICT
from ..rundir.release import Release, Releases, published_between


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
    project_stripped_of: str = ""  # characters that its callback takes off the beginning of a project
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
    fitness: tuple[float, float] = MIXED  # weights of mAP50 and mAP50-95
    class_fitness: tuple[float, float] = (0.5, 0.5)  # weights of top1 and top5
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
    PlotRule("confusion_matrix.png"),
    PlotRule("confusion_matrix_normalized.png"),
)

_REFERENCE = Era(
    since=(8, 0, 137),
    titles=MappingProxyType({"metrics": "val"}),
    plots=_FIXED_PLOTS,
    never_on_disk=("model/GFLOPs", "model/speed_PyTorch(ms)"),
    final_evaluation="the final evaluation's second point at the last iteration",
)
_8_3_9 = replace(_REFERENCE, since=(8, 3, 9), project="Ultralytics", tag="Ultralytics")
_8_3_173 = replace(_8_3_9, since=(8, 3, 173), titles=MappingProxyType({}))
_8_3_198 = replace(_8_3_173, since=(8, 3, 198), fitness=STRICT)
_8_3_235 = replace(_8_3_198, since=(8, 3, 235), plots=_DRAWN_PLOTS)
_8_4_22 = replace(
    _8_3_235,
    since=(8, 4, 22),
    extra_arguments=MappingProxyType({"_ignore_remote_overrides_": True}),
)
_8_4_52 = replace(
    _8_4_22,
    since=(8, 4, 52),
    plots=(*_DRAWN_PLOTS, PlotRule("iou_bar_chart.png")),  # of semantic segmentation, which came with it
    final_evaluation="the final evaluation's extra point after the last iteration",
)
_8_4_68 = replace(_8_4_52, since=(8, 4, 68), project_stripped_of="/")

ERAS: tuple[Era, ...] = (
    # To 8.0.221 the callback sent no losses, and the previous epoch's metrics as "train": nobody wants that
    # back, so that these releases are reported by the rules of 8.0.222.
    replace(_REFERENCE, since=(8, 0, 0), class_fitness=STRICT),
    _REFERENCE,
    _8_3_9,
    _8_3_173,
    _8_3_198,
    _8_3_235,
    _8_4_22,
    _8_4_52,
    _8_4_68,
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


def era_of(release: Release) -> Era:
    """Give the era that a release of Ultralytics belongs to; older ones count as the first era."""
    if release < (8, 0, 0):
        return YOLOV5
    return next((era for era in reversed(ERAS) if era.since <= release), ERAS[0])


def eras_between(first: Release, last: Release) -> Sequence[Era]:
    """Give the eras that releases from ``first`` to ``last`` belong to, oldest first."""
    return ERAS[ERAS.index(era_of(first)) : ERAS.index(era_of(last)) + 1]


def likeliest_era(releases: Releases) -> Era:
    """Give the era of a known release, else that of most of the releases that a run may be of.

    They are counted by what is on disk from the first epoch on, and later pictures only rule eras out: a run
    must not change its rules, and so the titles of its curves, while it is reported.
    """
    if releases.known:
        return era_of(releases.first)
    early = [era_of(release).since for release in published_between(*releases.early)]
    eras = eras_between(releases.first, releases.last)
    return max(eras, key=lambda era: (early.count(era.since), era.since))
