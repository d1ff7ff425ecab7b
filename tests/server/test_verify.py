"""Whole runs uploaded over HTTP, read back and compared; and every kind of damage on the server, by name."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN, MakeRun, long_after, one_in, sampled
from double import ClearMLDouble, DropBefore, Fault, Hang, NotJson, Status, Truncate
from double.events import IMAGE, PLOT, SCALAR, SINGLE_VALUE_ITERATION
from uploading import clearml_sink, fails, upload

from yolo_clearml.errors import Exit, FileServerUnreachable, RunChanged, YoloClearmlError
from yolo_clearml.events import Event, Image, Plan, Plot
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.rundir.run import Run
from yolo_clearml.rundir.scan import scan
from yolo_clearml.server.sink import ClearmlSink
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.ledger import FileLedgers, configuration_stamp
from yolo_clearml.sync.outcomes import Delivered
from yolo_clearml.sync.verdict import Verdict
from yolo_clearml.sync.work import Lazily, Work

NO_TRAINING = {"v8.0.220-detect-died-in-setup", "v8.4.190-predict", "v8.4.190-val"}
TRAININGS = sorted({path.name.removesuffix(".tar.gz") for path in GOLDEN.glob("*.tar.gz")} - NO_TRAINING)


def planned(run: Path, now: float | None = None) -> Plan:
    snapshot = scan(run, long_after() if now is None else now)
    assert isinstance(snapshot, Run)
    return plan(snapshot, Wishes())


def events_of(planned: Plan) -> list[Event]:
    return [event for report in planned.reports for event in report.events]


@dataclass
class Uploaded:
    """A run and the one task it has become."""

    run: Path
    server: ClearMLDouble

    @property
    def task(self) -> dict[str, Any]:
        (task,) = self.server.tasks.values()
        return task

    @property
    def plan(self) -> Plan:
        return planned(self.run)

    def verdict(self, timeout: float = 2.0) -> Verdict:
        task_id = next(iter(self.server.tasks), None)
        return ClearmlSink(timeout).verify(self.plan, self.run, task_id, "")

    def found(self) -> list[str]:
        return [str(difference) for difference in self.verdict().differences]

    def image_url(self, place: tuple[str, str, int]) -> str:
        (url,) = (e["url"] for key, e in self.server.images(self.task["id"]).items() if key[:3] == place)
        return str(url)

    def plot_url(self, title: str) -> str:
        text = self.server.plots(self.task["id"])[title, "plot image", 0]["plot_str"]
        return str(json.loads(text)["layout"]["images"][0]["source"])

    @property
    def model(self) -> dict[str, Any]:
        (model,) = self.server.models.values()
        return model


@pytest.fixture
def uploaded(server: ClearMLDouble, make_run: MakeRun) -> Uploaded:
    """Give a finished run with pictures, plots and a model, uploaded."""
    run = make_run("v8.4.190-detect")
    assert [] == fails(upload([run]))
    return Uploaded(run, server)


@pytest.mark.parametrize("name", sampled(TRAININGS, one_in(3)))
def test_every_golden_run_verifies(server: ClearMLDouble, make_run: MakeRun, name: str) -> None:
    """No false alarm: everything that was sent is found, nothing is missing, nothing is too much."""
    run = make_run(name)
    (outcome,) = upload([run])
    assert isinstance(outcome, Delivered), fails([outcome])
    verdict = Uploaded(run, server).verdict()
    assert ((), ()) == (verdict.differences, verdict.extra)
    assert outcome.task_id == verdict.task_id
    assert verdict.facts >= len(events_of(planned(run)))


def test_a_live_run_verifies(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Its task is in progress, as its run is; and so it does not when the run has died since."""
    run = make_run("v8.4.190-detect-killed")
    now = (run / "weights" / "last.pt").stat().st_mtime + 5
    upload([run], now=lambda: now)
    assert () == ClearmlSink(2.0).verify(planned(run, now), run, None, "").differences
    assert "status: stopped here, in_progress in ClearML" in Uploaded(run, server).found()


def test_reading_back_changes_nothing(uploaded: Uploaded) -> None:
    """Verifying leaves no trace on the server or in the directory."""
    before = uploaded.server.snapshot(), sorted(uploaded.run.rglob("*"))
    assert () == uploaded.verdict().differences
    assert before == (uploaded.server.snapshot(), sorted(uploaded.run.rglob("*")))


