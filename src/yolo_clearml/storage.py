"""Files in S3, GS, Azure or a folder, through the SDK's drivers and credentials."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

from clearml.storage.helper import StorageHelper

from .compare import Content, content_of
from .errors import FileElsewhere, FileServerUnreachable, YoloClearmlError

_PIECE = 2**20  # bytes of a file read at a time


def store(base: str, address: str, file: BinaryIO) -> None:
    """Store a file at an address below ``base``; raises FileServerUnreachable."""
    hint = "Check --output-uri and the credentials for it in clearml.conf (sdk.aws, sdk.google, sdk.azure)."
    try:
        helper = StorageHelper.get(base)  # not of the address: a folder's driver wants one that is there
        if helper is None:
            raise FileServerUnreachable(f"ClearML has no driver or credentials for {base}.", hint)
        file.seek(0)
        helper.upload_from_stream(file, address, retries=1)
    except YoloClearmlError:
        raise
    except Exception as cause:
        raise FileServerUnreachable(f"{address} could not be stored: {cause}.", hint) from cause


def fetch(url: str, most: int) -> Content | None:
    """Read a stored file, up to ``most`` bytes; None where none is, FileElsewhere where that is not known."""
    hint = "Check that it is there, and the credentials for it in clearml.conf (sdk.aws, sdk.google, ...)."
    try:
        if url.startswith("file://"):
            path = Path(url.removeprefix("file://"))
            return _content(path, most) if path.is_file() else None
        with tempfile.TemporaryDirectory() as folder:
            helper = StorageHelper.get(url)
            target = str(Path(folder) / "file")
            options = {"overwrite_existing": True, "skip_zero_size_check": True, "silence_errors": True}
            there = helper.download_to_file(url, target, **options) if helper is not None else None
            if there is None:  # gone, or refused, or out of reach: the SDK does not tell
                raise FileElsewhere(f"{url} cannot be read.", hint)
            return _content(Path(there), most)
    except YoloClearmlError:
        raise
    except Exception as cause:
        raise FileElsewhere(f"{url} cannot be read: {cause}.", hint) from cause


def _content(path: Path, most: int) -> Content:
    with path.open("rb") as file:
        return content_of(iter(lambda: file.read(_PIECE), b""), most)
