"""What tests of servers behind something share: the environment left out, settings, readings."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trustme

from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome

API, FILES = "CLEARML_API_HOST", "CLEARML_FILES_HOST"
Configure: TypeAlias = Callable[[str, object], None]
SSO = "https://sso.example.invalid/realms/ml/auth"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
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
