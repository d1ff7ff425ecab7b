"""Windows as far as Linux can play it: what only POSIX has is gone, and an open file stays where it is.

What is taken away: ``fcntl``, ``os.open`` of folders and with ``dir_fd``, the flags ``O_NOFOLLOW``,
``O_NONBLOCK``, ``O_DIRECTORY``, ``O_CLOEXEC``, ``SIGHUP`` and ``SIGPIPE``, the calls about users, times
that are set by a descriptor. What is put in its place: ``SIGBREAK``, ``O_BINARY``; a lock that keeps others
from reading; a replace and a removal that refuse over an open file; and sharing violations, of the files
that a test says are held open.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import importlib.util
import io
import os
import pathlib
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from yolo_clearml import system

_FLAGS = ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC")
_CALLS = ("getuid", "geteuid", "getgid", "getegid", "fchmod", "fchown", "chown", "getgroups")
_SIGNALS = ("SIGHUP", "SIGPIPE", "SIGQUIT")
_MOVING = ("replace", "rename", "unlink")
_SHARING, _DENIED = 32, 5  # ERROR_SHARING_VIOLATION, ERROR_ACCESS_DENIED
FOLDERS_OF_OPEN = Path("/proc")


def refusal(path: object, winerror: int) -> PermissionError:
    """Give the error that Windows has for a file that somebody else has open."""
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    error.winerror = winerror  # type: ignore[attr-defined]
    return error


def opened_by_anyone(path: str) -> bool:
    """Return whether a process of this session has a file open, by its real name."""
    session = os.getsid(0)
    for process in FOLDERS_OF_OPEN.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(process.name)) != session:
                continue
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) == path:
                        return True
    return False


class Windows:
    """The stand-in; a test may say that another program holds a file open."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.held_open: set[Path] = set()  # as by a program that shares nothing
        self.refused = 0  # attempts to move, remove or open
        self._patch = patch
        self._no_posix()
        self._files()
        self._system("win32")

    def _no_posix(self) -> None:
        self._patch.setattr(os, "O_NOINHERIT", os.O_CLOEXEC, raising=False)
        self._patch.setattr(os, "O_BINARY", 0, raising=False)
        self._patch.setattr(signal, "SIGBREAK", signal.SIGTTIN, raising=False)
        for owner, names in ((os, _FLAGS + _CALLS), (signal, _SIGNALS)):
            for name in names:
                self._patch.delattr(owner, name)
        self._patch.setattr(shutil, "_use_fd_functions", False)
        self._patch.setattr(shutil, "chown", None)
        self._patch.setitem(sys.modules, "fcntl", None)

    def _system(self, platform: str) -> None:
        """Let the one module about systems be as it would be on another one."""
        fresh = system_as(platform)
        fresh.extended = str  # whose form of a path is none here
        for name in [name for name in vars(system) if not name.startswith("__")]:
            self._patch.delattr(system, name)
        for name, value in vars(fresh).items():
            if not name.startswith("__"):
                self._patch.setattr(system, name, value, raising=False)

    def _files(self) -> None:
        for name in (*_MOVING, "remove"):
            self._patch.setattr(os, name, self._unless_open(getattr(os, name)))
        open_, utime = os.open, os.utime

        def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if options.get("dir_fd") is not None:
                raise NotImplementedError("dir_fd unavailable on this platform")
            self._require_shared(path)
            if os.path.isdir(path):
                raise refusal(path, _DENIED)
            return open_(path, flags, *args, **options)

        def dated(path: Any, *args: Any, **options: Any) -> None:
            if isinstance(path, int):
                raise TypeError("utime: path should be string, bytes or os.PathLike, not int")
            utime(path, *args, **options)

        self._patch.setattr(os, "open", opened)
        self._patch.setattr(os, "utime", dated)
        genuine = io.open

        def read(file: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(file, int):
                self._require_shared(file)
            return genuine(file, *args, **options)

        self._patch.setattr(builtins, "open", read)
        self._patch.setattr(io, "open", read)
        accessor = getattr(pathlib, "_NormalAccessor", None)  # of Python 3.10, which keeps what it once took
        if accessor is not None:
            for name, function in {"open": read, **{n: getattr(os, n) for n in _MOVING}}.items():
                self._patch.setattr(accessor, name, staticmethod(function))

    def _require_shared(self, path: Any) -> None:
        """Refuse a file that another program holds open, or that is locked: its first byte cannot be read.

        Windows lets a locked file be opened and refuses to read it; here it is refused at once. A lock's own
        file is opened all the same, to be locked by who comes next.
        """
        name = os.fsdecode(path)
        held = Path(name) in self.held_open
        if os.path.exists(name) and stat.S_ISFIFO(os.stat(name).st_mode):
            raise AssertionError("there is none on Windows, and to open it waits for ever")
        if held or (not name.endswith(".lock") and os.path.isfile(name) and locked(name)):
            self.refused += 1
            raise refusal(path, _SHARING)

    def _unless_open(self, genuine: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *more: Any, **options: Any) -> None:
            for each in (path, *more):
                name = os.fsdecode(each)
                if os.path.islink(name):
                    continue
                if Path(name) in self.held_open or opened_by_anyone(os.path.realpath(name)):
                    self.refused += 1
                    raise refusal(each, _DENIED)
            genuine(path, *more, **options)

        return call


_OPEN = os.open  # before anything takes its place


def locked(path: str) -> bool:
    """Return whether somebody has locked a file."""
    descriptor = _OPEN(path, 0)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def system_as(platform: str) -> Any:
    """Give the module about systems as another system has it."""
    spec = importlib.util.spec_from_file_location("yolo_clearml.system", str(system.__file__))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.platform = sys.platform, platform
    try:
        spec.loader.exec_module(module)
    finally:
        sys.platform = before
    return module


def warm_up() -> None:
    """Import what asks for the system by itself: clearml takes ``fcntl`` where it is not on Windows."""
    import filelock  # noqa: F401

    import yolo_clearml.library
    import yolo_clearml.replay.figures
    import yolo_clearml.server.offline
    import yolo_clearml.server.sink
    import yolo_clearml.sync.triggers  # noqa: F401


@contextlib.contextmanager
def windows_like() -> Iterator[Windows]:
    """Be on Windows, for as long as it takes."""
    warm_up()
    with pytest.MonkeyPatch.context() as patch:
        yield Windows(patch)
