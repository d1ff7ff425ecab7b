"""What the server knows - projects, tasks, models - and the rules by which it lets them change."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from .errors import (
    COMPANY,
    ApiError,
    invalid_model,
    invalid_project,
    invalid_task,
    too_short,
    validation_error,
    wrong_status,
)
from .events import IMAGE, PLOT, EventStore, plot_urls

Json = dict[str, Any]

USER = "__allegroai__"
SHORTEST_NAME = 3
DEEPEST_PROJECT = 10
WATCHDOG_SECONDS = 7200.0
ARCHIVED = "archived"

TRANSITIONS: dict[str, set[str]] = {
    "created": {"queued", "in_progress"},
    "queued": {"created", "in_progress"},
    "in_progress": {"stopped", "failed", "created", "completed"},
    "stopped": {"closed", "created", "failed", "in_progress", "published", "publishing", "completed"},
    "closed": {"created", "failed", "published", "publishing", "stopped"},
    "failed": {"created", "stopped", "published"},
    "publishing": {"published"},
    "published": set(),
    "completed": {"published", "in_progress", "created"},
    "unknown": set(),
}
UNFINISHED = ("created", "queued", "in_progress")

# A change of these alone does not count as a sign of life.
USER_FIELDS = {"name", "tags", "system_tags", "comment", "project", "parent"}


def check_name(name: Any, what: str) -> str:
    """Return the stripped name, or refuse one that is too short."""
    stripped = str(name).strip()
    if len(stripped) < SHORTEST_NAME:
        raise too_short(what)
    return stripped


def escape_key(key: str) -> str:
    """Return a runtime key as `tasks.edit_runtime` stores it."""
    key = key.replace("%", "%%").replace(".", "%2E").replace("$", "%24").replace("__", "%_%_")
    return f"%_{key[1:]}" if key.startswith("_") else key


class State:
    """All entities by id, in order of creation; `lock` is held around every call from outside."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock: Callable[[], float] = time.time
        self.projects: dict[str, Json] = {}
        self.tasks: dict[str, Json] = {}
        self.models: dict[str, Json] = {}
        self.queues: dict[str, Json] = {}
        self.events = EventStore(self)
        self.delete_file: Callable[[str], None] = lambda url: None

    def now(self) -> str:
        """Return the server's time as it stands in replies."""
        moment = datetime.fromtimestamp(self.clock(), timezone.utc)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000).isoformat(
            timespec="microseconds"
        )

    def touch(self, task: Json, *, active: bool = False) -> None:
        """Note a sign of life; events, pings and models also show how long the task has been ``active``."""
        task["last_update"] = task["last_change"] = self.now()
        if active and task["status"] == "in_progress" and task.get("started"):
            task["active_duration"] = int(self.clock() - seconds(task["started"]))

    # -- projects ------------------------------------------------------------------------------

    def project(self, project_id: Any) -> Json:
        """Return a project or refuse."""
        if project_id not in self.projects:
            raise invalid_project(project_id)
        return self.projects[project_id]

    def project_named(self, name: str) -> Json | None:
        """Return the project of that full name, if there is one."""
        return next((project for project in self.projects.values() if project["name"] == name), None)

    def create_project(self, body: Json) -> str:
        """Create a project and the parents it lacks."""
        parts = [part.strip() for part in str(body["name"]).strip("/").split("/")]
        if any(len(part) < SHORTEST_NAME for part in parts):
            raise validation_error("Project name cannot be blank")
        if len(parts) > DEEPEST_PROJECT:
            raise validation_error("Project path exceeds the maximum allowed depth", depth=DEEPEST_PROJECT)
        if self.project_named("/".join(parts)) is not None:
            raise ApiError(
                400,
                801,
                "Project with the same name already exists",
                name="/".join(parts),
                company=COMPANY,
            )
        parent: str | None = None
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            known = self.project_named(name)
            if known is None:
                own = body if depth == len(parts) else {}
                known = {
                    "id": uuid.uuid4().hex,
                    "name": name,
                    "basename": parts[depth - 1],
                    "user": USER,
                    "company": COMPANY,
                    "created": self.now(),
                    "last_update": self.now(),
                    "description": own.get("description") or "",
                    "tags": list(own.get("tags") or []),
                    "system_tags": list(own.get("system_tags") or []),
                    "default_output_destination": own.get("default_output_destination"),
                    "parent": parent,
                }
                self.projects[known["id"]] = known
            parent = known["id"]
        assert parent is not None
        return parent

    # -- tasks ---------------------------------------------------------------------------------

    def task(self, task_id: Any) -> Json:
        """Return a task or refuse."""
        if task_id not in self.tasks:
            raise invalid_task(task_id)
        return self.tasks[task_id]

    def create_task(self, body: Json) -> str:
        """Create a task; an id cannot be chosen."""
        now = self.now()
        task: Json = {
            "id": uuid.uuid4().hex,
            "name": None,
            "user": USER,
            "company": COMPANY,
            "created": now,
            "last_update": now,
            "last_change": now,
            "status": "created",
            "comment": None,
            "parent": None,
            "project": None,
            "tags": [],
            "system_tags": [],
            "execution": {
                "test_split": 0,
                "parameters": {},
                "model_desc": {},
                "model_labels": {},
                "artifacts": [],
            },
            "script": {"binary": "python", "repository": "", "entry_point": "", "requirements": {}},
            "output": {},
            "models": {"input": [], "output": []},
            "hyperparams": {},
            "configuration": {},
            "runtime": {},
            "container": {},
            "last_iteration": 0,
            "last_metrics": {},
            "last_changed_by": USER,
        }
        self._set_task_fields(task, body)
        if not task["name"]:
            raise validation_error("error for field 'name'. field is required!")
        self.tasks[task["id"]] = task
        return str(task["id"])

    def _set_task_fields(self, task: Json, body: Json) -> Json:
        """Set the editable fields and return those that were named; nothing is set when one is refused."""
        fields: Json = {}
        for name in ("type", "comment", "parent", "tags", "system_tags", "container", "status_message"):
            if body.get(name) is not None:
                fields[name] = body[name]
        if body.get("name") is not None:
            fields["name"] = check_name(body["name"], "name")
        if body.get("project") is not None:
            if body["project"] not in self.projects:
                raise ApiError(
                    400,
                    16,
                    "Invalid value for fields (expecting Project id)",
                    id=body["project"],
                    field="project",
                )
            fields["project"] = body["project"]
        if body.get("output_dest") is not None:
            fields["output"] = {**task["output"], "destination": body["output_dest"]}
        for name in ("script", "execution", "models"):
            if body.get(name) is not None:
                fields[name] = {**task[name], **body[name]}
        if body.get("runtime") is not None:
            # replaced as a whole, keys as they come
            fields["runtime"] = dict(body["runtime"])
        for name in ("hyperparams", "configuration"):
            if body.get(name) is not None:
                fields[name] = body[name]
        if "hyperparams" in fields:
            fields["hyperparams"] = {
                section: {
                    key: {
                        **item,
                        "section": section,
                        "name": key,
                        "value": parameter_value(item.get("value")),
                    }
                    for key, item in items.items()
                }
                for section, items in fields["hyperparams"].items()
            }
        task.update(fields)
        return fields

    def edit_task(self, body: Json) -> Json:
        """`tasks.edit`: everything, of a created task or by force."""
        task = self.task(body["task"])
        if task["status"] != "created" and not body.get("force"):
            raise wrong_status(expected="created", status=task["status"])
        fields = self._set_task_fields(task, body)
        if fields:
            told = ["last_change", "last_changed_by"]
            task["last_change"] = self.now()
            if not set(fields) <= USER_FIELDS:
                self.touch(task)
                told.append("last_update")
            fields |= {name: task[name] for name in told}
        return {"updated": int(bool(fields)), "fields": fields}

    def update_task(self, body: Json) -> Json:
        """`tasks.update`: what a user may always change; no sign of life."""
        task = self.task(body["task"])
        fields = self._set_task_fields(task, {name: body.get(name) for name in USER_FIELDS})
        if fields:
            task["last_change"] = self.now()
            fields |= {"last_change": task["last_change"], "last_changed_by": USER}
        return {"updated": int(bool(fields)), "fields": fields}

    def require_unfinished(self, task: Json) -> None:
        """Refuse unless the task is created, queued or in progress; no force helps."""
        if task["status"] not in UNFINISHED:
            # the server names only one of the three
            raise wrong_status(expected="created", status=task["status"])

    def require_editable_parameters(self, task: Json, sections: Iterable[str], force: bool) -> None:
        """Refuse unless the task's parameters may be edited; user properties always may."""
        names = set(sections)
        if names and names <= {"properties"}:
            return
        if task["status"] not in (UNFINISHED if force else ("created",)):
            raise wrong_status(expected="created", status=task["status"])

    def change_status(self, body: Json, new: str, *, same_is_fine: bool = True, **extra: Any) -> Json:
        """Move a task to another status, or refuse; an ``extra`` of None is cleared, and not returned."""
        task = self.task(body["task"])
        current = task["status"]
        if not body.get("force"):
            if new == current and not same_is_fine:
                raise wrong_status("Task already in requested status", current_status=current, new_status=new)
            if new != current and new not in TRANSITIONS[current]:
                raise wrong_status("Invalid status change", current_status=current, new_status=new)
        now = self.now()
        fields: Json = {
            "status": new,
            "status_reason": body.get("status_reason") or "",
            "status_message": body.get("status_message") or "",
            "status_changed": now,
            "last_update": now,
            "last_change": now,
            "last_changed_by": USER,
            **extra,
        }
        task.update(fields)
        told = {name: value for name, value in fields.items() if value is not None}
        return {"updated": 1, "fields": told}

    def start(self, body: Json) -> Json:
        """`tasks.started`: a task in progress goes on; with any other the time begins anew."""
        task = self.task(body["task"])
        afresh: Json = {}
        if task["status"] != "in_progress" or not task.get("started"):
            afresh = {"started": self.now(), "completed": None, "active_duration": None}
        return {**self.change_status(body, "in_progress", **afresh), "started": 1}

    def finish(self, body: Json, new: str) -> Json:
        """`tasks.stopped`, `tasks.completed` and `tasks.failed`."""
        return self.change_status(body, new, completed=self.now())

    def stop(self, body: Json) -> Json:
        """`tasks.stop`: the abort of the user interface."""
        task = self.task(body["task"])
        if task["status"] == "queued":
            task["status"] = "in_progress"  # a queued task is taken out of its queue first
        return self.finish({**body, "status_message": "Stopped by user"}, "stopped")

    def publish(self, body: Json) -> Json:
        """`tasks.publish`, with the task's last output model."""
        task = self.task(body["task"])
        result = self.change_status(body, "published", same_is_fine=False, published=self.now())
        result["fields"]["output"] = task["output"]
        outputs = task["models"].get("output") or []
        if body.get("publish_model", True) and outputs and outputs[-1]["model"] in self.models:
            self.models[outputs[-1]["model"]]["ready"] = True
        return result

    def run_watchdog(self) -> list[str]:
        """Stop the tasks in progress that were silent for two hours; return their ids."""
        stopped = []
        for task in self.tasks.values():
            if (
                task["status"] == "in_progress"
                and self.clock() - seconds(task["last_update"]) > WATCHDOG_SECONDS
            ):
                self.finish(
                    {
                        "task": task["id"],
                        "force": True,
                        "status_reason": "Forced stop (non-responsive)",
                        "status_message": "Forced stop (non-responsive)",
                    },
                    "stopped",
                )
                stopped.append(task["id"])
        return stopped

    def reset(self, body: Json) -> Json:
        """`tasks.reset`: back to created, without events, runtime and output models."""
        task = self.task(body["task"])
        if task["status"] == "published" and not body.get("force"):
            raise wrong_status(task_id=task["id"], status=task["status"])
        if (
            not body.get("force")
            and task["status"] != "created"
            and "created" not in TRANSITIONS[task["status"]]
        ):
            raise wrong_status("Invalid status change", current_status=task["status"], new_status="created")
        deleted = self._clean_up(task, body)
        task.update(last_iteration=0, last_metrics={}, runtime={})
        task["models"]["output"] = []
        execution = task["execution"]
        execution["artifacts"] = [
            item for item in execution.get("artifacts") or [] if item.get("mode") == "input"
        ]
        if body.get("clear_all"):
            task.update(execution={"artifacts": []}, script={})
        for name in ("started", "completed", "published", "active_duration"):
            task.pop(name, None)
        result = self.change_status(
            {"task": task["id"], "force": True, "status_reason": "reset", "status_message": "reset"},
            "created",
        )
        return {**result, "deleted_models": deleted, "dequeued": {}, "frames": {}, "events": {}}

    def delete_task(self, body: Json) -> Json:
        """`tasks.delete`, with its events and, by default, its output models and files."""
        task = self.task(body["task"])
        if task["status"] != "created" and ARCHIVED not in task["system_tags"] and not body.get("force"):
            raise ApiError(
                400,
                123,
                "Task cannot be deleted (due to status, use force=True)",
                task=task["id"],
                expected="created",
                current=task["status"],
            )
        deleted = self._clean_up(task, body)
        del self.tasks[task["id"]]
        return {
            "deleted": True,
            "updated_children": 0,
            "updated_models": 0,
            "deleted_models": deleted,
            "urls": None,
        }

    def _clean_up(self, task: Json, body: Json) -> int:
        urls = [event["url"] for event in self.events.of(task["id"], IMAGE) if event.get("url")]
        for plot in self.events.of(task["id"], PLOT):
            urls += plot_urls(plot.get("plot_str") or "")
        urls += [item["uri"] for item in task["execution"].get("artifacts") or [] if item.get("uri")]
        deleted = 0
        if body.get("delete_output_models", True):
            for model in [model for model in self.models.values() if model.get("task") == task["id"]]:
                urls.append(model["uri"])
                del self.models[model["id"]]
                deleted += 1
        self.events.delete_of(task["id"])
        if body.get("delete_external_artifacts", True):
            for url in urls:
                self.delete_file(url)
        return deleted

    # -- models --------------------------------------------------------------------------------

    def model(self, model_id: Any) -> Json:
        """Return a model or refuse."""
        if model_id not in self.models:
            raise invalid_model(model_id)
        return self.models[model_id]

    def create_model(self, body: Json) -> str:
        """Create a model; it is ready unless the request says otherwise."""
        check_labels(body.get("labels"))
        if body.get("project"):
            self.project(body["project"])
        if body.get("task"):
            self.task(body["task"])
        now = self.now()
        model: Json = {
            "id": uuid.uuid4().hex,
            "name": check_name(body["name"], "name"),
            "user": USER,
            "company": COMPANY,
            "created": now,
            "last_update": now,
            "uri": body["uri"],
            "ready": True if body.get("ready") is None else body["ready"],
            "comment": body.get("comment") or "",
            "framework": body.get("framework"),
            "design": body.get("design") or {},
            "labels": body.get("labels") or {},
            "tags": list(body.get("tags") or []),
            "system_tags": list(body.get("system_tags") or []),
            "task": body.get("task"),
            "project": body.get("project"),
            "parent": body.get("parent"),
            "metadata": metadata(body.get("metadata")),
        }
        self.models[model["id"]] = model
        return str(model["id"])

    def edit_model(self, body: Json) -> Json:
        """`models.edit` and `models.update`."""
        model = self.model(body["model"])
        check_labels(body.get("labels"))
        names = (
            "comment",
            "uri",
            "framework",
            "design",
            "labels",
            "tags",
            "system_tags",
            "task",
            "project",
            "parent",
            "ready",
        )
        fields = {name: body[name] for name in names if body.get(name) is not None}
        if body.get("name") is not None:
            fields["name"] = check_name(body["name"], "name")
        if "project" in fields:
            self.project(fields["project"])
        if "task" in fields:
            self.task(fields["task"])
        if body.get("metadata") is not None:
            fields["metadata"] = metadata(body["metadata"])
        model.update(fields)
        if fields:
            model["last_update"] = model["last_change"] = now = self.now()
            fields |= {"last_update": now, "last_change": now, "last_changed_by": USER}
        task_id = model.get("task")
        if body.get("iteration") is not None and task_id in self.tasks:
            self._raise_iteration(self.tasks[task_id], body["iteration"])
        return {"updated": int(bool(fields)), "fields": fields}

    def _raise_iteration(self, task: Json, iteration: int) -> None:
        task["last_iteration"] = max(task["last_iteration"], iteration)
        self.touch(task, active=True)

    def link_model(self, body: Json) -> Json:
        """`tasks.add_or_update_model`: one model per name and direction."""
        task = self.task(body["task"])
        self.require_unfinished(task)
        self.model(body["model"])
        items = task["models"].setdefault(body["type"], [])
        item = {"name": body["name"], "model": body["model"], "updated": self.now()}
        for position, known in enumerate(items):
            if known["name"] == body["name"]:
                items[position] = item
                break
        else:
            items.append(item)
        if body.get("iteration") is not None:
            self._raise_iteration(task, body["iteration"])
        self.touch(task, active=True)
        return {"updated": 1}

    def delete_model(self, body: Json) -> Json:
        """`models.delete`; the file goes with it by default."""
        model = self.model(body["model"])
        creator = self.tasks.get(str(model.get("task")))
        if creator and creator["status"] == "published" and not body.get("force"):
            raise ApiError(
                400,
                206,
                "Task that created this model exists (and published, use force=True to delete)",
                task=creator["id"],
            )
        for task in self.tasks.values():
            outputs = task["models"].get("output") or []
            task["models"]["output"] = [item for item in outputs if item["model"] != model["id"]]
        del self.models[model["id"]]
        if body.get("delete_external_artifacts", True):
            self.delete_file(model["uri"])
        return {"deleted": True, "url": model["uri"]}


def seconds(moment: str) -> float:
    """Return a reply's time as seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp()


def parameter_value(value: Any) -> Any:
    """Return a hyperparameter's value if the server takes it."""
    if value is not None and not isinstance(value, str):
        raise validation_error("Hyper parameter value must be a string", value=value)
    return value


def check_labels(labels: Json | None) -> None:
    """Refuse label names that Mongo cannot use as keys."""
    for name in labels or {}:
        if not name or name.startswith("$"):
            raise ApiError(400, 800, "Data validation error (Invalid dictionary key name)", labels=name)


def metadata(items: Any) -> Json:
    """Return metadata as the server keeps it: by key."""
    if isinstance(items, dict):
        return items
    return {item["key"]: dict(item) for item in items or []}