def test_the_task_is_found_without_a_ledger(uploaded: Uploaded) -> None:
    """By the run's own key; and a task of another run is not taken for it."""
    assert () == ClearmlSink(2.0).verify(uploaded.plan, uploaded.run, None, "").differences
    (difference,) = ClearmlSink(2.0).verify(uploaded.plan, uploaded.run, None, "copy").differences
    assert "task: not in ClearML" == str(difference)


MAP50 = ("metrics", "metrics/mAP50(B)", 3)
VAL_PRED = ("Validation", "val_pred.jpg", 0)


def alter(kind: str, place: tuple[str, str, int], **fields: Any) -> Callable[[Uploaded], None]:
    return lambda u: u.server.alter_event(u.task["id"], kind, place, **fields)


def forget(kind: str, place: tuple[str, str, int]) -> Callable[[Uploaded], None]:
    return lambda u: u.server.forget_event(u.task["id"], kind, place)


def nudge(u: Uploaded) -> None:
    value = u.server.scalars(u.task["id"])[MAP50]["value"]
    u.server.alter_event(u.task["id"], SCALAR, MAP50, value=value * (1 + 2e-16) + 1e-16)


def other_image(u: Uploaded) -> None:
    content = u.server.file_of(u.image_url(VAL_PRED))
    assert content
    u.server.replace_file(u.image_url(VAL_PRED), content[:-1] + b"\x00")


def cut_image(u: Uploaded) -> None:
    content = u.server.file_of(u.image_url(VAL_PRED))
    assert content
    u.server.replace_file(u.image_url(VAL_PRED), content[:-1])


def longer_image(u: Uploaded) -> None:
    content = u.server.file_of(u.image_url(VAL_PRED))
    assert content
    u.server.replace_file(u.image_url(VAL_PRED), content + b"\x00")


def other_layout(u: Uploaded) -> None:
    alter(PLOT, ("results", "plot image", 0), plot_str='{"data": []}')(u)


def parameter(section: str, name: str, **fields: Any) -> Callable[[Uploaded], None]:
    return lambda u: u.task["hyperparams"][section][name].update(fields)


def no_parameter(section: str, name: str) -> Callable[[Uploaded], None]:
    return lambda u: u.task["hyperparams"][section].pop(name)


def model(**fields: Any) -> Callable[[Uploaded], None]:
    return lambda u: u.model.update(fields)


def delete_model(u: Uploaded) -> None:
    u.server.ask("models.delete", model=u.model["id"], force=True)


def unlink_model(u: Uploaded) -> None:
    u.task["models"]["output"] = []


def lose_weights(u: Uploaded) -> None:
    u.server.replace_file(u.model["uri"], None)


def stop(u: Uploaded) -> None:
    u.task["status"] = "stopped"


