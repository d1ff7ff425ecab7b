"""Tasks that somebody else has told: whether one is this very run, and what it lacks of it.

    same project and name --same hyperparameters--> same values at the same iterations --> this run
                          --same directory, others--> same values, other iterations --> an earlier part of it

The live callback's task is recognised by what it holds, for it carries no key of ours. It is never guessed:
where more than one task fits, or one does in part, none is taken and they are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from ..errors import FileElsewhere, FileServerUnreachable
from ..events import (
    FINAL,
    DrawnPlot,
    Event,
    Hyperparameters,
    Image,
    OutputModel,
    Parameter,
    Plan,
    Plot,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
    but_points,
)
from ..sync.verdict import Difference, Kind, Verdict
from .api import Api
from .compare import DEAD_LINK, NO_LABEL, Contradicts, Files, Finding, Holds, Present, check, recognised
from .payloads import PLOT_VARIANT, PROPERTIES, RUNTIME_KEY, Json
from .reader import BothSides, escaped, parameters_of, project_named, read, titles_of

REASON = "yolo-clearml"  # how the reasons of our own status changes begin
WATCHDOG = "non-responsive"  # in the reason the server gives when it stops a silent task
ARCHIVED = "archived"  # system tag
_PAGE = 100  # tasks in a reply, with all their hyperparameters
_MOST_READ = 20  # candidates whose values are read
_LOOKS = 4  # for the first values of a training that goes on
_FLUSH = 3.0  # seconds between two; ClearML's SDK sends every five
_MOST_NAMED = 5  # candidates in a note
_SHOWN = 5  # contradictions that are spelled out
_AT_ONCE = 4  # reports that are compared at a time, for their files
_EPOCH_TIME = "Epoch Time"
_CLOCK = 1.0  # seconds; the callback's own clock was read up to 0.75 s later than that of results.csv
_NOT_LIVE = "_ignore_remote_overrides_"  # a parameter that ClearML's SDK adds, or not
_TOLD_NOW = "in_progress"
_SAVE_DIR = "save_dir"  # the parameter that says where a run was trained
_WHAT_AND_WHERE = (_SAVE_DIR, "task", "model", "data")


def key_of(task: Json) -> str | None:
    """Give the key of the run that a task was made for or that it was marked with; None where it has none."""
    runtime = task.get("runtime")
    key = runtime.get(RUNTIME_KEY) if isinstance(runtime, dict) else None
    return key if isinstance(key, str) else mark_of(task)


def mark_of(task: Json) -> str | None:
    """Give the key that a task told by somebody else was marked with."""
    try:
        key = task["hyperparams"][PROPERTIES][RUNTIME_KEY]["value"]
    except (KeyError, TypeError):
        return None
    return key if isinstance(key, str) else None


def told_now(task: Json) -> bool:
    """Tell whether somebody else is telling a task, and so ends it: another end would kill that training."""
    return task["status"] == _TOLD_NOW and not str(task.get("status_reason") or "").startswith(REASON)


def stopped_by_hand(status: str, reason: str) -> bool:
    """Tell whether a task was stopped by a person or their training: not by us, nor because it was silent."""
    return status == "stopped" and not reason.startswith(REASON) and WATCHDOG not in reason


def is_archived(task: Json) -> bool:
    """Tell whether a person has put a task away."""
    return ARCHIVED in (task.get("system_tags") or ())


# -- is it this run? --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """When a value of results.csv and a live one are the same."""

    digits: int  # that results.csv prints
    last: int  # iteration that the final evaluation may have written over

    @classmethod
    def of(cls, plan: Plan) -> Measure:
        """Take the measure that fits a plan: files with a time column print six digits, older ones five."""
        points = _points(plan)
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

    def tells(self, here: Scalar) -> bool:
        """Say whether a point tells this training from another one."""
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
    """Look for the one task that is certainly this run, told by the live callback; raises as `Api.call` does.

    It is looked for under the project and name that the run itself asks for, and under those wished for.
    """
    places = dict.fromkeys([plan.folder, (plan.project, plan.name)])
    projects = {name: project_named(api, name) for name in dict.fromkeys(project for project, _ in places)}
    rows: dict[str, Json] = {}
    for project, name in places:
        there = projects[project]
        if there is not None:
            rows |= {row["id"]: row for row in _named_so(api, there["id"], name, plan)}
    return replace(_chosen(api, plan, key, rows), projects=projects)


def holds_it(plan: Plan, row: Json) -> bool:
    """Tell whether a task that is marked with a run's key can be believed to hold it.

    A person's clone has the mark as well. As long as it is yet to begin it holds nothing, but so does a task
    that was reset, which still has the run's hyperparameters.
    """
    return row.get("status") != "created" or _first_fit(plan, row) is _Fit.WHOLLY


def _chosen(api: Api, plan: Plan, key: str, rows: Mapping[str, Json]) -> Found:
    """Choose among all tasks of the project and name."""
    # by another upload, since it was looked for by its mark
    marked = [task_id for task_id, row in rows.items() if mark_of(row) == key and holds_it(plan, row)]
    if marked:
        return Found(marked[0], (_taken(marked[0]),))
    alike = {
        task_id: fit
        for task_id, row in rows.items()
        if key_of(row) is None and not is_archived(row) and (fit := _first_fit(plan, row)) is not _Fit.NOT
    }
    if len(alike) > _MOST_READ:
        why = f"{len(alike)} tasks of this name have its hyperparameters, too many to be sure"
        return Found(notes=(_not_taken(why, list(alike)),))
    live = Status(RunState.LIVE) in but_points(plan.reports)
    return _judged(
        [
            _judge(
                api, plan, task_id, fit, _LOOKS if live and rows[task_id].get("status") == _TOLD_NOW else 1
            )
            for task_id, fit in alike.items()
        ]
    )


def _named_so(api: Api, project_id: str, name: str, plan: Plan) -> Iterator[Json]:
    """Give the tasks of a name that may fit; where the plan says where it was trained, only those from there.

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
    for section, values in _arguments(plan):
        where = values.get(_SAVE_DIR)
        if where is not None and where.value and not where.value.startswith(("-", "__$")):  # operators
            query[f"hyperparams.{section}.{_SAVE_DIR}.value"] = [where.value]
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
        for section, values in _arguments(plan)
        for name, parameter in values.items()
        if name != _NOT_LIVE
    }
    same = [place for place, parameter in wanted.items() if _same_parameter(parameter, there.get(place))]
    if len(same) == len(wanted):
        return _Fit.WHOLLY
    return _Fit.EARLIER if any(name == _SAVE_DIR for _, name in same) else _Fit.NOT


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
        for point in _points(plan)
        if (there := holds.scalars.get((point.title, point.series), {}).get(point.iteration)) is not None
    ]
    right = all(measure.agrees(point, there) for point, there in pairs)
    told = any(measure.tells(point) for point, _ in pairs)
    facts = but_points(report for report in plan.reports if report.key != FINAL)
    size = all(
        measure.same(event.value, holds.single_values.get(event.name, event.value))
        for event in facts
        if isinstance(event, SingleValue)
    )
    if right and told and size:
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
        text += f". It goes on from {', '.join(earlier)}, told before a resume and left as it is"
    return f"{text}; --new makes a task of its own."


