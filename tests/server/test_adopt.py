"""Tasks that somebody else has reported are recognised and completed; what they hold is not sent twice."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Doubles, MakeRun, chosen, one_in, sampled
from double import ClearMLDouble, Status
from double.events import IMAGE, PLOT, SCALAR
from killing import killed_at_request
from live import RENDERED, expected, report_by_sdk, report_live
from test_verify import planned
from uploading import end_state, fails, upload

from yolo_clearml.server import recognition
from yolo_clearml.server.sink import ClearmlSink
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Delivered, Failed, UpToDate

DETECT = "v8.4.190-detect"
LIVE = f"{DETECT}.expected"
BOX = ("train", "train/box_loss", 2)
# reported live by rules that can be compared with; of 8.0.100 and 8.0.220 they cannot
REPORTED = [
    *("v8.1.0-segment", "v8.3.100-detect", "v8.4.190-classify", DETECT, "v8.4.190-detect-killed"),
    *("v8.4.190-detect-nan", "v8.4.190-detect-noplots", "v8.4.190-segment", "yolov5-7.0.14-detect"),
]


def delivered(run: Path, **options: Any) -> Delivered:
    (outcome,) = upload([run], **options)
    assert isinstance(outcome, Delivered), fails([outcome])
    return outcome


def notes(outcome: Delivered) -> str:
    return " ".join(outcome.notes)


def places(server: ClearMLDouble, task: str) -> Counter[Any]:
    scalars, plots = list(server.scalars(task)), list(server.plots(task))
    return Counter([*scalars, *plots, *(key[:3] for key in server.images(task))])


@pytest.mark.parametrize("name", REPORTED)
def test_every_live_task_is_completed_and_has_no_twin(
    server: ClearMLDouble, make_run: MakeRun, name: str
) -> None:
    """Reported live, then uploaded: one task, nothing twice or overwritten, and a second time nothing."""
    run = make_run(name)
    live = report_live(
        server, expected(f"{name}.expected"), run, end="stopped" if "killed" in name else "completed"
    )
    values = {key: event["value"] for key, event in server.scalars(live).items()}
    single = {key: event["value"] for key, event in server.single_values(live).items()}
    models, before = len(server.models), places(server, live)
    outcome = delivered(run)
    assert (live, [live]) == (outcome.task_id, list(server.tasks))
    assert live in notes(outcome) and "holds this run already" in notes(outcome)
    assert "--force" not in notes(outcome)
    assert values.items() <= {k: e["value"] for k, e in server.scalars(live).items()}.items()
    assert single.items() <= {k: e["value"] for k, e in server.single_values(live).items()}.items()
    assert {k: before.get(k, 1) for k in places(server, live)} == places(server, live)
    assert max(models, 1 if (run / "weights" / "best.pt").exists() and "killed" not in name else 0) == len(
        server.models
    )
    assert ("stopped" if "killed" in name else "completed") == server.tasks[live]["status"]
    assert "trained_from" in server.tasks[live]["hyperparams"]["properties"]
    count = len(server.requests)
    assert isinstance(upload([run])[0], UpToDate)
    assert count == len(server.requests)


def test_what_the_callback_reported_is_not_sent_again(server: ClearMLDouble, make_run: MakeRun) -> None:
    """A whole live task gets user properties and the mark: no event, no file, and it is not reopened."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    received = server.events_received(live)
    outcome = delivered(run)
    assert (0, 0, 0) == (outcome.events, outcome.files, outcome.size)
    assert received == server.events_received(live)
    asked = {request.endpoint for request in server.requests}
    assert not asked & {"tasks.create", "tasks.started", "tasks.completed", "events.add_batch"}
    assert "" == server.tasks[live]["status_reason"]


def test_what_live_forgot_is_added(server: ClearMLDouble, make_run: MakeRun) -> None:
    """A plot, an image, an epoch's value and the model; the task ends as completed again."""
    run = make_run(DETECT)
    told = expected(LIVE)
    told["output_model"] = []
    live = report_live(server, told, run)
    server.forget_event(live, PLOT, ("results", "plot image", 0))
    server.forget_event(live, IMAGE, ("Validation", "val_pred.jpg", 0))
    server.forget_event(live, SCALAR, BOX)
    outcome = delivered(run)
    assert (3, 3) == (outcome.events, outcome.files)
    (model,) = server.models.values()
    assert (run / "weights" / "best.pt").read_bytes() == server.file_of(model["uri"])
    assert BOX in server.scalars(live)
    assert "completed" == server.tasks[live]["status"]
    (source,) = json.loads(server.plots(live)["results", "plot image", 0]["plot_str"])["layout"]["images"]
    assert (run / "results.png").read_bytes() == server.file_of(source["source"])


