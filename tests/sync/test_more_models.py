"""Models beside best.pt: each is sent once, under a name of its own, and read back; what is none is named."""

from __future__ import annotations

import functools
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun, sampled
from double import ClearMLDouble
from test_cli import Run, run_cli
from uploading import end_state
from uploading import upload as upload_soon

from yolo_clearml.events import ModelFile, OutputModel, Part
from yolo_clearml.library import Options, plan_run, read_run, status
from yolo_clearml.library import upload as upload_as_asked
from yolo_clearml.replay.wanted import Wanted
from yolo_clearml.rundir import further
from yolo_clearml.rundir.exports import framework_of, link_of, model_file
from yolo_clearml.rundir.packing import Unpackable, open_whole
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, UpToDate
from yolo_clearml.sync.work import Aim

__all__ = ["run_cli"]  # a fixture

pytestmark = pytest.mark.usefixtures("told_at_once")
upload = functools.partial(upload_soon, timeout=20.0)  # a machine may be busy
ALL = Wanted(models=frozenset(ModelFile))
LINKS = {  # and their frameworks
    ModelFile.BEST: {"best": "PyTorch"},
    ModelFile.LAST: {"last": "PyTorch"},
    ModelFile.PERIODIC: {"epoch0": "PyTorch", "epoch10": "PyTorch"},
    ModelFile.EXPORTS: {"best-onnx": "ONNX", "best-engine": "TensorRT", "best_saved_model": "TensorFlow"},
}


@pytest.fixture
def many_models(small_run: Path) -> Path:
    """Give a finished run with models of every kind."""
    weights = small_run / "weights"
    for name in ("epoch0.pt", "epoch10.pt"):
        shutil.copy2(weights / "last.pt", weights / name)
    (weights / "best.onnx").write_bytes(b"onnx" * 1000)
    (weights / "best.engine").write_bytes(b"engine")
    variables = weights / "best_saved_model" / "variables"
    variables.mkdir(parents=True)
    (variables / "variables.index").write_bytes(b"index")
    (weights / "best_saved_model" / "saved_model.pb").write_bytes(b"model")
    return small_run


def held(server: ClearMLDouble) -> dict[str, dict[str, Any]]:
    """Give the models that the task shows, by the name it shows them under."""
    ((_, task),) = server.tasks.items()
    links = task["models"]["output"] or []
    assert len(links) == len({link["name"] for link in links}) == len(server.models)
    return {link["name"]: server.models[link["model"]] for link in links}


def proved(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, (UpToDate, Delivered))
    assert outcome.proof is not None
    return [str(difference) for difference in outcome.proof.differences]


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "framework", "link"),
    [
        ("weights/best.pt", ModelFile.BEST, "PyTorch", "best"),
        ("weights/epoch0.pt", ModelFile.PERIODIC, "PyTorch", "epoch0"),
        ("weights/best_int8.onnx", ModelFile.EXPORTS, "ONNX", "best_int8-onnx"),
        ("weights/best-fp16.tflite", ModelFile.EXPORTS, "TensorFlow_Lite", "best-fp16-tflite"),
        ("weights/best_full_integer_quant_edgetpu.tflite", ModelFile.EXPORTS, "TensorFlow_Lite", None),
        ("weights/best_int8_openvino_model", ModelFile.EXPORTS, "OpenVINO", "best_int8_openvino_model"),
        ("weights/last.torchscript", ModelFile.EXPORTS, "TorchScript", "last-torchscript"),
        ("weights/best_qnn.onnx", ModelFile.EXPORTS, "QNN", "best_qnn-onnx"),
        ("weights/best.mlpackage", ModelFile.EXPORTS, "CoreML", "best-mlpackage"),
        ("weights/epoch\u0661.pt", None, None, None),
        ("weights/best.pt.bak", None, None, None),
        ("weights/other.onnx", None, None, None),
        ("best.onnx", None, None, None),
    ],
)
def test_a_model_is_known_by_its_name(
    name: str, kind: ModelFile | None, framework: str | None, link: str | None
) -> None:
    assert kind == model_file(name)
    assert framework in (None, framework_of(name))
    assert link in (None, link_of(name))


# -- what is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sampled(ModelFile, (ModelFile.EXPORTS,).__contains__))
def test_each_kind_is_sent_by_itself(server: ClearMLDouble, many_models: Path, kind: ModelFile) -> None:
    """Under names of their own; status and verify know it by themselves; nothing is sent twice."""
    wanted = Wanted(models=frozenset({kind}))
    (outcome,) = upload([many_models], wanted=wanted)
    assert isinstance(outcome, Delivered)
    assert LINKS[kind] == {link: model["framework"] for link, model in held(server).items()}
    names = {model["name"] for model in held(server).values()}
    assert names == {"train" if link == "best" else f"train - {link}" for link in LINKS[kind]}
    (standing,) = status([many_models])
    assert isinstance(standing, UpToDate)
    (outcome,) = upload([many_models], wanted=None, aim=Aim.VERIFY)
    assert [] == proved(outcome)
    count = len(server.requests)
    (outcome,) = upload([many_models], wanted=wanted)
    assert (UpToDate, count) == (type(outcome), len(server.requests))


