"""One request and its reply, in bounded time and memory; the ways of failing distinguished.

Knows HTTP and what ClearML's servers answer over it, and nothing of the SDK.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.utils import get_environ_proxies, select_proxy
from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event
from tenacity.stop import stop_before_delay
from tenacity.wait import wait_random_exponential

from ..errors import (
    FileServerUnreachable,
    NotConfigured,
    ServerFailing,
    ServerRefused,
    ServerUnreachable,
    YoloClearmlError,
    public,
)

PASSING = (408, 425, 429, 500, 502, 503, 504, 509)  # statuses that may be gone the next time
_LONGEST_PAUSE = 8.0  # seconds between two tries
_LONGEST_REPLY = 64 * 2**20  # bytes; the longest asked for has some MiB
_PIECE = 2**16  # bytes of a reply read at a time
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,  # ftp://host, or host:port
    requests.exceptions.MissingSchema,  # host
)
_PROXY_HINT = (
    "Correct http_proxy and https_proxy in the environment, or name the server in no_proxy; then run again."
)
_NO_METHOD = (405, 411, 501)  # a proxy's words for a method that it lets nobody use
# of Elasticsearch, over documents that there is nothing wrong with: it is overloaded, or starting
_BUSY_INDEX = ("rejected execution", "shard is not active", "Data too large", "circuit_breaking")

_Result = TypeVar("_Result")
_Unreachable: TypeAlias = "ServerUnreachable | FileServerUnreachable"


class PassingError(Exception):
    """A failure that may be gone the next time; ``error`` is what to raise if it is not."""

    def __init__(self, error: YoloClearmlError, retry_after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after  # seconds the server asked for


class Patience:
    """Does what fails in passing again, with growing, random pauses, for ``seconds`` at most.

    ``stop`` ends every pause, and the next failure is the last.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.seconds = seconds
        self.stop = stop

    def __call__(self, action: Callable[[], _Result], limit: float | None = None) -> _Result:
        """Give what the action gives; ``limit`` is a patience of its own, in seconds."""
        patience = self.seconds if limit is None else limit
        grow = wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, PassingError) else 0.0
            return max(grow(state), asked)

        retrying = Retrying(
            retry=retry_if_exception_type(PassingError),
            stop=lambda state: self.stop.is_set() or stop_before_delay(patience)(state),
            wait=pause,
            sleep=sleep_using_event(self.stop),
            reraise=True,
        )
        try:
            return retrying(action)
        except PassingError as passing:
            raise passing.error from passing.__cause__


def public_address(address: str) -> str:
    """Leave out a name and password that an address may hold, also one that lacks its http://."""
    return public(address if "://" in address else f"://{address}").removeprefix("://")


def is_address(text: str) -> bool:
    """Check whether a text can be read as an address, with a host and a port that there can be."""
    try:
        return urlsplit(text).port != 0 and bool(urlsplit(text).hostname)
    except ValueError:  # of a bracket that is not closed, or a port beyond 65535
        return False


def verifies(http: requests.Session) -> bool | None:
    """Give what to pass on as ``verify``: off is off, which requests forgets over REQUESTS_CA_BUNDLE."""
    return False if http.verify is False else None


def pieces(reply: requests.Response, seconds: float, slowest: float = math.inf) -> Iterator[bytes]:
    """Give a body piece by piece within a time, however slowly it comes.

    The time limit of requests is for each piece of a reply by itself. ``slowest`` bytes a second are good for
    a second more. A body that ends before its announced length raises, as does one that takes too long.
    """
    end, received = time.monotonic() + seconds, 0
    while piece := reply.raw.read1(_PIECE, decode_content=True):
        yield piece
        received += len(piece)
        if time.monotonic() > end + received / slowest:
            raise requests.exceptions.ReadTimeout("the reply takes too long")


def _load(reply: requests.Response, seconds: float) -> None:
    """Read a body within a time and a size, however slowly or endlessly it comes."""
    body = bytearray()
    for piece in pieces(reply, seconds):
        body += piece
        if len(body) > _LONGEST_REPLY:
            raise requests.exceptions.ChunkedEncodingError("the reply does not end")
    reply._content, reply._content_consumed = bytes(body), True  # type: ignore[attr-defined]


