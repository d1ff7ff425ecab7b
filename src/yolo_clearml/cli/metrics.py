"""Counts for Prometheus' textfile collector: runs by state, what was sent, what failed, when all was well."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import UsageError, YoloClearmlError
from ..rundir.files import replacing
from ..sync.outcomes import Delivered, Failed, Gone, Outcome, Progress, Skipped, Started

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_PREFIX = "yolo_clearml_"
_EVERY = 15.0  # seconds; how often Prometheus asks by default


class MetricsUnwritable(YoloClearmlError):
    """The file for Prometheus cannot be written; the runs are done all the same."""


class Metrics:
    """Counts outcomes and writes them to a file, whole or not at all; a context manager.

    Totals go on from what the file held, so that they count over all calls that share it. With ``going_on``
    the file is written now and then as well as at the end, as a watch has none.
    """

    def __init__(self, path: Path, going_on: bool, now: Callable[[], float] = time.time) -> None:
        """Begin to count; raises UsageError where the file has no folder or nobody would read it."""
        # os.path takes names that are too long as well; and a device, as /dev/null, must not be replaced
        hint = "Give a file in the folder of node_exporter's textfile collector, its name ending in .prom."
        replaceable = os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113
        if not (os.path.isdir(path.parent) and replaceable):  # noqa: PTH112
            raise UsageError(f"--metrics {path} names no file in a folder that exists.", hint)
        if not path.name.endswith(".prom"):
            raise UsageError(f"--metrics {path} would not be read: its name does not end in .prom.", hint)
        self._path, self._going_on, self._now = path, going_on, now
        self._states: dict[Path, str] = {}
        self._failing: set[Path] = set()
        before = _totals(path)
        self._sent = before.get("events_sent_total", 0.0)
        self._failures = before.get("failures_total", 0.0)
        self._success = before.get("last_success_timestamp_seconds")
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # or what was counted first could be written last
        self._closing = threading.Event()
        self._cut_short = False
        self._thread = threading.Thread(target=self._write_now_and_then, name="metrics", daemon=True)

    def __enter__(self) -> Metrics:
        if self._going_on:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._going_on:
            self._thread.join()
        if error is None:
            self.write(all_is_well=not self._cut_short)
        else:
            with contextlib.suppress(MetricsUnwritable):
                self.write(all_is_well=False)

    def cut_short(self) -> None:
        """Not every run was visited, so nobody knows whether all is well."""
        self._cut_short = True

    def note(self, outcome: Outcome) -> None:
        """Count an outcome."""
        with self._lock:
            match outcome:
                case Started() | Progress():
                    return
                case Gone():
                    self._failing.discard(outcome.run)
                    self._states.pop(outcome.run, None)
                case Failed():
                    self._failures += 1
                    self._failing.add(outcome.run)
                    if outcome.facts.state:
                        self._states[outcome.run] = outcome.facts.state.value
                    self._states.setdefault(outcome.run, "unknown")
                case Skipped():
                    self._failing.discard(outcome.run)
                    self._states[outcome.run] = "skipped"
                case _:
                    self._failing.discard(outcome.run)
                    state = outcome.facts.state
                    self._states[outcome.run] = state.value if state else "unknown"
            if isinstance(outcome, (Delivered, Failed)):
                self._sent += outcome.events

    def write(self, all_is_well: bool = True) -> None:
        """Replace the file; raises MetricsUnwritable."""
        with self._writing:
            self._replace(self._counts(all_is_well))

    def _counts(self, all_is_well: bool) -> Sequence[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            if self._going_on:  # of a run that was deleted there may have been no outcome
                for run in [run for run in self._states if not os.path.lexists(run)]:
                    self._failing.discard(run)
                    del self._states[run]
            now, states = self._now(), list(self._states.values())
            if all_is_well and not self._failing:
                self._success = now
            elif self._success is not None:  # of tomorrow, by a clock that was set back since
                self._success = min(self._success, now)
            runs = GaugeMetricFamily(_PREFIX + "runs", "Run directories by state.", labels=["state"])
            for state in ("live", "finished", "stopped", "skipped", "unknown"):
                runs.add_metric([state], states.count(state))
            counts: list[Metric] = [
                runs,
                GaugeMetricFamily(
                    _PREFIX + "runs_failing", "Run directories whose last report failed.", len(self._failing)
                ),
                CounterMetricFamily(
                    _PREFIX + "events_sent", "Points, images and plots ClearML acknowledged.", self._sent
                ),
                CounterMetricFamily(_PREFIX + "failures", "Reports of a run that failed.", self._failures),
            ]
            if self._success is not None:
                counts += [
                    GaugeMetricFamily(
                        _PREFIX + "last_success_timestamp_seconds",
                        "When no run was failing last.",
                        self._success,
                    ),
                    GaugeMetricFamily(
                        _PREFIX + "seconds_since_last_success",
                        "How long ago that was, when this was written.",
                        now - self._success,
                    ),
                ]
        return counts

    def _replace(self, counts: Sequence[Metric]) -> None:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Counts(tuple(counts)))
        try:
            with replacing(self._path) as file:
                file.write(generate_latest(registry))
        except OSError as cause:
            raise MetricsUnwritable(
                f"{self._path} cannot be written: {cause.strerror or cause}.",
                "Free some space, or give --metrics a file in a folder that can be written.",
            ) from cause

    def _write_now_and_then(self) -> None:
        tried = False  # before the first run was visited, nothing is known to be well
        while True:
            with contextlib.suppress(MetricsUnwritable):  # met again at the end; there may be space by then
                self.write(all_is_well=tried)
            tried = True
            if self._closing.wait(_EVERY):
                return


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """What a registry collects, all at once."""

    families: tuple[Metric, ...]

    def collect(self) -> tuple[Metric, ...]:
        """Give it."""
        return self.families


def _totals(path: Path) -> dict[str, float]:
    """Read what an earlier call wrote; a file that is none of ours counts as empty."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, IndexError):
        return {}
    samples = (sample for family in families for sample in family.samples)
    return {s.name.removeprefix(_PREFIX): s.value for s in samples if s.name.startswith(_PREFIX)}
