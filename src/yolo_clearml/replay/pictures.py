"""Pictures of a save_dir as debug images and plots, as the callback reported them. Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from ..events import (
    DrawnPlot,
    FileStamp,
    Image,
    Plot,
    RunState,
)
from ..rundir.run import Run, plots_wanted
from .draft import Draft, Iterations, dotted, sendable
from .eras import ERAS, Era, PlotRule

_BATCH = re.compile(r"(?P<before>.*)_batch(?P<number>\d{1,9})(?!\d)(?P<after>.*)", re.DOTALL)
_MOST_NAMED = 3  # pictures in a sentence


def report_pictures(run: Run, era: Era, iterations: Iterations, draft: Draft) -> None:
    """Report debug images and plots, and what is missing of them."""
    mosaics = [s for n, s in run.files.items() if fnmatchcase(n, "train_batch*.jpg")]
    if iterations.last >= era.mosaic_epoch:
        for stamp in mosaics:
            image = debug_image(era.mosaic_title, stamp, _drawn(run, stamp, run.times.began))
            draft.report(f"image/{stamp.name}", image)
    for stamp in (s for n, s in run.files.items() if fnmatchcase(n, "val*.jpg")):
        image = debug_image("Validation", stamp, _drawn(run, stamp, run.times.ended))
        draft.report(f"image/{stamp.name}", image)
    if run.state is RunState.FINISHED:
        for rule in era.plots:  # of which one at the most is a picture's
            for stamp in (s for n, s in run.files.items() if fnmatchcase(n, rule.pattern)):
                plot = _plot(run, rule, stamp, iterations)
                draft.report(f"plot/{PurePosixPath(stamp.name).stem}", plot)
    if plots_wanted(run.args, run.yolov5):
        if run.state is RunState.STOPPED and "results.png" not in run.files:
            rule = next(rule for rule in era.plots if rule.pattern == "results.png")
            draft.report("plot/results", _drawn_results(run, rule, iterations))
        if not mosaics and iterations.last >= era.mosaic_epoch and run.state is not RunState.LIVE:
            draft.missing.append("train_batch*.jpg")
        if "results.png" not in run.files and run.state is RunState.FINISHED:
            draft.missing.append("results.png and the plots beside it")


def note_unsent_pictures(run: Run, era: Era, draft: Draft) -> None:
    """Name pictures that the callback of this release never set out to report, and a later one did."""
    for each in ERAS[ERAS.index(era) + 1 :] if era in ERAS else ():
        if extra := sorted(_plotted(run, each) - _plotted(run, era)):
            more = f" and {len(extra) - _MOST_NAMED} more pictures" if len(extra) > _MOST_NAMED + 1 else ""
            shown = ", ".join(extra[: _MOST_NAMED if more else None]) + more
            draft.notes.append(
                f"Not sent, as this release did not report {'it' if len(extra) == 1 else 'them'}: {shown}; "
                f"--rules {dotted(each.since)} reports as the first that did."
            )
            return


def _plotted(run: Run, era: Era) -> set[str]:
    return {name for name in run.files if any(fnmatchcase(name, rule.pattern) for rule in era.plots)}


def _drawn(run: Run, stamp: FileStamp, otherwise: int) -> int:
    """When a picture was drawn, in milliseconds since the epoch; a copy's file times do not show it."""
    return otherwise if run.copied else stamp.mtime_ns // 1_000_000


def debug_image(title: str, stamp: FileStamp, at: int) -> Image:
    """Report a picture as the callback does: ``val_batch0_pred.jpg`` is series ``val_pred.jpg`` at 0."""
    name = sendable(PurePosixPath(stamp.name).name)
    match = _BATCH.fullmatch(name)
    if match is None:
        return Image(title, name, 0, stamp, at)
    return Image(title, match["before"] + match["after"], int(match["number"]), stamp, at)


def _plot(run: Run, rule: PlotRule, stamp: FileStamp, iterations: Iterations) -> Plot:
    title = rule.title.format(stem=PurePosixPath(sendable(stamp.name)).stem)
    iteration = iterations.last if rule.at_last_epoch else 0
    return Plot(title, iteration, stamp, _drawn(run, stamp, run.times.ended))


def _drawn_results(run: Run, rule: PlotRule, iterations: Iterations) -> DrawnPlot:
    kept = [i for i, column in enumerate(run.table.columns) if "loss" in column or "metric" in column]
    return DrawnPlot(
        title=rule.title.format(stem="results"),
        iteration=iterations.last if rule.at_last_epoch else 0,
        file_name="results.png",
        columns=tuple(run.table.columns[i] for i in kept),
        epochs=tuple(row.epoch for row in run.table.rows),
        values=tuple(tuple(row.values[i] for i in kept) for row in run.table.rows),
        at=run.times.ended,
    )
