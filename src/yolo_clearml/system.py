"""What one system has and another has not: all that asks which one this is about files, locks and signals.

| wanted | Linux, macOS | Windows instead |
|---|---|---|
| a file below a folder, no link on the way | ``openat``, one part after the other, each ``O_NOFOLLOW`` | opened; then each part is no link or junction, and the last one is what was opened |
| a file that is never waited for | ``O_NONBLOCK`` | looked at before it is opened |
| a lock | ``flock`` on the file itself | ``LockFileEx`` on a file beside it: what is locked cannot be read, what is open not replaced |
| a whole file in the place of another | ``rename``, also of an open one | ``MoveFileEx``, again while a reader has it open |
| that this outlasts a power cut | ``fsync`` of the folder | nothing: NTFS keeps a journal of its own |
| whether two names are one folder | device and inode | volume and file id; where there are none, the true path |
| a path of any length | as it is | the prefix ``\\\\?\\`` from 180 characters on |
| a file that another program keeps to itself | does not occur | tried again for a while, then looked at next time |
| that something changed | inotify; FSEvents, by true paths | ReadDirectoryChangesW |
| being asked to stop | SIGINT, SIGTERM | SIGBREAK (Ctrl-Break, closing the window, logging off) as well |
| a reader that has gone | EPIPE | EINVAL as well |

Nothing here knows what a run is. The names are the same on every system, and mypy checks each of them.
"""  # noqa: E501  a table

from __future__ import annotations

import contextlib
import errno
import functools
import ntpath
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")
Identity: TypeAlias = "tuple[int, int | str]"  # of a folder, whatever name it was reached by

INOTIFY = sys.platform == "linux"  # which announces the end of a writing, and has limits of its own
READER_GONE = 141  # exit status: 128 and the number of SIGPIPE, as a shell reports it of other programs
_EXTENDED = "\\\\?\\"
_LONG = 180  # characters of a folder; with the longest name of a run's file it stays below Windows' 260


def described() -> str:
    """Name the Python and the system that this runs on."""
    import platform

    return f"Python {platform.python_version()} on {platform.system()} {platform.release()}"


def extended(path: str) -> str:
    r"""Write an absolute path of Windows such that it may have any length: ``\\?\C:\...``, ``\\?\UNC\...``.

    A short one stays as it is, for programs that are shown it know the plain form only. Source: "Maximum
    Path Length Limitation" in Microsoft's documentation of Win32.
    """
    if len(path) < _LONG or path.startswith((_EXTENDED, "\\\\.\\")):
        return path
    path = ntpath.normpath(path)  # which Windows does not do for this form
    return f"{_EXTENDED}UNC\\{path[2:]}" if path.startswith("\\\\") else f"{_EXTENDED}{path}"


def plain(path: str) -> str:
    """Write a path without the prefix of `extended`, as a person knows it."""
    if not path.startswith(_EXTENDED):
        return path
    rest = path[len(_EXTENDED) :]
    return f"\\\\{rest[4:]}" if rest.startswith("UNC\\") else rest


if sys.platform == "win32":
    STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
    ATTENTIVE: float | None = 0.2  # seconds; Ctrl-C is not heeded while the main thread waits without an end
    LOCKS_BESIDE = True  # a lock is a file beside the one it is for
    _HELD_OPEN = (32, 33)  # ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
    _PATIENCE = 2.0  # seconds; a virus scanner or an indexer lets go by then
    _PAUSE = 0.02  # seconds
    _NAME_SURROGATE = 0x20000000  # of a reparse tag: it names another file, as links and junctions do
    _PLAIN_FLAGS = os.O_BINARY | os.O_NOINHERIT

    def reach(path: Path) -> Path:
        """Give a path in a form that the system takes, however long it is."""
        return Path(extended(os.path.abspath(path)))  # noqa: PTH100  which knows about '..'

    def is_held_open(error: OSError) -> bool:
        """Return whether it is another program that keeps a file to itself, which passes."""
        return getattr(error, "winerror", None) in _HELD_OPEN

    def _patiently(action: Callable[[], _T], passes: Callable[[OSError], bool]) -> _T:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return action()
            except OSError as error:
                if not passes(error) or time.monotonic() > until:
                    raise
            time.sleep(_PAUSE)

    def _leads_elsewhere(status: os.stat_result) -> bool:
        return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_reparse_tag", 0) & _NAME_SURROGATE)

    def _refuse(path: Path, why: int) -> OSError:
        return OSError(why, os.strerror(why), plain(str(path)))

    def _require_plain(path: Path) -> os.stat_result:
        status = os.lstat(path)
        if _leads_elsewhere(status):
            raise _refuse(path, errno.ELOOP)
        return status

    def _opened(path: Path, flags: int) -> int:
        return _patiently(functools.partial(os.open, path, flags | _PLAIN_FLAGS, 0o666), is_held_open)

    def open_below(root: Path, name: str) -> int:
        """Open what ``name`` (forward slashes) is below ``root``, to read it; raises OSError.

        No link or junction on the way from ``root`` is followed, and what is no file is not waited for.
        What lies between the look and the opening is looked at again: another file is refused.
        """
        root = reach(root)
        path = reach(root / name)
        if not stat.S_ISREG(_require_plain(path).st_mode):
            raise OSError("not a regular file")
        descriptor = _opened(path, os.O_RDONLY)
        try:
            place = root
            for part in name.split("/"):
                place = place / part
                status = _require_plain(reach(place))
            if not os.path.samestat(os.fstat(descriptor), status):
                raise _refuse(path, errno.ELOOP)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_unfollowed(path: Path, flags: int) -> int:
        """Open a file of our own, by flags that every system has; a link in its place is refused (ELOOP)."""
        path = reach(path)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(_require_plain(path).st_mode):
                raise _refuse(path, errno.EISDIR)
        descriptor = _opened(path, flags)
        try:
            if not os.path.samestat(os.fstat(descriptor), _require_plain(path)):
                raise _refuse(path, errno.ELOOP)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def status_of(entry: os.DirEntry[str]) -> os.stat_result:
        """Give the status of an entry itself, from the file: a folder's own record of it may be old."""
        return os.lstat(entry.path)

    def is_link(entry: os.DirEntry[str]) -> bool:
        """Return whether an entry leads elsewhere, as a junction does as well."""
        return _leads_elsewhere(os.lstat(entry.path))

    def is_folder(entry: os.DirEntry[str]) -> bool:
        """Return whether an entry is a folder, and no link to one."""
        return entry.is_dir(follow_symlinks=False) and not is_link(entry)

    def identity(path: Path) -> Identity:
        """Give what is the same of a folder by whatever name; raises OSError."""
        status = reach(path).stat()
        return status.st_dev, status.st_ino or os.path.normcase(true_path(path))

    def true_path(path: Path) -> Path:
        """Give the path by which the system knows what is there: no links, its own upper and lower case."""
        return Path(plain(str(reach(path).resolve())))

    def replace(source: Path, target: Path) -> None:
        """Put a file in the place of another, again while somebody has that open; raises OSError."""
        action = functools.partial(os.replace, reach(source), reach(target))
        _patiently(action, lambda error: isinstance(error, PermissionError))

    def sync_folder(path: Path) -> None:
        """Make the names in a folder outlast a power cut: nothing that a program could ask for here."""

    def is_reader_gone(error: OSError) -> bool:
        """Return whether whoever was reading what is written has gone."""
        return isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL

