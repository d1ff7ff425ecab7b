"""Which release of Ultralytics trained a run: as a checkpoint states, or those that everything else leaves.

Without a checkpoint a directory still holds what not every release writes: the names in args.yaml, which are
all of its default.yaml; the shape of results.csv; the names of pictures. Each of these allows some releases,
and what all allow is an interval. What each release has was read off its sources (``releases.json``, written
by tests/releases.py).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from importlib.resources import files
from operator import and_
from typing import TypeAlias

Release: TypeAlias = tuple[int, int, int]

ZERO_BASED_UNTIL: Release = (8, 0, 162)  # first release that prints epochs from 1 on
TIMED_SINCE: Release = (8, 3, 9)  # first release with the column time
BARE_CURVES_UNTIL: Release = (8, 3, 162)  # first release that calls F1_curve.png BoxF1_curve.png
CORRELOGRAM_UNTIL: Release = (8, 3, 187)  # first release without labels_correlogram.jpg
RELATIVE_UNTIL: Release = (8, 3, 193)  # first release that makes save_dir absolute
SEMANTIC_SINCE: Release = (8, 4, 52)  # first release with the task semantic
DEPTH_SINCE: Release = (8, 4, 104)  # first release with the task depth
_CURVES = re.compile(r"(?P<prefix>Box)?(F1|PR|P|R)_curve\.png")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\")
_BARE_TASKS = ("detect", "obb")  # the others have called them Box* and Mask* or Pose* all along
_SHAPE, _NAME = 1000, 1  # weights where it contradicts itself: names are what people and forks change


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases that a run may be of: one that a checkpoint names, or those that what it holds allows."""

    first: Release
    last: Release
    early: tuple[Release, Release]  # first and last that what is there from the first epoch on allows
    known: bool = False  # a checkpoint names it
    contradictory: bool = False  # what the directory holds fits none: any may be it, ``early`` the nearest

    def __str__(self) -> str:
        if self.contradictory:
            return "unknown"
        first, last = ".".join(map(str, self.first)), ".".join(map(str, self.last))
        if self.known or self.first == self.last:
            return first
        oldest, newest = _published()[0], _published()[-1]
        if self.last == newest:
            return "any" if self.first == oldest else f"{first} or later"
        return f"{last} or earlier" if self.first == oldest else f"{first} to {last}"


def parse_release(text: str) -> Release | None:
    """Read ``8.3.100`` (a suffix like ``.dev0`` or ``rc1`` is ignored); None where it is no release."""
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})(?!\d)(?:\.(\d{1,4})(?!\d)|(?!\.\d))", text.strip(), re.ASCII)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def known_release(release: Release) -> Releases:
    """Give the one release that a checkpoint names."""
    return Releases(release, release, (release, release), known=True)


def guess_releases(
    columns: Collection[str], first_epoch: int, arguments: Mapping[str, object], pictures: Collection[str]
) -> Releases:
    """Give the releases that results.csv, args.yaml and the names of pictures allow, as one interval.

    ``first_epoch`` is the number of the first row of results.csv. Where no release has all that is there, as
    in a fork's directory or one of several trainings, the nearest is the one that has most of it.
    """
    early = [
        *((_SHAPE, mask) for mask in _shapes(columns, first_epoch, arguments)),
        *((_NAME, mask) for mask in _names(arguments)),
    ]
    late = [(_SHAPE, mask) for mask in _pictures(arguments, pictures)]
    if interval := _interval(_allowed([*early, *late])):
        return Releases(*interval, early=_interval(_allowed(early)) or interval)
    published = _published()
    scores = [sum(weight for weight, mask in [*early, *late] if mask >> i & 1) for i in range(len(published))]
    nearest = published[max(range(len(published)), key=lambda i: (scores[i], i))]
    return Releases(published[0], published[-1], (nearest, nearest), contradictory=True)


def published_between(first: Release, last: Release) -> list[Release]:
    """Give the published releases from ``first`` to ``last``."""
    return [release for release in _published() if first <= release <= last]


def _allowed(evidence: Sequence[tuple[int, int]]) -> int:
    return reduce(and_, (mask for _, mask in evidence), _all())


