"""What a directory turned out to be: a Run, a frozen snapshot of everything the rules need, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..events import FileStamp, RunState
from .dating import Dated
from .places import Place
from .relatives import Relative
from .release import Releases
from .results_csv import Table
from .times import Times

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Trial:
    """A training that a tuning is shown to have begun."""

    place: str  # from the folder that the tuning lies in, with forward slashes
    key: str  # see identity.py, as the next
    first_rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a folder of `model.tune()` holds beside its rows."""

    asked: int | None  # iterations; None: nothing shows it
    best: Mapping[str, object]  # hyperparameters; empty where there are none yet
    best_iteration: int | None  # as printed, from 1
    trials: tuple[Trial, ...]  # that are on disk


@dataclass(frozen=True, slots=True)
class Run:
    """Everything known about one training, read from its directory and from nowhere else."""

    path: Path
    args: Mapping[str, object]  # args.yaml, or opt.yaml of YOLOv5
    hyp: Mapping[str, object]  # hyp.yaml of YOLOv5, else empty
    yolov5: bool
    releases: Releases  # one that a checkpoint names, else those that it may be
    state: RunState
    first_row: bytes  # of results.csv, of the newest training in it
    table: Table  # of the newest training, one row per epoch
    earlier_rows: int  # of older trainings in the same file
    times: Times
    copied: bool  # without its file times, so that they show nothing
    again: float | None  # seconds since the epoch; when it counts as dead, if nothing is written by then
    relative: Relative | None  # whose trainer wrote it, if not that of a release whose callback is known
    best: Checkpoint | None
    last: Checkpoint | None
    files: Mapping[str, FileStamp]  # whole pictures and weights that belong to this training
    unfit: tuple[str, ...]  # files left out, each with why, in words
    places: Mapping[str, Place]  # the same for programs; a key "weights" is a link in place of that folder
    repeated: frozenset[int] = frozenset()  # epochs that stand in results.csv more than once
    dated: Dated = Dated.FILES  # what the times rest on
    clock: str | None = None  # what was assumed of zones and of clocks that differ, in words
    artifacts: Mapping[str, FileStamp] = field(default_factory=dict)  # further files that were asked for
    validations: Mapping[str, FileStamp] = field(default_factory=dict)  # pictures, by folder and name
    tuning: Tuning | None = None  # then it is no training, and a row is an iteration
    since: int | None = None  # nanoseconds; files older are of an earlier training; None: nothing shows that


@dataclass(frozen=True, slots=True)
class NotARun:
    """A directory with nothing to report, and why."""

    path: Path
    reason: str
    hint: str
    again: float | None = None  # seconds since the epoch; when time alone makes something else of it


def plots_wanted(args: Mapping[str, object], yolov5: bool) -> bool:
    """Return whether the training was asked to draw pictures, results.png the last of them."""
    return not args.get("noplots", False) if yolov5 else bool(args.get("plots", True))
