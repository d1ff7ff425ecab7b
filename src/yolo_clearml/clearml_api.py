"""One bounded session with a ClearML server: post, classify, back off; the only importer of clearml.

The SDK's own ways of sending lose events, retry for hours or for ever and answer True all the same, so of
the SDK this uses what knows the user's setup (configuration, credentials, tokens, storage drivers), and
sends by itself: one POST at a time, each with a time limit, each reply looked at.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import requests
from clearml.backend_api import Session
from clearml.backend_api.session.defs import (
    ENV_ACCESS_KEY,
    ENV_AUTH_TOKEN,
    ENV_OFFLINE_MODE,
    ENV_SECRET_KEY,
    MissingConfigError,
)
from clearml.backend_api.session.session import LoginError
from clearml.backend_api.utils import get_http_session_with_retry
from clearml.backend_interface.base import InterfaceBase
from clearml.config import config_obj
from clearml.config.defs import DEV_DEFAULT_OUTPUT_URI
from clearml.storage.helper import StorageHelper
from clearml.utilities.requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor
from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event
from tenacity.stop import stop_before_delay
from tenacity.wait import wait_random_exponential

from .errors import (
    CredentialsRefused,
    FileNotTaken,
    FileServerUnreachable,
    NotConfigured,
    ServerFailing,
    ServerRefused,
    ServerUnreachable,
    UsageError,
    YoloClearmlError,
)
from .payloads import Json

TIMEOUT = 30.0  # seconds; how long an unreachable server is tried
_CONNECT = 10.0  # seconds for a connection to be accepted
_LONGEST_PAUSE = 8.0  # seconds between two tries
_SLOWEST_UPLOAD = 50 * 1024  # bytes a second; what the SDK allows for, too
_PASSING = (408, 425, 429, 500, 502, 503, 504, 509)  # statuses that may be gone the next time

_Result = TypeVar("_Result")


class _PassingError(Exception):
    """A failure that may be gone the next time; ``error`` is what to say if it is not."""

    def __init__(self, error: YoloClearmlError, retry_after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after  # seconds the server asked for


class RefusedRequest(ServerRefused):
    """The server said no, with its own code and subcode (apiserver/apierrors)."""

    def __init__(self, endpoint: str, code: int, subcode: int, message: str) -> None:
        super().__init__(
            f"ClearML refused {endpoint} ({code}/{subcode}): {message}.",
            "If the sentence above does not say what to change, report it with the output of -v.",
        )
        self.code = code
        self.subcode = subcode


class _BoundedSession(Session):  # type: ignore[misc]  # clearml is untyped
    """The SDK's session for configuration, login and tokens, with every exchange one bounded POST."""

    def __init__(self, timeout: float) -> None:
        self._limit = timeout
        self._http = get_http_session_with_retry(total=0, config=config_obj)
        self._http.write_timeout = (_CONNECT, timeout)
        super().__init__(
            initialize_logging=False,
            config=config_obj,
            logger=logging.getLogger("clearml.session"),
            http_retries_config={"total": 0},
        )

    def _send_request(
        self,
        service: str,
        action: str,
        version: str | None = None,
        method: str | None = None,
        headers: Json | None = None,
        auth: Any = None,
        data: Any = None,
        json: Any = None,
        refresh_token_if_unauthorized: bool = True,
        params: Any = None,
    ) -> requests.Response:
        """Exchange one request; the SDK's signature, and nothing of its endless loops."""
        endpoint = f"{service}.{action}"
        version_part = f"/v{version}" if version else ""
        reply = _exchange(
            "ClearML's API server",
            self.host,
            lambda: self._http.post(
                f"{self.host}{version_part}/{endpoint}",
                headers=headers,
                auth=auth,
                data=data,
                json=json,
                params=params,
                timeout=(min(_CONNECT, self._limit), self._limit),
                allow_redirects=False,  # a redirected POST arrives as a GET
            ),
        )
        _check_status(reply, self.host)
        if refresh_token_if_unauthorized and reply.status_code == requests.codes.unauthorized:
            self.refresh_token()
            return self._send_request(
                service,
                action,
                version,
                method,
                self.add_auth_headers(dict(headers or {})),
                auth,
                data,
                json,
                refresh_token_if_unauthorized=False,
                params=params,
            )
        return reply


def configured_host() -> str:
    """Give the address of the API server that ClearML's configuration names."""
    return str(Session.get_api_server_host(config=config_obj)).strip("/")


