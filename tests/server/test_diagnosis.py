"""``doctor``: a line for each thing that runs rest on, what to do about it, and nothing left behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, dead_host
from conftest import ROOT, MakeRun
from double import ClearMLDouble, DropAfter, Fault, Status
from test_cli import Ended, Run, run_cli
from test_secrets import PASSWORD, assert_discreet, at_login

from yolo_clearml import Check, Options, diagnose
from yolo_clearml.errors import Exit
from yolo_clearml.sync import checks
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers

__all__ = ["run_cli"]  # a fixture

OF_THE_SERVER = ("API server", "credentials", "clock", "file server", "model storage")


@pytest.fixture(autouse=True)
def nothing_odd(server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away what the machine of the tests has in force, and let there be a configuration file."""
    (tmp_path / "clearml.conf").touch()
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "clearml.conf"))
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run("v8.4.190-detect-noplots", "exp")


def found(ended: Ended) -> dict[str, dict[str, Any]]:
    """Give the JSON lines by what was checked."""
    return {line["check"]: line for line in map(json.loads, ended.out.splitlines())}


def outcomes(ended: Ended) -> dict[str, str]:
    return {name: line["outcome"] for name, line in found(ended).items()}


def below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_all_is_well(run_cli: Run, server: ClearMLDouble, run: Path) -> None:
    """Each check is a line without a hint, the status is 0; neither the server nor the run keeps a file."""
    before = below(run)
    ended = run_cli("doctor", "--json", "runs")
    lines = found(ended)
    assert (Exit.OK, "", {"ok"}) == (ended.status, ended.err, {line["outcome"] for line in lines.values()})
    of_here = {"releases", "configuration", "TLS and proxies", "state directory", "runs"}
    assert {*OF_THE_SERVER, *of_here} == set(lines) - {"inotify"}
    assert {None} == {line["hint"] for line in lines.values()}
    assert {"files:POST", "files:GET", "files:DELETE"} < {r.endpoint for r in server.requests}
    assert ({}, {}, {}) == (server.files, server.tasks, server.projects)
    assert before == below(run)
    texts = {name: line["text"] for name, line in lines.items()}
    assert texts["API server"].startswith(f"{server.api_url} answers: server 2.3.0, API 2.")
    by = "CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY"
    assert texts["credentials"].startswith("Those of user in the workspace ")
    assert texts["credentials"].endswith(f", from {by}.")
    assert "CLEARML_API_HOST" in texts["configuration"]
    assert "1 in or below runs can be read; they take their ledgers." == texts["runs"]
    assert_discreet(server, run, ended)


def test_as_a_person_reads_it(run_cli: Run, server: ClearMLDouble, run: Path) -> None:
    """A line each, with what to do below it; with -q, nothing where nothing is wrong."""
    assert run_cli("doctor", "runs").out.startswith("ok           releases: yolo-clearml ")
    assert (Exit.OK, "", "") == run_cli("doctor", "-q", "runs")
    server.refuse_credentials = True
    ended = run_cli("doctor", "-q")
    first, hint, *rest = ended.out.splitlines()
    assert f"failed       credentials: ClearML at {server.api_url} refuses the credentials." == first
    assert hint.startswith("             Create new ones in ClearML")
    assert [f"not checked  {name}: It needs credentials." for name in OF_THE_SERVER[2:]] == rest


