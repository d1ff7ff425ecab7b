"""The neutral vocabulary: what ClearML should know about a run, in words of neither side."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import TypeAlias


class RunState(Enum):
    """What has become of a training."""

    LIVE = "live"
    FINISHED = "finished"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Behind:
    """Where a link leads that was followed: a folder that may be followed into, and a file below it."""

    folder: str  # its real path
    name: str  # below it, with forward slashes and no link on the way


@dataclass(frozen=True, slots=True)
class FileStamp:
    """One regular file of a run, or a folder that is sent as one, as it was when looked at."""

    name: str  # relative to the run, with forward slashes
    size: int  # bytes
    mtime_ns: int  # nanoseconds since the epoch
    content: str = ""  # a digest of its bytes, see files.content_digest; "" where not read
    behind: Behind | None = None  # where it lies, if the run has a link in its place
    members: tuple[FileStamp, ...] = ()  # of a folder, which is sent as one zip


@dataclass(frozen=True, slots=True)
class Parameter:
    """One hyperparameter as ClearML stores it: text, and the name of its type (None: untyped)."""

    value: str
    type: str | None


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """A whole section of hyperparameters; it replaces what the section held."""

    section: str
    values: Mapping[str, Parameter]


class Part(str, Enum):
    """A kind of thing that can be left out; whose run it is, and how it ended, is always reported."""

    ARGS = "args"
    SCALARS = "scalars"
    IMAGES = "images"
    PLOTS = "plots"
    VALUES = "values"
    MODEL = "model"


class ModelFile(str, Enum):
    """Which of the models that a training leaves."""

    BEST = "best"
    LAST = "last"
    PERIODIC = "periodic"
    EXPORTS = "exports"


TIMES = frozenset({"trained_from", "trained_until"})  # the properties that state when something happened


@dataclass(frozen=True, slots=True)
class Properties:
    """User properties: facts about the run that a person finds on the task's Configuration page."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scalar:
    """One finite point of a curve."""

    title: str
    series: str
    value: float
    iteration: int  # zero-based epoch
    at: int  # milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class SingleValue:
    """A finite number that the run has once."""

    name: str
    value: float
    at: int  # milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class Image:
    """A debug image, sent byte for byte."""

    title: str
    series: str
    iteration: int
    file: FileStamp
    at: int  # milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture in ClearML's Plots tab, sent byte for byte."""

    title: str
    iteration: int
    file: FileStamp
    at: int  # milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class DrawnPlot:
    """The ``results`` figure of a run that died before Ultralytics drew it; drawn when it is sent."""

    title: str
    iteration: int
    file_name: str  # of the picture to draw
    columns: tuple[str, ...]  # of results.csv, in file order, without epoch and time
    epochs: tuple[int, ...]  # as printed in results.csv
    values: tuple[tuple[float, ...], ...]  # a row per epoch, a cell per column; NaN where not finite
    at: int  # milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class OutputModel:
    """The trained weights."""

    name: str
    file: FileStamp
    labels: Mapping[str, int]  # class name to class index
    iteration: int  # zero-based epoch of the last row


@dataclass(frozen=True, slots=True)
class Artifact:
    """A further file of the run, sent byte for byte because a person named it."""

    name: str  # below the run, as that of its file
    file: FileStamp  # with the whole SHA-256 of its bytes, 64 hex digits
    at: int  # milliseconds since the epoch; when it was written


@dataclass(frozen=True, slots=True)
class Child:
    """A training of a tuning: its task, if ClearML has one, is to be a child of the tuning's."""

    place: str  # from the folder that the tuning lies in, with forward slashes
    key: str  # the training's own key
    first_rows: tuple[str, ...]  # as in Plan


@dataclass(frozen=True, slots=True)
class Status:
    """What the task's status should be."""

    state: RunState


Event: TypeAlias = (
    Hyperparameters
    | Properties
    | Scalar
    | SingleValue
    | Image
    | Plot
    | DrawnPlot
    | OutputModel
    | Artifact
    | Child
    | Status
)


_written = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@lru_cache(maxsize=64)  # of several runs at a time
def _curves(curves: tuple[tuple[str, str], ...]) -> str:
    return _written(curves)


