"""A tuning is a task of its own, and the tasks of its trainings are that task's children."""

from __future__ import annotations

import functools
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun, long_after
from double import ClearMLDouble
from killing import WHEN, killed_at_request
from tunings import BEGAN, ROWS, Tuned, tuned
from uploading import fails
from uploading import upload as upload_soon

from yolo_clearml.events import Child, Part
from yolo_clearml.library import status
from yolo_clearml.replay.wanted import Wanted
from yolo_clearml.server.offline import OfflineSink
from yolo_clearml.sync.agenda import Agenda, follow
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.family import Waiting
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, ReadOnlyLedgers, configuration_stamp
from yolo_clearml.sync.outcomes import Delivered, Facts, Outcome, Pending, UpToDate
from yolo_clearml.sync.sinks import RecordingSink
from yolo_clearml.sync.work import Aim, Lazily, Work

upload = functools.partial(upload_soon, timeout=20.0)  # a machine may be busy
FORMS = pytest.mark.parametrize("new", [True, False], ids=["ndjson", "csv"])


@pytest.fixture
def tuning(make_run: MakeRun) -> Tuned:
    """Give a tuning of the newest form that has finished, with the two trainings that are left of it."""
    return tuned(make_run, trainings=(2, 3))


def task_of(server: ClearMLDouble, kind: str = "optimizer") -> dict[str, Any]:
    (task,) = [task for task in server.tasks.values() if task["type"] == kind]
    return task


def family(server: ClearMLDouble) -> set[str]:
    """Give the names of the children's save_dirs, after what they are called in the tuning."""
    tune = task_of(server)["id"]
    return {
        task["hyperparams"]["General"]["save_dir"]["value"].removeprefix("/home/user/runs/detect/")
        for task in server.tasks.values()
        if task["type"] == "training" and task.get("parent") == tune
    }


def curve(server: ClearMLDouble, task: dict[str, Any], name: str) -> dict[int, float]:
    points = server.scalars(task["id"]).items()
    return {number: event["value"] for (title, _, number), event in points if title == name}


def done(outcome: Outcome) -> Delivered | UpToDate:
    assert isinstance(outcome, (Delivered, UpToDate)), fails([outcome])
    return outcome


# -- what ClearML shows -------------------------------------------------------------------------------------


@FORMS
def test_a_tuning_is_a_task_with_its_trainings_as_children(
    server: ClearMLDouble, make_run: MakeRun, new: bool
) -> None:
    """In one upload of them all, although the folder of the tuning is given before its trainings."""
    it = tuned(make_run, new)
    outcomes = upload([it.folder, it.folder.parent])
    assert [] == fails(outcomes)
    assert it.folder == outcomes[-1].run
    task = task_of(server)
    assert ("tune", "completed") == (task["name"], task["status"])
    if new:
        assert {"multitrain/coco8", "multitrain2/coco8", "multitrain3/coco8"} == family(server)
    else:  # the first has the user's own hyperparameters, which any training beside it may have
        assert {"train2", "train3"} == family(server)
    assert {n: f for n, (f, _) in enumerate(ROWS, start=1)} == curve(server, task, "fitness")
    assert {n: v["lr0"] for n, (_, v) in enumerate(ROWS, start=1)} == curve(server, task, "lr0")
    best = task["hyperparams"]["best_hyperparameters"]
    assert {name: str(v) for name, v in ROWS[1][1].items()} == {n: i["value"] for n, i in best.items()}
    assert "3 of 3" == task["hyperparams"]["properties"]["iterations"]["value"]
    assert {"tune_fitness", "tune_scatter_plots"} == {title for title, _, _ in server.plots(task["id"])}
    sent = (it.folder / "tune_fitness.png").read_bytes()
    assert any(content == sent for place, content in server.files.items() if "tune_fitness" in place)
    (link,) = task["models"]["output"]
    model = server.models[link["model"]]
    assert ("tune", task["id"]) == (model["name"], model["task"])
    count = len(server.requests)
    assert all(isinstance(outcome, UpToDate) for outcome in upload([it.folder.parent]))
    assert count == len(server.requests)


def test_it_verifies_with_its_family(server: ClearMLDouble, tuning: Tuned) -> None:
    """And a parent that somebody took away is a difference, which --force mends."""
    upload([tuning.folder.parent])
    (outcome,) = upload([tuning.folder], aim=Aim.VERIFY)
    proof = done(outcome).proof
    assert proof is not None
    assert () == proof.differences
    child = next(task for task in server.tasks.values() if task["type"] == "training")
    child["parent"] = None
    (outcome,) = upload([tuning.folder], aim=Aim.VERIFY)
    proof = done(outcome).proof
    assert proof is not None
    (difference,) = proof.differences
    assert "here, no parent in ClearML" in str(difference)
    upload([tuning.folder], force=True)
    assert 2 == len(family(server))