def exchange(
    who: str,
    where: str,
    seconds: float,
    send: Callable[[], requests.Response],
    kind: type[_Unreachable] = ServerUnreachable,
    load: Callable[[requests.Response, float], None] = _load,
) -> requests.Response:
    """Send one request and read its reply, and distinguish the ways in which none arrives."""
    try:
        with send() as reply:
            load(reply, seconds)
            if reply.status_code == requests.codes.proxy_authentication_required:
                raise _locked(who, where, kind)
            return reply
    except requests.exceptions.ProxyError as cause:
        if str(requests.codes.proxy_authentication_required) in str(cause):  # of a tunnel
            raise _locked(who, where, kind) from cause
        text = f"{_proxy(where)} does not lead to {who} at {where}."
        raise PassingError(kind(text, _PROXY_HINT)) from cause
    except requests.exceptions.SSLError as cause:
        if "WRONG_VERSION_NUMBER" in str(cause) or "record layer" in str(cause):
            text, hint = f"{who} at {where} does not speak TLS.", "Write http:// instead of https://."
        else:
            text = f"The certificate of {who} at {where} is not trusted."
            hint = "Put its authority's file into REQUESTS_CA_BUNDLE, or set api.verify_certificate."
        raise kind(text, hint) from cause
    except requests.exceptions.ConnectTimeout as cause:
        raise PassingError(
            kind(f"{who} at {where} does not answer.", "Check the network and the server; then run again.")
        ) from cause
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as cause:
        raise PassingError(
            kind(
                f"{who} at {where} does not answer within {seconds:.0f} s.",
                "Check the network and the server, or give it more time with --timeout; then run again.",
            )
        ) from cause
    except _NO_ADDRESS as cause:
        if "proxy url" in str(cause).lower():
            raise proxy_unusable(where, str(cause).rstrip(".")) from cause
        if "SOCKS" in str(cause):
            raise NotConfigured(
                f"{_proxy(where)} cannot be used: Python lacks what speaks SOCKS.",
                "Install it with: pip install 'requests[socks]'",
            ) from cause
        raise NotConfigured(
            f"{where} is not an address of {who}.",
            "Write it with http:// or https:// in clearml.conf or CLEARML_API_HOST, CLEARML_FILES_HOST.",
        ) from cause
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as cause:
        reason = str(cause)
        if "NameResolution" in reason or "getaddrinfo" in reason or "Name or service" in reason:
            text = f"The name of {who} in {where} is not known."
        elif "refused" in reason:
            text = f"{who} at {where} refuses the connection."
        else:
            text = f"{who} at {where} broke the connection off."
        raise PassingError(
            kind(text, "Check that the address is right and the server is up; then run again.")
        ) from cause
    except OSError as cause:
        if "CA certificate bundle" not in str(cause):
            raise
        raise NotConfigured(
            f"{who} at {where} cannot be asked: {cause}.",
            "Correct REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or api.verify_certificate.",
        ) from cause


def proxy_of(address: str) -> str | None:
    """Give the proxy that the environment puts before an address, with what it holds of a password."""
    return select_proxy(address, get_environ_proxies(address))


def proxy_unusable(where: str, reason: str) -> NotConfigured:
    """Give the error of a proxy before an address that no request can be sent through."""
    return NotConfigured(f"{_proxy(where)} cannot be used: {reason}.", _PROXY_HINT)


def _proxy(where: str) -> str:
    """Name the proxy that the environment puts before an address, without its password."""
    return f"The proxy {public_address(proxy_of(where) or '')}"


def _locked(who: str, where: str, kind: type[_Unreachable]) -> _Unreachable:
    return kind(f"{_proxy(where)} wants a login, so {who} at {where} is not reached.", _PROXY_HINT)


def led_elsewhere(
    reply: requests.Response, who: str, base: str, setting: str, kind: type[_Unreachable]
) -> _Unreachable | None:
    """Give the error of an address that sends requests on; None where it does not.

    It is not followed: what was posted would arrive as a GET without it, and a token must not go to whoever
    is named there. ``base`` is the address as configured, ``setting`` where that is.
    """
    if not reply.is_redirect:
        return None
    url = str(reply.url)
    here, there = urlsplit(url), urlsplit(urljoin(url, reply.headers["Location"]))
    where = public_address(base)
    if (here.path.rstrip("/"), here.query) == (there.path.rstrip("/"), there.query):
        moved = urlunsplit((there.scheme, there.netloc, urlsplit(base).path.rstrip("/"), "", ""))
        return kind(
            f"{where} sends on to {public_address(moved)} ({reply.status_code}).", f"Set {setting} to that."
        )
    target = urlunsplit((there.scheme, there.netloc, there.path, "", ""))
    return kind(
        f"{where} is not {who}: it sends on to {public_address(target)} ({reply.status_code}),"
        " perhaps to log in there.",
        "Let requests with ClearML's own credentials through without that login, or set"
        f" {setting} to an address that asks for none.",
    )


