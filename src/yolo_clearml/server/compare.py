"""A plan held against what a ClearML task holds: every value, every iteration, every byte of every file.

Pure but for the files, which it asks its caller for. Of each event of a plan it states whether the task holds
it as the disk does (`Present`), not at all (`Absent`) or otherwise (`Contradicts`). A picture is
recognised by title, series and iteration, whatever its file is called there. When something happened is not
compared: times are read off file times, which a copy does not keep. Nor are the task's name, project and
tags: they are the user's to choose and to change.
"""

from __future__ import annotations

import hashlib
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from typing_extensions import assert_never

from ..errors import shown_value
from ..events import (
    TIMES,
    Artifact,
    Child,
    DrawnPlot,
    Event,
    FileStamp,
    Hyperparameters,
    Image,
    OutputModel,
    Parameter,
    Plan,
    Plot,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
)
from ..rundir.exports import link_of
from ..rundir.files import PNG
from ..sync.verdict import Difference, Extra, Kind, Verdict
from .payloads import PLOT_VARIANT, PROPERTIES

NO_LABEL = "no label"  # what a difference shows for a class that a model does not name
DEAD_LINK = "a dead link"  # what a difference shows for an address where nothing is
_ENDS = 8  # bytes; the signatures at both ends of a PNG have as many
_LARGEST_FIGURE = 64 * 2**20  # bytes; a drawn figure has less than 2 MiB
_STATUSES = {
    RunState.LIVE: ("in_progress",),
    RunState.FINISHED: ("completed", "publishing", "published"),
    RunState.STOPPED: ("stopped", "publishing", "published"),
}

Place: TypeAlias = tuple[str, str, int]  # title, series, iteration
Same: TypeAlias = Callable[[float, float], bool]


@dataclass(frozen=True, slots=True)
class Content:
    """What distinguishes the bytes of one file from others."""

    size: int  # bytes
    sha256: str  # hex digits; "" where reading stopped, for it is larger than what it is held against
    head: bytes  # its first 8 bytes
    tail: bytes  # its last 8 bytes


def content_of(pieces: Iterable[bytes], most: int) -> Content:
    """Read pieces to their end, but no further than past ``most`` bytes."""
    digest, size, head, tail = hashlib.sha256(), 0, b"", b""
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        head = (head + piece)[:_ENDS] if len(head) < _ENDS else head
        tail = (tail + piece)[-_ENDS:]
        if size > most:
            return Content(size, "", head, b"")
    return Content(size, digest.hexdigest(), head, tail)


class Files(Protocol):
    """Both sides' files; used from several threads. Either method may raise a YoloClearmlError."""

    def here(self, stamp: FileStamp) -> Content:
        """Read a file of the run."""

    def there(self, url: str, most: int) -> Content | None:
        """Read what is stored at an address, up to ``most`` bytes; None where nothing is."""


@dataclass(frozen=True, slots=True)
class HeldModel:
    """An output model of a task."""

    name: str
    uri: str
    labels: Mapping[str, int]
    link: str | None  # the name under which the task shows it; None where it does not


@dataclass(frozen=True, slots=True)
class HeldArtifact:
    """An output artifact of a task."""

    uri: str
    sha256: str  # that it states; "" where it states none


@dataclass(frozen=True, slots=True)
class Holds:
    """Everything a ClearML task holds that a plan could speak of."""

    task_id: str
    status: str
    project: str | None
    project_id: str | None
    name: str
    tags: tuple[str, ...]
    parameters: Mapping[tuple[str, str], Parameter]  # by section and name, user properties among them
    scalars: Mapping[tuple[str, str], Mapping[int, float]]  # by title and series, by iteration
    single_values: Mapping[str, float]
    images: Mapping[Place, tuple[str, ...]]  # addresses; those under other keys share a place
    plots: Mapping[Place, tuple[str, ...]]  # addresses of the pictures in the layout
    models: tuple[HeldModel, ...]  # oldest first
    reason: str = ""  # why it has this status
    artifacts: Mapping[str, HeldArtifact] = field(default_factory=dict)  # by name
    parents: Mapping[str, str | None] = field(default_factory=dict)  # of a tuning's trainings, by their keys


@dataclass(frozen=True, slots=True)
class Present:
    """The task holds the event as the disk does."""

    facts: int  # values and files that were compared


@dataclass(frozen=True, slots=True)
class Absent:
    """The task holds nothing of the event."""

    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Contradicts:
    """The task holds the event, but otherwise or in part."""

    differences: tuple[Difference, ...]
    facts: int  # values and files that are equal all the same


Finding: TypeAlias = "Present | Absent | Contradicts"


@dataclass(frozen=True, slots=True)
class Checked:
    """One event of a plan and how the task holds it."""

    report: Report
    event: Event
    finding: Finding


