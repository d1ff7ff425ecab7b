"""Processes that are killed, each at a step that a test names, and a count of the steps there are.

A step is a request to the server double, or whatever changes a file, a folder or what is on disk of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from double import ClearMLDouble

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.utime",
}
WHEN = ("never", "after")  # the request at which a process died was never carried out, or it was


class Abandoned(Exception):
    """A request whose sender is dead, and that the server never carries out."""


def killed_at_request(double: ClearMLDouble, number: int, when: str, action: Callable[[], object]) -> bool:
    """Do something in a process of its own that dies at its ``number``-th request, counted from 1.

    "never": before the server carries the request out, which it then does not; "after": before the reply.
    Returns whether it was killed; else it came to its end before.
    """
    before = len(double.requests)
    victim = 0

    def kill(endpoint: str, count: int) -> None:
        if count == before + number:
            os.kill(victim, signal.SIGKILL)
            if when == "never":
                raise Abandoned

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)  # until the server knows whom to kill
        _do_and_exit(action)
    victim = child
    if when == "never":
        double.before_request = kill
    else:
        double.after_request = kill
    os.write(write, b"!")
    try:
        return _killed(child)
    finally:
        os.close(read)
        os.close(write)
        double.before_request = double.after_request = None


def killed_at_step(number: int, action: Callable[[], object]) -> bool:
    """Do something in a process of its own that dies before its ``number``-th step that changes a disk.

    Each is also what comes right after the one before it. Returns whether it was killed.
    """
    child = os.fork()
    if child == 0:
        _die_at(number)
        _do_and_exit(action)
    return _killed(child)


def _die_at(number: int) -> None:
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITING):
            step()

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            step()
            return function(*arguments, **options)

        return call

    sys.dont_write_bytecode = True  # which is no work of the program's
    os.fsync = stepping(os.fsync)
    os.close = stepping(os.close)
    sys.addaudithook(audit)  # of this process, which ends soon


def _do_and_exit(action: Callable[[], object]) -> None:
    status = 99
    try:
        action()
        status = 0
    finally:
        os._exit(status)


def _killed(child: int) -> bool:
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


def hidden(folder: Path) -> list[str]:
    """Name what lies in a run directory and is none of the training's."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