class Api:
    """A logged-in session; made once, used from several threads.

    Making one raises NotConfigured, CredentialsRefused or ServerUnreachable, the last after ``timeout``
    seconds. ``stop`` ends every wait between two tries.
    """

    def __init__(self, timeout: float = TIMEOUT, stop: threading.Event | None = None) -> None:
        self._timeout = timeout
        self._stop = stop or threading.Event()
        self._files = threading.local()
        self._down: dict[str, FileServerUnreachable] = {}
        if ENV_OFFLINE_MODE.get():
            raise UsageError(
                "CLEARML_OFFLINE_MODE is set, so ClearML must not be talked to.",
                "Unset it, or write sessions with --offline DIR.",
            )
        self.host = configured_host()
        with contextlib.redirect_stdout(sys.stderr):
            self._session = self._patiently(self._log_in)
        _log_to_stderr()
        InterfaceBase._set_default_session(self._session)
        try:
            self.files_host = str(Session.get_files_server_host(config=config_obj)).rstrip("/")
        except ValueError as cause:
            raise NotConfigured(
                "ClearML's configuration names no file server, and none can be guessed from its API server.",
                "Set api.files_server in clearml.conf, or CLEARML_FILES_HOST.",
            ) from cause
        self.output_uri: str | None = (
            DEV_DEFAULT_OUTPUT_URI.get() or config_obj.get("sdk.development.default_output_uri", None) or None
        )

    def _log_in(self) -> _BoundedSession:
        keys = {
            "an access key": ENV_ACCESS_KEY.get() or config_obj.get("api.credentials.access_key", None),
            "a secret key": ENV_SECRET_KEY.get() or config_obj.get("api.credentials.secret_key", None),
        }
        lacking = [what for what, value in keys.items() if not value]
        if len(lacking) == 1 and not ENV_AUTH_TOKEN.get():
            raise NotConfigured(
                f"ClearML's configuration lacks {lacking[0]}.",
                "Set api.credentials in clearml.conf, or CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY.",
            )
        try:
            return _BoundedSession(self._timeout)
        except MissingConfigError as cause:
            raise NotConfigured(
                "ClearML is not configured: there are no credentials.",
                "Run 'clearml-init', or set CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and"
                " CLEARML_API_SECRET_KEY.",
            ) from cause
        except (LoginError, ValueError) as error:
            # the SDK wraps what happened on the way to the login in an error of its own
            if isinstance(error.__context__, (_PassingError, YoloClearmlError)):
                raise error.__context__ from None
            if isinstance(error, LoginError):
                raise CredentialsRefused(
                    f"ClearML at {self.host} refuses the credentials.",
                    "Create new ones in ClearML (Settings, Workspace, App credentials) and put them into"
                    " clearml.conf, or into CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY.",
                ) from error
            raise _not_the_api(self.host) from error

    def task_url(self, project_id: str, task_id: str) -> str | None:
        """Give the address of a task's page; None where the web server cannot be told."""
        try:
            web = str(Session.get_app_server_host(config=config_obj)).rstrip("/")
        except ValueError:
            return None
        return f"{web}/projects/{project_id}/experiments/{task_id}/output/log"

    def call(self, endpoint: str, payload: Json) -> Json:
        """Post one request and give the reply's data.

        Tries again while the failure may pass, for the session's timeout at most; so a request may arrive
        twice. Raises RefusedRequest, CredentialsRefused or ServerUnreachable.
        """
        return self._patiently(lambda: self._post(endpoint, json=payload))

    def create(self, endpoint: str, payload: Json, look_up: Callable[[], str | None]) -> str:
        """Create something the server does not recognise as the same, and give its id.

        After a failure that may hide a success, ``look_up`` is asked before the next try. Raises as `call`.
        """
        tries = 0

        def once() -> str:
            nonlocal tries
            tries += 1
            there = look_up() if tries > 1 else None
            return there or str(self._post(endpoint, json=payload)["id"])

        return self._patiently(once)

    def add_events(self, events: Sequence[Json]) -> None:
        """Send events in one batch; returns only if the server has stored every one of them.

        Raises as `call` does, and ServerRefused where the server stored fewer than it was sent.
        """
        lines = "\n".join(json.dumps(event, allow_nan=False) for event in events).encode()
        headers = {"Content-Type": "application/json-lines"}
        reply = self._patiently(lambda: self._post("events.add_batch", data=lines, headers=headers))
        added, errors = reply.get("added"), reply.get("errors")
        if added != len(events) or errors:
            raise ServerRefused(
                f"ClearML stored {added} of {len(events)} events ({errors} errors).",
                "Run the same command again; if it stays so, look into the API server's log.",
            )

    def upload(self, url: str, key: str, base: str, file: BinaryIO, advance: Callable[[int], None]) -> None:
        """Store one file; returns only if the storage has confirmed it.

        ``key`` lies below ``base``; ``url`` is both together, quoted. ``advance`` is told the bytes sent.
        Raises FileServerUnreachable.
        """
        if urlsplit(url).scheme in ("http", "https"):
            if base in self._down:  # waited for in vain once: the next thousand files need not wait as well
                raise self._down[base]
            try:
                self._patiently(lambda: self._post_file(base, key, file, advance))
            except FileNotTaken:
                raise
            except FileServerUnreachable as error:
                self._down[base] = error
                raise
        else:
            self._store(base, f"{base.rstrip('/')}/{key}", file)
            advance(file.tell())

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        """Do it again while it fails in passing, with growing, random pauses."""
        grow = wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, _PassingError) else 0.0
            return max(grow(state), asked)

        retrying = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=lambda state: self._stop.is_set() or stop_before_delay(self._timeout)(state),
            wait=pause,
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            return retrying(action)
        except _PassingError as passing:
            raise passing.error from passing.__cause__

    def _post(self, endpoint: str, **body: Any) -> Json:
        service, action = endpoint.split(".")
        try:
            reply = self._session.send_request(service, action, method="post", **body)
        except LoginError as error:
            if isinstance(error.__context__, (_PassingError, YoloClearmlError)):
                raise error.__context__ from None
            raise CredentialsRefused(
                f"ClearML at {self.host} no longer accepts the credentials.",
                "Create new ones in ClearML (Settings, Workspace, App credentials) and run again.",
            ) from error
        try:
            answer = reply.json()
            meta, data = answer["meta"], answer.get("data")
            code, subcode = int(meta["result_code"]), int(meta.get("result_subcode") or 0)
        except (ValueError, TypeError, KeyError, AttributeError) as cause:
            if reply.status_code == requests.codes.ok and _looks_cut(reply):
                raise _PassingError(_garbled(self.host, endpoint)) from cause
            raise _not_the_api(self.host) from cause
        if code in _PASSING:
            raise _PassingError(_keeps_failing(self.host, code, str(meta.get("result_msg"))))
        if code == requests.codes.unauthorized:
            raise CredentialsRefused(
                f"ClearML at {self.host} refuses the credentials for {endpoint}.",
                "Check which workspace the credentials are of, and create new ones if need be.",
            )
        if code != requests.codes.ok or not isinstance(data, dict):
            raise RefusedRequest(endpoint, code, subcode, str(meta.get("result_msg") or "no reason given"))
        return data

    def _post_file(self, base: str, key: str, file: BinaryIO, advance: Callable[[int], None]) -> None:
        http = self._file_session()
        file.seek(0, 2)
        size = file.tell()
        file.seek(0)
        monitor = MultipartEncoderMonitor(
            MultipartEncoder(fields={key: (key, file, "application/octet-stream")}), _differences(advance)
        )
        headers = {"Content-Type": monitor.content_type}
        if base.rstrip("/") == self.files_host:
            headers = self._session.add_auth_headers(headers)
        limit = self._timeout + size / _SLOWEST_UPLOAD
        reply = _exchange(
            "ClearML's file server",
            base,
            lambda: http.post(
                base, data=monitor, headers=headers, timeout=(_CONNECT, limit), allow_redirects=False
            ),
            FileServerUnreachable,
        )
        if reply.status_code in _PASSING:
            raise _PassingError(
                FileServerUnreachable(
                    f"The file server at {base} keeps failing ({reply.status_code}).",
                    "Look into its log and its free disk space; then run the same command again.",
                ),
                _retry_after(reply),
            )
        try:
            confirmed = reply.status_code == requests.codes.ok and len(list(reply.json())) == 1
        except (ValueError, TypeError):
            confirmed = False
        if not confirmed:
            raise FileNotTaken(
                f"{base} did not take {key} ({reply.status_code}): it does not answer as a file server does.",
                "Set api.files_server in clearml.conf (or CLEARML_FILES_HOST) to ClearML's file server,"
                " usually port 8081.",
            )

    def _file_session(self) -> requests.Session:
        """Give this thread's own connection to the file server: one session must not be shared."""
        if not hasattr(self._files, "session"):
            self._files.session = get_http_session_with_retry(total=0, config=config_obj)
            self._files.session.write_timeout = (0, 0)  # the timeout of each call is the one that counts
        session: requests.Session = self._files.session
        return session

    def _store(self, base: str, address: str, file: BinaryIO) -> None:
        """Store a file in S3, GS, Azure or a folder, through the SDK's drivers and credentials."""
        hint = (
            "Check --output-uri and the credentials for it in clearml.conf (sdk.aws, sdk.google, sdk.azure)."
        )
        try:
            helper = StorageHelper.get(base)  # not of the address: a folder's driver wants one that is there
            if helper is None:
                raise FileServerUnreachable(f"ClearML has no driver or credentials for {base}.", hint)
            file.seek(0)
            helper.upload_from_stream(file, address, retries=1)
        except YoloClearmlError:
            raise
        except Exception as cause:
            raise FileServerUnreachable(f"{address} could not be stored: {cause}.", hint) from cause


