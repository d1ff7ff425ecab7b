"""The same reports as a ClearML offline session, for the stock ``Task.import_offline_session``.

    <folder>/<name>-<first 8 of the run's key>.zip
        task.json                  project, name, tags, comment, parameters, how to make the output model
        metrics.jsonl              a JSON list of events on each line
    log.jsonl                  what the console shows of it, likewise
        data/<project>/<name>.<task id>/metrics/...      the pictures, byte for byte
        data/<project>/<name>.<task id>/artifacts/...    further files that were asked for
    <folder>/<name>-<first 8 of the run's key>.pt        a copy of the weights, where the run has a model
    <folder>/<name>-<first 8 of the run's key>-last.pt   and of further ones, where they are asked for
    <folder>/*.tmp                 being written, or left by a kill: the next export of the run replaces it

The importer looks for the weights outside the session, at the absolute path in task.json. So ``folder`` must
be found under the same path where the import runs, and everything else is inside the zip. With
``output_uri`` the importer uploads the weights there; without, it uploads none and the model's address is
that path.

What the importer of clearml 2.1.12 does, and how the session meets it:

* It makes a new task at each import. So the user properties hold the run's key: a later upload recognises it.
* It keeps two folders before the task's id for the picture of a plot, however deep the project is, and puts
  no quotes into addresses. So the project is one folder here, and all paths are plain ASCII; the task
  itself has the true names.
* A missing file of weights ends the import of everything else, unless it is uploaded in the background.
  So it is; the model is then at ``failed_uploading``. An ``output_uri`` whose storage cannot even be
  opened (no credentials, no driver) still ends the import, before the events.
* It marks the task completed, with the time of the import. So the comment names a training that was
  stopped or still going on.
* A parent would have to be an id on the server, so a tuning's trainings are not its children then; the next
  upload to the server that it was imported to makes them so.
* On Windows it looks for backslashes in the links of plots and leaves them dead.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, TypeAlias
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from ..errors import RunUnreadable, YoloClearmlError
from ..events import (
    Artifact,
    Child,
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
from ..replay.figures import draw_results, picture_size
from ..rundir.exports import framework_of, link_of, stored_name
from ..rundir.files import replacing
from ..rundir.packing import open_whole
from ..sync.sinks import Delivery, Noted, Sent, Step, acknowledged
from . import payloads, task_log
from .payloads import Json

_FOLDER = ".packed"  # of a model that is a folder; every zip there is a session to be imported
_LONGEST_NAME = 180  # bytes of a file name; file systems take 255, the key and the endings need 17
_LONGEST_PART = 100  # characters of a folder or file in the session; the file server refuses over 255
_MOST_EVENTS = 1000  # on a line; the importer sends each line in one request
_MOST_BYTES = 4 * 2**20  # on a line; the server takes 15 MiB
_CHUNK = 2**20  # bytes read at a time
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of the zip format: the same run gives the same bytes
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")  # what needs no quoting in a URL
_DEVICE = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE
)  # names that Windows keeps to itself
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}$")
_WENT_ON = {
    RunState.STOPPED: "The training had stopped before its end.",
    RunState.LIVE: "The training was still going on.",
}

_Packed: TypeAlias = "Image | Plot | DrawnPlot | Artifact"  # what lies in the zip


class ExportUnwritable(YoloClearmlError):
    """The folder for offline sessions does not take a file."""


@dataclass(frozen=True, slots=True)
class OfflineSink:
    """Writes each run as an offline session into ``folder``, which is made where it does not exist.

    ``output_uri`` is where the importer is to upload the weights, e.g. the address of a file server.
    """

    folder: Path
    output_uri: str | None = None
    server: str = "offline"

    def has(self, task_id: str) -> bool:
        """Nothing here forgets what was reported to it."""
        return True

    @contextmanager
    def open(
        self, plan: Plan, root: Path, task_id: str | None, copy: str, given: str | None = None
    ) -> Iterator[Delivery]:
        """Open an export; nothing is written yet, and what a ledger knows makes no difference to it."""
        yield _Session(self.folder.absolute(), self.output_uri, plan, root)


@dataclass(slots=True)
class _Session:
    """One run on its way into a zip."""

    _folder: Path
    _output_uri: str | None
    _plan: Plan
    _root: Path
    fresh: bool = True  # a session holds nothing before it is written
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # of plots by place, in pixels

    def found_in(self) -> None:
        """No: the task is made when the session is imported."""

    @property
    def task_id(self) -> str:
        """An id in the style of the SDK's own offline tasks; the importer replaces it by a true one."""
        return f"offline-{self._plan.key}"

    @property
    def url(self) -> str:
        """Where the zip is, as a file: address."""
        return (self._folder / f"{self._name}.zip").as_uri()

    @property
    def _name(self) -> str:
        return f"{_file_name(self._plan.name)}-{self._plan.key[:8]}"

    def deliver(self, reports: Sequence[Report], over: Collection[str] = ()) -> Iterator[Step]:
        """Write the session; all reports are acknowledged at once, when the whole zip has its final name.

        An older export of the same run is replaced. Raises ExportUnwritable, RunChanged, RunUnreadable.
        """
        session = self._folder / f"{self._name}.zip"
        events = [event for report in reports for event in report.events]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for event in events:
                if isinstance(event, OutputModel):
                    # the source is vouched for when it is closed, so before the copy gets its name
                    with replacing(self._weights(event)) as target, self._content(event) as source:
                        yield from _copy(source, target, self._root / event.file.name)
            with replacing(session) as file, ZipFile(file, "w") as archive:
                yield from self._write(events, archive)
        except IsADirectoryError as cause:
            raise ExportUnwritable(
                f"{cause.filename or session} cannot be written: {cause.strerror}.",
                "Remove it, then run the same command again.",
            ) from cause
        except OSError as cause:
            raise ExportUnwritable(
                f"{session} cannot be written: {cause.strerror or cause}.",
                "Free some space, or give a folder that can be written, then run the same command again.",
            ) from cause
        if any(isinstance(event, Child) for event in events):
            yield Noted(
                "An offline session holds no parent, so the trainings become children of the tuning when it"
                " is uploaded after the import."
            )
        yield acknowledged(reports)

    def _weights(self, event: OutputModel) -> Path:
        """Where the copy of a model lies; that of best.pt has the name of the session."""
        ending = _FOLDER if event.file.members else PurePosixPath(event.file.name).suffix
        of = "" if event.file.name == "weights/best.pt" else f"-{link_of(event.file.name)}"
        return self._folder / f"{self._name}{of}{ending}"

    def _write(self, events: Sequence[Event], archive: ZipFile) -> Iterator[Sent]:
        # by place, so that of two pictures with one place the last wins, as on a server
        pictures = {self._key(e): e for e in events if isinstance(e, (Image, Plot, DrawnPlot, Artifact))}
        for key, event in pictures.items():
            with self._content(event) as source, _entry(archive, f"data/{key}", ZIP_STORED) as target:
                if isinstance(event, (Plot, DrawnPlot)):
                    self._sizes[key] = picture_size(source)
                yield from _copy(source, target, self._root / _name(event))
        with _entry(archive, "metrics.jsonl", ZIP_DEFLATED) as target:
            for line in _lines(self._told(events)):
                target.write(line)
        text = task_log.upload(self._plan)
        if text is not None:
            console = task_log.event(self.task_id, text)
            with _entry(archive, "log.jsonl", ZIP_DEFLATED) as target:
                for line in _lines([{name: value for name, value in console.items() if name != "type"}]):
                    target.write(line)
        with _entry(archive, "task.json", ZIP_DEFLATED) as target:
            target.write(json.dumps(self._task(events), indent=1).encode())

    @contextmanager
    def _content(self, event: _Packed | OutputModel) -> Iterator[BinaryIO]:
        if isinstance(event, DrawnPlot):
            yield io.BytesIO(draw_results(event))
            return
        with open_whole(self._root, event.file) as file:
            yield file

    def _key(self, event: _Packed) -> str:
        """Where a picture lies below ``data/``, and later below the file server, but for the task's id."""
        if isinstance(event, Image):
            below = payloads.image_key("", event)
        elif isinstance(event, Artifact):
            below = payloads.artifact_key("", event.name)
        else:
            below = payloads.plot_key("", event.title, event.iteration, _name(event))
        # exactly two folders before the task's id, and plain ones: see the top
        folder = f"{_plain(self._plan.project)}/{_plain(self._plan.name)}.{self.task_id}"
        return "/".join([folder, *(_plain(part) for part in below.split("/")[1:])])

    def _told(self, events: Iterable[Event]) -> Iterator[Json]:
        """Give what metrics.jsonl holds; the importer puts true ids and addresses in."""
        for event in events:
            match event:
                case Scalar():
                    yield payloads.scalar(self.task_id, event)
                case SingleValue():
                    yield payloads.single_value(self.task_id, event)
                case Image():
                    key = self._key(event)
                    yield payloads.debug_image(self.task_id, event, key, key)
                case Plot() | DrawnPlot():
                    key = self._key(event)
                    yield payloads.image_plot(
                        self.task_id, event.title, event.iteration, event.at, key, self._sizes[key]
                    )
                case Hyperparameters() | Properties() | OutputModel() | Artifact() | Child() | Status():
                    pass  # task.json holds these

    def _task(self, events: Iterable[Event]) -> Json:
        """Give what task.json holds: the fields of ``tasks.edit``, and how to make the output models."""
        comment = [self._plan.comment]
        parameters: dict[str, dict[str, Json]] = {
            payloads.PROPERTIES: {payloads.RUNTIME_KEY: payloads.mark(self._plan.key)}
        }
        models: list[Json] = []
        artifacts: list[Json] = []
        for event in events:
            match event:
                case Hyperparameters() | Properties():
                    for item in payloads.parameters(event):
                        parameters.setdefault(item["section"], {})[item["name"]] = item
                case Status(state) if state in _WENT_ON:
                    comment.append(_WENT_ON[state])
                case Artifact():
                    artifacts.append(payloads.artifact(event, f"data/{self._key(event)}"))
                case OutputModel():
                    models.append(self._model(event))
                case _:
                    pass
        task = {
            "id": self.task_id,
            "project_name": self._plan.project,
            "name": self._plan.name,
            "type": self._plan.type,
            "tags": list(self._plan.tags),
            "comment": " ".join(comment),
            "hyperparams": parameters,
            "offline_output_models": models,
        }
        task |= {"execution": {"artifacts": artifacts}} if artifacts else {}
        return task | ({"output_dest": self._output_uri} if self._output_uri else {})

    def _model(self, event: OutputModel) -> Json:
        """Give the arguments of ``OutputModel`` and of its ``update_weights``."""
        link, ending = link_of(event.file.name), PurePosixPath(stored_name(event.file)).suffix
        return {
            "id": f"{self.task_id}-model" if link == "best" else f"{self.task_id}-model-{link}",
            "init": {
                "name": event.name,
                "label_enumeration": dict(event.labels),
                "framework": framework_of(event.file.name),
            },
            "weights": {
                "weights_filename": str(self._weights(event)),
                # the importer shows it by what is before the dot; of two alike, one would replace the other
                "target_filename": f"{link}{ending}",
                "iteration": event.iteration,
                "update_comment": False,  # the path on this machine means nothing there
                "async_enable": True,  # or a missing file would end the import of everything else
            },
        }