@dataclass(frozen=True, slots=True)
class Points(Sequence[Scalar]):
    """The points of one epoch, each made when it is asked for.

    Of a long training nearly all are known to the server, and need not be made to see that.
    """

    curves: tuple[tuple[str, str], ...]  # title and series of each point
    values: tuple[float, ...]  # finite; as many
    iteration: int  # zero-based epoch
    at: int  # milliseconds since the epoch

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Scalar:  # type: ignore[override]  # no slices
        title, series = self.curves[index]
        return Scalar(title, series, self.values[index], self.iteration, self.at)

    def written(self) -> str:
        """Write all but the time as JSON, of which the digest is; ledgers have it, so it stays as it is.

        What epochs share is written once for all of them, and a finite number is in JSON what Python shows.
        """
        return f'["Points",{_curves(self.curves)},[{",".join(map(repr, self.values))}],{self.iteration}]'

    def __iter__(self) -> Iterator[Scalar]:
        for (title, series), value in zip(self.curves, self.values, strict=True):
            yield Scalar(title, series, value, self.iteration, self.at)


@dataclass(frozen=True)  # without slots: the digest is kept
class Report:
    """The unit that is sent and remembered: events that belong together, under a key unique in its plan."""

    key: str  # e.g. epoch/12, image/val_batch0_pred.jpg, plot/results, args, model, status
    events: Sequence[Event]

    @property
    def part(self) -> Part | None:
        """Which kind of thing it reports; None where it is always reported."""
        return Part.SCALARS if isinstance(self.events, Points) else _PARTS.get(type(self.events[0]))

    @cached_property
    def digest(self) -> str:
        """16 hex digits over everything reported, except when it happened.

        Times are left out because they are read off file times: a copied directory would look changed
        throughout, although ClearML knows all of it. For the same reason a file is known by its content, and
        by its modification time only where nobody has read it.
        """
        if isinstance(
            self.events, Points
        ):  # nearly all, and a long training is digested whole at each new row
            written = self.events.written()
        else:
            written = _written([[type(event).__name__, _plain(event)] for event in self.events])
        return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()[:16]


_PARTS: Mapping[type, Part] = {
    Hyperparameters: Part.ARGS,
    Scalar: Part.SCALARS,
    Image: Part.IMAGES,
    Plot: Part.PLOTS,
    DrawnPlot: Part.PLOTS,
    SingleValue: Part.VALUES,
    OutputModel: Part.MODEL,
}


def _plain(value: object) -> object:
    """Turn an event into what JSON can hold; file names stay relative to the run, times are dropped."""
    if isinstance(value, FileStamp):
        return [value.name, value.size, value.content or value.mtime_ns]
    if isinstance(value, Properties):
        return {key: text for key, text in value.values.items() if key not in TIMES}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "at"}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def but_points(reports: Iterable[Report]) -> Iterator[Event]:
    """Give every event of reports but for the points of epochs, which are nearly all of it."""
    for report in reports:
        if not isinstance(report.events, Points):
            yield from report.events


GUESSED = " (guessed)"  # at the end of the property "release" where no checkpoint names one
STATUS = "status"  # key of the report that comes last and closes the task
FINAL = "final"  # key of the report whose values are the nearest known to those of the last validation


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything ClearML should know about one run by now."""

    key: str  # the run's own key, 32 hex digits
    project: str
    name: str
    tags: tuple[str, ...]
    folder: tuple[str, str]  # project and name that its files are stored under, whatever was wished for
    comment: str
    reports: tuple[Report, ...]  # in the order they must arrive; keys are unique
    missing: tuple[str, ...]  # what the callback would have known and the directory does not hold
    notes: tuple[str, ...]  # what was done differently from what the run states, in sentences
    first_rows: tuple[str, ...] = ()  # digests that distinguish trainings of one key; see identity.py
    unsure: frozenset[int] = frozenset()  # iterations that the run itself holds twice, so that they do not
    unwanted: frozenset[Part] = frozenset()  # what a person has left out
    type: str = "training"  # of the task; "optimizer" for a tuning

    @property
    def wanted(self) -> tuple[Report, ...]:
        """The reports that are to be sent and compared; the others tell which run it is all the same."""
        return tuple(report for report in self.reports if report.part not in self.unwanted)
