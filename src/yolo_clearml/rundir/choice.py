"""Which runs are meant: patterns as in .gitignore, and parts, by path below the folder that was given."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from pathspec import PathSpec, Pattern


_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``of`` parts, counted from 1: each run is in one of them, and stays there.

    Its part follows from its path below the folder that was given, of a run that was given itself from its
    name; so neither what else there is nor where a disk is mounted has a say. Upper and lower case are the
    same, and so are the ways to write an accent: file systems and mounts differ in these.
    """

    part: int
    of: int

    def __post_init__(self) -> None:
        """Check the numbers; raises UsageError."""
        if not 1 <= self.part <= self.of:
            raise UsageError(f"There is no part {self.part} of {self.of}.", _SHARD_FORM)

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/4``, the second of four parts; raises UsageError."""
        numbers = _SHARD.fullmatch(text)
        if numbers is None:
            raise UsageError(f"{text!r} names no part.", _SHARD_FORM)
        return cls(int(numbers[1]), int(numbers[2]))

    def holds(self, place: Path, root: Path) -> bool:
        """Return whether ``place``, which is ``root`` or below it, is in this part."""
        # the bytes on disk, whatever this machine's locale makes of them
        name = os.fsencode("/".join(_parts(place, root))).decode("utf-8", "surrogateescape")
        same = unicodedata.normalize("NFC", name).casefold().encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.sha256(same).digest()[:8], "big") % self.of == self.part - 1


_SHARD_FORM = (
    "Write I/N, counted from 1, as 1/4 to 4/4; a variable of the shell in it that is not set counts as empty."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The runs that some pattern of ``include`` fits, or all where there is none, but for ``exclude``.

    A pattern that fits a folder fits all below it, and of several that fit the last one decides. Of a folder
    that was given itself, its name is looked at. With a ``shard``, of these runs those of that part.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard: Shard | None = None

    def __post_init__(self) -> None:
        """Check the patterns; raises UsageError."""
        for patterns in filter(None, (self.include, self.exclude)):
            try:
                _spec(patterns)
            except (ValueError, re.error) as cause:  # of the second kind is '[z-a]'
                raise UsageError(
                    f"{', '.join(patterns)} is no pattern: {cause}.",
                    "Write --include and --exclude as a line of .gitignore, such as 'train*'.",
                ) from cause

    def enters(self, folder: Path, root: Path) -> bool:
        """Return whether a run may be meant in ``folder``, which is ``root`` or below it."""
        return folder == root or not self.exclude or not _fits(self.exclude, folder, root)

    def takes(self, run: Path, root: Path) -> bool:
        """Return whether a run is meant that is ``root`` or below it."""
        return self.fits(run, root) and (self.shard is None or self.shard.holds(run, root))

    def fits(self, run: Path, root: Path) -> bool:
        """Return whether the patterns mean a run that is ``root`` or below it, whichever part it is in."""
        included = not self.include or _fits(self.include, run, root)
        return included and not (self.exclude and _fits(self.exclude, run, root))


EVERY_RUN = Choice()


@dataclass(frozen=True, slots=True)
class FileChoice:
    """Files below a run that some pattern fits, as in .gitignore; by default none."""

    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the patterns; raises UsageError."""
        try:
            if self.patterns:
                _spec(self.patterns)
        except (ValueError, re.error) as cause:
            raise UsageError(
                f"{', '.join(self.patterns)} is no pattern: {cause}.",
                "Write --artifacts as a line of .gitignore, such as '*.json'.",
            ) from cause

    def takes(self, name: str) -> bool:
        """Return whether a file is meant, by its name within the run."""
        return bool(self.patterns) and _spec(self.patterns).match_file(name)

    def fitting_none(self, names: Collection[str]) -> tuple[str, ...]:
        """Give the patterns that mean files and fit none of these, by their names within the run."""
        specs = {pattern: _spec((pattern,)) for pattern in self.patterns}
        asking = {name: spec for name, spec in specs.items() if any(each.include for each in spec.patterns)}
        return tuple(name for name, spec in asking.items() if not any(map(spec.match_file, names)))


NO_FILE = FileChoice()


def _parts(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts if path != root else (root.resolve().name,)


def _fits(patterns: tuple[str, ...], path: Path, root: Path) -> bool:
    parts = _parts(path, root)
    # one by one, for 'a/*' fits the folder a/b and not by itself what is below it
    places = ["".join(f"{part}/" for part in parts[:depth]) for depth in range(len(parts), 0, -1)]
    for pattern in reversed(_spec(patterns).patterns):
        if pattern.include is not None and any(map(pattern.match_file, places)):
            return bool(pattern.include)
    return False


@lru_cache
def _spec(patterns: tuple[str, ...]) -> PathSpec[Pattern]:
    from pathspec import PathSpec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of '[[', about a Python that is not there yet
        return PathSpec.from_lines("gitignore", patterns)
