"""A ClearML task read back exactly, and held against a plan.

Only endpoints that give back what was stored are asked: no averages, no down-sampling, no "latest only".
Each list is read to the number the server itself counts; fewer is an error and never a difference.
"""

from __future__ import annotations

import base64
import json
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..events import FileStamp, Parameter, Plan, Points, Scalar
from ..rundir.packing import open_whole
from ..sync.verdict import Verdict, no_task
from .api import Api
from .compare import Checked, Content, HeldArtifact, HeldModel, Holds, Place, Same, check, content_of, verdict
from .exchange import answers_oddly
from .payloads import PLOT_VARIANT, SINGLE_VALUES, Json, shows_in_plots

_SCALARS = "events.scalar_metrics_iter_raw"
_EVENTS = "events.get_task_events"
_SINGLE = "events.get_task_single_value_metrics"
_LOG = "events.get_task_log"
_NAMES = "events.get_scalar_metrics_and_variants"
_POINTS = 100_000  # of curves in a reply, some 5 MB; the server gives 200,000
_IMAGES = 5000  # in a reply, some 4 MB; the server fails over more than 10,000
_PLOTS = 200  # in a reply; one drawn by plotly may have 100 kB and more
_LINES = 5000  # of the console in a reply, as the server has it; some MB
_MODELS = 500  # in a reply; the server gives no more
_LARGEST_PLOT = 64 * 2**20  # bytes
_LARGEST_PACKED = 2**63  # bytes; a folder is as large as it was packed
_DOWNLOADS = 4  # files at a time
_PIECE = 2**20  # bytes of a file read at a time
# what a reply of another shape than the promised one runs into
_ODD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def read(api: Api, task_id: str, titles: Iterable[str]) -> Holds | None:
    """Read everything a task holds but the bytes of its files; None where there is no such task.

    Curves are read of ``titles`` and of every other one the server names; of many hundreds it names a part.
    Raises as `Api.call` does, and ServerFailing where a reply lacks what it must have.
    """
    fields = ["id", "name", "status", "status_reason", "project", "tags", "hyperparams", "models.output"]
    fields.append("execution.artifacts")
    query = {"id": [task_id], "only_fields": fields, "search_hidden": True}
    found = api.rows("tasks.get_all_ex", query, "tasks")
    task = next((task for task in found if task["id"] == task_id), None)
    if task is None:
        return None
    reader = _Reader(api, task_id)
    try:
        project_id = _text(task["project"]) if task.get("project") is not None else None
        name, status = _text(task["name"]), _text(task["status"])
        tags = tuple(_text(tag) for tag in task.get("tags") or ())
        parameters = parameters_of(task)
        outputs = (task.get("models") or {}).get("output") or ()
        artifacts = _artifacts(task)
        links = {_text(link["model"]): _text(link["name"]) for link in outputs}
    except _ODD as cause:
        raise answers_oddly(api.host, "tasks.get_all_ex") from cause
    images = reader.images()
    as_images = {
        place: urls
        for place, urls in images.items()
        if place[1] == PLOT_VARIANT and not any(map(shows_in_plots, urls))
    }
    return Holds(
        task_id=task_id,
        status=status,
        project=project_called(api, project_id) if project_id is not None else None,
        project_id=project_id,
        name=name,
        tags=tags,
        parameters=parameters,
        scalars=reader.scalars(titles),
        single_values=reader.single_values(),
        images={place: urls for place, urls in images.items() if place not in as_images},
        plots=as_images | reader.plots(),
        models=reader.models(links),
        reason=str(task.get("status_reason") or ""),
        artifacts=artifacts,
    )


def curves(api: Api, task_id: str, titles: Iterable[str]) -> dict[tuple[str, str], dict[int, float]]:
    """Read the curves of ``titles``: values by title and series, and by iteration; raises as `read` does."""
    reader = _Reader(api, task_id)
    return {(title, series): points for title in titles for series, points in reader.points(title).items()}


def checked(api: Api, plan: Plan, root: Path, holds: Holds, same: Same = operator.eq) -> Iterator[Checked]:
    """Look for each event of a plan that is wanted in what a task holds, reading its files several at a time.

    ``same`` is that of `compare.check`. Raises FileServerUnreachable where a file cannot be read for certain,
    and RunChanged.
    """
    files = BothSides(api, root)
    with ThreadPoolExecutor(_DOWNLOADS, "verify") as pool:
        # the points of epochs need no file, and are most of the reports: no thread is woken for each
        read = [
            pool.submit(check, report, holds, files, same) if not isinstance(report.events, Points) else None
            for report in plan.wanted
        ]
        try:
            for report, under_way in zip(plan.wanted, read, strict=True):
                yield from check(report, holds, files, same) if under_way is None else under_way.result()
        finally:
            for under_way in filter(None, read):
                under_way.cancel()


