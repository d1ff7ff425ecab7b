"""The live callback's task, recognised by what it holds, for it carries no key of ours.

    same project and name --same hyperparameters--> same values at the same iterations --> this run
                          --same directory, others--> same values, other iterations --> an earlier part of it

It is never guessed: where more than one task fits, or one does in part, none is taken and they are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from ..events import (
    FINAL,
    Hyperparameters,
    Parameter,
    Plan,
    RunState,
    Scalar,
    SingleValue,
    Status,
    but_points,
)
from .api import Api
from .ownership import is_archived, key_of, mark_of
from .payloads import Json
from .reader import escaped, parameters_of, project_named, read, titles_of

SAVE_DIR = "save_dir"  # the parameter that states where a run was trained
_PAGE = 100  # tasks in a reply, with all their hyperparameters
_MOST_READ = 20  # candidates whose values are read
_LOOKS = 4  # for the first values of a training that goes on
_FLUSH = 3.0  # seconds between two; ClearML's SDK sends every five
_MOST_NAMED = 5  # candidates in a note
_EPOCH_TIME = "Epoch Time"
_CLOCK = 1.0  # seconds; the callback's own clock was read up to 0.75 s later than that of results.csv
_NOT_LIVE = "_ignore_remote_overrides_"  # a parameter that ClearML's SDK adds, or not


@dataclass(frozen=True, slots=True)
class Measure:
    """When a value of results.csv and a live one are the same."""

    digits: int  # that results.csv prints
    last: int  # iteration that the final evaluation may have written over

    @classmethod
    def of(cls, plan: Plan) -> Measure:
        """Take the measure that fits a plan: files with a time column print six digits, older ones five."""
        points = points_of(plan)
        timed = any(point.title == _EPOCH_TIME for point in points)
        return cls(6 if timed else 5, max((point.iteration for point in points), default=0))

    def same(self, here: float, there: float) -> bool:
        """Compare to the digits printed here."""
        exponent = math.floor(math.log10(abs(here))) if here else 0
        return abs(here - there) <= max(0.51 * 10.0 ** (exponent - self.digits + 1), 1e-12)

    def agrees(self, here: Scalar, there: float) -> bool:
        """Compare a point; at the last iteration, metrics may be those of the final evaluation."""
        if here.iteration == self.last and self._final(here):
            return True
        slack = abs(here.value - there) <= _CLOCK
        return slack if here.title == _EPOCH_TIME else self.same(here.value, there)

    def distinguishes(self, here: Scalar) -> bool:
        """Whether a point can differ between this training and another one."""
        return here.title != _EPOCH_TIME and not (here.iteration == self.last and self._final(here))

    @staticmethod
    def _final(here: Scalar) -> bool:
        return here.title == _EPOCH_TIME or here.series.startswith("metrics/")


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking for a task that holds a run already."""

    task_id: str | None = None
    notes: tuple[str, ...] = ()
    projects: Mapping[str, Json | None] = field(default_factory=dict)  # that were looked for, by name
    others: frozenset[str] = frozenset()  # tasks of the same key that hold another training


class _Fit(Enum):
    WHOLLY = "same hyperparameters, same values"
    EARLIER = "same directory, same values, but other hyperparameters"
    PARTLY = "some facts are the same"
    NOT = "another run"


@dataclass(frozen=True, slots=True)
class _Candidate:
    task_id: str
    fit: _Fit
    iterations: frozenset[int] = frozenset()  # that it holds points of the plan at


def search(api: Api, plan: Plan, key: str) -> Found:
    """Look for the one task that is certainly this run, reported by the live callback.

    It is looked for under the project and name that the run itself asks for, and under those wished for.
    Raises as `Api.call` does.
    """
    places = dict.fromkeys([plan.folder, (plan.project, plan.name)])
    projects = {name: project_named(api, name) for name in dict.fromkeys(project for project, _ in places)}
    rows: dict[str, Json] = {}
    fits: dict[str, _Fit] = {}  # of those that may be this run, by their hyperparameters
    for project, name in places:
        there = projects[project]
        if there is None:
            continue
        for row in _named_so(api, there["id"], name, plan):
            rows[row["id"]] = row
            if (
                key_of(row) is None
                and not is_archived(row)
                and (fit := _first_fit(plan, row)) is not _Fit.NOT
            ):
                fits[row["id"]] = fit
            if len(fits) > _MOST_READ:  # none is going to be taken, so no other page is read
                break
    return replace(_chosen(api, plan, key, rows, fits), projects=projects)


def holds_it(plan: Plan, row: Json) -> bool:
    """Check whether a task that is marked with a run's key can be believed to hold it.

    A person's clone has the mark as well. As long as it is yet to begin it holds nothing, but so does a task
    that was reset, which still has the run's hyperparameters.
    """
    return row.get("status") != "created" or _first_fit(plan, row) is _Fit.WHOLLY


def _chosen(api: Api, plan: Plan, key: str, rows: Mapping[str, Json], alike: Mapping[str, _Fit]) -> Found:
    """Choose among the tasks of the project and name, of which some have the hyperparameters."""
    # by another upload, since it was looked for by its mark
    marked = [task_id for task_id, row in rows.items() if mark_of(row) == key and holds_it(plan, row)]
    if marked:
        return Found(marked[0], (_taken(marked[0]),))
    if len(alike) > _MOST_READ:
        why = f"more than {_MOST_READ} tasks of this name have its hyperparameters, too many to be sure"
        return Found(notes=(_not_taken(why, list(alike)[:_MOST_NAMED]),))
    live = Status(RunState.LIVE) in but_points(plan.reports)
    return _judged(
        [
            _judge(
                api,
                plan,
                task_id,
                fit,
                _LOOKS if live and rows[task_id].get("status") == "in_progress" else 1,
            )
            for task_id, fit in alike.items()
        ]
    )


