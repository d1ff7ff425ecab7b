"""--move: the task of a run goes where --project and --name say, and nothing else of it changes."""

from __future__ import annotations

import copy
import functools
import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Doubles, MakeRun, one_in, sampled
from double import Altered, ClearMLDouble, Status
from killing import WHEN, killed_at_request
from live import expected, report_live
from test_verify import planned
from uploading import clearml_sink, end_state, fails, upload

from yolo_clearml.replay.placeholders import Template, template
from yolo_clearml.replay.rules import Wishes
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, Skipped, UpToDate
from yolo_clearml.sync.sinks import Mover
from yolo_clearml.sync.work import Aim

SMALL = "v8.4.190-detect-noplots"
THERE = Wishes("Lab/Moved", "shapes")
MOVED = f"The task was moved from 'train' in 'Ultralytics' to {THERE.name!r} in {THERE.project!r}."
LIVE = "v8.4.190-detect.expected"


def move(run: Path, wishes: Wishes = THERE, **options: Any) -> Outcome:
    (outcome,) = upload([run], wishes=wishes, move=True, **options)
    return outcome


def moved(run: Path, wishes: Wishes = THERE, **options: Any) -> UpToDate:
    outcome = move(run, wishes, **options)
    assert isinstance(outcome, UpToDate), fails([outcome])
    return outcome


def whereabouts(server: ClearMLDouble, task: str) -> tuple[str, str]:
    return server.projects[server.tasks[task]["project"]]["name"], server.tasks[task]["name"]


def asked(server: ClearMLDouble) -> Counter[str]:
    return Counter(request.endpoint for request in server.requests)


@pytest.fixture
def run(server: ClearMLDouble, make_run: MakeRun) -> Path:
    """Give a run that was uploaded."""
    run = make_run(SMALL)
    assert [] == fails(upload([run]))
    return run


@pytest.fixture
def task(server: ClearMLDouble, run: Path) -> str:
    """Give the id of its task."""
    (task,) = server.tasks
    return task


def test_a_delivered_run_goes_in_one_change(server: ClearMLDouble, run: Path, task: str) -> None:
    """The project is made, one request sets both; no status, event, file or model is touched."""
    before, models, files = (copy.deepcopy(x) for x in (server.tasks[task], server.models, server.files))
    events, home = server.events_received(task), before["project"]
    server.requests.clear()
    outcome = moved(run)
    assert (MOVED,) == outcome.notes
    assert THERE == Wishes(*whereabouts(server, task))
    after = server.tasks[task]
    assert {"name", "project", "last_change"} >= {k for k in before.keys() | after if before[k] != after[k]}
    assert (models, files, events) == (server.models, server.files, server.events_received(task))
    assert 1 == asked(server)["tasks.update"]
    assert {
        "auth.login",
        "tasks.get_all_ex",
        "projects.get_all_ex",
        "projects.create",
        "tasks.update",
    } == set(asked(server))
    ledger = FileLedgers().load(run)
    assert ("Lab/Moved", "shapes") == (ledger.facts["project"], ledger.facts["name"])
    assert ledger.url == outcome.url
    assert outcome.url
    assert f"/projects/{after['project']}/" in outcome.url
    assert home != after["project"]


def test_it_is_moved_once(server: ClearMLDouble, run: Path, task: str) -> None:
    """Run again, it is asked for and found there; without --move nothing is asked at all."""
    moved(run)
    state = end_state(server)
    server.requests.clear()
    assert () == moved(run).notes
    assert "tasks.update" not in asked(server)
    server.requests.clear()
    (outcome,) = upload([run])
    assert isinstance(outcome, UpToDate)
    assert ([], state) == (server.requests, end_state(server))
    assert ("shapes", "Lab/Moved") == (outcome.facts.name, outcome.facts.project)


def test_a_person_who_moved_it_is_overruled_when_asked(server: ClearMLDouble, run: Path, task: str) -> None:
    """What the ledger believes is not enough: --move looks where the task is."""
    moved(run)
    server.tasks[task]["name"] = "by hand"
    (note,) = moved(run).notes
    assert "from 'by hand' in 'Lab/Moved' to 'shapes'" in note
    assert THERE == Wishes(*whereabouts(server, task))


