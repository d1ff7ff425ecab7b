"""Reports sent to one ClearML task: in order, in few requests, with a look at every reply.

    start --> parameters --> files --> events --> model --> console --> completed or stopped

Event ids, file names and the model's address follow from the run alone, so whatever is sent twice is stored
once. A task that somebody else has told is sent only what it lacks.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ..errors import FileServerUnreachable, ServerFailing, ServerRefused, TaskOffLimits, YoloClearmlError
from ..events import (
    STATUS,
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
    but_points,
)
from ..replay.figures import draw_results, picture_size
from ..rundir.files import open_stamped
from ..sync.sinks import Acknowledged, Noted, Revived, Sent, Step, acknowledged, file_size
from . import adoption, payloads, reader, task_log
from .api import Api, RefusedRequest
from .destination import FILES_SERVER, PLOTS_SERVER, Decide, Destination, naming
from .ownership import REASON, mark_of, reported_live, stopped_by_hand
from .payloads import Json
from .tasks import CLOSED, PUBLISHED, by_id, delete, given_up, mark, require_writable

_REPLAYING = f"{REASON}: replaying the run directory"
_COMPLETING = f"{REASON}: completing a task that was completed"
_COMPLETING_STOPPED = f"{REASON}: completing a task that was stopped"
_AS_IT_WAS = "stopped before yolo-clearml completed what it holds"  # does not begin as our own reasons do
_MOST_EVENTS = 5000  # in a request; the index is refreshed for each, so few large ones are faster
_MOST_BYTES = 4 * 2**20  # in a request; the server takes 15 MiB
_EVENT_BYTES = 320  # of an event without its names, with room to spare
_UPLOADS = 4  # requests with files at a time
_MOST_FILE_BYTES = 900_000  # in a request with several; nginx takes 1 MiB where nobody has set more
_MOST_REFUSED = 8  # events of a batch that are looked for one by one
_NAMED = 3  # of them in a message
_UNFIT = 500  # code of a refusal: a document cannot be indexed (500/100); the server itself is well
_TAKEN_OVER = 3  # times that another uploader may end the task under our hands

_File: TypeAlias = "Image | Plot | DrawnPlot | OutputModel"
_Owned: TypeAlias = "Sequence[tuple[str, Json]]"  # lines of a batch, each with the key of its report


class EventsRefused(ServerRefused):
    """ClearML has taken a batch of events but for some; those of ``reports`` are still to be told.

    ``untried`` are those after the last refused one that was looked for.
    """

    def __init__(
        self,
        refused: Sequence[tuple[str, Json, YoloClearmlError]],
        count: int,
        untried: Sequence[tuple[str, Json]] = (),
    ) -> None:
        shown = "; ".join(f"{payloads.place(line)}: {error}" for _, line, error in refused[:_NAMED])
        rest = f"and {len(untried)} were not tried after them" if untried else "and has the others"
        super().__init__(
            f"ClearML refuses {len(refused)} of {count} events, {rest}: {shown}",
            "Look into the API server's log; then run the same command again.",
        )
        self.reports = frozenset(owner for owner, *_ in (*refused, *untried))
        self.count = len(refused) + len(untried)
        self.places = tuple(payloads.place(line) for _, line, _ in refused)


@dataclass(slots=True)
class TaskDelivery:
    """One task that is found or made, and writable."""

    _api: Api
    _plan: Plan
    _root: Path
    _task: Json
    fresh: bool
    _decide: Decide  # where the model goes; may cost a request
    _key: str  # that the task is marked with
    _notes: Sequence[str]
    _made: bool  # a moment ago, so that it holds nothing
    others: bool  # told by somebody else: it is sent only what it lacks
    asked_for: bool  # by a person, with its id
    _unread: FileServerUnreachable | None = None  # why not all that the task holds could be compared
    _refused: list[EventsRefused] = field(default_factory=list)  # what the task lacks although it ends
    _models_made: set[str] = field(default_factory=set)  # ids
    _decided: Destination | None = None

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self._task["id"])

    @property
    def url(self) -> str | None:
        """Where a person sees the task; None where nobody can."""
        return self._api.task_url(self._project, self.task_id)

    @property
    def _project(self) -> str | None:
        project = self._task.get("project")
        return project if isinstance(project, str) and project else None

    @property
    def _folder(self) -> str:
        return payloads.task_folder(*self._plan.folder, self.task_id)

    def deliver(self, reports: Sequence[Report], over: Collection[str] = ()) -> Iterator[Step]:
        """Send reports in order, the events of many in one request."""
        yield from map(Noted, self._notes)
        whole = {report.key: report for report in reports}
        if self.others and reports:
            reports = yield from self._lacking(reports, over)
        elif self.others and self._task["status"] != "in_progress":
            return  # whoever tells it has ended it
        elif not self.others:
            require_writable(self._task, stopped=self.asked_for)
            if given_up(self._task):
                yield Revived()
            self._start()
            reports = [self._as_it_was(report) for report in reports]
        if not whole:
            self._api.call("tasks.ping", {"task": self.task_id})  # or the server takes it for dead
        for batch in _batches(reports):
            for tries_left in range(_TAKEN_OVER, -1, -1):
                try:
                    yield from self._send(batch)
                    break
                except EventsRefused as error:
                    if tries_left and self._was_closed():
                        self._start()  # another uploader of the same run has ended the task meanwhile
                        continue
                    self._refused.append(error)
                    batch = [report for report in batch if report.key not in error.reports]
                    break
                except RefusedRequest:
                    if not tries_left or not self._was_closed():
                        raise
                    self._start()
            if batch:
                yield replace(acknowledged(batch), reports=tuple(whole[report.key] for report in batch))
        if self._refused:
            raise self._refused[0]
        if self._unread is not None:
            raise self._unread.afresh()

    def _lacking(
        self, reports: Sequence[Report], over: Collection[str]
    ) -> Generator[Step, None, Sequence[Report]]:
        """Give what the task lacks of ``reports``, and open it for that; what it holds is acknowledged.

        A task that lacks nothing keeps its status, and a published one is not touched at all. What a person
        has closed is not opened again: it takes what its status allows, else this raises TaskOffLimits. One
        in progress is ended by who tells it: were it ended by us, ClearML's SDK would kill that training.
        """
        holds = reader.read(self._api, self.task_id, reader.titles_of(self._plan))
        if holds is None:
            raise self._deleted()
        found = adoption.compared(self._api, self._plan, self._root, holds, reports)
        unread = {each.report.key: each.outage for each in found if each.report.key not in over}
        self._unread = next(filter(None, unread.values()), None)
        if self._unread is not None:  # neither sent nor acknowledged: the next call looks at them again
            found = [each for each in found if each.report.key != STATUS and not unread.get(each.report.key)]
        lacking = [
            each.report if each.report.key in over else replace(each.report, events=each.lacking)
            for each in found
            if each.lacking or each.report.key in over
        ]
        whole = {report.key for report in reports}
        if self.asked_for and not whole <= set(over) and adoption.another_training(self._plan, holds):
            raise TaskOffLimits(
                f"The task {self.task_id} holds another training, so it is left as it is.",
                "Give the id of this run's own task, or none; --force writes over what it holds.",
            )
        status = self._task["status"]
        theirs = reported_live(self._task)
        if theirs:
            lacking = [report for report in lacking if report.key != STATUS]
            if any(report.events != (Status(RunState.LIVE),) for report in reports if report.key == STATUS):
                yield Noted(f"The task {self.task_id} stays in progress: the training that tells it ends it.")
        opens = any(not isinstance(report.events[0], Properties) for report in lacking)
        lacked = (event for each in found if each.report.key not in over for event in each.lacking)
        added = task_log.completion(self._plan, lacked)
        if status in PUBLISHED and not opens:
            lacking = []
        elif status in CLOSED and all(_takes_closed(report) for report in lacking):
            lacking = [report for report in lacking if not isinstance(report.events[0], Status)]
        elif opens:
            # it was aborted before anybody knew that we would complete it, or is now by a person's wish
            require_writable(self._task, stopped=self.asked_for or mark_of(self._task) is None)
            self._start()
            if not theirs:
                lacking = [report for report in lacking if report.key != STATUS]
                lacking += [self._as_it_was(report) for report in reports if report.key == STATUS]
        if status not in PUBLISHED:
            mark(self._api, self._task, self._key)
            if added is not None:  # before it is: after a kill, the task would lack less
                self._say(added, task_log.completes(self._plan))
        sent = {report.key for report in lacking}
        there = [each for each in found if each.report.key not in sent]
        if there:
            yield Acknowledged(tuple(each.report for each in there), 0, 0, 0)
        left = [each for each in found if each.report.key not in over]
        yield from map(Noted, adoption.sentences(left))
        return lacking

    def _as_it_was(self, report: Report) -> Report:
        """End a task again as it was: who told it, or stopped it, knows better than the disk how it ended."""
        match report.events:
            case (Status(RunState.STOPPED),) if self.others and self._was("completed", _COMPLETING):
                return replace(report, events=(Status(RunState.FINISHED),))
            case (Status(RunState.FINISHED),) if self._was_stopped:
                return replace(report, events=(Status(RunState.STOPPED),))
            case _:
                return report

    def _was(self, status: str, opened: str) -> bool:
        """Tell whether the task had a status, until it was opened with such a reason if it has been."""
        return bool(self._task["status"] == status or self._task.get("status_reason") == opened)

    @property
    def _was_stopped(self) -> bool:
        status, reason = str(self._task["status"]), str(self._task.get("status_reason") or "")
        return stopped_by_hand(status, reason) or reason == _COMPLETING_STOPPED

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
            was_completed = self.others and self._task["status"] == "completed"
            reason = _COMPLETING if was_completed else _REPLAYING
            reason = _COMPLETING_STOPPED if self._was_stopped else reason
            self._change("tasks.started", {"task": self.task_id, "status_reason": reason})
        except RefusedRequest:
            if self._was_closed():
                raise

    def _was_closed(self) -> bool:
        """Look at the task anew: whether it is not in progress; raises TaskOffLimits as `open` does."""
        task = by_id(self._api, self.task_id)
        if task is None:
            raise self._deleted()
        require_writable(task)
        self._task = task
        return bool(task["status"] != "in_progress")

    def _deleted(self) -> TaskOffLimits:
        return TaskOffLimits(
            f"The task {self.task_id} was deleted in ClearML while it was reported to.",
            "To report the run all the same, run the same command again.",
        )

    def _change(self, endpoint: str, payload: Json) -> None:
        reply = self._api.call(endpoint, payload)
        updated = reply.get("updated")
        if not isinstance(updated, int) or updated < 1:
            raise ServerRefused(
                f"ClearML did not carry out {endpoint} for the task {self.task_id}.",
                "Run the same command again; if it stays so, look at the task in ClearML.",
            )

    def _send_parameters(self, batch: Sequence[Report]) -> None:
        """Send parameters and user properties; what is no argument any more goes, but no property does."""
        told = [event for report in batch for event in report.events]
        arguments = [item for e in told if isinstance(e, Hyperparameters) for item in payloads.parameters(e)]
        properties = [item for e in told if isinstance(e, Properties) for item in payloads.parameters(e)]
        calls = [(arguments, "none" if self.others else "section"), (properties, "none")]
        if self._made:
            calls = [(arguments + properties, "none")]
        for items, replaced in calls:
            if items:
                payload = {"hyperparams": items, "replace_hyperparams": replaced, "force": True}
                self._change("tasks.edit_hyper_params", {"task": self.task_id, **payload})

    def _send_events(self, batch: Sequence[Report]) -> Generator[Step, None, None]:
        events = [event for report in batch for event in report.events]
        files = [event for event in events if isinstance(event, (Image, Plot, DrawnPlot))]
        sizes = yield from self._upload(files)
        lines = [self._line(event, sizes) for event in events]
        try:
            self._api.add_events(lines)
        except (ServerRefused, ServerFailing) as error:
            owners = [report.key for report in batch for _ in report.events]
            self._add_apart(list(zip(owners, lines, strict=True)), error)

    def _add_apart(self, events: _Owned, error: YoloClearmlError) -> None:
        """Send the events of a refused batch in ever smaller ones, so that a bad one keeps no other back.

        Raises EventsRefused, which names the bad ones. Where there are many, and not because their documents
        cannot be indexed, it is the batch that is refused: raises ``error``.
        """
        refused: list[tuple[str, Json, YoloClearmlError]] = []
        unfit = isinstance(error, RefusedRequest) and error.code == _UNFIT
        for owner, line, refusal in self._bad_ones(events, error):
            refused.append((owner, line, refusal))
            if len(refused) > _MOST_REFUSED or len(refused) == len(events) > 1:
                if not unfit:
                    raise error
                # they are looked for in order, so whatever follows has not been sent by itself
                after = next(n for n, (_, sent) in enumerate(events) if sent is line) + 1
                raise EventsRefused(refused, len(events), events[after:])
        if refused:
            raise EventsRefused(refused, len(events))

    def _bad_ones(
        self, events: _Owned, error: YoloClearmlError
    ) -> Iterator[tuple[str, Json, YoloClearmlError]]:
        if len(events) == 1:
            yield (*events[0], error)
            return
        middle = len(events) // 2
        for part in (events[:middle], events[middle:]):
            try:
                # once: whoever refuses the whole has been waited for
                self._api.add_events([line for _, line in part], patient=False)
            except (ServerRefused, ServerFailing) as refusal:
                yield from self._bad_ones(part, refusal)

    def _line(self, event: Event, sizes: dict[str, tuple[int, int]]) -> Json:
        match event:
            case Scalar():
                return payloads.scalar(self.task_id, event)
            case SingleValue():
                return payloads.single_value(self.task_id, event)
            case Image():
                key = self._file_key(event)
                url = payloads.url_of(self._api.files_host, key)
                return payloads.debug_image(self.task_id, event, key, url)
            case Plot() | DrawnPlot():
                key = self._file_key(event)
                url = payloads.url_of(self._api.plots_host, key)
                title, iteration, at = event.title, event.iteration, event.at
                if not payloads.shows_in_plots(url):
                    return payloads.plot_as_image(self.task_id, title, iteration, at, key, url)
                return payloads.image_plot(self.task_id, title, iteration, at, url, sizes[key])
            case _:
                raise AssertionError(f"{event} is not sent as an event")

    def _file_key(self, event: _File) -> str:
        match event:
            case Image():
                return payloads.image_key(self._folder, event)
            case Plot():
                return payloads.plot_key(self._folder, event.title, event.iteration, event.file.name)
            case DrawnPlot():
                return payloads.plot_key(self._folder, event.title, event.iteration, event.file_name)
            case OutputModel():
                return payloads.model_key(self._folder, event.file.name)

    def _base(self, event: _File) -> Destination:
        match event:
            case OutputModel():
                if self._decided is None:
                    self._decided = self._decide()
                return self._decided
            case Plot() | DrawnPlot() if self._api.plots_host != self._api.files_host:
                return Destination(self._api.plots_host, PLOTS_SERVER)
            case _:
                return Destination(self._api.files_host, FILES_SERVER)

    def _upload(self, files: Sequence[_File]) -> Generator[Step, None, dict[str, tuple[int, int]]]:
        """Upload files, several at a time; gives the width and height of plots by storage key."""
        sizes: dict[str, tuple[int, int]] = {}
        moved: queue.SimpleQueue[int | None] = queue.SimpleQueue()

        def upload(group: Sequence[_File]) -> None:
            base = self._base(group[0])
            with ExitStack() as stack:
                opened: dict[str, BinaryIO] = {}
                for event in group:
                    key = self._file_key(event)
                    opened[key] = file = stack.enter_context(self._content(event))
                    if isinstance(event, (Plot, DrawnPlot)):
                        sizes[key] = picture_size(file)
                try:
                    self._api.upload(base.address, opened, moved.put)
                except FileServerUnreachable as error:
                    raise naming(error, base.said_by) from error

        def done(_: Future[None]) -> None:
            moved.put(None)

        if files:
            groups = list(_groups(files, self._base))
            with ThreadPoolExecutor(min(_UPLOADS, len(groups)), "upload") as pool:
                futures = [pool.submit(upload, group) for group in groups]
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
        destination = self._base(event).address
        stated = (self._task.get("output") or {}).get("destination")
        if not self.others and destination != stated:  # nothing of it is there, or it is a person's wish
            self._change("tasks.edit", {"task": self.task_id, "output_dest": destination, "force": True})
        uri = payloads.url_of(destination, self._file_key(event))
        entry = payloads.model(event.labels, event.name, uri, self.task_id, self._project)
        there = [] if self._made else self._models_at(uri)
        if not there:
            made = self._api.create(
                "models.create", entry, lambda: next((m["id"] for m in self._models_at(uri)), None)
            )
            self._models_made.add(made)
            there = self._models_at(uri) or [{**entry, "id": made}]
        model = there[0]
        told = {"name": entry["name"], "labels": entry["labels"]}
        if told != {"name": model.get("name"), "labels": model.get("labels") or {}}:
            self._change("models.edit", {"model": model["id"], **told})
        stem = Path(event.file.name).stem
        link = {"model": model["id"], "type": "output", "name": stem, "iteration": event.iteration}
        self._change("tasks.add_or_update_model", {"task": self.task_id, **link})
        for twin in there[1:]:  # of another uploader: both keep the older
            if not self.others or twin["id"] in self._models_made:
                still = partial(self._has_model, uri, twin["id"])
                delete(self._api, "models.delete", {"model": twin["id"]}, still)

    def _has_model(self, uri: str, model_id: str) -> bool:
        return any(model["id"] == model_id for model in self._models_at(uri))

    def _models_at(self, uri: str) -> list[Json]:
        """Find the task's models of this address, oldest first."""
        fields = ["id", "uri", "created", "name", "labels"]
        query = {"task": [self.task_id], "uri": [uri], "only_fields": fields}
        there = [m for m in self._api.rows("models.get_all", query, "models") if m.get("uri") == uri]
        return sorted(there, key=lambda m: (str(m.get("created")), m["id"]))

    def _end(self, state: RunState) -> None:
        if state is not RunState.LIVE and self._was_closed():
            self._start()  # by another uploader; what a person closed has raised TaskOffLimits
        if not self.others and (text := task_log.upload(self._plan)) is not None:
            self._say(text)
        for error in self._refused:
            self._say(task_log.refusal(error.places, error.count))
        ends = {
            RunState.FINISHED: ("tasks.completed", f"{REASON}: the training finished"),
            RunState.STOPPED: ("tasks.stopped", f"{REASON}: the training stopped early"),
        }
        if state in ends:  # a live one was started before the first report
            endpoint, why = ends[state]
            change = {"task": self.task_id, "status_reason": _AS_IT_WAS if self._was_stopped else why}
            if self._refused:
                change["status_message"] = f"lacks {sum(error.count for error in self._refused)} events"
            self._change(endpoint, change)

    def _say(self, text: str, once: str | None = None) -> None:
        """Add to the task's console what is not there; two uploaders at the same moment may both do so.

        ``once`` is what nothing there may hold, by default the whole text. An index that does not take it
        keeps nothing else back.
        """

        def is_there() -> bool:
            return any((once or text) in said for said in reader.console(self._api, self.task_id))

        if not is_there():
            try:
                self._api.add_once(task_log.event(self.task_id, text), is_there)
            except RefusedRequest as error:
                if error.code != _UNFIT:
                    raise


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


def _groups(files: Sequence[_File], base: Callable[[_File], Destination]) -> Iterator[list[_File]]:
    """Group small files, in order, so that each group is one request to one base."""
    group: list[_File] = []
    total = 0
    for event in files:
        size = file_size(event) or 0
        if group and (total + size > _MOST_FILE_BYTES or base(event) != base(group[0])):
            yield group
            group, total = [], 0
        group.append(event)
        total += size
    if group:
        yield group


def _kind(report: Report) -> str:
    match report.events[0]:
        case Hyperparameters() | Properties():
            return "parameters"
        case OutputModel():
            return "model"
        case Status():
            return "status"
        case _:
            files = any(file_size(event) is not None for event in but_points([report]))
            return "files" if files else "numbers"


def _takes_closed(report: Report) -> bool:
    """Tell whether a task that cannot be started again takes a report; it keeps its status."""
    return _kind(report) in ("numbers", "files", "status") or isinstance(report.events[0], Properties)


def _names(event: Event) -> int:
    match event:
        case Scalar() | Image():
            return 2 * len(event.title.encode()) + 2 * len(event.series.encode())
        case Plot() | DrawnPlot():
            return 2000  # the plotly layout
        case _:
            return 200
