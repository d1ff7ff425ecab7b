"""What a directory shows of how a training went: that it was resumed, that it came to its end.

Checkpoints show it best, and most directories that people share have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..events import FileStamp
from .fitness import EVER, fitness
from .results_csv import Table

_FIRST_BATCH = "train_batch0.jpg"
_HOUR = 3600.0  # seconds
_CLOCK = 1.0  # seconds; a row holds the time at which it was begun, the limit is looked at a little later


def is_the_only_one(args: Mapping[str, object], earlier: int) -> bool:
    """Return whether nothing in a directory can be of a training before this one.

    Ultralytics and YOLOv5 give each training a place of its own, unless ``exist_ok`` or ``save_dir`` ask for
    one; ``earlier`` rows in results.csv show that it was so.
    """
    return args.get("exist_ok") is False and not earlier


def is_resumed(path: Path, args: Mapping[str, object], listed: Mapping[str, FileStamp], since: int) -> bool:
    """Return whether args.yaml was written again, ``since`` nanoseconds since the epoch, by a resume.

    From 8.1.41 on ``resume`` names the checkpoint. Before, and in none later, ``resume`` is as it was and
    ``model`` is the run's own checkpoint. A new training from there, in the same place, states the same, but
    it draws its first batch again, which a resume does not.
    """
    if args.get("resume"):
        return True
    model = PurePosixPath(str(args.get("model")).replace("\\", "/"))
    if model.suffix != ".pt" or model.parent.name != "weights":
        return False
    stated = PurePosixPath(str(args.get("save_dir") or "").replace("\\", "/"))
    own = any(
        _same_place(model.parent.parent, place)
        for place in (stated, PurePosixPath(path.absolute().as_posix()))
    )
    drawn = listed.get(_FIRST_BATCH)
    return own and (drawn is None or drawn.mtime_ns < since)


def _same_place(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Compare two paths, either of which may be relative to an unknown place."""
    ends = min(len(one.parts), len(other.parts))
    return ends > 0 and one.parts[-ends:] == other.parts[-ends:]


def is_complete(rows: Table, args: Mapping[str, object]) -> bool:
    """Return whether the rows alone, one per epoch, show that the training had no more epochs to come."""
    return _has_all_epochs(rows, args) or _ran_out_of_time(rows, args) or _ran_out_of_patience(rows, args)


def _has_all_epochs(rows: Table, args: Mapping[str, object]) -> bool:
    wanted = args.get("epochs")
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1 or args.get("time"):
        return False
    first = min(rows.rows[0].epoch, 1)  # zero-based in older releases
    return rows.rows[-1].epoch - first + 1 >= wanted


def _ran_out_of_time(rows: Table, args: Mapping[str, object]) -> bool:
    hours, seconds = args.get("time"), rows.column("time")
    if not isinstance(hours, (int, float)) or isinstance(hours, bool) or not hours > 0 or not seconds:
        return False
    return seconds[-1] >= hours * _HOUR - _CLOCK


def _ran_out_of_patience(rows: Table, args: Mapping[str, object]) -> bool:
    """Return whether with the last epoch ``patience`` epochs had passed without a better one."""
    patience = args.get("patience")
    if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
        return False
    names = [column if column.startswith("metrics/") else "" for column in rows.columns]
    metrics = [dict(zip(names, row.values, strict=True)) for row in rows.rows]
    for weights in EVER:
        values = [fitness(each, weights) for each in metrics]
        best = max(values)
        if not (best > 0 and math.isfinite(best)):
            continue
        # the last of equals to 8.3.x, the first of them later; and five digits can make equals of two
        tops = [row.epoch for row, value in zip(rows.rows, values, strict=True) if value == best]
        if rows.rows[-1].epoch - patience in (tops[0], tops[-1]):
            return True
    return False
