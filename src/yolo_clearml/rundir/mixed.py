"""A results.csv whose rows are not those of the training that args.yaml describes.

epoch, box, cls, dfl, mAP(B)          releases before 8.3.214 append a training with exist_ok=True to the
1 ... 5                               file of the one before; its columns are named nowhere then
1 ... 4, each of more values

"""

from __future__ import annotations

from collections.abc import Mapping

from .results_csv import Table, of_other_columns

# of each task the column that shows it; segment and pose have that of detect as well
_BOXES, _MASKS, _POSES, _CLASSES, _PIXELS, _DEPTHS = (
    *("metrics/mAP50(B)", "metrics/mAP50(M)", "metrics/mAP50(P)"),
    *("metrics/accuracy_top1", "metrics/mIoU", "metrics/delta1"),
)
_OF_TASKS = frozenset({_BOXES, _MASKS, _POSES, _CLASSES, _PIXELS, _DEPTHS})
_COLUMNS: Mapping[object, frozenset[str]] = {
    "detect": frozenset({_BOXES}),
    "obb": frozenset({_BOXES}),
    "segment": frozenset({_BOXES, _MASKS}),
    "pose": frozenset({_BOXES, _POSES}),
    "classify": frozenset({_CLASSES}),
    "semantic": frozenset({_PIXELS}),
    "depth": frozenset({_DEPTHS}),
}
_HINT = (
    "Put the rows of the training that args.yaml describes into a results.csv of their own, below a line with"
    " the names of their columns; then run the same command again."
)


def whose_rows(everything: Table, args: Mapping[str, object], second: bool) -> tuple[str, str] | None:
    """Give why the rows cannot be known to be the training's own, and what to do; None where nothing is odd.

    ``everything`` is the whole file; that a ``second`` training may have been begun there is known otherwise.
    The reason goes on from the file's name.
    """
    others = of_other_columns(everything)
    if others:
        width = len(everything.columns) + 1
        return (
            f"holds two trainings with different columns: its header names the {width} of the first one, and"
            f" nothing names those of the newest, whose rows have {others[0].cells} values",
            _HINT,
        )
    task = args.get("task")
    there = _OF_TASKS.intersection(everything.columns)
    if second and isinstance(task, str) and there and there != _COLUMNS.get(task, there):
        return (
            f"is not of the training that args.yaml describes: its columns are not those of {task!r}",
            _HINT,
        )
    return None