def test_all_are_sent_with_their_bytes_and_then_mended(server: ClearMLDouble, many_models: Path) -> None:
    """A folder is a zip that is the same each time; a model that changes is replaced."""
    upload([many_models], wanted=ALL)
    assert {link for links in LINKS.values() for link in links} == held(server).keys()
    stored = {key.rpartition("/")[2]: data for key, data in server.files.items() if "/models/" in key}
    weights = many_models / "weights"
    for name, data in stored.items():
        if name != "best_saved_model.zip":
            assert (weights / name).read_bytes() == data
    with zipfile.ZipFile(BytesIO(stored["best_saved_model.zip"])) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    assert {"saved_model.pb": b"model", "variables/variables.index": b"index"} == members
    assert 10 == _iterations(server)["epoch10"]
    state = end_state(server)
    (many_models / LEDGER_NAME).unlink()
    upload([many_models], wanted=ALL, force=True)
    assert state == end_state(server)
    (weights / "best_saved_model" / "saved_model.pb").write_bytes(b"other")
    (weights / "best.onnx").write_bytes(b"onnX" * 1000)
    os.utime(weights / "best.onnx", (2e9, 2e9))
    (outcome,) = upload([many_models], wanted=None, aim=Aim.VERIFY)
    assert 2 == len(proved(outcome))
    (outcome,) = upload([many_models], wanted=ALL, aim=Aim.DELIVER_AND_VERIFY)
    assert [] == proved(outcome)
    assert isinstance(outcome, Delivered)
    assert 2 == outcome.files
    (weights / "best_saved_model" / "saved_model.pb").write_bytes(b"third")
    (outcome,) = upload([many_models], wanted=ALL)  # nothing but this file shows that something is to do
    assert isinstance(outcome, Delivered)
    assert 1 == outcome.files


def _iterations(server: ClearMLDouble) -> dict[str, int]:
    """Give at which iteration each model was linked."""
    bodies = [r.payload for r in server.requests if r.endpoint == "tasks.add_or_update_model"]
    return {body["name"]: body["iteration"] for body in bodies}


def test_a_later_call_without_the_option_takes_nothing_back(server: ClearMLDouble, many_models: Path) -> None:
    """best.pt was left out, and is sent; the others stay, as more than there has to be."""
    upload([many_models], wanted=Wanted(models=frozenset({ModelFile.LAST})))
    (outcome,) = upload([many_models], aim=Aim.DELIVER_AND_VERIFY)
    assert [] == proved(outcome)
    assert {"best", "last"} == held(server).keys()
    upload([many_models], wanted=Wanted(frozenset({Part.MODEL}), frozenset(ModelFile)))
    assert {"best", "last"} == held(server).keys()


