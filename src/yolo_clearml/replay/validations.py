"""What validations (`yolo val`) of a run's weights left, reported to that run's task. Pure.

No callback reports them, so they are named as it names the pictures of a training's own validation, below the
name of their directory: ``val2/BoxPR_curve``, ``val2/Validation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from ..events import FileStamp, Image, Plan, Plot, Report, RunState
from ..rundir.run import Run
from .draft import sendable
from .pictures import debug_image

_AT = 0  # the iteration of its plots, as that of the training's own


def with_validations(planned: Plan, run: Run, folders: Sequence[str]) -> Plan:
    """Give a plan with the pictures of validations, before its end; ``folders`` are the names of all.

    While the training goes on none is reported, for its weights are yet to come.
    """
    if not folders:
        return planned
    if run.state is RunState.LIVE:
        later = f"The training goes on: the same command sends the pictures of {', '.join(folders)} later."
        return replace(planned, notes=(*planned.notes, later))
    *before, end = planned.reports
    reports = (
        Report(f"validation/{sendable(name)}", (_event(name, stamp),))
        for name, stamp in sorted(run.validations.items())
    )
    shown = {PurePosixPath(name).parts[0] for name in run.validations}
    missing = (f"pictures of the validation {folder}" for folder in folders if folder not in shown)
    return replace(planned, reports=(*before, *reports, end), missing=(*planned.missing, *missing))


def _event(name: str, stamp: FileStamp) -> Image | Plot:
    path, at = PurePosixPath(sendable(name)), stamp.mtime_ns // 1_000_000
    if path.suffix == ".jpg":
        return debug_image(f"{path.parent}/Validation", stamp, at)
    return Plot(f"{path.parent}/{path.stem}", _AT, stamp, at)
