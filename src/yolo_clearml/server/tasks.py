"""ClearML tasks: found or made for a run, marked as its own, and whether they may be written to.

    look up by id, by run key, by what it holds --> make, look again --> the older of two goes on

A run's own key travels inside ``tasks.create``, so a lost reply, a lost ledger or another machine finds the
same task again. A task that somebody else reported, such as the live callback, is marked with that key in a
user property: a runtime cannot be written to a task that has ended (400/110, apiserver/bll/task/utils.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ..errors import HoldsLess, ServerRefused, TaskOffLimits
from ..events import GUESSED, Plan, Points, Properties, RunState, Status, but_points
from ..replay.parameters import COMPARED, ITERATIONS
from ..sync.verdict import Difference, Kind, Verdict
from . import payloads, recognition, siblings
from .api import Api, RefusedRequest
from .destination import RUNTIME_DESTINATION, Destination, by_default
from .ownership import REASON, WATCHDOG, is_archived, key_of, mark_of
from .payloads import RUNTIME_KEY, Json
from .reader import project_named

CLOSED = ("failed", "closed")  # takes events, but is not started again
PUBLISHED = ("publishing", "published")
_FIELDS = ["id", "name", "status", "status_reason", "project", "created", "runtime", "output.destination"]
_PROPERTIES = "hyperparams.properties"  # the database refuses to be asked for this and for all of them
_FIELDS += ["system_tags", "models.output", _PROPERTIES]
_DELETION = {"force": True, "delete_external_artifacts": False}


def find(api: Api, plan: Plan, task_id: str | None, copy: str) -> tuple[Json | None, recognition.Found]:
    """Find the task of a run, made by us or reported by the live callback, and what came of looking."""
    key = plan.key + copy
    others: set[str] = set()
    task = (
        _known(api, task_id, plan)
        or siblings.own(api, plan, all_by_key(api, key), others)
        or siblings.own(api, plan, _marked(api, plan, key), others)
    )
    # a copy was asked for with --new, whatever there is; and nobody but us reports a tuning
    if task is not None or copy or plan.type != "training":
        return task, recognition.Found(others=frozenset(others))
    found = replace(recognition.search(api, plan, key), others=frozenset(others))
    if found.task_id is not None and found.task_id not in others:
        return by_id(api, found.task_id), found
    notes = found.notes if found.task_id is None else ()
    return None, replace(
        found, task_id=None, notes=(*notes, siblings.note(sorted(others))) if others else notes
    )


def make(
    api: Api, plan: Plan, key: str, found: recognition.Found, output_uri: str | None
) -> tuple[Json, Destination]:
    """Make the task; if another uploader made one meanwhile, both keep the older."""
    project_id, of_project = require_project(api, plan.project, found.projects)
    destination = by_default(api, output_uri, of_project)
    entry = {
        "name": plan.name,
        "project": project_id,
        "type": plan.type,
        "tags": list(plan.tags),
        "comment": plan.comment,
        "runtime": {
            RUNTIME_KEY: key,
            RUNTIME_DESTINATION: destination.address,
            **siblings.runtime_rows(plan),
        },
        "output_dest": destination.address,
    }
    made = api.create(
        "tasks.create",
        entry,
        lambda: next((task["id"] for task in alike(api, plan, key, found.others)), None),
    )
    ours = alike(api, plan, key, found.others)
    if not ours:
        api.call("tasks.delete", {"task": made, **_DELETION})
        raise ServerRefused(
            "ClearML does not find a task by its runtime, so the run would get one more task each time.",
            "Check that the server is ClearML 1.15 or newer.",
        )
    drop_twins(api, key, ours)
    return ours[0], destination


def alike(api: Api, plan: Plan, key: str, others: Collection[str]) -> list[Json]:
    """Find the tasks of this key that may be the run's, oldest first: none of ``others`` or of other rows."""
    return [t for t in all_by_key(api, key) if t["id"] not in others and siblings.may_be(plan, t)]


def by_id(api: Api, task_id: str) -> Json | None:
    """Give a task, with what the functions here look at; None where there is none."""
    query = {"id": [task_id], "only_fields": _FIELDS, "search_hidden": True}
    found = api.rows("tasks.get_all_ex", query, "tasks")
    return next((task for task in found if task["id"] == task_id), None)


def _known(api: Api, task_id: str | None, plan: Plan) -> Json | None:
    """Give the task a ledger names, if it is this run's: a ledger lies in a directory nobody vouches for."""
    task = by_id(api, task_id) if task_id else None
    if task is None or _is_of(task, plan.key):
        return task if task is None or siblings.may_be(plan, task) else None
    # a reset wipes the key, and nothing is lost by writing to a task that holds nothing
    return task if key_of(task) is None and task["status"] == "created" else None


def _is_of(task: Json, key: str) -> bool:
    """Check whether a task is of the run with this key, be it another copy of it."""
    return (key_of(task) or "").startswith(key)


