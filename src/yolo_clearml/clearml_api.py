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
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import jwt
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
from clearml.backend_config.errors import ConfigurationError
from clearml.backend_interface.base import InterfaceBase
from clearml.config import config_obj
from clearml.config.defs import DEV_DEFAULT_OUTPUT_URI
from clearml.debugging.log import LoggerRoot
from clearml.storage.helper import StorageHelper
from clearml.utilities.requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor
from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event
from tenacity.stop import stop_before_delay
from tenacity.wait import wait_random_exponential

from .compare import Content, content_of
from .errors import (
    CredentialsRefused,
    FileElsewhere,
    FileNotTaken,
    FileServerFailing,
    FileServerUnreachable,
    NotConfigured,
    RunChanged,
    ServerRefused,
    UsageError,
    YoloClearmlError,
    public,
)
from .exchange import (
    PASSING,
    PassingError,
    answers_oddly,
    check_status,
    cuts_off,
    exchange,
    keeps_failing,
    looks_cut,
    not_the_api,
    pieces,
    public_address,
    retry_after,
)
from .payloads import Json

_CONNECT = 10.0  # seconds for a connection to be accepted
_AT_FAULT = (500, 502, 504)  # statuses that speak of the request, not of how busy the server is
_MOST_FAILING = 3  # files in a row that a file server is at fault over, before it counts as down
_LONGEST_PAUSE = 8.0  # seconds between two tries
_SLOWEST_STORAGE = 20 * 2**20  # bytes a second; a proxy may take everything before it passes it on
_SLOWEST_DOWNLOAD = 50 * 2**10  # bytes a second, on the whole; what the SDK expects of a line
_PIECE = 2**20  # bytes of a file read at a time
_JSON = json.JSONEncoder(allow_nan=False)

_Result = TypeVar("_Result")


class RefusedRequest(ServerRefused):
    """The server said no, with its own code and subcode (apiserver/apierrors)."""

    def __init__(self, endpoint: str, code: int, subcode: int, message: str) -> None:
        super().__init__(
            f"ClearML refused {endpoint} ({code}/{subcode}): {message}.",
            "If the sentence above does not say what to change, report it with the output of -v.",
        )


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

    def refresh_token(self) -> None:
        """Log in; raises PassingError, CredentialsRefused or ServerUnreachable, and no error of the SDK."""
        host = public_address(self.host)
        try:
            super().refresh_token()
        except (LoginError, ValueError, jwt.PyJWTError) as error:
            # the SDK wraps what happened on the way to the login in an error of its own
            if isinstance(error.__context__, (PassingError, YoloClearmlError)):
                raise error.__context__ from None
            # without a context it is the server's own word; with one, the reply was of no use to the SDK
            if isinstance(error, LoginError) and error.__context__ is None:
                raise CredentialsRefused(
                    f"ClearML at {host} refuses the credentials.",
                    "Create new ones in ClearML (Settings, Workspace, App credentials) and put them into"
                    " clearml.conf, or into CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY.",
                ) from error
            raise not_the_api(host) from error

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
        reply = exchange(
            "ClearML's API server",
            public_address(self.host),
            self._limit,
            lambda: self._http.post(
                f"{self.host}{version_part}/{endpoint}",
                headers=headers,
                auth=auth,
                data=data,
                json=json,
                params=params,
                timeout=(min(_CONNECT, self._limit), self._limit),
                allow_redirects=False,  # a redirected POST arrives as a GET
                stream=True,  # the body is read under a limit of its own
            ),
        )
        check_status(reply, public_address(self.host))
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
    try:
        return str(Session.get_api_server_host(config=config_obj)).strip("/")
    except ConfigurationError as cause:  # its words can quote a key
        raise NotConfigured(
            f"ClearML's configuration in {cause.file_path} cannot be read: it is malformed.",
            "Correct it, or make it anew with 'clearml-init'.",
        ) from None