def verdict(plan: Plan, holds: Holds, url: str | None, checked: Iterable[Checked]) -> Verdict:
    """Sum up what was found event by event."""
    facts, different = 0, list[Difference]()
    for found in (each.finding for each in checked):
        match found:
            case Present(equal):
                facts += equal
            case Absent(differences):
                different += differences
            case Contradicts(differences, equal):
                different += differences
                facts += equal
            case _:
                assert_never(found)
    return Verdict(holds.task_id, url, facts, tuple(different), extra(plan, holds))


def check(report: Report, holds: Holds, files: Files, same: Same = operator.eq) -> list[Checked]:
    """Look for each event of a report in what a task holds.

    ``same`` decides whether a value here and one there are the same. By default they have to be, to the
    last bit: although the server indexes values as 32-bit floats, it gives back the JSON it was sent
    (Elasticsearch's ``_source``), in which a 64-bit float is written so that it reads as itself. What a live
    training reported has more digits than its results.csv keeps, and wants another ``same``.
    """
    return [Checked(report, event, _finding(event, holds, files, same)) for event in report.events]


def _finding(event: Event, holds: Holds, files: Files, same: Same) -> Finding:
    results = list(_results(event, holds, files, same))
    different = tuple(result for result in results if result is not None)
    equal = len(results) - len(different)
    if not different:
        return Present(equal)
    if equal or any(difference.there is not None for difference in different):
        return Contradicts(different, equal)
    return Absent(different)


_Result: TypeAlias = "Difference | None"  # of one value or file; None: the same on both sides


def _results(event: Event, holds: Holds, files: Files, same: Same) -> Iterator[_Result]:
    match event:
        case Hyperparameters(section, values):
            for name, parameter in values.items():
                yield _parameter(section, name, parameter, holds)
        case Properties(texts):
            for name, text in texts.items():
                yield _property(name, text, holds)
        case Scalar(title, series, value, iteration):
            there = holds.scalars.get((title, series), {}).get(iteration)
            yield _value((Kind.SCALAR, title, series, iteration), value, there, same)
        case SingleValue(name, value):
            yield _value((Kind.SINGLE_VALUE, name, None, None), value, holds.single_values.get(name), same)
        case Image(title, series, iteration, stamp):
            urls = holds.images.get((title, series, iteration))
            yield _file((Kind.IMAGE, title, series, iteration), stamp, urls, files)
        case Plot(title, iteration, stamp):
            urls = holds.plots.get((title, PLOT_VARIANT, iteration))
            yield _file((Kind.PLOT, title, None, iteration), stamp, urls, files)
        case DrawnPlot(title, iteration):
            urls = holds.plots.get((title, PLOT_VARIANT, iteration))
            yield _figure((Kind.PLOT, title, None, iteration), urls, files)
        case OutputModel():
            yield from _model(event, holds, files)
        case Artifact():
            yield from _artifact(event, holds, files)
        case Child():
            yield _child(event, holds)
        case Status(state):
            wanted = _STATUSES[state]
            right = holds.status in wanted
            yield None if right else Difference(Kind.STATUS, "", None, None, wanted[0], holds.status)
        case _:
            assert_never(event)


_Where: TypeAlias = "tuple[Kind, str, str | None, int | None]"  # how a Difference begins


def _value(where: _Where, here: float, there: float | None, same: Same) -> _Result:
    if there is not None and same(here, there):
        return None
    return Difference(*where, repr(here), None if there is None else repr(there))


def _parameter(section: str, name: str, here: Parameter, holds: Holds) -> _Result:
    there = holds.parameters.get((section, name))
    if there is not None and (here.value, here.type or "") == (there.value, there.type or ""):
        return None
    return Difference(
        *(Kind.HYPERPARAMETER, section, name, None),
        _typed(name, here),
        None if there is None else _typed(name, there),
    )


def _typed(name: str, parameter: Parameter) -> str:
    return f"{shown_value(name, parameter.value)!r} ({parameter.type or 'no type'})"


def _property(name: str, here: str, holds: Holds) -> _Result:
    there = holds.parameters.get((PROPERTIES, name))
    if there is not None and (name in TIMES or here == there.value):
        return None
    return Difference(
        Kind.PROPERTY, name, None, None, repr(here), None if there is None else repr(there.value)
    )


def _file(where: _Where, stamp: FileStamp, urls: tuple[str, ...] | None, files: Files) -> _Result:
    """Compare a file with those at ``urls`` (None: no event); one that is the same will do."""
    if urls is None:
        return Difference(*where, f"a file of {stamp.size:,} bytes", None)
    here = files.here(stamp)
    there = "no file"
    for url in urls:
        stored = files.there(url, here.size)
        if stored == here:
            return None
        there = _stored(stored, "another file" if stored and stored.size == here.size else "a file")
    return Difference(*where, f"a file of {here.size:,} bytes", there)