def given_task(api: Api, task_id: str, key: str) -> Json:
    """Give the task a person asks for; raises TaskOffLimits where it is of another run, or cannot change."""
    try:
        task = by_id(api, task_id)
    except RefusedRequest:
        task = None  # an id of another shape
    if task is None:
        raise TaskOffLimits(
            f"There is no task {task_id} in ClearML.",
            "Copy the id from the task's page in ClearML, and check that it is on this server.",
        )
    if key_of(task) is not None and not _is_of(task, key):
        raise TaskOffLimits(
            f"The task {task_id} holds another run, so it is left as it is.",
            "Give the id of this run's own task, or none.",
        )
    if task["status"] in PUBLISHED or is_archived(task):
        require_writable(task)
    return task


def keep_alive(api: Api, task_id: str, key: str) -> bool:
    """Let the server know that a run's training goes on, if its task is in progress; gives whether it is."""
    task = by_id(api, task_id)
    if task is None or not _is_of(task, key) or task["status"] != "in_progress" or is_archived(task):
        return False
    api.call("tasks.ping", {"task": task_id})
    return True


def mark(api: Api, task: Json, key: str) -> None:
    """Write a run's key to a task that somebody else reported, so that any later upload knows it.

    The property shows that another reported it, and survives a reset.
    """
    if mark_of(task) is None:
        payload = {"task": task["id"], "hyperparams": [payloads.mark(key)], "replace_hyperparams": "none"}
        api.call("tasks.edit_hyper_params", payload)


def all_by_key(api: Api, key: str) -> list[Json]:
    """Find the tasks that were made for this key, oldest first."""
    return _found(api, f"runtime.{RUNTIME_KEY}", key)


def _marked(api: Api, plan: Plan, key: str) -> list[Json]:
    """Find the tasks that somebody else reported and that are marked with this key, oldest first.

    So is one that was imported from an offline session.
    """
    marked = _found(api, f"{_PROPERTIES}.{RUNTIME_KEY}.value", key)
    return [task for task in marked if recognition.holds_it(plan, task)]


def _found(api: Api, place: str, key: str) -> list[Json]:
    """Find tasks by a key, oldest first; a server that ignores the filter gives others as well."""
    fields = [field for field in _FIELDS if field != _PROPERTIES] + ["hyperparams"]
    query = {place: key, "only_fields": fields, "search_hidden": True}
    page = {"order_by": ["created"], "page": 0, "page_size": 100}
    found = [task for task in api.rows("tasks.get_all_ex", query | page, "tasks") if key_of(task) == key]
    return sorted(found, key=lambda task: (str(task.get("created")), task["id"]))


def drop_twins(api: Api, key: str, ours: Sequence[Json]) -> None:
    """Delete tasks that were made for a run at the same time as its oldest, and that nobody has used.

    Whoever made one deletes it, but the reply that named it may be lost, or the deletion have failed.
    """
    for task in ours[1:]:
        made_by_us = mark_of(task) is None and (task.get("runtime") or {}).get(RUNTIME_KEY) == key
        # a task that a person has imported can carry our key as well, but never without parameters
        if made_by_us and task["status"] == "created" and not task.get("hyperparams"):
            delete(api, "tasks.delete", {"task": task["id"]}, partial(_exists, api, task["id"]))


def _exists(api: Api, task_id: str) -> bool:
    return by_id(api, task_id) is not None


def change(api: Api, task_id: str, endpoint: str, payload: Json) -> None:
    """Change something of a task; raises as `Api.call` does, and ServerRefused where nothing was changed."""
    updated = api.call(endpoint, payload).get("updated")
    if not isinstance(updated, int) or updated < 1:
        raise ServerRefused(
            f"ClearML did not carry out {endpoint} for the task {task_id}.",
            "Run the same command again; if it stays so, look at the task in ClearML.",
        )


def delete(api: Api, endpoint: str, what: Json, is_there: Callable[[], bool]) -> None:
    """Delete what may be gone already, by another uploader or by a request whose reply was lost."""
    try:
        api.call(endpoint, what | _DELETION)
    except RefusedRequest:
        if is_there():
            raise


def require_project(
    api: Api, name: str, seen: Mapping[str, Json | None] | None = None
) -> tuple[str, str | None]:
    """Give a project's id and the default destination of its models, if it has one; make it where it lacks.

    ``seen`` are projects that were looked for a moment ago, by name.
    """
    with api.alone(name) as again:  # then what was not there a moment ago may be
        looked_for = {name: there for name, there in (seen or {}).items() if there or not again}
        return _project(api, name, looked_for)


def _project(api: Api, name: str, seen: Mapping[str, Json | None]) -> tuple[str, str | None]:
    there = seen[name] if name in seen else project_named(api, name)
    if there is None:
        try:
            entry = {"name": name, "description": ""}
            made = api.create("projects.create", entry, lambda: (project_named(api, name) or {}).get("id"))
        except RefusedRequest:
            there = project_named(api, name)  # another uploader may have made it a moment ago
            if there is None:
                raise
        else:
            return made, None
    return there["id"], there.get("default_output_destination")


