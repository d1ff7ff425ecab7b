"""Whether the times of a run's files are those of the training, and what else its dates can rest on.

A copy, a clone and a download give files new times; the ``time`` column and the date inside a checkpoint
survive that. But a checkpoint's date is that of the trainer's own clock, in a container of another zone or on
a node that nobody sets, where file times come from the file server. Before 8.4.190, and in YOLOv5, it has no
zone either; then it is read in the one that fits the file times best.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum

from ..events import FileStamp
from .results_csv import Table
from .times import last_write

_SECOND_NS = 1_000_000_000
_MS_NS = 1_000_000
_FIRST_BATCHES = tuple(f"train_batch{number}.jpg" for number in range(3))
_BEFORE_YOLO = 1_420_070_400 * _SECOND_NS  # 2015; zips without dates give 1980, others 1970
_CONCLUSIVE = 10.0  # seconds; a shorter training may be copied as slowly as it was trained
_AT_ONCE = 1.0  # seconds; no training of two epochs is as short
_LATE = 1.0  # seconds; pictures are drawn beside the training
_NO_SLACK = timedelta(0)
_SLACK = timedelta(hours=1)  # between a checkpoint's date and its file's time, where nothing is odd
_WRONG_CLOCK = timedelta(hours=26)  # a day, or the two zones that are farthest apart
# every offset from UTC that was in force anywhere since 2020, as the time zone database has it
_ZONES = tuple(
    timedelta(hours=hours)
    for hours in (
        *(-12, -11, -10, -9.5, -9, -8, -7, -6, -5, -4, -3.5, -3, -2.5, -2, -1, 0, 1, 2, 3, 3.5, 4, 4.5, 5),
        *(5.5, 5.75, 6, 6.5, 7, 8, 8.75, 9, 9.5, 10, 10.5, 11, 12, 12.75, 13, 13.75, 14),
    )
)


class Dated(Enum):
    """What the times of a training rest on; the value is how that is worded."""

    FILES = ""  # file times, and something beside them that fits
    FILES_ALONE = "by file times alone"
    CHECKPOINT = "by the date in the checkpoint"
    CHECKPOINT_NAIVE = "by the date in the checkpoint, read in this machine's time zone"
    NOTHING = "the files have the times of a copy"


@dataclass(frozen=True, slots=True)
class Dating:
    """When results.csv was last written, and how sure that is."""

    written: int  # milliseconds since the epoch
    rests_on: Dated
    clock: str | None = None  # what was assumed of zones and of clocks that differ, in words

    @property
    def copied(self) -> bool:
        """Whether file times show nothing."""
        return self.rests_on not in (Dated.FILES, Dated.FILES_ALONE)


def file_times_fit(
    stamps: Mapping[str, FileStamp], args: FileStamp, csv: FileStamp, rows: Table, resumed: bool
) -> bool | None:
    """Return whether file times can be those of the training; None where nothing shows it.

    args.yaml is written before the first epoch, the first batches are drawn within it, results.csv is written
    at the end of the last one. So a training lies between the oldest and the newest file. ``rows`` are all
    of it, at least one; ``resumed`` means that args.yaml was written again.
    """
    if csv.mtime_ns < _BEFORE_YOLO:
        return False
    batches = [stamps[name] for name in _FIRST_BATCHES if name in stamps]
    if not resumed and any(b.mtime_ns > csv.mtime_ns + _LATE * _SECOND_NS for b in batches):
        return False
    times = [stamp.mtime_ns for name, stamp in stamps.items() if name not in (args.name, csv.name)]
    times += [stamp.mtime_ns for stamp in (args, csv) if stamp.mtime_ns <= csv.mtime_ns]  # or it was edited
    span = (max(times) - min(times)) / _SECOND_NS
    took = _seconds(rows, resumed)
    if took is None:
        return False if len(rows.rows) > 1 and span < _AT_ONCE else None
    if took < _CONCLUSIVE:
        return None
    return span >= took / 2


def _seconds(rows: Table, resumed: bool) -> float | None:
    """Give how long the training took, at least; of a resumed one its last process."""
    seconds = rows.column("time")
    if not seconds or not all(0 <= second < 1e9 for second in seconds):
        return None
    ends = [a for a, b in itertools.pairwise(seconds) if b < a]
    return seconds[-1] if resumed else sum(ends) + seconds[-1]


def dated(written: int, saved: str | None, since: int, fit: bool | None, fresh: bool) -> Dating:
    """Judge when results.csv was last written, by its file time and by the date in a checkpoint.

    ``written``, ``saved`` and ``since`` are those of `times.last_write`, ``fit`` is that of `file_times_fit`,
    ``fresh`` means that something was written a short while ago. A run that is being written to, at file
    times that may be its own, is dated by these however wrong the trainer's clock is. A date without a zone
    is read in the one in which it fits ``written`` best; where that shows nothing, in this machine's.
    """
    date = _date(saved)
    off, zone = _off(date, timedelta(milliseconds=written - since))
    if fit is False:
        allowed = _NO_SLACK
    elif fit and fresh:
        allowed = timedelta.max
    else:
        allowed = _WRONG_CLOCK if fit or fresh else _SLACK
    if date is None or zone is None or fit is False:  # no zone fits the times of a copy
        read = saved
    else:
        read = date.replace(tzinfo=timezone(zone)).isoformat()
    if last_write(written, read, since, allowed) != written:
        naive = date is not None and date.tzinfo is None
        stamp = last_write(written, saved, since, _NO_SLACK)
        return Dating(stamp, Dated.CHECKPOINT_NAIVE if naive else Dated.CHECKPOINT)
    agree = off is not None and abs(off) <= _SLACK
    if fit is False and not agree:
        return Dating(written, Dated.NOTHING)
    if off is None:
        clock = None
    elif agree:
        clock = _of_zone(zone)
    else:
        clock = _of_clocks(off, zone)
    return Dating(written, Dated.FILES if fit or agree else Dated.FILES_ALONE, clock)


def taken_for_stopped(dating: Dating) -> str:
    """State why a run counts as stopped whose files are new: they are a copy's, and its checkpoint is old."""
    date = datetime.fromtimestamp(dating.written / 1000, timezone.utc).isoformat(timespec="seconds")
    return (
        "whether it is still training (its files are new, as a copy's are, and"
        f" {dating.rests_on.value} it last wrote at {date}; so it counts as stopped)"
    )


def _date(saved: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(saved.replace("Z", "+00:00")) if saved else None
    except ValueError:
        return None


def _off(date: datetime | None, file_time: timedelta) -> tuple[timedelta | None, timedelta | None]:
    """Give how far a date lies before a file time since 1970, and the zone it was read in if it has none."""
    if date is None:
        return None, None
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    if date.tzinfo is not None:
        return file_time - (date - epoch), None
    off = file_time - (date.replace(tzinfo=timezone.utc) - epoch)
    zone = min(_ZONES, key=lambda zone: abs(off + zone))
    return off + zone, zone


def _of_zone(zone: timedelta | None) -> str | None:
    if not zone:  # it has one, or fits as it stands
        return None
    name = timezone(zone).tzname(None)
    return f"the time zone of the checkpoint's date (read as {name}, where it fits the file times best)"


def _of_clocks(off: timedelta, zone: timedelta | None) -> str:
    least = "" if zone is None else "at least "  # as in the zone that is nearest
    minutes = round(abs(off) / timedelta(minutes=1))
    how = f"{least}{minutes} minutes {'behind' if off > timedelta(0) else 'ahead of'}"
    return f"dates free of doubt (the trainer's clock is {how} the file times, which count)"
