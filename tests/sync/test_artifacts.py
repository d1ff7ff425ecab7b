"""Further files as artifacts: those that are named and no others, once, with hash and size, and read back."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from double import Altered, ClearMLDouble
from test_cli import Run, run_cli
from uploading import end_state
from uploading import upload as upload_soon

from yolo_clearml.errors import UsageError
from yolo_clearml.library import Options, plan_run, read_run, status
from yolo_clearml.library import upload as upload_as_asked
from yolo_clearml.replay.wanted import Wanted
from yolo_clearml.rundir import further
from yolo_clearml.rundir.choice import FileChoice
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, UpToDate
from yolo_clearml.sync.work import Aim

__all__ = ["run_cli"]  # a fixture

pytestmark = pytest.mark.usefixtures("told_at_once")
upload = functools.partial(upload_soon, timeout=20.0)  # a machine may be busy


def named(*patterns: str) -> Wanted:
    return Wanted(artifacts=FileChoice(patterns))


SOME = named("*.json", "notes/", "!notes/draft*")
SENT = ["notes/what I saw.txt", "predictions.json"]


@pytest.fixture
def noted_run(small_run: Path) -> Path:
    """Give a finished run with files that a person put there, and a repository."""
    (small_run / "predictions.json").write_text("[]")
    (small_run / "notes").mkdir()
    (small_run / "notes" / "what I saw.txt").write_text("it converges")
    (small_run / "notes" / "draft.txt").write_text("no")
    (small_run / ".git").mkdir()
    (small_run / ".git" / "secret.json").write_text("{}")
    (small_run / "events.out.tfevents.1.host.2.0").write_bytes(b"tensorboard")
    return small_run


def held(server: ClearMLDouble) -> dict[str, Any]:
    ((_, task),) = server.tasks.items()
    return {artifact["key"]: artifact for artifact in task["execution"]["artifacts"]}


def differences(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, (UpToDate, Delivered))
    assert outcome.proof is not None
    return [str(difference) for difference in outcome.proof.differences]


def test_the_ledger_is_known_by_its_name() -> None:
    assert further._OURS == LEDGER_NAME


def test_what_is_named_is_sent_as_the_sdk_would(server: ClearMLDouble, noted_run: Path) -> None:
    """Shape, address, hash and size; nothing is sent that was not named, TensorBoard's files least of all."""
    upload([noted_run])
    assert {} == held(server)
    (outcome,) = upload([noted_run], wanted=SOME)
    assert isinstance(outcome, Delivered)
    assert (0, 2) == (outcome.events, outcome.files)
    assert SENT == sorted(held(server))
    artifact = held(server)["notes/what I saw.txt"]
    data = (noted_run / "notes" / "what I saw.txt").read_bytes()
    assert data == server.file_of(artifact["uri"])
    ((task, _),) = server.tasks.items()
    assert f".{task}/artifacts/notes.slash.what%20I%20saw.txt/what%20I%20saw.txt" in artifact["uri"]
    assert {
        "key": "notes/what I saw.txt",
        "type": "custom",
        "mode": "output",
        "content_size": len(data),
        "hash": hashlib.sha256(data).hexdigest(),
        "timestamp": int((noted_run / "notes" / "what I saw.txt").stat().st_mtime),
        "type_data": {"preview": "what I saw.txt - 12 bytes\n", "content_type": "text/plain"},
    } == {name: value for name, value in artifact.items() if name not in ("uri", "display_data")}
    assert not [key for key in server.files if "tfevents" in key]


def test_they_are_remembered_proved_and_mended(server: ClearMLDouble, noted_run: Path) -> None:
    """Once; a lost ledger, another time and a copy change nothing; another content replaces the old."""
    upload([noted_run], wanted=SOME)
    state, count = end_state(server), len(server.requests)
    (standing,) = status([noted_run])
    assert isinstance(standing, UpToDate)
    (outcome,) = upload([noted_run], wanted=SOME)
    assert (UpToDate, count) == (type(outcome), len(server.requests))
    (outcome,) = upload([noted_run], wanted=None, aim=Aim.VERIFY)
    assert [] == differences(outcome)
    (noted_run / LEDGER_NAME).unlink()
    upload([noted_run], wanted=SOME)
    assert state == end_state(server)
    (noted_run / "predictions.json").write_text("[1]")
    (outcome,) = upload([noted_run], wanted=None, aim=Aim.VERIFY)
    assert 2 == len(differences(outcome))
    (outcome,) = upload([noted_run], wanted=SOME)
    assert isinstance(outcome, Delivered)
    (outcome,) = upload([noted_run], wanted=SOME, aim=Aim.DELIVER_AND_VERIFY)
    assert [] == differences(outcome)
    (noted_run / "predictions.json").write_text("[2]")
    (outcome,) = upload([noted_run], wanted=SOME)  # nothing but this file shows that something is to do
    assert isinstance(outcome, Delivered)
    assert SENT == sorted(held(server))
    assert b"[2]" == server.file_of(held(server)["predictions.json"]["uri"])


def test_an_answer_that_nothing_was_changed_is_a_failure(server: ClearMLDouble, noted_run: Path) -> None:
    """And the next call sends it again."""
    nothing = Altered(lambda data: {"updated": 0})
    server.fault("tasks.add_or_update_artifacts", nothing, times=1)
    (outcome,) = upload([noted_run], wanted=SOME)
    assert isinstance(outcome, Failed)
    assert "did not carry out" in str(outcome.error)
    (outcome,) = upload([noted_run], wanted=SOME)
    assert isinstance(outcome, Delivered)
    assert SENT == sorted(held(server))