def test_a_training_that_comes_later_becomes_a_child(server: ClearMLDouble, tuning: Tuned) -> None:
    """The tuning goes first, alone: what it waits for is named, pending, and never taken for done."""
    (outcome,) = upload([tuning.folder])
    (note,) = [note for note in done(outcome).notes if "no task yet" in note]
    assert "2 of its trainings (multitrain2/coco8, multitrain3/coco8)" in note
    (standing,) = status([tuning.folder])
    assert isinstance(standing, Pending)
    ended = [r.endpoint for r in server.requests].count("tasks.completed")
    upload([tuning.folder])
    assert ended == [r.endpoint for r in server.requests].count("tasks.completed")  # it is not opened again
    upload(tuning.trainings)
    assert set() == family(server)
    upload([tuning.folder])
    assert 2 == len(family(server))
    assert {"completed"} == {task["status"] for task in server.tasks.values()}
    (standing,) = status([tuning.folder])
    assert isinstance(standing, UpToDate)


def test_a_training_that_is_copied_to_its_place_later(
    server: ClearMLDouble, tuning: Tuned, tmp_path: Path
) -> None:
    """Nothing in the tuning's own folder changes by that."""
    late = tuning.trainings[1].parent
    late.rename(tmp_path / "elsewhere")
    upload([tuning.folder.parent])
    assert {"multitrain2/coco8"} == family(server)
    assert isinstance(upload([tuning.folder])[0], UpToDate)
    (tmp_path / "elsewhere").rename(late)
    upload([tuning.folder.parent])
    assert 2 == len(family(server))


def test_a_training_that_was_uploaded_before_stays_as_it_ended(server: ClearMLDouble, tuning: Tuned) -> None:
    """Its task gets the parent and nothing else, not even another time of its last update."""
    upload(tuning.trainings)
    before = {name: dict(task) for name, task in server.tasks.items()}
    upload([tuning.folder])
    for name, task in before.items():
        after = server.tasks[name]
        changed = {key for key in task.keys() | after if task.get(key) != after.get(key)}
        assert {"parent", "last_change"} >= changed
        assert "parent" in changed


def test_a_task_that_a_person_has_published_is_left_as_it_is(server: ClearMLDouble, tuning: Tuned) -> None:
    """That is stated, and nothing that verify would ask for."""
    upload(tuning.trainings)
    published, _ = server.tasks.values()
    server.ask("tasks.publish", task=published["id"], force=True)
    before = dict(server.tasks[published["id"]])
    (outcome,) = upload([tuning.folder], aim=Aim.DELIVER_AND_VERIFY)
    assert before == server.tasks[published["id"]]
    assert 1 == len(family(server))
    assert any("were published, archived or closed" in note for note in done(outcome).notes)
    proof = done(outcome).proof
    assert proof is not None
    assert () == proof.differences
    assert isinstance(upload([tuning.folder])[0], UpToDate)


