"""The event store: what Elasticsearch keeps, what it refuses, and what that does to a task's statistics."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .errors import ApiError, data_error, invalid_task, server_error, validation_error

if TYPE_CHECKING:
    from .state import State

Json = dict[str, Any]
Number = (int, float)

SCALAR = "training_stats_scalar"
VECTOR = "training_stats_vector"
IMAGE = "training_debug_image"
PLOT = "plot"
LOG = "log"
TYPES = (SCALAR, VECTOR, IMAGE, PLOT, LOG)

SINGLE_VALUE_METRIC = "Summary"
SINGLE_VALUE_ITERATION = -(2**31)
CHUNK = 500  # documents per bulk request
LONGEST_KEYWORD = 32766  # bytes
MAX_LONG = 2**63 - 1
MAX_FLOAT = 3.4028235677973366e38  # beyond it Elasticsearch's `float` is infinite
COMPRESSED_FROM = 100_000  # characters of plot_str
LARGEST_PAGE = 10_000
LARGEST_RAW_PAGE = 200_000
LARGEST_TOP_HITS = 100  # of Elasticsearch's default index.max_inner_result_window
NO_ITERATION_FROM = (":monitor:machine", ":monitor:gpu")


def hash_name(name: str) -> str:
    """Return the key under which a metric or variant stands in `last_metrics`."""
    return hashlib.md5(name.encode()).hexdigest()


def event_id(event: Json) -> str:
    """Return the id under which an event is stored: the same id overwrites."""
    parts = (str(event[name]) for name in ("task", "iter", "metric", "variant", "key") if name in event)
    return hashlib.md5("-".join(parts).encode()).hexdigest()


def plot_urls(plot: str) -> list[str]:
    """Return the files a plot's layout shows."""
    return re.findall(r"['\"]source['\"]:\s?['\"]([a-z][a-z0-9+\-.]*://.*?)['\"]", plot, re.IGNORECASE)


def _document_fault(event: Json) -> str | None:
    """Return why Elasticsearch does not index this document, or None."""
    for name in ("metric", "variant", "url", "key"):
        text = str(event.get(name, ""))
        # no character has more than four bytes
        if len(text) > LONGEST_KEYWORD / 4 and len(text.encode("utf-8", "replace")) > LONGEST_KEYWORD:
            return f"field {name} is longer than {LONGEST_KEYWORD} bytes"
    timestamp = event["timestamp"]
    if isinstance(timestamp, float) and not math.isfinite(timestamp):
        return "failed to parse field [timestamp]"
    if event["type"] == SCALAR and event.get("value") is not None:
        value = event["value"]
        if isinstance(value, float) and math.isnan(value):
            return "Non-standard token 'NaN': enable `JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS` to allow"
        if isinstance(value, bool) or not abs(value) <= MAX_FLOAT:
            return "[1:1] failed to parse field [value] of type [float]"
    return None