def _interval(mask: int) -> tuple[Release, Release] | None:
    inside = [release for i, release in enumerate(_published()) if mask >> i & 1]
    return (inside[0], inside[-1]) if inside else None


def _shapes(columns: Collection[str], first_epoch: int, arguments: Mapping[str, object]) -> list[int]:
    """Give what results.csv and save_dir allow: a release a bit, the oldest the lowest."""
    found = []
    resumed = _resumed(arguments)  # by a later release maybe, and the file goes on as it was begun
    if "time" in columns:
        found.append(_since(TIMED_SINCE))
    elif columns and not resumed:
        found.append(_until(TIMED_SINCE))
    if first_epoch == 0 and not resumed:
        found.append(_until(ZERO_BASED_UNTIL))
    elif first_epoch == 1:
        found.append(_since(ZERO_BASED_UNTIL))
    if (task := arguments.get("task")) in ("semantic", "depth"):
        found.append(_since(SEMANTIC_SINCE if task == "semantic" else DEPTH_SINCE))
    save_dir = arguments.get("save_dir")
    if isinstance(save_dir, str) and save_dir and not _ABSOLUTE.match(save_dir):
        found.append(_until(RELATIVE_UNTIL))
    return found


def _pictures(arguments: Mapping[str, object], pictures: Collection[str]) -> list[int]:
    """Give what the names of pictures allow; most of them are drawn when all epochs have been reported."""
    found = []
    if "labels_correlogram.jpg" in pictures and not _resumed(arguments):
        found.append(_until(CORRELOGRAM_UNTIL))
    if arguments.get("task") in _BARE_TASKS:
        curves = [match for name in pictures if (match := _CURVES.fullmatch(name))]
        if any(match["prefix"] for match in curves):
            found.append(_since(BARE_CURVES_UNTIL))
        if not all(match["prefix"] for match in curves):
            found.append(_until(BARE_CURVES_UNTIL))
    return found


def _names(arguments: Mapping[str, object]) -> list[int]:
    """Give what the names in args.yaml allow.

    All names of the release's default.yaml stand in it, where nobody has shortened it. A training that was
    resumed has those of the release that began it as well (nn/tasks.py puts the checkpoint's arguments over
    its own defaults).
    """
    spans = _arguments()
    whole = all(name in arguments for name, mask in spans.items() if mask == _all())
    resumed = _resumed(arguments)
    found = []
    for name, mask in spans.items():
        if name in arguments:
            found.append(_all() & -(mask & -mask) if resumed else mask)
        elif whole:
            found.append(_all() & ~mask)
    return found


def _resumed(arguments: Mapping[str, object]) -> bool:
    """Return whether it was resumed: older releases write ``resume: false``, and its own last.pt as model."""
    own = f"{arguments.get('save_dir')}/weights/last.pt".replace("\\", "/")
    return bool(arguments.get("resume")) or str(arguments.get("model")).replace("\\", "/").endswith(own)


# -- what is known of all releases -------------------------------------------------------------------------


@cache
def _known() -> tuple[tuple[Release, ...], Mapping[str, Sequence[tuple[str, str | None]]]]:
    """Give the published releases, and for each name the release that brought it and the first without it."""
    stored = json.loads(files(__package__).joinpath("releases.json").read_text(encoding="utf-8"))
    return tuple(map(_release, stored["releases"])), stored["arguments"]


def _release(text: str) -> Release:
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


def _published() -> tuple[Release, ...]:
    return _known()[0]


@cache
def _arguments() -> Mapping[str, int]:
    """Give the releases that have each name: a release a bit, the oldest the lowest."""
    return {
        name: sum(
            _since(_release(first)) & (_until(_release(end)) if end else _all()) for first, end in spans
        )
        for name, spans in _known()[1].items()
    }


def _all() -> int:
    return (1 << len(_published())) - 1


def _since(release: Release) -> int:
    return _all() & ~_until(release)


def _until(release: Release) -> int:
    """Give the releases before ``release``."""
    return (1 << bisect_left(_published(), release)) - 1
