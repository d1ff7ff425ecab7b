"""What stands in the place of a file that should be there, and where a link may lead."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from typing_extensions import assert_never

from ..errors import RunUnreadable
from ..events import Behind
from .files import open_regular

_LARGEST_POINTER = 1024  # bytes; git-lfs takes a larger file for no pointer (docs/spec.md of git-lfs)
_MOST_NAMED = 4  # files in a sentence
_POINTER = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\r?\n"
    rb"(?:[a-z0-9.-]+ [^\r\n]*\r?\n)*?oid [a-z0-9]+:[0-9a-f]+\r?\n(?:.*\n)*?size (?P<size>\d{1,18})\r?\n"
)


@dataclass(frozen=True, slots=True)
class Link:
    """A link that is not followed, because nobody asked for it or because it leads elsewhere."""

    target: str  # as the link itself states
    asked: bool = False  # folders were named that may be followed into, and it leads into none of them


@dataclass(frozen=True, slots=True)
class LfsPointer:
    """What git leaves of a file that git-lfs has not fetched."""

    size: int  # bytes of the file itself


@dataclass(frozen=True, slots=True)
class Empty:
    """A file of no bytes."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A picture beyond any that is drawn."""


@dataclass(frozen=True, slots=True)
class Torn:
    """Half-written, damaged, or something else altogether."""

    reason: str  # as "not a whole picture", "It is damaged"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """It is there and could not be read this time; nothing is known of it."""

    reason: str  # the system's word, as "Permission denied"


@dataclass(frozen=True, slots=True)
class Earlier:
    """A whole file of a training before this one in the same place."""


Place: TypeAlias = "Link | LfsPointer | Empty | TooLarge | Torn | Unreadable | Earlier"  # none: absent


def described(place: Place) -> str:
    """Describe what a file is, as it goes on after its name and a colon."""
    match place:
        case Link(target, asked=False):
            return f"a link to {target}, not followed; --follow-links DIR follows it"
        case Link(target):
            return f"a link to {target}, not followed; it leads into no folder that --follow-links names"
        case LfsPointer():
            return "a git-LFS pointer, not the file; 'git lfs pull' fetches it"
        case Empty():
            return "empty"
        case TooLarge():
            return "too large for a picture"
        case Torn(reason):
            return reason
        case Unreadable(reason):
            return f"cannot be read: {reason}"
        case Earlier():
            return "older than args.yaml, so of an earlier training"
        case _:
            assert_never(place)


def lfs_pointer(data: bytes) -> LfsPointer | None:
    """Recognise the content of a git-LFS pointer; source: docs/spec.md of github.com/git-lfs/git-lfs."""
    match = _POINTER.match(data) if len(data) <= _LARGEST_POINTER else None
    return LfsPointer(int(match["size"])) if match else None


def small_file(root: Path, name: str) -> Place | None:
    """Give whether a file that is not what its name states is empty or a git-LFS pointer; None if neither."""
    try:
        with open_regular(root, name) as file:
            data = file.read(_LARGEST_POINTER + 1)
    except OSError:
        return None
    return lfs_pointer(data) if data else Empty()


def follow(path: Path, folders: Sequence[Path]) -> Behind | None:
    """Follow a path through links into one of ``folders``, which are real paths.

    None where it leads nowhere or elsewhere. What is there may have been replaced by the time it is opened:
    `open_regular` gets from the folder to the file without following anything, so that it opens a file below
    that folder or none.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
    except (OSError, ValueError):
        return None
    inside = next((folder for folder in folders if folder in (real, *real.parents)), None)
    return Behind(str(inside), real.relative_to(inside).as_posix()) if inside is not None else None


def in_place_of(name: str, places: Mapping[str, Place]) -> Place | None:
    """Give what stands in the place of a file or of the folder it should be in; None where nothing does."""
    return places.get(name) or places.get(name.rpartition("/")[0])


def notes(places: Mapping[str, Place]) -> list[str]:
    """Note in sentences which files are links or pointers, and what a person does about it."""
    sentences = []
    links = {name: place for name, place in places.items() if isinstance(place, Link)}
    if links:
        names, one = _named(links), len(links) == 1
        target = next(iter(links.values())).target
        them = "it" if one else "them"
        mend = f"--follow-links DIR follows {them} into DIR."
        if all(link.asked for link in links.values()):
            mend = "No folder that --follow-links names holds what is behind."
        sentences.append(
            f"{names} is a link to {target}, not followed. {mend}"
            if one
            else f"{names} are links, not followed (the first leads to {target}). {mend}"
        )
    pointers = [name for name, place in places.items() if isinstance(place, LfsPointer)]
    if pointers:
        what = (
            "is a git-LFS pointer, not the file"
            if len(pointers) == 1
            else "are git-LFS pointers, not the files"
        )
        them = "it" if len(pointers) == 1 else "them"
        sentences.append(
            f"{_named(pointers)} {what}. 'git lfs pull' fetches {them}; then run the same command again."
        )
    return sentences


def left_out(places: Mapping[str, Place]) -> tuple[str, ...]:
    """Name the files that are this training's and are not sent, each with why, in words."""
    ours = {name: place for name, place in places.items() if not isinstance(place, Earlier)}
    return tuple(f"{name}: {described(place)}" for name, place in sorted(ours.items()))


def unreadable(path: Path, places: Mapping[str, Place]) -> RunUnreadable | None:
    """Make the error of a run whose other files were reported; None where each could be read."""
    found = {name: place.reason for name, place in places.items() if isinstance(place, Unreadable)}
    if not found:
        return None
    reasons = ", ".join(sorted(set(found.values())))
    names = _named([str(path / name) for name in found])
    return RunUnreadable(
        f"{names} cannot be read: {reasons}; nothing else is left out.",
        f"Make {'it' if len(found) == 1 else 'them'} readable, then run the same command again.",
    )


def _named(names: Collection[str]) -> str:
    """Name some files, weights first."""
    ordered = sorted(names, key=lambda name: ("weights" not in name, name))
    if len(ordered) <= _MOST_NAMED:
        *others, last = ordered
        return f"{', '.join(others)} and {last}" if others else last
    return f"{', '.join(ordered[: _MOST_NAMED - 1])} and {len(ordered) - _MOST_NAMED + 1} more"
