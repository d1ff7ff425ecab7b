"""SIGINT and SIGTERM, and what Windows has beside them: a wish to stop, which is granted soon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .. import system
from ..errors import Exit
from .terminal import leave_terminal

_GRACE = 4.0  # seconds after a signal; killed anywhere, the next run ends the same, so waiting is a courtesy
_STOPPING = "Stopping as soon as what is on its way has arrived; the same signal again stops at once."
_STOPPED = "Stopped. What arrived is remembered; run the same command again for the rest."


class Interruption:
    """Turns the first signal to stop into a wish to stop; after a while, or a second one, stops hard."""

    def __init__(self, quiet: bool) -> None:
        self.stop = threading.Event()
        self.status: Exit | None = None
        self.say: Callable[[str], None] = lambda text: None
        self._quiet = quiet
        self._announcing: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for number in system.STOPPING:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        status = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        if self.status is not None:
            self._leave(status)
        self.status = status
        self.stop.set()
        # in threads of their own: this one may be in the middle of writing
        self._announcing = threading.Timer(0.0, self.say, (_STOPPING,))
        for timer in (self._announcing, threading.Timer(_GRACE, self._leave, (status,))):
            timer.daemon = True
            timer.start()

    def stopped(self) -> None:
        """Write that it has stopped, after the line that it would."""
        if self._announcing is not None:
            self._announcing.join(_GRACE)
        self.say(_STOPPED)

    def _leave(self, status: Exit) -> None:
        leave_terminal("" if self._quiet else _STOPPED)
        os._exit(status)
