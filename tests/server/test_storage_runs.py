"""Runs whose model, or all of whose files, go to S3: what is refused is not delivered, and is mended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from buckets import KEY, S3, SECRET, Bucket, dead_host, moto, self_signed
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import Ended, Run, run_cli

from yolo_clearml.errors import Exit
from yolo_clearml.events import STATUS
from yolo_clearml.sync.ledger import LEDGER_NAME

__all__ = ["run_cli"]  # a fixture

TIMEOUT = ("--timeout", "3")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with moto() as server:
        yield server


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Give a finished run with a model and few files."""
    return make_run("v8.4.190-detect-noplots")


def said(ended: Ended) -> dict[str, Any]:
    """Give the JSON line of the one run."""
    return dict(json.loads(ended.out.splitlines()[-1]))


def the_task(server: ClearMLDouble) -> dict[str, Any]:
    (task,) = server.tasks.values()
    return task


def model_uri(server: ClearMLDouble) -> str:
    """Give where the one model is that the one task has."""
    ((model_id,),) = [[m["model"] for m in the_task(server)["models"]["output"]]]
    return str(server.models[model_id]["uri"])


def assert_not_reported(server: ClearMLDouble, run: Path) -> None:
    """No model in ClearML, no end of the task, nothing of either in the ledger."""
    assert {} == server.models
    assert not (the_task(server).get("models") or {}).get("output")
    assert "in_progress" == the_task(server)["status"]
    sent = json.loads((run / LEDGER_NAME).read_text())["sent"]
    assert "epoch/0" in sent
    assert not {"model", STATUS} & set(sent)


def test_a_model_in_a_bucket(run_cli: Run, server: ClearMLDouble, run: Path, s3: S3) -> None:
    """It lies there, the task says so, and reading it back finds what differs."""
    bucket = s3.bucket().configured()
    ended = run_cli("upload", "--json", "--verify", "--output-uri", bucket.uri, run)
    assert (Exit.OK, "verified") == (ended.status, said(ended)["outcome"])
    (key,) = s3.keys(bucket)
    assert (run / "weights" / "best.pt").read_bytes() == s3.content(bucket, key)
    assert f"{bucket.uri}/{key}" == model_uri(server)
    assert bucket.uri == the_task(server)["output"]["destination"]
    s3.client().put_object(Bucket=bucket.name, Key=key, Body=b"x")
    assert "a file of 1 bytes in ClearML" in run_cli("verify", run).out
    s3.client().delete_object(Bucket=bucket.name, Key=key)
    assert "a dead link in ClearML" in run_cli("verify", run).out


def no_key(s3: S3) -> Bucket:
    return s3.bucket().configured(key="no-such-key")


def no_bucket(s3: S3) -> Bucket:
    return Bucket(s3.host).configured()


def no_host(s3: S3) -> Bucket:
    return Bucket(dead_host()).configured()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_key, "InvalidAccessKeyId, 403"),
        (no_bucket, "NoSuchBucket, 404"),
        (no_host, "Could not connect to the endpoint"),
    ],
)
def test_a_model_that_is_refused(
    make: Any, reason: str, run_cli: Run, server: ClearMLDouble, run: Path, s3: S3
) -> None:
    """Failed, with the bucket and the reason; the curves are there, and a plain upload brings the model."""
    bucket = make(s3)
    with s3.guarded("s3:*") if make is no_key else nullcontext():
        ended = run_cli("upload", "--json", *TIMEOUT, "--output-uri", bucket.uri, run)
    line = said(ended)
    assert (Exit.UNREACHABLE, "failed") == (ended.status, line["outcome"])
    assert bucket.uri in line["reason"]
    assert reason in line["reason"]
    assert "The address comes from --output-uri." in line["hint"]
    assert server.scalars(the_task(server)["id"])
    assert_not_reported(server, run)
    assert Exit.OK == run_cli("upload", "--verify", run).status
    assert model_uri(server).startswith(server.files_url)
    assert "completed" == the_task(server)["status"]