def _name(event: _Packed) -> str:
    return event.file_name if isinstance(event, DrawnPlot) else event.file.name


def _lines(events: Iterable[Json]) -> Iterator[bytes]:
    """Pack events into lines that the importer can send, each a JSON list."""
    line: list[str] = []
    size = 0
    for event in events:
        text = json.dumps(event)  # ASCII, for the importer reads in the encoding of its locale
        if line and (len(line) == _MOST_EVENTS or size + len(text) > _MOST_BYTES):
            yield f"[{', '.join(line)}]\n".encode()
            line, size = [], 0
        line.append(text)
        size += len(text)
    if line:
        yield f"[{', '.join(line)}]\n".encode()


def _file_name(name: str) -> str:
    """Make a file's name of a task's: letters of any script stay, whatever a path or a shell minds goes."""
    kept = "".join(c if c in "._-+" or unicodedata.category(c)[0] in "LMN" else "_" for c in name)
    cut = kept.lstrip(".-").encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"_{cut}" if _DEVICE.match(cut) else cut or "run"


def _plain(part: str) -> str:
    """Make a folder's or file's name that is the same in a zip, on a disk and, unquoted, in a URL.

    What is changed gets a digest, so that different names stay different.
    """
    kept = not (_DEVICE.match(part) or part.endswith("."))  # also where the zip is unpacked on Windows
    if _PLAIN.fullmatch(part) and kept and len(part) <= _LONGEST_PART:
        return part
    ending = _ENDING.search(part)
    suffix = ending[0] if ending else ""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", part[: len(part) - len(suffix)])[: _LONGEST_PART - 20]
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{stem}-{digest}{suffix}"


def _copy(source: BinaryIO, target: IO[bytes], path: Path) -> Iterator[Sent]:
    """Copy in pieces; raises RunUnreadable for what ``source``, at ``path``, does not give."""
    while True:
        try:
            piece = source.read(_CHUNK)
        except OSError as cause:
            raise RunUnreadable(
                f"{path} cannot be read: {cause.strerror or cause}.",
                "Check the disk it is on, then run the same command again.",
            ) from cause
        if not piece:
            return
        target.write(piece)
        yield Sent(len(piece))


@contextmanager
def _entry(archive: ZipFile, name: str, compression: int) -> Iterator[IO[bytes]]:
    """Open a file in a zip to write it, of any size."""
    info = ZipInfo(name, _FIRST_DAY)
    info.compress_type = compression
    info.create_system = 3  # Unix, wherever this runs
    info.external_attr = 0o644 << 16
    with archive.open(info, "w", force_zip64=True) as target:
        yield target
