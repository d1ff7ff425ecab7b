"""A ClearML server in the test's own process: an API server and a file server on loopback.

It keeps the rules of the genuine server 2.3.0 that a client can trip over, and it breaks on request.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from . import snapshot as _snapshot
from .api import Api, RefusedError, endpoint_of, envelope, parse_body, parse_lines
from .errors import ApiError
from .events import IMAGE, LOG, PLOT, SCALAR, SINGLE_VALUE_ITERATION, SINGLE_VALUE_METRIC
from .faults import (
    Altered,
    Drip,
    DropAfter,
    DropBefore,
    Endless,
    Fault,
    Faults,
    Fewer,
    Hang,
    NotJson,
    Planned,
    Silent,
    Status,
    Truncate,
)
from .files import FileStore, normal_path, uploads
from .state import Json, State, check_name
from .wire import Endpoint, Incoming, Reply

__all__ = [
    "Altered",
    "ClearMLDouble",
    "Drip",
    "DropAfter",
    "DropBefore",
    "Endless",
    "Fault",
    "Fewer",
    "Hang",
    "NotJson",
    "Request",
    "Silent",
    "Status",
    "Truncate",
    "check_name",
]

WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>ClearML</title></head><body></body></html>\n"


@dataclass(frozen=True)
class Request:
    """One request as it was received, whatever became of it."""

    method: str
    endpoint: str  # "events.add_batch", or "files:POST"
    size: int  # bytes of the body
    payload: Any  # the body's dict; a list of them for a batch; the paths of an upload; None if unreadable


Hook = Callable[[str, int], object]


class ClearMLDouble:
    """The server; use it as a context manager."""

    def __init__(self) -> None:
        self._state = State()
        self._api = Api(self._state)
        self._store = FileStore()
        self._state.delete_file = self._store.remove
        self._faults = Faults()
        self._log_lock = threading.Lock()
        self._api_endpoint = Endpoint(self._respond_api)
        self._files_endpoint = Endpoint(self._respond_files)
        self._release = threading.Event()  # ends the waiting of the requests that hang now
        self._hanging = 0
        self._released = threading.Condition()
        self.requests: list[Request] = []
        self.api_latency = 0.0  # seconds added to each request
        self.files_latency = 0.0
        self.files_auth = False  # True: the file server wants the API's token
        self.before_request: Hook | None = None
        self.after_request: Hook | None = None

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> ClearMLDouble:
        self.start_api()
        self.start_files()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release.set()
        self.stop_api()
        self.stop_files()

    def start_api(self) -> None:
        """Let the API server listen (again), on the port it always had."""
        self._api_endpoint.start()

    def stop_api(self) -> None:
        """Refuse connections to the API server and break those that are open."""
        self._api_endpoint.stop()

    def start_files(self) -> None:
        """Let the file server listen (again), on the port it always had."""
        self._files_endpoint.start()

    def limit_files(self, *, parts: int | None = None, size: int | None = None) -> None:
        """Let the file server store so many files of a request, and refuse larger ones than ``size``."""
        self._store.most_parts, self._store.most_bytes = parts, size

    def stop_files(self) -> None:
        """Refuse connections to the file server and break those that are open."""
        self._files_endpoint.stop()

    # -- where and who -------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """The API server's address, without a slash at the end."""
        return self._api_endpoint.url

    @property
    def files_url(self) -> str:
        """The file server's address, without a slash at the end."""
        return self._files_endpoint.url

    @property
    def web_url(self) -> str:
        """An address for the web interface; nobody listens there."""
        return "http://127.0.0.1:9"

    @property
    def access_key(self) -> str:
        """The one access key that is let in."""
        return self._api.credentials.access_key

    @property
    def secret_key(self) -> str:
        """The secret that goes with it."""
        return self._api.credentials.secret_key

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead a ClearML client here."""
        return {
            "CLEARML_API_HOST": self.api_url,
            "CLEARML_WEB_HOST": self.web_url,
            "CLEARML_FILES_HOST": self.files_url,
            "CLEARML_API_ACCESS_KEY": self.access_key,
            "CLEARML_API_SECRET_KEY": self.secret_key,
        }

    def token(self) -> str:
        """Return a valid token, as `auth.login` would."""
        return self._api.credentials.token(self.token_lifetime)

    def expire_tokens(self) -> None:
        """Make every token handed out so far worthless; a client has to log in again."""
        self._api.credentials.expire_tokens()

    @property
    def refuse_credentials(self) -> bool:
        """Whether everybody is refused, with right keys too."""
        return self._api.credentials.refuse

    @refuse_credentials.setter
    def refuse_credentials(self, refuse: bool) -> None:
        self._api.credentials.refuse = refuse

    @property
    def token_lifetime(self) -> float:
        """Seconds until a new token expires."""
        return self._api.token_lifetime

    @token_lifetime.setter
    def token_lifetime(self, lifetime: float) -> None:
        self._api.token_lifetime = lifetime

    # -- time ----------------------------------------------------------------------------------

    @property
    def clock(self) -> Callable[[], float]:
        """The server's time in seconds since the epoch."""
        return self._state.clock

    @clock.setter
    def clock(self, clock: Callable[[], float]) -> None:
        self._state.clock = clock

    @property
    def latency(self) -> float:
        """Seconds added to each API request; setting it sets that of the file server as well."""
        return self.api_latency

    @latency.setter
    def latency(self, latency: float) -> None:
        self.api_latency = self.files_latency = latency

    def run_watchdog(self) -> list[str]:
        """Stop the tasks in progress that were silent for over two hours; return their ids."""
        with self._state.lock:
            return self._state.run_watchdog()

    # -- what it holds -------------------------------------------------------------------------

    @property
    def tasks(self) -> dict[str, Json]:
        """The tasks by id, oldest first, live."""
        return self._state.tasks

    @property
    def projects(self) -> dict[str, Json]:
        """The projects by id, oldest first, live."""
        return self._state.projects

    @property
    def models(self) -> dict[str, Json]:
        """The models by id, oldest first, live."""
        return self._state.models

    @property
    def files(self) -> dict[str, bytes]:
        """The stored files by path, live."""
        return self._store.files

    def file_of(self, url: str) -> bytes | None:
        """Return what a client would get from one of the file server's URLs; None for a dead link."""
        if not url.startswith(self.files_url + "/"):
            return None
        reply = self._store.handle(Incoming("GET", url[len(self.files_url) :], {}, b""))
        return reply.body if reply.status == 200 else None

    def _events(self, task_id: str, kind: str) -> list[Json]:
        with self._state.lock:
            return [dict(event) for event in self._state.events.of(task_id, kind)]

    def scalars(self, task_id: str) -> dict[tuple[str, str, int], Json]:
        """Return the scalar events but for single values, by (metric, variant, iteration)."""
        return {
            (event["metric"], event["variant"], event.get("iter", 0)): event
            for event in self._events(task_id, SCALAR)
            if event.get("iter") != SINGLE_VALUE_ITERATION
        }

    def single_values(self, task_id: str) -> dict[str, Json]:
        """Return the events of the single values, by name."""
        return {
            event["variant"]: event
            for event in self._events(task_id, SCALAR)
            if event.get("iter") == SINGLE_VALUE_ITERATION and event["metric"] == SINGLE_VALUE_METRIC
        }

    def plots(self, task_id: str) -> dict[tuple[str, str, int], Json]:
        """Return the plot events, by (metric, variant, iteration)."""
        return {(e["metric"], e["variant"], e.get("iter", 0)): e for e in self._events(task_id, PLOT)}

    def images(self, task_id: str) -> dict[tuple[str, str, int, str], Json]:
        """Return the debug image events, by (metric, variant, iteration, key)."""
        return {
            (e["metric"], e["variant"], e.get("iter", 0), e.get("key", "")): e
            for e in self._events(task_id, IMAGE)
        }

    def logs(self, task_id: str) -> list[Json]:
        """Return the log events in the order they came."""
        return self._events(task_id, LOG)

    def events_received(self, task_id: str) -> int:
        """Return how many event lines were accepted for a task, those that overwrote others included."""
        return self._state.events.received.get(task_id, 0)

    def snapshot(self) -> Json:
        """Return the whole end state, comparable: the server's own ids, times and ports have stand-ins."""
        urls = {}
        for url, name in ((self.api_url, "<api>"), (self.files_url, "<files>"), (self.web_url, "<web>")):
            urls[url] = name
            # an address also occurs quoted, inside another one
            urls[quote(url, safe="")] = name
        with self._state.lock, self._store.lock:
            return _snapshot.take(self._state, self._store.files, urls)

    # -- tampering ------------------------------------------------------------------------------

    def _stored(self, task_id: str, kind: str, place: tuple[str, str, int]) -> str:
        """Return the id of the one event of a kind at (metric, variant, iteration)."""
        (found,) = (
            identity
            for identity, e in self._state.events.stored(task_id, kind).items()
            if (e["metric"], e["variant"], e.get("iter", 0)) == place
        )
        return found

    def alter_event(self, task_id: str, kind: str, place: tuple[str, str, int], **fields: Any) -> None:
        """Change fields of a stored event, as nobody may but a broken disk."""
        with self._state.lock:
            self._state.events.stored(task_id, kind)[self._stored(task_id, kind, place)].update(fields)

    def forget_event(self, task_id: str, kind: str, place: tuple[str, str, int]) -> None:
        """Lose a stored event."""
        with self._state.lock:
            del self._state.events.stored(task_id, kind)[self._stored(task_id, kind, place)]

    def replace_file(self, url: str, content: bytes | None) -> None:
        """Put other bytes behind one of the file server's URLs; None: lose the file."""
        path = normal_path(unquote(urlsplit(url).path))
        assert path in self._store.files
        with self._store.lock:
            if content is None:
                del self._store.files[path]
            else:
                self._store.files[path] = content

    def ask(self, endpoint: str, **body: Any) -> Json:
        """Do what a person does in the web interface; returns the reply's data."""
        with self._state.lock:
            data: Json = self._api.endpoints[endpoint](body)
            return data

    def poison(self, how: str, event: Callable[[Json], bool]) -> None:
        """Let the event store refuse some events: the "batch" they are in, the "document" or the "line".

        A document is refused by the index (500, the others of its chunk are stored), a line by the API (it is
        counted as an error), a batch as a whole (400).
        """
        self._state.events.poison = (how, event)

    def cure(self) -> None:
        """Refuse no event any more."""
        self._state.events.poison = None

    # -- breaking ------------------------------------------------------------------------------

    def fault(
        self,
        endpoint_pattern: str,
        kind: Fault,
        *,
        nth: int | None = None,
        times: int | None = 1,
        each: bool = False,
        only: Callable[[Any], bool] | None = None,
    ) -> None:
        """Let `kind` strike matching requests from the `nth` on (counted from now, from 1), `times` times.

        The pattern is a shell pattern over endpoints: "events.add_batch", "tasks.*", "files:POST", "*".
        `times=None` is for ever; `each` strikes every request the first time it is made, and lets the same
        request through when it comes again. `only` looks at the payload and says whom it concerns. When
        several faults are due at once, the one set first strikes.
        """
        self._faults.add(Planned(endpoint_pattern, kind, nth, times, each, only))

    @property
    def struck(self) -> int:
        """How many requests the faults set now have struck."""
        return self._faults.hits

    def clear_faults(self) -> None:
        """Forget the faults set so far; requests that hang are let go, and have been dealt with on return."""
        self._faults.clear()
        release, self._release = self._release, threading.Event()
        release.set()
        with self._released:
            self._released.wait_for(lambda: not self._hanging, timeout=30)

    # -- answering -----------------------------------------------------------------------------

    def _respond_api(self, incoming: Incoming) -> Reply:
        endpoint = endpoint_of(incoming.target)
        payload: Any
        batch = "json-lines" in incoming.headers.get("content-type", "")
        try:
            payload = parse_lines(incoming.body) if batch else parse_body(incoming)
        except RefusedError:
            payload = None
        return self._respond(
            incoming,
            endpoint,
            payload,
            self.api_latency,
            lambda fault: self._dated(
                self._api.handle(
                    incoming, endpoint, lines=payload if batch else None, fewer=isinstance(fault, Fewer)
                )
            ),
        )

    def _dated(self, reply: Reply) -> Reply:
        """Add when it was answered, as every HTTP server does that has a clock."""
        return replace(reply, headers={"Date": formatdate(self.clock(), usegmt=True), **reply.headers})

    def _respond_files(self, incoming: Incoming) -> Reply:
        endpoint = f"files:{incoming.method}"
        payload = [path for path, _ in uploads(incoming)] if incoming.method == "POST" else incoming.target
        return self._respond(
            incoming, endpoint, payload, self.files_latency, lambda fault: self._files(incoming)
        )

    def _files(self, incoming: Incoming) -> Reply:
        if self.files_auth:
            try:
                self._api.credentials.check(incoming.headers.get("authorization"), basic_is_fine=False)
            except ApiError as error:
                return Reply(401, str(error).encode(), "text/html; charset=utf-8")
        return self._store.handle(incoming)

    def _respond(
        self,
        incoming: Incoming,
        endpoint: str,
        payload: Any,
        latency: float,
        process: Callable[[Fault | None], Reply],
    ) -> Reply:
        with self._log_lock:
            self.requests.append(Request(incoming.method, endpoint, len(incoming.body), payload))
            number = len(self.requests)
            # under the same lock: the nth request in the list is the one the fault strikes
            fault = self._faults.take(endpoint, payload)
            release = self._release
        if latency:
            time.sleep(latency)
        if self.before_request is not None:
            self.before_request(endpoint, number)
        if not isinstance(fault, (Hang, Silent)):
            return self._dealt_with(endpoint, number, fault, process)
        with self._released:
            self._hanging += 1
        try:
            release.wait(fault.seconds if isinstance(fault, Hang) else None)
            return self._dealt_with(endpoint, number, fault, process)
        finally:
            with self._released:
                self._hanging -= 1
                self._released.notify_all()

    def _dealt_with(
        self, endpoint: str, number: int, fault: Fault | None, process: Callable[[Fault | None], Reply]
    ) -> Reply:
        early = self._instead(endpoint, fault)
        if early is not None:
            return early
        reply = process(fault)
        if self.after_request is not None:
            self.after_request(endpoint, number)
        match fault:
            case DropAfter():
                return replace(reply, abort=True)
            case Truncate():
                return replace(reply, cut=True)
            case Drip():
                return replace(reply, drip=fault.pause)
            case Endless():
                return replace(reply, endless=True)
            case Altered():
                envelope = json.loads(reply.body)
                return replace(
                    reply, body=json.dumps(envelope | {"data": fault.change(envelope["data"])}).encode()
                )
            case _:
                return reply

    @staticmethod
    def _instead(endpoint: str, fault: Fault | None) -> Reply | None:
        """Return the reply of a fault that keeps the request from being processed."""
        if isinstance(fault, (DropBefore, Silent)):
            return Reply(abort=True)
        if isinstance(fault, NotJson):
            return Reply(200, WEB_PAGE, "text/html")
        if isinstance(fault, Status):
            headers = dict(fault.headers)
            if fault.body is None:
                message = f"{uuid.uuid4().hex[:8]}: fault" if fault.code >= 500 else "fault"
                body = envelope(endpoint, "1.0", fault.code, 0, message, {})
                return Reply(fault.code, body, "application/json", headers)
            body = fault.body.encode() if isinstance(fault.body, str) else fault.body
            return Reply(fault.code, body, headers.pop("Content-Type", "text/html"), headers)
        return None
