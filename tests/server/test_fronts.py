"""What stands between here and a server: certificates, proxies, and the SDK's settings for them."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from double import ClearMLDouble
from double.proxy import (
    Proxy,
    passes,
    refuses,
    wants_a_login,
)
from fronted import (
    API,
    FILES,
    Configure,
    authority,
    configured,
    hint_of,
    no_proxies,
    nobody,
    run,
    tls,
    verified,
)
from test_faults import status_of
from uploading import fails, upload

from yolo_clearml.errors import (
    Exit,
    ServerUnreachable,
    YoloClearmlError,
)
from yolo_clearml.server.api import Api
from yolo_clearml.sync.work import Aim

__all__ = ["authority", "configured", "no_proxies", "run", "tls"]  # fixtures

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
        ("http://", "The proxy http:// cannot be used: it is no address"),
        ("http://user:hunter2@localhost:99999", "The proxy http://localhost:99999 cannot be used"),
        ("http://a:hunter2@", "cannot be used: it is no address"),
        ("http://[::1", r"The proxy http://\[::1 cannot be used"),
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
