"""Reports to a ClearML task: find it or make it, send in order, look at every reply.

    look up by id, by run key --> make, look again --> start --> parameters --> files --> events
                                                        --> model --> completed or stopped

A run's own key travels inside ``tasks.create``, so a lost reply, a lost ledger or another machine finds
the same task again. Event ids, file names and the model's address follow from the run alone, so whatever
is sent twice is stored once.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from . import clearml_reader, payloads
from .clearml_api import Api, RefusedRequest
from .compare import Verdict, no_task
from .errors import ServerRefused, TaskOffLimits, YoloClearmlError
from .events import (
    DrawnPlot,
    Event,
    Hyperparameters,
    Image,
    OutputModel,
    Plan,
    Plot,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
)
from .figures import draw_results, picture_size
from .files import open_stamped
from .payloads import Json
from .sinks import Delivery, Sent, Step, acknowledged, file_size

RUNTIME_KEY = "yolo_clearml"  # a plain key: the server's lookup understands no other
_REASON = "yolo-clearml"  # how the reasons of our own status changes begin
_WATCHDOG = "non-responsive"  # in the reason the server gives when it stops a silent task
_MOST_EVENTS = 5000  # in a request; the index is refreshed for each, so few large ones are faster
_MOST_BYTES = 4 * 2**20  # in a request; the server takes 15 MiB
_EVENT_BYTES = 320  # of an event without its names, with room to spare
_UPLOADS = 4  # files at a time
_TAKEN_OVER = 3  # times that another uploader may end the task under our hands
_FIELDS = ["id", "name", "status", "status_reason", "project", "created", "runtime", "output.destination"]

_File: TypeAlias = "Image | Plot | DrawnPlot | OutputModel"


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

    @contextmanager
    def open(self, plan: Plan, root: Path, task_id: str | None, copy: str) -> Iterator[Delivery]:
        """Find the task, else make it; raises TaskOffLimits where a person has closed it to writers."""
        key = plan.key + copy
        with self._logged_in() as api:
            task = _known(api, task_id, key) or _by_key(api, key)
            fresh = task is None or task["id"] != task_id or task["status"] == "created"
            if task is None:
                task = self._make(api, plan, key)
            _require_writable(task)
            if _key_of(task) != key:
                # a person reset the task: that wipes the key it is found by
                api.call("tasks.edit", {"task": task["id"], "runtime": {RUNTIME_KEY: key}})
            yield _TaskDelivery(api, plan, root, task, fresh, self._destination(api, task))

    def verify(self, plan: Plan, root: Path, task_id: str | None, copy: str) -> Verdict:
        """Read the task of a plan back, every value and every byte, and compare; nothing is changed.

        The task is looked for as `open` does. Raises a YoloClearmlError where something cannot be read for
        certain: what was not read is neither verified nor different.
        """
        with self._logged_in() as api:
            key = plan.key + copy
            task = _known(api, task_id, key) or _by_key(api, key)
            if task is None:
                return no_task(task_id)
            return clearml_reader.verify(api, plan, root, str(task["id"]))

    @contextmanager
    def _logged_in(self) -> Iterator[Api]:
        """Log in once for all runs; what one of them has waited for in vain, no other waits for again."""
        try:
            with self._lock:
                if self._failure is not None:
                    raise self._failure.afresh()
                if self._api is None:
                    self._api = Api(self._timeout, self._stop)
            yield self._api
        except YoloClearmlError as failure:
            if failure.fatal:
                self._failure = failure
            raise

    def _make(self, api: Api, plan: Plan, key: str) -> Json:
        """Make the task; if another uploader made one meanwhile, both keep the older."""
        project_id, destination = _project(api, plan.project)
        entry = {
            "name": plan.name,
            "project": project_id,
            "type": "training",
            "tags": list(plan.tags),
            "comment": plan.comment,
            "runtime": {RUNTIME_KEY: key},
            "output_dest": self._output_uri or destination or api.output_uri or api.files_host,
        }
        made = api.create("tasks.create", entry, lambda: (_by_key(api, key) or {}).get("id"))
        oldest = _by_key(api, key)
        if oldest is None or oldest["id"] != made:
            api.call("tasks.delete", {"task": made, "force": True, "delete_external_artifacts": False})
        if oldest is None:
            raise ServerRefused(
                "ClearML does not find a task by its runtime, so the run would get one more task each time.",
                "Check that the server is ClearML 1.15 or newer.",
            )
        return oldest

    def _destination(self, api: Api, task: Json) -> str:
        stated = (task.get("output") or {}).get("destination")
        return str(self._output_uri or stated or api.output_uri or api.files_host)


def _by_id(api: Api, task_id: str) -> Json | None:
    query = {"id": [task_id], "only_fields": _FIELDS, "search_hidden": True}
    found = api.rows("tasks.get_all_ex", query, "tasks")
    return next((task for task in found if task["id"] == task_id), None)


def _known(api: Api, task_id: str | None, key: str) -> Json | None:
    """Give the task a ledger names, if it is this run's: a ledger lies in a directory nobody vouches for."""
    task = _by_id(api, task_id) if task_id else None
    if task is None or _key_of(task) == key:
        return task
    # a reset wipes the key, and nothing is lost by writing to a task that holds nothing
    return task if _key_of(task) is None and task["status"] == "created" else None


