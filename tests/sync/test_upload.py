"""Whole uploads into a server double, over HTTP, with the SDK's own session."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN, MakeRun, long_after, one_in, sampled
from double import ClearMLDouble
from test_verify import planned
from uploading import clearml_sink, end_state, fails, upload

from yolo_clearml.replay.rules import Wishes
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.server.sink import ClearmlSink
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, configuration_stamp
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, Skipped, UpToDate
from yolo_clearml.sync.work import Lazily, Work


def the_task(server: ClearMLDouble) -> dict[str, Any]:
    (task,) = server.tasks.values()
    return task


def test_a_finished_run_becomes_the_task_the_callback_made(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Project, name, tags, type, status, curves, pictures, single values, parameters, model: all there."""
    expected = json.loads((GOLDEN / "v8.4.190-detect.expected.json").read_text())
    run = make_run("v8.4.190-detect")
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    task = the_task(server)
    told = (
        server.projects[task["project"]]["name"],
        task["name"],
        task["tags"],
        task["type"],
        task["status"],
    )
    assert (expected["project"], expected["task_name"], expected["tags"], "training", "completed") == told

    live = {(t, s, i): v for t, s, i, v, _ in expected["scalars"] if i < 5 and t != "Epoch Time"}
    got = {key: event["value"] for key, event in server.scalars(task["id"]).items()}
    assert live == pytest.approx({key: got[key] for key in live}, rel=1e-5)
    assert {("Epoch Time", "Epoch Time", i) for i in range(5)} == set(got) - set(live)

    images = {key[:3]: event for key, event in server.images(task["id"]).items()}
    assert {(t, s, i) for t, s, i, *_ in expected["images"]} == set(images)
    for (_, series, iteration), event in images.items():
        kind, rest = series.split(".")[0].partition("_")[::2]
        file = f"{kind}_batch{iteration}{'_' + rest if rest else ''}.jpg"
        assert (run / file).read_bytes() == server.file_of(event["url"])

    plots = server.plots(task["id"])
    assert {(t, v, i) for t, v, i, *_ in expected["plots"]} == set(plots)
    for (title, _, _), event in plots.items():
        (image,) = json.loads(event["plot_str"])["layout"]["images"]
        name = f"{title}.jpg" if title == "labels" else f"{title}.png"
        assert (run / name).read_bytes() == server.file_of(image["source"])

    parameters = {
        name: {"type": item.get("type"), "value": item["value"]}
        for name, item in task["hyperparams"]["General"].items()
    }
    assert expected["hyperparams_General"] == parameters
    assert {"model/parameters", "fitness"} <= set(server.single_values(task["id"]))
    (model,) = server.models.values()
    assert ("train", {"circle": 0, "square": 1, "triangle": 2}) == (model["name"], model["labels"])
    assert (run / "weights" / "best.pt").read_bytes() == server.file_of(model["uri"])
    assert [("best", model["id"])] == [(m["name"], m["model"]) for m in task["models"]["output"]]


def test_true_times_stand_on_events_and_on_the_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Events carry when they happened; start, end and origin are user properties."""
    upload([make_run("v8.4.190-detect")])
    task = the_task(server)
    times = {event["timestamp"] // 1000 for event in server.scalars(task["id"]).values()}
    assert set(range(1795341936, 1795341938)) == times
    properties = {name: item["value"] for name, item in task["hyperparams"]["properties"].items()}
    assert "2026-11-22T10:05:35+00:00" == properties["trained_from"]
    assert "2026-11-22T10:05:37+00:00" == properties["trained_until"]
    assert properties["run_directory"].endswith("/v8.4.190-detect/runs/detect/train")


def test_a_second_upload_sends_nothing(server: ClearMLDouble, make_run: MakeRun) -> None:
    """No request at all where nothing is new, and the run directory holds one more small file."""
    run = make_run("v8.4.190-detect")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    upload([run])
    count = len(server.requests)
    (outcome,) = upload([run])
    assert isinstance(outcome, UpToDate)
    assert count == len(server.requests)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {run / LEDGER_NAME} == set(after) - set(before)
    assert before == {path: after[path] for path in before}


def test_a_lost_ledger_finds_the_same_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Without the ledger everything is sent again, and the server ends the same: one task, one model."""
    run = make_run("v8.4.190-detect")
    upload([run])
    state = end_state(server)
    (run / LEDGER_NAME).unlink()
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert state == end_state(server)


