"""Reports sent to one ClearML task: in order, in few requests, with a look at every reply.

    start --> parameters --> files --> events --> models, artifacts --> console --> completed or stopped

Event ids, file names and the model's address follow from the run alone, so whatever is sent twice is stored
once. A task that somebody else reported is sent only what it lacks.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import FileServerUnreachable, ServerFailing, ServerRefused, TaskOffLimits
from ..events import (
    STATUS,
    Artifact,
    Child,
    DrawnPlot,
    Event,
    Hyperparameters,
    Image,
    OutputModel,
    Plan,
    Plot,
    Points,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
    but_points,
)
from ..rundir.packing import Unpackable
from ..sync.sinks import Acknowledged, Noted, Revived, Step, acknowledged
from . import adoption, children, payloads, reader, task_log
from .api import Api, RefusedRequest
from .artifacts import Artifacts
from .batches import UNFIT, EventsRefused, add_apart, batches, takes_closed
from .destination import Decide
from .models import OutputModels
from .ownership import REASON, mark_of, reported_live, stopped_by_hand
from .payloads import Json
from .tasks import CLOSED, PUBLISHED, by_id, change, given_up, is_closed, mark, project_of, require_writable
from .uploads import Uploads

_REPLAYING = f"{REASON}: replaying the run directory"
_COMPLETING = f"{REASON}: completing a task that was completed"
_COMPLETING_STOPPED = f"{REASON}: completing a task that was stopped"
_AS_IT_WAS = "stopped before yolo-clearml completed what it holds"  # does not begin as our own reasons do
_TAKEN_OVER = 3  # times that another uploader may end the task under our hands


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
    others: bool  # reported by somebody else: it is sent only what it lacks
    asked_for: bool  # by a person, with its id
    _unread: FileServerUnreachable | None = None  # why not all that the task holds could be compared
    _refused: list[EventsRefused] = field(default_factory=list)  # what the task lacks although it ends
    _unpackable: list[Unpackable] = field(default_factory=list)  # folders that it lacks likewise
    _uploads: Uploads = field(init=False)
    _models: OutputModels = field(init=False)
    _artifacts: Artifacts = field(init=False)

    def __post_init__(self) -> None:
        folder = payloads.task_folder(*self._plan.folder, self.task_id)
        self._uploads = Uploads(self._api, self._root, folder, self._decide)
        self._artifacts = Artifacts(self._api, self._uploads, self.task_id)
        self._models = OutputModels(self._api, self._uploads, self.task_id, self._made, self.others)

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self._task["id"])

    @property
    def url(self) -> str | None:
        """Where a person sees the task; None where nobody can."""
        return self._api.task_url(project_of(self._task), self.task_id)

    def found_in(self) -> tuple[str | None, str] | None:
        """Give the project and name of the task, where it was there before."""
        if self._made:
            return None
        home = project_of(self._task)
        return None if home is None else reader.project_called(self._api, home), str(self._task["name"])

    def deliver(self, reports: Sequence[Report], over: Collection[str] = ()) -> Iterator[Step]:
        """Send reports in order, the events of many in one request."""
        yield from map(Noted, self._notes)
        family = [report for report in reports if isinstance(report.events[0], Child)]
        if family:
            yield from children.adopt(self._api, self.task_id, family)
            reports = [report for report in reports if report not in family]
            if self._only_status(reports):
                yield acknowledged(reports)
                return
        if self._only_properties(reports):
            yield from self._send_properties(reports)
            return
        whole = {report.key: report for report in reports}
        if self.others and reports:
            reports = yield from self._lacking(reports, over)
        elif self.others and self._task["status"] != "in_progress":
            return  # whoever reports to it has ended it
        elif not self.others:
            require_writable(self._task, stopped=self.asked_for)
            if given_up(self._task):
                yield Revived()
            self._start()
            reports = [self._as_it_was(report) for report in reports]
        if not whole:
            self._api.call("tasks.ping", {"task": self.task_id})  # or the server takes it for dead
        for batch in batches(reports):
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
                except Unpackable as error:  # there may be room for all others
                    self._unpackable.append(error)
                    batch = []
                    break
                except RefusedRequest:
                    if not tries_left or not self._was_closed():
                        raise
                    self._start()
            if batch:
                yield replace(acknowledged(batch), reports=tuple(whole[report.key] for report in batch))
        if self._refused:
            raise self._refused[0]
        if self._unpackable:
            raise self._unpackable[0]
        if self._unread is not None:
            raise self._unread.afresh()

    def _lacking(
        self, reports: Sequence[Report], over: Collection[str]
    ) -> Generator[Step, None, Sequence[Report]]:
        """Give what the task lacks of ``reports``, and open it for that; what it holds is acknowledged.

        A task that lacks nothing keeps its status, and a published one is not touched at all. What a person
        has closed is not opened again: it takes what its status allows, else this raises TaskOffLimits. One
        in progress is ended by who reports to it: if we ended it, ClearML's SDK would kill that training.
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
        live = reported_live(self._task)
        if live:
            lacking = [report for report in lacking if report.key != STATUS]
            if any(report.events != (Status(RunState.LIVE),) for report in reports if report.key == STATUS):
                yield Noted(
                    f"The task {self.task_id} stays in progress: the training that reports to it ends it."
                )
        opens = any(not isinstance(report.events[0], Properties) for report in lacking)
        lacked = (event for each in found if each.report.key not in over for event in each.lacking)
        added = task_log.completion(self._plan, lacked)
        if status in PUBLISHED and not opens:
            lacking = []
        elif status in CLOSED and all(takes_closed(report) for report in lacking):
            lacking = [report for report in lacking if not isinstance(report.events[0], Status)]
        elif opens:
            # aborted before anybody knew that we would complete it, and again by us, or by a person's wish
            before = mark_of(self._task) is None or self._task.get("status_reason") == _AS_IT_WAS
            require_writable(self._task, stopped=self.asked_for or before)
            self._start()
            if not live:
                lacking = [report for report in lacking if report.key != STATUS]
                lacking += [self._as_it_was(report) for report in reports if report.key == STATUS]
        if status not in PUBLISHED:
            mark(self._api, self._task, self._key)
            if added is not None:  # before it is: after a kill, the task would lack less
                self._log(added, task_log.completes(self._plan))
        sent = {report.key for report in lacking}
        there = [each for each in found if each.report.key not in sent]
        if there:
            yield Acknowledged(tuple(each.report for each in there), 0, 0, 0)
        left = [each for each in found if each.report.key not in over]
        yield from map(Noted, adoption.sentences(left))
        return lacking

    def _only_properties(self, reports: Sequence[Report]) -> bool:
        """Check whether user properties are all that a task lacks that has ended as it is to.

        They can be written in any status, and to open it would give it another time of its end.
        """
        events = list(but_points(reports))
        curves = any(isinstance(report.events, Points) for report in reports)
        if curves or not any(isinstance(event, Properties) for event in events):
            return False
        states = [event.state for event in events if isinstance(event, Status)]
        rest = [event for event in events if not isinstance(event, (Properties, Status))]
        return not rest and RunState.LIVE not in states and all(map(self._has_ended, states))

    def _only_status(self, reports: Sequence[Report]) -> bool:
        """Check whether there is nothing to send but the status that a task has already."""
        states = [event.state for event in but_points(reports) if isinstance(event, Status)]
        live = RunState.LIVE in states
        ended = self._task["status"] == "in_progress" if live else all(map(self._has_ended, states))
        return len(states) == sum(len(report.events) for report in reports) and ended

    def _has_ended(self, state: RunState) -> bool:
        status, reason = str(self._task["status"]), str(self._task.get("status_reason") or "")
        if status in ("created", "queued", "in_progress") or given_up(self._task):
            return False
        if self.others:
            return adoption.ended_right(state, status, reason)
        # by a person; one that was aborted may have gone on since
        kept = self._closed and status != "stopped"
        return kept or status == {RunState.FINISHED: "completed", RunState.STOPPED: "stopped"}.get(state)

    @property
    def _closed(self) -> bool:
        return is_closed(self._task, stopped=self.asked_for or self.others)

    def _send_properties(self, reports: Sequence[Report]) -> Iterator[Step]:
        """Send user properties to a task that has ended; one that a person has closed takes none."""
        if self._closed:
            yield Noted(
                f"The task {self.task_id} was closed in ClearML, so its user properties stay as they are."
            )
            yield Acknowledged(tuple(reports), 0, 0, 0)
        else:
            self._send_parameters([r for r in reports if isinstance(r.events[0], Properties)])
            yield acknowledged(reports)

    def _as_it_was(self, report: Report) -> Report:
        """End a task again as it was: who reported or stopped it knows better than the disk how it ended."""
        match report.events:
            case (Status(RunState.STOPPED),) if self.others and self._was("completed", _COMPLETING):
                return replace(report, events=(Status(RunState.FINISHED),))
            case (Status(RunState.FINISHED),) if self._was_stopped:
                return replace(report, events=(Status(RunState.STOPPED),))
            case _:
                return report

    def _was(self, status: str, opened: str) -> bool:
        """Check whether the task had a status, until it was opened with such a reason if it has been."""
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
                yield from self._models.send(model, self._task)
            case Artifact():
                events = [event for report in batch for event in report.events]
                yield from self._artifacts.send([event for event in events if isinstance(event, Artifact)])
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
            change(self._api, self.task_id, "tasks.started", {"task": self.task_id, "status_reason": reason})
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

    def _send_parameters(self, batch: Sequence[Report]) -> None:
        """Send parameters and user properties; what is no argument any more goes, but no property does."""
        events = [event for report in batch for event in report.events]
        arguments = [
            item for e in events if isinstance(e, Hyperparameters) for item in payloads.parameters(e)
        ]
        properties = [item for e in events if isinstance(e, Properties) for item in payloads.parameters(e)]
        calls = [(arguments, "none" if self.others else "section"), (properties, "none")]
        if self._made:
            calls = [(arguments + properties, "none")]
        for items, replaced in calls:
            if items:
                payload = {"hyperparams": items, "replace_hyperparams": replaced, "force": True}
                change(self._api, self.task_id, "tasks.edit_hyper_params", {"task": self.task_id, **payload})

    def _send_events(self, batch: Sequence[Report]) -> Generator[Step, None, None]:
        files = [event for event in but_points(batch) if isinstance(event, (Image, Plot, DrawnPlot))]
        sizes = yield from self._uploads.upload(files)
        lines = [line for report in batch for line in self._texts(report, sizes)]
        try:
            self._api.add_events(lines)
        except (ServerRefused, ServerFailing) as error:
            owners = [report.key for report in batch for _ in report.events]
            add_apart(self._api, list(zip(owners, lines, strict=True)), error)

    def _texts(self, report: Report, sizes: dict[str, tuple[int, int]]) -> list[str]:
        if isinstance(report.events, Points):
            return payloads.texts(self.task_id, report.events)
        return [payloads.text(self._event(event, sizes)) for event in report.events]

    def _event(self, event: Event, sizes: dict[str, tuple[int, int]]) -> Json:
        match event:
            case Scalar():
                return payloads.scalar(self.task_id, event)
            case SingleValue():
                return payloads.single_value(self.task_id, event)
            case Image():
                key = self._uploads.key(event)
                url = payloads.url_of(self._api.files_host, key)
                return payloads.debug_image(self.task_id, event, key, url)
            case Plot() | DrawnPlot():
                key = self._uploads.key(event)
                url = payloads.url_of(self._api.plots_host, key)
                title, iteration, at = event.title, event.iteration, event.at
                if not payloads.shows_in_plots(url):
                    return payloads.plot_as_image(self.task_id, title, iteration, at, key, url)
                return payloads.image_plot(self.task_id, title, iteration, at, url, sizes[key])
            case _:
                raise AssertionError(f"{event} is not sent as an event")

    def _end(self, state: RunState) -> None:
        if state is not RunState.LIVE and self._was_closed():
            self._start()  # by another uploader; what a person closed has raised TaskOffLimits
        if not self.others and (text := task_log.upload(self._plan)) is not None:
            self._log(text)
        for error in self._refused:
            self._log(task_log.refusal(error.places, error.count))
        ends = {
            RunState.FINISHED: ("tasks.completed", f"{REASON}: the training finished"),
            RunState.STOPPED: ("tasks.stopped", f"{REASON}: the training stopped early"),
        }
        if state in ends:  # a live one was started before the first report
            endpoint, why = ends[state]
            end = {"task": self.task_id, "status_reason": _AS_IT_WAS if self._was_stopped else why}
            if self._refused:
                end["status_message"] = f"lacks {sum(error.count for error in self._refused)} events"
            change(self._api, self.task_id, endpoint, end)

    def _log(self, text: str, once: str | None = None) -> None:
        """Add to the task's console what is not there; two uploaders at the same moment may both do so.

        ``once`` is what nothing there may hold, by default the whole text. An index that does not take it
        keeps nothing else back.
        """

        def is_there() -> bool:
            return any((once or text) in line for line in reader.console(self._api, self.task_id))

        if not is_there():
            try:
                self._api.add_once(payloads.text(task_log.event(self.task_id, text)), is_there)
            except RefusedRequest as error:
                if error.code != UNFIT:
                    raise