def _key_of(task: Json) -> str | None:
    runtime = task.get("runtime")
    key = runtime.get(RUNTIME_KEY) if isinstance(runtime, dict) else None
    return key if isinstance(key, str) else None


def _by_key(api: Api, key: str) -> Json | None:
    """Find the oldest task of this key; a server that ignores the filter gives tasks of other keys."""
    query = {f"runtime.{RUNTIME_KEY}": key, "only_fields": _FIELDS, "search_hidden": True}
    page = {"order_by": ["created"], "page": 0, "page_size": 100}
    ours = [task for task in api.rows("tasks.get_all_ex", query | page, "tasks") if _key_of(task) == key]
    return min(ours, key=lambda task: (str(task.get("created")), task["id"]), default=None)


def _project(api: Api, name: str) -> tuple[str, str | None]:
    """Find or make a project; gives its id and the default destination of its models, if it has one."""

    def find() -> tuple[str, str | None] | None:
        query = {"name": f"^{_escaped(name)}$", "search_hidden": True}
        fields = ["id", "name", "default_output_destination"]
        found = api.rows("projects.get_all_ex", query | {"only_fields": fields}, "projects")
        match = next((project for project in found if project.get("name") == name), None)
        return (match["id"], match.get("default_output_destination")) if match else None

    there = find()
    if there is None:
        try:
            entry = {"name": name, "description": ""}
            return api.create("projects.create", entry, lambda: (find() or (None, None))[0]), None
        except RefusedRequest:
            there = find()  # another uploader may have made it a moment ago
            if there is None:
                raise
    return there


def _escaped(name: str) -> str:
    """Escape for the server's regular expressions, as `re.escape` does but without touching blanks."""
    return "".join(f"\\{c}" if c in r".^$*+?{}[]\|()-" else c for c in name)


def _require_writable(task: Json) -> None:
    """Leave alone what a person published, aborted, closed or marked failed."""
    status, reason = task["status"], str(task.get("status_reason") or "")
    ours = reason.startswith(_REASON) or _WATCHDOG in reason
    if status in ("created", "queued", "in_progress", "completed") or (status == "stopped" and ours):
        return
    word = {"stopped": "aborted", "publishing": "published"}.get(status, status)
    raise TaskOffLimits(
        f"The task {task['id']} was {word} in ClearML, so it is left as it is.",
        "To report the run all the same, make another task with --new.",
    )


