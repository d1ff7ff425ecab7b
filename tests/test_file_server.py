"""Servers as people have them: below a path, behind redirects, logins and proxies, slow to confirm."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme
from conftest import MakeRun
from double import ClearMLDouble, Hang, Status
from double.proxy import (
    Dawdler,
    Proxy,
    asks_to_log_in,
    moves,
    passes,
    refuses,
    shows_a_login,
    wants_a_login,
)
from test_faults import status_of
from uploading import fails, upload

from yolo_clearml import file_server
from yolo_clearml.clearml_api import Api, RefusedRequest
from yolo_clearml.engine import Aim, Delivered, Failed, Outcome
from yolo_clearml.errors import (
    Exit,
    FileElsewhere,
    FileServerUnreachable,
    RunChanged,
    ServerUnreachable,
    YoloClearmlError,
)

API, FILES = "CLEARML_API_HOST", "CLEARML_FILES_HOST"
Configure: TypeAlias = Callable[[str, object], None]
SSO = "https://sso.example.invalid/realms/ml/auth"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(small_run: Path) -> Path:
    return small_run


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Give a function that sets something in clearml.conf, as the SDK has read it."""
    from clearml.config import config_obj

    set_here: dict[str, object] = {}
    get = config_obj.get

    def configure(key: str, value: object) -> None:
        set_here[key] = value

    def look_up(key: str, *default: object, **named: object) -> object:
        return set_here[key] if key in set_here else get(key, *default, **named)

    monkeypatch.setattr(config_obj, "get", look_up)
    return configure


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Give what speaks TLS with a certificate that no machine trusts by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def hint_of(outcomes: list[Outcome]) -> str:
    (failed,) = (outcome for outcome in outcomes if isinstance(outcome, Failed))
    return failed.error.hint


def verified(outcomes: list[Outcome]) -> bool:
    (delivered,) = (outcome for outcome in outcomes if isinstance(outcome, Delivered))
    return delivered.proof is not None and not delivered.proof.differences


def nobody() -> str:
    """Give an address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


# -- below a path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"], ids=["as it is", "with a slash"])
def test_servers_below_a_path(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    """Files go there by one request each group, with the token, are linked there and read back there."""
    server.files_auth = True
    locations = passes(server.api_url, "/clearml/api"), passes(server.files_url, "/clearml/files")
    with Proxy(*locations) as proxy:
        monkeypatch.setenv(API, f"{proxy.url}/clearml/api{slash}")
        monkeypatch.setenv(FILES, f"{proxy.url}/clearml/files{slash}")
        assert verified(upload([run], aim=Aim.DELIVER_AND_VERIFY))
        (task,) = server.tasks
        urls = [entry["url"] for entry in server.images(task).values()] + [
            m["uri"] for m in server.models.values()
        ]
        assert urls
        assert all(url.startswith(f"{proxy.url}/clearml/files/Ultralytics/") for url in urls)
        posts = [i.target for i in proxy.incoming if i.method == "POST" and "/files" in i.target]
        assert {"/clearml/files/"} == set(posts)


# -- redirects and pages to log in ------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [API, FILES])
@pytest.mark.parametrize("below", ["", "/clearml"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_names_the_address_to_configure(
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    below: str,
    status: int,
) -> None:
    """69 at once, whichever status; nothing follows, and so no token goes there."""
    with Proxy(shows_a_login) as other, Proxy(moves(other.url.replace("http:", "https:"), status)) as proxy:
        monkeypatch.setenv(variable, proxy.url + below)
        outcomes = upload([run], timeout=60.0)
        assert Exit.UNREACHABLE == status_of(outcomes)
        named = other.url.replace("http:", "https:") + below
        assert [f"{proxy.url}{below} sends on to {named} ({status})."] == fails(outcomes)
        assert variable in hint_of(outcomes)
        assert [] == other.incoming
        assert 1 <= len(proxy.incoming) <= 4  # by four threads: files are not tried one by one


@pytest.mark.parametrize("variable", [API, FILES])
def test_a_redirect_to_a_login(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It is said that this is a login and not the server; the query of the address may hold secrets."""
    with Proxy(asks_to_log_in(SSO)) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        outcomes = upload([run], timeout=60.0)
    assert Exit.UNREACHABLE == status_of(outcomes)
    (sentence,) = fails(outcomes)
    assert f"it sends on to {SSO} (302), perhaps to log in there." in sentence
    assert "redirect_uri" not in sentence
    assert "credentials through without that login" in hint_of(outcomes)
    assert variable in hint_of(outcomes)


