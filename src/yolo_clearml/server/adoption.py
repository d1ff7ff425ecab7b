"""What a task that somebody else reported lacks of a run, and what it holds otherwise than the disk.

What it lacks is sent, what it holds is left as it is: the live callback knew some of it better than the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ..errors import FileElsewhere, FileServerUnreachable
from ..events import (
    FINAL,
    Artifact,
    Child,
    DrawnPlot,
    Event,
    Hyperparameters,
    Image,
    OutputModel,
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
from .ownership import reported_live, stopped_by_hand
from .payloads import PLOT_VARIANT, PROPERTIES, Json
from .reader import BothSides
from .recognition import SAVE_DIR, Measure, arguments_of, points_of

_SHOWN = 5  # contradictions that are spelled out
_AT_ONCE = 4  # reports that are compared at a time, for their files
_WHAT_AND_WHERE = (SAVE_DIR, "task", "model", "data")


@dataclass(frozen=True, slots=True)
class Compared:
    """A report held against a task that somebody else reported."""

    report: Report
    lacking: tuple[Event, ...]  # what the task has nothing of
    contradictions: tuple[Difference, ...]  # what it has otherwise, and what is left so
    unread: int  # files it lists by title, series and iteration, and that are not given to us
    outage: FileServerUnreachable | None  # that may be over the next time; the report is to be looked at then


def compared(api: Api, plan: Plan, root: Path, holds: Holds, reports: Sequence[Report]) -> list[Compared]:
    """Give for each report what a task lacks of it, and what it contradicts."""
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
        case Properties():  # ours alone: what they state of a run that went on is out of date
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
        case Artifact():
            held = holds.artifacts.get(event.name)
            if held is None or not _any_there((held.uri,), files):
                return event, ()
            return None, _otherwise(report, event, holds, files)
        case Child():
            raise AssertionError("the children of a task are seen to before, whoever reported it")
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
    """Check whether a task may keep its status: who reported it knows how it ended, not that it went on."""
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
    """Check whether a task holds another training: of the points both have, most are otherwise.

    Learning rates do not count, for they follow from the hyperparameters alone. Where both hold points and
    share none, what was trained where has to be the same.
    """
    measure = Measure.of(plan)
    agree = [
        measure.agrees(point, there)
        for point in points_of(plan)
        if measure.distinguishes(point)
        and not point.series.startswith("lr/")
        and (there := holds.scalars.get((point.title, point.series), {}).get(point.iteration)) is not None
    ]
    if agree or not holds.scalars:
        return 2 * sum(agree) < len(agree)
    stated = {
        name: parameter.value
        for (section, name), parameter in holds.parameters.items()
        if section != PROPERTIES
    }
    return any(
        name in _WHAT_AND_WHERE and stated.get(name, parameter.value) != parameter.value
        for _, values in arguments_of(plan)
        for name, parameter in values.items()
    )


def but_for_better(plan: Plan, verdict: Verdict, task: Json) -> Verdict:
    """Leave out of the differences what the live callback knew better than the disk, as adoption does."""
    points = {(point.title, point.series, point.iteration): point for point in points_of(plan)}
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
                return reported_live(task) or all(ended_right(state, status, reason) for state in states)
            case Kind.SCALAR:
                place = (difference.title, difference.series or "", difference.iteration or 0)
                return place in points and measure.agrees(points[place], float(difference.there or "nan"))
            case _:
                return False

    return replace(verdict, differences=tuple(d for d in verdict.differences if not better(d)))


def sentences(compared: Sequence[Compared]) -> Iterator[str]:
    """Describe what a task holds otherwise than the disk: the first few in words, the others counted."""
    contradictions = [difference for each in compared for difference in each.contradictions]
    unread = sum(each.unread for each in compared)
    if unread:
        yield (
            f"{unread} files that ClearML lists could not be read back, so they were not compared;"
            " 'yolo-clearml verify' reports when they can."
        )
    for difference in contradictions[:_SHOWN]:
        yield f"ClearML holds another {difference}; --force overwrites it."
    if len(contradictions) > _SHOWN:
        yield f"ClearML holds {len(contradictions) - _SHOWN} more values otherwise; --force overwrites them."
