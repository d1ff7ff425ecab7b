"""Which files of a directory a run may be made of, without opening one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from .. import system
from ..errors import RunGone, RunUnreadable
from ..events import Behind, FileStamp
from .places import Link, Place, Torn, Unreadable
from .places import follow as follow_link

_MOST_PICTURES = 500  # a run has about 30

_PICTURE = re.compile(
    r"(train_batch[0-2]|val.*|labels|labels_correlogram)\.jpg"
    r"|(results|confusion_matrix|confusion_matrix_normalized|iou_bar_chart|.*_curve)\.png",
    re.DOTALL,
)
VALIDATED = re.compile(r"(val.*|confusion_matrix.*|iou_bar_chart|.*_curve)\.(jpg|png)", re.DOTALL)
WEIGHTS = ("weights/best.pt", "weights/last.pt")
ARGUMENT_FILES = ("args.yaml", "opt.yaml")
# what `model.tune()` leaves (ultralytics/engine/tuner.py): to 8.4.36 the second, from 8.4.37 on the first
TUNING_RESULTS = ("tune_results.ndjson", "tune_results.csv")
TUNING_BEST = "best_hyperparameters.yaml"
TUNING_PICTURES = ("tune_fitness.png", "tune_scatter_plots.png")
_DATA_FILES = frozenset(
    {
        *(*WEIGHTS, *ARGUMENT_FILES, "hyp.yaml", "results.csv"),
        *(*TUNING_RESULTS, TUNING_BEST, *TUNING_PICTURES),
    }
)


# name within the run, size in bytes, mtime in nanoseconds; where it is behind a link, or what is in its place
Listed: TypeAlias = "tuple[str, int, int, Behind | Link | Torn | Unreadable | None]"


def listing(path: Path, follow: Sequence[Path] = ()) -> tuple[Listed, ...]:
    """List the files a run may be made of, from two directory listings and a stat each; sorted by name.

    Links are followed into the folders ``follow``, real paths, alone. What Ultralytics did not write is left
    out. Of more than 500 pictures the first by name are listed. Raises RunUnreadable.
    """
    found: list[Listed] = []
    weights = False
    try:
        with os.scandir(system.reach(path)) as entries:
            for entry in entries:
                if is_of_a_run(entry.name):
                    list_entry(path, entry, entry.name, follow, found)
                elif entry.name == "weights":
                    weights = system.is_folder(entry)
                    if system.is_link(entry):
                        _list_behind(path, follow, found)
        if weights:
            _list_weights(path, follow, found)
    except FileNotFoundError as cause:
        raise RunGone(f"{path} is not there any more.", "Give the path it has now.") from cause
    except OSError as cause:
        raise RunUnreadable(
            f"{path} cannot be listed: {cause.strerror}.", "Check that it is a directory that you may read."
        ) from cause
    found.sort()
    if len(found) <= _MOST_PICTURES:
        return tuple(found)
    pictures = [listed for listed in found if _is_picture(listed[0])]
    left_off = set(pictures[_MOST_PICTURES:])
    return tuple(listed for listed in found if listed not in left_off)


def list_entry(
    path: Path, entry: os.DirEntry[str], name: str, follow: Sequence[Path], found: list[Listed]
) -> None:
    """List a regular file as ``name``, or what is in its place; nothing where it is neither."""
    try:
        status = system.status_of(entry)
    except FileNotFoundError:  # a live run replaces files
        return
    except OSError as cause:
        found.append((name, 0, 0, Unreadable(cause.strerror or str(cause))))
        return
    if stat.S_ISREG(status.st_mode):
        found.append((name, status.st_size, status.st_mtime_ns, None))
    elif stat.S_ISLNK(status.st_mode):
        list_link(path, name, follow, found)


def _list_weights(path: Path, follow: Sequence[Path], found: list[Listed]) -> None:
    try:
        with os.scandir(system.reach(path / "weights")) as entries:
            for entry in entries:
                if (name := f"weights/{entry.name}") in WEIGHTS:
                    list_entry(path, entry, name, follow, found)
    except FileNotFoundError:
        raise
    except OSError as cause:
        found.append(("weights", 0, 0, Unreadable(cause.strerror or str(cause))))


def list_link(path: Path, name: str, follow: Sequence[Path], found: list[Listed]) -> None:
    """List what is behind a link where it may be followed, and else the link, whose target is not touched."""
    try:
        behind = follow_link(path / name, follow) if follow else None
        if behind is None:
            found.append((name, 0, 0, Link(_target(path / name), asked=bool(follow))))
            return
        status = os.lstat(os.path.join(behind.folder, behind.name))  # noqa: PTH118
    except OSError:  # since it was listed
        return
    if stat.S_ISREG(status.st_mode):
        found.append((name, status.st_size, status.st_mtime_ns, behind))


def _target(path: Path) -> str:
    """Where a link leads by its own text; of a file in a folder that is a link, where that does."""
    return str((path if path.is_symlink() else path.parent).readlink())


def _list_behind(path: Path, follow: Sequence[Path], found: list[Listed]) -> None:
    """List the weights behind a link in place of their folder, or else that link."""
    if follow and follow_link(path / "weights", follow) is not None:
        for name in WEIGHTS:
            if os.path.lexists(system.reach(path / name)):
                list_link(path, name, follow, found)
        return
    with contextlib.suppress(OSError):  # since it was listed
        target = str((path / "weights").readlink())
        found.append(("weights", 0, 0, Link(target, asked=bool(follow))))


def is_of_a_run(name: str) -> bool:
    """Return whether what is reported depends on a file of this name, relative to the run directory."""
    return name in _DATA_FILES or _is_picture(name)


def _is_picture(name: str) -> bool:
    return "/" not in name and _PICTURE.fullmatch(name) is not None


def parted(listed: Sequence[Listed]) -> tuple[dict[str, FileStamp], dict[str, Place]]:
    """Part the files of a run from what stands in the place of some."""
    stamps: dict[str, FileStamp] = {}
    places: dict[str, Place] = {}
    for name, size, mtime_ns, link in listed:
        if isinstance(link, (Link, Torn, Unreadable)):
            places[name] = link
        else:
            stamps[name] = FileStamp(name, size, mtime_ns, behind=link)
    return stamps, places


def pictures_and_weights(listed: Mapping[str, FileStamp]) -> dict[str, FileStamp]:
    """Give the pictures and weights among files, of whichever training."""
    return {n: s for n, s in listed.items() if _PICTURE.fullmatch(n) or n in WEIGHTS}
