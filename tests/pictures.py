"""Draws README's pictures of the terminal: the real program on a pseudo-terminal, against the server double.

    python tests/pictures.py          draws them anew, into .github/pictures/

    program --> pseudo-terminal --> pyte's screen --> rich's SVG

Ids, which are random, are replaced; nothing else is. `test_pictures` holds the text of the pictures that are
kept against that of new ones, so that they cannot grow old.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import itertools
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyte
from double import ClearMLDouble
from rich.console import Console
from rich.text import Text
from timelines import put, timeline

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / ".github" / "pictures"
_COLUMNS = 84
_LINES = 60
_RECORDED = 1795341965  # 2026-11-22T10:06:05Z; a copy's own times depend on when this was cloned
_LONG = 60.0  # seconds until a program that shows nothing is given up
_COMMAND = [sys.executable, "-m", "yolo_clearml"]
_ENDED = ("v8.4.190-classify", "v8.1.0-segment")
_THREE = ("v8.4.190-classify", "v8.4.190-detect", "v8.4.190-detect-killed")
_WATCH = ("-j", "1", "--stale-after", "1000000000")  # in one order, and what was recorded long ago is live
_COLOURS = {"brown": "yellow"}  # by the names that rich knows
_ID = re.compile(rb"[0-9a-f]{32}")
_LINK = re.compile(rb"\x1b\]8;[^\x1b]*\x1b\\")  # a terminal's links, which pyte does not know
_BEGUN = re.compile(rb"(?:\x1b\][^\x1b]*\x1b?|[0-9a-f]*)\Z")


class _Screen:
    """A terminal with a program on it."""

    def __init__(self, folder: Path, server: ClearMLDouble, *arguments: str) -> None:
        self._shown = pyte.Screen(_COLUMNS, _LINES)
        self._stream = pyte.ByteStream(self._shown)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
        unwanted = ("CLEARML", "TRAINS", "YOLO_CLEARML", "NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        environment = {**kept, **server.environ, "TERM": "xterm-256color"}
        environment |= {"HOME": str(folder), "CLEARML_CONFIG_FILE": str(folder / "no-clearml.conf")}
        environment |= {"CLEARML_WEB_HOST": "http://localhost:8080"}
        self._held = b""  # the end of what was read, which may be the beginning of an id
        self._ids: dict[bytes, bytes] = {}
        self._process = subprocess.Popen(
            [*_COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._shown.display).rstrip()

    def until(self, shows: Callable[[str], bool]) -> None:
        """Take what the program writes until its screen is as wanted, or, where it never is, to its end."""
        end = time.monotonic() + _LONG
        while not shows(self.text) and time.monotonic() < end:
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            if not ready:
                continue
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # EIO: the other side is closed
                return
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        text = _LINK.sub(b"", self._held + piece)
        self._held = _BEGUN.search(text)[0]  # type: ignore[index]  # it may be empty, but is always found
        told = text.removesuffix(self._held) if self._held else text
        self._stream.feed(_ID.sub(self._instead, told))

    def _instead(self, found: re.Match[bytes]) -> bytes:
        number = len(self._ids) + 1
        return self._ids.setdefault(found[0], hashlib.md5(b"%d" % number).hexdigest().encode())

    def end(self, wanted: int) -> None:
        self._process.send_signal(signal.SIGINT)
        self.until(lambda _: False)
        status = self._process.wait(_LONG)
        os.close(self._ours)
        assert wanted == status, self.text

    def ended(self) -> None:
        self.until(lambda _: False)
        assert 0 == self._process.wait(_LONG), self.text
        os.close(self._ours)

    def lines(self) -> Iterator[Text]:
        """Give what is shown, with its colours."""
        for number in range(len(self.text.splitlines())):
            chars = [self._shown.buffer[number][column] for column in range(_COLUMNS)]
            line = Text()
            for (colour, bold), alike in itertools.groupby(chars, key=lambda char: (char.fg, char.bold)):
                named = f"#{colour}" if re.fullmatch(r"[0-9a-f]{6}", colour) else _COLOURS.get(colour, colour)
                line.append("".join(char.data for char in alike), f"{'bold ' * bold}{named}")
            line.rstrip()
            yield line


def _drawn(command: str, screen: _Screen) -> str:
    """Draw a screen below the command that was typed, as SVG."""
    console = Console(
        record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    console.print(Text(f"$ {command}", "bold"), soft_wrap=True)
    for line in screen.lines():
        console.print(line, soft_wrap=True)
    drawn = console.export_svg(title="yolo-clearml", unique_id="picture")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def words(drawn: str) -> str:
    """Give the text of a picture; how long a rule is, in which releases of Rich differ, is no part of it."""
    text = "\n".join(re.findall(r"<text [^>]*>(.*?)</text>", drawn)).replace("&#160;", " ")
    return re.sub("\N{BOX DRAWINGS LIGHT HORIZONTAL}+", "\N{BOX DRAWINGS LIGHT HORIZONTAL}", text)


@contextmanager
def _folder(*names: str) -> Iterator[Path]:
    """Give a folder with sample runs below ``runs``, each by the last part of its name."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in names:
            shutil.copytree(ROOT / "sample_runs" / name, folder / "runs" / name.rpartition("-")[2])
        for ledger in folder.rglob(".yolo-clearml.json*"):
            ledger.unlink()
        for file in folder.rglob("*.*"):
            os.utime(file, (_RECORDED, _RECORDED))
        yield folder


def draw() -> dict[str, str]:
    """Draw all pictures; gives the SVG by name."""
    drawn = {}
    with _folder(*_THREE) as folder, ClearMLDouble() as server:
        upload = _Screen(folder, server, "upload", "runs", "-j", "1")
        upload.ended()
        drawn["upload.svg"] = _drawn("yolo-clearml upload runs", upload)
        # as if never uploaded, as far as the disk knows
        (folder / "runs" / "killed" / ".yolo-clearml.json").unlink()
        status = _Screen(folder, server, "status", "runs")
        status.ended()
        drawn["status.svg"] = _drawn("yolo-clearml status runs", status)
    with _folder(*_ENDED) as folder, ClearMLDouble() as server:
        runs = folder / "runs"
        watch = _Screen(folder, server, "watch", "runs", *_WATCH)
        watch.until(lambda text: text.count("up to date") == 2)
        rows = 0
        for step in timeline("v8.4.190-detect"):
            if step.rows > 3:
                break
            put(step, runs / "detect")
            if step.rows > rows and "weights/best.pt" in {change.name for change in step.changes}:
                rows = step.rows
                watch.until(partial(_is_at, rows))
        drawn["watch.svg"] = _drawn("yolo-clearml watch runs", watch)
        watch.end(130)
    return drawn


def _is_at(rows: int, text: str) -> bool:
    return f"{rows}/5" in text and "sending" not in text


def main() -> None:
    """Draw them anew."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, drawn in draw().items():
        (PICTURES / name).write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