def test_an_untrusted_certificate(run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path) -> None:
    with moto(self_signed(tmp_path)) as s3:
        bucket = s3.bucket().configured(secure=True)
        ended = run_cli("upload", "--json", *TIMEOUT, "--output-uri", bucket.uri, run)
    assert Exit.UNREACHABLE == ended.status
    assert "CERTIFICATE_VERIFY_FAILED" in said(ended)["reason"]
    assert bucket.uri in said(ended)["reason"]
    assert_not_reported(server, run)


WITHOUT = "import sys; sys.modules[sys.argv.pop(1)] = None; from yolo_clearml.cli.app import main; main()"


def test_the_program_with_a_configuration_file(
    server: ClearMLDouble, run: Path, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own: without boto3 it says what to install, with it the model arrives."""
    bucket = s3.bucket()
    config = tmp_path / "clearml.conf"
    keys = {"host": bucket.host, "key": KEY, "secret": SECRET, "secure": False}
    config.write_text(f"sdk {{ aws {{ s3 {{ credentials: [ {json.dumps(keys)} ] }} }} }}")
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(config))
    ends = {}
    for blocked in ("boto3", "no-such-module"):
        arguments = [blocked, "upload", "--json", "--output-uri", bucket.uri, str(run)]
        command = [sys.executable, "-c", WITHOUT, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        ends[blocked] = done.returncode, json.loads(done.stdout)
        assert "pip" not in done.stderr  # said in the JSON, and not by the SDK's log as well
    status, line = ends["boto3"]
    assert (Exit.UNREACHABLE, "failed") == (status, line["outcome"])
    assert f"{bucket.uri} does not take best.pt: S3 needs the Python package boto3" in line["reason"]
    assert "pip install boto3" in line["hint"]
    assert (Exit.OK, "delivered") == (ends["no-such-module"][0], ends["no-such-module"][1]["outcome"])
    assert model_uri(server).startswith(bucket.uri)


# -- all files -------------------------------------------------------------------------------------------


def test_a_files_server_in_a_bucket(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and model go there; events hold the address as the SDK writes it, and it all reads back."""
    bucket = s3.bucket().configured()
    run = make_run("v8.4.190-detect")
    monkeypatch.setenv("CLEARML_FILES_HOST", bucket.uri)
    ended = run_cli("upload", "--json", "--verify", run)
    assert (Exit.OK, "verified") == (ended.status, said(ended)["outcome"])
    assert {} == server.files
    keys = {f"{bucket.uri}/{key}" for key in s3.keys(bucket)}
    task = the_task(server)["id"]
    urls = {event["url"] for event in server.images(task).values()}
    assert urls | {model_uri(server)} == keys
    folder = f"{bucket.uri}/Ultralytics/train.{task}/metrics"
    assert f"{folder}/Mosaic/train.jpg/Mosaic_train.jpg_00000000.jpg" in urls
    victim = next(key for key in s3.keys(bucket) if "results" in key)
    s3.client().delete_object(Bucket=bucket.name, Key=victim)
    assert "a dead link in ClearML" in run_cli("verify", run).out


def test_a_files_server_in_a_bucket_that_refuses(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curves are there, no event has a dead link, and the message says whose address it is."""
    bucket = Bucket(s3.host).configured()
    run = make_run("v8.4.190-detect")
    monkeypatch.setenv("CLEARML_FILES_HOST", bucket.uri)
    ended = run_cli("upload", "--json", run)
    assert (Exit.UNREACHABLE, "failed") == (ended.status, said(ended)["outcome"])
    assert "NoSuchBucket" in said(ended)["reason"]
    assert "CLEARML_FILES_HOST" in said(ended)["hint"]
    task = the_task(server)
    assert server.scalars(task["id"])
    assert {} == server.images(task["id"])
    assert_not_reported(server, run)
    s3.client().create_bucket(Bucket=bucket.name)
    assert Exit.OK == run_cli("upload", "--verify", run).status


# -- where the model goes, and who says so ---------------------------------------------------------------

TYPO = "http://127.0.0.1:1"


def upload(run_cli: Run, run: Path, *options: object) -> dict[str, Any]:
    return said(run_cli("upload", "--json", "--timeout", "1", *options, run))


@pytest.mark.parametrize("way", ["plain", "force", "no ledger", "another address"])
def test_a_typo_does_not_stick(
    way: str, run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path
) -> None:
    """What was never reached is nobody's wish."""
    line = upload(run_cli, run, "--output-uri", TYPO)
    assert "failed" == line["outcome"]
    assert "comes from --output-uri." in line["hint"]
    options: tuple[object, ...] = ()
    expected = server.files_url
    if way == "force":
        options = ("--force",)
    elif way == "no ledger":
        (run / LEDGER_NAME).unlink()
    elif way == "another address":
        expected = f"file://{tmp_path}"
        options = ("--output-uri", tmp_path)
    assert "delivered" == upload(run_cli, run, *options)["outcome"]
    assert model_uri(server).startswith(f"{expected}/")
    assert expected == the_task(server)["output"]["destination"]
    assert 1 == len(server.models)


def test_a_model_stays_where_it_is(run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path) -> None:
    """An address that was good is kept by plain uploads, also when another one was tried in vain."""
    uri = f"file://{tmp_path}"
    assert "delivered" == upload(run_cli, run, "--output-uri", uri)["outcome"]
    there = model_uri(server)
    assert there.startswith(uri)
    assert "failed" == upload(run_cli, run, "--force", "--output-uri", TYPO)["outcome"]
    assert there == model_uri(server)
    assert "delivered" == upload(run_cli, run, "--force")["outcome"]
    assert there == model_uri(server)
    assert uri == the_task(server)["output"]["destination"]


def test_a_persons_own_destination_is_kept(
    run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path
) -> None:
    """Changed in ClearML after ours had failed, or in the draft that a reset leaves."""
    upload(run_cli, run, "--output-uri", TYPO)
    theirs = f"file://{tmp_path}"
    the_task(server)["output"]["destination"] = theirs
    assert "delivered" == upload(run_cli, run)["outcome"]
    assert model_uri(server).startswith(theirs)


def test_a_draft_that_a_reset_left_is_a_persons(
    run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path
) -> None:
    """Its key is gone with the reset, and its destination can be edited: also a second try goes there."""
    upload(run_cli, run, "--output-uri", TYPO)
    task = the_task(server)
    task["status"], task["runtime"] = "created", {}
    task["output"]["destination"] = TYPO.replace(":1", ":2")
    for _ in range(2):
        line = upload(run_cli, run)
        assert "failed" == line["outcome"]
        assert "comes from the task's own output destination in ClearML" in line["hint"]
    assert "delivered" == upload(run_cli, run, "--output-uri", tmp_path)["outcome"]


@pytest.mark.parametrize("source", ["variable", "project", "configuration", "files server"])
def test_who_named_an_address_is_stated(
    source: str, run_cli: Run, server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For that is where it is mended; and when it is, a plain upload goes to the new one."""
    expected = {
        "variable": "YOLO_CLEARML_OUTPUT_URI.",
        "project": "the default output destination of the project",
        "configuration": "CLEARML_DEFAULT_OUTPUT_URI.",
        "files server": "the files server (api.files_server in clearml.conf, or CLEARML_FILES_HOST).",
    }
    match source:
        case "variable":
            monkeypatch.setenv("YOLO_CLEARML_OUTPUT_URI", TYPO)
        case "project":
            upload(run_cli, run, "--output-uri", TYPO)  # makes it
            (project,) = server.projects.values()
            project["default_output_destination"] = TYPO
        case "configuration":
            monkeypatch.setenv("CLEARML_DEFAULT_OUTPUT_URI", TYPO)
        case _:
            monkeypatch.setenv("CLEARML_FILES_HOST", TYPO)
    line = upload(run_cli, run)
    assert "failed" == line["outcome"]
    assert f"The address comes from {expected[source]}" in line["hint"]
    if source == "project":
        project["default_output_destination"] = None
    for name in ("YOLO_CLEARML_OUTPUT_URI", "CLEARML_DEFAULT_OUTPUT_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLEARML_FILES_HOST", server.files_url)
    assert "delivered" == upload(run_cli, run)["outcome"]
    assert model_uri(server).startswith(server.files_url)
