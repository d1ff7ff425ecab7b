"""Files in S3, GS, Azure or a folder, through the SDK's drivers and credentials.

The drivers log what went wrong and answer False, wait for minutes or for ever, and report nothing of what is
stored. So here each of their steps has a time limit, what they log is collected, and a file is stored when
the storage itself gives its size.

    is anybody there? --> send --> did the driver confirm it? --> does the storage give the size?
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar
from urllib.parse import urlsplit

from clearml.config import config_obj
from clearml.debugging import get_logger
from clearml.storage.helper import StorageHelper, _Boto3Driver

from ..errors import FileElsewhere, FileNotTaken, FileServerUnreachable, RunChanged
from .compare import Content, content_of
from .exchange import Patience, public_address
from .storage_failures import CLOUDS, GONE, failure, status_of

_PIECE = 2**20  # bytes of a file read at a time
_SLOWEST_LINE = 50 * 2**10  # bytes a second; what the SDK expects of a line
_SLOWEST_STORAGE = 20 * 2**20  # bytes a second that it stores of what has arrived
_BOTO_TIMEOUTS = {"_connect_timeout": "connect_timeout", "_read_timeout": "read_timeout"}
_BOTO_TRIES = "AWS_MAX_ATTEMPTS"

_Result = TypeVar("_Result")


class Storages:
    """The storages that files go to and come from; used from several threads.

    ``own`` are the places that the configuration sends pictures to, which may be among them.
    """

    def __init__(self, own: Sequence[str], patiently: Patience) -> None:
        self._own = tuple(f"{host}/" for host in own)
        self._patiently = patiently
        self._answering: set[str] = set()
        self._down: dict[str, FileServerUnreachable] = {}
        for attribute, key in _BOTO_TIMEOUTS.items():
            # or a transfer that nobody waits for any more would keep the process from ending
            configured = int(config_obj.get(f"sdk.aws.boto3.{key}", 60))
            setattr(_Boto3Driver, attribute, min(configured, max(1, math.ceil(patiently.seconds))))
        get_logger("storage").addFilter(_LISTENER)

    def store(self, base: str, address: str, file: BinaryIO) -> None:
        """Store a file at an address below ``base``; returns only if the storage gives its size.

        Raises FileServerUnreachable where the storage does not answer or keeps failing, which the next file
        need not wait for again; FileNotTaken where it refuses; RunChanged.
        """
        place = _place(base)
        if place in self._down:
            raise self._down[place].afresh()
        try:
            self._patiently(lambda: self._send(base, address, file))
        except FileNotTaken:
            raise
        except FileServerUnreachable as error:
            self._down[place] = error
            raise

    def fetch(self, url: str, most: int) -> Content | None:
        """Read a stored file, up to ``most`` bytes; None where the storage answers that there is none.

        Where it answers neither, raises FileElsewhere; below ``own``, as `store` does.
        """
        place = _place(url)
        if place in self._down:
            raise self._down[place].afresh()
        try:
            return self._patiently(lambda: self._load(url, most))
        except FileServerUnreachable as error:
            ours = url.startswith(self._own)
            failed = error if ours else FileElsewhere(str(error), error.hint)
            if not isinstance(error, FileNotTaken):
                self._down[place] = failed
            raise failed from error.__cause__

    def remove(self, url: str) -> None:
        """Ask to delete a file, whatever the answer is: whether it is gone is for `fetch` to see."""
        _listen(lambda: self._patiently.seconds, lambda: _helper(url).delete(url, silent=True))

    def _send(self, base: str, address: str, file: BinaryIO) -> None:
        where, name = public_address(base), address.rpartition("/")[2]
        refused = f"{where} does not take {name}"
        _require_driver(base)
        if urlsplit(base).scheme in CLOUDS and _place(base) not in self._answering:
            self._knock(base, address, refused)
        size = file.seek(0, 2)
        file.seek(0)
        outgoing = _Outgoing(file, size, self._patiently.seconds)

        def send() -> bool:
            helper = _helper(base)  # not of the address: a folder's driver wants one that is there
            return bool(
                helper._driver.upload_object_via_stream(
                    iterator=outgoing,
                    container=helper._container,
                    object_name=helper._normalize_object_name(helper._canonize_url(address)),
                    callback=outgoing.sent,
                )
            )

        sent = _listen(outgoing.seconds, send)
        if not sent.result:
            outgoing.given_up = True
            if outgoing.unreadable is not None:
                text = f"{name} could not be read while it was being sent: {outgoing.unreadable}."
                raise RunChanged(text, "Run the same command again.") from outgoing.unreadable
            raise failure(base, refused, sent.errors)
        seen = _listen(lambda: self._patiently.seconds, lambda: _helper(base).get_object_size_bytes(address))
        if seen.result is None:
            text = f"{where} took {name}, but does not show that it is there"
            raise failure(base, text, seen.errors, "the SDK's driver does not say why")
        if seen.result != size:
            if file.seek(0, 2) != size:
                raise RunChanged("A file changed while it was being sent.", "Run the same command again.")
            raise FileNotTaken(
                f"{where} holds {seen.result} of the {size} bytes of {name}.",
                "Look for what is in front of the storage; then run the same command again.",
            )

    def _knock(self, base: str, address: str, refused: str) -> None:
        """Ask for what may not be there, so that a storage that does not answer is not sent a whole file."""
        heard = _listen(lambda: self._patiently.seconds, lambda: _helper(base).get_object_size_bytes(address))
        if heard.errors and all(status_of(error) is None for error in heard.errors):
            raise failure(base, refused, heard.errors)
        self._answering.add(_place(base))

    def _load(self, url: str, most: int) -> Content | None:
        text = f"{public_address(url)} cannot be read"
        _require_driver(url)
        if urlsplit(url).scheme not in CLOUDS:
            try:
                path = Path(url.removeprefix("file://"))
                return _content(path, most) if path.is_file() else None
            except OSError as cause:
                raise failure(url, text, [cause]) from cause
        seen = _listen(lambda: self._patiently.seconds, lambda: _helper(url).get_object_size_bytes(url))
        if seen.result is None:
            if any(status_of(error) in GONE for error in seen.errors):
                return None
            raise failure(url, text, seen.errors)
        seconds = self._patiently.seconds + seen.result / _SLOWEST_LINE
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            target = str(Path(folder) / "file")
            options = {"overwrite_existing": True, "skip_zero_size_check": True}
            loaded = _listen(lambda: seconds, lambda: _helper(url).download_to_file(url, target, **options))
            if loaded.result is None:
                raise failure(url, text, loaded.errors)
            if Path(loaded.result).stat().st_size != seen.result:
                raise failure(url, text, [], "it is not as long as the storage says")
            return _content(Path(loaded.result), most)


def _place(address: str) -> str:
    scheme, host, _, _, _ = urlsplit(address)
    return f"{scheme}://{host}" if host else address


def _helper(address: str) -> Any:
    """Give the SDK's helper for an address, with a driver that knows what the configuration states of it."""
    with _few_tries():
        helper = StorageHelper.get(address)
    if helper is None:
        raise _Nothing  # why is in the log
    if urlsplit(address).scheme not in CLOUDS and helper._container is None:
        raise FileNotFoundError("there is no such folder")
    return helper