IMAGE_OF = "image Validation / val_pred.jpg at iteration 0: a file of * bytes here, "
DAMAGE: list[tuple[Callable[[Uploaded], object], str]] = [
    (
        alter(SCALAR, MAP50, value=0.5),
        "scalar metrics / metrics/mAP50(B) at iteration 3: * here, 0.5 in ClearML",
    ),
    (nudge, "scalar metrics / metrics/mAP50(B) at iteration 3: * here, * in ClearML"),
    (forget(SCALAR, MAP50), "scalar metrics / metrics/mAP50(B) at iteration 3: not in ClearML"),
    (alter(SCALAR, MAP50, iter=7), "scalar metrics / metrics/mAP50(B) at iteration 3: not in ClearML"),
    (
        alter(SCALAR, ("Summary", "fitness", SINGLE_VALUE_ITERATION), value=2),
        "single value fitness: * here, 2.0 in ClearML",
    ),
    (
        forget(SCALAR, ("Summary", "model/parameters", SINGLE_VALUE_ITERATION)),
        "single value model/parameters: not in ClearML",
    ),
    (
        other_image,
        IMAGE_OF + "another file of * bytes in ClearML",
    ),
    (
        cut_image,
        IMAGE_OF + "a file of * bytes in ClearML",
    ),
    (
        longer_image,
        IMAGE_OF + "a file of at least * bytes in ClearML",
    ),
    (
        lambda u: u.server.replace_file(u.image_url(VAL_PRED), None),
        IMAGE_OF + "a dead link in ClearML",
    ),
    (
        lambda u: u.server.replace_file(u.image_url(VAL_PRED), b""),
        IMAGE_OF + "a file of 0 bytes in ClearML",
    ),
    (forget(IMAGE, VAL_PRED), "image Validation / val_pred.jpg at iteration 0: not in ClearML"),
    (alter(IMAGE, VAL_PRED, iter=1000), "image Validation / val_pred.jpg at iteration 0: not in ClearML"),
    (forget(PLOT, ("results", "plot image", 0)), "plot results at iteration 0: not in ClearML"),
    (
        lambda u: u.server.replace_file(u.plot_url("results"), None),
        "plot results at iteration 0: a file of * bytes here, a dead link in ClearML",
    ),
    (other_layout, "plot results at iteration 0: a file of * bytes here, no file in ClearML"),
    (
        parameter("General", "epochs", value="6"),
        "hyperparameter General / epochs: '5' (int) here, '6' (int) in ClearML",
    ),
    (
        parameter("General", "epochs", type="str"),
        "hyperparameter General / epochs: '5' (int) here, '5' (str) in ClearML",
    ),
    (no_parameter("General", "epochs"), "hyperparameter General / epochs: not in ClearML"),
    (parameter("properties", "epochs", value="many"), "property epochs: '5 of 5' here, 'many' in ClearML"),
    (no_parameter("properties", "trained_from"), "property trained_from: not in ClearML"),
    (delete_model, "model *: not in ClearML"),
    (unlink_model, "model *: shown by the task here, a model that its task does not show in ClearML"),
    (lose_weights, "model *: a file of * bytes here, a dead link in ClearML"),
    (
        lambda u: u.model.update(uri=f"{u.server.files_url}/elsewhere/best.pt"),
        "model *: a file of * bytes here, a dead link in ClearML",
    ),
    (model(labels={}), "model * / label *: * here, no label in ClearML"),
    (lambda u: u.model["labels"].update(cat=9), "model * / label 'cat': no label here, 9 in ClearML"),
    (model(name="another"), "model * / name: '*' here, 'another' in ClearML"),
    (stop, "status: completed here, stopped in ClearML"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE, ids=[text for _, text in DAMAGE])
def test_damage_is_found_by_name(
    uploaded: Uploaded, damage: Callable[[Uploaded], object], sentence: str
) -> None:
    """One thing is wrong on the server, and the verdict says which, and nothing else."""
    facts = uploaded.verdict().facts
    damage(uploaded)
    verdict = uploaded.verdict()
    found = [str(difference) for difference in verdict.differences]
    assert found
    assert [] == [text for text in found if not matches(text, sentence)]
    # a label too many is no fact of the plan; of a model that is gone nothing else can be compared
    assert facts - len(found) == verdict.facts or sentence.startswith("model")


def matches(text: str, pattern: str) -> bool:
    pieces = pattern.split("*")
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return text.startswith(pieces[0]) and text.endswith(pieces[-1])


@pytest.mark.parametrize(("damage", "sentence"), sampled(DAMAGE, one_in(5)), ids=[text for _, text in DAMAGE])
def test_damage_is_mended_by_force_or_stated_not_to_be(
    uploaded: Uploaded, damage: Callable[[Uploaded], object], sentence: str
) -> None:
    """Into the same task, so that nothing is left to be found."""
    damage(uploaded)
    closed = uploaded.verdict().closed
    told = fails(upload([uploaded.run], force=True))
    if closed is None:
        assert [] == told
        assert [] == uploaded.found()
        assert 1 == len(uploaded.task["models"]["output"])
    else:
        (refused,) = told
        assert closed.startswith(refused)


def test_a_deleted_task_is_found(uploaded: Uploaded) -> None:
    """By the ledger's id, which is what a person looks for."""
    task_id = uploaded.task["id"]
    uploaded.server.ask("tasks.delete", task=task_id, force=True)
    verdict = ClearmlSink(2.0).verify(uploaded.plan, uploaded.run, task_id, "")
    assert [f"task {task_id}: not in ClearML"] == [str(each) for each in verdict.differences]
    assert 0 == verdict.facts


def test_a_reset_task_is_found(uploaded: Uploaded) -> None:
    """Parameters survive a reset; every value, picture and the model do not."""
    uploaded.server.ask("tasks.reset", task=uploaded.task["id"], force=True)
    verdict = uploaded.verdict()
    kinds = {difference.kind.value for difference in verdict.differences}
    assert {"scalar", "single value", "image", "plot", "model", "status"} == kinds
    parameters = sum(map(len, uploaded.task["hyperparams"].values()))
    assert parameters == verdict.facts
    assert "status: completed here, created in ClearML" in map(str, verdict.differences)


def test_a_published_task_verifies(uploaded: Uploaded) -> None:
    """A person has taken it over as it is."""
    uploaded.server.ask("tasks.publish", task=uploaded.task["id"])
    assert "published" == uploaded.task["status"]
    assert [] == uploaded.found()


def test_a_stopped_run_published_verifies(server: ClearMLDouble, make_run: MakeRun) -> None:
    """A person has taken that over, too."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    up = Uploaded(run, server)
    server.ask("tasks.publish", task=up.task["id"])
    assert [] == up.found()


def test_a_figure_we_drew_is_whole_or_not(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Its bytes may change with what draws it; half of one is no figure."""
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    up = Uploaded(run, server)
    url = up.plot_url("results")
    drawn = server.file_of(url)
    assert drawn
    server.replace_file(url, drawn[:20] + drawn[-8:])
    assert [] == up.found()
    server.replace_file(url, drawn[:-1])
    (sentence,) = up.found()
    assert (
        f"plot results at iteration 0: a figure here, a broken file of {len(drawn) - 1:,} bytes" in sentence
    )
    server.replace_file(url, None)
    (sentence,) = up.found()
    assert "a dead link" in sentence
    server.forget_event(up.task["id"], PLOT, ("results", "plot image", 0))
    assert ["plot results at iteration 0: not in ClearML"] == up.found()


def test_what_the_disk_does_not_hold_is_no_difference(uploaded: Uploaded) -> None:
    """GFLOPs, machine statistics, one more point: counted apart."""
    task = uploaded.task["id"]
    point = {"type": SCALAR, "task": task, "timestamp": 5, "value": 1.0}
    uploaded.server.ask("events.add", **point, metric="metrics", variant="metrics/mAP50(B)", iter=5)
    for i in range(3):
        uploaded.server.ask("events.add", **point, metric=":monitor:gpu", variant="gpu_0", iter=i)
    uploaded.server.ask(
        "events.add", **point, metric="Summary", variant="GFLOPs", iter=SINGLE_VALUE_ITERATION
    )
    uploaded.task["hyperparams"]["General"]["more"] = {"section": "General", "name": "more", "value": "1"}
    verdict = uploaded.verdict()
    assert () == verdict.differences
    assert {
        ("scalar", "metrics", "metrics/mAP50(B)", 1),
        ("scalar", ":monitor:gpu", "gpu_0", 3),
        ("single value", "GFLOPs", None, 1),
        ("hyperparameter", "General", "more", 1),
    } == {(e.kind.value, e.title, e.series, e.count) for e in verdict.extra}


def test_a_picture_under_another_name_is_recognised(uploaded: Uploaded) -> None:
    """By title, series and iteration; where several share them, one that is the same will do."""
    task, url = uploaded.task["id"], uploaded.image_url(VAL_PRED)
    content = uploaded.server.file_of(url)
    assert content
    uploaded.server.files["other/0_17.jpg"] = content
    other = f"{uploaded.server.files_url}/other/0_17.jpg"
    uploaded.server.alter_event(task, IMAGE, VAL_PRED, url=other, key="other/0_17.jpg")
    assert [] == uploaded.found()
    event = {"type": IMAGE, "task": task, "metric": VAL_PRED[0], "variant": VAL_PRED[1], "iter": 0}
    for name in ("a", "z"):
        uploaded.server.files[name] = b"something else"
        more = {"url": f"{uploaded.server.files_url}/{name}", "key": name, "timestamp": 1}
        uploaded.server.ask("events.add", **event, **more)
    assert [] == uploaded.found()


def test_the_model_in_a_folder_verifies(server: ClearMLDouble, make_run: MakeRun, tmp_path: Path) -> None:
    """Storage that is no web server is read through the SDK's drivers, or from the disk itself."""
    run, folder = make_run("v8.4.190-detect"), tmp_path / "models"
    folder.mkdir()
    sink = clearml_sink(output_uri=f"file://{folder}")
    work = Work(Lazily(sink), FileLedgers(), configuration_stamp(), now=long_after)
    list(sync(find_runs([run]), work))
    up = Uploaded(run, server)
    assert [] == up.found()
    Path(up.model["uri"].removeprefix("file://")).write_bytes(b"x")
    (sentence,) = up.found()
    assert sentence.endswith("bytes here, a file of 1 bytes in ClearML")
    Path(up.model["uri"].removeprefix("file://")).unlink()
    (sentence,) = up.found()
    assert sentence.endswith("a dead link in ClearML")


def test_a_file_that_changes_under_our_hands_is_no_difference(uploaded: Uploaded) -> None:
    """The plan is of the file as it was: neither verified nor different."""
    planned, task_id = uploaded.plan, uploaded.task["id"]
    (uploaded.run / "results.png").write_bytes(b"x")
    with pytest.raises(RunChanged):
        ClearmlSink(2.0).verify(planned, uploaded.run, task_id, "")


def test_a_changed_file_here_is_a_difference(uploaded: Uploaded) -> None:
    """The other way round: the disk has moved on, ClearML holds what was."""
    path = uploaded.run / "val_batch0_pred.jpg"
    path.write_bytes(path.read_bytes()[:-2] + b"\x00\xff\xd9")
    (sentence,) = uploaded.found()
    assert sentence.startswith("image Validation / val_pred.jpg at iteration 0: a file of ")


READS = [
    "tasks.get_all_ex",
    "projects.get_all_ex",
    "events.get_scalar_metrics_and_variants",
    "events.scalar_metrics_iter_raw",
    "events.get_task_single_value_metrics",
    "events.get_task_events",
    "models.get_all",
]
FAULTS: list[Fault] = [
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    Status(429),
    DropBefore(),
    Truncate(),
    NotJson(),
    Hang(2.0),
]


def named(fault: Fault) -> str:
    return f"{type(fault).__name__}{getattr(fault, 'code', '')}"


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    sampled(itertools.product(READS, FAULTS), one_in(5)),
    ids=lambda value: value if isinstance(value, str) else named(value),
)
def test_a_reply_that_is_none_is_an_error(uploaded: Uploaded, endpoint: str, fault: Fault) -> None:
    """Cut off, a web page, an error, too slow, each time: neither verified nor different."""
    uploaded.server.fault(endpoint, fault, times=None)
    with pytest.raises(YoloClearmlError) as error:
        uploaded.verdict(timeout=0.3)
    assert Exit.UNREACHABLE == error.value.status
    assert error.value.hint


