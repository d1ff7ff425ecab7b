"""Arguments as ``task.connect`` stores them, and the task's user properties. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

from ..events import (
    GUESSED,
    Parameter,
    Properties,
    RunState,
)
from ..rundir.dating import Dated
from ..rundir.run import Run
from .draft import sendable
from .eras import Era
from .names import save_dir
from .placeholders import UNKNOWN, stated_data, stated_model, stated_task

ITERATIONS = "iterations"  # the property that states how many a tuning has had
# what tasks are compared by; those that were made before it was added lack it
COMPARED = {"dataset": stated_data, "model": stated_model, "task": stated_task}


def connected(values: Mapping[str, object], era: Era) -> dict[str, Parameter]:
    """Store arguments as ``task.connect(dict)`` does: dictionaries become ``a/b``, None becomes ""."""
    stored = {}
    for name, value in _flat(values):
        text = "" if value is None else json.dumps(value) if isinstance(value, list) else str(value)
        kind = era.none_type if value is None else _type_name(value)
        stored[sendable(name)] = Parameter(sendable(text), era.argument_types.get(name, kind))
    return stored


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _type_name(value: object) -> str:
    if isinstance(value, list) and value and all(type(item) is type(value[0]) for item in value):
        return f"list/{type(value[0]).__name__}"
    return type(value).__name__


def user_properties(run: Run) -> Properties:
    """What ClearML has no field for that could be set: true times, and where the run came from.

    And what a table of many tasks is compared by, each short enough for a column.
    """
    values = {
        "trained_from": _date(run, run.times.began),
        "run_directory": save_dir(run),
        "release": f"{run.releases}{'' if run.releases.known else GUESSED}",
    }
    # the same names in every state: a run that is resumed writes over what was reported when it had stopped
    live, asked = run.state is RunState.LIVE, run.args.get("epochs", UNKNOWN)
    values["trained_until"] = "still training" if live else _date(run, run.times.ended)
    values["epochs"] = f"of {asked}" if live else f"{len(run.table.rows)} of {asked}"
    for name, stated in COMPARED.items():
        values[name] = stated(run) or UNKNOWN
    return Properties(values)


def _date(run: Run, milliseconds: int) -> str:
    """Write when something happened and, where it is not as sure as can be, what that rests on."""
    if run.dated is Dated.NOTHING:
        return f"unknown: {run.dated.value}, {_iso(run.times.ended)}"
    return _iso(milliseconds) + (f" ({run.dated.value})" if run.dated.value else "")


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")
