"""A small file that one process at a time holds and replaces whole; kept apart from what is in it.

Where an open file can be replaced, its lock is on the file itself, so that no second file is needed: a save
locks the new file before it takes the old one's place, and whoever gets the lock looks whether the file is
still the one at that path. Elsewhere the lock is a file beside it, that is there while somebody is at work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from . import system
from .errors import RunBusy

_MOST_ATTEMPTS = 1000  # to lock a file before another process replaces it; needs two at the most, mostly
_TICK = 2 * 10**9  # nanoseconds; no file system's times are coarser


class HeldFile(Protocol):
    """A file held by this process alone."""

    path: Path
    superseded: bool  # by one elsewhere: it goes when it is let go

    def save(self, content: bytes, other: int) -> None:
        """Replace the content, durably, before this returns; raises OSError.

        Its time is later than ``other``, in nanoseconds since the epoch, whatever the clock shows: of two
        files the newer counts.
        """

    def close(self) -> None:
        """Let go of it; what was made for the lock's sake only goes."""


def hold(path: Path) -> HeldFile:
    """Hold the file at ``path``, which may be yet to be made; raises OSError, and RunBusy without waiting."""
    return _HeldBeside(path) if system.LOCKS_BESIDE else _HeldItself(path)


class _HeldItself:
    """Its lock is on the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.superseded = False
        for _ in range(_MOST_ATTEMPTS):
            descriptor = system.open_unfollowed(path, os.O_RDWR | os.O_CREAT)
            try:
                if not system.lock(descriptor):
                    raise _busy(path)
                if system.is_at(path, descriptor):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        else:
            raise _busy(path)
        self._descriptor = descriptor

    def save(self, content: bytes, other: int) -> None:
        """Write a new file, lock it, make it durable, and put it in the old one's place."""
        temporary = _temporary(self.path)
        new = system.make_anew(temporary)
        try:
            system.lock(new)  # nobody else opens this name without the lock we hold
            with open(new, "wb", closefd=False) as file:
                file.write(content)
            if os.fstat(new).st_mtime_ns <= other:
                os.utime(new, ns=(other + _TICK, other + _TICK))
            os.fsync(new)
            system.replace(temporary, self.path)
        except BaseException:
            os.close(new)
            temporary.unlink(missing_ok=True)
            raise
        os.close(self._descriptor)
        self._descriptor = new
        system.sync_folder(self.path.parent)

    def close(self) -> None:
        """Let go of the lock; an empty file, made for its sake only, goes as well, and an outdated one."""
        with contextlib.suppress(OSError):
            needless = self.superseded or os.fstat(self._descriptor).st_size == 0
            if needless and system.is_at(self.path, self._descriptor):
                self.path.unlink()
        os.close(self._descriptor)


class _HeldBeside:
    """Its lock is on a file beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.superseded = False
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(system.locked_beside(path, wait=False)):
                raise _busy(path)
            with contextlib.suppress(FileNotFoundError):  # to be made by the first save
                os.close(system.open_unfollowed(path, os.O_RDWR))  # or it is no file of ours
            self._lock = stack.pop_all()

    def save(self, content: bytes, other: int) -> None:
        """Write a new file, make it durable, and put it in the old one's place, both closed."""
        with _written_beside(self.path) as (temporary, file):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()  # or this would set its time once more
            if os.lstat(temporary).st_mtime_ns <= other:
                os.utime(temporary, ns=(other + _TICK, other + _TICK))

    def close(self) -> None:
        """Let go of the lock, whose file goes; and of an outdated file."""
        if self.superseded:
            with contextlib.suppress(OSError):
                system.reach(self.path).unlink()
        self._lock.close()


@contextlib.contextmanager
def replacing_beside(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears at ``path`` whole, or not at all; waits for another one that writes it."""
    with system.locked_beside(path, wait=True), _written_beside(path) as (_, file):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _written_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a new file and its name, that takes the place of ``path`` once it is written; under its lock."""
    temporary = _temporary(system.reach(path))
    try:
        with open(system.make_anew(temporary), "w+b") as file:  # noqa: PTH123  a descriptor
            yield temporary, file
        system.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _busy(path: Path) -> RunBusy:
    return RunBusy(f"Another yolo-clearml is at work on {path.parent}.", "Try again when it is done.")
