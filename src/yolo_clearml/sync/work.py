"""What is done with each run, and with what: a sink made when it is needed, ledgers, wishes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ..replay.parameters import COMPARED
from ..replay.rules import Wishes
from ..replay.wanted import Wanted
from .ledger import Ledgers
from .outcomes import UpToDate
from .sinks import Sink


class Lazily:
    """Makes a sink when the first run needs it, once for all of them."""

    def __init__(self, make: Callable[[], Sink], load: Callable[[], object] | None = None) -> None:
        """Make it with ``make``; ``load`` does of that what takes long and can be done before."""
        self._make, self._load = make, load
        self._loading: threading.Thread | None = None
        self._lock = threading.Lock()
        self._sink: Sink | None = None

    def __call__(self) -> Sink:
        """Give the sink; runs that need it at the same time wait for the one that makes it."""
        with self._lock:
            if self._sink is None:
                if self._loading is not None:
                    self._loading.join()
                self._sink = self._make()
            return self._sink

    def begin(self) -> None:
        """Announce that a run will need it: what takes long is begun in a thread of its own, the first time.

        What goes wrong there is met again, and raised, by whoever makes it. The thread keeps the process from
        ending, for Python does not bear that in the middle of an import.
        """
        with self._lock:
            load, self._load = self._load, None
            if load is not None and self._sink is None:
                self._loading = threading.Thread(target=_without_a_word, args=(load,), name="load")
                self._loading.start()

    def renew(self) -> None:
        """Make another one next time: a sink remembers who did not answer, and does not ask again."""
        with self._lock:
            self._sink = None


def _without_a_word(load: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        load()


class Aim(Enum):
    """What a visit is for."""

    DELIVER = "deliver"
    DELIVER_AND_VERIFY = "deliver and verify"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Live:
    """A live run as the last visit left it, everything reported."""

    key: str
    task: str
    settled: str  # stamp of its files
    outcome: UpToDate


@dataclass(slots=True)
class Work:
    """What is done with each run, and how."""

    sink: Lazily  # made when the first run has something to send
    ledgers: Ledgers
    server_hint: str  # changes when the server may have; known without asking the sink
    wishes: Wishes = field(default_factory=Wishes)
    wanted: Wanted | None = field(default_factory=Wanted)  # None: as the ledger remembers it
    validations: tuple[Path, ...] = ()  # as in Wanted; of the one run that is visited
    stale_after: float | None = None  # seconds; None: see scan.scan
    force: bool = False  # send everything again, into the same task
    new: bool = False  # make a new task
    move: bool = False  # put a task that is there where the wishes say
    aim: Aim = Aim.DELIVER
    task_id: str | None = None  # complete this task, whoever made it
    follow: tuple[Path, ...] = ()  # real paths of folders that a link in a run may lead into
    silence: float | None = None  # seconds, after which a live run's task is pinged; None: never
    now: Callable[[], float] = time.time  # seconds since the epoch
    live: dict[Path, Live] = field(default_factory=dict)
    asked: str = field(init=False)  # all that a plan depends on beside the run, in words

    def __post_init__(self) -> None:
        # what is followed shows in the listing; and a run that was settled without a property is not, with it
        self.asked = repr((self.wishes, self.stale_after, *COMPARED))

    def wanted_of(self, remembered: Mapping[str, Any]) -> Wanted:
        """Give what is reported of a run whose ledger has ``remembered`` what was."""
        return replace(self.wanted or Wanted.restored(remembered), validations=self.validations)


@dataclass(frozen=True, slots=True)
class Visit:
    """A run to be visited."""

    run: Path
    keep_alive: bool = False  # where there is nothing to report to a live run's task, ping it