def _require_driver(address: str) -> None:
    scheme = urlsplit(address).scheme
    if scheme not in (*CLOUDS, "file") and len(scheme) > 1:  # one letter is a drive of Windows
        raise FileNotTaken(
            f"ClearML's SDK knows no storage of the kind {scheme}://.",
            "Give an address with s3://, gs://, azure://, file://, http:// or https://.",
        )


_ENVIRONMENT = threading.Lock()


@contextlib.contextmanager
def _few_tries() -> Iterator[None]:
    """Let a client of S3 be made that tries twice, where the user has configured nothing else.

    botocore's own five tries take longer than many a time limit, and keep the reason until the last; and
    the SDK passes no number on.
    """
    with _ENVIRONMENT:
        ours = _BOTO_TRIES not in os.environ
        if ours:
            os.environ[_BOTO_TRIES] = "2"
        try:
            yield
        finally:
            if ours:
                del os.environ[_BOTO_TRIES]


class _Nothing(Exception):
    """A step of the SDK's gave nothing, and has logged why."""


class _GivenUp(BaseException):
    """Nobody waits for a transfer any more, or its file cannot be read.

    No Exception: the SDK's stream goes on reading at one, for ever, and takes an end for the file's.
    """


@dataclass(slots=True)
class _Outgoing:
    """A file on its way, as the drivers read it: whole, by pieces, or as an iterator of them."""

    _file: BinaryIO
    _size: int
    _seconds: float  # without a sign of life
    given_up: bool = False
    unreadable: OSError | None = None
    _began: float = field(default_factory=time.monotonic)
    _read: int = 0  # bytes
    _sent: int = 0  # bytes; of S3 alone, the other drivers do not report it
    _last: float = 0.0  # when something was sent

    def read(self, size: int | None = -1) -> bytes:
        """Give the next bytes, all by default."""
        if self.given_up:
            raise _GivenUp
        try:
            piece = self._file.read(-1 if size is None else size)
        except OSError as cause:
            self.unreadable = cause
            raise _GivenUp from cause
        except ValueError as cause:  # closed by who gave up
            raise _GivenUp from cause
        self._read += len(piece)
        return piece

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self.read(_PIECE)
        if not piece:
            raise StopIteration
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to another place, as a driver does before a second try."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Give the place of the next byte."""
        return self._file.tell()

    def sent(self, count: int, *_: Any) -> None:
        """Note bytes that have left."""
        if self.given_up:
            raise _GivenUp
        self._sent += count
        self._last = time.monotonic()

    def seconds(self) -> float:
        """Give how long it may take since its begin, as far as is known now."""
        if not self._last:
            return self._seconds + self._read / _SLOWEST_LINE
        storing = self._size / _SLOWEST_STORAGE if self._sent >= self._size else 0.0
        return self._last - self._began + self._seconds + storing