@pytest.mark.parametrize("variable", [API, FILES])
def test_a_login_in_place_of_an_answer(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A page with status 200 may be the web app or a login: both are said."""
    with Proxy(shows_a_login) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        outcomes = upload([run])
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert variable in hint_of(outcomes)
    assert "a page to log in stands before it" in hint_of(outcomes)
    (task,) = server.tasks or [None]
    assert task is None or ({}, {}) == (server.images(task), server.plots(task))


def test_a_file_that_moved_is_read_where_it_went(
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    configured: Configure,
) -> None:
    """The links in a task stay what they were while the server moves: to another name, below a path."""
    server.files_auth = True
    with Proxy(passes(server.files_url, "/files")) as new, Proxy(moves(f"{new.url}/files")) as old:
        server.files["a/b.png"] = b"picture"
        monkeypatch.setenv(FILES, f"{new.url}/files")
        content = Api(1.0).fetch(f"{old.url}/a/b.png", 100)
        assert content is not None
        assert b"picture" == content.head
        assert all("authorization" not in incoming.headers for incoming in old.incoming)


def test_a_file_is_not_looked_for_at_a_stranger(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on another host, and a page to log in on the same one is not taken for the file."""
    with Proxy(shows_a_login) as stranger, Proxy(moves(stranger.url)) as proxy:
        monkeypatch.setenv(FILES, proxy.url)
        with pytest.raises(FileServerUnreachable, match="sends on to"):
            Api(1.0).fetch(f"{proxy.url}/a.png", 100)
        assert [] == stranger.incoming

    def login(incoming: Any) -> Any:
        return moves("/login?next=")(incoming) if not incoming.target.startswith("/login") else None

    with Proxy(login, shows_a_login) as proxy:
        monkeypatch.setenv(FILES, proxy.url)
        with pytest.raises(FileServerUnreachable, match="sends on to"):
            Api(1.0).fetch(f"{proxy.url}/a.png", 100)


def test_redirects_in_a_circle_end(server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    circle: list[str] = []
    with Proxy(lambda incoming: moves(circle[0])(incoming)) as proxy:
        circle.append(proxy.url)
        monkeypatch.setenv(FILES, proxy.url)
        with pytest.raises(FileServerUnreachable, match="sends on to"):
            Api(1.0).fetch(f"{proxy.url}/a.png", 100)
        assert len(proxy.incoming) < 10


def test_the_token_goes_to_configured_servers_alone(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to a storage of somebody's choice, nor to a name that begins alike."""
    with Proxy(passes(server.files_url)) as proxy, Proxy(passes(server.files_url, "/files")) as own:
        monkeypatch.setenv(FILES, f"{own.url}/files")
        api = Api(1.0)
        api.upload(proxy.url, {"a": io.BytesIO(b"x")}, lambda size: None)
        assert api.fetch(f"{proxy.url}/a", 10) is not None
        with pytest.raises((FileElsewhere, AssertionError)):
            assert api.fetch(f"{own.url}/files2/a", 10) is not None
        assert api.fetch(f"{own.url}/files/a", 10) is not None
        assert [False] * 2 == ["authorization" in i.headers for i in proxy.incoming]
        assert [False, True] == ["authorization" in i.headers for i in own.incoming]


# -- certificates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bundle", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_no_certificates_are_checked_where_that_is_off(
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    tls: ssl.SSLContext,
    tmp_path: Path,
    bundle: str,
) -> None:
    """Off is off, also beside a bundle of others', for the API, uploads and what is read back."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "others.pem")
    monkeypatch.setenv(bundle, str(tmp_path / "others.pem"))
    with Proxy(passes(server.api_url), tls=tls) as api, Proxy(passes(server.files_url), tls=tls) as files:
        monkeypatch.setenv(API, api.url)
        monkeypatch.setenv(FILES, files.url)
        outcomes = upload([run])
        assert Exit.UNREACHABLE == status_of(outcomes)
        assert "is not trusted" in fails(outcomes)[0]
        monkeypatch.setenv("CLEARML_API_HOST_VERIFY_CERT", "false")
        assert verified(upload([run], aim=Aim.DELIVER_AND_VERIFY))


def test_an_authority_in_a_bundle_is_trusted(
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    tls: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ours.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ours.pem"))
    with Proxy(passes(server.files_url), tls=tls) as files:
        monkeypatch.setenv(FILES, files.url)
        assert verified(upload([run], aim=Aim.DELIVER_AND_VERIFY))


def test_a_bundle_that_is_not_there(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    """78, and it names the variables: it is no fault of this program."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent/bundle.pem")
    with Proxy(passes(server.api_url), tls=tls) as api:
        monkeypatch.setenv(API, api.url)
        outcomes = upload([run])
    assert Exit.NOT_CONFIGURED == status_of(outcomes)
    assert "/nonexistent/bundle.pem" in fails(outcomes)[0]
    assert "REQUESTS_CA_BUNDLE" in hint_of(outcomes)


# -- proxies of the environment ---------------------------------------------------------------------------


def test_a_dead_proxy_is_named(server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its password; neither the API nor the file server is said to refuse anything."""
    dead = nobody()
    monkeypatch.setenv("http_proxy", f"http://user:hunter2@{dead}")
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    (sentence,) = fails(outcomes)
    assert f"The proxy http://{dead} does not lead to ClearML's API server at {server.api_url}." == sentence
    assert "no_proxy" in hint_of(outcomes)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert [] == fails(upload([run]))


def test_a_dead_proxy_before_the_file_server_alone(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curves arrive all the same."""
    dead = nobody()
    monkeypatch.setenv("https_proxy", f"http://user:hunter2@{dead}")
    monkeypatch.setenv(FILES, "https://files.example.invalid")
    outcomes = upload([run], timeout=0.5)
    (sentence,) = fails(outcomes)
    assert sentence.startswith(
        f"The proxy http://{dead} does not lead to ClearML's file server at https://files."
    )
    (task,) = server.tasks
    assert server.scalars(task)


def test_a_proxy_that_wants_a_login(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: no waiting helps."""
    with Proxy(wants_a_login) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        outcomes = upload([run], timeout=60.0)
        assert 1 == len(proxy.incoming)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert [
        f"The proxy {proxy.url} wants a login, so ClearML's API server at {server.api_url} is not reached."
    ] == (fails(outcomes))


def test_a_tunnel_that_wants_a_login(server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for https, where the proxy's answer is not one to the request."""
    monkeypatch.setenv(API, "https://clearml.example.invalid")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            client.recv(2**16)
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ServerUnreachable, match="wants a login"):
            Api(60.0)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://", "malformed"),
        ("ftp://user:hunter2@proxy", "The proxy ftp://proxy cannot be used: .*scheme ftp"),
        ("socks5://user:hunter2@proxy", r"The proxy socks5://proxy cannot be used"),
    ],
)
def test_a_proxy_that_cannot_be_meant(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, proxy: str, said: str
) -> None:
    """78, and it is not the server's address that is called wrong."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(YoloClearmlError, match=said) as told:
        Api(0.5)
    assert Exit.NOT_CONFIGURED == told.value.status
    assert "hunter2" not in f"{told.value} {told.value.hint}"


# -- slow to confirm --------------------------------------------------------------------------------------


def test_the_time_to_confirm_is_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearml.storage.helper import _HttpDriver

    assert _HttpDriver.min_kbps_speed * 2**10 == file_server._SLOWEST


def test_a_proxy_that_takes_all_and_confirms_late(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for in proportion to what it was sent, beyond ``--timeout``."""
    with Proxy(passes(server.files_url, seconds=1.5)) as proxy:
        monkeypatch.setenv(FILES, proxy.url)
        monkeypatch.setattr(file_server, "_SLOWEST", 2000)  # bytes a second
        assert [] == fails(upload([run], timeout=0.7))
    assert 1 == len(server.models)


