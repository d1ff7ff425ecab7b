"""A save_dir to a Run, a frozen snapshot of everything the rules need."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .dating import Dated, dated, file_times_fit
from .ending import is_complete, is_resumed, is_the_only_one
from .eras import Release, guess_release, parse_release
from .errors import RunGone, RunUnreadable
from .events import FileStamp, RunState
from .files import LARGEST_PICTURE, content_digest, is_whole_picture, raise_unless_judged, read_bounded
from .mixed import whose_rows
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
_WEIGHTS = ("weights/best.pt", "weights/last.pt")
ARGUMENT_FILES = ("args.yaml", "opt.yaml")
_DATA_FILES = frozenset({*_WEIGHTS, *ARGUMENT_FILES, "hyp.yaml", "results.csv"})


Listed: TypeAlias = "tuple[str, int, int]"  # name within the run, size in bytes, mtime in nanoseconds


@dataclass(frozen=True, slots=True)
class Run:
    """Everything known about one training, read from its directory and from nowhere else."""

    path: Path
    args: Mapping[str, object]  # args.yaml, or opt.yaml of YOLOv5
    hyp: Mapping[str, object]  # hyp.yaml of YOLOv5, else empty
    yolov5: bool
    release: Release
    release_known: bool  # from a checkpoint; False: guessed
    state: RunState
    first_row: bytes  # of results.csv, of the newest training in it
    table: Table  # of the newest training, one row per epoch
    earlier_rows: int  # of older trainings in the same file
    times: Times
    copied: bool  # without its file times, so that they say nothing
    again: float | None  # seconds since the epoch; when it counts as dead, if nothing is written by then
    best: Checkpoint | None
    last: Checkpoint | None
    files: Mapping[str, FileStamp]  # whole pictures and weights that belong to this training
    unfit: tuple[str, ...]  # files left out, each with why, in words
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


def listing(path: Path) -> tuple[Listed, ...]:
    """List the files a run may be made of, from two directory listings and a stat each; sorted by name.

    Links are left out, so is everything Ultralytics did not write. Of more than 500 pictures the first by
    name are listed. Raises RunUnreadable.
    """
    found: list[Listed] = []
    weights = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_of_a_run(entry.name):
                    _list(entry, entry.name, found)
                elif entry.name == "weights":
                    weights = entry.is_dir(follow_symlinks=False)
        if weights:
            with os.scandir(path / "weights") as entries:
                for entry in entries:
                    if (name := f"weights/{entry.name}") in _WEIGHTS:
                        _list(entry, name, found)
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


def _list(entry: os.DirEntry[str], name: str, found: list[Listed]) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # a live run replaces files
        return
    if stat.S_ISREG(status.st_mode):
        found.append((name, status.st_size, status.st_mtime_ns))


def is_of_a_run(name: str) -> bool:
    """Tell whether a file of this name, relative to the run directory, has a say in what is reported."""
    return name in _DATA_FILES or _is_picture(name)


def _is_picture(name: str) -> bool:
    return "/" not in name and _PICTURE.fullmatch(name) is not None


def plots_wanted(args: Mapping[str, object], yolov5: bool) -> bool:
    """Tell whether the training was asked to draw pictures, results.png the last of them."""
    return not args.get("noplots", False) if yolov5 else bool(args.get("plots", True))


def scan(path: Path, now: float, stale_after: float | None = None) -> Run | NotARun:
    """Read one run directory.

    ``now`` is seconds since the epoch, ``stale_after`` the seconds after which an unfinished run that
    nothing has written to has died; None: half an hour, or three of its longest epochs. Raises
    RunUnreadable.
    """
    listed = {name: FileStamp(name, size, mtime_ns) for name, size, mtime_ns in listing(path)}
    yolov5 = "args.yaml" not in listed and "opt.yaml" in listed
    # here: most runs are all there, and this takes longer to import than it takes to see that
    from .arguments import read_arguments

    args, args_stamp = read_arguments(path, "opt.yaml" if yolov5 else "args.yaml")
    hyp = read_arguments(path, "hyp.yaml")[0] if yolov5 and "hyp.yaml" in listed else {}
    try:
        data, csv_stamp = read_bounded(path, "results.csv", _MOST_RESULTS)
        there = "holds no epoch" if data else "is empty"
    except FileNotFoundError:
        data, csv_stamp, there = b"", args_stamp, "is missing"
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
        _raise_if_trained(path, listed, args_stamp, f"{path / 'results.csv'} {there}")
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
        own, earlier_files = _of_a_run(listed), list[str]()
    else:
        own, earlier_files = _own_files(listed, args_stamp, csv_stamp, stretch)
    unfit = list(earlier_files)
    checkpoints: dict[str, Checkpoint] = {}
    for name in _WEIGHTS:
        if name in own:
            saved = _checkpoint(path, name)
            if isinstance(saved, str):
                unfit.append(f"{name}: {saved}")
            else:
                checkpoints[name] = saved
    best, last = (checkpoints.get(name) for name in _WEIGHTS)
    release = next((r for c in (last, best) if c and c.release and (r := parse_release(c.release))), None)
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
    half = sorted(n for n in own if n not in _WEIGHTS and not is_whole_picture(path, n))
    broken = [n for n in own if n in _WEIGHTS and n not in checkpoints]
    rows, live = latest_rows(stretch), now < dead
    complete = is_complete(rows, args) and not (live and fit is not False)
    once = alone and not resumed
    if not live and not resumed and fit is not False and "results.png" in own:
        once = once or own["results.png"].mtime_ns > args_stamp.mtime_ns
    unfinished = [*half, *broken]
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
        what = "checkpoint that can be read" if broken else "checkpoint"
        return NotARun(path, f"has no {what} yet", "It is looked at again next time.", dead)
    if state is RunState.LIVE:
        unfit = earlier_files  # what is half-written now will be whole next time
    else:
        unfit += [f"{n}: {_why_unfit(own[n].size)}" for n in half]
    return Run(
        path=path,
        args=args,
        hyp=hyp,
        yolov5=yolov5,
        release=(7, 0, 0) if yolov5 else release or guess_release(stretch.columns, args),
        release_known=yolov5 or release is not None,
        state=state,
        first_row=stretch.rows[0].raw.strip(),
        table=rows,
        earlier_rows=earlier,
        times=times,
        copied=dating.copied,
        again=dead if state is RunState.LIVE else None,
        best=best,
        last=last,
        files=_with_content(path, {n: s for n, s in own.items() if n not in half}, state),
        unfit=tuple(sorted(unfit)),
        repeated=frozenset(
            epoch for epoch, count in Counter(r.epoch for r in stretch.rows).items() if count > 1
        ),
        dated=dating.rests_on,
        clock=dating.clock,
    )


def _checkpoint(path: Path, name: str) -> Checkpoint | str:
    """Read a checkpoint, or say what is wrong with it; raises RunUnreadable."""
    from .checkpoint import CheckpointUnreadable, read_checkpoint  # here, as in `scan`

    try:
        return read_checkpoint(path / name, path)
    except CheckpointUnreadable as error:
        if isinstance(error.__cause__, OSError):
            raise_unless_judged(path / name, error.__cause__)
        return error.reason.rstrip(".")


def _raise_if_trained(path: Path, listed: Mapping[str, FileStamp], args: FileStamp, what: str) -> None:
    """Raise RunUnreadable where a checkpoint of this training says it finished; ``what`` it has for rows."""
    for name in _WEIGHTS:
        # what is older than args.yaml is of a training before this one
        if name not in listed or listed[name].mtime_ns < args.mtime_ns - _SECOND_NS:
            continue
        saved = _checkpoint(path, name)
        if not isinstance(saved, str) and saved.stripped:
            raise RunUnreadable(
                f"{what} although the training has finished.",
                "Restore it as Ultralytics wrote it, then run the same command again.",
            )


def _why_unfit(size: int) -> str:
    if size > LARGEST_PICTURE:
        return "too large for a picture"
    return "empty" if size == 0 else "not a whole picture"


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
    return own, [f"{name}: older than args.yaml, so of an earlier training" for name in old]


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


def _with_content(path: Path, files: Mapping[str, FileStamp], state: RunState) -> dict[str, FileStamp]:
    """Tell files by their content, but for weights that are still changing."""
    read = {n for n in files if n not in _WEIGHTS or state is RunState.FINISHED}
    return {n: replace(s, content=content_digest(path, n)) if n in read else s for n, s in files.items()}
