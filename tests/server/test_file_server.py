"""Servers as people have them: below a path, behind redirects and logins, slow to confirm."""

from __future__ import annotations

import io
import itertools
import os
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import one_in, sampled
from double import ClearMLDouble, Hang, Status
from double.proxy import (
    Dawdler,
    Proxy,
    asks_to_log_in,
    moves,
    passes,
    shows_a_login,
)
from fronted import (
    API,
    FILES,
    SSO,
    Configure,
    configured,
    hint_of,
    no_proxies,
    run,
    verified,
)
from test_faults import status_of
from uploading import fails, upload

from yolo_clearml.errors import (
    Exit,
    FileElsewhere,
    FileServerUnreachable,
    RunChanged,
)
from yolo_clearml.server import file_server
from yolo_clearml.server.api import Api
from yolo_clearml.sync.work import Aim

__all__ = ["configured", "no_proxies", "run"]  # fixtures

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


@pytest.mark.parametrize(
    ("variable", "below", "status"),
    sampled(itertools.product([API, FILES], ["", "/clearml"], [301, 302, 307, 308]), one_in(3)),
)
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


def test_one_that_never_confirms_is_given_up(
    server: ClearMLDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the message names the option to wait longer."""
    monkeypatch.setattr(file_server, "_SLOWEST", 2**30)  # bytes a second: what was sent adds no time
    server.fault("files:POST", Hang(8.0), times=None)
    outcomes = upload([run], timeout=0.3)
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