def _figure(where: _Where, urls: tuple[str, ...] | None, files: Files) -> _Result:
    """Ask for a whole picture: its bytes change with the version of what draws it."""
    if urls is None:
        return Difference(*where, "a figure", None)
    there = "no file"
    for url in urls:
        stored = files.there(url, _LARGEST_FIGURE)
        if stored is not None and stored.head.startswith(PNG[0]) and stored.tail.endswith(PNG[1]):
            return None
        there = _stored(stored, "a broken file")
    return Difference(*where, "a figure", there)


def _stored(content: Content | None, what: str) -> str:
    if content is None:
        return DEAD_LINK
    return f"{what} of {'' if content.sha256 else 'at least '}{content.size:,} bytes"


def _model(here: OutputModel, holds: Holds, files: Files) -> Iterator[_Result]:
    there = recognised(here, holds)
    yield _file((Kind.MODEL, here.name, None, None), here.file, (there.uri,) if there else None, files)
    if there is None:
        return
    shown = "shown by the task", "a model that its task does not show"
    yield None if there.link is not None else Difference(Kind.MODEL, here.name, None, None, *shown)
    yield (
        None
        if here.name == there.name
        else Difference(Kind.MODEL, here.name, "name", None, repr(here.name), repr(there.name))
    )
    for label in {**here.labels, **there.labels}:
        sides = here.labels.get(label), there.labels.get(label)
        here_index, there_index = (NO_LABEL if index is None else str(index) for index in sides)
        yield (
            None
            if sides[0] == sides[1]
            else Difference(Kind.MODEL, here.name, f"label {label!r}", None, here_index, there_index)
        )


def _artifact(here: Artifact, holds: Holds, files: Files) -> Iterator[_Result]:
    there = holds.artifacts.get(here.name)
    yield _file((Kind.ARTIFACT, here.name, None, None), here.file, (there.uri,) if there else None, files)
    if there is None:
        return
    hashes = here.file.content, there.sha256
    yield None if hashes[0] == hashes[1] else Difference(Kind.ARTIFACT, here.name, "hash", None, *hashes)


def _child(here: Child, holds: Holds) -> _Result:
    if holds.parents.get(here.key) == holds.task_id:
        return None
    there = (holds.parents[here.key] or "no parent") if here.key in holds.parents else None
    return Difference(Kind.CHILD, here.place, None, None, f"a child of {holds.task_id}", there)


def recognised(model: OutputModel, holds: Holds) -> HeldModel | None:
    """Find the model the task shows under the file's name, else one that is called as ours."""
    link = link_of(model.file.name)
    shown = [held for held in holds.models if held.link == link]
    called = [held for held in holds.models if held.name == model.name]
    return next(iter([*shown, *called]), None)


def extra(plan: Plan, holds: Holds) -> tuple[Extra, ...]:
    """Count what a task holds beyond a plan; it is no difference."""
    events = [event for report in plan.reports for event in report.events]
    scalars = {(e.title, e.series, e.iteration) for e in events if isinstance(e, Scalar)}
    single = {e.name for e in events if isinstance(e, SingleValue)}
    images = {(e.title, e.series, e.iteration) for e in events if isinstance(e, Image)}
    plots = {(e.title, PLOT_VARIANT, e.iteration) for e in events if isinstance(e, (Plot, DrawnPlot))}
    models = [recognised(e, holds) for e in events if isinstance(e, OutputModel)]
    artifacts = {e.name for e in events if isinstance(e, Artifact)}
    parameters = {
        (event.section if isinstance(event, Hyperparameters) else PROPERTIES, name)
        for event in events
        if isinstance(event, (Hyperparameters, Properties))
        for name in event.values
    }
    found: Counter[tuple[Kind, str, str | None]] = Counter()
    for (title, series), points in holds.scalars.items():
        found[Kind.SCALAR, title, series] += sum((title, series, i) not in scalars for i in points)
    for name in holds.single_values:
        found[Kind.SINGLE_VALUE, name, None] += name not in single
    for kind, held, planned in ((Kind.IMAGE, holds.images, images), (Kind.PLOT, holds.plots, plots)):
        for title, series, iteration in held:
            found[kind, title, series] += (title, series, iteration) not in planned
    for section, name in holds.parameters:
        kind = Kind.PROPERTY if section == PROPERTIES else Kind.HYPERPARAMETER
        found[kind, section, name] += (section, name) not in parameters
    for model in holds.models:
        found[Kind.MODEL, model.name, None] += model not in models
    for name in holds.artifacts:
        found[Kind.ARTIFACT, name, None] += name not in artifacts
    return tuple(Extra(*what, count) for what, count in found.items() if count)
