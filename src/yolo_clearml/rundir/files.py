"""Reading an untrusted run directory: regular files below it only, never through a link; and replacing a file
of our own, so that it is whole whatever happens."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .. import system
from ..errors import RunChanged, RunHeldOpen, RunUnreadable
from ..events import FileStamp
from ..held_file import replacing_beside

PNG = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")
_JPEG = (b"\xff\xd8\xff", b"\xff\xd9")
_WHOLE = 2**24  # bytes; pictures have less than 2 MiB
LARGEST_PICTURE = 2**26  # bytes; what is larger, as a sparse file can be, would be sent for hours
_END = 2**20  # bytes; the directory of a checkpoint has less than 100 KiB
_NO_FILE = (
    *(
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENXIO,
        errno.ENODEV,
    ),  # gone, a link, a socket, a device
    *(errno.EINVAL, None),  # a place before its beginning, and what open_regular raises for anything else
)


@contextlib.contextmanager
def open_regular(root: Path, name: str) -> Iterator[BinaryIO]:
    """Open the regular file ``name`` (forward slashes) below ``root``.

    No link on the way from ``root`` is followed and no FIFO or device is waited for, so a hostile
    directory can neither point outside itself nor make the reader hang. Raises OSError, also where
    ``name`` is no regular file.
    """
    descriptor = system.open_below(root, name)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        file = open(descriptor, "rb")  # noqa: PTH123, SIM115  a descriptor; closed below
    except BaseException:
        os.close(descriptor)  # open() does not, where it refuses a descriptor
        raise
    with file:
        yield file


def place_of(root: Path, stamp: FileStamp) -> tuple[Path, str]:
    """Give where `open_regular` finds a file: below the run, or where a followed link leads."""
    return (Path(stamp.behind.folder), stamp.behind.name) if stamp.behind else (root, stamp.name)


@contextlib.contextmanager
def open_stamped(root: Path, stamp: FileStamp) -> Iterator[BinaryIO]:
    """Open a file to send it, and vouch for it: what was read is what ``stamp`` describes.

    Raises RunChanged where the file is another one, or has become another one by the time it is closed.
    """

    def check() -> None:
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
            raise RunChanged(
                f"{root / stamp.name} changed while it was being read.", "Run the same command again."
            )

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(*place_of(root, stamp)))
        except OSError as cause:
            raise RunChanged(
                f"{root / stamp.name} cannot be read any more: {cause.strerror or cause}.",
                "Run the same command again.",
            ) from cause
        check()
        yield file
        check()


def read_bounded(root: Path, name: str, most: int) -> tuple[bytes, FileStamp]:
    """Read a whole file of at most ``most`` bytes, and stamp what was read.

    Raises FileNotFoundError, or RunUnreadable where it is too large, no regular file or not readable;
    RunHeldOpen of these, where that will pass.
    """
    try:
        with open_regular(root, name) as file:
            data = file.read(most + 1)
            now = os.fstat(file.fileno())
    except FileNotFoundError:
        raise
    except OSError as cause:
        if system.is_held_open(cause):
            raise RunHeldOpen(
                f"{root / name} is held open by another program.", "It is looked at again next time."
            ) from cause
        raise RunUnreadable(
            f"{root / name} cannot be read: {cause.strerror or cause}.",
            "Make it a regular file that you may read; links are not followed.",
        ) from cause
    if len(data) > most:
        raise RunUnreadable(
            f"{root / name} is larger than {most // 2**10:,} KiB.",
            "This is not a file Ultralytics writes; look at what is in it.",
        )
    return data, FileStamp(name, len(data), now.st_mtime_ns)


def is_judged(cause: OSError) -> bool:
    """Return whether an error means that a file is none, as `raise_unless_judged` has it."""
    return cause.errno in _NO_FILE


def raise_unless_judged(path: Path, cause: OSError) -> None:
    """Raise RunUnreadable for an error that only keeps a file from being read, and means nothing else.

    A file that is gone, a link or too short will be another one when it is listed again, so a verdict
    about it may be remembered. One that exists and could not be read may be readable tomorrow, unchanged.
    """
    if not is_judged(cause):
        raise RunUnreadable(
            f"{path} cannot be read: {cause.strerror or cause}.",
            "Make it readable, then run the same command again.",
        ) from cause


def content_digest(root: Path, name: str) -> str:
    """Digest the bytes of a file, whatever its times are: 16 hex digits, "" where it is none.

    Of a large file the last MiB stands for all: a checkpoint is a zip, and its end holds the checksums of
    everything in it. Raises RunUnreadable where it cannot be read.
    """
    try:
        with open_regular(root, name) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(size - _END if size > _WHOLE else 0)
            return hashlib.sha256(file.read(_WHOLE)).hexdigest()[:16]
    except OSError as cause:
        raise_unless_judged(root / name, cause)
        return ""


def is_whole_picture(root: Path, name: str, called: str | None = None) -> bool:
    """Return whether a .png or .jpg begins and ends as its format demands.

    ``called`` is what a run calls it, where that has a link in its place.
    Ultralytics draws in place and in threads, so a picture can be seen empty or half-written. One that is
    too large is none. Raises RunUnreadable where it cannot be read.
    """
    head, tail = PNG if (called or name).endswith(".png") else _JPEG
    try:
        with open_regular(root, name) as file:
            if file.read(len(head)) != head:
                return False
            return file.seek(-len(tail), os.SEEK_END) < LARGEST_PICTURE and file.read() == tail
    except OSError as cause:
        raise_unless_judged(root / name, cause)
        return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears at ``path`` whole and durably, or not at all; raises OSError."""
    if system.LOCKS_BESIDE:
        with replacing_beside(path) as file:
            yield file
        return
    temporary = path.with_name(path.name + ".tmp")
    with open(_hold(temporary), "r+b") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            system.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    system.sync_folder(path.parent)


def _hold(path: Path) -> int:
    """Make a file to be written by this descriptor alone; waits for another process that writes it.

    What a kill left, or anybody else, is removed and not written into: it may have another name as well.
    """
    while True:
        made = True
        try:
            descriptor = system.open_unfollowed(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            made = False
            try:
                if not stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
                    continue
                descriptor = system.open_unfollowed(path, os.O_RDWR)
            except FileNotFoundError:
                continue
        try:
            system.lock(descriptor, wait=True)
            # whoever held it before has renamed or removed it
            if system.is_at(path, descriptor):
                if made:
                    return descriptor
                path.unlink(missing_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