def _named_so(api: Api, project_id: str, name: str, plan: Plan) -> Iterator[Json]:
    """Give the tasks of a name that may fit; only those trained in the same place where the plan states it.

    Hundreds of tasks have the default name, each with a hundred hyperparameters.
    """
    query: Json = {
        "project": [project_id],
        "name": f"^{escaped(name)}$",
        "type": ["training"],
        "only_fields": ["id", "name", "status", "system_tags", "runtime", "hyperparams"],
        "search_hidden": True,
        "order_by": ["created"],
        "page_size": _PAGE,
    }
    for section, values in arguments_of(plan):
        where = values.get(SAVE_DIR)
        if where is not None and where.value and not where.value.startswith(("-", "__$")):  # operators
            query[f"hyperparams.{section}.{SAVE_DIR}.value"] = [where.value]
    for page in range(2**31):
        rows = api.rows("tasks.get_all_ex", query | {"page": page}, "tasks")
        yield from (row for row in rows if row.get("name") == name)
        if len(rows) < _PAGE:
            return


def _first_fit(plan: Plan, row: Json) -> _Fit:
    """Judge by hyperparameters alone; the values are yet to be read."""
    try:
        there = parameters_of(row)
    except (KeyError, TypeError, AttributeError):
        return _Fit.NOT
    wanted = {
        (section, name): parameter
        for section, values in arguments_of(plan)
        for name, parameter in values.items()
        if name != _NOT_LIVE
    }
    same = [place for place, parameter in wanted.items() if _same_parameter(parameter, there.get(place))]
    if len(same) == len(wanted):
        return _Fit.WHOLLY
    return _Fit.EARLIER if any(name == SAVE_DIR for _, name in same) else _Fit.NOT


def _same_parameter(here: Parameter, there: Parameter | None) -> bool:
    return there is not None and (here.value, here.type or "") == (there.value, there.type or "")


def _judge(api: Api, plan: Plan, task_id: str, fit: _Fit, looks: int) -> _Candidate:
    """Judge by the values at every place that both sides have; the first may be under way."""
    holds, measure = read(api, task_id, titles_of(plan)), Measure.of(plan)
    for _ in range(looks - 1):
        if holds is None or holds.scalars:
            break
        api.wait(_FLUSH)
        holds = read(api, task_id, titles_of(plan))
    if holds is None:
        return _Candidate(task_id, _Fit.NOT)
    pairs = [
        (point, there)
        for point in points_of(plan)
        if (there := holds.scalars.get((point.title, point.series), {}).get(point.iteration)) is not None
    ]
    right = all(measure.agrees(point, there) for point, there in pairs)
    distinguished = any(measure.distinguishes(point) for point, _ in pairs)
    facts = but_points(report for report in plan.reports if report.key != FINAL)
    size = all(
        measure.same(event.value, holds.single_values.get(event.name, event.value))
        for event in facts
        if isinstance(event, SingleValue)
    )
    if right and distinguished and size:
        return _Candidate(task_id, fit, frozenset(point.iteration for point, _ in pairs))
    return _Candidate(task_id, _Fit.PARTLY)


def _judged(candidates: Sequence[_Candidate]) -> Found:
    fitting = [c for c in candidates if c.fit is _Fit.WHOLLY]
    earlier = [c for c in candidates if c.fit is _Fit.EARLIER]
    if len(fitting) == 1:
        (last,) = fitting
        if all(max(before.iterations) < min(last.iterations) for before in earlier):
            return Found(last.task_id, (_taken(last.task_id, [before.task_id for before in earlier]),))
    named = [c.task_id for c in candidates if c.fit is not _Fit.NOT]
    if not named:
        return Found()
    why = f"{len(fitting)} tasks hold it alike" if len(fitting) > 1 else "only some facts are the same"
    if len(fitting) == 1:
        why = "several tasks hold the same epochs of it"
    return Found(notes=(_not_taken(why, named),))


def _taken(task_id: str, earlier: Sequence[str] = ()) -> str:
    text = f"ClearML holds this run already: the task {task_id} is completed with what it lacks"
    if earlier:
        text += f". It goes on from {', '.join(earlier)}, reported before a resume and left as it is"
    return f"{text}; --new makes a task of its own."


def _not_taken(why: str, candidates: Sequence[str]) -> str:
    more = len(candidates) - _MOST_NAMED
    named = ", ".join(candidates[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"ClearML may hold this run already, as {named}: {why}, so it has become a task of its own;"
        " --task-id completes one of them instead."
    )


def arguments_of(plan: Plan) -> Iterator[tuple[str, Mapping[str, Parameter]]]:
    """Give the sections of hyperparameters of a plan, and what is in them."""
    for event in but_points(plan.reports):
        if isinstance(event, Hyperparameters):
            yield event.section, event.values


def points_of(plan: Plan) -> list[Scalar]:
    """Give the points of all scalars of a plan."""
    return [event for report in plan.reports for event in report.events if isinstance(event, Scalar)]
