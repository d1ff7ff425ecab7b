"""Keys, tokens and passwords reach no message, log, ledger or file of counts, whatever goes wrong."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from conftest import one_in, sampled
from double import ClearMLDouble, DropAfter, Fault, NotJson, Status, Truncate
from test_cli import COMMAND, Ended, Run, run_cli
from test_scan import put, training

from yolo_clearml.errors import Exit, YoloClearmlError
from yolo_clearml.server.exchange import public_address
from yolo_clearml.sync import visit
from yolo_clearml.sync.ledger import LEDGER_NAME

__all__ = ["run_cli"]  # a fixture

PASSWORD = "hunter2"
SECRET_VALUE = "hf_abcdef"
TOKEN_BEGINS = "eyJ"  # every JSON web token


def at_login(url: str) -> str:
    return url.replace("://", f"://user:{PASSWORD}@")


def assert_discreet(server: ClearMLDouble, run: Path, ended: Ended, *files: Path) -> None:
    """No secret in what was said or written, and no hint as to what was hidden in its place."""
    written = [path.read_text() for path in (run / LEDGER_NAME, *files) if path.exists()]
    text = "\n".join([ended.out, ended.err, *written])
    for secret in (PASSWORD, SECRET_VALUE, TOKEN_BEGINS, server.access_key, server.secret_key):
        assert secret not in text


def in_a_process(*arguments: str) -> Ended:
    """Run the program in a process of its own, whose configuration and log nothing else has touched."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give a training that was given a token of its own."""
    return training(tmp_path / "train", hf_token=SECRET_VALUE)


@pytest.mark.parametrize("form", [[], ["--json"], ["-v"]], ids=str)
@pytest.mark.parametrize(
    ("variable", "status"),
    [
        ("CLEARML_WEB_HOST", Exit.OK),
        ("CLEARML_FILES_HOST", Exit.OK),
        ("CLEARML_API_HOST", Exit.REFUSED),  # a login in the address goes in the place of the keys
    ],
)
def test_a_login_in_an_address(
    variable: str, status: Exit, form: list[str], run_cli: Run, server: ClearMLDouble, run: Path,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """It is used, and is neither printed with a link nor remembered with it."""
    monkeypatch.setenv(variable, at_login(os.environ[variable]))
    ended = run_cli("upload", *form, "--metrics", tmp_path / "counts.prom", run)
    assert status == ended.status
    assert_discreet(server, run, ended, tmp_path / "counts.prom")


@pytest.mark.parametrize("variable", ["CLEARML_API_HOST", "CLEARML_FILES_HOST"])
@pytest.mark.parametrize(
    "address", ["user:{}@127.0.0.1:8081", "ftp://user:{}@127.0.0.1:8081", "http://u:{}@["]
)
def test_an_address_that_is_none(
    variable: str,
    address: str,
    run_cli: Run,
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sentence that refuses it leaves the password out."""
    monkeypatch.setenv(variable, address.format(PASSWORD))
    ended = run_cli("upload", "-v", "--timeout", 1, run)
    assert Exit.OK != ended.status
    assert_discreet(server, run, ended)


@pytest.mark.parametrize(
    "address",
    sampled(
        [
            "s3://user:{}@127.0.0.1:9/bucket",
            "azure://account.blob.core.windows.net/container?sv=1&sig={}",
            "gs://bucket/folder?X-Goog-Signature={}",
            "http://user:{}@127.0.0.1:9/x",
            "ftp://user:p@ss{}@127.0.0.1:9/x",
        ],
        one_in(3),
    ),
)
def test_a_storage_that_takes_nothing(address: str, server: ClearMLDouble, run: Path) -> None:
    """Neither our words nor those of ClearML's own log show how it would have been entered."""
    ended = in_a_process("upload", "-v", "--timeout", "1", "--output-uri", address.format(PASSWORD), str(run))
    assert Exit.UNREACHABLE == ended.status
    assert "failed: " in ended.err
    assert_discreet(server, run, ended)


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    sampled(
        itertools.product(
            ["auth.login", "tasks.create", "events.add_batch", "files:POST"],
            [Status(500), Status(401), NotJson(), Truncate(), DropAfter()],
        ),
        one_in(3),
    ),
    ids=str,
)
def test_a_server_that_fails(
    endpoint: str, fault: Fault, run_cli: Run, server: ClearMLDouble, run: Path, tmp_path: Path
) -> None:
    """At any step: what the libraries say of it, with what they were about to send, stays unsaid."""
    server.fault(endpoint, fault)
    ended = run_cli("upload", "-v", "--timeout", 1, "--metrics", tmp_path / "counts.prom", run)
    assert_discreet(server, run, ended, tmp_path / "counts.prom")


def test_a_fault_of_ours_is_printed_without_addresses_logins(
    run_cli: Run, server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback is printed for a report that others read."""

    def fail(*_: object) -> None:
        raise RuntimeError(f"cannot send to {at_login(server.api_url)}/x?token={SECRET_VALUE}")

    monkeypatch.setattr(visit, "plan", fail)
    ended = run_cli("upload", run)
    assert Exit.OURS == ended.status
    assert "Traceback" in ended.err
    assert f"RuntimeError: cannot send to {server.api_url}/x?token=***" in ended.err
    assert_discreet(server, run, ended)


@pytest.mark.parametrize("form", [[], ["--json"], ["-v"]], ids=str)
def test_a_token_among_the_arguments_that_differs(
    form: list[str], run_cli: Run, server: ClearMLDouble, run: Path
) -> None:
    """ClearML gets it, as from the callback; what verify says of it is that it differs."""
    assert 0 == run_cli("upload", run).status
    arguments = run / "args.yaml"
    assert SECRET_VALUE in repr(server.requests)
    put(arguments, arguments.read_text().replace(SECRET_VALUE, f"{SECRET_VALUE}2"), arguments.stat().st_mtime)
    ended = run_cli("verify", *form, run)
    assert Exit.SOME_FAILED == ended.status
    assert "General / hf_token" in ended.out
    assert_discreet(server, run, ended)


@pytest.mark.parametrize("cut", [8, 3], ids=["in the key", "after it"])
def test_a_configuration_that_is_malformed(
    cut: int, server: ClearMLDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not our fault, and the parser's words, which can quote a key, are not repeated."""
    keys = f'access_key: "{server.access_key}", secret_key: "{server.secret_key}"'
    (tmp_path / "clearml.conf").write_text(f"api {{\n  credentials {{ {keys} }}\n}}\n"[:-cut])
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "clearml.conf"))
    for name in ("ACCESS", "SECRET"):
        monkeypatch.delenv(f"CLEARML_API_{name}_KEY")
    ended = in_a_process("upload", "-v", str(run))
    assert Exit.NOT_CONFIGURED == ended.status
    assert f"{tmp_path / 'clearml.conf'} cannot be read: it is malformed. Correct it" in ended.err
    assert_discreet(server, run, ended)