def test_one_that_never_confirms_is_given_up(server: ClearMLDouble, run: Path) -> None:
    """And the message names the option to wait longer."""
    server.fault("files:POST", Hang(8.0), times=None)
    outcomes = upload([run], timeout=0.7)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "does not answer within" in fails(outcomes)[0]
    assert "--timeout" in hint_of(outcomes)


def test_a_storage_that_reads_late_is_waited_for(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that cannot be sent yet is no dead connection, before ``--timeout`` is over."""
    monkeypatch.setattr(file_server, "_CONNECT", 0.2)
    api, content = Api(4.0), b"x" * 24_000_000  # more than the system keeps on its way
    with Dawdler(server.files_url, 1.0) as storage:
        api.upload(storage.url, {"big": io.BytesIO(content)}, lambda size: None)
    assert len(content) == len(server.files["big"])


def test_a_proxy_that_does_not_wait_is_named(server: ClearMLDouble, run: Path) -> None:
    """A 504 is the word of a proxy over its own limit."""
    server.fault("files:POST", Status(504, "<html>", {}), times=None)
    outcomes = upload([run], timeout=0.3)
    assert "keeps failing (504)" in fails(outcomes)[0]
    assert "proxy_read_timeout" in hint_of(outcomes)


def test_a_file_that_is_cut_is_noticed_at_once(server: ClearMLDouble, tmp_path: Path) -> None:
    """Its server waits for the rest for ever: it is not waited for."""
    path = tmp_path / "best.pt"
    path.write_bytes(b"x" * 4_000_000)
    api, begun = Api(60.0), time.monotonic()
    with path.open("rb") as file, pytest.raises(RunChanged):
        api.upload(server.files_url, {"a": file}, lambda size: os.truncate(path, 1000))
    assert time.monotonic() - begun < 30
    assert {} == server.files


# -- settings of the SDK ----------------------------------------------------------------------------------


def test_plots_go_where_the_sdk_puts_them(server: ClearMLDouble, run: Path, configured: Configure) -> None:
    """``sdk.metrics.plot_upload_destination`` is for the Plots tab alone, with the token, as in the SDK."""
    server.files_auth = True
    with Proxy(passes(server.files_url, "/plots")) as proxy:
        configured("sdk.metrics.plot_upload_destination", f"{proxy.url}/plots/")
        assert verified(upload([run], aim=Aim.DELIVER_AND_VERIFY))
        (task,) = server.tasks
        plots, images = server.plots(task).values(), server.images(task).values()
        assert all(f"{proxy.url}/plots/Ultralytics/" in plot["plot_str"] for plot in plots)
        assert all(image["url"].startswith(f"{server.files_url}/Ultralytics/") for image in images)
        assert plots
        assert images
        sent = [incoming for incoming in proxy.incoming if incoming.method == "POST"]
        assert {"/plots/"} == {incoming.target for incoming in sent}


def test_plots_that_no_page_can_show_are_debug_images(
    server: ClearMLDouble, run: Path, tmp_path: Path, configured: Configure
) -> None:
    """As in the SDK (report_image_plot_and_upload); they are read back all the same, and sent once."""
    assert [] == fails(upload([run]))
    (task,) = server.tasks
    usual = server.plots(task)
    (tmp_path / "plots").mkdir()
    configured("sdk.metrics.plot_upload_destination", f"file://{tmp_path}/plots")
    (run / ".yolo-clearml.json").unlink()
    with ClearMLDouble() as other, pytest.MonkeyPatch.context() as patch:
        for name, value in other.environ.items():
            patch.setenv(name, value)
        assert verified(upload([run], aim=Aim.DELIVER_AND_VERIFY))
        (task,) = other.tasks
        assert {} == other.plots(task)
        shown = [e for e in other.images(task).values() if e["variant"] == "plot image"]
        assert {entry["metric"] for entry in usual.values()} == {entry["metric"] for entry in shown}
        assert all(entry["url"].startswith(f"file://{tmp_path}/plots/") for entry in shown)
        before = len(other.requests)
        upload([run])
        assert before == len(other.requests)


@pytest.mark.parametrize("method", ["get", "PUT", "POST"])
@pytest.mark.parametrize("by", ["variable", "clearml.conf"])
def test_the_method_of_requests_is_the_configured_one(
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    configured: Configure,
    method: str,
    by: str,
) -> None:
    """All of the API's, so that a proxy that lets nothing else through is passed."""
    others = [refuses(other, 405) for other in ("GET", "PUT", "POST") if other != method.upper()]
    if by == "variable":
        monkeypatch.setenv("CLEARML_API_DEFAULT_REQ_METHOD", method)
    else:
        configured("api.http.default_method", method)
    with Proxy(*others, passes(server.api_url)) as proxy:
        monkeypatch.setenv(API, proxy.url)
        assert [] == fails(upload([run]))
        assert {method.upper()} == {incoming.method for incoming in proxy.incoming}
    assert 1 == len(server.models)


def test_without_a_setting_it_is_post(server: ClearMLDouble, run: Path) -> None:
    """A GET that fails is sent again by proxies, unasked: what it made is there twice."""
    assert [] == fails(upload([run]))
    assert {"POST"} == {request.method for request in server.requests if ":" not in request.endpoint}


@pytest.mark.parametrize(("method", "status", "instead"), [("POST", 405, "GET"), ("GET", 411, "POST")])
def test_a_method_that_is_refused_names_the_setting(
    server: ClearMLDouble,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    configured: Configure,
    method: str,
    status: int,
    instead: str,
) -> None:
    configured("api.http.default_method", method)
    with Proxy(refuses(method, status), passes(server.api_url)) as proxy:
        monkeypatch.setenv(API, proxy.url)
        outcomes = upload([run])
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert f"takes no {method} ({status})" in fails(outcomes)[0]
    assert (
        f"api.http.default_method in clearml.conf (or CLEARML_API_DEFAULT_REQ_METHOD) to {instead};"
        in hint_of(outcomes)
    )


def test_a_method_that_is_none(server: ClearMLDouble, run: Path, configured: Configure) -> None:
    configured("api.http.default_method", "patch")
    outcomes = upload([run])
    assert Exit.NOT_CONFIGURED == status_of(outcomes)
    assert "PATCH is no method" in fails(outcomes)[0]


# -- tokens, documents, projects --------------------------------------------------------------------------


def refusal(code: int, subcode: int, message: str) -> Status:
    """Give the API server's own word."""
    meta = {"result_code": code, "result_subcode": subcode, "result_msg": message}
    return Status(code, json.dumps({"meta": meta, "data": {}}), {"Content-Type": "application/json"})


INVALID_TOKEN = refusal(401, 30, "Invalid token (invalid jwt token)")


def test_a_token_refused_twice_passes(server: ClearMLDouble, run: Path) -> None:
    """A server that is restarting: the login before was good, and so is the next."""
    server.fault("tasks.create", INVALID_TOKEN, times=2)
    assert [] == fails(upload([run], timeout=10.0))
    assert 1 == len(server.tasks)


def test_a_token_refused_for_ever_is_no_matter_of_keys(server: ClearMLDouble, run: Path) -> None:
    """69, never 77."""
    server.fault("tasks.create", INVALID_TOKEN, times=None)
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "refuses the token that it has just given" in fails(outcomes)[0]


NOT_INDEXED = (
    "General data error: err=1 document(s) failed to index., extra_info=[1:1] failed to parse field [value]"
)


def test_a_document_that_is_not_indexed_is_refused_at_once(server: ClearMLDouble) -> None:
    """It is no outage: the same again is refused again."""
    api = Api(60.0)
    server.fault("events.add_batch", refusal(500, 100, NOT_INDEXED), times=None)
    before = len(server.requests)
    with pytest.raises(RefusedRequest) as refused:
        api.add_events([{"type": "training_stats_scalar"}])
    assert (500, 100, NOT_INDEXED) == (refused.value.code, refused.value.subcode, refused.value.message)
    assert 1 == len(server.requests) - before


@pytest.mark.parametrize(
    ("subcode", "reason"),
    [
        (0, "general server error"),
        (100, "(ConnectionError(<HTTPConnection>: Failed to establish a new connection))"),
        (100, "err=9 document(s) failed to index., extra_info=rejected execution of a task"),
        (100, "err=9 document(s) failed to index., extra_info=[primary shard is not active]"),
    ],
)
def test_other_failures_of_the_index_pass(server: ClearMLDouble, subcode: int, reason: str) -> None:
    """Elasticsearch that is away or busy has the same code, and subcode: the same is sent again."""
    api = Api(10.0)
    server.fault("events.add_batch", refusal(500, subcode, f"General data error: {reason}"), times=2)
    before = len(server.requests)
    with pytest.raises(RefusedRequest) as refused:
        api.add_events([{"type": "training_stats_scalar"}])
    assert 400 == refused.value.code  # the server's own word over that event, in the end
    assert 3 == len(server.requests) - before


def test_threads_make_a_project_once(server: ClearMLDouble, make_run: MakeRun) -> None:
    """None of them is refused: the server would log an error for each."""
    runs = [make_run("v8.4.190-detect-noplots", f"run{number}") for number in range(4)]
    for number, run in enumerate(runs):  # four trainings, not copies of one
        text = (run / "args.yaml").read_text()
        (run / "args.yaml").write_text(text.replace("save_dir: ", f"save_dir: {number}/"))
    gate = threading.Barrier(4, timeout=5)
    waiting = Counter[str]()

    def meet(endpoint: str, number: int) -> None:
        """Hold the look-ups until every thread has seen that there is none."""
        if endpoint == "projects.get_all_ex" and waiting[endpoint] < 4:
            waiting[endpoint] += 1
            gate.wait()

    server.after_request = meet
    outcomes = upload(runs, jobs=4)
    assert [] == fails(outcomes)
    made = [request for request in server.requests if request.endpoint == "projects.create"]
    assert 1 == len(made)
    assert 4 == len(server.tasks)