@pytest.mark.parametrize(
    ("variable", "value", "failing", "status"),
    [
        ("CLEARML_API_SECRET_KEY", None, "configuration", Exit.NOT_CONFIGURED),
        ("CLEARML_OFFLINE_MODE", "1", "configuration", Exit.USAGE),
        ("http_proxy", f"http://u:{PASSWORD}@[", "configuration", Exit.NOT_CONFIGURED),
        ("http_proxy", f"http://u:{PASSWORD}@127.0.0.1:9", "API server", Exit.UNREACHABLE),
        ("CLEARML_API_HOST", f"http://u:{PASSWORD}@127.0.0.1:9", "API server", Exit.UNREACHABLE),
        ("CLEARML_API_SECRET_KEY", "another", "credentials", Exit.REFUSED),
        ("CLEARML_FILES_HOST", f"http://u:{PASSWORD}@127.0.0.1:9", "file server", Exit.UNREACHABLE),
        ("CLEARML_FILES_HOST", "files", "file server", Exit.NOT_CONFIGURED),
    ],
)
def test_what_fails_is_named_and_what_rests_on_it_not_checked(
    variable: str, value: str | None, failing: str, status: Exit,
    run_cli: Run, server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The status is that of an upload; whatever does not rest on it is looked into all the same."""
    monkeypatch.setenv(variable, value) if value is not None else monkeypatch.delenv(variable)
    ended = run_cli("doctor", "--json", "--timeout", 1, "runs")
    stands = outcomes(ended)
    assert (status, "failed") == (ended.status, stands[failing])
    assert [failing] == [name for name, outcome in stands.items() if outcome == "failed"]
    of_these = (*(["configuration"] if failing == "configuration" else []), *OF_THE_SERVER)
    after = of_these[of_these.index(failing) + 1 :]
    assert dict.fromkeys(after, "not checked") == {name: stands[name] for name in after}
    hint = found(ended)[failing]["hint"]
    assert "CLEARML_API_HOST names it" in hint if failing == "API server" else hint
    assert "ok" == stands["runs"]
    if variable == "http_proxy":
        named = "by proxy http://127.0.0.1:9 (http_proxy)"
        assert failing != "API server" or named in found(ended)["TLS and proxies"]["text"]
    assert_discreet(server, run, ended)


@pytest.mark.parametrize("answer", [Status(405), Status(404), DropAfter()], ids=str)
def test_a_file_server_that_does_not_delete(answer: Fault, run_cli: Run, server: ClearMLDouble) -> None:
    """It is seen by reading once more; what stays there is named."""
    server.fault("files:DELETE", answer, times=None)
    ended = run_cli("doctor", "--json", "--timeout", 1)
    line = found(ended)["file server"]
    deleted = isinstance(answer, DropAfter)  # whatever was answered
    assert (Exit.OK, "ok" if deleted else "warning") == (ended.status, line["outcome"])
    assert deleted == (server.files == {})
    assert {name for name in server.files if f"{name} is left" in line["text"]} == set(server.files)


def test_a_file_server_that_does_not_give_back(run_cli: Run, server: ClearMLDouble) -> None:
    """What it confirmed is not believed, and is asked to be deleted."""
    server.fault("files:GET", Status(404), times=None)
    ended = run_cli("doctor", "--json")
    line = found(ended)["file server"]
    assert (Exit.UNREACHABLE, "failed") == (ended.status, line["outcome"])
    assert "confirmed a file, but says that it has none" in line["text"]
    assert {} == server.files


@pytest.mark.parametrize(
    ("seconds", "outcome", "text"),
    [
        (3600, "warning", "s behind the server's"),
        (-3600, "warning", "s ahead of the server's"),
        (20, "ok", "agrees"),
    ],
)
def test_clocks(seconds: int, outcome: str, text: str, run_cli: Run, server: ClearMLDouble) -> None:
    """The server's, as its replies state it, beside this machine's."""
    server.clock = lambda: time.time() + seconds
    server.token_lifetime = 7200
    line = found(run_cli("doctor", "--json"))["clock"]
    assert outcome == line["outcome"]
    assert text in line["text"]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (f"s3://user:{PASSWORD}@127.0.0.1:9/bucket", "Missing key and secret"),
        (f"gs://bucket/folder?X-Goog-Signature={PASSWORD}", "needs the Python package google-cloud-storage"),
        (f"http://user:{PASSWORD}@127.0.0.1:9/x", "refuses the connection"),
        ("no/such/folder", "does not take"),
    ],
)
def test_a_storage_of_models(
    address: str, text: str, run_cli: Run, server: ClearMLDouble, run: Path, scratch: Path
) -> None:
    """It is tried as an upload would; what is lacking is named, and who named the address."""
    (run.parent / "no").write_text("a file where a folder should be")
    ended = run_cli("doctor", "--json", "--timeout", 1, "--output-uri", address.replace("no/", "runs/no/"))
    line = found(ended)["model storage"]
    assert (Exit.UNREACHABLE, "failed") == (ended.status, line["outcome"])
    assert text in line["text"]
    assert "comes from --output-uri" in line["hint"]
    assert "ok" == outcomes(ended)["file server"]
    assert_discreet(server, run, ended)


def test_a_folder_for_models(run_cli: Run, server: ClearMLDouble, tmp_path: Path) -> None:
    """It holds afterwards what it held before."""
    (tmp_path / "models").mkdir()
    ended = run_cli("doctor", "--json", "--output-uri", "models")
    assert (Exit.OK, "ok") == (ended.status, outcomes(ended)["model storage"])
    assert "took a file, gave it back and deleted it" in found(ended)["model storage"]["text"]
    assert [] == list((tmp_path / "models").iterdir())


def test_a_bucket_that_does_not_answer(run_cli: Run, server: ClearMLDouble) -> None:
    """It is waited for no longer than --timeout."""
    bucket = Bucket(dead_host()).configured()
    ended = run_cli("doctor", "--json", "--timeout", 1, "--output-uri", bucket.uri)
    assert (Exit.UNREACHABLE, "failed") == (ended.status, outcomes(ended)["model storage"])


def test_a_configuration_that_is_empty_on_purpose(
    run_cli: Run, server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/null is there, and keeps the SDK from reading ~/clearml.conf."""
    monkeypatch.setenv("CLEARML_CONFIG_FILE", os.devnull)
    configuration = found(run_cli("doctor", "--json", "--timeout", 1))["configuration"]
    assert "ok" == configuration["outcome"]
    assert f"{os.devnull} (CLEARML_CONFIG_FILE)" in configuration["text"]
    monkeypatch.setenv("CLEARML_CONFIG_FILE", os.devnull + "/x")
    assert "warning" == found(run_cli("doctor", "--json", "--timeout", 1))["configuration"]["outcome"]


@pytest.mark.parametrize("form", [[], ["--json"], ["-q"]], ids=str)
def test_no_secret_is_shown(
    form: list[str], run_cli: Run, server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of addresses, proxies, keys and tokens, whether they work or not."""
    for name in ("CLEARML_FILES_HOST", "CLEARML_WEB_HOST"):
        monkeypatch.setenv(name, at_login(os.environ[name]))
    monkeypatch.setenv("https_proxy", f"http://u:{PASSWORD}@proxy:3128")
    monkeypatch.setenv("CLEARML_AUTH_TOKEN", server.token())
    monkeypatch.setenv("TRAINS_API_SECRET_KEY", PASSWORD)
    uri = f"https://u:{PASSWORD}@localhost:9/x?token={PASSWORD}"
    ended = run_cli("doctor", *form, "--timeout", 1, "--output-uri", uri, "runs")
    assert Exit.UNREACHABLE == ended.status
    assert_discreet(server, run, ended)


# -- folders ----------------------------------------------------------------------------------------------


def test_runs_that_cannot_be_read_or_written(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:
    """They are counted and named, and alone make the status 3."""
    (make_run("v8.4.190-detect-noplots", "a") / LEDGER_NAME).mkdir()
    odd = make_run("v8.4.190-detect-killed", "b")
    (odd / "results.csv").unlink()
    (odd / "results.csv").mkdir()
    make_run("v8.4.190-detect-noplots", "c")
    ended = run_cli("doctor", "--json", "runs")
    line = found(ended)["runs"]
    assert (Exit.SOME_FAILED, "failed") == (ended.status, line["outcome"])
    assert line["text"].startswith("2 of 3 below runs cannot be read or written: ")
    assert f"{LEDGER_NAME} cannot be written: it is a directory." in line["text"]
    assert "Remove it" in line["hint"]


def test_a_run_that_somebody_is_at_work_on(run_cli: Run, server: ClearMLDouble, run: Path) -> None:
    """Whoever has its ledger can write it."""
    with FileLedgers().hold(run):
        ended = run_cli("doctor", "--json", "runs")
    assert (Exit.OK, "ok") == (ended.status, outcomes(ended)["runs"])


def test_paths_without_runs(run_cli: Run, server: ClearMLDouble, tmp_path: Path) -> None:
    """An empty folder is worth a word, for a watch may wait there; one that is not there is wrong usage."""
    (tmp_path / "empty").mkdir()
    ended = run_cli("doctor", "--json", "empty")
    assert (Exit.OK, "warning") == (ended.status, outcomes(ended)["runs"])
    ended = run_cli("doctor", "--json", "nowhere")
    assert (Exit.USAGE, "failed") == (ended.status, outcomes(ended)["runs"])
    assert "ok" == outcomes(ended)["file server"]


def test_a_state_directory_that_takes_nothing(
    run_cli: Run, server: ClearMLDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning, for it is needed only where a run directory takes no file."""
    (tmp_path / "state").write_text("a file where a folder should be")
    ended = run_cli("doctor", "--json")
    line = found(ended)["state directory"]
    assert (Exit.OK, "warning") == (ended.status, line["outcome"])
    assert "YOLO_CLEARML_STATE_DIR" in line["hint"]


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder with inotify's limits in place of the system's."""
    folder = tmp_path / "inotify"
    folder.mkdir()
    (folder / "max_user_watches").write_text("2\n")
    (folder / "max_user_instances").write_text("128\n")
    monkeypatch.setattr(checks, "_LIMITS", folder)
    monkeypatch.setattr("sys.platform", "linux")
    yield folder


def test_more_folders_than_watches(run_cli: Run, server: ClearMLDouble, run: Path, limits: Path) -> None:
    """A watch would poll: it is said before, with the number to set."""
    line = found(run_cli("doctor", "--json", "runs"))["inotify"]
    folders = sum(1 for _ in os.walk(run.parent))
    assert ("warning", 3) == (line["outcome"], folders)
    assert "max_user_watches=6" in line["hint"]
    (limits / "max_user_watches").write_text("3\n")
    assert "ok" == outcomes(run_cli("doctor", "--json", "runs"))["inotify"]


def test_limits_that_are_not_numbers(run_cli: Run, server: ClearMLDouble, limits: Path) -> None:
    (limits / "max_user_instances").write_text("")
    assert "not checked" == outcomes(run_cli("doctor", "--json"))["inotify"]


# -- others -----------------------------------------------------------------------------------------------


def test_the_oldest_sdk_is_that_of_the_package() -> None:
    """An older one is warned of."""
    project = (ROOT / "pyproject.toml").read_text()
    assert f'"clearml>={".".join(map(str, checks._OLDEST_SDK))}"' in project


def test_as_a_library(server: ClearMLDouble, run: Path) -> None:
    """The same as values."""
    lines = list(diagnose([run], Options(timeout=2.0)))
    assert all(isinstance(line, Check) for line in lines)
    assert {"ok"} == {line.finding.value for line in lines}


def test_errors_of_the_surroundings_name_it(run_cli: Run, server: ClearMLDouble, run: Path) -> None:
    """One that a server has with a run's own request does not."""
    server.fault("tasks.create", Status(400), times=None)
    ended = run_cli("upload", "runs")
    assert Exit.OK != ended.status
    assert "yolo-clearml doctor" not in ended.err
    server.clear_faults()
    server.stop_files()
    assert "'yolo-clearml doctor' shows where it fails." in run_cli("upload", "--timeout", 1, "runs").err
    server.stop_api()
    for form in ([], ["--json"]):
        ended = run_cli("verify", "--timeout", 1, *form, "runs")
        assert 1 == (ended.out + ended.err).count("'yolo-clearml doctor' shows where it fails.")