@pytest.mark.parametrize(
    "fault",
    sampled(
        [
            *(fault for fault in FAULTS if not isinstance(fault, NotJson)),
            *(Status(301, headers={"Location": "/"}), Status(401), Status(403), Status(400)),
            Status(200, b"not packed", {"Content-Encoding": "gzip"}),
        ],
        one_in(3),
    ),
    ids=named,
)
def test_a_file_that_does_not_come_is_an_error(uploaded: Uploaded, fault: Fault) -> None:
    """A file that the server does not give is not one that it does not have."""
    uploaded.server.fault("files:GET", fault, times=None)
    with pytest.raises(YoloClearmlError) as error:
        uploaded.verdict(timeout=0.3)
    assert Exit.UNREACHABLE == error.value.status
    assert error.value.hint


@pytest.mark.parametrize("fault", sampled([*FAULTS[:7], Status(401)], one_in(3)), ids=named)
def test_what_passes_is_waited_for(uploaded: Uploaded, fault: Fault) -> None:
    """One failure of a kind that passes, of the API and of the file server: verified all the same."""
    uploaded.server.fault("events.get_task_events", fault)
    if not (isinstance(fault, Status) and fault.code == 401):
        uploaded.server.fault("files:GET", fault)
    assert () == uploaded.verdict(timeout=10.0).differences


