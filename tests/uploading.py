"""Uploads through the engine as the command line wires it, for tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from conftest import long_after
from double import ClearMLDouble

from yolo_clearml.replay.rules import Wishes
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.ledger import FileLedgers, configuration_stamp
from yolo_clearml.sync.outcomes import Failed, Outcome, Progress, Started
from yolo_clearml.sync.sinks import Sink
from yolo_clearml.sync.work import Lazily, Work


def clearml_sink(timeout: float = 2.0, output_uri: str | None = None) -> Callable[[], Sink]:
    def make() -> Sink:
        from yolo_clearml.server.sink import ClearmlSink

        return ClearmlSink(timeout, output_uri)

    return make


def upload(
    paths: Sequence[Path],
    *,
    timeout: float = 2.0,
    jobs: int = 1,
    wishes: Wishes | None = None,
    now: Callable[[], float] = long_after,
    **options: Any,
) -> list[Outcome]:
    """Upload once; gives the outcomes that say how it went."""
    work = Work(
        sink=Lazily(clearml_sink(timeout)),
        ledgers=FileLedgers(),
        server_hint=configuration_stamp(),
        wishes=wishes or Wishes(),
        now=now,
        **options,
    )
    outcomes = sync(find_runs(list(paths)), work, jobs, threading.Event())
    return [outcome for outcome in outcomes if not isinstance(outcome, (Started, Progress))]


def fails(outcomes: Sequence[Outcome]) -> list[str]:
    """Give the sentences of what failed."""
    return [str(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)]


def in_child(action: Callable[[], object]) -> int:
    """Do something in a forked process, which may kill itself; gives how it ended (0: it came to its end)."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def end_state(server: ClearMLDouble) -> dict[str, Any]:
    """Everything on the server but the statistics that count each arrival of the same event.

    Nor does it hold how much the console of an adopted task says was added: that is what the first upload
    found to be lacking, which may have been disturbed.
    """
    state = server.snapshot()
    for task in state["tasks"].values():
        for event in task["log"]:
            said, added, _ = event["msg"].partition(" added to this task ")
            event["msg"] = said + added
        for variants in (task["last_metrics"] or {}).values():
            for variant in variants.values():
                variant.pop("count", None)
                variant.pop("mean_value", None)
    return dict(state)
