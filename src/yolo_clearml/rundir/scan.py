"""A save_dir to a Run, a frozen snapshot of everything the rules need."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import RunGone, RunUnreadable
from ..events import Behind, FileStamp, RunState
from .dating import Dated, dated, file_times_fit
from .ending import is_complete, is_resumed, is_the_only_one
from .files import (
    LARGEST_PICTURE,
    content_digest,
    is_judged,
    is_whole_picture,
    place_of,
    read_bounded,
)
from .mixed import whose_rows
from .places import (
    Earlier,
    Empty,
    LfsPointer,
    Link,
    Place,
    TooLarge,
    Torn,
    Unreadable,
    described,
    in_place_of,
    lfs_pointer,
    notes,
    small_file,
)
from .places import follow as follow_link
from .relatives import Relative, relative_of, why_foreign
from .release import Releases, guess_releases, known_release, parse_release
from .results_csv import Table, last_stretch, latest_rows, parse
from .times import Times, when

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

STALE_AFTER = 1800.0  # seconds; an epoch of half an hour is rarer than a training that died
_STALE_EPOCHS = 3  # times the longest epoch so far, where that is longer
_MOST_RESULTS = 2**23  # bytes; 8 MiB is 40,000 epochs
_MOST_LINES = 100_000  # of results.csv; empty or short ones would take fifty times their size
_MOST_CELLS = 1_000_000  # of results.csv
_MOST_PICTURES = 500  # a run has about 30
_SECOND_NS = 1_000_000_000
_MS_NS = 1_000_000
_BESIDE_NS = 5 * _SECOND_NS  # between two files of a copy; a training in the same place takes longer to begin

_PICTURE = re.compile(
    r"(train_batch[0-2]|val.*|labels|labels_correlogram)\.jpg"
    r"|(results|confusion_matrix|confusion_matrix_normalized|.*_curve)\.png",
    re.DOTALL,
)
_VALIDATED = re.compile(r"(val.*|confusion_matrix.*|.*_curve)\.(jpg|png)", re.DOTALL)
_WEIGHTS = ("weights/best.pt", "weights/last.pt")
ARGUMENT_FILES = ("args.yaml", "opt.yaml")
_DATA_FILES = frozenset({*_WEIGHTS, *ARGUMENT_FILES, "hyp.yaml", "results.csv"})


# name within the run, size in bytes, mtime in nanoseconds; where it is behind a link, or what is in its place
Listed: TypeAlias = "tuple[str, int, int, Behind | Link | Unreadable | None]"


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
    copied: bool  # without its file times, so that they say nothing
    again: float | None  # seconds since the epoch; when it counts as dead, if nothing is written by then
    relative: Relative | None  # whose trainer wrote it, if not that of a release whose callback is known
    best: Checkpoint | None
    last: Checkpoint | None
    files: Mapping[str, FileStamp]  # whole pictures and weights that belong to this training
    unfit: tuple[str, ...]  # files left out, each with why, in words
    places: Mapping[str, Place]  # the same for programs; a key "weights" is a link in place of that folder
    repeated: frozenset[int] = frozenset()  # epochs that stand in results.csv more than once
    dated: Dated = Dated.FILES  # what the times rest on
    clock: str | None = None  # what was assumed of two clocks that differ, in words


@dataclass(frozen=True, slots=True)
class NotARun:
    """A directory with nothing to report, and why."""

    path: Path
    reason: str
    hint: str
    again: float | None = None  # seconds since the epoch; when time alone makes something else of it


def listing(path: Path, follow: Sequence[Path] = ()) -> tuple[Listed, ...]:
    """List the files a run may be made of, from two directory listings and a stat each; sorted by name.

    Links are followed into the folders ``follow``, real paths, alone. What Ultralytics did not write is left
    out. Of more than 500 pictures the first by name are listed. Raises RunUnreadable.
    """
    found: list[Listed] = []
    weights = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_of_a_run(entry.name):
                    _list(path, entry, entry.name, follow, found)
                elif entry.name == "weights":
                    weights = entry.is_dir(follow_symlinks=False)
                    if entry.is_symlink():
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


def _list(
    path: Path, entry: os.DirEntry[str], name: str, follow: Sequence[Path], found: list[Listed]
) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # a live run replaces files
        return
    except OSError as cause:
        found.append((name, 0, 0, Unreadable(cause.strerror or str(cause))))
        return
    if stat.S_ISREG(status.st_mode):
        found.append((name, status.st_size, status.st_mtime_ns, None))
    elif stat.S_ISLNK(status.st_mode):
        _list_link(path, name, follow, found)


def _list_weights(path: Path, follow: Sequence[Path], found: list[Listed]) -> None:
    try:
        with os.scandir(path / "weights") as entries:
            for entry in entries:
                if (name := f"weights/{entry.name}") in _WEIGHTS:
                    _list(path, entry, name, follow, found)
    except FileNotFoundError:
        raise
    except OSError as cause:
        found.append(("weights", 0, 0, Unreadable(cause.strerror or str(cause))))


def _list_link(path: Path, name: str, follow: Sequence[Path], found: list[Listed]) -> None:
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
    """Where a link says it leads; of a file in a folder that is a link, where that does."""
    return str((path if path.is_symlink() else path.parent).readlink())


def _list_behind(path: Path, follow: Sequence[Path], found: list[Listed]) -> None:
    """List the weights behind a link in place of their folder, or else that link."""
    if follow and follow_link(path / "weights", follow) is not None:
        for name in _WEIGHTS:
            if os.path.lexists(path / name):
                _list_link(path, name, follow, found)
        return
    with contextlib.suppress(OSError):  # since it was listed
        target = str((path / "weights").readlink())
        found.append(("weights", 0, 0, Link(target, asked=bool(follow))))


def is_of_a_run(name: str) -> bool:
    """Tell whether a file of this name, relative to the run directory, has a say in what is reported."""
    return name in _DATA_FILES or _is_picture(name)


def _is_picture(name: str) -> bool:
    return "/" not in name and _PICTURE.fullmatch(name) is not None


def plots_wanted(args: Mapping[str, object], yolov5: bool) -> bool:
    """Tell whether the training was asked to draw pictures, results.png the last of them."""
    return not args.get("noplots", False) if yolov5 else bool(args.get("plots", True))


def scan(
    path: Path, now: float, stale_after: float | None = None, follow: Sequence[Path] = ()
) -> Run | NotARun:
    """Read one run directory.

    ``now`` is seconds since the epoch, ``stale_after`` the seconds after which an unfinished run that
    nothing has written to has died; None: half an hour, or three of its longest epochs. Links are followed
    into the folders ``follow``, real paths, alone. Raises RunUnreadable.
    """
    listed, places = _stamps(listing(path, follow))
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
        there = "holds no epoch" if data else "is empty"
    except FileNotFoundError:
        data, csv_stamp, there = b"", args_stamp, "is missing"
    if lfs_pointer(data) is not None:
        raise RunUnreadable(
            f"{path / 'results.csv'} is a git-LFS pointer, not the table.",
            "'git lfs pull' fetches it; then run the same command again.",
        )
    lines, cells = data.count(b"\n"), data.count(b",")
    if lines > _MOST_LINES or cells > _MOST_CELLS:
        raise RunUnreadable(
            f"{path / 'results.csv'} holds more than {_MOST_LINES:,} lines or {_MOST_CELLS:,} values.",
            "This is not a file Ultralytics writes; look at what is in it.",
        )
    everything = parse(data)
    if lines and not everything.columns:
        raise RunUnreadable(
            f"{path / 'results.csv'} is not a table that begins with the column 'epoch'.",
            "Restore the file as Ultralytics wrote it, then run the same command again.",
        )
    if everything.malformed and not everything.rows:
        raise RunUnreadable(
            f"{path / 'results.csv'} holds no row that can be read.",
            "Restore the file as Ultralytics wrote it, then run the same command again.",
        )
    stretch, earlier = last_stretch(everything)
    resumed = is_resumed(path, args, listed, args_stamp.mtime_ns)
    alone = is_the_only_one(args, earlier)
    # where no training can have been begun in another's place, a newer args.yaml was edited by a person
    edited = alone and not resumed and bool(stretch.rows) and args_stamp.mtime_ns > csv_stamp.mtime_ns
    stamps = [
        stamp for stamp in (*listed.values(), args_stamp) if not edited or stamp.name != args_stamp.name
    ]
    newest = max(stamp.mtime_ns for stamp in stamps) / _SECOND_NS
    patience = stale_after if stale_after is not None else STALE_AFTER
    fresh = now - newest < patience
    begun_anew = args_stamp.mtime_ns - csv_stamp.mtime_ns > 60 * _SECOND_NS
    begun_anew = begun_anew and not args.get("resume") and not alone
    if not stretch.rows:
        foreign = why_foreign(path, yolov5, args) if there == "is missing" else None
        if foreign is not None:
            return NotARun(path, *foreign)
        _raise_if_trained(path, listed, args_stamp, f"{path / 'results.csv'} {there}", fresh)
    if not stretch.rows or (begun_anew and fresh):
        if fresh:
            return NotARun(path, "has not finished an epoch yet", "Nothing to report yet.", newest + patience)
        return NotARun(path, "died before its first epoch ended", "There is nothing to report.")

    second = earlier > 0 or args_stamp.mtime_ns > csv_stamp.mtime_ns
    mixed = whose_rows(everything, args, second)
    if mixed is not None:
        raise RunUnreadable(f"{path / 'results.csv'} {mixed[0]}.", mixed[1])
    fit = file_times_fit(listed, args_stamp, csv_stamp, stretch, resumed)
    if resumed or alone or fit is False:
        own = _of_a_run(listed)
    else:
        own, earlier_files = _own_files(listed, args_stamp, csv_stamp, stretch)
        places |= dict.fromkeys(earlier_files, Earlier())
    checkpoints: dict[str, Checkpoint] = {}
    for name in _WEIGHTS:
        if name in own:
            saved, place = _checkpoint(path, own[name])
            if saved is not None:
                checkpoints[name] = saved
            if place is not None:
                places[name] = place
    places |= {n: p for n, s in own.items() if n not in _WEIGHTS and (p := _picture(path, s)) is not None}
    best, last = (checkpoints.get(name) for name in _WEIGHTS)
    versions = [c.release for c in (last, best) if c and c.release]
    release = next((r for v in versions if (r := parse_release(v)) and r[0] == 8), None)
    strange = versions[0] if versions and release is None else None
    relative = relative_of(yolov5, stretch.columns, args, strange)
    if yolov5:
        releases = replace(known_release((7, 0, 0)), known=relative is None)
    elif release is not None:
        releases = known_release(release)
    else:
        releases = guess_releases(stretch.columns, stretch.rows[0].epoch, args, own)
    batch = own.get("train_batch0.jpg", args_stamp)
    end = _last_row(own, csv_stamp, alone and not resumed) // _MS_NS
    times = when(stretch, end, batch.mtime_ns // _MS_NS)
    newer = last or best
    dating = dated(end, newer.date if newer else None, _since(newer, stretch, times), fit, fresh)
    if dating.copied:
        times = when(stretch, dating.written, None)
    moved = dating.written != end  # to the date of a checkpoint
    if stale_after is None:
        patience = max(patience, _STALE_EPOCHS * times.longest_epoch)
    dead = (dating.written / 1000 if moved else newest) + patience
    unfinished = [n for n in own if isinstance(places.get(n), (Torn, Empty))]
    # where git-lfs has yet to fetch the weights nothing trains, however new the clone is
    cloned = not checkpoints and any(isinstance(place, LfsPointer) for place in places.values())
    rows, live = latest_rows(stretch), now < dead and not cloned
    complete = is_complete(rows, args) and not (live and fit is not False)
    once = alone and not resumed
    if not live and not resumed and fit is not False and "results.png" in own:
        once = once or own["results.png"].mtime_ns > args_stamp.mtime_ns
    state = _state(
        own,
        checkpoints,
        csv_stamp,
        live,
        plots_wanted(args, yolov5),
        unfinished,
        once=once,
        complete=complete,
    )
    if state is RunState.LIVE and not checkpoints and args.get("save", True) and not yolov5:
        # the release decides the titles, and the checkpoint that names it follows the first row at once
        return _without_release(path, places, dead)
    files, unread = _with_content(path, {n: s for n, s in own.items() if n not in places}, state)
    places |= unread
    if state is RunState.LIVE:
        # what is half-written now will be whole next time
        places = {n: p for n, p in places.items() if not isinstance(p, (Torn, Empty, TooLarge))}
    return Run(
        path=path,
        args=args,
        hyp=hyp,
        yolov5=yolov5,
        releases=releases,
        state=state,
        first_row=stretch.rows[0].raw.strip(),
        table=rows,
        earlier_rows=earlier,
        times=times,
        copied=dating.copied,
        again=dead if state is RunState.LIVE else None,
        relative=relative,
        best=best,
        last=last,
        files=files,
        unfit=tuple(sorted(f"{name}: {described(place)}" for name, place in places.items())),
        places=places,
        repeated=frozenset(
            epoch for epoch, count in Counter(r.epoch for r in stretch.rows).items() if count > 1
        ),
        dated=dating.rests_on,
        clock=dating.clock,
    )


def _stamps(listed: Sequence[Listed]) -> tuple[dict[str, FileStamp], dict[str, Place]]:
    """Part the files of a run from what stands in the place of some."""
    stamps: dict[str, FileStamp] = {}
    places: dict[str, Place] = {}
    for name, size, mtime_ns, link in listed:
        if isinstance(link, (Link, Unreadable)):
            places[name] = link
        else:
            stamps[name] = FileStamp(name, size, mtime_ns, behind=link)
    return stamps, places


def _source(
    path: Path, name: str, listed: Mapping[str, FileStamp], places: Mapping[str, Place]
) -> tuple[Path, str]:
    """Say where a file is to be read without which nothing can be reported; raises RunUnreadable."""
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


def _checkpoint(path: Path, stamp: FileStamp) -> tuple[Checkpoint | None, Place | None]:
    """Read a checkpoint, or say what is in its place."""
    from .checkpoint import CheckpointUnreadable, read_checkpoint  # here, as in `scan`

    root, name = place_of(path, stamp)
    try:
        return read_checkpoint(root / name, root), None
    except CheckpointUnreadable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not is_judged(cause):
            return None, Unreadable(cause.strerror or str(cause))
        return None, small_file(root, name) or Torn(error.reason.rstrip("."))


def _picture(path: Path, stamp: FileStamp) -> Place | None:
    """Say what is in the place of a picture that is none; None where it is whole."""
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


def _without_release(path: Path, places: Mapping[str, Place], dead: float) -> NotARun:
    """Say why a live run is not reported yet; raises RunUnreadable."""
    found = {
        name: place for name in _WEIGHTS if (place := in_place_of(name, places)) not in (None, Earlier())
    }
    for name, place in found.items():
        if isinstance(place, Unreadable):
            raise RunUnreadable(
                f"{path / name} cannot be read: {place.reason}.",
                "Make it readable, then run the same command again.",
            )
    links = notes({n: p for n, p in places.items() if n in ("weights", *_WEIGHTS) and isinstance(p, Link)})
    what = "checkpoint that can be read" if found else "checkpoint"
    hint = " ".join(links) or "It is looked at again next time."
    return NotARun(path, f"has no {what} yet", hint, dead)


def _raise_if_trained(
    path: Path, listed: Mapping[str, FileStamp], args: FileStamp, what: str, fresh: bool
) -> None:
    """Raise RunUnreadable where files of this training show that it had rows; ``what`` it has for them."""
    # what is older than args.yaml is of a training before this one
    own = {name: stamp for name, stamp in listed.items() if stamp.mtime_ns >= args.mtime_ns - _SECOND_NS}
    saved = [_checkpoint(path, own[name])[0] for name in _WEIGHTS if name in own]
    hint = "Restore it as Ultralytics wrote it, then run the same command again."
    if "results.png" in own or any(checkpoint is not None and checkpoint.stripped for checkpoint in saved):
        raise RunUnreadable(f"{what} although the training has finished.", hint)
    # a row is written before the first checkpoint, but after the pictures of a validation
    shown = next((name for name in own if name in _WEIGHTS or _VALIDATED.fullmatch(name)), None)
    if shown is not None and not fresh:
        raise RunUnreadable(f"{what} although epochs were trained, as {shown} shows.", hint)


def _last_row(own: Mapping[str, FileStamp], csv: FileStamp, once: bool) -> int:
    """Say when the last row was written, in nanoseconds since the epoch.

    Where one training was ``once``, results.png was drawn after it, and a newer table was saved again.
    """
    picture = own.get("results.png")
    again = once and picture is not None and picture.mtime_ns < csv.mtime_ns - _BESIDE_NS
    return picture.mtime_ns if picture is not None and again else csv.mtime_ns


def _since(saved: Checkpoint | None, rows: Table, times: Times) -> int:
    """Give the milliseconds from a checkpoint's row to the last one.

    While an epoch is on, its row may lie long after the newest checkpoint.
    """
    if saved is None or saved.epoch is None or saved.epoch < 0:
        return 0
    first = 0 if rows.rows[0].epoch == 0 else 1
    return times.ended - times.at.get(saved.epoch + first, times.ended)


def _of_a_run(listed: Mapping[str, FileStamp]) -> dict[str, FileStamp]:
    return {n: s for n, s in listed.items() if _PICTURE.fullmatch(n) or n in _WEIGHTS}


def _own_files(
    listed: Mapping[str, FileStamp], args: FileStamp, csv: FileStamp, rows: Table
) -> tuple[dict[str, FileStamp], list[str]]:
    """Tell the pictures and weights of this training from those of one before it in the same place.

    args.yaml is written first, so what is older is not this training's; unless the file times are those of a
    copy: then fewer seconds lie between args.yaml and results.csv than the training took, and the times say
    nothing.
    """
    known = _of_a_run(listed)
    seconds = rows.column("time")
    least = seconds[-1] * 0.5 if seconds and seconds[-1] == seconds[-1] else 1.0
    if csv.mtime_ns - args.mtime_ns < least * _SECOND_NS:
        return known, []
    old = sorted(n for n, s in known.items() if s.mtime_ns < args.mtime_ns - _SECOND_NS)
    own = {n: s for n, s in known.items() if n not in old}
    return own, old


def _state(
    own: Mapping[str, FileStamp],
    checkpoints: Mapping[str, Checkpoint],
    csv: FileStamp,
    live: bool,
    draws: bool,
    unfinished: Sequence[str],
    *,
    once: bool,
    complete: bool,
) -> RunState:
    """Finished: every checkpoint is stripped. Without one: results.png, drawn last, is newer than the rows.

    It may be a few seconds older in a copy, and by any time where the table was saved again: where only
    ``once`` a training drew there, it is this one's. Else all rows are there, so that it is ``complete``.

    Checkpoints are stripped before the final validation and its plots, so while things are still being
    written and results.png is to come, the training goes on; and so it does while results.png or a
    checkpoint is ``unfinished``, half-written. Death and a pause look alike on disk; only ``live``, a recent
    write, tells them apart.
    """
    picture = own.get("results.png")
    drawn = picture is not None and (once or picture.mtime_ns >= csv.mtime_ns)
    if live and any(name in unfinished for name in ("results.png", *_WEIGHTS)):
        return RunState.LIVE
    if checkpoints:
        stripped = all(checkpoint.stripped for checkpoint in checkpoints.values())
        finished = stripped and (drawn or not draws or not live)
    else:
        beside = picture is not None and csv.mtime_ns - picture.mtime_ns < _BESIDE_NS
        finished = drawn or beside or complete
    if finished:
        return RunState.FINISHED
    return RunState.LIVE if live else RunState.STOPPED


def _with_content(
    path: Path, files: Mapping[str, FileStamp], state: RunState
) -> tuple[dict[str, FileStamp], dict[str, Place]]:
    """Tell files by their content, but for weights that are still changing; and those that refuse it."""
    read: dict[str, FileStamp] = {}
    unread: dict[str, Place] = {}
    for name, stamp in files.items():
        try:
            told = name not in _WEIGHTS or state is RunState.FINISHED
            read[name] = replace(stamp, content=content_digest(*place_of(path, stamp))) if told else stamp
        except RunUnreadable as error:
            unread[name] = _unreadable(error)
    return read, unread