def _differences(advance: Callable[[int], None]) -> Callable[[Any], None]:
    seen = 0

    def tell(monitor: Any) -> None:
        nonlocal seen
        advance(monitor.bytes_read - seen)
        seen = monitor.bytes_read

    return tell


def _exchange(
    who: str,
    where: str,
    send: Callable[[], requests.Response],
    kind: type[ServerUnreachable | FileServerUnreachable] = ServerUnreachable,
) -> requests.Response:
    """Send one request, and tell the ways apart in which none arrives."""
    try:
        return send()
    except requests.exceptions.SSLError as cause:
        if "WRONG_VERSION_NUMBER" in str(cause) or "record layer" in str(cause):
            text, hint = f"{who} at {where} does not speak TLS.", "Write http:// instead of https://."
        else:
            text = f"The certificate of {who} at {where} is not trusted."
            hint = "Put its authority's file into REQUESTS_CA_BUNDLE, or set api.verify_certificate."
        raise kind(text, hint) from cause
    except requests.exceptions.Timeout as cause:
        raise _PassingError(
            kind(f"{who} at {where} does not answer.", "Check the network and the server; then run again.")
        ) from cause
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as cause:
        raise NotConfigured(
            f"{where} is not an address of {who}.",
            "Write it with http:// or https:// in clearml.conf or CLEARML_API_HOST, CLEARML_FILES_HOST.",
        ) from cause
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as cause:
        reason = str(cause)
        if "NameResolution" in reason or "getaddrinfo" in reason or "Name or service" in reason:
            text = f"The name of {who} in {where} is not known."
        elif "refused" in reason:
            text = f"{who} at {where} refuses the connection."
        else:
            text = f"{who} at {where} broke the connection off."
        raise _PassingError(
            kind(text, "Check that the address is right and the server is up; then run again.")
        ) from cause