@dataclass(slots=True)
class _TaskDelivery:
    """One task that is found or made, and writable."""

    _api: Api
    _plan: Plan
    _root: Path
    _task: Json
    fresh: bool
    _destination: str

    @property
    def task_id(self) -> str:
        return str(self._task["id"])

    @property
    def url(self) -> str | None:
        return self._api.task_url(str(self._task["project"]), self.task_id)

    @property
    def _folder(self) -> str:
        return payloads.task_folder(*self._plan.folder, self.task_id)

    def deliver(self, reports: Sequence[Report]) -> Iterator[Step]:
        """Send reports in order, the events of many in one request."""
        self._start()
        if not reports:
            self._api.call("tasks.ping", {"task": self.task_id})  # or the server takes it for dead
        for batch in _batches(reports):
            for tries_left in range(_TAKEN_OVER, -1, -1):
                try:
                    yield from self._send(batch)
                    break
                except RefusedRequest:
                    if not tries_left or not self._was_closed():
                        raise
                    self._start()  # another uploader of the same run has ended the task meanwhile
            yield acknowledged(batch)

    def _send(self, batch: Sequence[Report]) -> Iterator[Step]:
        match batch[0].events[0]:
            case Hyperparameters() | Properties():
                self._send_parameters(batch)
            case OutputModel() as model:
                yield from self._send_model(model)
            case Status(state):
                self._end(state)
            case _:
                yield from self._send_events(batch)

    def _start(self) -> None:
        """Bring the task to in_progress; it may be there already, by another uploader of the same run."""
        if self._task["status"] == "in_progress":
            return
        try:
            self._change("tasks.started", {"status_reason": f"{_REASON}: replaying the run directory"})
        except RefusedRequest:
            if self._was_closed():
                raise

    def _was_closed(self) -> bool:
        """Look at the task anew: whether it is not in progress; raises TaskOffLimits as `open` does."""
        task = _by_id(self._api, self.task_id)
        if task is None:
            raise TaskOffLimits(
                f"The task {self.task_id} was deleted in ClearML while it was reported to.",
                "To report the run all the same, run the same command again.",
            )
        _require_writable(task)
        self._task = task
        return bool(task["status"] != "in_progress")

    def _change(self, endpoint: str, payload: Json) -> None:
        reply = self._api.call(endpoint, {"task": self.task_id, **payload})
        updated = reply.get("updated")
        if not isinstance(updated, int) or updated < 1:
            raise ServerRefused(
                f"ClearML did not carry out {endpoint} for the task {self.task_id}.",
                "Run the same command again; if it stays so, look at the task in ClearML.",
            )

    def _send_parameters(self, batch: Sequence[Report]) -> None:
        for event in (event for report in batch for event in report.events):
            if isinstance(event, (Hyperparameters, Properties)):
                replaced = "section" if isinstance(event, Hyperparameters) else "none"
                payload = {"hyperparams": payloads.parameters(event), "replace_hyperparams": replaced}
                self._change("tasks.edit_hyper_params", {**payload, "force": True})

    def _send_events(self, batch: Sequence[Report]) -> Generator[Step, None, None]:
        events = [event for report in batch for event in report.events]
        files = [event for event in events if isinstance(event, (Image, Plot, DrawnPlot))]
        sizes = yield from self._upload(files)
        lines = [self._line(event, sizes) for event in events]
        self._api.add_events(lines)

    def _line(self, event: Event, sizes: dict[str, tuple[int, int]]) -> Json:
        match event:
            case Scalar():
                return payloads.scalar(self.task_id, event)
            case SingleValue():
                return payloads.single_value(self.task_id, event)
            case Image():
                key = self._key(event)
                url = payloads.url_of(self._api.files_host, key)
                return payloads.debug_image(self.task_id, event, key, url)
            case Plot() | DrawnPlot():
                key = self._key(event)
                url = payloads.url_of(self._api.files_host, key)
                title, iteration, at = event.title, event.iteration, event.at
                return payloads.image_plot(self.task_id, title, iteration, at, url, sizes[key])
            case _:
                raise AssertionError(f"{event} is not sent as an event")

    def _key(self, event: _File) -> str:
        match event:
            case Image():
                return payloads.image_key(self._folder, event)
            case Plot():
                return payloads.plot_key(self._folder, event.title, event.iteration, event.file.name)
            case DrawnPlot():
                return payloads.plot_key(self._folder, event.title, event.iteration, event.file_name)
            case OutputModel():
                return payloads.model_key(self._folder, event.file.name)

    def _upload(self, files: Sequence[_File]) -> Generator[Step, None, dict[str, tuple[int, int]]]:
        """Upload several files at a time; gives the width and height of plots by storage key."""
        sizes: dict[str, tuple[int, int]] = {}
        moved: queue.SimpleQueue[int | None] = queue.SimpleQueue()

        def upload(event: _File) -> None:
            key = self._key(event)
            base = self._destination if isinstance(event, OutputModel) else self._api.files_host
            with self._content(event) as file:
                if isinstance(event, (Plot, DrawnPlot)):
                    sizes[key] = picture_size(file)
                self._api.upload(payloads.url_of(base, key), key, base, file, moved.put)

        def done(_: Future[None]) -> None:
            moved.put(None)

        if files:
            with ThreadPoolExecutor(min(_UPLOADS, len(files)), "upload") as pool:
                futures = [pool.submit(upload, event) for event in files]
                for future in futures:
                    future.add_done_callback(done)
                try:
                    left = len(futures)
                    while left:
                        size = moved.get()
                        left -= size is None
                        if size:
                            yield Sent(size)
                    for future in futures:
                        future.result()
                finally:
                    for future in futures:
                        future.cancel()
        return sizes

    @contextmanager
    def _content(self, event: _File) -> Iterator[BinaryIO]:
        if isinstance(event, DrawnPlot):
            yield io.BytesIO(draw_results(event))
        else:
            with open_stamped(self._root, event.file) as file:
                yield file

    def _send_model(self, event: OutputModel) -> Iterator[Step]:
        """Upload the weights, then register them; a model of the same address is the same model."""
        yield from self._upload([event])
        uri = payloads.url_of(self._destination, self._key(event))
        model_id = self._model_at(uri)
        if model_id is None:
            project = str(self._task["project"])
            entry = payloads.model(event.labels, event.name, uri, self.task_id, project)
            made = self._api.create("models.create", entry, lambda: self._model_at(uri))
            model_id = self._model_at(uri) or made
            if model_id != made:  # another uploader made one meanwhile: both keep the older
                unwanted = {"model": made, "force": True, "delete_external_artifacts": False}
                self._api.call("models.delete", unwanted)
        stem = Path(event.file.name).stem
        link = {"model": model_id, "type": "output", "name": stem, "iteration": event.iteration}
        self._change("tasks.add_or_update_model", link)

    def _model_at(self, uri: str) -> str | None:
        """Find the task's oldest model of this address."""
        query = {"task": [self.task_id], "uri": [uri], "only_fields": ["id", "uri", "created"]}
        there = [m for m in self._api.rows("models.get_all", query, "models") if m.get("uri") == uri]
        oldest = min(there, key=lambda m: (str(m.get("created")), m["id"]), default=None)
        return str(oldest["id"]) if oldest else None

    def _end(self, state: RunState) -> None:
        if state is not RunState.LIVE and self._was_closed():
            self._start()  # by another uploader; what a person closed has raised TaskOffLimits
        match state:
            case RunState.FINISHED:
                self._change("tasks.completed", {"status_reason": f"{_REASON}: the training finished"})
            case RunState.STOPPED:
                self._change("tasks.stopped", {"status_reason": f"{_REASON}: the training stopped early"})
            case RunState.LIVE:
                pass  # it was started before the first report


def _batches(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """Group reports, in order, so that each group is sent and acknowledged as one.

    Events share a request up to its limits, but never one without files with one that waits for files:
    a file server that is down must not keep the curves out.
    """
    batch: list[Report] = []
    kind, events, size = "", 0, 0
    for report in reports:
        mine = _kind(report)
        grows = len(report.events)
        weighs = sum(_EVENT_BYTES + _names(event) for event in report.events)
        full = events + grows > _MOST_EVENTS or size + weighs > _MOST_BYTES
        if batch and (mine != kind or full or kind in ("model", "status")):
            yield batch
            batch, events, size = [], 0, 0
        batch.append(report)
        kind, events, size = mine, events + grows, size + weighs
    if batch:
        yield batch


def _kind(report: Report) -> str:
    match report.events[0]:
        case Hyperparameters() | Properties():
            return "parameters"
        case OutputModel():
            return "model"
        case Status():
            return "status"
        case _:
            return "files" if any(file_size(event) is not None for event in report.events) else "numbers"


def _names(event: Event) -> int:
    match event:
        case Scalar() | Image():
            return 2 * len(event.title.encode()) + 2 * len(event.series.encode())
        case Plot() | DrawnPlot():
            return 2000  # the plotly layout
        case _:
            return 200
