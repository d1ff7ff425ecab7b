"""Files of a run that the callback does not report and a person asks for: more models, and any other."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import RunUnreadable
from ..events import Behind, FileStamp, ModelFile, RunState
from .choice import NO_FILE, FileChoice
from .contents import read_weights, unfit_pictures, with_content
from .exports import epoch_of, model_file
from .files import open_regular, place_of, raise_unless_judged
from .listing import VALIDATED, Listed, list_entry, list_link, listing, parted
from .places import Earlier, LfsPointer, Place, Torn, Unreadable, described, small_file
from .places import follow as follow_link
from .run import Run

_MOST_MEMBERS = 10_000  # files in an exported model; TensorFlow's has about ten
_MOST_ARTIFACTS = 1000  # of a run; its task lists them all in one document, of 16 MiB at the most
# of them and of those that are too many, so that the ledger, which names them, stays small
_MOST_LISTED = 10_000
_OURS = ".yolo-clearml.json"  # how the names of the ledger and of what it is written to begin
_NEVER = ".git"  # a folder of this name is not looked into: it may hold keys, and is no run's
_CHUNK = 2**20  # bytes read at a time


@dataclass(frozen=True, slots=True)
class Further:
    """Which files beyond those that every run is read with."""

    models: frozenset[ModelFile] = frozenset()
    follow: tuple[Path, ...] = ()  # real paths of folders that a link may lead into
    artifacts: FileChoice = NO_FILE
    validations: tuple[Path, ...] = ()  # real paths of directories that `yolo val` left, each of another name

    def listed(self, path: Path) -> tuple[Listed, ...]:
        """List all of them; what changes nothing here changes nothing of what is sent of them."""
        return (*self.models_listed(path), *self.artifacts_listed(path), *self.validations_listed())

    def validations_listed(self) -> tuple[Listed, ...]:
        """List the pictures of validations, each by the name of its directory and its own."""
        found: list[Listed] = []
        for folder in self.validations:
            try:
                pictures = listing(folder, self.follow)
            except RunUnreadable as error:
                found.append((f"{folder.name}/", 0, 0, Unreadable(str(error).rstrip("."))))
                continue
            found += (
                (f"{folder.name}/{name}", size, changed, place or Behind(str(folder), name))
                for name, size, changed, place in pictures
                if VALIDATED.fullmatch(name)
            )
        return tuple(found)

    def concerns(self, name: str) -> bool:
        """Return whether a file of this name, relative to the run directory, may be one of them."""
        return model_file(name) in self.models or (bool(self.artifacts.patterns) and not _is_ours(name))

    def artifacts_listed(self, path: Path) -> tuple[Listed, ...]:
        """List the files that are asked for as artifacts, by name; of far too many the first.

        A link is listed where `listing` would, never what is behind one of a folder. What cannot be listed
        is listed as that.
        """
        if not self.artifacts.patterns:
            return ()
        found: list[Listed] = []
        for name, entry in _below(path, "", found, but=_NEVER):
            if not _is_ours(entry.name) and self.artifacts.takes(name):
                _list_named(path, entry, name, False, self.follow, found)
        return tuple(sorted(found, key=lambda each: each[0])[: _MOST_LISTED + 1])

    def models_listed(self, path: Path) -> tuple[Listed, ...]:
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
                if model_file(name) in self.models - {ModelFile.BEST, ModelFile.LAST}:
                    self._list(path, entry, name, behind, found)
        return tuple(sorted(found))

    def _list(
        self, path: Path, entry: os.DirEntry[str], name: str, behind: bool, found: list[Listed]
    ) -> None:
        if not entry.is_dir(follow_symlinks=False):
            _list_named(path, entry, name, behind, self.follow, found)
            return
        before = len(found)
        # one more than a model may have: that shows that it has too many
        for below, inner in itertools.islice(_below(path, f"{name}/", found), _MOST_MEMBERS + 1):
            _list_named(path, inner, below, behind, self.follow, found)
        if len(found) == before:
            found.append((name, 0, 0, Torn("a folder without files")))


def _below(
    path: Path, start: str, found: list[Listed], but: str = ""
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Give what is no folder in ``start``, which is "" or ends in a slash, and below; with names in the run.

    A folder that cannot be listed is added to ``found`` as that; one called ``but`` is not entered.
    """
    folders = [start]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(path / folder) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield f"{folder}{entry.name}", entry
                    elif entry.name != but:
                        folders.append(f"{folder}{entry.name}/")
        except OSError as cause:
            found.append((folder.rstrip("/") or ".", 0, 0, Unreadable(cause.strerror or str(cause))))


