"""Which runs are meant: patterns as in .gitignore, held against paths below the folder that was given."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from pathspec import PathSpec, Pattern


@dataclass(frozen=True, slots=True)
class Choice:
    """The runs that some pattern of ``include`` fits, or all where there is none, but for ``exclude``.

    A pattern that fits a folder fits all below it, and of several that fit the last one decides. Of a folder
    that was given itself, its name is looked at.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

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


NO_FILE = FileChoice()


def _fits(patterns: tuple[str, ...], path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts if path != root else (root.resolve().name,)
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
