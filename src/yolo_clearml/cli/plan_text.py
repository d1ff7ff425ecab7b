"""A plan in words and as JSON, for a dry run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import assert_never

from ..errors import shown_value
from ..events import (
    STATUS,
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
)
from ..server import task_log
from ..sync.outcomes import Delivered, Failed
from .wording import as_asked, printable, sent_text, shown_path


def plan_lines(outcome: Delivered | Failed, plan: Plan, pending: Sequence[Report]) -> Iterator[str]:
    """Write a plan for a person: every event that would be sent, one a line, the same every time."""
    yield f"{shown_path(outcome.run)}: would send {sent_text(outcome)}{as_asked(outcome.facts)}"
    known = f"  id {outcome.task_id}" if outcome.task_id else ""
    tags = ", ".join(plan.tags) or "-"
    yield printable(f"  task     {plan.project} / {plan.name}  tags {tags}{known}")
    for report in pending:
        for event in report.events:
            for line in _event_lines(event):
                yield f"  {printable(line)}"
    if any(report.key == STATUS for report in pending):
        for line in (task_log.upload(plan) or "").splitlines():
            yield f"  console  {printable(line)}"
    for fact in plan.missing:
        yield f"  missing  {printable(fact)}"
    for note in noted(outcome, plan):
        yield f"  note     {printable(note)}"


def noted(outcome: Delivered | Failed, plan: Plan) -> Sequence[str]:
    """Give what a person should know of a run's plan, or also of what would become of its task."""
    return outcome.notes if isinstance(outcome, Delivered) else plan.notes


def _event_lines(event: Event) -> Iterator[str]:
    match event:
        case Hyperparameters(section, values):
            for name, parameter in values.items():
                value = shown_value(name, parameter.value)
                yield f"param    {section}/{name} = {value!r} ({parameter.type or 'untyped'})"
        case Properties(values):
            for name, value in values.items():
                yield f"property {name} = {value!r}"
        case Scalar():
            yield f"scalar   {event.title} / {event.series} [{event.iteration}] = {event.value!r}"
        case SingleValue():
            yield f"single   {event.name} = {event.value!r}"
        case Image():
            yield f"image    {event.title} / {event.series} [{event.iteration}] <- {event.file.name}"
        case Plot():
            yield f"plot     {event.title} [{event.iteration}] <- {event.file.name}"
        case DrawnPlot():
            yield f"plot     {event.title} [{event.iteration}] <- drawn from results.csv"
        case OutputModel():
            labels = ", ".join(event.labels) or "none"
            yield f"model    {event.name} <- {event.file.name} ({event.file.size} bytes, labels: {labels})"
        case Artifact():
            yield f"artifact {event.name} ({event.file.size} bytes)"
        case Child():
            yield f"child    {event.place}"
        case Status(state):
            word = {RunState.LIVE: "in_progress", RunState.FINISHED: "completed", RunState.STOPPED: "stopped"}
            yield f"status   {word[state]}"
        case _:
            assert_never(event)


def plan_json(plan: Plan, pending: Sequence[Report]) -> dict[str, Any]:
    """Give a plan as JSON can hold it: the same events, times included, in the order of sending."""
    return {
        "key": plan.key,
        "project": plan.project,
        "name": plan.name,
        "tags": list(plan.tags),
        "reports": [
            {"key": report.key, "events": [_event_json(e) for e in report.events]} for report in pending
        ],
        "missing": list(plan.missing),
        "notes": list(plan.notes),
    }


def _event_json(event: object) -> Any:
    if isinstance(event, RunState):
        return event.value
    if isinstance(event, Hyperparameters):
        hidden = {n: replace(p, value=shown_value(n, p.value)) for n, p in event.values.items()}
        event = replace(event, values=hidden)
    if isinstance(event, dict):
        return {str(name): _event_json(value) for name, value in event.items()}
    if isinstance(event, tuple):
        return [_event_json(value) for value in event]
    if isinstance(event, float) and not math.isfinite(event):
        return None
    slots = getattr(type(event), "__slots__", None)
    if slots is None:
        return event
    fields = {name: _event_json(getattr(event, name)) for name in slots}
    kind = type(event).__name__
    return fields if kind in ("FileStamp", "Behind", "Parameter") else {"event": kind, **fields}
