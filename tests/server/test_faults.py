"""A server that misbehaves: recognised, in bounded time, never lost, doubled or reported as done."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun, long_after, one_in, sampled
from double import ClearMLDouble, DropAfter, DropBefore, Fewer, Hang, NotJson, Status, Truncate
from uploading import clearml_sink, end_state, fails, upload

from yolo_clearml.errors import Exit
from yolo_clearml.replay.rules import plan
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.ledger import FileLedgers
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, Progress
from yolo_clearml.sync.work import Lazily, Work

API = [
    "auth.login",
    "tasks.get_all_ex",
    "projects.get_all_ex",
    "projects.create",
    "tasks.create",
    "tasks.started",
    "tasks.edit_hyper_params",
    "events.add_batch",
    "models.get_all",
    "models.create",
    "tasks.add_or_update_model",
    "tasks.completed",
]
PASSING = [
    Status(429, headers={"Retry-After": "0"}),
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    DropBefore(),
    DropAfter(),
    Truncate(),
]


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Give a small finished run."""
    path = make_run("v8.4.190-detect-noplots")
    donor = make_run("v8.4.190-detect")
    for name in ("val_batch0_pred.jpg", "results.png"):
        (path / name).write_bytes((donor / name).read_bytes())
    return path


@pytest.fixture
def wanted(run: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the end state of an upload that nothing disturbs."""
    with ClearMLDouble() as other, monkeypatch.context() as patch:
        for name, value in other.environ.items():
            patch.setenv(name, value)
        patch.setenv("CLEARML_CONFIG_FILE", str(run / "none.conf"))
        assert [] == fails(upload([run]))
        (run / ".yolo-clearml.json").unlink()
        return end_state(other)


def status_of(outcomes: list[Outcome]) -> Exit:
    (failed,) = (outcome for outcome in outcomes if isinstance(outcome, Failed))
    assert failed.error.hint
    return failed.error.status


@pytest.mark.parametrize(
    "kind",
    sampled(PASSING, one_in(4)),
    ids=lambda kind: f"{type(kind).__name__}{getattr(kind, 'code', '')}",
)
def test_a_fault_that_passes_leaves_no_trace(
    server: ClearMLDouble, run: Path, wanted: dict[str, Any], kind: Any
) -> None:
    """Once at each endpoint and at the file server: the upload gets through, and nothing is there twice."""
    for endpoint in (*API, "files:POST"):
        server.fault(endpoint, kind, times=1)
    (outcome,) = upload([run], timeout=20.0)
    assert isinstance(outcome, Delivered), fails([outcome])
    assert wanted == end_state(server)


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    sampled(
        itertools.product(
            [*API, "files:POST"], [Status(400), Status(403), Status(413), NotJson(), Status(500)]
        ),
        one_in(7),
    ),
    ids=str,
)
def test_a_fault_that_stays_is_named_and_mended_by_the_next_run(
    server: ClearMLDouble, run: Path, wanted: dict[str, Any], endpoint: str, kind: Any
) -> None:
    """No endpoint's failure is taken for success; when it is over, one more run brings all there is."""
    server.fault(endpoint, kind, times=None)
    outcomes = upload([run], timeout=0.6)
    assert 1 == len(fails(outcomes)), outcomes
    server.clear_faults()
    assert [] == fails(upload([run]))
    assert wanted == end_state(server)


def test_a_batch_that_is_stored_in_part_is_not_acknowledged(
    server: ClearMLDouble, run: Path, wanted: dict[str, Any]
) -> None:
    """The server says added n-1 with status 200: it is sent again, in parts."""
    server.fault("events.add_batch", Fewer(), times=1)
    assert [] == fails(upload([run]))
    assert wanted == end_state(server)


def test_wrong_credentials(server: ClearMLDouble, run: Path) -> None:
    """77, and a hint where new ones come from; tried once, for all runs together."""
    server.refuse_credentials = True
    outcomes = upload([run, run.parent])
    assert {Exit.REFUSED} == {o.error.status for o in outcomes if isinstance(o, Failed)}
    assert 1 == sum(request.endpoint == "auth.login" for request in server.requests)


def test_a_token_that_expires_in_the_middle_is_renewed(
    server: ClearMLDouble, run: Path, wanted: dict[str, Any]
) -> None:
    """401 in the middle: log in again and go on."""

    def expire(endpoint: str, number: int) -> None:
        if endpoint == "tasks.started":
            server.expire_tokens()

    server.after_request = expire
    assert [] == fails(upload([run]))
    assert wanted == end_state(server)


def test_credentials_withdrawn_in_the_middle(server: ClearMLDouble, run: Path) -> None:
    """401 for ever: 77, not an endless dance."""

    def withdraw(endpoint: str, number: int) -> None:
        if endpoint == "tasks.started":
            server.refuse_credentials = True
            server.expire_tokens()

    server.after_request = withdraw
    assert Exit.REFUSED == status_of(upload([run]))


def test_no_configuration(server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """78, and how to configure."""
    for name in server.environ:
        monkeypatch.delenv(name)
    outcomes = upload([run])
    assert Exit.NOT_CONFIGURED == status_of(outcomes)


def test_nobody_listens(server: ClearMLDouble, run: Path) -> None:
    """69, and it says that the connection is refused."""
    server.stop_api()
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "refuses the connection" in fails(outcomes)[0]


def test_an_unknown_host(server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """69, and it says that the name is not known."""
    monkeypatch.setenv("CLEARML_API_HOST", "http://no-such-host.invalid:8008")
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "name" in fails(outcomes)[0]


def test_a_server_that_is_silent(server: ClearMLDouble, run: Path) -> None:
    """69 in bounded time."""
    server.fault("auth.login", Hang(5.0), times=None)
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "does not answer" in fails(outcomes)[0]


@contextmanager
def page_server() -> Iterator[str]:
    """Serve a web page to whatever is asked."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b"<!DOCTYPE html><html></html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_the_web_app_instead_of_the_api(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """69, and it says that this is not the API."""
    with page_server() as address:
        monkeypatch.setenv("CLEARML_API_HOST", address)
        outcomes = upload([run])
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "not ClearML's API" in fails(outcomes)[0]


def test_the_web_app_instead_of_the_file_server(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page with status 200 is no confirmation: 69, and curves are there all the same."""
    with page_server() as address:
        monkeypatch.setenv("CLEARML_FILES_HOST", address)
        outcomes = upload([run])
    assert Exit.UNREACHABLE == status_of(outcomes)
    (task,) = server.tasks
    assert server.scalars(task)
    assert ({}, {}, {}) == (server.images(task), server.plots(task), server.models)


def test_tls_where_there_is_none(server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """https:// to a plain port: 69 at once, and what to write instead."""
    monkeypatch.setenv("CLEARML_API_HOST", server.api_url.replace("http://", "https://"))
    outcomes = upload([run], timeout=5.0)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "TLS" in fails(outcomes)[0]


def test_the_file_server_is_down(server: ClearMLDouble, run: Path, wanted: dict[str, Any]) -> None:
    """What needs no file arrives; no event points to a file that is not there; later the rest follows."""
    server.stop_files()
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    (task,) = server.tasks
    assert server.scalars(task)
    assert ({}, {}, {}) == (server.images(task), server.plots(task), server.models)
    server.start_files()
    assert [] == fails(upload([run]))
    assert wanted == end_state(server)


def test_a_server_that_accepts_and_answers_nothing(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that takes connections and never answers: 69 in bounded time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("CLEARML_API_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert Exit.UNREACHABLE == status_of(upload([run], timeout=0.5))


def test_a_server_that_is_down_is_waited_for_once(server: ClearMLDouble, make_run: MakeRun) -> None:
    """What one run has waited for in vain, the next one fails with, without another request."""
    one, two = make_run("v8.4.190-detect-killed"), make_run("v8.4.190-detect-noplots")
    server.fault("tasks.get_all_ex", Status(503), times=None)
    outcomes = upload([one, two], timeout=0.5)
    assert 2 == len(fails(outcomes))
    looked_up = {
        r.payload.get("runtime.yolo_clearml") for r in server.requests if r.endpoint == "tasks.get_all_ex"
    }
    assert 1 == len(looked_up - {None})  # None: whether it is the server, or that request alone


def test_a_file_server_that_is_down_is_not_waited_for_by_every_run(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Curves of every run arrive; after three runs, the pictures of the others are not even sent."""
    killed = "v8.4.190-detect-killed"
    runs = [make_run(killed), *(make_run(f"v8.4.190-{name}") for name in ("detect", "segment", "classify"))]
    server.fault("files:POST", Status(503), times=None)
    outcomes = upload(runs, timeout=0.5)
    assert 4 == len(fails(outcomes))
    assert 4 == sum(bool(server.scalars(task)) for task in server.tasks)
    paths = [path for r in server.requests if r.endpoint == "files:POST" for path in r.payload]
    assert 1 <= sum(any(task in path for path in paths) for task in server.tasks) <= 3


@pytest.mark.parametrize("status", sampled([500, 502, 503], one_in(3)))
def test_a_file_the_server_is_at_fault_over_stops_no_other_run(
    server: ClearMLDouble, make_run: MakeRun, status: int
) -> None:
    """That run failed; the pictures of the next one arrive."""
    one, two = make_run("v8.4.190-detect"), make_run("v8.4.190-segment")

    def of_the_first(payload: Any) -> bool:
        return any(next(iter(server.tasks)) in path and "val_pred" in path for path in payload)

    server.fault("files:POST", Status(status), times=None, only=of_the_first)
    told = fails(upload([one], timeout=0.5)) + fails(upload([one, two], timeout=0.5))
    assert 2 == len([sentence for sentence in told if f"keeps failing ({status})" in sentence])
    assert {"completed", "in_progress"} == {task["status"] for task in server.tasks.values()}


@pytest.mark.parametrize("status", sampled([500, 502, 504], one_in(3)))
def test_a_proxy_that_is_at_fault_over_several_files_gets_them_one_by_one(
    server: ClearMLDouble, run: Path, wanted: dict[str, Any], status: int
) -> None:
    """The end is that of an upload that nothing disturbs."""
    server.fault("files:POST", Status(status), times=None, only=lambda payload: len(payload) > 1)
    assert [] == fails(upload([run], timeout=0.5))
    assert wanted == end_state(server)


def test_a_file_that_shrinks_while_it_is_sent_is_not_the_servers_fault(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The request waits for bytes that never come; it is said why, and the next run is done."""
    one, two = make_run("v8.4.190-detect"), make_run("v8.4.190-segment")
    weights = one / "weights" / "best.pt"
    with zipfile.ZipFile(weights, "a") as archive:
        archive.writestr("best/padding", bytes(30_000_000))  # so that it takes a while
    work = Work(Lazily(clearml_sink(1.0)), FileLedgers(), "server", now=long_after)
    outcomes: list[Outcome] = []
    sent = 0
    for outcome in sync([one, two], work, 1, threading.Event()):
        sent += outcome.size if isinstance(outcome, Progress) else 0
        if sent > 5_000_000 and weights.stat().st_size > 5_000_000:  # more than the pictures
            os.truncate(weights, 1000)
        outcomes.append(outcome)
    sentences = fails(outcomes)
    assert 1 == len(sentences)
    assert "changed" in sentences[0] or "cannot be read" in sentences[0]
    assert two in [outcome.run for outcome in outcomes if isinstance(outcome, Delivered)]


def test_a_run_the_server_cannot_digest_does_not_stop_the_others(
    server: ClearMLDouble, make_run: MakeRun
) -> None:
    """500 over one run's request again and again: that run failed, the next one is done."""
    one, two = make_run("v8.4.190-detect-killed"), make_run("v8.4.190-detect-noplots")
    server.fault("tasks.stopped", Status(500), times=None)  # only the killed one is reported as stopped
    outcomes = upload([one, two], timeout=0.4)
    assert [one] == [outcome.run for outcome in outcomes if isinstance(outcome, Failed)]
    assert [two] == [outcome.run for outcome in outcomes if isinstance(outcome, Delivered)]


@pytest.mark.parametrize("key", ["CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"])
def test_half_a_pair_of_keys(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """78: what is missing is a setting, not a right."""
    monkeypatch.delenv(key)
    outcomes = upload([run])
    assert Exit.NOT_CONFIGURED == status_of(outcomes)
    assert [] == server.requests


@pytest.mark.parametrize("name", ["CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"])
@pytest.mark.parametrize("odd", ["\u201cABC\u201d", "A\u200bBC", "\u043a\u043b\u044e\u0447"])
def test_a_key_that_was_copied_badly(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, name: str, odd: str
) -> None:
    """78: quotation marks, or what cannot be seen, of a document; the server is not blamed, nor shown it."""
    monkeypatch.setenv(name, odd)
    (outcome,) = upload([run])
    assert isinstance(outcome, Failed)
    assert Exit.NOT_CONFIGURED == outcome.error.status
    assert "with a character that no key has" in str(outcome.error)
    assert name in outcome.error.hint
    assert [] == server.requests


def test_an_address_without_a_scheme(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """78, and it says what to write."""
    for address in (server.api_url.removeprefix("http://"), "localhost"):
        monkeypatch.setenv("CLEARML_API_HOST", address)
        outcomes = upload([run])
        assert Exit.NOT_CONFIGURED == status_of(outcomes)
        assert f"{address} is not an address of ClearML's API server." == fails(outcomes)[0]


@contextmanager
def odd_server(reply: bytes, pause: float = 0.0) -> Iterator[str]:
    """Answer everything with ``reply``, byte by byte with a pause after each where there is one."""

    class Odd(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            with suppress(OSError):
                for piece in [reply[i : i + 1] for i in range(len(reply))] if pause else [reply]:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    done.wait(pause)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    done = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd) as web:
        web.daemon_threads = True
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        done.set()
        web.shutdown()


def test_a_reply_that_drips_is_given_up(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then is an answer that never comes: 69 in bounded time."""
    with odd_server(b"x" * 50, pause=0.1) as address:
        monkeypatch.setenv("CLEARML_API_HOST", address)
        outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "does not answer" in fails(outcomes)[0]


@pytest.mark.parametrize("reply", [b'{"a":1}', b'"x"', b'["other/file.jpg"]', b"[]", b"null", b"[1]"])
def test_what_is_no_confirmation_of_a_file(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """The file server must name the very file; no event or model points to one that is not there."""
    with odd_server(reply) as address:
        monkeypatch.setenv("CLEARML_FILES_HOST", address)
        outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    (task,) = server.tasks
    assert ({}, {}, {}) == (server.images(task), server.plots(task), server.models)


SHAPES: list[Any] = [
    {},
    {"tasks": None},
    {"tasks": [None]},
    {"tasks": [{}]},
    {"id": 5},
    {"id": ""},
    {"updated": "x"},
]


@pytest.mark.parametrize(
    ("endpoint", "data"),
    sampled(itertools.product([*API[1:7], *API[8:]], SHAPES), one_in(5)),
    ids=str,
)
def test_a_reply_of_another_shape(server: ClearMLDouble, run: Path, endpoint: str, data: Any) -> None:
    """A server that answers 200 with something else: the run failed, and it is no fault of ours."""
    meta = {"id": "0", "result_code": 200, "result_subcode": 0, "result_msg": "OK"}
    body = json.dumps({"meta": meta, "data": data}).encode()
    server.fault(endpoint, Status(200, body=body, headers={"Content-Type": "application/json"}), times=None)
    outcomes = upload([run], timeout=0.5)
    assert status_of(outcomes) in (Exit.SOME_FAILED, Exit.UNREACHABLE)


@pytest.mark.parametrize("token", ["", "nonsense", None, 5])
def test_a_login_that_gives_no_token(server: ClearMLDouble, run: Path, token: Any) -> None:
    """A reply to the login without a token of use is no refusal of the credentials."""
    meta = {"id": "0", "result_code": 200, "result_subcode": 0, "result_msg": "OK"}
    body = json.dumps({"meta": meta, "data": {"token": token}}).encode()
    server.fault(
        "auth.login", Status(200, body=body, headers={"Content-Type": "application/json"}), times=None
    )
    assert Exit.UNREACHABLE == status_of(upload([run], timeout=0.5))


def test_a_fault_of_ours_over_one_run_does_not_stop_the_others(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever nobody foresaw is that run's failure, with status 1."""
    from yolo_clearml.sync import visit

    one, two = make_run("v8.4.190-detect-killed"), make_run("v8.4.190-detect-noplots")

    def plan_or_fail(run: Any, wishes: Any) -> Any:
        if run.path == one:
            raise KeyError("unforeseen")
        return plan(run, wishes)

    monkeypatch.setattr(visit, "plan", plan_or_fail)
    outcomes = upload([one, two])
    (failed,) = (outcome for outcome in outcomes if isinstance(outcome, Failed))
    assert (one, Exit.OURS) == (failed.run, failed.error.status)
    assert [two] == [outcome.run for outcome in outcomes if isinstance(outcome, Delivered)]
