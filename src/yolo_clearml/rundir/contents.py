"""What a run directory holds, read but not judged: its files, its arguments, its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunUnreadable
from ..events import FileStamp
from .ending import is_resumed, is_the_only_one
from .files import LARGEST_PICTURE, content_digest, is_judged, is_whole_picture, place_of, read_bounded
from .listing import WEIGHTS, listing, parted
from .places import Place, TooLarge, Torn, Unreadable, described, lfs_pointer, small_file
from .results_csv import Table, last_stretch, parse

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_MOST_RESULTS = 2**23  # bytes; 8 MiB is 40,000 epochs
_MOST_LINES = 100_000  # of results.csv; empty or short ones would take fifty times their size
_MOST_CELLS = 1_000_000  # of results.csv


@dataclass(frozen=True, slots=True)
class Contents:
    """A run directory as it was read; times are those of its files."""

    path: Path
    listed: Mapping[str, FileStamp]
    places: Mapping[str, Place]  # what stands in the place of files
    yolov5: bool
    args: Mapping[str, object]  # args.yaml, or opt.yaml of YOLOv5
    args_stamp: FileStamp
    hyp: Mapping[str, object]  # hyp.yaml of YOLOv5, else empty
    csv_stamp: FileStamp  # of args.yaml where there is no results.csv
    without: str  # what results.csv is where it has no row, as it goes on after its name
    everything: Table  # all of results.csv
    rows: Table  # those of the newest training in it; none before its first epoch
    earlier_rows: int  # of older trainings in the same file
    resumed: bool  # args.yaml was written again, by a resume
    alone: bool  # nothing in the directory can be of a training before this one


def read_contents(path: Path, follow: Sequence[Path]) -> Contents:
    """Read the text files of a run directory and list the others; raises RunUnreadable."""
    listed, places = parted(listing(path, follow))
    yolov5 = not any("args.yaml" in there for there in (listed, places)) and "opt.yaml" in {
        **listed,
        **places,
    }
    # here: most runs are all there, and this takes longer to import than it takes to see that
    from .arguments import read_arguments

    args, args_stamp = read_arguments(*_source(path, "opt.yaml" if yolov5 else "args.yaml", listed, places))
    with_hyp = yolov5 and ("hyp.yaml" in listed or "hyp.yaml" in places)
    hyp = read_arguments(*_source(path, "hyp.yaml", listed, places))[0] if with_hyp else {}
    try:
        data, csv_stamp = read_bounded(*_source(path, "results.csv", listed, places), _MOST_RESULTS)
        without = "holds no epoch" if data else "is empty"
    except FileNotFoundError:
        data, csv_stamp, without = b"", args_stamp, "is missing"
    everything = _table(path / "results.csv", data)
    rows, earlier = last_stretch(everything)
    return Contents(
        path=path,
        listed=listed,
        places=places,
        yolov5=yolov5,
        args=args,
        args_stamp=args_stamp,
        hyp=hyp,
        csv_stamp=csv_stamp,
        without=without,
        everything=everything,
        rows=rows,
        earlier_rows=earlier,
        resumed=is_resumed(path, args, listed, args_stamp.mtime_ns),
        alone=is_the_only_one(args, earlier),
    )


def _source(
    path: Path, name: str, listed: Mapping[str, FileStamp], places: Mapping[str, Place]
) -> tuple[Path, str]:
    """Give where a file is to be read without which nothing can be reported; raises RunUnreadable."""
    if isinstance(place := places.get(name), Unreadable):
        raise RunUnreadable(
            f"{path / name} cannot be read: {place.reason}.",
            "Make it readable, then run the same command again.",
        )
    if place is not None:
        raise RunUnreadable(
            f"{path / name} cannot be read: it is {described(place)}.",
            "Nothing can be reported without it: let the link be followed, or put the file in its place.",
        )
    return place_of(path, listed[name]) if name in listed else (path, name)


def _table(path: Path, data: bytes) -> Table:
    """Parse all of results.csv; raises RunUnreadable where it is none."""
    if lfs_pointer(data) is not None:
        raise RunUnreadable(
            f"{path} is a git-LFS pointer, not the table.",
            "'git lfs pull' fetches it; then run the same command again.",
        )
    lines, cells = data.count(b"\n"), data.count(b",")
    if lines > _MOST_LINES or cells > _MOST_CELLS:
        raise RunUnreadable(
            f"{path} holds more than {_MOST_LINES:,} lines or {_MOST_CELLS:,} values.",
            "This is not a file Ultralytics writes; look at what is in it.",
        )
    everything = parse(data)
    restore = "Restore the file as Ultralytics wrote it, then run the same command again."
    if lines and not everything.columns:
        raise RunUnreadable(f"{path} is not a table that begins with the column 'epoch'.", restore)
    if everything.malformed and not everything.rows:
        raise RunUnreadable(f"{path} holds no row that can be read.", restore)
    return everything


def read_weights(
    path: Path, files: Mapping[str, FileStamp], names: Sequence[str] = WEIGHTS
) -> tuple[dict[str, Checkpoint], dict[str, Place]]:
    """Read checkpoints among ``files``, and give what stands in the place of those that are none."""
    # here, as in `read_contents`
    from .checkpoint import CheckpointUnreadable, read_checkpoint

    checkpoints: dict[str, Checkpoint] = {}
    places: dict[str, Place] = {}
    for name in names:
        if name not in files:
            continue
        root, real = place_of(path, files[name])
        try:
            checkpoints[name] = read_checkpoint(root / real, root)
        except CheckpointUnreadable as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and not is_judged(cause):
                places[name] = Unreadable(cause.strerror or str(cause))
            else:
                places[name] = small_file(root, real) or Torn(error.reason.rstrip("."))
    return checkpoints, places


def unfit_pictures(path: Path, files: Mapping[str, FileStamp]) -> dict[str, Place]:
    """Give what stands in the place of those pictures among ``files`` that are none."""
    found = {name: _picture(path, stamp) for name, stamp in files.items() if name not in WEIGHTS}
    return {name: place for name, place in found.items() if place is not None}


def _picture(path: Path, stamp: FileStamp) -> Place | None:
    root, name = place_of(path, stamp)
    try:
        if is_whole_picture(root, name, stamp.name):
            return None
    except RunUnreadable as error:
        return _unreadable(error)
    return (
        TooLarge() if stamp.size > LARGEST_PICTURE else small_file(root, name) or Torn("not a whole picture")
    )


def _unreadable(error: RunUnreadable) -> Unreadable:
    return Unreadable(getattr(error.__cause__, "strerror", None) or str(error.__cause__))


def with_content(
    path: Path, files: Mapping[str, FileStamp], finished: bool
) -> tuple[dict[str, FileStamp], dict[str, Place]]:
    """Stamp files with a digest of their content, but for weights until the run has ``finished``.

    These are still changing. Gives as well what stands in the place of files that cannot be read.
    """
    stamped: dict[str, FileStamp] = {}
    unread: dict[str, Place] = {}
    for name, stamp in files.items():
        try:
            settled = finished or name not in WEIGHTS
            stamped[name] = (
                replace(stamp, content=content_digest(*place_of(path, stamp))) if settled else stamp
            )
        except RunUnreadable as error:
            unread[name] = _unreadable(error)
    return stamped, unread
