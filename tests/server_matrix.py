"""What a server is asked besides what the tool asks on good days: each call in each status, and odd ones.

The courses take a function that sends a request and gives the reply's data, of whatever status, and the name
of a project of their own. What comes of a request is for whoever records it to see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
Ask = Callable[..., Json]

STEPS: dict[str, tuple[str, ...]] = {
    "created": (),
    "in_progress": ("started",),
    "stopped": ("started", "stopped"),
    "completed": ("started", "completed"),
    "failed": ("started", "failed"),
    "published": ("started", "completed", "publish"),
}
PARAMETER = {"section": "General", "name": "a", "value": "1", "type": "int"}
PROPERTY = {"section": "properties", "name": "yolo_clearml", "value": "key", "type": "str"}
FIELDS = ["id", "name", "status", "status_reason", "project", "created", "runtime", "output.destination"]

# each is tried in each status, on a task of its own
CALLS: dict[str, tuple[str, Json]] = {
    "edit_runtime": ("tasks.edit_runtime", {"add_or_update": {"k": "v"}}),
    "edit_runtime_force": ("tasks.edit_runtime", {"add_or_update": {"k": "v"}, "force": True}),
    "edit_runtime_field": ("tasks.edit_runtime", {"runtime": {"k": "v"}, "force": True}),
    "hyper": ("tasks.edit_hyper_params", {"hyperparams": [PARAMETER]}),
    "hyper_force": ("tasks.edit_hyper_params", {"hyperparams": [PARAMETER], "force": True}),
    "property": ("tasks.edit_hyper_params", {"hyperparams": [PROPERTY]}),
    "ping": ("tasks.ping", {}),
    "started": ("tasks.started", {}),
    "stopped": ("tasks.stopped", {}),
    "completed": ("tasks.completed", {}),
    "update": ("tasks.update", {"comment": "c", "tags": ["x"]}),
    "get_by_id": ("tasks.get_by_id", {}),
}
NO_TASK = "f" * 32
MOMENT = 1_795_808_242_207  # milliseconds


class _Tasks:
    """Makes tasks in a project of their own."""

    def __init__(self, ask: Ask, project: str) -> None:
        self._ask = ask
        self.project: str = ask("projects.create", {"name": project, "description": ""})["id"]

    def make(self, name: str, status: str = "created", **fields: Any) -> str:
        body = {"name": name, "project": self.project, "type": "training", **fields}
        task: str = self._ask("tasks.create", body)["id"]
        for step in STEPS[status]:
            self._ask(f"tasks.{step}", {"task": task})
        return task

    def model(self, name: str, task: str) -> str:
        body = {"name": name, "uri": "http://127.0.0.1/x.pt", "task": task, "project": self.project}
        labels = {"a.b": 0, "c d": 1}
        more = {"labels": labels, "framework": "PyTorch", "ready": False}
        model: str = self._ask("models.create", body | more)["id"]
        return model


def _scalar(task: str, iteration: int, value: Any = 0.5, metric: str = "m") -> Json:
    event = {"type": "training_stats_scalar", "task": task, "iter": iteration, "timestamp": MOMENT}
    return event | {"metric": metric, "variant": "v", "value": value}


def matrix(ask: Ask, project: str) -> None:
    """Every status with every call of the tool; odd events; what is unknown or misspelt."""
    tasks = _Tasks(ask, project)
    ask("projects.create", {"name": project, "description": ""})
    for status in STEPS:
        for name, (endpoint, body) in CALLS.items():
            key = f"{status}-{name}"
            ask(endpoint, {"task": tasks.make(key, status, runtime={"yolo_clearml": key}), **body})
        _events_and_models(ask, tasks, status)
    _look_ups(ask, tasks)
    _odd(ask, tasks)


def _events_and_models(ask: Ask, tasks: _Tasks, status: str) -> None:
    task = tasks.make(f"{status}-events", status)
    ask("events.add_batch", [_scalar(task, 0)])
    ask("events.add_batch", [_scalar(task, 1, 0.25), _scalar(NO_TASK, 0)])
    model = tasks.model(f"model-{status}", task)
    link = {"task": task, "model": model, "name": "Output Model", "type": "output", "iteration": 1}
    ask("tasks.add_or_update_model", link)
    ask("models.edit", {"model": model, "labels": {"a": 0}})
    fields = ["id", "name", "uri", "labels", "created", "project"]
    for endpoint in ("models.get_all", "models.get_all_ex"):
        ask(endpoint, {"task": [task], "only_fields": fields})
    for endpoint in ("tasks.get_all", "tasks.get_all_ex"):
        fields = [*FIELDS, "models.output", "hyperparams.properties"]
        ask(endpoint, {"id": [task], "only_fields": fields})


def _look_ups(ask: Ask, tasks: _Tasks) -> None:
    own = {"project": [tasks.project], "only_fields": ["id", "name", "project", "hyperparams"]}
    ask("tasks.get_all_ex", {"hyperparams.properties.yolo_clearml.value": "key", **own})
    ask("tasks.get_all_ex", {"hyperparams.General.a.value": "1", **own})
    ask("tasks.get_all_ex", {"runtime.yolo_clearml": "completed-property", **own})


def _odd(ask: Ask, tasks: _Tasks) -> None:
    task = tasks.make("events-odd", "in_progress")
    for value in (math.nan, 1e39, "text", None, True):
        ask("events.add_batch", [_scalar(task, 5, value), _scalar(task, 6)])
    ask("events.add_batch", [_scalar(task, 7, metric="")])
    ask("events.add_batch", [])
    # what is expanded in a reply is refused in a request
    ask("models.create", {"name": "bad", "uri": "x", "task": task, "project": {"id": tasks.project}})
    ask("tasks.get_by_id", {"task": "0" * 32})
    ask("tasks.create", {"name": "ab", "project": tasks.project, "type": "training"})
    ask("tasks.nothing", {})
    ask("tasks.edit_runtime", {})
    metric = {"metric": "m", "variants": ["v"]}
    ask("events.scalar_metrics_iter_raw", {"task": task, "metric": metric, "batch_size": 100})
    ask("events.get_task_single_value_metrics", {"tasks": [task]})
    images = {"event_type": "training_debug_image", "batch_size": 10}
    ask("events.get_task_events", {"task": task, **images})
    ask("events.get_scalar_metrics_and_variants", {"task": task})
    ask("tasks.get_all_ex", {"id": ["x"]}, token="malformed")


def deletions(ask: Ask, project: str) -> None:
    """What the tool does to tasks and models that are too many, and to one that is reset; console lines."""
    tasks = _Tasks(ask, project)
    for status in STEPS:
        for force in ({}, {"force": True}):
            task = tasks.make(f"{status}-edit", status)
            ask("tasks.edit", {"task": task, "runtime": {"yolo_clearml": "key"}, **force})
            model = tasks.model(f"{status}-model", task)
            ask("tasks.add_or_update_model", {"task": task, "model": model, "name": "m", "type": "output"})
            ask("events.add_batch", [_line(task, "one"), _line(task, "two")])
            ask("models.delete", {"model": model, "delete_external_artifacts": False, **force})
            ask("models.get_all", {"id": [model], "only_fields": ["id"]})
            ask("tasks.delete", {"task": task, "delete_external_artifacts": False, **force})
            ask("tasks.get_all_ex", {"id": [task], "only_fields": ["id", "runtime", "models.output"]})
    ask("tasks.edit", {"task": NO_TASK, "runtime": {}})
    ask("tasks.delete", {"task": NO_TASK, "force": True})
    ask("models.delete", {"model": NO_TASK, "force": True})


def moves(ask: Ask, project: str) -> None:
    """What --move does: a task gets another project and name, in any status; and what is refused."""
    tasks = _Tasks(ask, project)
    there = ask("projects.create", {"name": f"{project}/there", "description": ""})["id"]
    for status in STEPS:
        task = tasks.make(f"{status}-move", status)
        for fields in ({"name": f"{status}-moved", "project": there}, {"name": "again"}, {"name": "again"}):
            ask("tasks.update", {"task": task, **fields})
        ask("tasks.get_all_ex", {"id": [task], "only_fields": ["id", "name", "status", "project"]})
    ask("tasks.update", {"task": task, "project": NO_TASK})
    ask("tasks.update", {"task": task, "name": "ab"})
    ask("tasks.update", {"task": NO_TASK, "name": "again"})


def artifacts(ask: Ask, project: str) -> None:
    """What becomes of artifacts in each status, of one that is there already, and of odd names."""
    tasks, fields = _Tasks(ask, project), ["id", "status", "execution.artifacts"]
    for status in STEPS:
        task = tasks.make(f"{status}-artifacts", status)
        for size in (1, 2):
            entry: Json = {"key": "a/b.json", "type": "custom", "mode": "output"}
            entry |= {"uri": "http://127.0.0.1/b.json"}
            entry |= {"hash": "0" * 64, "content_size": size, "timestamp": MOMENT // 1000}
            entry |= {"type_data": {"preview": "b.json - 1 bytes\n", "content_type": "application/json"}}
            ask("tasks.add_or_update_artifacts", {"task": task, "artifacts": [entry], "force": True})
            ask("tasks.get_all_ex", {"id": [task], "only_fields": fields, "search_hidden": True})
    task = tasks.make("odd-artifacts", "in_progress")
    for key in ("$a", "a.b", "\u00e4 b", "", "a" * 300):
        entry = {"key": key, "type": "custom", "mode": "output", "uri": "u"}
        ask("tasks.add_or_update_artifacts", {"task": task, "artifacts": [entry], "force": True})
        ask("tasks.get_all_ex", {"id": [task], "only_fields": fields, "search_hidden": True})
    ask("tasks.add_or_update_artifacts", {"task": NO_TASK, "artifacts": [entry]})


def console(ask: Ask, project: str) -> None:
    """What a task's console holds, in pages."""
    task = _Tasks(ask, project).make("console", "in_progress")
    ask("events.get_task_log", {"task": task})
    for after in range(4):
        ask("events.add_batch", [_line(task, f"line {after}", after)])
    for page in ({}, {"batch_size": 2, "navigate_earlier": True}, {"navigate_earlier": False}):
        ask("events.get_task_log", {"task": task, **page})
        ask("events.get_task_log", {"task": task, "from_timestamp": MOMENT + 2, **page})
    ask("events.get_task_log", {"task": task, "order": "asc"})


def _line(task: str, text: str, after: int = 0) -> Json:
    return {"type": "log", "task": task, "timestamp": MOMENT + after, "level": "info", "msg": text}
