"""Words, numbers and paths as a person reads them; and the one way of writing a line."""

from __future__ import annotations

import codecs
import os
import shutil
import textwrap
from pathlib import Path
from typing import TextIO

from .. import system
from ..errors import (
    CredentialsRefused,
    Exit,
    FileElsewhere,
    FileServerUnreachable,
    NotConfigured,
    ServerFailing,
    ServerUnreachable,
    YoloClearmlError,
)
from ..sync.outcomes import Delivered, Facts, Failed
from ..sync.verdict import Verdict

# what a console may have no character for, as cp437 and cp1252 of Windows; one column each, as it was
_PLAIN = {"\N{HORIZONTAL ELLIPSIS}": "~", "\N{REPLACEMENT CHARACTER}": "?"}
PLAINLY = "yolo_clearml.plainly"  # for what an encoding lacks: no name may be too much for a console


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        plain = _PLAIN.get(error.object[error.start])
        if plain is not None:
            return plain, error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error(PLAINLY, _plainly)
_NARROWEST = 20  # characters; what is folded for less cannot be read
_LOOKED_INTO = (NotConfigured, CredentialsRefused, ServerUnreachable, FileServerUnreachable)
_OF_ONE_REQUEST = (ServerFailing, FileElsewhere)


def size_text(size: int) -> str:
    """Write a number of bytes for a person: 950 B, 1.4 MB, 263 kB."""
    if size < 1000:
        return f"{size} B"
    amount, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 99.95 else f"{amount:.1f} {unit}"


def shown_path(path: Path) -> str:
    """Write a path as short as it can be typed, on one line."""
    try:
        text = str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        text = str(path)
    return printable(text)


def printable(text: str) -> str:
    """Make text from an untrusted directory safe for a terminal: no control characters, one line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def hint_of(error: YoloClearmlError) -> str:
    """Give what to do about an error, with the command that looks into it where that may show more."""
    shows = isinstance(error, _LOOKED_INTO) and not isinstance(error, _OF_ONE_REQUEST)
    return f"{error.hint} 'yolo-clearml doctor' shows where it fails." if shows else error.hint


class ReaderGone(Exception):
    """Nobody reads the output any more, as after ``| head``."""


class OutputUnwritable(YoloClearmlError):
    """The output does not take a line, as on a full disk; raised once, what follows is thrown away."""

    status = Exit.OURS


def write_line(stream: TextIO, line: str) -> None:
    """Write a line at once; raises ReaderGone and OutputUnwritable."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except OSError as cause:
        # or Python may write at its end that the rest could not be written, as its manual has it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if system.is_reader_gone(cause):
            raise ReaderGone from cause
        raise OutputUnwritable(
            f"The output cannot be written: {cause.strerror or cause}.",
            "The work was done all the same; to see how it stands, run it again with its output elsewhere.",
        ) from cause


def write_text(stream: TextIO, line: str, indent: int) -> None:
    """Write a sentence; on a terminal it is folded between words, and what is folded moved in.

    Raises as `write_line`.
    """
    if stream.isatty():
        width = max(_NARROWEST, shutil.get_terminal_size().columns)
        folded = textwrap.wrap(
            line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        line = "\n".join(folded)
    write_line(stream, line)


def sent_text(outcome: Delivered | Failed) -> str:
    """Write what was sent: 89 events, 14 files (1.5 MB); or that it was only what is no event."""
    if not outcome.events and not outcome.files:
        return "parameters or the task's status"
    events = [counted(outcome.events, "event")] if outcome.events else []
    files = [files_text(outcome.files, outcome.size)] if outcome.files else []
    return ", ".join(events + files)


def files_text(files: int, size: int) -> str:
    """Write a number of files and their bytes on disk, where a figure that is drawn here has none."""
    return f"{counted(files, 'file')} ({size_text(size)})" if size else counted(files, "file")


def mending(proof: Verdict) -> str:
    """Write what a person does about differences."""
    if proof.closed is not None:
        return proof.closed
    if proof.task_id is None:
        return "'yolo-clearml upload' sends it."
    if proof.unsent:
        return "Not all of it was sent; 'yolo-clearml upload' with the same options sends the rest."
    return "To mend it, 'yolo-clearml upload --force' sends everything again, into the same task."


def as_asked(facts: Facts) -> str:
    """Write what a person has left out, as it goes on after what was done: without images and model."""
    *others, last = facts.without or ("",)
    return f" without {', '.join(others)}{' and ' if others else ''}{last}" if last else ""


def without(facts: Facts) -> str:
    """Write what of a run is not sent, as it goes on after what was done: without model but for 2 files."""
    return as_asked(facts) + (f" but for {counted(len(facts.left_out), 'file')}" if facts.left_out else "")


def proof_text(proof: Verdict, facts: Facts) -> str:
    """Write what reading back has shown: verified, 213 values and files are the same."""
    if proof.task_id is None:
        return "not in ClearML"
    if proof.differences:
        places = counted(len(proof.differences), "place")
        return f"differs in {places}, {proof.facts} are the same{as_asked(facts)}"
    return f"verified{without(facts)}, {proof.facts} values and files are the same"


def counted(number: int, what: str) -> str:
    """Write a number of things: 1 run, 2 runs."""
    return f"{number} {what}{'' if number == 1 else 's'}"