def test_a_copy_on_another_machine_finds_the_same_task(
    server: ClearMLDouble, make_run: MakeRun, tmp_path: Path
) -> None:
    """A run moved elsewhere, times kept, with or without its ledger, is the same run."""
    run = make_run("v8.1.0-segment")
    upload([run])
    state = end_state(server)
    shutil.copytree(run, tmp_path / "elsewhere" / "copy")
    (outcome,) = upload([tmp_path / "elsewhere"])
    assert isinstance(outcome, UpToDate)
    (tmp_path / "elsewhere" / "copy" / LEDGER_NAME).unlink()
    (outcome,) = upload([tmp_path / "elsewhere"])
    assert isinstance(outcome, Delivered)
    assert state == end_state(server)


def test_a_changed_picture_is_sent_again_and_alone(server: ClearMLDouble, make_run: MakeRun) -> None:
    """One file, one event; the new bytes stand where the old ones stood."""
    run = make_run("v8.4.190-detect")
    upload([run])
    picture = run / "val_batch0_pred.jpg"
    picture.write_bytes((run / "val_batch0_labels.jpg").read_bytes())
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert (1, 1) == (outcome.events, outcome.files)
    task = the_task(server)
    (event,) = (e for (_, s, *_), e in server.images(task["id"]).items() if s == "val_pred.jpg")
    assert picture.read_bytes() == server.file_of(event["url"])
    assert "completed" == task["status"]


def test_force_sends_everything_into_the_same_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--force: what was deleted on the server comes back, and nothing stands there twice."""
    run = make_run("v8.4.190-detect")
    upload([run])
    state = end_state(server)
    server.files.clear()
    (outcome,) = upload([run], force=True)
    assert isinstance(outcome, Delivered)
    assert state == end_state(server)


def test_new_makes_a_second_task_once(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--new: another task; later uploads of the same directory go on with that one."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    first = the_task(server)["id"]
    upload([run], new=True)
    (second,) = set(server.tasks) - {first}
    (run / "train_batch0.jpg").write_bytes((run / "train_batch1.jpg").read_bytes())
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert second == outcome.task_id
    assert 2 == len(server.tasks)


def test_a_run_trained_afresh_in_place_gets_its_own_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """exist_ok: the ledger of the training before is not mistaken for this one's."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    other = make_run("v8.4.190-detect", "other")
    (run / "results.csv").write_bytes((other / "results.csv").read_bytes())
    upload([run])
    assert 2 == len(server.tasks)