def is_refusal(code: int, subcode: int, message: str) -> bool:
    """Recognise a 500 over documents that the server's index does not take: the same again is refused again.

    It is a BulkIndexError of Elasticsearch (apiserver/database/errors.py); its outages have the same subcode.
    """
    indexed = (code, subcode) == (500, 100) and "failed to index" in message
    return indexed and not any(word in message for word in _BUSY_INDEX)


def check_status(reply: requests.Response, address: str) -> None:
    """Sort out what is no answer of the API at ``address`` to the request itself."""
    host = public_address(address)
    if reply.status_code in PASSING and not is_refusal(*_answer(reply)):
        raise PassingError(keeps_failing(host, reply.status_code, _answer(reply)[2]), retry_after(reply))
    is_json = "json" in reply.headers.get("Content-Type", "")
    if not is_json and reply.status_code == requests.codes.request_entity_too_large:
        raise ServerRefused(
            f"A request is too large for what stands before ClearML at {host} (413).",
            "Raise the limit of the proxy (nginx: client_max_body_size); then run again.",
        )
    setting = "api.api_server in clearml.conf (or CLEARML_API_HOST)"
    if elsewhere := led_elsewhere(reply, "ClearML's API server", address, setting, ServerUnreachable):
        raise elsewhere
    if not is_json and reply.status_code in _NO_METHOD:
        method = reply.request.method
        raise ServerUnreachable(
            f"{host} takes no {method} ({reply.status_code}), which ClearML's API server does.",
            "If it is a proxy before the API, set api.http.default_method in clearml.conf (or"
            f" CLEARML_API_DEFAULT_REQ_METHOD) to {'POST' if method != 'POST' else 'GET'}; if it is"
            f" the web app, set {setting} to the API, usually port 8008.",
        )
    if not is_json and not looks_cut(reply):
        raise not_the_api(host)


def _answer(reply: requests.Response) -> tuple[int, int, str]:
    """Give code, subcode and message of a reply, which may be another server's."""
    try:
        meta = reply.json()["meta"]
        return reply.status_code, int(meta["result_subcode"] or 0), str(meta["result_msg"])
    except (ValueError, TypeError, KeyError):
        return reply.status_code, 0, str(reply.reason)


def looks_cut(reply: requests.Response) -> bool:
    """Distinguish a JSON reply that broke off from a page of something else."""
    return reply.content[:1] in (b"{", b"") and reply.status_code == requests.codes.ok


def keeps_failing(host: str, status: int, message: str) -> ServerUnreachable:
    """Give the error of a server that answers with a status of its own trouble."""
    # 500 is what a request gets that the server cannot digest; the others mean that the server is not well
    kind = ServerFailing if status == requests.codes.server_error else ServerUnreachable
    return kind(
        f"ClearML at {host} keeps failing ({status}: {message}).",
        "What arrived is remembered; run the same command again when the server is well.",
    )


def answers_oddly(host: str, endpoint: str) -> ServerFailing:
    """Give the error of a reply without what the endpoint promises."""
    return ServerFailing(
        f"ClearML at {host} answers {endpoint} with something else than it should.",
        "Check the versions of the server and of proxies on the way; then run again.",
    )


def cuts_off(host: str, endpoint: str) -> ServerUnreachable:
    """Give the error of a reply that breaks off."""
    return ServerUnreachable(
        f"ClearML at {host} cuts its replies to {endpoint} off.", "Check proxies on the way; then run again."
    )


def not_the_api(host: str) -> ServerUnreachable:
    """Give the error of an address where something else than the API answers."""
    return ServerUnreachable(
        f"{host} answers, but it is not ClearML's API server.",
        "Set api.api_server in clearml.conf (or CLEARML_API_HOST) to the API, usually port 8008, not to the"
        " web app; where a page to log in stands before it, let requests with ClearML's own credentials"
        " through.",
    )


def retry_after(reply: requests.Response) -> float:
    """Seconds a server asks to wait; a date instead of a number counts as no wish."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