class Api:
    """A logged-in session; made once, used from several threads.

    Making one raises NotConfigured, CredentialsRefused or ServerUnreachable, the last after ``timeout``
    seconds. ``stop`` ends every wait between two tries.
    """

    def __init__(self, timeout: float, stop: threading.Event | None = None) -> None:
        self._timeout = timeout
        self._stop = stop or threading.Event()
        self._files = threading.local()
        self._down: dict[str, FileServerUnreachable] = {}
        self._failing: Counter[str] = Counter()  # files in a row that a file server was at fault over
        if ENV_OFFLINE_MODE.get():
            raise UsageError(
                "CLEARML_OFFLINE_MODE is set, so ClearML must not be talked to.",
                "Unset it, or write sessions with --offline DIR.",
            )
        self.host = public_address(configured_host())
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
        if "://" not in self.files_host:
            raise NotConfigured(
                f"{public_address(self.files_host)} is not an address of ClearML's file server.",
                "Write it with http:// or https:// in clearml.conf (api.files_server) or CLEARML_FILES_HOST.",
            )
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
            session = _BoundedSession(self._timeout)
            session.get_decoded_token(session.raw_token or b"")
            return session
        except MissingConfigError as cause:
            raise NotConfigured(
                "ClearML is not configured: there are no credentials.",
                "Run 'clearml-init', or set CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and"
                " CLEARML_API_SECRET_KEY.",
            ) from cause
        except (LoginError, ValueError, jwt.PyJWTError) as error:
            raise not_the_api(self.host) from error

    @property
    def workspace(self) -> str:
        """Name the server and the workspace on it that the credentials are of."""
        claims = self._session.get_decoded_token(self._session.token)
        company = (claims.get("identity") or {}).get("company") if isinstance(claims, dict) else None
        return f"{self.host}#{company}" if company else self.host

    def task_url(self, project_id: str, task_id: str) -> str | None:
        """Give the address of a task's page; None where the web server cannot be told."""
        try:
            web = str(Session.get_app_server_host(config=config_obj)).rstrip("/")
        except ValueError:
            return None
        return f"{public_address(web)}/projects/{project_id}/experiments/{task_id}/output/log"

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
            if there is not None:
                return there
            made = self._post(endpoint, json=payload).get("id")
            if not isinstance(made, str) or not made:
                raise answers_oddly(self.host, endpoint)
            return made

        return self._patiently(once)

    def answers(self) -> bool:
        """Ask something small, once: whether the server is well, whatever became of another request."""
        nobody = {"id": ["0" * 32], "only_fields": ["id"]}
        try:
            self._patiently(lambda: self._post("tasks.get_all_ex", json=nobody), 0.0)
        except YoloClearmlError:
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until the process is to stop."""
        self._stop.wait(seconds)

    def rows(self, endpoint: str, payload: Json, name: str) -> list[Json]:
        """Call, and give the reply's list ``name`` of objects with an id; raises as `call`."""
        rows = self.call(endpoint, payload).get(name)
        sound = isinstance(rows, list) and all(
            isinstance(r, dict) and isinstance(r.get("id"), str) for r in rows
        )
        if not isinstance(rows, list) or not sound:
            raise answers_oddly(self.host, endpoint)
        return rows

    def add_events(self, events: Sequence[Json], patient: bool = True) -> None:
        """Send events in one batch; returns only if the server has stored every one of them.

        What may pass is not waited for unless ``patient``.
        Raises as `call` does, and ServerRefused where the server stored fewer than it was sent.
        """
        lines = "\n".join(map(_JSON.encode, events)).encode()
        headers = {"Content-Type": "application/json-lines"}
        limit = self._timeout if patient else 0.0
        reply = self._patiently(lambda: self._post("events.add_batch", data=lines, headers=headers), limit)
        added, errors = reply.get("added"), reply.get("errors")
        if added != len(events) or errors:
            raise ServerRefused(
                f"ClearML stored {added} of {len(events)} events ({errors} errors).",
                "Run the same command again; if it stays so, look into the API server's log.",
            )

    def upload(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        """Store files by their keys below ``base``; returns only if the storage has confirmed each of them.

        A file server takes several in one request (clearml-server's fileserver.py stores each part of the
        form and names them all in its reply); where it, or a proxy before it, does not, they are sent one by
        one. ``advance`` is told the bytes sent. Raises FileServerUnreachable, and RunChanged where a file has
        become shorter on its way: the request then waits for bytes that never come.
        """
        if urlsplit(base).scheme not in ("http", "https"):
            for key, file in files.items():
                self._store(base, f"{base.rstrip('/')}/{key}", file)
                advance(file.tell())
            return
        if base in self._down:  # waited for in vain once: the next thousand files need not wait as well
            raise self._down[base].afresh()
        sizes = {key: file.seek(0, 2) for key, file in files.items()}
        try:
            self._patiently(lambda: self._post_files(base, files, advance))
            self._failing[base] = 0
        except _NotTogether:
            for key, file in files.items():
                self.upload(base, {key: file}, advance)
        except FileNotTaken:
            raise
        except FileServerUnreachable as error:
            if any(file.seek(0, 2) != sizes[key] for key, file in files.items()):
                raise RunChanged(
                    "A file changed while it was being sent.", "Run the same command again."
                ) from error
            self._failing[base] += 1
            # over one file it may be that file, and no other run is to wait for it in vain
            if not isinstance(error, FileServerFailing) or self._failing[base] >= _MOST_FAILING:
                self._down[base] = error
            raise

    def fetch(self, url: str, most: int) -> Content | None:
        """Read a stored file, up to ``most`` bytes, and give what tells it from others; None where none is.

        A file that does not arrive whole, or whose storage does not say whether it is there, raises
        FileServerUnreachable; where that is not ClearML's file server, FileElsewhere.
        """
        address = urlsplit(url)
        if address.scheme not in ("http", "https"):
            return self._fetch_stored(url, most)
        base = f"{address.scheme}://{address.netloc}"
        if base in self._down:
            raise self._down[base].afresh()
        try:
            return self._patiently(lambda: self._get_file(base, url, most))
        except FileServerUnreachable as error:
            ours = url.startswith(f"{self.files_host}/")
            failure = error if ours else FileElsewhere(str(error), error.hint)
            if not isinstance(error, FileNotTaken):
                self._down[base] = failure
            raise failure from error.__cause__

    def _patiently(self, action: Callable[[], _Result], limit: float | None = None) -> _Result:
        """Do it again while it fails in passing, with growing, random pauses, so many seconds at most."""
        patience = self._timeout if limit is None else limit
        grow = wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, PassingError) else 0.0
            return max(grow(state), asked)

        retrying = Retrying(
            retry=retry_if_exception_type(PassingError),
            stop=lambda state: self._stop.is_set() or stop_before_delay(patience)(state),
            wait=pause,
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            return retrying(action)
        except PassingError as passing:
            raise passing.error from passing.__cause__

    def _post(self, endpoint: str, **body: Any) -> Json:
        service, action = endpoint.split(".")
        reply = self._session.send_request(service, action, method="post", **body)
        try:
            answer = reply.json()
            meta, data = answer["meta"], answer.get("data")
            code, subcode = int(meta["result_code"]), int(meta.get("result_subcode") or 0)
        except (ValueError, TypeError, KeyError, AttributeError) as cause:
            if reply.status_code == requests.codes.ok and looks_cut(reply):
                raise PassingError(cuts_off(self.host, endpoint)) from cause
            raise not_the_api(self.host) from cause
        if code in PASSING:
            raise PassingError(keeps_failing(self.host, code, str(meta.get("result_msg"))))
        if code == requests.codes.unauthorized:
            raise CredentialsRefused(
                f"ClearML at {self.host} refuses the credentials for {endpoint}.",
                "Check which workspace the credentials are of, and create new ones if need be.",
            )
        if code != requests.codes.ok or not isinstance(data, dict):
            raise RefusedRequest(endpoint, code, subcode, str(meta.get("result_msg") or "no reason given"))
        return data

    def _post_files(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        http, where = self._file_session(), public_address(base)
        size = 0
        for file in files.values():
            size += file.seek(0, 2)
            file.seek(0)
        fields = {key: (key, file, "application/octet-stream") for key, file in files.items()}
        monitor = MultipartEncoderMonitor(MultipartEncoder(fields=fields), _differences(advance))
        headers = {"Content-Type": monitor.content_type}
        if base.rstrip("/") == self.files_host:
            headers = self._session.add_auth_headers(headers)
        limit = self._timeout + size / _SLOWEST_STORAGE  # for the reply alone, when all has been sent
        reply = exchange(
            "ClearML's file server",
            where,
            limit,
            lambda: http.post(
                base,
                data=monitor,
                headers=headers,
                timeout=(_CONNECT, limit),
                allow_redirects=False,
                stream=True,
            ),
            FileServerUnreachable,
        )
        if reply.status_code in _AT_FAULT and len(files) > 1:
            raise _NotTogether  # it may be over one of them, or over so many
        if reply.status_code in PASSING:
            raise PassingError(
                FileServerFailing(
                    f"The file server at {where} keeps failing ({reply.status_code}).",
                    "Look into its log and its free disk space; then run the same command again.",
                ),
                retry_after(reply),
            )
        if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            self._session.refresh_token()  # it may have expired since the last call of the API
            raise PassingError(
                FileNotTaken(
                    f"The file server at {where} refuses the credentials ({reply.status_code}).",
                    "Check that it belongs to the same ClearML server as the credentials.",
                )
            )
        stored = reply.status_code == requests.codes.ok and _confirms(reply, list(files))
        if not stored and len(files) > 1:
            raise _NotTogether
        name = next(iter(files))
        if reply.status_code == requests.codes.request_entity_too_large:
            raise FileNotTaken(
                f"The file server at {where} finds {name} too large ({size} bytes).",
                "Raise the limit of the proxy before it (nginx: client_max_body_size), or store models"
                " elsewhere with --output-uri.",
            )
        if not stored:
            raise FileNotTaken(
                f"{where} did not confirm {name} ({reply.status_code}): it does not answer as a file"
                " server does.",
                "Set api.files_server in clearml.conf (or CLEARML_FILES_HOST) to ClearML's file server,"
                " usually port 8081.",
            )

    def _get_file(self, base: str, url: str, most: int) -> Content | None:
        http, where = self._file_session(), public_address(base)
        headers = {"Accept-Encoding": "identity"}
        if url.startswith(f"{self.files_host}/"):
            headers = self._session.add_auth_headers(headers)
        contents: list[Content] = []

        def load(reply: requests.Response, seconds: float) -> None:
            if reply.status_code == requests.codes.ok:
                contents.append(content_of(pieces(reply, seconds, _SLOWEST_DOWNLOAD), most))

        reply = exchange(
            "ClearML's file server",
            where,
            self._timeout,
            lambda: http.get(
                url,
                headers=headers,
                timeout=(min(_CONNECT, self._timeout), self._timeout),
                allow_redirects=False,  # to a page that wants a login, and not to the file
                stream=True,
            ),
            FileServerUnreachable,
            load,
        )
        if contents:
            return contents[0]
        if reply.status_code in (requests.codes.not_found, requests.codes.gone):
            return None
        said = (
            f"The file server at {where} does not give {public_address(url)} ({reply.status_code}).",
            "Look into its log, and check that it belongs to the same ClearML server as the credentials.",
        )
        if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            self._session.refresh_token()  # it may have expired since the last call of the API
            raise PassingError(FileNotTaken(*said))
        if reply.status_code in PASSING:
            raise PassingError(FileServerUnreachable(*said), retry_after(reply))
        raise FileNotTaken(*said)

    def _fetch_stored(self, url: str, most: int) -> Content | None:
        """Read a file in S3, GS, Azure or a folder, through the SDK's drivers and credentials."""
        hint = (
            "Check that it is there, and the credentials for it in clearml.conf (sdk.aws, sdk.google, ...)."
        )
        try:
            if url.startswith("file://"):
                path = Path(url.removeprefix("file://"))
                return _content(path, most) if path.is_file() else None
            with tempfile.TemporaryDirectory() as folder:
                helper = StorageHelper.get(url)
                target = str(Path(folder) / "file")
                options = {"overwrite_existing": True, "skip_zero_size_check": True, "silence_errors": True}
                there = helper.download_to_file(url, target, **options) if helper is not None else None
                if there is None:  # gone, or refused, or out of reach: the SDK does not tell
                    raise FileElsewhere(f"{url} cannot be read.", hint)
                return _content(Path(there), most)
        except YoloClearmlError:
            raise
        except Exception as cause:
            raise FileElsewhere(f"{url} cannot be read: {cause}.", hint) from cause

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


def _content(path: Path, most: int) -> Content:
    with path.open("rb") as file:
        return content_of(iter(lambda: file.read(_PIECE), b""), most)


def _differences(advance: Callable[[int], None]) -> Callable[[Any], None]:
    seen = 0

    def tell(monitor: Any) -> None:
        nonlocal seen
        advance(monitor.bytes_read - seen)
        seen = monitor.bytes_read

    return tell


class _NotTogether(Exception):
    """A file server did not confirm every file of a request; it may take them one by one."""


def _confirms(reply: requests.Response, keys: Sequence[str]) -> bool:
    """Tell whether a file server's reply names just the files that were sent."""
    try:
        stored = reply.json()
    except ValueError:
        return False
    return (
        isinstance(stored, list)
        and len(stored) == len(keys)
        and all(_names(path, key) for path, key in zip(stored, keys, strict=True))
    )


def _names(path: object, key: str) -> bool:
    # it normalises paths, and decodes names that are not plain ASCII in its own way
    name = key.rpartition("/")[2]
    return isinstance(path, str) and (not name.isascii() or path.rpartition("/")[2] == name.replace("\\", ""))


def _log_to_stderr() -> None:
    """Move the SDK's log from stdout, which is for what the user asked for, and keep passwords out of it."""
    LoggerRoot.get_base_logger()  # or it is made at the first word, and writes to stdout
    for handler in _handlers(logging.getLogger("clearml")):
        handler.addFilter(_published)
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)


def _published(record: logging.LogRecord) -> bool:
    record.msg, record.args = public(record.getMessage()), ()
    return True


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    yield from logger.handlers
    for name in list(logging.Logger.manager.loggerDict):
        child = logging.getLogger(name)
        if name.startswith(logger.name + "."):
            yield from child.handlers