class EventStore:
    """All events, per task, type and id, in the order of their first arrival."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._stored: defaultdict[tuple[str, str], dict[str, Json]] = defaultdict(dict)
        self.received: dict[str, int] = defaultdict(int)  # accepted lines per task, overwriting ones too
        # events that are refused, and how: the whole batch, that document, or that line
        self.poison: tuple[str, Callable[[Json], bool]] | None = None
        self.stamped: set[str] = set()  # ids of the events whose timestamp is the server's

    # -- writing -------------------------------------------------------------------------------

    def add(self, lines: list[Json], worker: str) -> Json:
        """Store a batch the way `events.add_batch` does and return its reply."""
        # the first line decides, the others must agree
        allow_locked = bool(lines[0].get("allow_locked"))
        errors: dict[str, int] = defaultdict(int)
        actions: list[tuple[str, Json, bool]] = []
        iterations: dict[str, int] = defaultdict(int)
        overlong = 0
        if any(self._is_poison("batch", line) for line in lines):
            raise validation_error("Events not understood")
        arrived = datetime.fromtimestamp(self._state.clock(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
        for line in lines:
            event = {**line, "model_event": False}
            if bool(event.pop("allow_locked", allow_locked)) != allow_locked:
                raise validation_error("Inconsistent allow_locked setting in the passed events")
            fault = self._refusal(event, allow_locked)
            if fault:
                errors[fault] += 1
                continue
            event["type"] = event["type"].replace(" ", "_")
            if "ts" in event:
                event["timestamp"] = event.pop("ts")
            stamped = event.get("timestamp") is None
            if stamped:
                event["timestamp"] = int(self._state.clock() * 1000)
            event["@timestamp"] = f"{arrived[:-3]}Z"
            event.setdefault("worker", worker or "<unknown>")
            iteration = event.get("iter")
            if iteration is not None:
                event["iter"] = iteration = int(iteration)
                if not -MAX_LONG - 1 <= iteration <= MAX_LONG:
                    errors[f"Iteration number should not exceed {MAX_LONG}"] += 1
                    overlong += 1
                    continue
            if "values" in event:
                event["value"] = event.pop("values")
            event["metric"] = event.get("metric") or ""
            event["variant"] = event.get("variant") or ""
            value = event.get("value")
            if event["type"] == SCALAR and value is not None and not isinstance(value, Number):
                # the statistics are summed up before anything is written
                raise server_error(f"unsupported operand type(s) for +: 'int' and '{type(value).__name__}'")
            identity = uuid.uuid4().hex if event["type"] == LOG else event_id(event)
            iterations.setdefault(event["task"], 0)
            if iteration is not None and event["metric"] not in NO_ITERATION_FROM:
                iterations[event["task"]] = max(iteration, iterations[event["task"]])
            self._prepare_plot(event)
            actions.append((identity, event, stamped))

        added = self._index(actions)
        self._update_statistics([event for _, event, _ in actions], iterations)
        if overlong:
            # after the good ones were stored and counted
            raise data_error(f"{overlong} document(s) failed to index.", extra_info=None)
        if not added:
            raise ApiError(400, 131, "Events not added", **errors)
        return {"added": added, "errors": sum(errors.values()), "errors_info": dict(errors)}

    def _is_poison(self, how: str, event: Json) -> bool:
        return self.poison is not None and self.poison[0] == how and self.poison[1](event)

    def _refusal(self, event: Json, allow_locked: bool) -> str | None:
        kind = event.get("type")
        if kind is None:
            return "Event must have a 'type' field"
        if not isinstance(kind, str) or kind.replace(" ", "_") not in TYPES:
            return f"Invalid event type {kind}"
        if event.get("task") is None:
            return "Event must have a 'task' field"
        task = self._state.tasks.get(event["task"])
        if self._is_poison("line", event):
            return "Invalid event"
        if task is None or (task["status"] in ("publishing", "published") and not allow_locked):
            return f"Invalid task id {event['task']}"
        return None

    @staticmethod
    def _prepare_plot(event: Json) -> None:
        if event["type"] != PLOT:
            return
        text = event.get("plot_str") or ""
        event["plot_len"] = len(text)
        urls = sorted(set(plot_urls(text)))
        if urls:
            event["source_urls"] = urls
        event.pop("skip_validation", None)

    def _index(self, actions: list[tuple[str, Json, bool]]) -> int:
        added = 0
        for start in range(0, len(actions), CHUNK):
            failed = []
            for identity, event, stamped in actions[start : start + CHUNK]:
                fault = "mapping" if self._is_poison("document", event) else _document_fault(event)
                if fault:
                    failed.append(fault)
                    continue
                self._stored[event["task"], event["type"]][identity] = event
                self.received[event["task"]] += 1
                (self.stamped.add if stamped else self.stamped.discard)(identity)
                added += 1
            if failed:
                # the rest of this chunk is stored, later chunks and the statistics are not touched
                raise data_error(f"{len(failed)} document(s) failed to index.", extra_info=failed[0])
        return added

    def _update_statistics(self, events: list[Json], iterations: dict[str, int]) -> None:
        for event in events:
            if isinstance(event["timestamp"], str):
                # Elasticsearch reads a date, Mongo's statistics want a number
                raise data_error(f"timestamp {event['timestamp']} could not be converted to int")
        for task_id, highest in iterations.items():
            task = self._state.tasks[task_id]
            batch: dict[tuple[str, str], list[Json]] = defaultdict(list)
            for event in events:
                if (
                    event["task"] == task_id
                    and event["type"] == SCALAR
                    and event["metric"]
                    and event["variant"]
                    and event.get("value") is not None
                ):
                    batch[event["metric"], event["variant"]].append(event)
            for (metric, variant), points in batch.items():
                metrics = task["last_metrics"].setdefault(hash_name(metric), {})
                metrics[hash_name(variant)] = self._statistics(metrics.get(hash_name(variant)), points)
            task["last_iteration"] = max(task["last_iteration"], highest)
            self._state.touch(task, active=True)

    @staticmethod
    def _statistics(known: Json | None, points: list[Json]) -> Json:
        """Fold a batch's points of one series into what the task remembers of it."""
        result = dict(known or {})
        last = points[0]
        for point in points:
            if (point.get("iter", 0), point["timestamp"]) >= (last.get("iter", 0), last["timestamp"]):
                last = point
            value, iteration = float(point["value"]), point.get("iter", 0)
            if "first_value" not in result:
                result.update(first_value=value, first_value_iteration=iteration)
            if value < result.get("min_value", math.inf):
                result.update(min_value=value, min_value_iteration=iteration)
            if value > result.get("max_value", -math.inf):
                result.update(max_value=value, max_value_iteration=iteration)
        # the value is that of the last batch to arrive, even when it is about earlier iterations
        result.update(metric=last["metric"], variant=last["variant"], value=float(last["value"]))
        before = result.get("count", 0)
        total = result.get("mean_value", 0.0) * before + sum(float(point["value"]) for point in points)
        result["count"] = before + len(points)
        result["mean_value"] = round(total / result["count"], 2)
        return result

    def delete_of(self, task_id: str) -> None:
        """Forget all events of a task."""
        for kind in TYPES:
            self._stored.pop((task_id, kind), None)

    # -- reading -------------------------------------------------------------------------------

    def stored(self, task_id: str, kind: str) -> dict[str, Json]:
        """Return a task's events of one type by their ids, live, in the order of their first arrival."""
        return self._stored[task_id, kind]

    def of(self, task_id: str, kind: str) -> list[Json]:
        """Return a task's events of one type, in the order of their first arrival."""
        return list(self.stored(task_id, kind).values())

    def _task(self, task_id: Any) -> str:
        if task_id not in self._state.tasks:
            raise invalid_task(task_id)
        return str(task_id)

    def scalar_metrics_iter_raw(self, body: Json) -> Json:
        """All points of one metric as they were sent, in order of iteration whatever their variant."""
        task_id = self._task(body["task"])
        wanted = body["metric"]
        size = body.get("batch_size") or 10_000
        if size > LARGEST_RAW_PAGE:
            raise validation_error(f"batch_size should not exceed {LARGEST_RAW_PAGE}")
        key = body.get("key") or "iter"
        axis = "timestamp" if key == "timestamp" else "iter"
        points = [
            event
            for event in self.of(task_id, SCALAR)
            if event["metric"] == wanted.get("metric")
            and (not wanted.get("variants") or event["variant"] in wanted["variants"])
        ]
        total = len(points) if body.get("count_total") else None
        scrolled = _unscroll(body.get("scroll_id"))
        begin = None
        if scrolled is not None:
            begin, total = scrolled
            if begin is None:
                return {"variants": {}, "returned": 0, "total": total, "scroll_id": body["scroll_id"]}
            # falsy, not None: a page that ended at 0 starts again, as the genuine one does
            begin = begin or None
        taken: list[Json] = []
        for _ in range(math.ceil(size / LARGEST_PAGE)):
            more = _page(points, axis, begin, min(size, LARGEST_PAGE), descending=False)
            if not more:
                break
            taken += more
            begin = more[-1].get(axis, 0)
        variants: dict[str, Json] = {}
        for event in taken:
            series = variants.setdefault(event["variant"], {"y": [], key: []})
            series["y"].append(event["value"])
            series[key].append(event[axis])
        last = taken[-1][axis] if taken else None
        return {
            "variants": variants,
            "returned": len(taken),
            "total": total,
            "scroll_id": _scroll([last, total]),
        }

    def single_value_metrics(self, body: Json) -> Json:
        """`events.get_task_single_value_metrics`."""
        tasks = []
        for task_id in body["tasks"]:
            values = [
                {name: event.get(name) for name in ("metric", "variant", "value", "timestamp")}
                for event in self.of(self._task(task_id), SCALAR)
                if event.get("iter") == SINGLE_VALUE_ITERATION
            ]
            if values:
                name = self._state.tasks[task_id]["name"]
                tasks.append({"task": task_id, "task_name": name, "values": values})
        return {"tasks": tasks}

    def task_plots(self, body: Json) -> Json:
        """`events.get_task_plots`: the latest iterations of each plot, long ones unpacked."""
        wanted = {item["metric"]: item.get("variants") for item in body.get("metrics") or []}
        plots = [
            event
            for event in self.of(self._task(body["task"]), PLOT)
            if not wanted
            or (
                event["metric"] in wanted
                and (not wanted[event["metric"]] or event["variant"] in wanted[event["metric"]])
            )
        ]
        iters = body.get("iters") or 1
        if iters > LARGEST_TOP_HITS:
            raise data_error(f"Top hits result window is too large, must be at most [{LARGEST_TOP_HITS}]")
        newest: dict[tuple[str, str], list[int]] = defaultdict(list)
        for plot in plots:
            newest[plot["metric"], plot["variant"]].append(plot.get("iter", 0))
        plots = [
            plot
            for plot in plots
            if plot.get("iter", 0) in sorted(newest[plot["metric"], plot["variant"]], reverse=True)[:iters]
        ]
        plots.sort(key=lambda plot: (plot["metric"], plot["variant"], -plot.get("iter", 0)))
        return {"plots": plots, "returned": len(plots), "total": len(plots), "scroll_id": None}

    def task_events(self, body: Json) -> Json:
        """`events.get_task_events`, with the genuine server's endless turn at iteration 0."""
        task_id = self._task(body["task"])
        kind = body.get("event_type")
        kinds = TYPES if kind is None else (kind,)
        size = body.get("batch_size") or 500
        if size > LARGEST_PAGE:
            raise data_error("Result window is too large, from + size must be less than or equal to: [10000]")
        events = [event for name in kinds if name in TYPES for event in self.of(task_id, name)]
        total = len(events)
        scrolled = _unscroll(body.get("scroll_id"))
        begin = None
        if scrolled is not None:
            begin, total = scrolled
            if begin is None:
                return {"events": [], "returned": 0, "total": total, "scroll_id": body["scroll_id"]}
            # falsy, not None: a page that ended at iteration 0 starts again, as the genuine one does
            begin = begin or None
        page = _page(events, "iter", begin, size, descending=body.get("order") == "desc")
        last = page[-1].get("iter", 0) if page else None
        return {
            "events": [_as_stored(event) for event in page],
            "returned": len(page),
            "total": total,
            "scroll_id": _scroll([last, total]),
        }

    def task_log(self, body: Json) -> Json:
        """`events.get_task_log`: the last before a time, newest first, or the first after one."""
        events = sorted(self.of(self._task(body["task"]), LOG), key=lambda event: event["timestamp"])
        earlier, size = body.get("navigate_earlier", True), body.get("batch_size") or 5000
        total, since = len(events), body.get("from_timestamp")
        if since is not None:
            events = [e for e in events if (e["timestamp"] < since if earlier else e["timestamp"] > since)]
        page = events[-size:][::-1] if earlier else events[:size]
        if body.get("order") and (body["order"] == "asc") == earlier:
            page.reverse()
        return {"events": page, "returned": len(page), "total": total}

    def task_metrics(self, body: Json) -> Json:
        """`events.get_task_metrics`: the names of the metrics of each task."""
        kinds: Iterable[str] = (body["event_type"],) if body.get("event_type") else TYPES
        return {
            "metrics": [
                {
                    "task": task_id,
                    "metrics": sorted(
                        {e["metric"] for kind in kinds for e in self.of(self._task(task_id), kind)}
                    ),
                }
                for task_id in body["tasks"]
            ]
        }

    def metrics_and_variants(self, body: Json, kind: str = SCALAR) -> Json:
        """`events.get_scalar_metrics_and_variants` and its sister for vectors."""
        found: dict[str, set[str]] = defaultdict(set)
        for event in self.of(self._task(body["task"]), kind):
            found[event["metric"]].add(event["variant"])
        return {"metrics": {metric: sorted(variants) for metric, variants in found.items()}}

    def histogram(self, body: Json) -> Json:
        """`events.scalar_metrics_iter_histogram`: float32 averages, down-sampled: no proof of anything."""
        samples = body.get("samples") or 2000
        series: dict[str, dict[str, list[Json]]] = defaultdict(lambda: defaultdict(list))
        for event in self.of(self._task(body["task"]), SCALAR):
            if event.get("iter") != SINGLE_VALUE_ITERATION and event.get("value") is not None:
                series[event["metric"]][event["variant"]].append(event)
        result: dict[str, dict[str, Json]] = {}
        for metric, variants in series.items():
            for variant, events in variants.items():
                iterations = [event.get("iter", 0) for event in events]
                width = max(1, math.ceil((max(iterations) - min(iterations) + 1) / samples))
                buckets: dict[int, list[float]] = defaultdict(list)
                for event in events:
                    buckets[event.get("iter", 0) // width * width].append(_float32(event["value"]))
                x = sorted(buckets)
                y = [sum(buckets[bucket]) / len(buckets[bucket]) for bucket in x]
                result.setdefault(metric, {})[variant] = {"name": variant, "x": x, "y": y}
        return result


def _float32(value: float) -> float:
    narrowed: float = struct.unpack("f", struct.pack("f", value))[0]
    return narrowed


def _page(events: list[Json], axis: str, begin: Any, size: int, *, descending: bool) -> list[Json]:
    """Return the next events after ``begin``; a page always holds its last iteration whole."""
    events = sorted(events, key=lambda event: event.get(axis, 0), reverse=descending)
    if begin is not None:
        events = [e for e in events if (e.get(axis, 0) < begin if descending else e.get(axis, 0) > begin)]
    page = events[:size]
    return page + [event for event in events[size:] if event.get(axis, 0) == page[-1].get(axis, 0)]


def _as_stored(event: Json) -> Json:
    """Return an event as the server stores it: the text of a long plot is packed into another field."""
    text = event.get("plot_str")
    if event["type"] != PLOT or not isinstance(text, str) or len(text) < COMPRESSED_FROM:
        return event
    read = {name: value for name, value in event.items() if name != "plot_str"}
    read["plot_data"] = base64.encodebytes(zlib.compress(text.encode(), level=1)).decode("ascii")
    return read


def _scroll(position: Any) -> str:
    return base64.b64encode(json.dumps(position).encode()).decode()


def _unscroll(scroll_id: Any) -> Any:
    if not scroll_id:
        return None
    try:
        return json.loads(base64.b64decode(scroll_id))
    except ValueError:
        raise ApiError(400, 1104, "Invalid scroll id") from None
