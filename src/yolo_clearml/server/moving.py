"""A task put where a person wants it: into another project, under another name, and nothing else of it.

    found as an upload finds it --> the project, made where there is none --> tasks.update --> looked at again

One request sets both, in any status, and is no sign of life (apiserver/services/tasks.py, update): killed
before or after it, the next upload finds the task where it was or where it is to be.
"""

from __future__ import annotations

from ..errors import ServerRefused, TaskOffLimits
from ..events import Plan
from ..sync.sinks import Moved, from_to
from .api import Api
from .ownership import is_archived, key_of
from .payloads import Json
from .reader import project_called, project_named
from .recognition import Found
from .tasks import (
    PUBLISHED,
    by_id,
    change,
    mark,
    project_of,
    require_no_less,
    require_project,
    require_writable,
)


def move(
    api: Api, plan: Plan, task: Json, found: Found, key: str, project: str | None, name: str | None
) -> Moved:
    """Give a run's task another project and name; None: it keeps its own.

    A task that somebody else reported is marked with the run's ``key`` first, or no later upload would know
    it there. One that is published is moved all the same, since it keeps what it holds, but takes no mark.
    Raises TaskOffLimits where it is archived, or would have to be marked and cannot; and HoldsLess.
    """
    require_no_less(plan, task)
    there = project_named(api, project) if project is not None else None
    stays = project is None or (there is not None and there["id"] == project_of(task))
    if stays and name in (None, task["name"]):
        return Moved(task["id"], api.task_url(project_of(task), task["id"]), None)
    if is_archived(task):
        require_writable(task)
    if key_of(task) is None and found.notes:  # else a person has reset it, and it gets the key again
        if task["status"] in PUBLISHED:
            raise TaskOffLimits(
                f"The task {task['id']} was published in ClearML before it was known to hold this run, so it"
                " stays where it is: moved, it would not be known again.",
                "Move it in ClearML, and report into it with --task-id.",
            )
        mark(api, task, key)
    home = project_of(task)
    was = (project_called(api, home) if home is not None else None, str(task["name"]))
    wanted: Json = {} if name is None else {"name": name}
    if project is not None:
        wanted["project"] = there["id"] if there is not None else require_project(api, project)[0]
    change(api, task["id"], "tasks.update", {"task": task["id"], **wanted})
    now = by_id(api, task["id"])
    if now is None or any(now.get(field) != value for field, value in wanted.items()):
        raise ServerRefused(
            f"The task {task['id']} is not where it was moved to a moment ago.",
            "Another upload may have moved it, as that of a copy of the run; look at it in ClearML.",
        )
    text = f"The task was moved {from_to(was, (project or was[0], name or was[1]))}."
    return Moved(task["id"], api.task_url(project_of(now), task["id"]), text)