def test_verify_finds_what_was_lost(server: ClearMLDouble, noted_run: Path) -> None:
    upload([noted_run], wanted=SOME)
    ((_, task),) = server.tasks.items()
    lost = task["execution"]["artifacts"].pop(0)
    for key in [key for key in server.files if "predictions" in key]:
        server.files[key] = b"{}"
    (outcome,) = upload([noted_run], wanted=None, aim=Aim.VERIFY)
    first, second = differences(outcome)
    assert f"artifact {lost['key']}: not in ClearML" == first
    assert second.startswith("artifact predictions.json: a file of 2 bytes here, another file")
    (outcome,) = upload([noted_run], aim=Aim.VERIFY)  # when nobody asks for them, they are more than need be
    assert isinstance(outcome, UpToDate)
    assert outcome.proof is not None
    assert ["artifact predictions.json"] == [str(extra) for extra in outcome.proof.extra]


def test_a_task_of_others_gets_those_it_lacks(server: ClearMLDouble, noted_run: Path) -> None:
    """One of the same name that differs is left, and named."""
    project = server.ask("projects.create", name="elsewhere", description="")["id"]
    task = server.ask("tasks.create", name="by hand", project=project, type="training")["id"]
    uri = f"{server.files_url}/mine/predictions.json"
    server.files["mine/predictions.json"] = b"mine"
    entry = {"key": "predictions.json", "type": "custom", "uri": uri, "hash": "0", "content_size": 4}
    server.ask("tasks.add_or_update_artifacts", task=task, artifacts=[entry])
    (outcome,) = upload([noted_run], task_id=task, wanted=SOME)
    assert isinstance(outcome, Delivered)
    assert SENT == sorted(held(server))
    assert uri == held(server)["predictions.json"]["uri"]
    assert any("artifact predictions.json" in note for note in outcome.notes)


def test_what_cannot_be_one_is_named(noted_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link out of the run, a name that is no text; never the ledger, and nothing of a repository."""
    (noted_run / "a.json").symlink_to("/etc/hostname")
    (noted_run / "folder").symlink_to("/etc")
    (noted_run / os.fsdecode(b"\xff.json")).write_text("{}")
    oid = f"oid sha256:{'0' * 64}\nsize 4000\n"
    (noted_run / "b.json").write_text(f"version https://git-lfs.github.com/spec/v1\n{oid}")
    (noted_run / LEDGER_NAME).write_text("{}")
    read = read_run(noted_run, Options(artifacts=("*",)))
    assert not isinstance(read, NotARun)
    names = set(read.artifacts)
    assert {"predictions.json", "results.csv", "weights/best.pt"} <= names
    assert not [
        name for name in names if ".git" in name or name.startswith((LEDGER_NAME, "a.", "b.", "folder"))
    ]
    planned = plan_run(read, Options(artifacts=("*",)))
    for text in (
        "a.json: a link to /etc/hostname",
        "folder: a link to /etc",
        "its name is no text",
        "a git-LFS pointer",
    ):
        assert any(text in fact for fact in planned.missing), text
    monkeypatch.setattr(further, "_MOST_ARTIFACTS", 1)
    read = read_run(noted_run, Options(artifacts=("*.txt",)))
    assert not isinstance(read, NotARun)
    assert ["notes/draft.txt"] == list(read.artifacts)
    assert any("notes/what I saw.txt: beyond the first 1 artifacts" in fact for fact in read.unfit)


def test_a_live_training_has_none_yet(make_run: MakeRun) -> None:
    options = Options(artifacts=("*.yaml",), stale_after=1e9)
    read = read_run(make_run("v8.4.190-detect-killed"), options)
    assert not isinstance(read, NotARun)
    assert {} == read.artifacts


def test_a_session_holds_them(server: ClearMLDouble, noted_run: Path, tmp_path: Path) -> None:
    """Where the importer looks for them: at their address, without its first folder, below data/."""
    list(upload_as_asked([noted_run], Options(offline=tmp_path / "out", artifacts=("*.json",))))
    (session,) = (tmp_path / "out").glob("*.zip")
    with zipfile.ZipFile(session) as archive:
        (artifact,) = json.loads(archive.read("task.json"))["execution"]["artifacts"]
        assert b"[]" == archive.read(artifact["uri"])
    assert "predictions.json" == artifact["key"]


def test_the_command_line_takes_them(run_cli: Run, server: ClearMLDouble, noted_run: Path) -> None:
    options = ("--artifacts", "*.json", "--artifacts", "/notes/what*")
    dry = run_cli("upload", "--dry-run", *options, noted_run)
    assert ["  artifact notes/what I saw.txt (12 bytes)", "  artifact predictions.json (2 bytes)"] == [
        line for line in dry.out.splitlines() if line.startswith("  artifact")
    ]
    run_cli("upload", "--only", "args", *options, noted_run)
    assert SENT == sorted(held(server))
    assert "verified" in run_cli("verify", noted_run).out
    with pytest.raises(UsageError, match=r"\[z-a\]"):
        Options(artifacts=("[z-a]",))