def test_dead_links_are_filled(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The SDK registers what it failed to upload: a picture, a plot and a model that are not there."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    image = next(e["url"] for k, e in server.images(live).items() if k[1] == "val_pred.jpg")
    plot = json.loads(server.plots(live)["results", "plot image", 0]["plot_str"])["layout"]["images"][0]
    (model,) = server.models.values()
    for url in (image, plot["source"], model["uri"]):
        server.replace_file(url, None)
    outcome = delivered(run)
    assert (2, 3) == (outcome.events, outcome.files)


def test_an_image_without_an_address_is_none(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The SDK reports one where its file has gone before the upload: it blocks nothing, and shows nothing."""
    run = make_run(DETECT)
    task = report_live(server, expected(LIVE), run, end="completed")
    place = {"task": task, "metric": "Validation", "variant": "val_pred.jpg", "iter": 7}
    server.ask("events.add", **place, type="training_debug_image", timestamp=1_795_844_977_551)
    delivered(run)
    shutil.copy(run / "val_batch0_pred.jpg", run / "val_batch7_pred.jpg")
    assert 1 == delivered(run).files
    assert 2 == sum(key[:3] == ("Validation", "val_pred.jpg", 7) for key in server.images(task))


def test_what_comes_later_goes_into_a_task_that_was_stopped(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Stopped by its training, completed by an upload, which stops it again as it was: that is no abort."""
    name = "v8.4.190-detect-killed"
    run = make_run(name)
    task = report_live(server, expected(f"{name}.expected"), run, end="stopped")
    delivered(run)
    before = len(server.scalars(task))
    table = (run / "results.csv").read_text()
    last = table.splitlines()[-1].split(",")
    (run / "results.csv").write_text(table + ",".join([str(int(last[0]) + 1), *last[1:]]) + "\n")
    delivered(run)
    assert len(server.scalars(task)) > before
    assert [task] == list(server.tasks)
    assert "stopped" == server.tasks[task]["status"]


@pytest.mark.exhaustive
def test_a_task_reported_by_the_sdk_itself(server: ClearMLDouble, make_run: MakeRun, tmp_path: Path) -> None:
    """The stock SDK's own objects, as the callback calls them: recognised, and nothing is sent twice."""
    run = make_run(DETECT)
    live = report_by_sdk(server, LIVE, run, tmp_path)
    received, files = server.events_received(live), dict(server.files)
    outcome = delivered(run)
    assert (live, [live]) == (outcome.task_id, list(server.tasks))
    assert (0, 0) == (outcome.events, outcome.files), notes(outcome)
    assert (received, files) == (server.events_received(live), server.files)


def test_verify_raises_no_alarm_over_what_live_knew_better(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Pictures drawn anew, the callback's clock, the exact final values are no differences; others are."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    delivered(run)
    verdict = ClearmlSink(2.0).verify(planned(run), run, live, "")
    assert live == verdict.task_id
    assert [] == [str(difference) for difference in verdict.differences]
    server.alter_event(live, "training_stats_scalar", ("Epoch Time", "Epoch Time", 1), value=60.0)
    server.alter_event(live, "training_stats_scalar", ("lr", "lr/pg0", 2), value=1.0)
    server.forget_event(live, "plot", ("results", "plot image", 0))
    verdict = ClearmlSink(2.0).verify(planned(run), run, live, "")
    assert ["Epoch Time", "lr", "results"] == sorted(difference.title for difference in verdict.differences)


@pytest.mark.parametrize(
    ("name", "status"),
    sampled(
        itertools.product(
            [DETECT, f"{DETECT}-killed"],
            ["completed", "in_progress", "stopped", "failed", "closed", "publishing", "published"],
        ),
        one_in(5),
    ),
)
def test_verify_leaves_how_a_live_task_ended_to_who_reported_it(
    server: ClearMLDouble, make_run: MakeRun, name: str, status: str
) -> None:
    """Nothing is said to differ: upload leaves it as it is."""
    run = make_run(name)
    live = report_live(server, expected(f"{name}.expected"), run)
    delivered(run)
    server.tasks[live].update(status=status, status_reason="by somebody")
    found = [
        str(difference) for difference in ClearmlSink(2.0).verify(planned(run), run, live, "").differences
    ]
    assert [] == found


SHUT_OR_NOT: list[tuple[dict[str, Any], str | None]] = [
    ({"status": "published"}, "was published in ClearML"),
    ({"status": "failed"}, "has failed in ClearML"),
    ({"status": "stopped", "status_reason": "Stopped by user"}, "was aborted in ClearML"),
    ({"system_tags": ["archived"]}, "was archived in ClearML"),
    ({"status": "completed"}, None),
    ({"status": "stopped", "status_reason": "yolo-clearml: the training stopped early"}, None),
]


@pytest.mark.parametrize(
    ("change", "hint", "reported_by"),
    sampled(
        [(*case, reported_by) for case in SHUT_OR_NOT for reported_by in ("us", "live")],
        one_in(3),
    ),
)
def test_what_cannot_be_mended_is_not_promised_to_be(
    server: ClearMLDouble, make_run: MakeRun, reported_by: str, change: dict[str, Any], hint: str | None
) -> None:
    """Where ``verify`` finds a difference, what it says helps: --force where that works, else what does."""
    run = make_run(DETECT)
    if reported_by == "live":
        report_live(server, expected(LIVE), run)
    delivered(run)
    (task,) = server.tasks
    server.tasks[task].update(change)
    server.alter_event(task, SCALAR, BOX, value=9.0)
    verdict = ClearmlSink(2.0).verify(planned(run), run, task, "")
    assert (hint is None) == (verdict.closed is None)
    assert hint is None or hint in (verdict.closed or "")
    (outcome,) = upload([run], force=True)
    assert (hint is None) == isinstance(outcome, Delivered)
    mended = ClearmlSink(2.0).verify(planned(run), run, task, "").differences
    assert (hint is None) == (BOX not in [(d.title, d.series, d.iteration) for d in mended])


def test_later_uploads_know_the_task_by_its_mark(
    server: ClearMLDouble, make_run: MakeRun, tmp_path: Path
) -> None:
    """Without the ledger, elsewhere, and renamed in ClearML: still the same task, and nothing is sent."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    delivered(run)
    server.tasks[live]["name"] = "renamed"
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / LEDGER_NAME).unlink()
    received = server.events_received(live)
    assert live == delivered(tmp_path / "copy").task_id
    assert [live] == list(server.tasks)
    assert received == server.events_received(live)


def test_a_clone_of_a_persons_own_is_not_taken(server: ClearMLDouble, make_run: MakeRun) -> None:
    """It has the mark, which is a property, but is yet to begin, and with another learning rate."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    delivered(run)
    task = server.tasks[live]
    clone = server.ask("tasks.create", name=task["name"], project=task["project"], type="training")["id"]
    server.tasks[clone]["hyperparams"] = copy.deepcopy(task["hyperparams"])
    server.tasks[clone]["hyperparams"]["General"]["lr0"]["value"] = "0.5"
    state = copy.deepcopy(server.tasks[clone])
    server.ask("tasks.delete", task=live, force=True)
    assert clone != delivered(run, force=True).task_id
    assert state == server.tasks[clone]


def test_new_makes_a_twin(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--new: the live task is left as it is."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    before = server.snapshot()["tasks"]
    outcome = delivered(run, new=True)
    assert live != outcome.task_id
    assert before.items() <= server.snapshot()["tasks"].items()
    assert "holds this run" not in notes(outcome)


def test_two_alike_are_named_and_neither_is_taken(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Which of two equal tasks is this run nobody can know."""
    run = make_run(DETECT)
    lives = [report_live(server, expected(LIVE), run) for _ in range(2)]
    outcome = delivered(run)
    assert outcome.task_id not in lives
    assert all(live in notes(outcome) for live in lives)
    assert 3 == len(server.tasks)


def test_only_tasks_of_the_same_place_are_asked_for(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Hundreds have the default name, each with a hundred hyperparameters: the server leaves them out."""
    for number in range(3):
        told = expected(LIVE)
        told["hyperparams_General"]["save_dir"]["value"] = f"/elsewhere/train{number}"
        report_live(server, told, make_run(DETECT, f"run{number}"))
    delivered(make_run(DETECT))
    (asked,) = (
        r.payload for r in server.requests if r.endpoint == "tasks.get_all_ex" and "name" in r.payload
    )
    (place,) = (values for name, values in asked.items() if name.startswith("hyperparams."))
    assert [expected(LIVE)["hyperparams_General"]["save_dir"]["value"]] == place


def test_too_many_alike_are_not_even_read(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where dozens have the hyperparameters of one run, none is taken, and that is said."""
    monkeypatch.setattr(recognition, "_MOST_READ", 1)
    monkeypatch.setattr(recognition, "_PAGE", 1)
    run = make_run(DETECT)
    lives = [report_live(server, expected(LIVE), run) for _ in range(4)]
    outcome = delivered(run)
    assert "more than 1 tasks of this name have its hyperparameters, too many to be sure" in notes(outcome)
    assert outcome.task_id not in lives
    pages = [r.payload["page"] for r in server.requests if "name" in r.payload and "page" in r.payload]
    assert [0, 1] == pages
    assert "events.get_task_events" not in {request.endpoint for request in server.requests}


def one_parameter(told: dict[str, Any]) -> None:
    told["hyperparams_General"]["epochs"]["value"] = "6"


def one_type(told: dict[str, Any]) -> None:
    told["hyperparams_General"]["epochs"]["type"] = "str"


def one_value(told: dict[str, Any]) -> None:
    next(point for point in told["scalars"] if tuple(point[:3]) == BOX)[3] += 0.0001


def one_epoch_time(told: dict[str, Any]) -> None:
    next(point for point in told["scalars"] if point[0] == "Epoch Time" and point[2] == 2)[3] += 1.5


def no_values(told: dict[str, Any]) -> None:
    told["scalars"] = []


def another_size(told: dict[str, Any]) -> None:
    next(single for single in told["single_values"] if single[0] == "model/parameters")[1] += 1


@pytest.mark.parametrize(
    "change",
    [one_parameter, one_type, one_value, one_epoch_time, no_values, another_size],
    ids=lambda c: c.__name__,
)
def test_where_only_some_facts_fit_none_is_taken(
    server: ClearMLDouble, make_run: MakeRun, change: Any
) -> None:
    """One fact differs: never a guess; the candidate is named, with what to do."""
    run = make_run(DETECT)
    told = expected(LIVE)
    change(told)
    live = report_live(server, told, run)
    before = server.snapshot()["tasks"]
    outcome = delivered(run)
    assert live != outcome.task_id
    assert live in notes(outcome) and "--task-id" in notes(outcome)
    assert 2 == len(server.tasks)
    state = server.snapshot()["tasks"]
    assert [before[key] for key in before] == [state[key] for key in before]


def test_another_run_of_the_same_name_is_not_even_named(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Most runs are called train, in the project Ultralytics."""
    run = make_run(DETECT)
    report_live(server, expected("v8.4.190-segment.expected"), make_run("v8.4.190-segment"))
    outcome = delivered(run)
    assert 2 == len(server.tasks)
    assert () == outcome.notes


@pytest.mark.parametrize("how", ["archived", "ours", "another type", "another project", "another name"])
def test_tasks_that_cannot_be_meant_are_left_out(server: ClearMLDouble, make_run: MakeRun, how: str) -> None:
    """Put away, of another run of ours, no training, or elsewhere."""
    run = make_run(DETECT)
    told = expected(LIVE)
    told["project"] = "Elsewhere" if how == "another project" else told["project"]
    told["task_name"] = "TRAIN" if how == "another name" else told["task_name"]
    live = report_live(server, told, run)
    if how == "archived":
        server.ask("tasks.archive", tasks=[live])
    elif how == "ours":
        server.tasks[live]["runtime"] = {"yolo_clearml": "0" * 32}
    elif how == "another type":
        server.tasks[live]["type"] = "testing"
    outcome = delivered(run)
    assert live != outcome.task_id
    assert () == outcome.notes


def report_resumed(server: ClearMLDouble, run: Path) -> tuple[str, str]:
    parts = [expected(f"v8.4.190-detect-resumed.expected.part{part}") for part in (1, 2)]
    return report_live(server, parts[0], run, end="stopped"), report_live(server, parts[1], run)


def test_a_resumed_run_reported_as_two_tasks(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The last one gets the epochs it lacks; the earlier one is left alone, and both are named."""
    run = make_run("v8.4.190-detect-resumed")
    first, last = report_resumed(server, run)
    before = json.dumps(server.tasks[first])
    outcome = delivered(run)
    assert last == outcome.task_id
    assert first in notes(outcome) and last in notes(outcome)
    assert before == json.dumps(server.tasks[first])
    assert 2 == len(server.tasks)
    losses = {i for _, series, i in server.scalars(last) if series == "train/box_loss"}
    assert set(range(6)) == losses
    assert "completed" == server.tasks[last]["status"]


def test_two_parts_that_overlap_are_no_resume(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The same epochs in both: not what a resume leaves, so neither is taken."""
    run = make_run("v8.4.190-detect-resumed")
    first, last = report_resumed(server, run)
    told = expected("v8.4.190-detect-resumed.expected.part2")
    for title, series, iteration, value, at in told["scalars"]:
        event = {"metric": title, "variant": series, "iter": iteration, "timestamp": at}
        server.ask("events.add", task=first, type=SCALAR, value=value, **event)
    outcome = delivered(run)
    assert outcome.task_id not in (first, last)
    assert first in notes(outcome) and last in notes(outcome)


@pytest.mark.parametrize("killed", [False, True])
def test_a_completed_task_of_a_killed_training_is_completed_again(
    server: ClearMLDouble, make_run: MakeRun, killed: bool
) -> None:
    """Who reported it knew that it ended well; the same after an upload that was stopped before the end."""
    name = f"{DETECT}-killed"
    run = make_run(name)
    told = expected(f"{name}.expected")
    live = report_live(server, told, run)
    server.forget_event(live, SCALAR, BOX)
    if killed:
        server.fault("tasks.completed", Status(400))
        assert 1 == len(fails(upload([run])))
        assert "in_progress" == server.tasks[live]["status"]
    delivered(run)
    assert BOX in server.scalars(live)
    assert "completed" == server.tasks[live]["status"]


# -- a value that contradicts -----------------------------------------------------------------------------


def test_contradictions_are_reported_and_not_overwritten(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--task-id: a value, a parameter and a picture differ; each is named, none is changed."""
    run = make_run(DETECT)
    told = expected(LIVE)
    one_value(told)
    one_parameter(told)
    live = report_live(server, told, run)
    image = next(e["url"] for k, e in server.images(live).items() if k[1] == "val_pred.jpg")
    server.replace_file(image, b"another picture")
    value = server.scalars(live)[BOX]["value"]
    outcome = delivered(run, task_id=live)
    assert [live] == list(server.tasks)
    assert 3 == notes(outcome).count("--force overwrites it.")
    for words in ("train/box_loss at iteration 2", "General / epochs", "val_pred.jpg"):
        assert words in notes(outcome)
    assert (value, b"another picture") == (server.scalars(live)[BOX]["value"], server.file_of(image))
    assert "6" == server.tasks[live]["hyperparams"]["General"]["epochs"]["value"]
    assert 0 == outcome.events


def test_many_contradictions_are_counted(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The first are spelled out."""
    run = make_run(DETECT)
    told = expected(LIVE)
    for point in told["scalars"][::3]:
        point[3] += 2.0
    outcome = delivered(run, task_id=report_live(server, told, run))
    assert 5 == notes(outcome).count("overwrites it.")
    assert "more values" in notes(outcome)


def test_force_overwrites(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--force sends everything, into the same task, and keeps parameters that only it has."""
    run = make_run(DETECT)
    told = expected(LIVE)
    one_value(told)
    told["hyperparams_General"]["more"] = {"type": "int", "value": "1"}
    live = report_live(server, told, run)
    outcome = delivered(run, task_id=live, force=True)
    assert "--force" not in notes(outcome)
    right = next(p[3] for p in expected(LIVE)["scalars"] if tuple(p[:3]) == BOX)
    assert right == server.scalars(live)[BOX]["value"]
    assert "1" == server.tasks[live]["hyperparams"]["General"]["more"]["value"]
    assert outcome.events > 80
    assert RENDERED not in {server.file_of(u) for u in plot_urls(server, live)}


def plot_urls(server: ClearMLDouble, task: str) -> list[str]:
    layouts = [json.loads(event["plot_str"])["layout"] for event in server.plots(task).values()]
    return [image["source"] for layout in layouts for image in layout["images"]]


def test_what_changes_on_disk_later_is_sent(server: ClearMLDouble, make_run: MakeRun) -> None:
    """ClearML was brought in step; a picture that is drawn anew since is news and no contradiction."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    delivered(run)
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch0_pred.jpg")
    outcome = delivered(run)
    assert (1, 1, ()) == (outcome.events, outcome.files, outcome.notes)
    assert "completed" == server.tasks[live]["status"]


def test_a_change_that_did_not_arrive_is_sent_by_the_next_call(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The ledger keeps that it is news, though the call that was to send it came to nothing."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run)
    delivered(run)
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch0_pred.jpg")
    server.fault("events.add_batch", Status(400))
    assert 1 == len(fails(upload([run])))
    outcome = delivered(run)
    assert (1, 1, ()) == (outcome.events, outcome.files, outcome.notes)
    urls = [event["url"] for key, event in server.images(live).items() if key[1] == "val_pred.jpg"]
    assert (run / "val_batch0_pred.jpg").read_bytes() in map(server.file_of, urls)


# -- --task-id --------------------------------------------------------------------------------------------


def test_any_task_can_be_completed(server: ClearMLDouble, make_run: MakeRun) -> None:
    """One made by hand, of another name, is filled, and the ledger remembers it; so does its mark."""
    run = make_run(DETECT)
    project = server.ask("projects.create", name="Group", description="")["id"]
    task = server.ask("tasks.create", name="by hand", project=project, type="training")["id"]
    assert task == delivered(run, task_id=task).task_id
    assert [task] == list(server.tasks)
    assert ("completed", "by hand") == (server.tasks[task]["status"], server.tasks[task]["name"])
    assert () == ClearmlSink(2.0).verify(planned(run), run, None, "").differences
    assert isinstance(upload([run])[0], UpToDate)
    assert isinstance(upload([run], task_id=task)[0], UpToDate)
    (run / LEDGER_NAME).unlink()
    assert task == delivered(run).task_id


def test_a_given_task_is_remembered_whatever_happens_next(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The first call comes to nothing after the task was named; the next one goes on there."""
    run = make_run(DETECT)
    project = server.ask("projects.create", name="Group", description="")["id"]
    task = server.ask("tasks.create", name="by hand", project=project, type="training")["id"]
    server.ask("tasks.started", task=task)
    server.fault("events.add_batch", Status(400), times=None)
    assert 1 == len(fails(upload([run], task_id=task)))
    server.clear_faults()
    assert task == delivered(run).task_id
    assert [task] == list(server.tasks)


def test_our_own_task_can_be_named(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The run's own, also one made with --new; it goes on being that."""
    run = make_run("v8.4.190-detect-killed")
    first = delivered(run).task_id
    second = delivered(run, new=True).task_id
    assert first == delivered(run, task_id=first).task_id
    shutil.copy(run / "train_batch1.jpg", run / "train_batch0.jpg")
    assert first == delivered(run).task_id
    assert second == delivered(run, task_id=second).task_id
    shutil.copy(run / "train_batch2.jpg", run / "train_batch0.jpg")
    assert second == delivered(run).task_id
    assert 2 == len(server.tasks)


@pytest.mark.parametrize("task_id", ["0" * 32, "no id", "a.b*"])
def test_a_task_that_is_not_there(server: ClearMLDouble, make_run: MakeRun, task_id: str) -> None:
    """Said, with what to do; no other task is made."""
    (sentence,) = fails(upload([make_run(DETECT)], task_id=task_id))
    assert f"no task {task_id}" in sentence
    assert {} == server.tasks


def test_another_runs_task_is_refused(server: ClearMLDouble, make_run: MakeRun) -> None:
    """It carries another run's key, whether we made it or marked it."""
    other = make_run("v8.4.190-segment")
    made = delivered(other).task_id
    marked = report_live(server, expected("v8.3.100-detect.expected"), make_run("v8.3.100-detect"))
    delivered(make_run("v8.3.100-detect", "copy"))
    state = end_state(server)
    for task in (made, marked):
        (sentence,) = fails(upload([make_run(DETECT, f"run {task}")], task_id=task))
        assert "another run" in sentence
    assert state == end_state(server)


@pytest.mark.parametrize(
    ("status", "word"), [("published", "published"), ("closed", "closed"), ("failed", "failed")]
)
def test_a_given_task_that_cannot_be_changed(
    server: ClearMLDouble, make_run: MakeRun, status: str, word: str
) -> None:
    """What it lacks cannot be added, so that is said; nothing is changed but the mark."""
    run = make_run(DETECT)
    told = expected(LIVE)
    told["output_model"] = []
    live = report_live(server, told, run)
    server.tasks[live]["status"] = status
    received = server.events_received(live)
    (sentence,) = fails(upload([run], task_id=live))
    assert word in sentence and live in sentence
    assert (status, received) == (server.tasks[live]["status"], server.events_received(live))
    assert {} == server.models


def test_a_given_task_that_was_aborted_is_opened(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Whoever names it knows; it ends as it was, and a later upload leaves it so."""
    run = make_run(DETECT)
    delivered(run)
    (task,) = server.tasks
    server.tasks[task].update(status="stopped", status_reason="Stopped by user")
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch0_pred.jpg")
    assert "aborted" in fails(upload([run]))[0]
    assert 1 == delivered(run, task_id=task).events
    assert "stopped" == server.tasks[task]["status"]
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch1_pred.jpg")
    assert "aborted" in fails(upload([run]))[0]


@pytest.mark.parametrize("name", ["v8.3.100-detect", "v8.4.190-classify", "yolov5-7.0.14-detect"])
def test_another_trainings_task_is_refused(server: ClearMLDouble, make_run: MakeRun, name: str) -> None:
    """It carries no key, but most of its values are others, or none is alike; nothing of it is changed."""
    run = make_run(DETECT)
    other = report_live(server, expected(f"{name}.expected"), make_run(name))
    state = server.snapshot()
    (outcome,) = upload([run], task_id=other)
    assert isinstance(outcome, Failed)
    assert f"{other} holds another training" in str(outcome.error)
    assert "--force" in outcome.error.hint
    assert state == server.snapshot()
    assert other != delivered(run).task_id
    assert other == delivered(run, task_id=other, force=True).task_id


# -- every status -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacks", "status"),
    sampled(
        itertools.product(
            ["nothing", "a plot", "the model"],
            ["completed", "in_progress", "stopped", "failed", "closed", "published"],
        ),
        lambda case: case[0] == "a plot" or case[1] == "completed",
    ),
)
def test_a_live_task_in_every_status(
    server: ClearMLDouble, make_run: MakeRun, status: str, lacks: str
) -> None:
    """What the server lets us change is completed; what it does not is said, and left as it is."""
    run = make_run(DETECT)
    told = expected(LIVE)
    told["output_model"] = [] if lacks == "the model" else told["output_model"]
    live = report_live(server, told, run, end=None)
    server.tasks[live].update(status=status, status_reason="by somebody")
    if lacks == "a plot":
        server.forget_event(live, PLOT, ("results", "plot image", 0))
    state = server.snapshot()
    (outcome,) = upload([run])
    assert [live] == list(server.tasks)
    shut = status in ("failed", "closed")
    off_limits = lacks != "nothing" and (status == "published" or (shut and lacks == "the model"))
    if off_limits:
        assert status in fails([outcome])[0]
        assert state == server.snapshot()
    else:
        assert isinstance(outcome, Delivered), fails([outcome])
        assert lacks != "a plot" or ("results", "plot image", 0) in server.plots(live)
        assert lacks != "the model" or 1 == len(server.models)
        assert isinstance(upload([run])[0], UpToDate)
    unchanged = shut or status in ("published", "in_progress", "stopped")
    assert (status if unchanged else "completed") == server.tasks[live]["status"]
    if status == "published":
        assert state == server.snapshot()


def test_after_adoption_an_abort_is_respected(server: ClearMLDouble, make_run: MakeRun) -> None:
    """It is ours now, and so a person's decision about it holds."""
    run = make_run(DETECT)
    live = report_live(server, expected(LIVE), run, end="stopped")
    delivered(run)
    server.tasks[live].update(status="stopped", status_reason="Stopped by user")
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch0_pred.jpg")
    assert "aborted" in fails(upload([run]))[0]


def test_our_archived_task_is_left_as_it_is(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Put away by a person: that is said when there is something to report, and how to go on."""
    run = make_run(DETECT)
    task = delivered(run).task_id
    server.ask("tasks.archive", tasks=[task])
    assert isinstance(upload([run])[0], UpToDate)
    shutil.copy(run / "val_batch0_labels.jpg", run / "val_batch0_pred.jpg")
    state = end_state(server)
    assert "was archived in ClearML" in fails(upload([run]))[0]
    assert state == end_state(server)
    server.ask("tasks.unarchive", tasks=[task])
    assert 1 == delivered(run).events


def test_a_training_under_way_is_followed_in_its_own_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Its first values arrive while we look; its own process ends it, which would be killed else."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    told = expected("v8.4.190-detect-killed.expected")
    scalars, told["scalars"] = told["scalars"], []
    live = report_live(server, told, run, end=None)

    def flush(endpoint: str, count: int) -> None:
        if endpoint == "events.get_task_single_value_metrics":
            for title, series, iteration, value, at in scalars[:14]:
                place = {"metric": title, "variant": series, "iter": iteration, "timestamp": at}
                server.ask("events.add", task=live, type=SCALAR, value=value, **place)

    server.after_request = flush
    outcome = delivered(run, now=lambda: now)
    assert (live, [live]) == (outcome.task_id, list(server.tasks))
    assert 28 == outcome.events
    outcome = delivered(run)  # it has died since
    assert "stays in progress" in notes(outcome)
    assert "in_progress" == server.tasks[live]["status"]
    assert not {"tasks.stopped", "tasks.completed"} & {request.endpoint for request in server.requests}
    assert isinstance(upload([run])[0], UpToDate)


# -- the way there ----------------------------------------------------------------------------------------


def test_a_run_that_nobody_reported_costs_two_requests_more(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The look for a task that holds it already is two queries, in a project that is there."""
    server.ask("projects.create", name="Ultralytics", description="")
    delivered(make_run("v8.4.190-detect-killed"))
    endpoints = Counter(request.endpoint for request in server.requests)
    # by key before and after it is made, by mark, by project and name, before it is ended
    assert 5 == endpoints["tasks.get_all_ex"]
    assert 1 == endpoints["projects.get_all_ex"]


@pytest.mark.parametrize(
    ("ledger", "end", "every"),
    sampled(
        [
            *(("kept", "completed", False), ("lost", None, False)),
            *(
                ("kept", "completed", True),
                *itertools.product(["lost"], ["completed", "stopped", None], [True]),
            ),
        ],
        lambda case: not case[2],
    ),
)
def test_killed_at_every_request_of_an_adoption(
    server: ClearMLDouble, doubles: Doubles, make_run: MakeRun, ledger: str, end: str | None, every: bool
) -> None:
    """SIGKILL after each single request; run again, the task ends the same, and it is the only one."""
    run = make_run(DETECT)

    def prepare(double: ClearMLDouble) -> str:
        told = expected(LIVE)
        told["output_model"] = []
        live = report_live(double, told, run, end=end)
        double.forget_event(live, PLOT, ("results", "plot image", 0))
        double.forget_event(live, SCALAR, BOX)
        return live

    prepare(server)
    delivered(run)
    wanted, requests = end_state(server), len(server.requests)
    (run / LEDGER_NAME).unlink()
    for number in chosen(range(1, requests + 1), every):
        with doubles() as double:
            prepare(double)
            assert killed_at_request(double, number, "after", lambda: upload([run])), number
            if ledger == "lost":
                (run / LEDGER_NAME).unlink(missing_ok=True)
            assert [] == fails(upload([run])), number
            assert wanted == end_state(double), number
            assert isinstance(upload([run])[0], UpToDate)
            (run / LEDGER_NAME).unlink()
