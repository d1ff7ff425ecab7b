"""Folders to the run directories below them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeGuard

from .. import system
from ..errors import UsageError
from .choice import EVERY_RUN, Choice
from .listing import ARGUMENT_FILES, TUNING_BEST, TUNING_RESULTS
from .run import NotARun

Found: TypeAlias = "Path | NotARun"

# By these a directory is known as a run's, were it one that died in its setup.
_RUN_FILES = (*ARGUMENT_FILES, "results.csv")
# What other commands of Ultralytics leave in a save_dir and no training does, without args.yaml.
_VALIDATION = "a validation"
_OF_A_RUN = (
    "'yolo-clearml upload DIRECTORY --val-of RUN' puts its pictures into the task of the run it is of."
)
_LEFTOVERS = (
    (_VALIDATION, ("confusion_matrix.png", "val_batch0_pred.jpg", "val_batch0_labels.jpg")),
    ("a hyperparameter search", (TUNING_BEST,)),
)
_PREDICTION = re.compile(r"predict\d*")  # the name Ultralytics gives; of what is in it nothing is sure


@dataclass(frozen=True, slots=True)
class Folder:
    """What one look into a folder shows."""

    found: Found | None  # a run, or what only looks like one
    below: tuple[Path, ...]  # folders that may hold runs, in order of name; none in a run
    listed: bool = True  # False: it cannot be listed, so it may be a run, or hold some
    elsewhere: bool = False  # it is a run, in another part than is meant


def find_runs(paths: Sequence[Path], choice: Choice = EVERY_RUN) -> Iterator[Found]:
    """Find the run directories at or below each path that ``choice`` takes, in order of name, each once.

    Links are not followed and runs not entered. What only looks like a run comes as NotARun; a directory
    that cannot be listed comes as a run, for it may be one, and to read it raises RunUnreadable; it is in
    every part, for it may hold runs of each. Raises UsageError where a path does not exist or is no
    directory.
    """
    given: set[system.Identity] = set()
    whole = replace(choice, shard=None)
    for path in paths:
        require_folder(path)
        # each its own walk: what the patterns leave out below one path, they may take below another
        for place, folder in walk(path, path, whole, set()):
            if folder.found is None or (len(paths) > 1 and _seen_before(place, given)):
                continue
            # only now: below two paths a run has two names, and the first decides for all parts
            if choice.shard is None or not folder.listed or choice.shard.holds(place, path):
                yield folder.found


def _seen_before(place: Path, given: set[system.Identity]) -> bool:
    try:
        identity = system.identity(place)
    except OSError:
        return False  # the visit meets it as well, and reports it
    before = identity in given
    given.add(identity)
    return before


def require_folder(path: Path) -> None:
    """Raise UsageError where a path does not exist or is no directory."""
    hint = "Give a run directory (the save_dir of a training), or a folder above some."
    try:
        if not stat.S_ISDIR(system.reach(path).stat().st_mode):
            raise UsageError(f"{path} is not a directory.", hint)
    except FileNotFoundError as cause:
        raise UsageError(f"{path} does not exist.", hint) from cause
    except (OSError, ValueError) as cause:
        raise UsageError(f"{path} cannot be opened: {getattr(cause, 'strerror', cause)}.", hint) from cause


def walk(
    path: Path,
    root: Path,
    choice: Choice,
    seen: set[system.Identity],
    known: Collection[Path] = (),
) -> Iterator[tuple[Path, Folder]]:
    """Look into a folder and all below it, but for ``known`` runs and what is inside a run.

    ``path`` is ``root`` or below it. A run that ``choice`` does not take looks like an empty folder, and one
    it does not enter is passed over. ``seen`` are the folders looked into so far, by what they are and not by
    name; none is looked into twice.
    """
    waiting = [path]
    while waiting:
        place = waiting.pop()
        if place in known or not choice.enters(place, root):
            continue
        try:
            identity = system.identity(place)
            if identity in seen:
                continue
            seen.add(identity)
            folder = _look_into(place)
        except (FileNotFoundError, NotADirectoryError):  # since its parent was listed
            continue
        except OSError:
            folder = Folder(place, (), listed=False)
        if folder.found is not None and not choice.fits(place, root):
            folder = Folder(None, folder.below)
        elif folder.found is not None and folder.listed and not choice.takes(place, root):
            folder = Folder(None, folder.below, elsewhere=folder.found == place)
        yield place, folder
        waiting += reversed(folder.below)


def _look_into(place: Path) -> Folder:
    with os.scandir(system.reach(place)) as listed:
        entries = list(listed)
    names = {entry.name for entry in entries}
    if not names.isdisjoint(_RUN_FILES):
        return Folder(place, ())
    below = tuple(place / name for name in sorted(e.name for e in entries if system.is_folder(e)))
    if not names.isdisjoint(TUNING_RESULTS):
        return Folder(place, below)
    what = next((what for what, files in _LEFTOVERS if not names.isdisjoint(files)), None)
    if what is None and _PREDICTION.fullmatch(place.name) and len(names) > len(below):
        what = "a prediction"
    if what is None:
        return Folder(None, below)
    hint = _OF_A_RUN if what == _VALIDATION else "Nothing to do."
    return Folder(NotARun(place, f"is {what}, not a training", hint), below)


def is_validation(found: Found | None) -> TypeGuard[NotARun]:
    """Check whether what was found is what ``yolo val`` leaves."""
    return isinstance(found, NotARun) and _VALIDATION in found.reason


def require_validation(path: Path) -> None:
    """Raise UsageError unless a directory is what ``yolo val`` leaves, and holds pictures."""
    require_folder(path)
    try:
        found = _look_into(path).found
    except OSError as cause:
        raise UsageError(f"{path} cannot be listed: {cause.strerror}.", "Make it readable.") from cause
    if not is_validation(found):
        names = ", ".join(dict(_LEFTOVERS)[_VALIDATION])
        raise UsageError(
            f"{path} is not what 'yolo val' leaves.",
            f"With --val-of, give directories of validations: they hold some of {names}, and no results.csv.",
        )


def run_around(path: Path, root: Path) -> Path | None:
    """Give the run that ``path``, which lies below ``root`` or is it, belongs to: the outermost one."""
    place = root
    for part in ("", *path.relative_to(root).parts):
        place = place / part
        if any(os.path.lexists(system.reach(place / name)) for name in (*_RUN_FILES, *TUNING_RESULTS)):
            return place
    return None
