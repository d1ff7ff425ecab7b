"""When things happened, from the ``time`` column and from file times.

``time`` is seconds since its process began to train, so it starts over on a resume:

    time      0.5  1.0  1.5 | 0.3  0.8  1.2     results.csv was last written with its last row, so
    process   ----- 1 ------ ------ 2 ------    process 2 began 1.2 s before that; process 1 began when
                                                its first batch was drawn, or else ended when 2 began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from .results_csv import Table

# A naive date may be off by any time zone; a dated one only by how long a checkpoint takes to write.
_ANY_ZONE = timedelta(hours=26)
_SAVING = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Times:
    """When each epoch ended, and how long it took."""

    began: int  # milliseconds since the epoch; when the training began, as nearly as files show
    ended: int  # milliseconds since the epoch; when the last row was written
    at: Mapping[int, int]  # epoch as printed: milliseconds since the epoch
    took: Mapping[int, float]  # epoch as printed: seconds; empty where there is no ``time`` column
    exact: bool  # False: spread evenly, because nothing on disk states when

    @property
    def longest_epoch(self) -> float:
        """Seconds of the longest epoch; of an average one where the rows hold no times."""
        spread = (self.ended - self.began) / 1000 / len(self.at)
        return max(self.took.values(), default=spread)


def last_write(written: int, saved: str | None, since: int = 0, slack: timedelta | None = None) -> int:
    """Give when results.csv was last written, in milliseconds since the epoch.

    That is its modification time, ``written``, unless the newest checkpoint (``saved``: its own ISO date, the
    only time that survives copying) is so much older that the directory must have been copied without its
    times. ``since`` are the milliseconds of training between that checkpoint's row and the last one.
    ``slack`` is how much older it may be; None: an hour, or any time zone where the date has none.
    """
    try:
        date = datetime.fromisoformat(saved.replace("Z", "+00:00")) if saved else None
        stamp = round(date.timestamp() * 1000) + since if date else None
    except (ValueError, OverflowError, OSError):
        return written
    if date is None or stamp is None or stamp <= 0:
        return written
    if slack is None:
        slack = _SAVING if date.tzinfo else _ANY_ZONE
    return stamp if written - stamp > slack.total_seconds() * 1000 else written


def when(rows: Table, written: int, first_batch: int | None) -> Times:
    """Work out the times of all ``rows`` of one training, doubled epochs included; at least one row.

    ``written`` is when the last row was written, ``first_batch`` when the first batch was drawn, both in
    milliseconds since the epoch. Of a doubled epoch the later row counts.
    """
    seconds = rows.column("time")
    if seconds is None or not all(0 <= second < 1e9 for second in seconds):
        return _spread(rows, written, first_batch)
    epochs = [row.epoch for row in rows.rows]
    # a process writes its epochs in order, and later ones later
    starts = [
        i for i in range(len(seconds)) if i == 0 or epochs[i] <= epochs[i - 1] or seconds[i] < seconds[i - 1]
    ]
    at: dict[int, int] = {}
    took: dict[int, float] = {}
    end = written
    bounds = list(zip(starts, [*starts[1:], len(seconds)], strict=True))
    for first, stop in reversed(bounds):
        began = max(0, end - round(seconds[stop - 1] * 1000))  # not before 1970, whatever a row claims
        if first == 0 and stop < len(seconds) and first_batch is not None:
            began = min(began, first_batch)
        for i in range(stop - 1, first - 1, -1):
            epoch = epochs[i]
            if epoch not in at:  # going backwards, so what is there already is the later row
                at[epoch] = began + round(seconds[i] * 1000)
                took[epoch] = seconds[i] - (seconds[i - 1] if i > first else 0.0)
        end = began
    return Times(end, written, at, took, exact=True)


def _spread(rows: Table, written: int, first_batch: int | None) -> Times:
    """Give each epoch an equal share of the time from the first batch to the last row."""
    began = first_batch if first_batch is not None and first_batch < written else written
    share = (written - began) / len(rows.rows)
    at = {row.epoch: began + round(share * i) for i, row in enumerate(rows.rows, start=1)}
    return Times(began, written, at, {}, exact=False)
