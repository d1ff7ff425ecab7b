"""Whether the times of a run's files are those of the training, and what else its dates can rest on.

A copy, a clone and a download give files new times; the ``time`` column and the date inside a checkpoint
survive that. But a checkpoint's date is that of the trainer's own clock, in a container of another zone or on
a node that nobody sets, where file times come from the file server.
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
_ANY_ZONE = timedelta(hours=26)


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
    clock: str | None = None  # what was assumed of two clocks that differ, in words

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
    times that may be its own, is dated by these however wrong the trainer's clock is.
    """
    date = _date(saved)
    slack = _SLACK if date is not None and date.tzinfo else _ANY_ZONE
    if fit is False:
        allowed = _NO_SLACK
    elif fit and fresh:
        allowed = timedelta.max
    else:
        allowed = _ANY_ZONE if fit or fresh else slack
    stamp = last_write(written, saved, since, allowed)
    if stamp != written:
        return Dating(stamp, Dated.CHECKPOINT if date and date.tzinfo else Dated.CHECKPOINT_NAIVE)
    off = None if date is None else timedelta(milliseconds=written - since) - _since_1970(date)
    agree = off is not None and abs(off) <= slack
    if fit is False and not agree:
        return Dating(written, Dated.NOTHING)
    clock = None if off is None or agree else _of_clocks(off)
    return Dating(written, Dated.FILES if fit or agree else Dated.FILES_ALONE, clock)


def _date(saved: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(saved.replace("Z", "+00:00")) if saved else None
    except ValueError:
        return None


def _since_1970(date: datetime) -> timedelta:
    local = date if date.tzinfo else date.replace(tzinfo=timezone.utc)  # any zone is as good
    return local - datetime(1970, 1, 1, tzinfo=timezone.utc)


def _of_clocks(off: timedelta) -> str:
    minutes = round(abs(off) / timedelta(minutes=1))
    how = "behind" if off > timedelta(0) else "ahead of"
    return f"dates free of doubt (the trainer's clock is {minutes} minutes {how} the file times, which count)"
