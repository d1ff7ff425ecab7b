"""The trainings of a tuning as children of its task, so that ClearML shows them as one tree.

    a training's key --runtime, or the mark of a task that others made--> its task --tasks.edit--> parent

A training knows nothing of its tuning, so all of it is the tuning's to do. What has no task yet is not
acknowledged, and so looked for again. What a person has published, archived or closed stays as it is. A
parent is no sign of life and can be written in any status (apiserver/services/tasks.py, edit with ``force``),
so a training that has ended stays as it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..events import Child, Plan, Report, but_points
from ..sync.sinks import Acknowledged, Noted, Step
from . import siblings
from .api import Api
from .ownership import key_of
from .payloads import PROPERTIES, RUNTIME_KEY, Json
from .tasks import change, is_closed

_FIELDS = ["id", "parent", "created", "status", "status_reason", "system_tags", "runtime", "hyperparams"]
_PLACES = (f"runtime.{RUNTIME_KEY}", f"hyperparams.{PROPERTIES}.{RUNTIME_KEY}.value")
_MOST_NAMED = 5  # trainings in a note


def adopt(api: Api, task_id: str, reports: Sequence[Report]) -> Iterator[Step]:
    """Make the tasks of trainings children of a tuning's; raises as `tasks.change` does.

    Notes name those that ClearML has no task of, and those whose task a person has closed.
    """
    lacking: list[str] = []
    closed: list[str] = []
    for report in reports:
        children = [event for event in report.events if isinstance(event, Child)]
        tasks = [(child, _task_of(api, child)) for child in children]
        for child, task in tasks:
            if task is None:
                lacking.append(child.place)
            elif task.get("parent") != task_id and is_closed(task, stopped=True):
                closed.append(child.place)
            elif task.get("parent") != task_id:
                entry = {"task": task["id"], "parent": task_id, "force": True}
                change(api, task["id"], "tasks.edit", entry)
        if all(task is not None for _, task in tasks):
            yield Acknowledged((report,), 0, 0, 0)
    if lacking:
        yield Noted(
            f"ClearML has no task yet of {len(lacking)} of its trainings ({_named(lacking)}): upload them,"
            " then this folder again, and they become its children."
        )
    if closed:
        yield Noted(
            f"The tasks of {len(closed)} of its trainings ({_named(closed)}) were published, archived or"
            " closed in ClearML, so they are left as they are and do not become its children."
        )


def _named(places: Sequence[str]) -> str:
    more = len(places) - _MOST_NAMED
    return ", ".join(places[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def parents(api: Api, plan: Plan, task_id: str) -> dict[str, str | None]:
    """Give the parent of each training of a plan that has a task, by the training's key; None: none.

    Of a task that a person has closed it is what it should be, ``task_id``, for `adopt` leaves it alone.
    """
    found = {e.key: _task_of(api, e) for e in but_points(plan.reports) if isinstance(e, Child)}
    return {
        key: task_id if is_closed(task, stopped=True) else task.get("parent") or None
        for key, task in found.items()
        if task is not None
    }


def _task_of(api: Api, child: Child) -> Json | None:
    """Find the task of a training; of several, the one that was made first."""
    for place in _PLACES:
        query = {place: child.key, "only_fields": _FIELDS, "search_hidden": True}
        page = {"order_by": ["created"], "page": 0, "page_size": 100}
        rows = api.rows("tasks.get_all_ex", query | page, "tasks")
        # a server that ignores the filter gives others as well
        tasks = [t for t in rows if key_of(t) == child.key and siblings.may_hold(child.first_rows, t)]
        if tasks:
            return min(tasks, key=lambda task: (str(task.get("created")), task["id"]))
    return None
