"""What others do to a task while it is reported to, or have put into it before, is not undone."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable

import pytest
from conftest import MakeRun
from double import Altered, ClearMLDouble, DropAfter, Status
from live import expected, report_live
from test_adopt import DETECT, LIVE, delivered
from uploading import fails, upload

from yolo_clearml.errors import Exit, TaskOffLimits
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Failed

KILLED = "v8.4.190-detect-killed"


def before_first(server: ClearMLDouble, endpoint: str, action: Callable[[], object]) -> None:
    """Let somebody else do something just before the first request to an endpoint is carried out."""

    def look(asked: str, number: int) -> None:
        if asked == endpoint:
            server.before_request = None
            action()

    server.before_request = look


def doubled(server: ClearMLDouble) -> tuple[str, str]:
    """Register the one model there is a second time, as another uploader does; gives the ids of both."""
    (model,) = server.models.values()
    entry = {name: model[name] for name in ("name", "uri", "task", "project", "labels")}
    return model["id"], server.ask("models.create", framework="PyTorch", **entry)["id"]


# -- its status -------------------------------------------------------------------------------------------


def test_a_task_that_is_published_gets_nothing_after_the_event_it_refuses(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """One that is alone in its batch: it is the task that is off limits, and no bad event among good ones."""
    run = make_run(DETECT)
    server.fault("models.create", Status(400))
    assert "refused models.create" in fails(upload([run]))[0]  # so the model would be sent next
    (task,) = server.tasks.values()
    shutil.copy(run / "train_batch1.jpg", run / "train_batch0.jpg")
    before_first(server, "events.add_batch", lambda: task.update(status="published"))
    (outcome,) = upload([run])
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TaskOffLimits), outcome.error
    assert ["events.add_batch", "tasks.get_all_ex"] == [r.endpoint for r in server.requests[-2:]]


def test_a_task_that_a_person_aborts_before_its_end_stays_so(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The server would take a completion of it."""

    def abort() -> None:
        (task,) = server.tasks.values()
        task.update(status="stopped", status_reason="by hand")

    run = make_run(DETECT)
    (run / "weights" / "best.pt").unlink()  # a stopped task takes no model
    before_first(server, "events.add_batch", abort)
    assert "was aborted" in fails(upload([run]))[0]
    (task,) = server.tasks.values()
    assert ("stopped", "by hand") == (task["status"], task["status_reason"])


def test_a_task_that_is_not_started_is_not_reported_to(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The server takes events of a task in whatever status, and would show a training that never began."""
    server.fault("tasks.started", Status(400))
    assert "refused tasks.started" in fails(upload([make_run(KILLED)]))[0]
    (task,) = server.tasks.values()
    assert ("created", 0) == (task["status"], server.events_received(task["id"]))


# -- what it holds ----------------------------------------------------------------------------------------


def test_an_argument_of_a_persons_own_stays_beside_what_is_added(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """A task of somebody else's lacks one argument: it gets that, and loses none."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    arguments = server.tasks[live]["hyperparams"]["General"]
    mine = {"section": "General", "name": "mine", "type": "str", "value": "1"}
    wanted = {**arguments, "mine": mine}
    arguments["mine"] = mine
    lost = arguments.pop("epochs")
    delivered(run, task_id=live)
    found = server.tasks[live]["hyperparams"]["General"]
    assert wanted.keys() == found.keys()
    assert lost["value"] == found["epochs"]["value"]


# -- its models -------------------------------------------------------------------------------------------


def test_a_second_model_of_an_adopted_task_is_not_ours_to_delete(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Of our own task it would go, as another uploader's."""
    run = make_run(DETECT)
    told = expected(LIVE) | {"output_model": []}
    report_live(server, told, run)
    delivered(run)
    both = doubled(server)
    delivered(run, force=True)
    assert set(both) == set(server.models)


def test_where_an_adopted_task_keeps_its_models_stays_as_it_was(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """It gets the model that it lacks, and no destination that its owner has not named."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE) | {"output_model": []}, run)
    before = copy.deepcopy(server.tasks[live].get("output"))
    assert (live, 1) == (delivered(run).task_id, len(server.models))
    assert before == server.tasks[live].get("output")


def test_of_two_models_the_older_stays_in_whichever_order_they_come(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """So all uploaders keep the same one."""
    run = make_run(DETECT)
    task = delivered(run).task_id
    older, _ = doubled(server)
    server.fault("models.get_all", Altered(lambda data: {"models": data["models"][::-1]}), times=None)
    delivered(run, force=True)
    assert [older] == list(server.models)
    assert [older] == [each["model"] for each in server.tasks[task]["models"]["output"]]


def test_a_model_that_another_uploader_made_a_moment_before_is_kept(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """It was not there yet when it was looked for; both keep the older."""
    run = make_run(DETECT)
    task = delivered(run).task_id
    (model,) = server.models.values()
    server.ask("models.delete", model=model["id"], force=True)
    (run / LEDGER_NAME).unlink()
    entry = {name: model[name] for name in ("name", "uri", "task", "project", "labels")}
    made: list[str] = []
    before_first(server, "models.create", lambda: made.append(server.ask("models.create", **entry)["id"]))
    delivered(run)
    assert made == list(server.models)
    assert made == [each["model"] for each in server.tasks[task]["models"]["output"]]


# -- what is not confirmed --------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["tasks.edit_hyper_params", "tasks.started", "tasks.completed"])
def test_a_change_of_nothing_is_no_change(server: ClearMLDouble, make_run: MakeRun, endpoint: str) -> None:
    """The server answers 200 and ``updated: 0``."""
    server.fault(endpoint, Altered(lambda data: data | {"updated": 0}))
    assert f"did not carry out {endpoint}" in fails(upload([make_run(DETECT)]))[0]


def test_files_that_cannot_be_read_back_make_an_adoption_fail(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """What the task holds is known but for them; once the file server is well, they are looked at again."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    files = dict(server.files)
    server.fault("files:GET", Status(503), times=None)
    (outcome,) = upload([run], timeout=0.1)
    assert isinstance(outcome, Failed)
    assert Exit.UNREACHABLE == outcome.error.status
    server.clear_faults()
    assert (live, 0, 0) == ((again := delivered(run)).task_id, again.events, again.files)
    assert files == server.files


@pytest.mark.parametrize("endpoint", ["projects.create", "tasks.create", "models.create"])
def test_what_was_made_is_found_after_its_reply_is_lost(
    server: ClearMLDouble, make_run: MakeRun, endpoint: str
) -> None:
    """It is looked for before anything is made again, so that there is nothing to delete."""
    server.fault(endpoint, DropAfter())
    delivered(make_run(DETECT))
    asked = [request.endpoint for request in server.requests]
    assert 1 == asked.count(endpoint)
    assert not {"tasks.delete", "models.delete"} & set(asked)


def test_errors_beside_as_many_events_as_were_sent_are_no_confirmation(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Of two numbers that contradict each other, neither is believed."""
    server.fault("events.add_batch", Altered(lambda data: data | {"errors": 1}), times=None)
    assert isinstance(upload([make_run(DETECT)])[0], Failed)
