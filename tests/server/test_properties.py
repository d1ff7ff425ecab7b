"""User properties that came with a later version: added where a task has ended, without opening it again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from live import expected, report_live
from uploading import end_state, fails, upload

from yolo_clearml.replay.parameters import COMPARED
from yolo_clearml.replay.rules import Wishes
from yolo_clearml.rundir.listing import listing
from yolo_clearml.sync.ledger import FileLedgers, settled_stamp
from yolo_clearml.sync.outcomes import Delivered, Failed, UpToDate
from yolo_clearml.sync.verdict import Kind, Verdict
from yolo_clearml.sync.work import Aim

FINISHED, DIED = "v8.4.190-detect-noplots", "v8.4.190-detect-killed"
Earlier = Callable[[str], Path]


@pytest.fixture
def earlier(server: ClearMLDouble, make_run: MakeRun) -> Earlier:
    """Give a function that makes a run as a version delivered it that did not have these properties."""

    def deliver(name: str) -> Path:
        run = make_run(name)
        assert [] == fails(upload([run]))
        (task,) = server.tasks.values()
        for added in COMPARED:
            del task["hyperparams"]["properties"][added]
        forget(run)
        return run

    return deliver


def forget(run: Path) -> None:
    with FileLedgers().hold(run) as held:
        sent = {**held.ledger.sent, "properties": "0" * 16}
        settled = settled_stamp(listing(run), repr((Wishes(), None)))  # as that version wrote it
        held.save(replace(held.ledger, sent=sent, settled=settled))


def properties(server: ClearMLDouble) -> dict[str, str]:
    (task,) = server.tasks.values()
    return {name: item["value"] for name, item in task["hyperparams"]["properties"].items()}


def proof(run: Path) -> Verdict:
    (outcome,) = upload([run], aim=Aim.VERIFY)
    assert isinstance(outcome, UpToDate)
    assert outcome.proof is not None
    return outcome.proof


@pytest.mark.parametrize("name", [FINISHED, DIED])
def test_a_task_that_has_ended_gets_them_unopened(server: ClearMLDouble, earlier: Earlier, name: str) -> None:
    """What it holds and when it ended stays; the next upload has nothing to do, and it is verified."""
    run = earlier(name)
    (task,) = server.tasks.values()
    before = copy.deepcopy(task)
    assert set(COMPARED) == {difference.title for difference in proof(run).differences}
    server.requests.clear()
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert ["tasks.get_all_ex", "tasks.edit_hyper_params"] == [
        request.endpoint for request in server.requests if request.endpoint != "auth.login"
    ]
    assert ("shapes-detect", "tiny-detect", "detect") == tuple(map(properties(server).get, COMPARED))
    assert {"hyperparams", "last_change"} == {key for key in before if before[key] != task[key]}
    server.requests.clear()
    assert isinstance(upload([run])[0], UpToDate)
    assert [] == server.requests
    assert () == proof(run).differences


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        (FINISHED, {"status": "published"}),
        (FINISHED, {"status": "failed"}),
        (FINISHED, {"status": "closed"}),
        (FINISHED, {"system_tags": ["archived"]}),
        (DIED, {"status": "stopped", "status_reason": "Stopped by user"}),
    ],
)
def test_one_that_a_person_closed_stays_and_nothing_fails(
    server: ClearMLDouble, earlier: Earlier, name: str, closed: dict[str, Any]
) -> None:
    """It was up to date, and so it is; that they are not added is said once."""
    run = earlier(name)
    (task,) = server.tasks.values()
    task |= closed
    state = end_state(server)
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered), fails([outcome])
    assert "its user properties stay as they are" in outcome.notes[-1]
    assert isinstance(upload([run])[0], UpToDate)
    assert state == end_state(server)
    verdict = proof(run)
    assert {Kind.STATUS} >= {difference.kind for difference in verdict.differences}
    assert verdict.closed is not None
    del task["hyperparams"]["properties"]["run_directory"]  # it had that one
    lost = [difference.title for difference in proof(run).differences]
    assert ["run_directory"] == [title for title in lost if title]


def test_one_that_the_callback_reported_and_a_person_published(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    run = make_run("v8.4.190-detect")
    live = report_live(server, expected("v8.4.190-detect.expected"), run)
    assert [] == fails(upload([run]))
    for added in COMPARED:
        del server.tasks[live]["hyperparams"]["properties"][added]
    forget(run)
    server.tasks[live]["status"] = "published"
    state = end_state(server)
    assert [] == fails(upload([run]))
    assert state == end_state(server)
    assert () == proof(run).differences


def test_where_more_than_these_is_new_a_closed_task_fails_as_ever(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """A run that has gone on is not taken for delivered."""
    run = make_run(DIED)
    lines = (run / "results.csv").read_text().splitlines(keepends=True)
    (run / "results.csv").write_text("".join(lines[:-1]))
    upload([run])
    (task,) = server.tasks.values()
    task["status"] = "published"
    (run / "results.csv").write_text("".join(lines))
    forget(run)
    state = end_state(server)
    (outcome,) = upload([run])
    assert isinstance(outcome, Failed)
    assert "was published" in str(outcome.error)
    assert state == end_state(server)


def test_a_status_that_is_not_there_yet_is_sent_as_well(server: ClearMLDouble, earlier: Earlier) -> None:
    """A task that was opened and left by a kill is ended."""
    run = earlier(FINISHED)
    (task,) = server.tasks.values()
    task["status"] = "in_progress"
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert "completed" == task["status"]
    assert set(COMPARED) <= set(properties(server))
