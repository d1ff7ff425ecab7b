"""A file of a run opened to be sent whole; a folder as one zip, the same bytes for the same files."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from ..errors import YoloClearmlError
from ..events import FileStamp
from .files import open_stamped

_CHUNK = 2**20  # bytes copied at a time
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of the zip format


class Unpackable(YoloClearmlError):
    """A folder cannot be made one file, as there is no room for it."""


@contextlib.contextmanager
def open_whole(root: Path, stamp: FileStamp) -> Iterator[BinaryIO]:
    """Open what ``stamp`` describes, as `open_stamped` does; of a folder, a zip of it.

    It lies in the system's folder for temporary files until it is closed. It is not compressed, as ClearML's
    own packages of models are not. Raises RunChanged, and Unpackable.
    """
    if not stamp.members:
        with open_stamped(root, stamp) as file:
            yield file
        return
    with contextlib.ExitStack() as stack:
        try:
            packed: Any = stack.enter_context(tempfile.TemporaryFile())  # on Windows a wrapper of one
            _pack(root, stamp, packed)
        except OSError as cause:
            raise Unpackable(
                f"{root / stamp.name} cannot be packed: {cause.strerror or cause}.",
                f"Free some space in {tempfile.gettempdir()}, or set TMPDIR to a folder that has it.",
            ) from cause
        packed.seek(0)
        yield packed


def _pack(root: Path, stamp: FileStamp, target: BinaryIO) -> None:
    with ZipFile(target, "w", ZIP_STORED) as archive:
        for member in sorted(stamp.members, key=lambda member: member.name):
            info = ZipInfo(member.name.removeprefix(f"{stamp.name}/"), _FIRST_DAY)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o644 << 16
            with open_stamped(root, member) as source, archive.open(info, "w", force_zip64=True) as entry:
                shutil.copyfileobj(source, entry, _CHUNK)
