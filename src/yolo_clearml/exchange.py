"""One request and its reply, in bounded time and memory; the ways of failing told apart.

Knows HTTP and what ClearML's servers say over it, and nothing of the SDK.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import requests
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event
from tenacity.stop import stop_before_delay
from tenacity.wait import wait_random_exponential

from .errors import (
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

_Result = TypeVar("_Result")


class PassingError(Exception):
    """A failure that may be gone the next time; ``error`` is what to say if it is not."""

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
    kind: type[ServerUnreachable | FileServerUnreachable] = ServerUnreachable,
    load: Callable[[requests.Response, float], None] = _load,
) -> requests.Response:
    """Send one request and read its reply, and tell the ways apart in which none arrives."""
    try:
        with send() as reply:
            load(reply, seconds)
            return reply
    except requests.exceptions.SSLError as cause:
        if "WRONG_VERSION_NUMBER" in str(cause) or "record layer" in str(cause):
            text, hint = f"{who} at {where} does not speak TLS.", "Write http:// instead of https://."
        else:
            text = f"The certificate of {who} at {where} is not trusted."
            hint = "Put its authority's file into REQUESTS_CA_BUNDLE, or set api.verify_certificate."
        raise kind(text, hint) from cause
    except requests.exceptions.Timeout as cause:
        raise PassingError(
            kind(f"{who} at {where} does not answer.", "Check the network and the server; then run again.")
        ) from cause
    except _NO_ADDRESS as cause:
        raise NotConfigured(
            f"{where} is not an address of {who}.",
            "Write it with http:// or https:// in clearml.conf or CLEARML_API_HOST, CLEARML_FILES_HOST.",
        ) from cause
    except urllib3.exceptions.TimeoutError as cause:
        raise PassingError(
            kind(f"{who} at {where} does not answer.", "Check the network and the server; then run again.")
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


def check_status(reply: requests.Response, host: str) -> None:
    """Sort out what is no answer of the API to the request itself."""
    if reply.status_code in PASSING:
        raise PassingError(keeps_failing(host, reply.status_code, _message(reply)), retry_after(reply))
    is_json = "json" in reply.headers.get("Content-Type", "")
    if not is_json and reply.status_code == requests.codes.request_entity_too_large:
        raise ServerRefused(
            f"A request is too large for what stands before ClearML at {host} (413).",
            "Raise the limit of the proxy (nginx: client_max_body_size); then run again.",
        )
    if not is_json and not looks_cut(reply):
        raise not_the_api(host)


def _message(reply: requests.Response) -> str:
    try:
        return str(reply.json()["meta"]["result_msg"])
    except (ValueError, TypeError, KeyError):
        return str(reply.reason)


def looks_cut(reply: requests.Response) -> bool:
    """Tell a JSON reply that broke off from a page of something else."""
    return reply.content[:1] in (b"{", b"") and reply.status_code == requests.codes.ok


def keeps_failing(host: str, status: int, message: str) -> ServerUnreachable:
    """Give the error of a server that answers with a status of its own trouble."""
    # 500 is what a request gets that the server cannot digest; the others say that the server is not well
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
        " web app.",
    )


def retry_after(reply: requests.Response) -> float:
    """Seconds a server asks to wait; a date instead of a number counts as no wish."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
