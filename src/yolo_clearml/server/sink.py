"""Reports to ClearML: who is logged in, which task is a run's, and what came of reading it back."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import ServerFailing, ServerUnreachable, YoloClearmlError
from ..events import Plan
from ..sync.sinks import Delivery, Moved
from ..sync.verdict import Verdict, no_task
from . import adoption, children, moving, reader, siblings
from .api import Api
from .delivery import TaskDelivery
from .destination import RUNTIME_DESTINATION, Decide, Destination, of_task
from .ownership import key_of, mark_of
from .payloads import RUNTIME_KEY
from .recognition import Found, Measure
from .tasks import (
    alike,
    but_for_added,
    by_id,
    drop_twins,
    find,
    given_task,
    is_closed,
    keep_alive,
    make,
    require_no_less,
    why_closed,
)


class ClearmlSink:
    """Tasks on the configured ClearML server; logs in when the first task is opened."""

    def __init__(
        self, timeout: float, output_uri: str | None = None, stop: threading.Event | None = None
    ) -> None:
        self._timeout = timeout
        self._output_uri = output_uri
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._api: Api | None = None
        self._failure: YoloClearmlError | None = None

    @property
    def server(self) -> str | None:
        """The server and the workspace on it; logs in."""
        with self._logged_in() as api:
            return api.workspace

    def has(self, task_id: str) -> bool:
        """Check whether a task that the ledger knows is there; raises as `Api.call` does."""
        with self._logged_in() as api:
            return by_id(api, task_id) is not None

    def keep_alive(self, task_id: str, key: str) -> bool:
        """Let the server know that a training goes on, where its task is in progress; gives whether it is."""
        with self._logged_in() as api:
            return keep_alive(api, task_id, key)

    def move(
        self,
        plan: Plan,
        wanted: tuple[str | None, str | None],
        known: tuple[str, str] | None,
        task_id: str | None,
        copy: str,
    ) -> Moved | None:
        """Put the task of a run where it is wanted, if there is one; raises as `moving.move` does."""
        with self._logged_in() as api:
            task, found = find(api, plan, task_id, copy)
            return None if task is None else moving.move(api, plan, task, found, plan.key + copy, *wanted)

    @contextmanager
    def open(
        self, plan: Plan, root: Path, task_id: str | None, copy: str, given: str | None = None
    ) -> Iterator[Delivery]:
        """Find the task, else make it; raises TaskOffLimits where a person has closed it to writers."""
        key = plan.key + copy
        found = Found()
        with self._logged_in() as api:
            if given is None:
                task, found = find(api, plan, task_id, copy)
            else:
                task = given_task(api, given, plan.key)
            fresh = task is None or task["id"] != task_id or task["status"] == "created"
            made = task is None
            decide: Decide | None = None
            if task is None:
                task, destination = make(api, plan, key, found, self._output_uri)
                decide = partial(Destination, destination.address, destination.named_by)
            elif given is None and task["id"] != task_id:
                drop_twins(api, key, alike(api, plan, key, found.others))
            require_no_less(plan, task)
            only_ours = given is None and not found.notes  # nobody but us has reported to it
            others = mark_of(task) is not None or (key_of(task) is None and not only_ours)
            if not others and not is_closed(task, stopped=given is not None):  # which the delivery meets
                if key_of(task) is None:
                    # a person reset the task: that wipes the key it is found by
                    # and lets them edit its destination
                    runtime = {RUNTIME_KEY: key, RUNTIME_DESTINATION: "", **siblings.runtime_rows(plan)}
                    api.call("tasks.edit", {"task": task["id"], "runtime": runtime})
                else:
                    siblings.write_rows(api, plan, task)
            where = decide or partial(of_task, api, task, self._output_uri)
            asked_for, notes = given is not None, found.notes
            yield TaskDelivery(api, plan, root, task, fresh, where, key, notes, made, others, asked_for)

    def verify(self, plan: Plan, root: Path, task_id: str | None, copy: str) -> Verdict:
        """Read the task of a plan back, every value and every byte, and compare; nothing is changed.

        The task is looked for as `open` does. Raises a YoloClearmlError where something cannot be read for
        certain: what was not read is neither verified nor different.
        """
        with self._logged_in() as api:
            task, _ = find(api, plan, task_id, copy)
            if task is None:
                return no_task(task_id)
            ours = mark_of(task) is None and key_of(task) is not None
            same = operator.eq if ours else Measure.of(plan).same
            parents = children.parents(api, plan, str(task["id"]))
            verdict = reader.verify(api, plan, root, str(task["id"]), same, parents)
            verdict = verdict if ours else adoption.but_for_better(plan, verdict, task)
            if is_closed(task, stopped=not ours):
                verdict = but_for_added(verdict)
            return replace(verdict, closed=why_closed(plan, task, ours)) if verdict.task_id else verdict

    @contextmanager
    def _logged_in(self) -> Iterator[Api]:
        """Log in once for all runs; what one of them has waited for in vain, no other waits for again.

        But where the server answers something else at once, it was that run's request that it cannot bear.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure.afresh()
            if self._api is None:
                with self._remembered():
                    self._api = Api(self._timeout, self._stop)
        with self._remembered():
            try:
                yield self._api
            except ServerUnreachable as failure:
                if failure.fatal and not self._stop.is_set() and self._api.answers():
                    raise ServerFailing(str(failure), failure.hint) from failure
                raise

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except YoloClearmlError as failure:
            if failure.fatal:
                self._failure = failure
            raise