def test_a_configuration_that_is_no_text(
    server: ClearMLDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PowerShell's redirection writes it: a sentence, and no traceback."""
    (tmp_path / "clearml.conf").write_text('api { api_server: "http://127.0.0.1:1" }\n', encoding="utf-16")
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "clearml.conf"))
    ended = in_a_process("upload", str(run))
    assert (Exit.NOT_CONFIGURED, True) == (ended.status, "it is no UTF-8 text. Save it" in ended.err), ended


@pytest.mark.parametrize(
    "text", ["api { api_server: ${NOT_SET} }", "[1, 2]", 'include "{own}"', "a { " * 5000]
)
def test_a_configuration_that_the_sdk_breaks_over(
    text: str, server: ClearMLDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is not set, a list, itself included, thousands of braces: the file is named; 78."""
    path = tmp_path / "clearml.conf"
    path.write_text(text.replace("{own}", str(path)))
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(path))
    monkeypatch.delenv("CLEARML_API_HOST")
    for command in ("upload", "doctor"):
        ended = in_a_process(command, str(run))
        assert Exit.NOT_CONFIGURED == ended.status, ended
        assert f"ClearML's configuration in {path} cannot be read" in ended.out + ended.err
        assert "Traceback" not in ended.out + ended.err
        assert command != "upload" or "" == ended.out


@pytest.mark.parametrize("variable", ["CLEARML_API_HOST", "CLEARML_FILES_HOST"])
def test_a_bracket_that_is_not_closed_is_no_address(
    variable: str, run_cli: Run, server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an upload nor doctor takes it for a fault of its own."""
    monkeypatch.setenv(variable, "http://[::1")
    ended = run_cli("upload", run)
    assert (Exit.NOT_CONFIGURED, True) == (ended.status, "is not an address of" in ended.err), ended
    ended = run_cli("doctor", run)
    assert (Exit.NOT_CONFIGURED, 0) == (ended.status, (ended.out + ended.err).count("Traceback")), ended


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:pass@host:8008/a@b", "http://host:8008/a@b"),
        ("http://user:p@ss@host", "http://host"),
        ("user:pass@host:8008", "host:8008"),
        ("http://host/x?a=1&sig=abc&b=2", "http://host/x?a=1&sig=***&b=2"),
        ("http://host:8008", "http://host:8008"),
        ("host", "host"),
    ],
)
def test_an_address_as_it_is_shown(address: str, shown: str) -> None:
    """Without a login or signature, and else as it is."""
    assert shown == public_address(address)
    error = YoloClearmlError(f"At {address}, broken.", f"See {address} .") if "://" in address else None
    assert error is None or (f"See {shown} .") == error.hint