def _not_taken(why: str, candidates: Sequence[str]) -> str:
    more = len(candidates) - _MOST_NAMED
    named = ", ".join(candidates[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"ClearML may hold this run already, as {named}: {why}, so it has become a task of its own;"
        " --task-id completes one of them instead."
    )


def _arguments(plan: Plan) -> Iterator[tuple[str, Mapping[str, Parameter]]]:
    """Give the sections of hyperparameters that a plan tells, and what is in them."""
    for event in but_points(plan.reports):
        if isinstance(event, Hyperparameters):
            yield event.section, event.values


def _points(plan: Plan) -> list[Scalar]:
    return [event for report in plan.reports for event in report.events if isinstance(event, Scalar)]


# -- what does it lack? -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """A report held against a task that somebody else has told."""

    report: Report
    lacking: tuple[Event, ...]  # what the task has nothing of
    contradictions: tuple[Difference, ...]  # what it has otherwise, and what is left so
    unread: int  # files it lists by title, series and iteration, and that are not given to us
    outage: FileServerUnreachable | None  # that may be over the next time; the report is to be looked at then


def compared(api: Api, plan: Plan, root: Path, holds: Holds, reports: Sequence[Report]) -> list[Compared]:
    """Say of each report what a task lacks of it, and what it contradicts."""
    files, measure = BothSides(api, root), Measure.of(plan)
    with ThreadPoolExecutor(_AT_ONCE, "compare") as pool:
        return list(pool.map(lambda report: _compared(report, holds, files, measure), reports))


def _compared(report: Report, holds: Holds, files: Files, measure: Measure) -> Compared:
    lacking: list[Event] = []
    contradictions: list[Difference] = []
    unread, outage = 0, None
    for event in report.events:
        try:
            missing, differences = _lacks(report, event, holds, files, measure)
        except FileElsewhere:
            unread += 1  # to send it again would show it twice, should it be there
            continue
        except FileServerUnreachable as error:
            outage = error
            continue
        lacking += [missing] if missing is not None else []
        contradictions += differences
    return Compared(report, tuple(lacking), tuple(contradictions), unread, outage)


_Lack: TypeAlias = "tuple[Event | None, Sequence[Difference]]"


def _lacks(report: Report, event: Event, holds: Holds, files: Files, measure: Measure) -> _Lack:
    """Give what of an event is to be sent, and what of it the task holds otherwise."""
    match event:
        case Hyperparameters(section, values):
            known = {name for held_in, name in holds.parameters if held_in == section}
            missing = {name: value for name, value in values.items() if name not in known}
            rest = replace(event, values={name: value for name, value in values.items() if name in known})
            return replace(event, values=missing) if missing else None, _otherwise(report, rest, holds, files)
        case Properties():  # ours alone: what they said of a run that went on is out of date
            return None if _is_there(report, event, holds, files) else event, ()
        case Scalar():
            there = holds.scalars.get((event.title, event.series), {}).get(event.iteration)
            if there is None:
                return event, ()
            return None, () if measure.agrees(event, there) else _otherwise(report, event, holds, files)
        case SingleValue():
            if event.name not in holds.single_values:
                return event, ()
            exact = report.key != FINAL  # the live final values are better than ours
            return None, _otherwise(report, event, holds, files) if exact else ()
        case Image():
            urls = holds.images.get((event.title, event.series, event.iteration))
            differences = _otherwise(report, event, holds, files) if urls is not None else ()
            dead = urls is None or any(difference.there == DEAD_LINK for difference in differences)
            return (event, ()) if dead else (None, differences)
        case Plot() | DrawnPlot():  # the callback draws them anew, so their bytes are no matter
            urls = holds.plots.get((event.title, PLOT_VARIANT, event.iteration))
            return None if urls is not None and (not urls or _any_there(urls, files)) else event, ()
        case OutputModel():
            model = recognised(event, holds)
            shown = model is not None and model.link is not None and _any_there((model.uri,), files)
            return None if shown else event, ()
        case Status(state):
            return None if ended_right(state, holds.status, holds.reason) else event, ()


def _finding(report: Report, event: Event, holds: Holds, files: Files) -> Finding:
    (checked,) = check(Report(report.key, (event,)), holds, files)
    return checked.finding


def _otherwise(report: Report, event: Event, holds: Holds, files: Files) -> tuple[Difference, ...]:
    finding = _finding(report, event, holds, files)
    return finding.differences if isinstance(finding, Contradicts) else ()


def _is_there(report: Report, event: Event, holds: Holds, files: Files) -> bool:
    return isinstance(_finding(report, event, holds, files), Present)


def _any_there(urls: Sequence[str], files: Files) -> bool:
    return any(files.there(url, 0) is not None for url in urls)


def ended_right(state: RunState, status: str, reason: str) -> bool:
    """Tell whether a task may keep its status: who told it knows how it ended, but not that it went on."""
    if status in ("failed", "closed", "publishing", "published"):
        return True
    match state:
        case RunState.LIVE:
            return status == "in_progress"
        case RunState.FINISHED:
            return status == "completed" or stopped_by_hand(status, reason)
        case RunState.STOPPED:
            return status in ("stopped", "completed")


def another_training(plan: Plan, holds: Holds) -> bool:
    """Tell whether a task holds another training: of the points both have, most are otherwise.

    Learning rates do not count, for they follow from the hyperparameters alone. Where both hold points and
    share none, what was trained where has to be the same.
    """
    measure = Measure.of(plan)
    agree = [
        measure.agrees(point, there)
        for point in _points(plan)
        if measure.tells(point)
        and not point.series.startswith("lr/")
        and (there := holds.scalars.get((point.title, point.series), {}).get(point.iteration)) is not None
    ]
    if agree or not holds.scalars:
        return 2 * sum(agree) < len(agree)
    told = {
        name: parameter.value
        for (section, name), parameter in holds.parameters.items()
        if section != PROPERTIES
    }
    return any(
        name in _WHAT_AND_WHERE and told.get(name, parameter.value) != parameter.value
        for _, values in _arguments(plan)
        for name, parameter in values.items()
    )


def but_for_better(plan: Plan, verdict: Verdict, task: Json) -> Verdict:
    """Leave out of the differences what the live callback knew better than the disk, as adoption does."""
    points = {(point.title, point.series, point.iteration): point for point in _points(plan)}
    final = {e.name for r in plan.reports if r.key == FINAL for e in r.events if isinstance(e, SingleValue)}
    states = [event.state for event in but_points(plan.reports) if isinstance(event, Status)]
    measure = Measure.of(plan)

    def better(difference: Difference) -> bool:
        if difference.there in (None, DEAD_LINK):
            return False
        match difference.kind:
            case Kind.PLOT:  # drawn anew by the callback
                return True
            case Kind.MODEL:  # the callback gives it no labels
                return difference.there == NO_LABEL
            case Kind.SINGLE_VALUE:
                return difference.title in final
            case Kind.STATUS:
                status = str(difference.there)
                reason = str(task.get("status_reason") or "")
                return told_now(task) or all(ended_right(state, status, reason) for state in states)
            case Kind.SCALAR:
                place = (difference.title, difference.series or "", difference.iteration or 0)
                return place in points and measure.agrees(points[place], float(difference.there or "nan"))
            case _:
                return False

    return replace(verdict, differences=tuple(d for d in verdict.differences if not better(d)))


def sentences(compared: Sequence[Compared]) -> Iterator[str]:
    """Say what a task holds otherwise than the disk: the first few in words, the others counted."""
    contradictions = [difference for each in compared for difference in each.contradictions]
    unread = sum(each.unread for each in compared)
    if unread:
        yield (
            f"{unread} files that ClearML lists could not be read back, so they were not compared;"
            " 'yolo-clearml verify' tells when they can."
        )
    for difference in contradictions[:_SHOWN]:
        yield f"ClearML holds another {difference}; --force overwrites it."
    if len(contradictions) > _SHOWN:
        yield f"ClearML holds {len(contradictions) - _SHOWN} more values otherwise; --force overwrites them."
