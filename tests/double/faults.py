"""What can go wrong between a client and the server, as values; and when it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Status:
    """Answer with this HTTP status instead of processing the request."""

    code: int
    body: bytes | str | None = None  # None: the server's own error envelope
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DropBefore:
    """Reset the connection before the request is processed."""


@dataclass(frozen=True)
class DropAfter:
    """Process the request, then reset the connection without a reply."""


@dataclass(frozen=True)
class Truncate:
    """Process the request, then send half of the reply and close."""


@dataclass(frozen=True)
class NotJson:
    """Answer 200 with a web page, as a proxy or the web server does; nothing is processed."""


@dataclass(frozen=True)
class Fewer:
    """`events.add_batch` only: leave out the last event, and say so."""


@dataclass(frozen=True)
class Hang:
    """Wait before processing; a client that gives up earlier finds the work done all the same."""

    seconds: float


@dataclass(frozen=True)
class Silent:
    """Never answer, and never process."""


@dataclass(frozen=True)
class Drip:
    """Process the request, then send the reply byte by byte."""

    pause: float  # seconds after each byte


@dataclass(frozen=True)
class Endless:
    """Process the request, then send a reply that has no end."""


@dataclass(frozen=True)
class Altered:
    """Process the request, then lie: `change` is given the reply's data and gives what is sent instead."""

    change: Callable[[Any], Any]


Fault = (
    Status | DropBefore | DropAfter | Truncate | NotJson | Fewer | Hang | Silent | Drip | Endless | Altered
)


@dataclass
class Planned:
    """A fault waiting for its request."""

    pattern: str
    kind: Fault
    nth: int | None
    times: int | None
    each: bool = False
    only: Callable[[Any], bool] | None = None
    struck: set[str] = field(default_factory=set)  # requests, if each is struck once
    seen: int = 0  # matching requests since the fault was set
    hits: int = 0  # requests it struck


class Faults:
    """The planned faults, in the order they were set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Planned] = []

    def add(self, planned: Planned) -> None:
        """Plan one more fault."""
        with self._lock:
            self._planned.append(planned)

    def clear(self) -> None:
        """Forget every planned fault."""
        with self._lock:
            self._planned.clear()

    @property
    def hits(self) -> int:
        """How many requests the faults planned now have struck."""
        with self._lock:
            return sum(planned.hits for planned in self._planned)

    def take(self, endpoint: str, payload: object) -> Fault | None:
        """Count this request against every matching plan; the first plan that is due strikes."""
        struck: Fault | None = None
        with self._lock:
            for planned in self._planned:
                if not fnmatchcase(endpoint, planned.pattern):
                    continue
                if planned.only is not None and not planned.only(payload):
                    continue
                if planned.each:
                    if struck is None and (request := f"{endpoint} {payload}") not in planned.struck:
                        planned.struck.add(request)
                        planned.hits += 1
                        struck = planned.kind
                    continue
                planned.seen += 1
                left = planned.times is None or planned.hits < planned.times
                due = planned.seen >= (planned.nth or 1) and left
                if due and struck is None:
                    planned.hits += 1
                    struck = planned.kind
        return struck