def project_of(task: Json) -> str | None:
    """Give the id of a task's project; None where it has none."""
    project = task.get("project")
    return project if isinstance(project, str) and project else None


def given_up(task: Json) -> bool:
    """Check whether the server has stopped a task by itself, because nothing was reported to it for long."""
    return task["status"] == "stopped" and WATCHDOG in str(task.get("status_reason") or "")


def require_writable(task: Json, stopped: bool = False) -> None:
    """Leave alone what a person published, archived, aborted, closed or marked failed.

    With ``stopped``, a task may be aborted: that was done before it was ours to complete, or is overruled.
    """
    status, reason = task["status"], str(task.get("status_reason") or "")
    stopped = stopped or reason.startswith(REASON) or given_up(task)
    open_still = status in ("created", "queued", "in_progress", "completed") or (
        status == "stopped" and stopped
    )
    if open_still and not is_archived(task):
        return
    words = {"stopped": "was aborted", "publishing": "was published", "failed": "has failed"}
    word = words.get(status, f"was {status}")
    hint = "To report the run all the same, make another task with --new"
    if is_archived(task):
        word, hint = "was archived", f"Restore it in ClearML. {hint}"
    elif status in CLOSED:
        hint = f"Reset it in ClearML, where nothing in it is to be kept. {hint}"
    raise TaskOffLimits(f"The task {task['id']} {word} in ClearML, so it is left as it is.", f"{hint}.")


def is_closed(task: Json, stopped: bool = False) -> bool:
    """Check whether a person has closed a task to writers, as `require_writable` does."""
    try:
        require_writable(task, stopped)
    except TaskOffLimits:
        return True
    return False


def but_for_added(verdict: Verdict) -> Verdict:
    """Leave out of the differences of a closed task the user properties that came after it was closed."""

    def added(difference: Difference) -> bool:
        return difference.kind is Kind.PROPERTY and difference.title in COMPARED and difference.there is None

    return replace(verdict, differences=tuple(d for d in verdict.differences if not added(d)))


def require_no_less(plan: Plan, task: Json) -> None:
    """Leave alone a task that holds more of the run than the directory does.

    That is a copy cut short on its way, or one that others have overtaken: it looks like a training that
    died, or goes on. Reported from it, a completed task would be stopped, and the whole copy, whose ledger
    has all of it, would never mend it. Raises HoldsLess.
    """
    properties = (task.get("hyperparams") or {}).get(payloads.PROPERTIES)
    counted, what = (ITERATIONS, "iterations") if plan.type != "training" else ("epochs", "epochs")
    reported = _epochs(_value(properties, counted))
    if reported is None or task["status"] == "created":  # by others, or reset
        return
    events = list(but_points(plan.reports))
    stated = next((event.values for event in events if isinstance(event, Properties)), {})
    here = _epochs(stated.get(counted))
    if here is None:  # of a live one it states only how many there are to be
        here = sum(isinstance(report.events, Points) for report in plan.reports)
    finished = Status(RunState.FINISHED) in events
    hint = "To report what is here by itself, make another task with --new."
    if here < reported:
        raise HoldsLess(
            f"holds {here} of the {reported} {what} that ClearML has of this run, in {task['id']}",
            f"Upload a whole copy of it. {hint}",
        )
    if here == reported and not finished and task["status"] == "completed" and mark_of(task) is None:
        raise HoldsLess(
            f"does not show that the training finished, as ClearML knows, in {task['id']}",
            f"Nothing of it is lost there. {hint}",
        )
    known = _value(properties, "release") or GUESSED
    if stated.get("release", "").endswith(GUESSED) and not known.endswith(GUESSED):
        # without its checkpoints: by another release's rules it would get curves beside those it has
        raise HoldsLess(
            f"does not show any more which release trained it, as ClearML knows, in {task['id']}",
            f"Nothing of it is lost there. {hint}",
        )


def _value(properties: object, name: str) -> str | None:
    try:
        return str(properties[name]["value"])  # type: ignore[index]
    except (KeyError, TypeError):
        return None


def _epochs(text: object) -> int | None:
    """Read how many epochs there were from the user property, such as "3 of 8"."""
    count, _, _ = str(text).partition(" ")
    return int(count) if count.isascii() and count.isdigit() else None


def why_closed(plan: Plan, task: Json, ours: bool) -> str | None:
    """Explain why what differs in a task cannot be mended by --force, where it cannot."""
    try:
        require_writable(task, stopped=not ours and mark_of(task) is None)
        require_no_less(plan, task)
    except HoldsLess as less:
        return f"It {less}. {less.hint}"
    except TaskOffLimits as limits:
        return f"{limits} {limits.hint}"
    return None