def test_a_training_that_stopped_has_the_models_that_are_asked_for(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    run = make_run("v8.4.190-detect-killed")
    upload([run])
    assert {} == server.models
    upload([run], wanted=Wanted(models=frozenset({ModelFile.BEST, ModelFile.LAST})))
    assert {"best", "last"} == held(server).keys()
    assert all(model["labels"] for model in held(server).values())


def test_a_live_training_has_none_yet(make_run: MakeRun) -> None:
    run = make_run("v8.4.190-detect-killed")
    shutil.copy2(run / "weights/last.pt", run / "weights/epoch0.pt")
    read = read_run(run, Options(models=("periodic",), stale_after=1e9))
    assert not isinstance(read, NotARun)
    assert "weights/epoch0.pt" not in read.files


# -- what is none -----------------------------------------------------------------------------------------


def _linked(weights: Path) -> None:
    (weights / "best.onnx").unlink()
    (weights / "best.onnx").symlink_to("/etc/hostname")


def _linked_inside(weights: Path) -> None:
    (weights / "best_saved_model" / "extra").symlink_to("/etc")


def _empty(weights: Path) -> None:
    (weights / "best.onnx").write_bytes(b"")


def _pointer(weights: Path) -> None:
    oid = f"oid sha256:{'0' * 64}\nsize 4000\n"
    (weights / "best.onnx").write_text(f"version https://git-lfs.github.com/spec/v1\n{oid}")


def _torn(weights: Path) -> None:
    (weights / "epoch0.pt").write_bytes((weights / "epoch10.pt").read_bytes()[:5000])


def _many(weights: Path) -> None:
    for number in range(8):
        (weights / "best_saved_model" / f"{number}").touch()


def _earlier(weights: Path) -> None:
    os.utime(weights / "best.onnx", (1e9, 1e9))
    # where only one training can have been, nothing is of another
    args = weights.parent / "args.yaml"
    written = args.stat().st_mtime
    args.write_text(args.read_text().replace("exist_ok: false", "exist_ok: true"))
    os.utime(args, (written, written))


NONE: dict[Callable[[Path], None], tuple[str, str]] = {
    _linked: ("best-onnx", "a link to /etc/hostname"),
    _linked_inside: ("best_saved_model", "a link to /etc"),
    _empty: ("best-onnx", "empty"),
    _pointer: ("best-onnx", "a git-LFS pointer"),
    _torn: ("epoch0", "cut short"),
    _many: ("best_saved_model", "a folder of more than 8 files"),
    _earlier: ("best-onnx", "older than args.yaml"),
}


@pytest.mark.parametrize("spoil", NONE, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_is_no_model_is_named(
    many_models: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    """And keeps no other back."""
    link, reason = NONE[spoil]
    monkeypatch.setattr(further, "_MOST_MEMBERS", 8)
    spoil(many_models / "weights")
    options = Options(models=tuple(kind.value for kind in ModelFile))
    read = read_run(many_models, options)
    assert not isinstance(read, NotARun)
    planned = plan_run(read, options)
    events = [event for report in planned.reports for event in report.events]
    sent = {link_of(event.file.name) for event in events if isinstance(event, OutputModel)}
    assert {name for links in LINKS.values() for name in links} - {link} == sent
    assert any(reason in fact for fact in planned.missing), planned.missing


def test_links_are_followed_into_the_folders_that_are_named(
    server: ClearMLDouble, many_models: Path, tmp_path: Path
) -> None:
    """Of the whole folder of weights too."""
    cache = tmp_path.resolve() / "cache"
    shutil.move(many_models / "weights", cache)
    (many_models / "weights").symlink_to(cache)
    (outcome,) = upload([many_models], wanted=ALL, follow=(cache,), aim=Aim.DELIVER_AND_VERIFY)
    assert [] == proved(outcome)
    assert {link for links in LINKS.values() for link in links} == held(server).keys()


def test_no_room_to_pack_a_folder_is_said(
    server: ClearMLDouble, many_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file that is full is named; everything before it is there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    (outcome,) = upload([many_models], wanted=ALL)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, Unpackable)
    assert "best_saved_model cannot be packed" in str(outcome.error)
    assert "best-onnx" in held(server)


def test_a_packed_folder_is_the_same_bytes_each_time(many_models: Path) -> None:
    read = read_run(many_models, Options(models=("exports",)))
    assert not isinstance(read, NotARun)
    stamp = read.files["weights/best_saved_model"]
    with open_whole(many_models, stamp) as first:
        packed = first.read()
    folder = many_models / "weights" / "best_saved_model"
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    shutil.move(folder.with_name("copy"), folder)
    read = read_run(many_models, Options(models=("exports",)))
    assert not isinstance(read, NotARun)
    with open_whole(many_models, read.files["weights/best_saved_model"]) as second:
        assert packed == second.read()
    assert stamp.content == read.files["weights/best_saved_model"].content


# -- elsewhere --------------------------------------------------------------------------------------------


def test_a_session_has_them_beside_it(server: ClearMLDouble, many_models: Path, tmp_path: Path) -> None:
    """Each under a name that the importer does not take for another's."""
    folder = tmp_path / "out"
    models = tuple(kind.value for kind in ModelFile)
    list(upload_as_asked([many_models], Options(offline=folder, models=models)))
    (session,) = folder.glob("*.zip")  # all of which people import
    with zipfile.ZipFile(session) as archive:
        told = json.loads(archive.read("task.json"))["offline_output_models"]
    targets = {model["weights"]["target_filename"].partition(".")[0] for model in told}
    assert {link for links in LINKS.values() for link in links} == targets
    files = [Path(model["weights"]["weights_filename"]) for model in told]
    assert sorted([session, *files]) == sorted(folder.iterdir())


def test_the_command_line_takes_and_explains_them(
    run_cli: Run, server: ClearMLDouble, many_models: Path
) -> None:
    dry = run_cli("upload", "--dry-run", "--models", "best,last", "--models", "exports", many_models)
    models = [line.split(" <- ")[0].split()[-1] for line in dry.out.splitlines() if "  model " in line]
    assert ["train", "best-engine", "best-onnx", "best_saved_model", "last"] == models
    ended = run_cli("upload", "--models", "all", many_models)
    assert (2, True) == (ended.status, "best, last, periodic, exports" in ended.err)


def test_a_watch_sees_an_export_that_comes_later() -> None:
    """As a file of the run, which it otherwise is not."""
    named = further.Further(frozenset({ModelFile.EXPORTS}))
    assert named.concerns("weights/best.onnx")
    assert not further.NOTHING.concerns("weights/best.onnx")