@pytest.mark.parametrize(
    ("wishes", "at"),
    [
        (Wishes(name="other"), ("Ultralytics", "other")),
        (Wishes(project="Lab"), ("Lab", "train")),
        (Wishes(project="Lab", tags=("new",)), ("Lab", "train")),
        (Wishes(name=template("{model} of {data}")), ("Ultralytics", "tiny-detect of shapes-detect")),
    ],
)
def test_what_is_not_wished_for_stays(
    server: ClearMLDouble, run: Path, task: str, wishes: Wishes, at: tuple[str, str]
) -> None:
    """Without --project the project, without --name the name; and the tags in any case."""
    tags = list(server.tasks[task]["tags"])
    outcome = moved(run, wishes)
    assert at == whereabouts(server, task) == (outcome.facts.project, outcome.facts.name)
    assert tags == server.tasks[task]["tags"] == list(outcome.facts.tags)


def test_what_it_was_made_with_is_kept_and_remembered(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Not what the run itself asks for, where something else was wished for once."""
    run = make_run(SMALL)
    upload([run], wishes=Wishes("First/Proj", "first"))
    outcome = moved(run, Wishes(name="second"))
    assert ("First/Proj", "second") == (outcome.facts.project, outcome.facts.name)
    assert {("First/Proj", "second")} == {whereabouts(server, task) for task in server.tasks}
    outcome = moved(run, Wishes(project="Third"))
    assert ("Third", "second") == (outcome.facts.project, outcome.facts.name)
    assert {("Third", "second")} == {whereabouts(server, task) for task in server.tasks}


def test_a_live_run_is_moved_and_that_is_remembered(server: ClearMLDouble, make_run: MakeRun) -> None:
    """It is never settled, so nothing else writes its ledger."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    upload([run], now=lambda: now)
    outcome = moved(run, now=lambda: now)
    (task,) = server.tasks
    assert (MOVED,) == outcome.notes
    assert (*whereabouts(server, task), "in_progress") == (
        "Lab/Moved",
        "shapes",
        server.tasks[task]["status"],
    )
    ledger = FileLedgers().load(run)
    assert (outcome.url, "shapes") == (ledger.url, ledger.facts["name"])


def test_verify_is_the_same_before_and_afterwards(server: ClearMLDouble, run: Path) -> None:
    """With the ledger and without; a proof that was given stays one."""
    (before,) = upload([run], aim=Aim.VERIFY)
    moved(run)
    for _ in range(2):
        (after,) = upload([run], aim=Aim.VERIFY)
        assert isinstance(before, UpToDate)
        assert isinstance(after, UpToDate)
        assert before.proof is not None
        assert after.proof is not None
        assert (before.proof.facts, ()) == (after.proof.facts, after.proof.differences)
        (run / LEDGER_NAME).unlink(missing_ok=True)
    (outcome,) = upload([run])  # found by its key, wherever it is
    assert isinstance(outcome, Delivered)
    assert 1 == len(server.tasks)


def test_news_goes_along(server: ClearMLDouble, make_run: MakeRun) -> None:
    """A run that has something new is moved and brought up to date in one go."""
    run = make_run("v8.4.190-detect")
    upload([run])
    shutil.copy(run / "train_batch0.jpg", run / "val_batch0_pred.jpg")
    outcome = move(run)
    assert isinstance(outcome, Delivered)
    assert (MOVED, 1, 1) == (outcome.notes[-1], outcome.events, outcome.files)
    (task,) = server.tasks
    assert THERE == Wishes(*whereabouts(server, task))
    assert outcome.url is not None
    assert server.tasks[task]["project"] in outcome.url
    (image,) = (key for key in server.files if "val_pred.jpg" in key and "_00000000" in key)
    assert "/Ultralytics/train." in f"/{image}"  # files stay where they are, new ones beside them


def test_a_run_that_clearml_has_not_is_made_there(server: ClearMLDouble, make_run: MakeRun) -> None:
    """With the same command for a whole tree."""
    outcome = move(make_run(SMALL))
    assert isinstance(outcome, Delivered)
    assert THERE == Wishes(*whereabouts(server, outcome.task_id))
    assert not any("moved" in note for note in outcome.notes)


def test_a_task_that_was_deleted_is_made_again(server: ClearMLDouble, run: Path, task: str) -> None:
    """It is looked for, so no message says that it is where it is not."""
    server.ask("tasks.delete", task=task, force=True)
    outcome = move(run)
    assert isinstance(outcome, Delivered), fails([outcome])
    assert task != outcome.task_id
    assert THERE == Wishes(*whereabouts(server, outcome.task_id))
    assert 1 == len(server.tasks)


def test_trees_go_by_their_placeholders(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Runs of one name from several people, each found by where it lay."""
    runs = [make_run(SMALL, f"{who}/train") for who in ("ann", "bob")]
    table = runs[1] / "results.csv"
    table.write_text(table.read_text().replace("\n1,", "\n1,9", 1))  # another training
    upload(runs)
    assert {("Ultralytics", "train")} == {whereabouts(server, task) for task in server.tasks}
    asked_for = template("{parent} {name}")
    assert isinstance(asked_for, Template)
    outcomes = upload(runs, wishes=Wishes(name=asked_for), move=True)
    assert all(isinstance(outcome, UpToDate) for outcome in outcomes)
    assert {"ann train", "bob train"} == {task["name"] for task in server.tasks.values()}


# -- whose task it is, and how it stands ------------------------------------------------------------------


@pytest.mark.parametrize("status", ["published", "stopped", "failed", "closed", "in_progress", "completed"])
def test_it_goes_in_any_status_and_keeps_it(server: ClearMLDouble, run: Path, task: str, status: str) -> None:
    """A person published, aborted or failed it: that is about what it holds."""
    server.tasks[task] |= {"status": status, "status_reason": "by hand"}
    moved(run)
    assert THERE == Wishes(*whereabouts(server, task))
    assert (status, "by hand") == (server.tasks[task]["status"], server.tasks[task]["status_reason"])


def test_an_archived_one_stays(server: ClearMLDouble, run: Path, task: str) -> None:
    """It was put away; that is said, with what to do. One that is there already is none of it."""
    server.ask("tasks.archive", tasks=[task])
    state = end_state(server)
    outcome = move(run)
    assert isinstance(outcome, Failed)
    assert "was archived" in str(outcome.error)
    assert outcome.error.hint.startswith("Restore it in ClearML.")
    assert state == end_state(server)
    assert () == moved(run, Wishes(name="train")).notes


def test_one_that_the_callback_reported_is_marked_and_goes(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Without a mark no later upload would know it; with it, it has no twin."""
    run = make_run("v8.4.190-detect")
    live = report_live(server, expected(LIVE), run)
    outcome = move(run)
    assert isinstance(outcome, (Delivered, UpToDate)), fails([outcome])
    assert THERE == Wishes(*whereabouts(server, live))
    (run / LEDGER_NAME).unlink()
    assert [] == fails(upload([run]))
    assert [live] == list(server.tasks)
    assert THERE == Wishes(*whereabouts(server, live))


def test_a_mark_comes_before_the_move(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Killed between the move and the first report, the task is known all the same."""
    run = make_run("v8.4.190-detect")
    live = report_live(server, expected(LIVE), run)
    sink = clearml_sink()()
    assert isinstance(sink, Mover)
    assert sink.move(planned(run), ("Lab/Moved", "shapes"), None, None, "") is not None
    assert THERE == Wishes(*whereabouts(server, live))
    assert [] == fails(upload([run]))
    assert [live] == list(server.tasks)


def test_one_that_was_published_before_it_was_known_stays(server: ClearMLDouble, make_run: MakeRun) -> None:
    """It takes no mark, so it would be lost."""
    run = make_run("v8.4.190-detect")
    live = report_live(server, expected(LIVE), run)
    server.tasks[live]["status"] = "published"
    state = end_state(server)
    outcome = move(run)
    assert isinstance(outcome, Failed)
    assert "would not be known again" in str(outcome.error)
    assert state == end_state(server)


def test_a_copy_that_was_cut_short_moves_nothing(server: ClearMLDouble, make_run: MakeRun) -> None:
    """As it takes nothing back."""
    whole = make_run("v8.4.190-detect", "whole")
    upload([whole])
    short = make_run("v8.4.190-detect", "short")
    lines = (short / "results.csv").read_text().splitlines(keepends=True)
    (short / "results.csv").write_text("".join(lines[:3]))
    state = end_state(server)
    outcome = move(short)
    assert isinstance(outcome, Skipped), fails([outcome])
    assert state == end_state(server)


# -- what goes wrong --------------------------------------------------------------------------------------


def _unmoved(data: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": [{**row, "name": "train"} for row in data["tasks"]]}


def test_a_server_that_only_says_so_is_not_believed(server: ClearMLDouble, run: Path) -> None:
    """Nothing changed, by its own count or when it is looked at; the ledger claims nothing."""
    fine = '{"meta": {"result_code": 200, "result_subcode": 0, "result_msg": "OK"}, "data": {"updated": %d}}'
    known = FileLedgers().load(run)
    for updated, sentence in ((0, "did not carry out tasks.update"), (1, "is not where it was moved to")):
        server.fault("tasks.update", Status(200, fine % updated, {"Content-Type": "application/json"}))
        outcome = move(run)
        assert isinstance(outcome, Failed)
        assert sentence in str(outcome.error)
        assert known == FileLedgers().load(run)
        server.clear_faults()
    assert (MOVED,) == moved(run).notes


def test_a_name_that_is_there_otherwise_is_no_proof(server: ClearMLDouble, run: Path) -> None:
    """The look afterwards is at project and name, both."""
    server.fault("tasks.get_all_ex", Altered(_unmoved), times=None)
    outcome = move(run, Wishes(name="other"))
    assert isinstance(outcome, Failed)
    assert "is not where it was moved to" in str(outcome.error)


@pytest.mark.parametrize(("ledger", "when"), sampled(itertools.product(["kept", "lost"], WHEN), one_in(4)))
def test_killed_at_every_request_and_run_again(
    server: ClearMLDouble, doubles: Doubles, make_run: MakeRun, when: str, ledger: str
) -> None:
    """Before or after each: the task ends where it is to be, and there is one."""
    run = make_run(SMALL)
    upload([run])
    moved(run)
    wanted = end_state(server)
    number = 0
    killed = True
    while killed:
        number += 1
        (run / LEDGER_NAME).unlink(missing_ok=True)
        with doubles() as double:
            upload([run])
            command = functools.partial(upload, [run], wishes=THERE, move=True, timeout=20.0)
            killed = killed_at_request(double, number, when, command)
            if ledger == "lost":
                (run / LEDGER_NAME).unlink()
            assert [] == fails(command())
            assert wanted == end_state(double), number
            there = FileLedgers().load(run)
            assert ("Lab/Moved", "shapes") == (there.facts["project"], there.facts["name"])
    assert number > 7


def test_a_copy_of_a_run_that_is_wished_elsewhere_is_left_where_it_is(
    server: ClearMLDouble, run: Path, tmp_path: Path
) -> None:
    """No ledger knew it: the note comes at the first upload, and what is remembered is where the task is."""
    copied = shutil.copytree(run, tmp_path / "copy" / run.name)
    (copied / LEDGER_NAME).unlink()
    (outcome,) = upload([copied], wishes=THERE)
    assert isinstance(outcome, Delivered)
    assert [True] == ["it is left there" in note for note in outcome.notes]
    assert ("Ultralytics", "train") == (outcome.facts.project, outcome.facts.name)
    assert ("Ultralytics", "train") == whereabouts(server, outcome.task_id)
    assert 1 == len(server.tasks)


def test_a_failure_after_the_move_states_the_move(server: ClearMLDouble, run: Path) -> None:
    """Of a published task whose ledger is lost: it was moved, and takes nothing."""
    (task,) = server.tasks
    server.tasks[task]["status"] = "published"
    (run / LEDGER_NAME).unlink()
    outcome = move(run)
    assert isinstance(outcome, Failed)
    assert f"{MOVED} The task {task} was published in ClearML, so it is left as it is." == str(outcome.error)
    assert (THERE.project, THERE.name) == whereabouts(server, task)
