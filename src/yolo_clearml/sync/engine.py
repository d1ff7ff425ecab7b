"""The loop: a stream of runs, each brought up to date in turn.

A stream that ends is ``upload``, one that gives a run again whenever something changed is ``watch``. It
yields Outcomes and knows no terminal; it imports neither clearml nor matplotlib, which the sink does when
there is something to send.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import system
from ..errors import OurFault
from ..rundir.finding import Found
from ..rundir.run import NotARun
from ..rundir.tuning import is_tuning
from .outcomes import Facts, Failed, Gone, Outcome, Skipped, UpToDate
from .visit import recognised, visit
from .work import Visit, Work


def sync(
    runs: Iterable[Found | Visit | Gone | None],
    work: Work,
    jobs: int = 1,
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Bring ClearML up to date with every run that ``runs`` gives, in turn; yields what happens.

    At most ``jobs`` runs at a time, and none at the same time as itself if ``runs`` does not give it again
    before its last outcome was yielded; a None means that there is nothing to visit at the moment, and a Gone
    is passed on. A run that fails does not stop the others; an error that all of them would meet is met by
    the sink once. After ``stop`` is set no further run is begun. Raises what ``runs`` raises.
    """
    stop = stop or threading.Event()
    outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def visit_one(asked: Visit) -> None:
        try:
            if not stop.is_set():
                for outcome in visit(asked.run, work, asked.keep_alive):
                    outcomes.put(outcome)
                    if stop.is_set():
                        break
        except Exception as fault:  # noqa: BLE001  reported, and the other runs are not to blame
            outcomes.put(Failed(asked.run, Facts(), OurFault.over(fault)))
        finally:
            outcomes.put(None)

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="run") as pool:
        under_way = 0
        tunings: list[Visit] = []  # after their trainings, whose tasks become their children
        try:
            for item in runs:
                if stop.is_set():
                    break
                if isinstance(item, NotARun):
                    yield Skipped(item.path, item.reason, item.hint)
                elif isinstance(item, Gone):
                    yield item
                elif item is not None:
                    asked = item if isinstance(item, Visit) else Visit(item)
                    settled = _if_settled(asked.run, work)
                    if settled is not None:
                        yield settled
                    elif asked is not item and is_tuning(asked.run):
                        tunings.append(asked)
                    else:
                        pool.submit(visit_one, asked)
                        under_way += 1
                # as many may wait as work, so that memory does not grow with the number of runs
                while under_way >= 2 * jobs or not outcomes.empty():
                    outcome = _next(outcomes)
                    under_way -= outcome is None
                    if outcome is not None:
                        yield outcome
            for waiting in ([], tunings):
                for asked in waiting:
                    pool.submit(visit_one, asked)
                under_way += len(waiting)
                while under_way:
                    outcome = _next(outcomes)
                    under_way -= outcome is None
                    if outcome is not None:
                        yield outcome
        except BaseException:
            stop.set()  # a fault, or the consumer went away: begin nothing more, let what is under way end
            raise


def _next(outcomes: queue.SimpleQueue[Outcome | None]) -> Outcome | None:
    """Wait for the next outcome, such that a signal is heeded meanwhile on every system."""
    while True:
        with contextlib.suppress(queue.Empty):
            return outcomes.get(timeout=system.ATTENTIVE)


def _if_settled(path: Path, work: Work) -> UpToDate | None:
    """Recognise a run that has nothing to report, as most: to hand it to a thread would cost more."""
    try:
        looked = recognised(path, work)
    except Exception:  # noqa: BLE001  the visit meets it as well, and reports it
        return None
    return looked if isinstance(looked, UpToDate) else None