else:
    STOPPING = (signal.SIGINT, signal.SIGTERM)
    ATTENTIVE = None
    LOCKS_BESIDE = False

    def reach(path: Path) -> Path:
        """Give a path in a form that the system takes, however long it is."""
        return path

    def is_held_open(error: OSError) -> bool:
        """Return whether it is another program that keeps a file to itself, which passes."""
        return False

    def open_below(root: Path, name: str) -> int:
        """Open what ``name`` (forward slashes) is below ``root``, to read it; raises OSError.

        No link on the way from ``root`` is followed and no FIFO or device is waited for.
        """
        *folders, last = name.split("/")
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = inner
            return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        finally:
            os.close(handle)

    def open_unfollowed(path: Path, flags: int) -> int:
        """Open a file of our own, by flags that every system has; a link in its place is refused (ELOOP)."""
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    def status_of(entry: os.DirEntry[str]) -> os.stat_result:
        """Give the status of an entry itself."""
        return entry.stat(follow_symlinks=False)

    def is_link(entry: os.DirEntry[str]) -> bool:
        """Return whether an entry leads elsewhere."""
        return entry.is_symlink()

    def is_folder(entry: os.DirEntry[str]) -> bool:
        """Return whether an entry is a folder, and no link to one."""
        return entry.is_dir(follow_symlinks=False)

    def identity(path: Path) -> Identity:
        """Give what is the same of a folder by whatever name; raises OSError."""
        status = path.stat()
        return status.st_dev, status.st_ino

    def true_path(path: Path) -> Path:
        """Give the path by which the system knows what is there: no links, its own upper and lower case."""
        return _cased(path.resolve())

    if sys.platform == "darwin":

        def _cased(path: Path) -> Path:
            """Write a path as the file system has it: another case, or accents apart, reach the same file."""
            import fcntl

            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                return path
            try:
                found = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))  # PATH_MAX
            except OSError:
                return path
            finally:
                os.close(descriptor)
            return Path(os.fsdecode(found.rstrip(b"\0")))

    else:

        def _cased(path: Path) -> Path:
            return path

    def replace(source: Path, target: Path) -> None:
        """Put a file in the place of another, also of one that is open; raises OSError."""
        os.replace(source, target)  # noqa: PTH105  beside os.open and os.fsync, whose faults are tested together

    def sync_folder(path: Path) -> None:
        """Make the names in a folder outlast a power cut; raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def is_reader_gone(error: OSError) -> bool:
        """Return whether whoever was reading what is written has gone."""
        return isinstance(error, BrokenPipeError)


def lock(descriptor: int, wait: bool = False) -> bool:
    """Lock a file against every other descriptor of it, also in this process; False where one has it."""
    # here: most runs are reported whole, and this takes longer to import than it takes to see that
    import filelock

    return filelock.lock_descriptor(descriptor, blocking=wait)


def is_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file is still the one that has this name; raises OSError."""
    try:
        there = os.lstat(reach(path))
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def make_anew(path: Path) -> int:
    """Make a file to write; what a killed process left there is removed, not written into, for it may be
    another file's second name, or no file at all."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL  # which follows no link
    path = reach(path)
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink(missing_ok=True)  # a network file system can be late to show that it is not there
        return os.open(path, flags, 0o666)


@contextlib.contextmanager
def locked_beside(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of ``path`` in a file beside it, which is there for as long; gives whether it is held.

    For a system on which an open file cannot be removed: so the file is never another one's.
    """
    beside = path.with_name(f"{path.name}.lock")
    descriptor = open_unfollowed(beside, os.O_RDWR | os.O_CREAT)
    try:
        yield lock(descriptor, wait)
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # another one has it open, and removes it
            reach(beside).unlink()
