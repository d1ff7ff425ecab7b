"""Which training is it? The key a run is found by, and what distinguishes two runs of one key.

What has to stay one: a run that grows, is resumed, moved, copied, or whose results.csv was saved again. What
has to be two: trainings with other arguments or other rows. What a directory states of that:

* ``name`` and ``save_dir`` of args.yaml, where it was trained and not where it lies now. Both are often the
  defaults, ``train`` and ``runs/detect/train``.
* **The first row**, by its values: padding, line ends and ways to write a number are no part of it. From
  8.3.9 on it has a ``time`` of six digits, which no two trainings share. Before, and in YOLOv5, the same
  seed (0, unless the user gives one) gives the same first row again, whatever is asked for afterwards.
* **Arguments**, of runs without ``time`` only: there they are all that differs from the start, and elsewhere
  they could only harm. A resume writes args.yaml again, from the arguments in its checkpoint; these are left
  alone by that. Read off the sources of the releases before 8.3.9: a resume sets ``model`` and ``resume``;
  takes over ``imgsz`` and ``batch`` (8.0.155), ``device`` (8.1.42) and ``close_mosaic`` (8.3.0) from the
  command line, and ``data`` where the old one is gone. A checkpoint holds ``workers``, ``rect``, ``imgsz``,
  ``batch`` and ``warmup_bias_lr`` as the trainer has set them, ``mosaic``, ``mixup`` and ``copy_paste`` as 0
  once close_mosaic has come (to 8.3.3), and ``epochs`` as reckoned where ``time`` limits it (8.0.228). YOLOv5
  sets ``cfg``, ``weights`` and ``resume``. So none of these count, nor does what people edit in a directory
  that they pass on: project, paths, devices. An edit of what does count, such as ``epochs``, makes another
  run of it.
* **The rows after the first.** They are no part of the key, for the key is needed when they are yet to come.
  But the task of a run without ``time`` carries a digest of each of the first four, from the request on that
  makes it; and where no ledger vouches for a task, its curves are read before they are written over. A task
  that holds other values at the same iterations is another training's, and both are found by the key.

A resume may repeat an epoch whose checkpoint was lost; results.csv then holds both rows, ClearML may hold
either, and such an epoch shows nothing. Two trainings with the same arguments and the very same rows stay
one, and so do two whose rows have not differed yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from .results_csv import Table
from .run import Run

# Of releases without a time column: each is in default.yaml from 8.0.100 to 8.3.8, or in YOLOv5's opt.yaml.
_LEFT_ALONE = (
    *("task", "epochs", "patience", "optimizer", "seed", "deterministic", "single_cls", "cos_lr"),
    *("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "nbs", "dropout"),
    *("box", "cls", "dfl", "pose", "kobj", "label_smoothing", "overlap_mask", "mask_ratio"),
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective"),
    *("flipud", "fliplr"),
)
_ROWS = 4  # that a task carries a digest of; a training that is another one differs in the second
NO_DIGEST = "-"  # in place of the digest of a row that is not there, or there twice


def run_key(run: Run) -> str:
    """Give the run's own key, 32 hex digits."""
    return key_of(run.first_row, run.args, run.table)


def key_of(first_row: bytes, args: Mapping[str, object], table: Table) -> str:
    """Give the key of a run by its first row, without its end, its arguments and its table."""
    stated: list[object] = [
        ",".join(f"{float(cell):.6g}" for cell in first_row.split(b",")),  # as 8.3.9 and later write it
        str(args.get("name")),
        str(args.get("save_dir")),
    ]
    if not _is_timed(table):
        stated += _arguments(args)
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:32]


def _is_timed(table: Table) -> bool:
    return "time" in table.columns


def _arguments(args: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name in _LEFT_ALONE:
        if name not in args or (name == "epochs" and args.get("time")):
            continue
        yield name, _plain(str(args[name]))


def _plain(text: str) -> str:
    """Write a number in one way: YAML reads 1e-3 as text and 1.0e-3 as a number, and 0 is no 0.0."""
    try:
        return repr(float(text))
    except ValueError:
        return text


def first_rows(run: Run) -> tuple[str, ...]:
    """Digest the first rows, 8 hex digits each, from the first iteration on; of a run with ``time``, none."""
    return first_rows_of(run.table, run.repeated)


def first_rows_of(table: Table, repeated: Collection[int]) -> tuple[str, ...]:
    """Digest the first rows of a table with one row per epoch, of which some were ``repeated``."""
    if _is_timed(table):
        return ()
    first = table.rows[0].epoch
    values = {row.epoch - first: row.values for row in table.rows[:_ROWS] if row.epoch not in repeated}
    digests = [hashlib.sha256(repr(v).encode()).hexdigest()[:8] for v in values.values()]
    by_iteration = dict(zip(values, digests, strict=True))
    last = min(max(by_iteration, default=-1), _ROWS - 1)
    return tuple(by_iteration.get(iteration, NO_DIGEST) for iteration in range(last + 1))


def differ(here: Sequence[str], there: Sequence[str]) -> bool:
    """Return whether two runs of one key are two trainings, by the digests of their first rows."""
    pairs = zip(here, there, strict=False)
    return any(a != b for a, b in pairs if NO_DIGEST not in (a, b))
