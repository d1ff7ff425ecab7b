"""What is logged to a task's console about its upload: the first page that people look at. Pure.

    yolo-clearml 0.1.0 replayed the run directory /data/runs/exp, trained with release 8.4.190.
    The training finished: 5 of 5 epochs. 70 points, 5 single values, 9 debug images, 9 plots, 1 output model.
    Not on disk, so not in ClearML: model/GFLOPs; model/speed_PyTorch(ms).

That is one event, and ClearML stores it once more each time it is sent. So it states only what follows from
the run, and whoever sends it first looks whether the console has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .. import __version__
from ..events import (
    Artifact,
    DrawnPlot,
    Event,
    Image,
    OutputModel,
    Plan,
    Plot,
    Points,
    Properties,
    RunState,
    Scalar,
    SingleValue,
    Status,
    but_points,
)
from ..replay.wanted import in_words
from .payloads import Json

WORKER = "yolo-clearml"  # who logged it, beside each line of the console
_ENDS = {RunState.FINISHED: "The training finished", RunState.STOPPED: "The training stopped early"}


def event(task_id: str, text: str) -> Json:
    """An event of the console; without a time, so that the server states when it was logged."""
    return {"type": "log", "task": task_id, "level": "info", "worker": WORKER, "msg": text}


def upload(plan: Plan) -> str | None:
    """Describe what the whole of a plan brings; None before its training has ended.

    So a task that was followed ends as one that was uploaded at once.
    """
    facts, state = _facts(plan), _state(plan)
    if state is RunState.LIVE:
        return None
    where = f"the run directory {facts.get('run_directory')}, trained with release {facts.get('release')}"
    counts = counted(_at_once(plan)) or "Nothing else was wanted"
    lines = [
        f"yolo-clearml {__version__} replayed {where}.",
        f"{_ENDS[state]}: {facts.get('epochs')} epochs. {counts}.",
    ]
    if plan.unwanted:
        lines.append(f"Left out, as asked: {', '.join(in_words(plan.unwanted))}.")
    if plan.missing:
        lines.append(f"Not on disk, so not in ClearML: {'; '.join(plan.missing)}.")
    return "\n".join(lines)


def completion(plan: Plan, added: Iterable[Event]) -> str | None:
    """Describe what a task that somebody else reported lacked; None where nobody looks for that."""
    counts = counted(added)
    return f"yolo-clearml {__version__} {completes(plan)}: {counts}." if counts else None


def completes(plan: Plan) -> str:
    """Give what `completion` has in any version, whatever was added: it is logged once."""
    return f"added to this task what it lacked of the run directory {_facts(plan).get('run_directory')}"


def refusal(places: Iterable[str], count: int) -> str:
    """List which events ClearML did not take."""
    return f"yolo-clearml {__version__}: ClearML refused {count} events: {'; '.join(places)}."


def counted(events: Iterable[Event | Points]) -> str:
    """Count what people look for in ClearML, in words; "" where nothing of it is there."""
    counts: Counter[str] = Counter()
    for each in events:
        match each:
            case Points():
                counts["point"] += len(each)
            case Scalar():
                counts["point"] += 1
            case SingleValue():
                counts["single value"] += 1
            case Image():
                counts["debug image"] += 1
            case Plot() | DrawnPlot():
                counts["plot"] += 1
            case OutputModel():
                counts["output model"] += 1
            case Artifact():
                counts["artifact"] += 1
            case _:
                pass
    return ", ".join(f"{count} {what}{'s' if count != 1 else ''}" for what, count in counts.items())


def _at_once(plan: Plan) -> Iterator[Event | Points]:
    """Give what is wanted, the points of an epoch at once: made one by one they take longest."""
    for report in plan.wanted:
        if isinstance(report.events, Points):
            yield report.events
        else:
            yield from report.events


def _facts(plan: Plan) -> dict[str, str]:
    events = (event for report in plan.reports if report.key == "properties" for event in report.events)
    return {name: text for e in events if isinstance(e, Properties) for name, text in e.values.items()}


def _state(plan: Plan) -> RunState:
    states = (event.state for event in but_points(plan.reports) if isinstance(event, Status))
    return next(states, RunState.LIVE)
