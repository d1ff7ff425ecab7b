"""What the genuine server does otherwise than one might think, and how the tool keeps to it."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from clearml.backend_api import Session
from conftest import MakeRun
from double import ClearMLDouble, DropAfter, Status
from double.events import PLOT, SCALAR
from live import expected, report_live
from test_adopt import DETECT, LIVE, delivered
from uploading import fails, upload

from yolo_clearml import __version__
from yolo_clearml.errors import Exit
from yolo_clearml.events import FileStamp, OutputModel, Points
from yolo_clearml.replay.rules import Wishes
from yolo_clearml.server import payloads
from yolo_clearml.server import reader as clearml_reader
from yolo_clearml.server.api import Api
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Failed, UpToDate


def said(server: ClearMLDouble, task: str) -> list[str]:
    return [event["msg"] for event in server.logs(task)]


# -- references -------------------------------------------------------------------------------------------


def test_references_are_ids_again() -> None:
    """Of the row itself and of its models; a hyperparameter of such a name is none."""
    row = {
        "id": "1",
        "project": {"id": "2"},
        "parent": {"id": "3"},
        "models": {"output": [{"name": "best", "model": {"id": "4"}}], "input": None},
        "hyperparams": {"General": {"project": {"section": "General", "name": "project", "value": "x"}}},
    }
    flat = row | {"project": "2", "parent": "3"}
    flat["models"] = {"output": [{"name": "best", "model": "4"}], "input": None}
    assert flat == payloads.with_ids(row)
    assert {"id": "1", "project": None} == payloads.with_ids({"id": "1", "project": None})


def test_a_model_without_a_project_states_none() -> None:
    """The server refuses a null there."""
    event = OutputModel("name", FileStamp("weights/best.pt", 1, 0), {}, 0)
    assert "project" not in payloads.model(event, "uri", "task", None)


def test_points_are_sent_as_other_scalars_are() -> None:
    """Written together, each is the same text as by itself."""
    curves = (("train", 'a "quoted" loss'), ("train\n", "größe\u2028"), ("", "\\"))
    for values in ((0.1, 1e-300, 3.4e38), (-0.0, 5e-324, 1.0), (1 / 3, 7, 1e16)):
        points = Points(curves, values, 12, 1_700_000_000_123)
        alone = [payloads.text(payloads.scalar("t", point)) for point in points]
        assert alone == payloads.texts("t", points)


@pytest.mark.parametrize(
    ("new", "page"), [(True, "tasks/t/output/scalars"), (False, "experiments/t/output/metrics/scalar")]
)
@pytest.mark.parametrize(("project", "part"), [("p", "p"), (None, "*")])
def test_the_address_shows_curves(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, new: bool, page: str, project: Any, part: str
) -> None:
    """In the web apps of both ages, also of a task without a project."""
    api = Api(2.0)
    monkeypatch.setattr(Session, "check_min_api_server_version", lambda version: new)
    assert str(api.task_url(project, "t")).endswith(f"/projects/{part}/{page}")


# -- the mark ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "stopped", "failed", "closed", "in_progress"])
def test_an_adopted_task_is_found_by_its_mark_alone(
    server: ClearMLDouble, make_run: MakeRun, status: str
) -> None:
    """Whatever its status, a copy without the ledger finds it, though it has another name and project now."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run, end=None)
    server.tasks[live].update(status=status, status_reason="by somebody")
    assert live == delivered(run).task_id
    assert "tasks.edit_runtime" not in {request.endpoint for request in server.requests}
    server.tasks[live].update(name="renamed", project=None)
    (run / LEDGER_NAME).unlink()
    assert live == delivered(run).task_id
    assert [live] == list(server.tasks)
    assert status == server.tasks[live]["status"]