def verify(
    api: Api,
    plan: Plan,
    root: Path,
    task_id: str,
    same: Same = operator.eq,
    parents: Mapping[str, str | None] = MappingProxyType({}),
) -> Verdict:
    """Read a task back and hold it against the plan of the run at ``root``; raises as both do.

    ``parents`` are those of a tuning's trainings, by their keys.
    """
    holds = read(api, task_id, titles_of(plan))
    if holds is None:
        return no_task(task_id)
    holds = replace(holds, parents=parents)
    url = api.task_url(holds.project_id, task_id)
    return verdict(plan, holds, url, checked(api, plan, root, holds, same))


def console(api: Api, task_id: str) -> Iterator[str]:
    """Give what was logged to a task's console, the latest first; raises as `Api.call` does."""
    payload: Json = {"task": task_id, "batch_size": _LINES, "navigate_earlier": True}
    while True:
        reply = api.call(_LOG, payload)
        try:
            page = [(int(event["timestamp"]), str(event.get("msg") or "")) for event in reply["events"]]
        except _ODD as cause:
            raise answers_oddly(api.host, _LOG) from cause
        yield from (text for _, text in page)
        if len(page) < _LINES:
            return
        # a page may end within a millisecond, and the next one holds what is before the time it is given
        first, last = min(at for at, _ in page), payload.get("from_timestamp")
        payload["from_timestamp"] = first + 1 if last is None or first + 1 < last else first


def project_named(api: Api, name: str) -> Json | None:
    """Find a project by its exact name."""
    query = {"name": f"^{escaped(name)}$", "search_hidden": True}
    fields = ["id", "name", "default_output_destination"]
    found = api.rows("projects.get_all_ex", query | {"only_fields": fields}, "projects")
    return next((project for project in found if project.get("name") == name), None)


def project_called(api: Api, project_id: str) -> str | None:
    """Give a project's name; None where there is no such project."""
    query = {"id": [project_id], "only_fields": ["id", "name"], "search_hidden": True}
    found = api.rows("projects.get_all_ex", query, "projects")
    return next((str(row.get("name")) for row in found if row["id"] == project_id), None)


def escaped(name: str) -> str:
    """Escape for the server's regular expressions, as `re.escape` does but without touching blanks."""
    return "".join(f"\\{c}" if c in r".^$*+?{}[]\|()-" else c for c in name)


def titles_of(plan: Plan) -> set[str]:
    """Give the titles of a plan's curves."""
    return {e.title for report in plan.reports for e in report.events if isinstance(e, Scalar)}


@dataclass(frozen=True, slots=True)
class BothSides:
    """The files of a run and those that ClearML stores."""

    _api: Api
    _root: Path

    def here(self, stamp: FileStamp) -> Content:
        """Read a file of the run; raises RunChanged."""
        most = stamp.size if not stamp.members else _LARGEST_PACKED
        with open_whole(self._root, stamp) as file:
            return content_of(iter(lambda: file.read(_PIECE), b""), most)

    def there(self, url: str, most: int) -> Content | None:
        """Read what is stored at an address, up to ``most`` bytes; raises FileServerUnreachable."""
        return self._api.fetch(url, most)


