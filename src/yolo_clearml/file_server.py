"""Files sent to a ClearML file server over HTTP, each confirmed by its name, and read from one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from clearml.backend_api import Session
from clearml.backend_api.utils import get_http_session_with_retry
from clearml.config import config_obj
from clearml.utilities.requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor

from .compare import Content, content_of
from .errors import FileElsewhere, FileNotTaken, FileServerFailing, FileServerUnreachable, RunChanged
from .exchange import PASSING, PassingError, Patience, exchange, pieces, public_address, retry_after

_CONNECT = 10.0  # seconds for a connection to be accepted
_AT_FAULT = (500, 502, 504)  # statuses that speak of the request, not of how busy the server is
_MOST_FAILING = 3  # files in a row that a file server is at fault over, before it counts as down
_SLOWEST_STORAGE = 20 * 2**20  # bytes a second; a proxy may take everything before it passes it on
_SLOWEST_DOWNLOAD = 50 * 2**10  # bytes a second, on the whole; what the SDK expects of a line


class FileServers:
    """The file servers that files go to and come from; used from several threads.

    ``host`` is ClearML's own, which alone is sent the token of ``session``.
    """

    def __init__(self, host: str, session: Session, patiently: Patience) -> None:
        self._host = host
        self._session = session
        self._patiently = patiently
        self._connections = threading.local()
        self._down: dict[str, FileServerUnreachable] = {}
        self._failing: Counter[str] = Counter()  # files in a row that a file server was at fault over

    def upload(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        """Store files by their keys below ``base``; returns only if the storage has confirmed each of them.

        A file server takes several in one request (clearml-server's fileserver.py stores each part of the
        form and names them all in its reply); where it, or a proxy before it, does not, they are sent one by
        one. ``advance`` is told the bytes sent. Raises FileServerUnreachable, and RunChanged where a file has
        become shorter on its way: the request then waits for bytes that never come.
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
        base = f"{address.scheme}://{address.netloc}"
        if base in self._down:
            raise self._down[base].afresh()
        try:
            return self._patiently(lambda: self._get_file(base, url, most))
        except FileServerUnreachable as error:
            ours = url.startswith(f"{self._host}/")
            failure = error if ours else FileElsewhere(str(error), error.hint)
            if not isinstance(error, FileNotTaken):
                self._down[base] = failure
            raise failure from error.__cause__

    def _post_files(self, base: str, files: Mapping[str, BinaryIO], advance: Callable[[int], None]) -> None:
        http, where = self._connection(), public_address(base)
        size = 0
        for file in files.values():
            size += file.seek(0, 2)
            file.seek(0)
        fields = {key: (key, file, "application/octet-stream") for key, file in files.items()}
        monitor = MultipartEncoderMonitor(MultipartEncoder(fields=fields), _differences(advance))
        headers = {"Content-Type": monitor.content_type}
        if base.rstrip("/") == self._host:
            headers = self._session.add_auth_headers(headers)
        # for the reply alone, when all has been sent
        limit = self._patiently.seconds + size / _SLOWEST_STORAGE
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
        http, where = self._connection(), public_address(base)
        headers = {"Accept-Encoding": "identity"}
        if url.startswith(f"{self._host}/"):
            headers = self._session.add_auth_headers(headers)
        contents: list[Content] = []

        def load(reply: requests.Response, seconds: float) -> None:
            if reply.status_code == requests.codes.ok:
                contents.append(content_of(pieces(reply, seconds, _SLOWEST_DOWNLOAD), most))

        reply = exchange(
            "ClearML's file server",
            where,
            self._patiently.seconds,
            lambda: http.get(
                url,
                headers=headers,
                timeout=(min(_CONNECT, self._patiently.seconds), self._patiently.seconds),
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

    def _connection(self) -> requests.Session:
        """Give this thread's own connection to the file server: one session must not be shared."""
        if not hasattr(self._connections, "session"):
            http = get_http_session_with_retry(total=0, config=config_obj)
            http.write_timeout = (0, 0)  # the timeout of each call is the one that counts
            self._connections.session = http
        session: requests.Session = self._connections.session
        return session


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
