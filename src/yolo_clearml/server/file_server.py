"""Files sent to a ClearML file server over HTTP, each confirmed by its name, and read from one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
from clearml.backend_api import Session
from clearml.backend_api.utils import get_http_session_with_retry
from clearml.config import config_obj
from clearml.utilities.requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor

from ..errors import FileElsewhere, FileNotTaken, FileServerFailing, FileServerUnreachable, RunChanged
from .compare import Content, content_of
from .exchange import (
    PASSING,
    PassingError,
    Patience,
    exchange,
    led_elsewhere,
    pieces,
    public_address,
    retry_after,
    verifies,
)

_WHO = "ClearML's file server"
_CONNECT = 10.0  # seconds for a connection to be accepted
_AT_FAULT = (500, 502, 504)  # statuses that speak of the request, not of how busy the server is
_MOST_FAILING = 3  # files in a row that a file server is at fault over, before it counts as down
_MOST_MOVES = 3  # redirects of one file
_SLOWEST = 50 * 2**10  # bytes a second, on the whole; what the SDK expects (_HttpDriver.min_kbps_speed)


class FileServers:
    """The file servers that files go to and come from; used from several threads.

    ``own`` are those that the configuration names, without a slash at the end. They alone are sent the token
    of ``session``.
    """

    def __init__(self, own: Sequence[str], session: Session, patiently: Patience) -> None:
        self._own = tuple(own)
        self._session = session
        self._patiently = patiently
        self._idle: list[requests.Session] = []  # connections that nobody uses just now
        self._down: dict[str, FileServerUnreachable] = {}
        self._failing: Counter[str] = Counter()  # files in a row that a file server was at fault over

    def upload(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        """Store files by their keys below ``base``; returns only if the storage has confirmed each of them.

        A file server takes several in one request (clearml-server's fileserver.py stores each part of the
        form and names them all in its reply); where it, or a proxy before it, does not, they are sent one by
        one. ``advance`` is called with the bytes sent. Raises FileServerUnreachable, and RunChanged where a
        file has become shorter or longer on its way.
        """
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
                raise _changed() from error
            self._failing[base] += 1
            # over one file it may be that file, and no other run is to wait for it in vain
            if not isinstance(error, FileServerFailing) or self._failing[base] >= _MOST_FAILING:
                self._down[base] = error
            raise

    def fetch(self, url: str, most: int) -> Content | None:
        """Read a stored file, up to ``most`` bytes, and give its `Content`; None where none is.

        A file that does not arrive whole, or whose storage does not answer whether it is there, raises
        FileServerUnreachable; where that is not ClearML's file server, FileElsewhere.
        """
        address = urlsplit(url)
        server = f"{address.scheme}://{address.netloc}"
        base = next((host for host in self._own if url.startswith(f"{host}/")), server)
        if base in self._down:
            raise self._down[base].afresh()
        try:
            return self._patiently(lambda: self._get_file(base, url, most))
        except FileServerUnreachable as error:
            failure = error if self._is_own(url) else FileElsewhere(str(error), error.hint)
            if not isinstance(error, FileNotTaken):
                self._down[base] = failure
            raise failure from error.__cause__

    def remove(self, url: str) -> None:
        """Ask to delete a file, whatever the answer is: whether it is gone is for `fetch` to see.

        ClearML's file server does so for whoever may upload (clearml-server's fileserver.py, DELETE of its
        path); a proxy before it may let nobody. Raises FileServerUnreachable where no answer comes.
        """
        where, seconds = public_address(url), self._patiently.seconds
        with self._connection() as http:
            self._patiently(
                lambda: exchange(
                    _WHO,
                    where,
                    seconds,
                    lambda: http.delete(
                        url,
                        headers=self._authorized(url, {}),
                        timeout=(min(_CONNECT, seconds), seconds),
                        allow_redirects=False,
                        verify=verifies(http),
                        stream=True,
                    ),
                    FileServerUnreachable,
                )
            )

    def _is_own(self, url: str) -> bool:
        return any(url.startswith(f"{host}/") for host in self._own)

    def _authorized(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        """Add the token where an address is one of ClearML's file servers, and nowhere else."""
        return self._session.add_auth_headers(headers) if self._is_own(url) else headers

    def _post_files(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        where = public_address(base)
        # below a path, proxies answer 301 where the slash is missing (nginx, Caddy); at the root it is none
        url = f"{base.rstrip('/')}/"
        size = 0
        for file in files.values():
            size += file.seek(0, 2)
            file.seek(0)
        fields = {key: (key, file, "application/octet-stream") for key, file in files.items()}
        monitor = MultipartEncoderMonitor(MultipartEncoder(fields=fields), _differences(advance))
        headers = self._authorized(url, {"Content-Type": monitor.content_type})
        # a proxy may take everything at once, and pass it on to a slow storage before it answers
        limit = max(self._patiently.seconds, size / _SLOWEST)
        with self._connection() as http:
            reply = exchange(
                _WHO,
                where,
                limit,
                lambda: http.post(
                    url,
                    data=monitor,
                    headers=headers,
                    # the first is also for each piece that is sent
                    timeout=(max(_CONNECT, self._patiently.seconds), limit),
                    allow_redirects=False,  # it would arrive as a GET
                    verify=verifies(http),
                    stream=True,
                ),
                FileServerUnreachable,
            )
        if reply.status_code in _AT_FAULT and len(files) > 1:
            raise _NotTogether  # it may be over one of them, or over so many
        if elsewhere := led_elsewhere(reply, _WHO, base, self._setting(base), FileServerUnreachable):
            raise elsewhere
        if reply.status_code in PASSING:
            hint = "Look into its log and its free disk space; then run the same command again."
            if reply.status_code == requests.codes.gateway_timeout:
                hint = "Let the proxy before it wait longer (nginx: proxy_read_timeout); then run again."
            raise PassingError(
                FileServerFailing(f"The file server at {where} keeps failing ({reply.status_code}).", hint),
                retry_after(reply),
            )
        if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            self._session.refresh_token()  # it may have expired since the last call of the API
            raise PassingError(
                FileNotTaken(
                    f"The file server at {where} refuses the credentials ({reply.status_code}).",
                    "Check that it belongs to the same ClearML server as the credentials, and that a proxy"
                    " before it passes the header Authorization on.",
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
                f"Set {self._setting(base)} to ClearML's file server, usually port 8081; where a page to log"
                " in stands before it, let requests with ClearML's own credentials through.",
            )

    def _setting(self, base: str) -> str:
        """Name what leads to a file server."""
        if base.rstrip("/") == self._own[0]:
            return "api.files_server in clearml.conf (or CLEARML_FILES_HOST)"
        if base.rstrip("/") in self._own:
            return "sdk.metrics.plot_upload_destination in clearml.conf"
        return "--output-uri"

    def _get_file(self, base: str, url: str, most: int, moves: int = _MOST_MOVES) -> Content | None:
        where = public_address(base)
        headers = self._authorized(url, {"Accept-Encoding": "identity"})
        contents: list[Content] = []

        def load(reply: requests.Response, seconds: float) -> None:
            if reply.status_code == requests.codes.ok:
                contents.append(content_of(pieces(reply, seconds, _SLOWEST), most))

        with self._connection() as http:
            reply = exchange(
                _WHO,
                where,
                self._patiently.seconds,
                lambda: http.get(
                    url,
                    headers=headers,
                    timeout=(min(_CONNECT, self._patiently.seconds), self._patiently.seconds),
                    allow_redirects=False,  # to a page that wants a login, and not to the file
                    verify=verifies(http),
                    stream=True,
                ),
                FileServerUnreachable,
                load,
            )
        if contents:
            return contents[0]
        if moves and (target := self._moved(url, reply)) is not None:
            return self._get_file(base, target, most, moves - 1)
        if elsewhere := led_elsewhere(reply, _WHO, base, self._setting(base), FileServerUnreachable):
            raise elsewhere
        if reply.status_code in (requests.codes.not_found, requests.codes.gone):
            return None
        refusal = (
            f"The file server at {where} does not give {public_address(url)} ({reply.status_code}).",
            "Look into its log, and check that it belongs to the same ClearML server as the credentials.",
        )
        if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            self._session.refresh_token()  # it may have expired since the last call of the API
            raise PassingError(FileNotTaken(*refusal))
        if reply.status_code in PASSING:
            hint = "Look into its log; then run the same command again."
            raise PassingError(FileServerUnreachable(refusal[0], hint), retry_after(reply))
        raise FileNotTaken(*refusal)

    def _moved(self, url: str, reply: requests.Response) -> str | None:
        """Give where a file went that is asked for by its old address, and not a page to log in.

        The address in a task stays what it was, while the server moves to https or below a path.
        """
        if not reply.is_redirect:
            return None
        target = urljoin(url, reply.headers["Location"])
        here, there = urlsplit(url), urlsplit(target)
        secured = there.scheme == "https" and there.hostname == here.hostname
        return target if there.path.endswith(here.path) and (secured or self._is_own(target)) else None

    @contextmanager
    def _connection(self) -> Iterator[requests.Session]:
        """Give a connection to oneself, for a session must not be shared; the next thread goes on with it."""
        try:
            http = self._idle.pop()  # not to be interrupted, nor is the other
        except IndexError:
            http = get_http_session_with_retry(total=0, config=config_obj)
            http.write_timeout = (0, 0)  # the timeout of each call is the one that counts
        try:
            yield http
        finally:
            self._idle.append(http)


def _differences(advance: Callable[[int], None]) -> Callable[[Any], None]:
    seen = 0

    def report(monitor: Any) -> None:
        nonlocal seen
        if monitor.bytes_read == seen < monitor.len:
            raise _changed()  # the server would wait for the rest, and we for the server
        advance(monitor.bytes_read - seen)
        seen = monitor.bytes_read

    return report


def _changed() -> RunChanged:
    return RunChanged("A file changed while it was being sent.", "Run the same command again.")


class _NotTogether(Exception):
    """A file server did not confirm every file of a request; it may take them one by one."""


def _confirms(reply: requests.Response, keys: Sequence[str]) -> bool:
    """Check whether a file server's reply names just the files that were sent."""
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
