"""Which run to visit next, and when: the mind of a watch, which knows neither disk nor server.

noticed, changed ──> due ──> visited ──> outcome ──┬─> live: when it may have died, or its task has
                      ^                            │         had no report for long
                      │                            ├─> ended: when something is noticed again
                      │                            ├─> failed: later, each time twice as late
                      └────────────────────────────┴─> ClearML is away: one run asks for all of them

What changed and what is due for another reason stand in two queues, each in the order in which it became
due, and have turns: a row is not kept waiting by thousands of old runs, nor are they by rows without end.
So a run that is due is begun after at most twice as many visits as there are runs.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import assert_never

from ..errors import RunChanged, RunGone, RunUnreadable
from ..events import RunState
from ..rundir.finding import Found
from ..rundir.run import NotARun
from .engine import sync
from .family import Waiting
from .outcomes import Delivered, Failed, Gone, Outcome, Progress, Skipped, Started, UpToDate
from .silence import Silence
from .work import Visit, Work

_SETTLING = 0.3  # seconds from a change to the visit; a row, its checkpoint and its pictures come together
_SOONEST = 1.0  # seconds until time alone is a reason for another visit
_LONGEST_REST = 60.0  # seconds, where nothing is due at all
_ATTENTIVE = 0.2  # seconds of waiting at a time, so that what was done meanwhile is shown
_SERVER_PAUSES = (1.0, 60.0)  # seconds; the first and the longest
_RUN_PAUSES = (2.0, 600.0)
_GIVE_UP = 5  # failures in a row, after which a watch that is to end waits no longer


@dataclass(slots=True)
class _Known:
    """What is remembered of a run between two visits; times are of the agenda's clock, in seconds."""

    due: float | None = None  # None: when something is noticed
    urgent: bool = False  # it stands among what changed
    busy: bool = False  # it is being visited
    changed: bool = False  # since that visit began
    gone: bool = False  # since that visit began
    keep_alive: bool = False  # that visit is to do so
    live: bool = False
    reported: tuple[float, float] | None = None  # when its task last got a report or ping, by both clocks
    ping_due: float = -math.inf  # when it is to get a report or a ping again
    not_before: float = 0.0  # a change is no reason to try again what the server has refused
    failures: int = 0  # in a row
    open: bool = True  # not ended, or not delivered