def test_a_login_page_instead_of_files_never_verifies(uploaded: Uploaded) -> None:
    """A proxy that answers everything with a page: each file differs."""
    uploaded.server.fault("files:GET", NotJson(), times=None)
    files = [e for e in events_of(uploaded.plan) if isinstance(e, (Image, Plot))]
    assert len(files) + 1 == len(uploaded.found())


def test_a_file_server_that_wants_the_token_gets_it(uploaded: Uploaded) -> None:
    """As the SDK would send it; and not to a stranger's address."""
    uploaded.server.files_auth = True
    assert [] == uploaded.found()
    with ClearMLDouble() as stranger:
        seen: list[dict[str, str]] = []
        respond = stranger._files
        stranger._files = lambda incoming: (  # type: ignore[method-assign]
            seen.append(incoming.headers) or respond(incoming)  # type: ignore[func-returns-value]
        )
        uploaded.server.alter_event(uploaded.task["id"], IMAGE, VAL_PRED, url=f"{stranger.files_url}/x.jpg")
        (sentence,) = uploaded.found()
        assert "a dead link" in sentence
        assert seen
        assert not any("authorization" in headers for headers in seen)


def test_a_file_server_that_is_down_is_an_error(uploaded: Uploaded) -> None:
    """In bounded time, once."""
    uploaded.server.stop_files()
    with pytest.raises(FileServerUnreachable, match="refuses the connection"):
        uploaded.verdict(timeout=0.5)