def test_a_clone_that_is_yet_to_begin_is_not_taken_for_it(server: ClearMLDouble, make_run: MakeRun) -> None:
    """It has the mark, but other hyperparameters and nothing of the run."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    delivered(run)
    clone = dict(server.tasks[live]["hyperparams"])
    clone["General"] = {**clone["General"], "epochs": {**clone["General"]["epochs"], "value": "99"}}
    server.ask("tasks.create", name="Clone of it", type="training", hyperparams=clone)
    server.ask("tasks.delete", task=live, force=True)
    (run / LEDGER_NAME).unlink()
    made = delivered(run).task_id
    assert "created" == next(t["status"] for key, t in server.tasks.items() if key != made)


# -- a task that was stopped by hand ----------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("ours", [False, True])
def test_a_stopped_task_ends_stopped(
    server: ClearMLDouble, make_run: MakeRun, ours: bool, killed: bool
) -> None:
    """Although the training finished; the same after an upload that was stopped before the end."""
    run = make_run(DETECT)
    live = delivered(run).task_id if ours else report_live(server, expected(LIVE), run, end="stopped")
    server.tasks[live].update(status="stopped", status_reason="by hand")
    server.forget_event(live, PLOT, ("results", "plot image", 0))
    (run / LEDGER_NAME).unlink(missing_ok=True)
    if killed:
        server.fault("tasks.stopped", Status(400))
        assert 1 == len(fails(upload([run], task_id=live)))
        assert "in_progress" == server.tasks[live]["status"]
    delivered(run, task_id=live)
    assert ("results", "plot image", 0) in server.plots(live)
    assert "stopped" == server.tasks[live]["status"]
    assert not server.tasks[live]["status_reason"].startswith("yolo-clearml")
    assert isinstance(upload([run])[0], UpToDate)


def test_one_that_the_watchdog_stopped_is_completed(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Nobody decided that."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run, end="stopped")
    server.tasks[live]["status_reason"] = "Forced stop (non-responsive)"
    delivered(run)
    assert "completed" == server.tasks[live]["status"]


# -- events that the index refuses ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 30])
def test_what_the_index_refuses_keeps_no_task_in_progress(
    server: ClearMLDouble, make_run: MakeRun, count: int
) -> None:
    """The task ends and says what it lacks; the next upload tries that again, and waits for nothing."""
    run = make_run(DETECT)
    bad = sorted((*e, i) for e in [("train", "train/box_loss"), ("lr", "lr/pg0")] for i in range(5))[:count]
    whole = count > len(bad)  # everything
    places = set(bad)
    server.poison(
        "document",
        lambda e: e["type"] == SCALAR and (whole or (e["metric"], e["variant"], e["iter"]) in places),
    )
    for most in (90, 60):
        asked = len(server.requests)
        (outcome,) = upload([run], timeout=600.0)  # it would be waited for
        assert isinstance(outcome, Failed)
        assert Exit.SOME_FAILED == outcome.error.status
        assert "refuses" in str(outcome.error)
        assert whole or bad[0][1] in str(outcome.error)
        (task,) = server.tasks.values()
        assert "completed" == task["status"]
        assert task["status_message"].startswith("lacks ") and "refused" in str(said(server, task["id"]))
        assert len(server.requests) - asked <= most
    server.cure()
    delivered(run)
    assert ("completed", "") == (task["status"], task["status_message"])
    assert places <= server.scalars(task["id"]).keys()


def test_an_index_that_refuses_the_console_loses_nothing_else(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The run is delivered and its task ends."""
    server.poison("document", lambda event: event["type"] == "log")
    outcome = delivered(make_run(DETECT))
    assert "completed" == server.tasks[outcome.task_id]["status"]
    assert [] == said(server, outcome.task_id)


# -- the console ------------------------------------------------------------------------------------------


def test_the_console_states_what_came_from_where(server: ClearMLDouble, make_run: MakeRun) -> None:
    """What was replayed by which version, what that is, and what is not on disk; in three lines."""
    outcome = delivered(make_run(DETECT))
    (text,) = said(server, outcome.task_id)
    first, second, third = text.splitlines()
    assert first == (
        f"yolo-clearml {__version__} replayed the run directory"
        " /home/yolov/work/v8.4.190-detect/runs/detect/train, trained with release 8.4.190."
    )
    assert second.startswith("The training finished: 5 of 5 epochs. 70 points, ")
    assert "1 output model" in second
    assert third.startswith("Not on disk, so not in ClearML: model/GFLOPs; ")


@pytest.mark.parametrize("how", ["again by force", "ledger lost", "reply lost"])
def test_the_console_states_it_once(server: ClearMLDouble, make_run: MakeRun, how: str) -> None:
    """ClearML stores a line once more each time it is sent, so it is looked for first."""
    run = make_run(DETECT)
    if how == "reply lost":
        server.fault(
            "events.add_batch", DropAfter(), only=lambda lines: any(e["type"] == "log" for e in lines)
        )
    task = delivered(run).task_id
    if how == "ledger lost":
        (run / LEDGER_NAME).unlink()
    if how != "reply lost":
        delivered(run, force=how == "again by force")
    assert 1 == len(said(server, task))


@pytest.mark.parametrize("lacks", ["nothing", "a plot"])
def test_the_console_of_an_adopted_task_states_what_was_added(
    server: ClearMLDouble, make_run: MakeRun, lacks: str
) -> None:
    """Once; and nothing where nothing was."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    if lacks == "a plot":
        server.forget_event(live, PLOT, ("results", "plot image", 0))
    delivered(run)
    texts = said(server, live)
    assert len(texts) == (lacks == "a plot")
    assert all(text.endswith("/train: 1 plot.") and "added to this task" in text for text in texts)
    (run / LEDGER_NAME).unlink()
    delivered(run, force=True)
    assert texts == said(server, live)


def test_a_console_is_read_to_its_beginning(server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, also where one ends within a millisecond, or holds nothing of another."""
    monkeypatch.setattr(clearml_reader, "_LINES", 3)
    task = server.ask("tasks.create", name="one", type="training")["id"]
    times = [1, 2, 2, 3, 3, 3, 4, 5, 6, 6, 7]
    for number, at in enumerate(times):
        server.ask("events.add", type="log", task=task, timestamp=at, msg=f"{number}")
    lines = list(clearml_reader.console(Api(2.0), task))
    assert {str(number) for number in range(len(times))} == set(lines)


# -- imported ---------------------------------------------------------------------------------------------


def test_an_imported_task_is_completed_by_its_mark(server: ClearMLDouble, make_run: MakeRun) -> None:
    """As the importer makes it: the parameters of task.json, and whatever of the rest has arrived."""
    run = make_run(DETECT)
    task = delivered(run).task_id
    imported = server.tasks[task]
    key = imported["runtime"].pop("yolo_clearml")
    imported["hyperparams"]["properties"]["yolo_clearml"] = payloads.mark(key)
    server.forget_event(task, PLOT, ("results", "plot image", 0))
    copy = shutil.copytree(run, run.parent / "copy")
    (copy / LEDGER_NAME).unlink()
    outcome = delivered(copy, wishes=Wishes(project="elsewhere", name="other"))
    assert (task, 1) == (outcome.task_id, outcome.events)
    assert [task] == list(server.tasks)
