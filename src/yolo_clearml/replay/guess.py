"""Whose rules a run is reported by, and what is uncertain where no checkpoint names the release. Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ..events import (
    Plan,
)
from ..rundir.relatives import Relative
from ..rundir.release import Release
from ..rundir.run import Run
from .draft import dotted
from .eras import YOLOV5, Era, era_of, eras_between, likeliest_era

_CHANGED = {  # what differs between two plans, by the first part of a report's key
    **{"args": "the hyperparameters", "epoch": "the titles of curves", "image": "the debug images"},
    **{"plot": "the plots", "final": "the final values"},
}


def note_of_relative(relative: Relative, run: Run, rules: Release | None) -> str:
    """Note by whose rules a training of a fork or an elder relative is reported."""
    if run.yolov5:
        return f"{relative.text}; it is reported as the callback of YOLOv5 7.0, the nearest, would have."
    used = dotted(rules or _nearest_release(run, rules))
    chosen = "" if rules else ", the nearest known; --rules chooses others"
    return f"{relative.text}; it is reported by the rules of {used}{chosen}."


def era_by(run: Run, rules: Release | None) -> Era:
    """Give the era a run is reported by: that of the release the user asked for, else the likeliest."""
    if run.yolov5:
        return YOLOV5
    return era_of(rules) if rules else likeliest_era(run.releases)


def _nearest_release(run: Run, rules: Release | None) -> Release:
    """Give the oldest release that a run may be of and whose rules it is reported by."""
    nearest = run.releases.early[0] if run.releases.contradictory else run.releases.first
    return max(era_by(run, rules).since, nearest)


def note_of_guess(run: Run, planned: Plan, plan_by: Callable[[Era], Plan]) -> str | None:
    """Note what is not certain because no checkpoint names the release; None where nothing hangs on it.

    ``planned`` is the plan by the likeliest era, ``plan_by`` makes that of another.
    """
    unfit = "; ".join(it for it in run.unfit if it.startswith("weights"))
    unknown = f"No checkpoint names the release{unfit and f' ({unfit})'}"
    era = era_by(run, None)
    used = f"reported by the rules of {dotted(_nearest_release(run, None))}, --rules chooses others."
    if run.releases.contradictory:
        return f"{unknown}, and args.yaml, results.csv and the pictures fit no release together; {used}"
    eras = eras_between(run.releases.first, run.releases.last)
    plans = [planned if each is era else plan_by(each) for each in eras]
    turns = [
        f"{dotted(each.since)} changed {' and '.join(changed)}"
        for each, (before, after) in zip(eras[1:], pairwise(plans), strict=True)
        if (changed := _changed(before, after))
    ]
    if not turns:
        return None
    return f"{unknown}; it may be {run.releases}, of which {', '.join(turns)}; {used}"


def _changed(before: Plan, after: Plan) -> list[str]:
    """Name what two releases report differently of the same run."""
    words = []
    if (before.project, before.folder) != (after.project, after.folder):
        words.append("the project")
    if before.tags != after.tags:
        words.append("the tag")
    old, new = ({report.key: report for report in each.reports} for each in (before, after))
    keys = {key.partition("/")[0] for key in {*old, *new} if old.get(key) != new.get(key)}
    return [*words, *(word for key, word in _CHANGED.items() if key in keys)]
