"""One bounded session with a ClearML server: post, classify, back off.

The SDK's own ways of sending lose events, retry for hours or for ever and answer True all the same, so of
the SDK this uses what knows the user's setup (configuration, credentials, tokens, storage drivers), and
sends by itself: one POST at a time, each with a time limit, each reply looked at.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from clearml.backend_api import Session
from clearml.backend_interface.base import InterfaceBase
from clearml.config import config_obj
from clearml.config.defs import DEV_DEFAULT_OUTPUT_URI

from ..errors import (
    CredentialsRefused,
    ServerRefused,
    ServerUnreachable,
    YoloClearmlError,
)
from .compare import Content
from .exchange import (
    PASSING,
    PassingError,
    Patience,
    answers_oddly,
    cuts_off,
    is_refusal,
    keeps_failing,
    looks_cut,
    not_the_api,
    public_address,
)
from .file_server import FileServers
from .payloads import Json, with_ids
from .session import BoundedSession, configured_files_host, configured_host, connect
from .storage import Storages

_INVALID_TOKEN = 30  # subcode of 401


class RefusedRequest(ServerRefused):
    """The server refused a request, with its own code and subcode (apiserver/apierrors)."""

    def __init__(self, endpoint: str, code: int, subcode: int, message: str) -> None:
        self.code, self.subcode, self.message = code, subcode, message
        super().__init__(
            f"ClearML refused {endpoint} ({code}/{subcode}): {message}.",
            "If the sentence above does not say what to change, report it with the output of -v.",
        )


class Api:
    """A logged-in session; made once, used from several threads.

    Making one raises NotConfigured, CredentialsRefused or ServerUnreachable, the last after ``timeout``
    seconds. ``stop`` ends every wait between two tries; a ``session`` is one that is logged in already.
    """

    def __init__(
        self,
        timeout: float,
        stop: threading.Event | None = None,
        session: BoundedSession | None = None,
    ) -> None:
        self._patiently = Patience(timeout, stop or threading.Event())
        self._names: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._begun: set[str] = set()  # of them
        self._session = session or connect(self._patiently)
        self.host = public_address(configured_host())
        InterfaceBase._set_default_session(self._session)
        self.files_host = configured_files_host()
        # where the pictures in the Plots tab go, for which the SDK has a setting of its own (S/logger.py)
        plots = str(config_obj.get("sdk.metrics.plot_upload_destination", None) or "").strip().rstrip("/")
        self.plots_host = plots or self.files_host
        # those that the SDK sends its token to (S/storage/helper.py, get_file_server_hosts)
        legacy = config_obj.get("sdk.storage.http.legacy_fileservers", None) or []
        own = [self.files_host, self.plots_host, *(str(host).rstrip("/") for host in legacy)]
        self._files = FileServers(own, self._session, self._patiently)
        self._storages = Storages(own, self._patiently)
        by_variable = DEV_DEFAULT_OUTPUT_URI.get()
        self.output_uri: str | None = (
            by_variable or config_obj.get("sdk.development.default_output_uri", None) or None
        )
        self.output_uri_named_by = (
            DEV_DEFAULT_OUTPUT_URI.key
            if by_variable
            else "sdk.development.default_output_uri in clearml.conf"
        )

    @property
    def workspace(self) -> str:
        """Name the server and the workspace on it that the credentials are of."""
        claims = self._session.get_decoded_token(self._session.token)
        company = (claims.get("identity") or {}).get("company") if isinstance(claims, dict) else None
        return f"{self.host}#{company}" if company else self.host

    def task_url(self, project_id: str | None, task_id: str) -> str | None:
        """Give the address of a task's curves; None where the web server is unknown.

        The web app takes ``*`` for no project. It calls tasks experiments, and their curves metrics, up to
        API 2.30, as the SDK knows (`Task.get_task_output_log_web_page`).
        """
        try:
            web = str(Session.get_app_server_host(config=config_obj)).rstrip("/")
        except ValueError:
            return None
        new = Session.check_min_api_server_version("2.31")
        page = f"tasks/{task_id}/output/scalars" if new else f"experiments/{task_id}/output/metrics/scalar"
        return f"{public_address(web)}/projects/{project_id or '*'}/{page}"

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

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Let one thread at a time look for and make what goes by a name; gives whether one was here before.

        Those that make it at the same time would be refused, and the server logs each as an error.
        """
        with self._names[name]:
            yield name in self._begun
            self._begun.add(name)

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
        self._patiently.stop.wait(seconds)

    def rows(self, endpoint: str, payload: Json, name: str) -> list[Json]:
        """Call, and give the reply's list ``name`` of objects with an id; raises as `call`.

        References in them are ids, whether the endpoint expands them or not.
        """
        rows = self.call(endpoint, payload).get(name)
        sound = isinstance(rows, list) and all(
            isinstance(r, dict) and isinstance(r.get("id"), str) for r in rows
        )
        if not isinstance(rows, list) or not sound:
            raise answers_oddly(self.host, endpoint)
        return [with_ids(row) for row in rows]

    def add_events(self, events: Sequence[str], patient: bool = True) -> None:
        """Send events, each as its text, in one batch; returns only if the server has stored each of them.

        What may pass is not waited for unless ``patient``.
        Raises as `call` does, and ServerRefused where the server stored fewer than it was sent.
        """
        self._patiently(lambda: self._add(events), self._patiently.seconds if patient else 0.0)

    def add_once(self, event: str, is_there: Callable[[], bool]) -> None:
        """Send an event of which the server stores one more each time it comes, as it does of the console's.

        After a failure that may hide a success, ``is_there`` is asked before the next try. Raises as
        `add_events` does.
        """
        tries = 0

        def once() -> None:
            nonlocal tries
            tries += 1
            if tries == 1 or not is_there():
                self._add([event])

        self._patiently(once)

    def _add(self, events: Sequence[str]) -> None:
        headers = {"Content-Type": "application/json-lines"}
        reply = self._post("events.add_batch", data="\n".join(events).encode(), headers=headers)
        added, errors = reply.get("added"), reply.get("errors")
        if added != len(events) or errors:
            raise ServerRefused(
                f"ClearML stored {added} of {len(events)} events ({errors} errors).",
                "Run the same command again; if it stays so, look into the API server's log.",
            )

    def upload(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        """Store files by their keys below ``base``; returns only if the storage has confirmed each of them.

        ``advance`` is called with the bytes sent. Raises as `FileServers.upload`.
        """
        if urlsplit(base).scheme in ("http", "https"):
            self._files.upload(base, files, advance)
            return
        for key, file in files.items():
            self._storages.store(base, f"{base.rstrip('/')}/{key}", file)
            advance(file.seek(0, 2))

    def fetch(self, url: str, most: int) -> Content | None:
        """Read a stored file, up to ``most`` bytes, and give its `Content`; None where none is.

        Raises as `FileServers.fetch`.
        """
        if urlsplit(url).scheme in ("http", "https"):
            return self._files.fetch(url, most)
        return self._storages.fetch(url, most)

    def remove(self, url: str) -> None:
        """Ask the storage to delete a file; whether it did is for `fetch` to see. Raises as `fetch` does."""
        if urlsplit(url).scheme in ("http", "https"):
            self._files.remove(url)
        else:
            self._storages.remove(url)

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
        message = str(meta.get("result_msg") or "no reason given")
        if code in PASSING and not is_refusal(code, subcode, message):
            raise PassingError(keeps_failing(self.host, code, message))
        if (code, subcode) == (requests.codes.unauthorized, _INVALID_TOKEN):
            # of a login a moment ago, so the keys are right: as long as a server restarts, its parts disagree
            raise PassingError(
                ServerUnreachable(
                    f"ClearML at {self.host} refuses the token that it has just given ({code}: {message}).",
                    "Run the same command again when the server is well; look into its log if it stays so.",
                )
            )
        if code == requests.codes.unauthorized:
            raise CredentialsRefused(
                f"ClearML at {self.host} refuses the credentials for {endpoint}.",
                "Check which workspace the credentials are of, and create new ones if need be.",
            )
        if code != requests.codes.ok or not isinstance(data, dict):
            raise RefusedRequest(endpoint, code, subcode, message)
        return data
