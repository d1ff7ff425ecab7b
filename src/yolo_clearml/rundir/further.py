"""Files of a run that the callback does not report and a person asks for: more models."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import RunUnreadable
from ..events import FileStamp, ModelFile, RunState
from .contents import read_weights
from .exports import epoch_of, model_file
from .files import open_regular, place_of, raise_unless_judged
from .listing import Listed, list_entry, list_link, parted
from .places import Earlier, Place, Torn, Unreadable, described, small_file
from .places import follow as follow_link
from .run import Run

_MOST_MEMBERS = 10_000  # files in an exported model; TensorFlow's has about ten
_CHUNK = 2**20  # bytes read at a time


@dataclass(frozen=True, slots=True)
class Further:
    """Which files beyond those that every run is read with."""

    models: frozenset[ModelFile] = frozenset()
    follow: tuple[Path, ...] = ()  # real paths of folders that a link may lead into

    def concerns(self, name: str) -> bool:
        """Return whether a file of this name, relative to the run directory, may be one of them."""
        return model_file(name) in self.models

    def listed(self, path: Path) -> tuple[Listed, ...]:
        """List them, sorted by name; those of a folder one by one. Links are followed as `listing` does."""
        if not self.models & {ModelFile.PERIODIC, ModelFile.EXPORTS}:
            return ()
        found: list[Listed] = []
        behind = (path / "weights").is_symlink()
        if behind and (not self.follow or follow_link(path / "weights", self.follow) is None):
            return ()  # that it is a link, the run's own listing has
        # an error the run's own listing meets too
        with contextlib.suppress(OSError), os.scandir(path / "weights") as entries:
            for entry in entries:
                name = f"weights/{entry.name}"
                if self.concerns(name) and model_file(name) not in (ModelFile.BEST, ModelFile.LAST):
                    self._list(path, entry, name, behind, found)
        return tuple(sorted(found))

    def _list(
        self, path: Path, entry: os.DirEntry[str], name: str, behind: bool, found: list[Listed]
    ) -> None:
        if not entry.is_dir(follow_symlinks=False):
            _list_one(path, entry, name, behind, self.follow, found)
            return
        folders, count = [name], 0
        while folders and count <= _MOST_MEMBERS:
            folder = folders.pop()
            try:
                with os.scandir(path / folder) as entries:
                    for inner in entries:
                        below = f"{folder}/{inner.name}"
                        if inner.is_dir(follow_symlinks=False):
                            folders.append(below)
                        else:
                            count += 1
                            _list_one(path, inner, below, behind, self.follow, found)
            except OSError as cause:
                found.append((folder, 0, 0, Unreadable(cause.strerror or str(cause))))


def _list_one(
    path: Path,
    entry: os.DirEntry[str],
    name: str,
    behind: bool,
    follow: Sequence[Path],
    found: list[Listed],
) -> None:
    if behind:
        list_link(path, name, follow, found)
    else:
        list_entry(path, entry, name, follow, found)


def with_further(run: Run, listed: Sequence[Listed]) -> Run:
    """Add to a run the files that were asked for, once its training has ended; those left out with why."""
    if run.state is RunState.LIVE or not listed:
        return run
    stamps, places = parted(listed)
    files: dict[str, FileStamp] = {}
    for name, members in _grouped(stamps).items():
        inside = [other for other in places if other == name or other.startswith(f"{name}/")]
        if inside:
            continue  # named one by one: half of a model is none
        whole = FileStamp(name, sum(m.size for m in members), max(m.mtime_ns for m in members))
        stamp = replace(whole, members=tuple(members)) if members[0].name != name else members[0]
        judged = _judged(run, stamp)
        if isinstance(judged, FileStamp):
            files[name] = judged
        else:
            places[name] = judged
    unfit = (f"{name}: {described(place)}" for name, place in places.items())
    return replace(
        run,
        files={**run.files, **files},
        places={**run.places, **places},
        unfit=tuple(sorted({*run.unfit, *unfit})),
    )


def _grouped(stamps: Mapping[str, FileStamp]) -> dict[str, list[FileStamp]]:
    """Collect the files of each model: of a folder all that lie below it."""
    models: dict[str, list[FileStamp]] = {}
    for name, stamp in stamps.items():
        models.setdefault("/".join(name.split("/")[:2]), []).append(stamp)
    return models


def _judged(run: Run, stamp: FileStamp) -> FileStamp | Place:
    """Give a model with its content, or what it is in its place."""
    if len(stamp.members) > _MOST_MEMBERS:
        return Torn(f"a folder of more than {_MOST_MEMBERS:,} files")
    if run.since is not None and stamp.mtime_ns < run.since:
        return Earlier()
    if epoch_of(stamp.name) is not None:
        torn = read_weights(run.path, {stamp.name: stamp}, (stamp.name,))[1]
        if torn:
            return torn[stamp.name]
    elif not stamp.members and (found := small_file(*place_of(run.path, stamp))) is not None:
        return found
    try:
        digest = _digest(run.path, stamp)
    except RunUnreadable as error:
        return Unreadable(getattr(error.__cause__, "strerror", None) or str(error.__cause__))
    return replace(stamp, content=digest)


def _digest(path: Path, stamp: FileStamp) -> str:
    """Digest every byte, for but a checkpoint's end states nothing of the rest: 16 hex digits.

    Raises RunUnreadable where it cannot be read.
    """
    digest = hashlib.sha256()
    for member in stamp.members or (stamp,):
        digest.update(f"{member.name}\0{member.size}\0".encode("utf-8", "surrogateescape"))
        for piece in _pieces(path, member):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _pieces(path: Path, stamp: FileStamp) -> Iterator[bytes]:
    root, name = place_of(path, stamp)
    try:
        with open_regular(root, name) as file:
            while piece := file.read(_CHUNK):
                yield piece
    except OSError as cause:
        raise_unless_judged(root / name, cause)


NOTHING = Further()  # beyond those files