def test_a_task_of_its_name_is_not_taken_for_it(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Nobody but this tool reports a tuning, so no other task is looked at, and none is spoken of."""
    it = tuned(make_run, trainings=())
    (it.folder / "best_hyperparameters.yaml").unlink()
    project = server.ask("projects.create", name="Ultralytics", description="")["id"]
    for home in (project, server.ask("projects.create", name="YOLOv8", description="")["id"]):
        other = server.ask("tasks.create", name="tune", project=home, type="training")["id"]
        server.ask("tasks.started", task=other)
    (outcome,) = upload([it.folder])
    assert not [note for note in done(outcome).notes if "may hold this run" in note]
    assert not server.scalars(other)


def test_a_neighbour_is_no_child(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Not a training of the same hyperparameters as the first row, nor one that only lies there."""
    it = tuned(make_run, new=False, trainings=(1, 2))
    make_run("v8.3.100-detect", "train9")
    upload([it.folder.parent])
    assert {"train2"} == family(server)


# -- while it goes on ---------------------------------------------------------------------------------------


def test_it_grows_and_finishes(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Each row is sent once; what the best was before is written over."""
    it = tuned(make_run, rows=1, trainings=(1, 2, 3))
    upload([it.folder], now=lambda: BEGAN + 200.0)
    task = task_of(server)
    assert "in_progress" == task["status"]
    assert "of 3" == task["hyperparams"]["properties"]["iterations"]["value"]
    assert not server.models
    it.write(2)
    server.requests.clear()
    upload([it.folder], now=lambda: BEGAN + 200.0)
    assert {1: ROWS[0][0], 2: ROWS[1][0]} == curve(server, task, "fitness")
    assert "0.00954" == task["hyperparams"]["best_hyperparameters"]["lr0"]["value"]
    it.write(3)
    upload([it.folder], now=lambda: BEGAN + 200.0)
    assert "completed" == server.tasks[task["id"]]["status"]
    assert 1 == len(server.models)


def test_one_that_nobody_writes_to_has_stopped(server: ClearMLDouble, make_run: MakeRun) -> None:
    """How many iterations there were to be is unknown where every training failed."""
    it = tuned(make_run, rows=1, trainings=())
    (it.folder / "best_hyperparameters.yaml").unlink()
    it.write(2, asked=None)
    (outcome,) = upload([it.folder])
    assert "stopped" == task_of(server)["status"]
    assert "how many iterations were asked for" in done(outcome).facts.missing
    assert "2 of unknown" == task_of(server)["hyperparams"]["properties"]["iterations"]["value"]
    assert done(outcome).facts.of_epochs is None


def test_a_shorter_copy_takes_nothing_away(server: ClearMLDouble, tuning: Tuned) -> None:
    """As of a training: a task that holds more than the directory is left alone."""
    upload([tuning.folder])
    (tuning.folder / LEDGER_NAME).unlink()
    tuning.write(2)
    (outcome,) = upload([tuning.folder])
    assert "holds 2 of the 3 iterations" in outcome.reason  # type: ignore[union-attr]
    assert "completed" == task_of(server)["status"]


def test_a_watch_comes_back_for_a_training_that_is_delivered_later(
    server: ClearMLDouble, tuning: Tuned
) -> None:
    """A tuning may be visited first; with --once the watch ends all the same."""
    stop = threading.Event()
    work = Work(_lazily(), FileLedgers(), configuration_stamp(), now=long_after)
    agenda = Agenda(work.sink.renew, stop, once=True)
    for run in (tuning.folder, *tuning.trainings):
        agenda.notice(run)
    outcomes = [o for o in follow(agenda, work, 1, stop) if isinstance(o, (Delivered, UpToDate))]
    assert [tuning.folder, *tuning.trainings] == [o.run for o in outcomes[:3]]
    assert tuning.folder == outcomes[3].run
    assert 2 == len(family(server))


def _lazily() -> Lazily:
    from yolo_clearml.server.sink import ClearmlSink

    return Lazily(lambda: ClearmlSink(20.0))


def test_a_watch_does_not_come_back_for_ever() -> None:
    """A training that was delivered and is not found is a reason once."""
    waiting, tune, train = Waiting(), Path("/r/tune"), Path("/r/train")
    waits = UpToDate(tune, Facts(), "t", None, waits_for=(train,))
    delivered = Delivered(train, Facts(), "c", None, 1, 0, 0, ())
    assert waiting.after(waits) is None
    assert tune == waiting.after(delivered)
    assert waiting.after(waits) is None
    assert waiting.after(delivered) is None
    late = Waiting()
    assert late.after(delivered) is None
    assert tune == late.after(waits)  # it was looked at before the other had come
    assert late.after(waits) is None


# -- every course -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("number", [5, 7, 11])
def test_killed_and_run_again_the_end_is_the_same(
    server: ClearMLDouble, tuning: Tuned, number: int, when: str
) -> None:
    """Also between the parent of one training and that of the next."""
    upload(tuning.trainings)
    assert killed_at_request(server, number, when, lambda: upload([tuning.folder]))
    upload([tuning.folder])
    assert 2 == len(family(server))
    assert "completed" == task_of(server)["status"]
    assert 3 == len(server.tasks)


def test_what_is_left_out_and_new(server: ClearMLDouble, tuning: Tuned) -> None:
    """--without works on its parts; --new makes another, which takes the children over."""
    upload(tuning.trainings)
    upload([tuning.folder], wanted=Wanted(frozenset({Part.PLOTS, Part.MODEL})))
    first = task_of(server)["id"]
    assert not server.plots(first)
    assert 2 == len(family(server))
    upload([tuning.folder], new=True)
    second = next(t["id"] for t in server.tasks.values() if t["type"] == "optimizer" and t["id"] != first)
    assert {second} == {t["parent"] for t in server.tasks.values() if t["type"] == "training"}


def test_a_dry_run_and_an_offline_session(tmp_path: Path, tuning: Tuned) -> None:
    """The first names the trainings; the second states that it holds no parent."""
    sink = RecordingSink()
    list(sync([tuning.folder], Work(Lazily(lambda: sink), ReadOnlyLedgers(), "", now=long_after)))
    _, reports = sink.recorded[tuning.folder]
    children = [event for report in reports for event in report.events if isinstance(event, Child)]
    assert ["multitrain2/coco8", "multitrain3/coco8"] == [child.place for child in children]
    work = Work(Lazily(lambda: OfflineSink(tmp_path / "out")), FileLedgers(), "", now=long_after)
    outcome = next(o for o in sync([tuning.folder], work) if isinstance(o, Delivered))
    assert any("holds no parent" in note for note in outcome.notes)
    (session,) = (tmp_path / "out").glob("*.zip")
    with zipfile.ZipFile(session) as archive:
        assert "optimizer" == json.loads(archive.read("task.json"))["type"]
