"""The end state of a server as a plain dict in which nothing differs between equal uploads."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from typing import Any
from urllib.parse import unquote

from .events import IMAGE, LOG, PLOT, SCALAR, VECTOR
from .state import Json, State

TASK_FIELDS = (
    "name",
    "type",
    "status",
    "status_reason",
    "status_message",
    "comment",
    "tags",
    "system_tags",
    "hyperparams",
    "configuration",
    "runtime",
    "execution",
    "models",
    "output",
    "parent",
    "last_iteration",
    "last_metrics",
    "container",
)
MODEL_FIELDS = (
    "name",
    "uri",
    "ready",
    "comment",
    "framework",
    "design",
    "labels",
    "tags",
    "system_tags",
    "task",
    "parent",
    "metadata",
)
PROJECT_FIELDS = ("description", "tags", "system_tags", "default_output_destination")
EVENT_FIELDS_LEFT_OUT = ("task", "worker", "@timestamp")
SERVER_TIME = "<server time>"


class _Standins:
    """Replaces the ids and addresses of one server by names that every server shares."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._pattern = re.compile("|".join(re.escape(name) for name in names))

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._pattern.sub(lambda match: self._names[match.group()], value)
        if isinstance(value, dict):
            return {self(key): self(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self(inner) for inner in value]
        if isinstance(value, tuple):
            return tuple(self(inner) for inner in value)
        return value


def _names(state: State, urls: dict[str, str]) -> dict[str, str]:
    names = dict(urls)
    for project in state.projects.values():
        names[project["id"]] = f"<project {project['name']}>"
    counts: dict[str, int] = defaultdict(int)
    for task in state.tasks.values():
        project = state.projects.get(str(task["project"]), {}).get("name", "")
        label = f"{project}/{task['name']}"
        counts[label] += 1
        names[task["id"]] = f"<task {label} {counts[label]}>"
    for model in state.models.values():
        owner = names.get(str(model.get("task")), "")
        label = f"model {model['name']} of {owner}"
        counts[label] += 1
        names[model["id"]] = f"<{label} {counts[label]}>"
    return names


def take(state: State, files: dict[str, bytes], urls: dict[str, str]) -> Json:
    """Return the whole end state; servers that ended the same return equal ones."""
    standin = _Standins(_names(state, urls))
    tasks = {standin(task["id"]): _task(state, task) for task in state.tasks.values()}
    models = {
        standin(model["id"]): {name: model.get(name) for name in (*MODEL_FIELDS, "project")}
        for model in state.models.values()
    }
    projects = {
        project["name"]: {name: project.get(name) for name in PROJECT_FIELDS}
        for project in state.projects.values()
    }
    contents = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    whole = {"projects": projects, "tasks": tasks, "models": models, "files": dict(sorted(contents.items()))}
    result: Json = standin(whole)
    return result


def _task(state: State, task: Json) -> Json:
    result: Json = {name: task.get(name) for name in TASK_FIELDS}
    result["project"] = state.projects.get(str(task["project"]), {}).get("name")
    result["models"] = {
        kind: [{name: value for name, value in item.items() if name != "updated"} for item in items or []]
        for kind, items in task["models"].items()
    }
    for kind in (SCALAR, VECTOR, IMAGE, PLOT):
        result[kind] = {}
        for identity, event in state.events.stored(task["id"], kind).items():
            # the event's own id holds the task's id, so it is named by what makes it
            place = tuple(event.get(name) for name in ("metric", "variant", "iter"))
            key = (*place, unquote(str(event.get("key", ""))))
            result[kind][key] = _event(state, identity, event)
    logged = state.events.stored(task["id"], LOG)
    result[LOG] = [_event(state, identity, event) for identity, event in logged.items()]
    return result


def _event(state: State, identity: str, event: Json) -> Json:
    result = {name: value for name, value in event.items() if name not in EVENT_FIELDS_LEFT_OUT}
    if identity in state.events.stamped:
        result["timestamp"] = SERVER_TIME
    return result
