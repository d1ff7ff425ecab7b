"""--new goes on with a task that it has begun, but for one that a person has closed since."""

from __future__ import annotations

from conftest import MakeRun
from double import ClearMLDouble, Status
from uploading import fails, upload

from yolo_clearml.sync.outcomes import Delivered


def test_new_that_was_broken_off_is_given_up_on_a_task_that_is_closed(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The next call says that it is closed, and the one after it makes another task."""
    run = make_run("v8.4.190-detect")
    server.fault("tasks.started", Status(400))
    assert 1 == len(fails(upload([run], new=True)))
    (begun,) = server.tasks.values()
    begun["status"] = "published"
    assert "was published" in fails(upload([run], new=True))[0]
    (outcome,) = upload([run], new=True)
    assert isinstance(outcome, Delivered), fails([outcome])
    assert {begun["id"], outcome.task_id} == set(server.tasks)