def test_a_resumed_run_is_one_task_with_all_epochs(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Six epochs in one task, where the live callback made two."""
    upload([make_run("v8.4.190-detect-resumed")])
    losses = {i for title, series, i in server.scalars(the_task(server)["id"]) if series == "train/box_loss"}
    assert set(range(6)) == losses


def test_a_dead_run_that_is_resumed_goes_on_in_its_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """stopped, then, once it has finished after all, completed; the task stays the same."""
    run = make_run("v8.4.190-detect-resumed")
    rows = (run / "results.csv").read_bytes()
    (run / "results.csv").write_bytes(b"\n".join(rows.split(b"\n")[:4]) + b"\n")
    killed = make_run("v8.4.190-detect-killed")
    weights = {name: (run / "weights" / name).read_bytes() for name in ("best.pt", "last.pt")}
    for name in weights:
        shutil.copy(killed / "weights" / name, run / "weights" / name)
    upload([run])
    assert "stopped" == the_task(server)["status"]
    assert {} == server.models
    (run / "results.csv").write_bytes(rows)
    for name, data in weights.items():
        (run / "weights" / name).write_bytes(data)
    upload([run])
    assert "completed" == the_task(server)["status"]
    assert 1 == len(server.models)


def test_a_live_run_is_in_progress_and_has_no_plots_yet(server: ClearMLDouble, make_run: MakeRun) -> None:
    """While it trains: curves and mosaics only; plots, final values and model wait for the end."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    (outcome,) = upload([run], now=lambda: now)
    assert isinstance(outcome, Delivered)
    task = the_task(server)
    assert "in_progress" == task["status"]
    assert ({}, {}) == (server.plots(task["id"]), server.models)
    (outcome,) = upload([run], now=lambda: now)
    assert isinstance(outcome, UpToDate)
    upload([run])
    assert "stopped" == task["status"]
    assert {("results", "plot image", 0)} == set(server.plots(task["id"]))


def test_many_runs_at_once_each_get_their_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Eleven runs, four at a time, one login; what is no training is skipped with its reason."""
    for archive in sorted(GOLDEN.glob("*.tar.gz")):
        make_run(archive.name.removesuffix(".tar.gz"))
    outcomes = upload([make_run("v8.4.190-detect", "again").parent], jobs=4)
    kinds = Counter(type(outcome) for outcome in outcomes)
    # "again" is a copy of another run here, so it is the same run and the same task
    assert {Delivered: 13, Skipped: 2} == {kind: kinds[kind] for kind in (Delivered, Skipped)}
    assert [] == fails(outcomes)
    assert 12 == len(server.tasks)
    assert 1 == sum(request.endpoint == "auth.login" for request in server.requests)


def test_one_bad_run_does_not_stop_the_others(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Each failure is printed with its path and what to do; the other runs are done."""
    good, bad = make_run("v8.4.190-detect"), make_run("v8.3.100-detect")
    (bad / "args.yaml").write_text("!!python/object/apply:os.system ['false']\n")
    outcomes = upload([good, bad])
    (failed,) = (outcome for outcome in outcomes if isinstance(outcome, Failed))
    assert str(bad / "args.yaml") in str(failed.error)
    assert failed.error.hint
    assert 1 == sum(isinstance(outcome, Delivered) for outcome in outcomes)


def test_every_request_is_a_post_and_few_are_needed(server: ClearMLDouble, make_run: MakeRun) -> None:
    """300 epochs, 9 images, 9 plots and a model need at most 40 requests."""
    run = make_run("v8.4.190-segment")
    header, *rows = (run / "results.csv").read_text().splitlines()
    long = [f"{epoch},{epoch}.5," + rows[epoch % len(rows)].split(",", 2)[2] for epoch in range(1, 301)]
    (run / "results.csv").write_text("\n".join([header, *long]) + "\n")
    for extra in range(1, 3):
        for kind in ("labels", "pred"):
            shutil.copy(run / "val_batch0_pred.jpg", run / f"val_batch{extra}_{kind}.jpg")
    for name in ("MaskP_curve.png", "MaskR_curve.png", "labels.jpg"):
        (run / name).unlink()
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert {"POST"} == {request.method for request in server.requests}
    assert 9 + 9 + 1 == outcome.files
    assert len(server.requests) <= 40


def test_wishes_go_before_what_the_run_states(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--project, --name and --tags."""
    upload([make_run()], wishes=Wishes(project="lab/shapes", name="baseline", tags=("a", "b")))
    task = the_task(server)
    told = (server.projects[task["project"]]["name"], task["name"], task["tags"])
    assert ("lab/shapes", "baseline", ["a", "b"]) == told


def test_the_model_goes_where_output_uri_points(
    server: ClearMLDouble, make_run: MakeRun, tmp_path: Path
) -> None:
    """--output-uri with a folder: the weights lie there and the model's address says so."""
    run, folder = make_run(), tmp_path / "models"
    folder.mkdir()
    sink = clearml_sink(output_uri=f"file://{folder}")
    work = Work(Lazily(sink), FileLedgers(), configuration_stamp(), now=long_after)
    outcomes: list[Outcome] = list(sync(find_runs([run]), work))
    assert [] == fails(outcomes)
    (model,) = server.models.values()
    assert model["uri"].startswith(f"file://{folder}/")
    stored = Path(model["uri"].removeprefix("file://"))
    assert (run / "weights" / "best.pt").read_bytes() == stored.read_bytes()


@pytest.mark.parametrize("end", ["published", "aborted"])
def test_a_task_that_a_person_closed_is_left_as_it_is(
    server: ClearMLDouble, make_run: MakeRun, end: str
) -> None:
    """Published or aborted: not flipped back, nothing added, never reported as done."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    upload([run], now=lambda: now)
    task = the_task(server)
    task["status"] = "published" if end == "published" else "stopped"
    task["status_reason"] = "" if end == "published" else "Stopped by user"
    state = end_state(server)
    outcomes = upload([run])
    (sentence,) = fails(outcomes)
    assert end in sentence
    assert state == end_state(server)


def test_a_task_the_watchdog_stopped_goes_on(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The server stops a silent task by itself; that is no person's decision."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    upload([run], now=lambda: now)
    task = the_task(server)
    task["status"], task["status_reason"] = "stopped", "Forced stop (non-responsive)"
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)


@pytest.mark.parametrize("how", ["reset", "deleted"])
def test_a_task_that_lost_its_events_is_filled_again(
    server: ClearMLDouble, make_run: MakeRun, how: str
) -> None:
    """A reset or deleted task holds nothing of what the ledger knows, so all of it is sent again."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    upload([run], now=lambda: now)
    from yolo_clearml.server.api import Api

    payload = {"task": the_task(server)["id"], "force": True, "delete_external_artifacts": False}
    Api(2.0).call("tasks.reset" if how == "reset" else "tasks.delete", payload)
    upload([run])
    task = the_task(server)
    assert {0, 1, 2} == {i for _, _, i in server.scalars(task["id"])}
    (run / LEDGER_NAME).unlink()
    upload([run])
    assert [task["id"]] == list(server.tasks)


def cut_short(run: Path) -> None:
    """Leave what a copy that was broken off leaves: no checkpoint, no results.png, some of the rows."""
    rows = (run / "results.csv").read_text().splitlines(keepends=True)
    (run / "results.csv").write_text("".join(rows[:4]))
    for name in ("weights/best.pt", "weights/last.pt", "results.png"):
        (run / name).unlink()


@pytest.mark.parametrize("alive", [False, True])
def test_a_copy_cut_short_takes_nothing_from_the_whole(
    server: ClearMLDouble, make_run: MakeRun, alive: bool
) -> None:
    """It looks like a training that died or goes on; its task is that of the whole, and stays so."""
    whole, copy = make_run("v8.4.190-detect"), make_run("v8.4.190-detect", "copy")
    assert [] == fails(upload([whole]))
    state = end_state(server)
    cut_short(copy)
    options: dict[str, Any] = {}
    if alive:
        shutil.copytree(whole / "weights", copy / "weights", dirs_exist_ok=True)
        options["stale_after"] = 1e9
    (outcome,) = upload([copy], **options)
    assert isinstance(outcome, Skipped)
    assert "holds 3 of the 5 epochs that ClearML has" in outcome.reason
    assert state == end_state(server)
    assert isinstance(upload([copy], new=True)[0], Delivered)
    assert 2 == len(server.tasks)


@pytest.mark.parametrize(
    ("ledger", "less"),
    sampled(
        itertools.product(["its own", "of the whole", "none"], ["rows", "rows and no end", "no end"]),
        one_in(2),
    ),
)
def test_no_directory_takes_from_its_task_what_others_have_reported(
    server: ClearMLDouble, make_run: MakeRun, less: str, ledger: str
) -> None:
    """A copy with a ledger of its own, or of the whole; fewer rows, nothing that shows the end, or both."""
    whole, copy = make_run("v8.4.190-detect"), make_run("v8.4.190-detect", "copy")
    if ledger == "its own":
        ends = {
            name: (copy / name).read_bytes() for name in ("weights/best.pt", "weights/last.pt", "results.png")
        }
        table = (copy / "results.csv").read_text()
        cut_short(copy)
        assert [] == fails(upload([copy]))
        for name, content in ends.items():
            (copy / name).write_bytes(content)
        (copy / "results.csv").write_text(table)
    assert [] == fails(upload([whole]))
    state = end_state(server)
    if ledger == "of the whole":
        shutil.copy2(whole / LEDGER_NAME, copy / LEDGER_NAME)
    rows = (copy / "results.csv").read_text().splitlines(keepends=True)
    if less != "no end":
        (copy / "results.csv").write_text("".join(rows[:4]))
    if less != "rows":
        for name in ("weights/best.pt", "weights/last.pt", "results.png"):
            (copy / name).unlink()
    (plain,), (forced,) = upload([copy]), upload([copy], force=True)
    told_before = ledger == "its own" and less == "rows and no end"  # just that, so nothing is new
    assert isinstance(plain, UpToDate if told_before else Skipped)
    assert isinstance(forced, Skipped)
    assert state == end_state(server)
    closed = ClearmlSink(2.0).verify(planned(copy), copy, next(iter(server.tasks)), "").closed
    assert closed is not None
    assert "--new" in closed
    assert isinstance(upload([whole])[0], UpToDate)


@pytest.mark.parametrize("with_ledger", [True, False])
@pytest.mark.parametrize("damage", [b"", None], ids=["empty", "deleted"])
def test_weights_that_went_after_the_upload_take_nothing_back(
    server: ClearMLDouble, make_run: MakeRun, damage: bytes | None, with_ledger: bool
) -> None:
    """Deleted to save space, or damaged: the release would be guessed, and other curves come to be."""
    run = make_run("v8.3.100-detect")
    assert [] == fails(upload([run]))
    state = end_state(server)
    for name in ("best.pt", "last.pt"):
        weights = run / "weights" / name
        times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
        weights.unlink()
        if damage is not None:
            weights.write_bytes(damage)
            os.utime(weights, ns=times)
    if not with_ledger:
        (run / LEDGER_NAME).unlink()
    for options in ({}, {"force": True}, {"wishes": Wishes(rules=(8, 4, 190))}):
        (outcome,) = upload([run], **options)
        assert isinstance(outcome, Skipped)
        assert "does not show any more which release trained it" in outcome.reason
    assert state == end_state(server)


def test_a_task_that_a_person_imported_is_not_taken_for_a_twin(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The SDK's export holds the run's key as well; only what holds nothing is deleted."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    (task,) = server.tasks.values()
    imported = server.ask("tasks.create", name="mine", project=task["project"], type="training")["id"]
    server.tasks[imported].update(runtime=dict(task["runtime"]), hyperparams=dict(task["hyperparams"]))
    (run / LEDGER_NAME).unlink()
    assert [] == fails(upload([run]))
    assert {task["id"], imported} == set(server.tasks)


def test_the_whole_goes_on_where_a_copy_cut_short_began(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Uploaded first, it looks like a training that died, until the whole comes."""
    whole, copy = make_run("v8.4.190-detect"), make_run("v8.4.190-detect", "copy")
    cut_short(copy)
    assert [] == fails(upload([copy]))
    assert [] == fails(upload([whole]))
    (task,) = server.tasks.values()
    assert "completed" == task["status"]
    assert isinstance(upload([copy])[0], UpToDate)


def test_another_server_at_the_same_address_gets_everything(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set up anew, or at the end of a tunnel: with another configuration the task is looked for, once."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    wanted = end_state(server)
    monkeypatch.setenv("CLEARML_WEB_HOST", "http://elsewhere")
    monkeypatch.setenv("TRAINS_API_HOST", "http://elsewhere")  # is not used, but makes the stamp another one
    count = len(server.requests)
    assert isinstance(upload([run])[0], UpToDate)
    assert ["auth.login", "tasks.get_all_ex"] == [r.endpoint for r in server.requests[count:]]
    assert isinstance(upload([run])[0], UpToDate)
    assert 2 == len(server.requests) - count
    server.ask("tasks.delete", task=next(iter(server.tasks)), force=True)
    monkeypatch.setenv("TRAINS_API_HOST", "http://somewhere")
    assert isinstance(upload([run])[0], Delivered)
    assert wanted.keys() == end_state(server).keys()
    assert 1 == len(server.tasks)


def test_small_files_share_a_request(server: ClearMLDouble, make_run: MakeRun) -> None:
    """One that is larger than a proxy takes goes alone."""
    run = make_run("v8.4.190-detect")
    picture = (run / "labels.jpg").read_bytes()
    (run / "labels.jpg").write_bytes(picture[:-2] + bytes(900_000) + picture[-2:])
    assert [] == fails(upload([run]))
    posts = [request for request in server.requests if request.endpoint == "files:POST"]
    assert [1] == [len(post.payload) for post in posts if post.size > 900_000]
    assert len(posts) < len(server.files) / 2


@pytest.mark.parametrize("limits", [{"parts": 1}, {"size": 300_000}, {"parts": 2, "size": 400_000}])
def test_a_file_server_that_takes_no_two_files_gets_them_one_by_one(
    server: ClearMLDouble, make_run: MakeRun, limits: dict[str, int]
) -> None:
    """What it did not confirm is sent again, so that it ends as with one that takes them all."""
    run = make_run("v8.4.190-detect")
    assert [] == fails(upload([run]))
    wanted = end_state(server)
    (run / LEDGER_NAME).unlink()
    with ClearMLDouble() as lesser, pytest.MonkeyPatch.context() as patch:
        for name, value in lesser.environ.items():
            patch.setenv(name, value)
        lesser.limit_files(**limits)
        assert [] == fails(upload([run]))
        assert wanted == end_state(lesser)


def test_files_are_never_reported_to_be_there_when_one_is_not(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """A file server that confirms nothing of a request and takes nothing alone leaves no event behind."""
    run = make_run("v8.4.190-detect")
    server.limit_files(parts=0)
    assert "did not confirm" in fails(upload([run]))[0]
    (task,) = server.tasks
    assert ({}, {}, {}) == (server.images(task), server.plots(task), server.models)


@pytest.mark.usefixtures("told_at_once")
def test_two_uploaders_that_race_end_with_one_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Copies on two machines, neither sees the other's task in time: the older stays, the other goes."""
    one, two = make_run("v8.4.190-detect-killed"), make_run("v8.4.190-detect-killed", "copy")
    raced: list[int] = []

    def race(endpoint: str, number: int) -> None:
        if endpoint == "tasks.create" and not raced:
            raced.append(number)
            upload([two])

    server.before_request = race
    outcomes = upload([one], timeout=20.0)  # one waits for the other
    assert [] == fails(outcomes)
    assert 1 == len(server.tasks)
    (task,) = server.tasks
    assert 42 == len(server.scalars(task))


def test_everything_is_uploaded_to_another_server(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger's acknowledgements are those of one server."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    with ClearMLDouble() as other:
        for name, value in other.environ.items():
            monkeypatch.setenv(name, value)
        upload([run])
        assert end_state(server)["tasks"].keys() == end_state(other)["tasks"].keys()
        assert end_state(server)["files"] == end_state(other)["files"]


def test_a_task_that_another_uploader_ends_meanwhile_is_opened_again(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Copies on two machines at once: one ends the task under the other's hands, and both get through."""
    run = make_run("v8.4.190-detect")
    ended: list[int] = []

    def end(endpoint: str, number: int) -> None:
        if endpoint == "tasks.add_or_update_model" and not ended:
            ended.append(number)
            the_task(server)["status"] = "completed"

    server.before_request = end
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered), fails([outcome])
    assert 1 == len(server.models)
    assert "completed" == the_task(server)["status"]


def test_other_names_do_not_double_what_is_there(server: ClearMLDouble, make_run: MakeRun) -> None:
    """--project, --name and --tags are for a task that is made; one that is there keeps its own."""
    run = make_run("v8.4.190-detect")
    upload([run], wishes=Wishes(project="First/Proj", name="one", tags=("a",)))
    state = end_state(server)
    upload([run])
    upload([run], wishes=Wishes(project="Other/Proj", name="two"))
    (outcome,) = upload([run], wishes=Wishes(project="Other/Proj", name="two"), force=True)
    assert isinstance(outcome, Delivered)
    assert "First/Proj" in " ".join(outcome.notes)
    assert state == end_state(server)
    (run / LEDGER_NAME).unlink()
    upload([run])
    assert state == end_state(server)


def test_a_foreign_ledger_does_not_lead_into_another_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """A ledger comes with the directory; a task it names is believed only where it is this run's."""
    victim, run = make_run("v8.4.190-detect"), make_run("v8.3.100-detect")
    upload([victim])
    state = end_state(server)
    stolen = json.loads((victim / LEDGER_NAME).read_text())
    upload([run])
    ledger = json.loads((run / LEDGER_NAME).read_text())
    (run / LEDGER_NAME).write_text(json.dumps(ledger | {"task": stolen["task"], "sent": {}, "settled": None}))
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered)
    assert stolen["task"] != outcome.task_id
    assert 2 == len(server.tasks)
    assert state["tasks"].items() <= end_state(server)["tasks"].items()


def test_two_uploaders_that_race_end_with_one_model(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Neither sees the other's model in time: the older stays, the other goes, its weights stay."""
    run = make_run("v8.4.190-detect")
    raced: list[int] = []

    def race(endpoint: str, number: int) -> None:
        if endpoint == "models.create" and not raced:
            raced.append(number)
            upload([make_run("v8.4.190-detect", "copy")])

    server.before_request = race
    (outcome,) = upload([run], timeout=20.0)  # one waits for the other
    assert isinstance(outcome, Delivered), fails([outcome])
    (model,) = server.models.values()
    assert (run / "weights" / "best.pt").read_bytes() == server.file_of(model["uri"])
    assert [model["id"]] == [entry["model"] for entry in the_task(server)["models"]["output"]]


def test_an_abort_in_the_middle_is_not_overruled(server: ClearMLDouble, make_run: MakeRun) -> None:
    """A person aborts while the model goes up: the task stays aborted, and that is said."""
    run = make_run("v8.4.190-detect")

    def abort(endpoint: str, number: int) -> None:
        if endpoint == "tasks.add_or_update_model":
            the_task(server).update(status="stopped", status_reason="Stopped by user")

    server.after_request = abort
    (sentence,) = fails(upload([run]))
    assert "aborted" in sentence
    assert "stopped" == the_task(server)["status"]


def test_a_server_that_cannot_look_up_gets_no_task_more_each_time(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Where tasks are not found by their key, the one just made goes again, and the run fails."""
    from yolo_clearml.server import tasks as clearml_tasks

    run = make_run("v8.4.190-detect-killed")
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(clearml_tasks, "all_by_key", lambda api, key: [])  # as if the filter were ignored
        (sentence,) = fails(upload([run]))
    assert "runtime" in sentence
    assert {} == server.tasks


def test_everything_is_uploaded_to_another_workspace(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other credentials on the same address may be of another workspace, which knows nothing yet."""
    from yolo_clearml.server.api import Api

    run = make_run("v8.4.190-detect-killed")
    upload([run])
    monkeypatch.setattr(Api, "workspace", property(lambda api: f"{api.host}#other"))
    monkeypatch.setenv("CLEARML_API_ACCESS_KEY", server.access_key)
    work = Work(Lazily(clearml_sink()), FileLedgers(), "another configuration", now=long_after)
    outcomes = [o for o in sync(find_runs([run]), work) if isinstance(o, Delivered)]
    assert 1 == len(outcomes)