def _check_status(reply: requests.Response, host: str) -> None:
    """Sort out what is no answer of the API to the request itself."""
    if reply.status_code in _PASSING:
        raise _PassingError(_keeps_failing(host, reply.status_code, _message(reply)), _retry_after(reply))
    is_json = "json" in reply.headers.get("Content-Type", "")
    if not is_json and not _looks_cut(reply):
        raise _not_the_api(host)


def _message(reply: requests.Response) -> str:
    try:
        return str(reply.json()["meta"]["result_msg"])
    except (ValueError, TypeError, KeyError):
        return str(reply.reason)


def _looks_cut(reply: requests.Response) -> bool:
    """Tell a JSON reply that broke off from a page of something else."""
    return reply.content[:1] in (b"{", b"") and reply.status_code == requests.codes.ok


def _keeps_failing(host: str, status: int, message: str) -> ServerUnreachable:
    # 500 is what a request gets that the server cannot digest; the others say that the server is not well
    kind = ServerFailing if status == requests.codes.server_error else ServerUnreachable
    return kind(
        f"ClearML at {host} keeps failing ({status}: {message}).",
        "What arrived is remembered; run the same command again when the server is well.",
    )


def _garbled(host: str, endpoint: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"ClearML at {host} cuts its replies to {endpoint} off.", "Check proxies on the way; then run again."
    )


def _not_the_api(host: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"{host} answers, but it is not ClearML's API server.",
        "Set api.api_server in clearml.conf (or CLEARML_API_HOST) to the API, usually port 8008, not to the"
        " web app.",
    )


def _retry_after(reply: requests.Response) -> float:
    """Seconds a server asks to wait; a date instead of a number counts as no wish."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0


def _log_to_stderr() -> None:
    """Move the SDK's log from stdout, which is for what the user asked for."""
    for handler in _handlers(logging.getLogger("clearml")):
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    yield from logger.handlers
    for name in list(logging.Logger.manager.loggerDict):
        child = logging.getLogger(name)
        if name.startswith(logger.name + "."):
            yield from child.handlers