@dataclass(frozen=True, slots=True)
class _Reader:
    """One task, by the endpoints that give back what was stored."""

    _api: Api
    _task_id: str

    def _call(self, endpoint: str, **payload: Any) -> Json:
        return self._api.call(endpoint, payload)

    def scalars(self, titles: Iterable[str]) -> dict[tuple[str, str], dict[int, float]]:
        """Read all points of all curves, but for single values, which are points of another kind there."""
        named = self._call(_NAMES, task=self._task_id).get("metrics")
        if not isinstance(named, dict):
            raise answers_oddly(self._api.host, _NAMES)
        curves = {}
        for title in sorted({*titles, *named}):
            for series, points in self.points(title).items():
                points.pop(SINGLE_VALUES[1], None)
                if points:
                    curves[title, series] = points
        return curves

    def points(self, title: str) -> dict[str, dict[int, float]]:
        payload: Json = {"task": self._task_id, "metric": {"metric": title}, "key": "iter"}
        payload |= {"batch_size": _POINTS, "count_total": True}
        curves: dict[str, dict[int, float]] = {}
        known = 0
        while True:
            reply = self._api.call(_SCALARS, payload)
            try:
                for series, axes in reply["variants"].items():
                    points = zip(axes["iter"], axes["y"], strict=True)
                    curves.setdefault(_text(series), {}).update((_whole(x), _number(y)) for x, y in points)
                total = _whole(reply["total"])
                before, known = known, sum(map(len, curves.values()))
                if known >= total:
                    return curves
                if known == before:
                    raise ValueError("fewer points than the server counts")
                payload["scroll_id"] = _text(reply["scroll_id"])
            except _ODD as cause:
                raise answers_oddly(self._api.host, _SCALARS) from cause

    def single_values(self) -> dict[str, float]:
        reply = self._call(_SINGLE, tasks=[self._task_id])
        try:
            return {
                _text(value["variant"]): _number(value["value"])
                for task in reply["tasks"]
                if _text(task["task"]) == self._task_id
                for value in task["values"]
                if _text(value["metric"]) == SINGLE_VALUES[0]
            }
        except _ODD as cause:
            raise answers_oddly(self._api.host, _SINGLE) from cause

    def images(self) -> dict[Place, tuple[str, ...]]:
        # one without an address, as the SDK reports what had gone when it was to be uploaded, shows nothing
        found = self._places("training_debug_image", _IMAGES, _link)
        return {place: urls for place, urls in found.items() if urls}

    def plots(self) -> dict[Place, tuple[str, ...]]:
        # not by events.get_task_plots, which gives the last iterations of the first titles
        return self._places("plot", _PLOTS, _pictures)

    def _places(
        self, kind: str, size: int, urls: Callable[[Json], tuple[str, ...]]
    ) -> dict[Place, tuple[str, ...]]:
        places: dict[Place, tuple[str, ...]] = {}
        for event in self._events(kind, size):
            try:
                place = _place(event)
                places[place] = places.get(place, ()) + urls(event)
            except _ODD as cause:
                raise answers_oddly(self._api.host, _EVENTS) from cause
        return places

    def _events(self, kind: str, size: int) -> Iterator[Json]:
        """Give all events of a kind, each once, from the last iteration to the first.

        In this order, because a page that ends at iteration 0 is followed by the first one again, for ever.
        """
        payload: Json = {"task": self._task_id, "event_type": kind, "order": "desc", "batch_size": size}
        seen: set[tuple[Place, str]] = set()
        while True:
            reply = self._api.call(_EVENTS, payload)
            try:
                page = {(_place(event), str(event.get("key"))): event for event in reply["events"]}
                total = _whole(reply["total"])
                fresh = page.keys() - seen
                seen |= fresh
                ended = len(seen) >= total
                if not fresh and not ended:
                    raise ValueError("fewer events than the server counts")
                payload["scroll_id"] = None if ended else _text(reply["scroll_id"])
            except _ODD as cause:
                raise answers_oddly(self._api.host, _EVENTS) from cause
            yield from (event for identity, event in page.items() if identity in fresh)
            if ended:
                return

    def models(self, links: Mapping[str, str]) -> tuple[HeldModel, ...]:
        query = {"task": [self._task_id], "only_fields": ["id", "name", "uri", "labels", "created"]}
        rows: list[Json] = []
        for page in range(2**31):
            pages = {"order_by": ["created"], "page": page, "page_size": _MODELS}
            more = self._api.rows("models.get_all", query | pages, "models")
            rows += more
            if len(more) < _MODELS:
                break
        try:
            return tuple(
                HeldModel(
                    _text(row["name"]),
                    _text(row["uri"]),
                    {_text(label): _whole(index) for label, index in (row.get("labels") or {}).items()},
                    links.get(row["id"]),
                )
                for row in rows
            )
        except _ODD as cause:
            raise answers_oddly(self._api.host, "models.get_all") from cause


def parameters_of(task: Json) -> dict[tuple[str, str], Parameter]:
    """Read a task's parameters by the section and name they state: as keys, the server escapes them."""
    items = [item for section in (task.get("hyperparams") or {}).values() for item in section.values()]
    return {
        (_text(item["section"]), _text(item["name"])): Parameter(
            _text(item.get("value") or ""), _text(item.get("type") or "") or None
        )
        for item in items
    }


def _artifacts(task: Json) -> dict[str, HeldArtifact]:
    """Read the output artifacts of a task by name; an input one of the same name is another's output."""
    rows = (task.get("execution") or {}).get("artifacts") or ()
    return {
        _text(row["key"]): HeldArtifact(_text(row.get("uri") or ""), _text(row.get("hash") or ""))
        for row in rows
        if row.get("mode", "output") == "output"
    }


def _link(event: Json) -> tuple[str, ...]:
    """Give the address of a debug image, if it has one."""
    url = event.get("url")
    return (_text(url),) if url is not None else ()


def _pictures(event: Json) -> tuple[str, ...]:
    """Give the addresses of the pictures a plot's layout shows; a long plot comes compressed."""
    text: Any = event.get("plot_str")
    if text is None and isinstance(packed := event.get("plot_data"), str):
        text = zlib.decompressobj().decompress(base64.b64decode(packed), _LARGEST_PLOT)
    try:
        images = json.loads(text)["layout"]["images"]
        sources = [image["source"] for image in images]
    except (*_ODD, zlib.error, RecursionError):
        return ()  # a plot of another kind
    return tuple(source for source in sources if isinstance(source, str) and "://" in source)


def _place(event: Json) -> Place:
    return _text(event["metric"]), _text(event["variant"]), _whole(event["iter"])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return float(value)