@dataclass(frozen=True, slots=True)
class _Heard(Generic[_Result]):
    """What came of a step of the SDK's; without a result, ``errors`` are what it raised or logged."""

    result: _Result | None
    errors: list[BaseException]


class _Listener(logging.Filter):
    """Collects what the drivers only log, and keeps it out of the log: it is raised as an error of ours.

    They log inside ``except``, so what was raised is at hand. Of other threads nothing is collected.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of_thread = threading.local()

    @contextlib.contextmanager
    def listening(self, errors: list[BaseException]) -> Iterator[None]:
        """Add to ``errors`` what this thread logs."""
        self._of_thread.errors = errors
        try:
            yield
        finally:
            self._of_thread.errors = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a warning or an error of a thread that is listened to."""
        errors = getattr(self._of_thread, "errors", None)
        if errors is None or record.levelno < logging.WARNING:
            return True
        errors.append(sys.exc_info()[1] or _Nothing(record.getMessage()))
        return False


_LISTENER = _Listener()


def _listen(seconds: Callable[[], float], action: Callable[[], _Result]) -> _Heard[_Result]:
    """Do something of the SDK's within so many seconds, which may become more on the way; never raises.

    It has a thread of its own, that is left behind when the time is over.
    """
    done: queue.SimpleQueue[_Heard[_Result]] = queue.SimpleQueue()

    def act() -> None:
        errors: list[BaseException] = []
        result = None
        with _LISTENER.listening(errors):
            try:
                result = action()
            except _Nothing:
                pass
            except BaseException as error:  # noqa: BLE001  whoever waits raises what it means
                errors.append(error)
        done.put(_Heard(result, errors))

    threading.Thread(target=act, name="storage", daemon=True).start()
    end = began = time.monotonic()
    while (left := end - time.monotonic()) > 0 or end == began:
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=max(0.0, left))
        end = began + seconds()
    return _Heard(None, [TimeoutError(f"no answer within {end - began:.0f} seconds")])


def _content(path: Path, most: int) -> Content:
    with path.open("rb") as file:
        return content_of(iter(lambda: file.read(_PIECE), b""), most)
