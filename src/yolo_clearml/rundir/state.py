"""Whether a training is live, has finished or has stopped; which files are its own, when it last wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import RunUnreadable
from ..events import FileStamp, RunState
from .contents import Contents, read_weights
from .listing import VALIDATED, WEIGHTS, pictures_and_weights
from .relatives import why_foreign
from .run import NotARun, plots_wanted

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

STALE_AFTER = 1800.0  # seconds; an epoch of half an hour is rarer than a training that died
_STALE_EPOCHS = 3  # times the longest epoch so far, where that is longer
_SECOND_NS = 1_000_000_000
_BESIDE_NS = 5 * _SECOND_NS  # between two files of a copy; a training in the same place takes longer to begin


def patience(stale_after: float | None, longest_epoch: float = 0.0) -> float:
    """Give the seconds without a write after which a training counts as dead, by its longest epoch so far."""
    return max(STALE_AFTER, _STALE_EPOCHS * longest_epoch) if stale_after is None else stale_after


def newest_write(held: Contents) -> float:
    """Give when any file of the training was last written, in seconds since the epoch."""
    # where no training can have been begun in another's place, a newer args.yaml was edited by a person
    edited = held.alone and not held.resumed and bool(held.rows.rows)
    edited = edited and held.args_stamp.mtime_ns > held.csv_stamp.mtime_ns
    stamps = (*held.listed.values(), held.args_stamp)
    counted = [stamp for stamp in stamps if not edited or stamp.name != held.args_stamp.name]
    return max(stamp.mtime_ns for stamp in counted) / _SECOND_NS


def before_first_epoch(held: Contents, fresh: bool, dead: float) -> NotARun | None:
    """Give why there is nothing to report where the newest training has no row yet; None where it has.

    ``fresh`` means that something was written a short while ago, so that more may be until ``dead``, in
    seconds since the epoch. Raises RunUnreadable where rows are missing.
    """
    begun_anew = held.args_stamp.mtime_ns - held.csv_stamp.mtime_ns > 60 * _SECOND_NS
    begun_anew = begun_anew and not held.args.get("resume") and not held.alone
    if held.rows.rows and not (begun_anew and fresh):
        return None
    if not held.rows.rows:
        missing = held.without == "is missing"
        foreign = why_foreign(held.path, held.yolov5, held.args) if missing else None
        if foreign is not None:
            return NotARun(held.path, *foreign)
        _raise_if_trained(held, fresh)
    if fresh:
        return NotARun(held.path, "has not finished an epoch yet", "Nothing to report yet.", dead)
    return NotARun(held.path, "died before its first epoch ended", "There is nothing to report.")


def _raise_if_trained(held: Contents, fresh: bool) -> None:
    """Raise RunUnreadable where files of this training show that results.csv had rows."""
    what = f"{held.path / 'results.csv'} {held.without}"
    # what is older than args.yaml is of a training before this one
    since = held.args_stamp.mtime_ns - _SECOND_NS
    own = {name: stamp for name, stamp in held.listed.items() if stamp.mtime_ns >= since}
    saved, _ = read_weights(held.path, own)
    hint = "Restore it as Ultralytics wrote it, then run the same command again."
    if "results.png" in own or any(checkpoint.stripped for checkpoint in saved.values()):
        raise RunUnreadable(f"{what} although the training has finished.", hint)
    # a row is written before the first checkpoint, but after the pictures of a validation
    shown = next((name for name in own if name in WEIGHTS or VALIDATED.fullmatch(name)), None)
    if shown is not None and not fresh:
        raise RunUnreadable(f"{what} although epochs were trained, as {shown} shows.", hint)


def own_files(held: Contents, fit: bool | None) -> tuple[dict[str, FileStamp], list[str]]:
    """Part the pictures and weights of this training from the names of those of one before it."""
    known, since = pictures_and_weights(held.listed), own_since(held, fit)
    old = [] if since is None else sorted(n for n, s in known.items() if s.mtime_ns < since)
    return {n: s for n, s in known.items() if n not in old}, old


def own_since(held: Contents, fit: bool | None) -> int | None:
    """Give the time, in nanoseconds, before which a file is of an earlier training; None: nothing shows that.

    args.yaml is written first, so what is older is not this training's; unless the file times are those of a
    copy: then fewer seconds lie between args.yaml and results.csv than the training took, and the times show
    nothing. Nor do they where a resume has written args.yaml again, or where they do not ``fit``.
    """
    if held.resumed or held.alone or fit is False:
        return None
    seconds = held.rows.column("time")
    least = seconds[-1] * 0.5 if seconds and seconds[-1] == seconds[-1] else 1.0
    if held.csv_stamp.mtime_ns - held.args_stamp.mtime_ns < least * _SECOND_NS:
        return None
    return held.args_stamp.mtime_ns - _SECOND_NS


def last_row_written(held: Contents, own: Mapping[str, FileStamp]) -> int:
    """Give when the last row was written, in nanoseconds since the epoch.

    Where one training alone was in the directory, and once, results.png was drawn after the last row, and a
    newer table was saved again.
    """
    picture, csv = own.get("results.png"), held.csv_stamp
    saved_again = picture is not None and picture.mtime_ns < csv.mtime_ns - _BESIDE_NS
    if picture is not None and saved_again and _drew_once(held):
        return picture.mtime_ns
    return csv.mtime_ns


def _drew_once(held: Contents) -> bool:
    return held.alone and not held.resumed


def state_of(
    held: Contents,
    own: Mapping[str, FileStamp],
    checkpoints: Mapping[str, Checkpoint],
    unfinished: Collection[str],
    *,
    live: bool,
    complete: bool,
    fit: bool | None,
) -> RunState:
    """Finished: every checkpoint is stripped. Without one: results.png, drawn last, is newer than the rows.

    It may be a few seconds older in a copy, and by any time where the table was saved again: where only once
    a training drew there, it is this one's. Else all rows are there, so that it is ``complete``.

    Checkpoints are stripped before the final validation and its plots, so while things are still being
    written and results.png is to come, the training goes on; and so it does while results.png or a
    checkpoint is ``unfinished``, half-written. Death and a pause look alike on disk; only ``live``, a recent
    write, sets them apart.
    """
    if live and any(name in unfinished for name in ("results.png", *WEIGHTS)):
        return RunState.LIVE
    picture, csv = own.get("results.png"), held.csv_stamp
    once = _drew_once(held)
    if picture is not None and not live and not held.resumed and fit is not False:
        once = once or picture.mtime_ns > held.args_stamp.mtime_ns
    drawn = picture is not None and (once or picture.mtime_ns >= csv.mtime_ns)
    if checkpoints:
        stripped = all(checkpoint.stripped for checkpoint in checkpoints.values())
        finished = stripped and (drawn or not live or not plots_wanted(held.args, held.yolov5))
    else:
        beside = picture is not None and csv.mtime_ns - picture.mtime_ns < _BESIDE_NS
        finished = drawn or beside or complete
    if finished:
        return RunState.FINISHED
    return RunState.LIVE if live else RunState.STOPPED
