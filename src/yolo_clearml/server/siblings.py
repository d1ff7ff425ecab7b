"""Tasks of one key, kept apart: trainings that began alike and went on otherwise.

    tasks of the key --same digests of the first rows--> --same values at the same iterations--> this run's

What a task carries from its creation on costs no request, and two uploads of two such trainings at once see
it of each other. What it holds is read where no ledger vouches for it, before anything is written over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..events import Plan, Scalar
from ..rundir.identity import NO_DIGEST, differ
from .api import Api
from .payloads import Json
from .reader import curves
from .recognition import Measure

ROWS_KEY = "yolo_clearml_rows"  # in a task's runtime, beside the key
_RATES = ("lr", "x")  # titles of curves that follow from the arguments alone; the second is YOLOv5's
_OPEN = ("created", "queued", "in_progress")  # the server takes no runtime for others


def runtime_rows(plan: Plan) -> Json:
    """Give what goes into the runtime of a task beside the key."""
    return {ROWS_KEY: " ".join(plan.first_rows)} if plan.first_rows else {}


def may_be(plan: Plan, task: Json) -> bool:
    """Check whether a task of a run's key may hold that run, by the digests of its first rows."""
    return may_hold(plan.first_rows, task)


def may_hold(first_rows: Sequence[str], task: Json) -> bool:
    """Check whether a task of a run's key may hold the run with these first rows."""
    return not differ(first_rows, _rows_of(task))


def own(api: Api, plan: Plan, tasks: Sequence[Json], others: set[str]) -> Json | None:
    """Give the first of the tasks of a run's key that is not another training's; those go into ``others``.

    Raises as `Api.call` does.
    """
    for task in tasks:
        if may_be(plan, task) and not _contradicts(api, plan, task):
            return task
        others.add(task["id"])
    return None


def write_rows(api: Api, plan: Plan, task: Json) -> None:
    """Write to a run's own task what rows have come since it was made, up to the first few."""
    there = _rows_of(task)
    if len(plan.first_rows) > len(there) and task["status"] in _OPEN:
        rows = [*there, *plan.first_rows[len(there) :]]
        entry = {ROWS_KEY: " ".join(rows)}
        api.call("tasks.edit_runtime", {"task": task["id"], "add_or_update": entry, "force": True})


def note(others: Sequence[str]) -> str:
    """Explain that a run has become a task of its own, and why."""
    return (
        f"ClearML holds another training with the same name and first row, as {', '.join(others)}: its other"
        " rows are different, so this run has become a task of its own."
    )


def _rows_of(task: Json) -> tuple[str, ...]:
    runtime = task.get("runtime")
    written = runtime.get(ROWS_KEY) if isinstance(runtime, dict) else None
    return tuple(written.split()) if isinstance(written, str) else ()


def _contradicts(api: Api, plan: Plan, task: Json) -> bool:
    """Check whether a task holds another value at an iteration of the run; for the first the key vouches."""
    pairs = zip(plan.first_rows, _rows_of(task), strict=False)
    vouched = {iteration for iteration, pair in enumerate(pairs) if NO_DIGEST not in pair}
    asked = [point for point in _distinguishing(plan) if point.iteration not in vouched]
    if not asked or task["status"] == "created":
        return False
    measure = Measure.of(plan)
    there = curves(api, task["id"], sorted({point.title for point in asked}))
    held = ((point, there.get((point.title, point.series), {}).get(point.iteration)) for point in asked)
    return any(value is not None and not measure.agrees(point, value) for point, value in held)


def _distinguishing(plan: Plan) -> Iterator[Scalar]:
    measure, first = Measure.of(plan), None
    for report in plan.reports:
        for point in report.events:
            if not isinstance(point, Scalar):
                continue
            first = point.iteration if first is None else first
            if point.iteration == first or point.iteration in plan.unsure or point.title in _RATES:
                continue
            if measure.distinguishes(point):
                yield point