class Agenda:
    """The runs of a watch, as a stream for `engine.sync`; given what is noticed, and what came of it."""

    def __init__(
        self,
        retry: Callable[[], None],
        stop: threading.Event,
        once: bool = False,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], object] | None = None,
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin with no run.

        ``retry`` is called before ClearML is asked again after it was away; with ``once`` the stream ends
        when every run has ended and is delivered. ``now`` is the time that file times are of, ``clock`` one
        that nobody sets, both in seconds. ``rest`` waits, for so many seconds at most; ``idle`` is called
        before each rest in which no run is visited either.
        """
        self._retry, self._stop, self._once = retry, stop, once
        self._now, self._clock, self._idle = now, clock, idle
        self._wake = threading.Event()
        self._rest = rest or (lambda seconds: self._wake.wait(min(seconds, _ATTENTIVE)))
        self._lock = threading.RLock()
        self._runs: dict[Path, _Known] = {}
        self._silence = Silence()
        self._family = Waiting()
        self._under_way = 0  # visits
        self._changed: list[tuple[float, int, Path]] = []  # heaps; an entry counts if it holds what is due
        self._others: list[tuple[float, int, Path]] = []
        self._first = self._changed  # the one that has the next turn
        self._order = itertools.count()
        self._no_runs: list[NotARun] = []  # to be given once each
        self._known_no_runs: dict[Path, str] = {}
        self.elsewhere = False  # a run was seen that another watch takes, of another part
        self._gone: list[Gone] = []  # as well
        # runs that wait for ClearML to come back; who has asked last asks again after all others, for it may
        # be that run alone that ClearML does not answer
        self._away: dict[Path, None] = {}
        self._asking: Path | None = None  # the one of them that asks
        self._ask_at = 0.0
        self._asked = 0  # times in vain

    # -- what is noticed, from any thread -------------------------------------------------------------

    def notice(self, found: Found, changed: bool = False) -> None:
        """A run was found, or something in it ``changed``."""
        with self._lock:
            if isinstance(found, NotARun):
                if found.path not in self._runs and self._known_no_runs.get(found.path) != found.reason:
                    self._known_no_runs[found.path] = found.reason
                    self._no_runs.append(found)
            else:
                run = self._runs.setdefault(found, _Known())
                run.gone = False
                self._plan(found, run, self._clock() + (_SETTLING if changed else 0.0), changed)
        self._wake.set()

    def notice_elsewhere(self) -> None:
        """A run was found in another part than this watch takes: with ``once`` no first one is waited for."""
        self.elsewhere = True

    def forget(self, path: Path) -> None:
        """A run is not there any more, or what only looked like one."""
        with self._lock:
            run = self._runs.get(path)
            if run is not None and run.busy:
                run.gone, run.changed = True, False  # or it could be given again while it is being visited
            elif run is not None or path in self._known_no_runs:
                self._gone.append(Gone(path))  # no visit will find that out
            self._let_go(path)
        self._wake.set()

    def _let_go(self, path: Path) -> None:
        run = self._runs.get(path)
        if run is not None and not run.busy:
            del self._runs[path]
        self._known_no_runs.pop(path, None)
        self._away.pop(path, None)
        if self._asking == path:
            self._asking, self._ask_at = None, self._clock()
        if not self._away:
            self._asked = 0

    @property
    def open_runs(self) -> list[Path]:
        """The runs that have not ended, or are not delivered."""
        with self._lock:
            return [path for path, run in self._runs.items() if run.open and not run.gone]

    # -- what is due ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Found | Visit | Gone | None]:
        """Give what is gone or due, and None while nothing is; ends on ``stop``, and when all is done."""
        while not self._stop.is_set():
            with self._lock:
                gone = self._gone.pop(0) if self._gone else None
            item = gone or self.due()
            yield item
            if item is None:
                if self._over():
                    return
                if not self._under_way:
                    self._idle()
                self._wake.clear()
                self._rest(self._until_due())

    def due(self) -> Visit | NotARun | None:
        """Give the next run to visit; it is not given again until `settle`."""
        with self._lock:
            if self._no_runs:
                return self._no_runs.pop(0)
            now = self._clock()
            asking = self._who_may_ask()
            if asking is not None and now >= self._ask_at:
                self._asking = asking
                self._retry()
                return self._begin(asking, now)
            second = self._others if self._first is self._changed else self._changed
            for heap, other in ((self._first, second), (second, self._first)):
                while heap and heap[0][0] <= now:
                    when, _, path = heapq.heappop(heap)
                    run = self._runs.get(path)
                    if run is not None and run.due == when and not run.busy:
                        self._first = other
                        return self._begin(path, now)
            return None

    def settle(self, outcome: Outcome) -> None:
        """Plan the next visit by what came of the last."""
        if isinstance(outcome, (Started, Progress, Gone)):
            return
        with self._lock:
            path, now = outcome.run, self._clock()
            run = self._runs.get(path)
            if run is None or not run.busy:
                return  # of what is no run
            run.busy = False
            self._under_way -= 1
            found_out = isinstance(outcome, Failed) and isinstance(outcome.error, RunGone)
            if found_out:
                run.gone = not run.changed  # else there is one again
            if run.gone:
                if not found_out:  # which `follow` reports
                    self._gone.append(Gone(path))
                self._let_go(path)
                return
            away = isinstance(outcome, Failed) and outcome.error.outage
            if not isinstance(outcome, Failed):
                run.failures, run.not_before = 0, 0.0
            match outcome:
                case Delivered() | UpToDate():
                    run.live = run.open = outcome.facts.state is RunState.LIVE
                    if run.keep_alive or isinstance(outcome, Delivered):
                        self._note_reported(run, now, outcome.revived)
                    if run.live:
                        self._plan(path, run, run.ping_due)
                    self._plan_again(path, run, outcome.again, now)
                case Skipped():
                    run.live, run.open = False, outcome.again is not None
                    self._plan_again(path, run, outcome.again, now)
                case Failed():
                    run.failures += not away  # which is no fault of this run
                    run.open = away or run.failures < _GIVE_UP
                    if not away:
                        later = now + _pause(run.failures, *_RUN_PAUSES)
                        self._plan(path, run, later)
                        # of its files a look shows at once whether they are better now
                        mended_here = isinstance(outcome.error, (RunUnreadable, RunChanged))
                        run.not_before = 0.0 if mended_here else later
                case _:
                    assert_never(outcome)
            self._settle_outage(path, away, now)
            if run.changed:
                run.changed = False
                self._plan(path, run, now + _SETTLING, changed=True)
            tuning = self._family.after(outcome)
            if tuning is not None and tuning in self._runs:
                self._plan(tuning, self._runs[tuning], now + _SETTLING, changed=True)

    def _note_reported(self, run: _Known, now: float, revived: bool) -> None:
        """Note that a run was reported to ClearML, or its task pinged, and whether that had been too late."""
        if revived and run.reported is not None:
            # by the wall as well: the other clock stands still while the machine sleeps
            self._silence.was_too_long(max(now - run.reported[0], self._now() - run.reported[1]))
        run.reported = now, self._now()
        if run.live:
            run.ping_due = now + self._silence.after(now, sum(known.live for known in self._runs.values()))

    def _settle_outage(self, path: Path, away: bool, now: float) -> None:
        asked = path == self._asking
        if away:
            first = not self._away
            self._away.pop(path, None)
            self._away[path] = None
            if asked or first:
                self._asked += 1
                self._asking, self._ask_at = None, now + _pause(self._asked, *_SERVER_PAUSES)
        else:
            self._away.pop(path, None)
            if asked or not self._away:
                self._asking, self._asked = None, 0
                for waiting in self._away:
                    self._plan(waiting, self._runs[waiting], now)
                self._away.clear()

    def _who_may_ask(self) -> Path | None:
        """Give a run that waits for ClearML, unless one is asking already."""
        if self._asking is not None:
            return None
        return next((path for path in self._away if not self._runs[path].busy), None)

    def _begin(self, path: Path, now: float) -> Visit:
        run = self._runs[path]
        run.due, run.urgent, run.busy, run.changed = None, False, True, False
        self._under_way += 1
        run.keep_alive = run.live and now >= run.ping_due
        return Visit(path, run.keep_alive)

    def _plan(self, path: Path, run: _Known, when: float, changed: bool = False) -> None:
        """Make a run due, if it is not due earlier; what ``changed`` then takes its turn among its like."""
        when = max(when, run.not_before, self._clock())  # no sooner than what is due already
        if run.busy:
            run.changed = True
            return
        sooner = run.due is None or when < run.due
        due = when if run.due is None else min(when, run.due)
        if sooner or (changed and not run.urgent):
            run.due, run.urgent = due, changed
            heapq.heappush(self._changed if changed else self._others, (due, next(self._order), path))

    def _plan_again(self, path: Path, run: _Known, again: float | None, now: float) -> None:
        if again is not None:
            self._plan(path, run, now + max(_SOONEST, again - self._now()))

    def _until_due(self) -> float:
        with self._lock:
            times = [heap[0][0] for heap in (self._changed, self._others) if heap]
            if self._who_may_ask() is not None:
                times.append(self._ask_at)
            # never nothing: a clock too coarse to show the rest would be asked again and again
            return max(0.001, min(times, default=_LONGEST_REST + self._clock()) - self._clock())

    def _over(self) -> bool:
        with self._lock:
            return (
                self._once
                and (bool(self._runs) or self.elsewhere)
                and not self._away
                and not self._gone
                and not any(
                    run.busy or run.open or (run.due is not None and not run.failures)
                    for run in self._runs.values()
                )
            )


def follow(agenda: Agenda, work: Work, jobs: int, stop: threading.Event) -> Iterator[Outcome]:
    """Bring ClearML up to date with the runs of ``agenda`` until it ends; yields what happens.

    A run that is gone is forgotten, and Gone. Sets ``stop`` at an error that all runs meet and that
    does not pass by itself: ClearML's configuration is read once.
    """
    for outcome in sync(agenda, work, jobs, stop):
        agenda.settle(outcome)
        if isinstance(outcome, Failed) and outcome.error.fatal and not outcome.error.outage:
            stop.set()
        gone = isinstance(outcome, Failed) and isinstance(outcome.error, RunGone)
        yield Gone(outcome.run) if gone else outcome


def _pause(failures: int, first: float, longest: float) -> float:
    """Seconds until the next try: twice as long each time, and not for all who wait at the same moment."""
    full = min(longest, first * 2.0 ** min(failures - 1, 30))
    return full * random.uniform(0.5, 1.0)  # noqa: S311  no secret
