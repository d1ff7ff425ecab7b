"""What can go wrong between a client and the server, as values; and when it does."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


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


Fault = Status | DropBefore | DropAfter | Truncate | NotJson | Fewer | Hang


@dataclass
class Planned:
    """A fault waiting for its request."""

    pattern: str
    kind: Fault
    nth: int | None
    times: int | None
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

    def take(self, endpoint: str) -> Fault | None:
        """Count this request against every matching plan; the first plan that is due strikes."""
        struck: Fault | None = None
        with self._lock:
            for planned in self._planned:
                if not fnmatchcase(endpoint, planned.pattern):
                    continue
                planned.seen += 1
                left = planned.times is None or planned.hits < planned.times
                due = planned.seen >= (planned.nth or 1) and left
                if due and struck is None:
                    planned.hits += 1
                    struck = planned.kind
        return struck