def _list_named(
    path: Path,
    entry: os.DirEntry[str],
    name: str,
    behind: bool,
    follow: Sequence[Path],
    found: list[Listed],
) -> None:
    """List a file that is asked for by its name, or what is in its place, whatever that is."""
    before = len(found)
    if behind:
        list_link(path, name, follow, found)
    else:
        list_entry(path, entry, name, follow, found)
    if len(found) == before and os.path.lexists(path / name):
        found.append((name, 0, 0, Torn("no regular file, so it is not opened")))


def with_further(run: Run, further: Further) -> Run:
    """Add to a run the files that are asked for, once its training has ended; those left out with why."""
    if run.state is RunState.LIVE:
        return run
    run = _with_models(run, further.models_listed(run.path))
    run = _with_artifacts(run, further.artifacts_listed(run.path))
    return _with_validations(run, further.validations_listed())


def _is_ours(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_OURS)


def _is_text(name: str) -> bool:
    return name == name.encode("utf-8", "replace").decode()


def _with_artifacts(run: Run, listed: Sequence[Listed]) -> Run:
    if not listed:
        return run
    stamps, places = parted(listed[:_MOST_ARTIFACTS])
    more = f"beyond the first {_MOST_ARTIFACTS:,} artifacts"
    places |= {name: Torn(more) for name, *_ in listed[_MOST_ARTIFACTS:]}
    if len(listed) > _MOST_LISTED:
        places[listed[-1][0]] = Torn(f"{more}; what comes after it is not sent either")
    files: dict[str, FileStamp] = {}
    for name, stamp in stamps.items():
        if not _is_text(name):
            places[name] = Torn("its name is no text")
            continue
        pointer = small_file(*place_of(run.path, stamp))
        if isinstance(pointer, LfsPointer):
            places[name] = pointer
            continue
        try:
            files[name] = replace(stamp, content=_sha256(run.path, stamp))
        except RunUnreadable as error:
            places[name] = _unreadable(error)
    return _with_places(replace(run, artifacts=files), places)


def _with_validations(run: Run, listed: Sequence[Listed]) -> Run:
    if not listed:
        return run
    stamps, places = parted(listed)
    places |= {name: Torn("its name is no text") for name in stamps if not _is_text(name)}
    places |= unfit_pictures(run.path, {n: s for n, s in stamps.items() if n not in places})
    whole = {name: stamp for name, stamp in stamps.items() if name not in places}
    files, unread = with_content(run.path, whole, finished=True)
    return _with_places(replace(run, validations=files), places | unread)


def _with_places(run: Run, places: Mapping[str, Place]) -> Run:
    fresh = {name: place for name, place in places.items() if name not in run.places}
    unfit = (f"{name}: {described(place)}" for name, place in fresh.items())
    return replace(run, places={**run.places, **fresh}, unfit=tuple(sorted({*run.unfit, *unfit})))


def _with_models(run: Run, listed: Sequence[Listed]) -> Run:
    if not listed:
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
    return _with_places(replace(run, files={**run.files, **files}), places)


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
    if any(not _is_text(member.name) for member in stamp.members):
        return Torn("a folder with a file whose name is no text")
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
        return _unreadable(error)
    return replace(stamp, content=digest)


def _unreadable(error: RunUnreadable) -> Unreadable:
    return Unreadable(getattr(error.__cause__, "strerror", None) or str(error.__cause__))


def _sha256(path: Path, stamp: FileStamp) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(path, stamp):
        digest.update(piece)
    return digest.hexdigest()


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
