"""Reports divided into batches, each sent and acknowledged as one; and the events of a refused one, apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

from ..errors import ServerFailing, ServerRefused, YoloClearmlError
from ..events import (
    Artifact,
    DrawnPlot,
    Event,
    Hyperparameters,
    Image,
    OutputModel,
    Plot,
    Points,
    Properties,
    Report,
    Scalar,
    Status,
    but_points,
)
from ..sync.sinks import file_size
from . import payloads
from .api import Api, RefusedRequest

UNFIT = 500  # code of a refusal: a document cannot be indexed (500/100); the server itself is well
_MOST_EVENTS = 5000  # in a request; the index is refreshed for each, so few large ones are faster
_MOST_BYTES = 4 * 2**20  # in a request; the server takes 15 MiB
_EVENT_BYTES = 320  # of an event without its names, with room to spare
_MOST_REFUSED = 8  # events of a batch that are looked for one by one
_NAMED = 3  # of them in a message

_Owned: TypeAlias = "Sequence[tuple[str, str]]"  # texts of events, each with the key of its report


def batches(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """Group reports, in order, so that each group is sent and acknowledged as one.

    Events share a request up to its limits, but never one without files with one that waits for files:
    a file server that is down must not keep the curves out.
    """
    batch: list[Report] = []
    kind, events, size = "", 0, 0
    for report in reports:
        mine = _kind(report)
        grows = len(report.events)
        weighs = _EVENT_BYTES * grows + _names(report)
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
        case Artifact():
            return "artifacts"
        case Status():
            return "status"
        case _:
            files = any(file_size(event) is not None for event in but_points([report]))
            return "files" if files else "numbers"


def takes_closed(report: Report) -> bool:
    """Check whether a task that cannot be started again takes a report; it keeps its status."""
    return _kind(report) in ("numbers", "files", "status") or isinstance(report.events[0], Properties)


def _names(report: Report) -> int:
    if isinstance(report.events, Points):
        return _names_of(report.events.curves)
    return sum(_names_in(event) for event in report.events)


@lru_cache(maxsize=64)  # of several runs at a time
def _names_of(curves: tuple[tuple[str, str], ...]) -> int:
    return sum(2 * len(title.encode()) + 2 * len(series.encode()) for title, series in curves)


def _names_in(event: Event) -> int:
    match event:
        case Scalar() | Image():
            return _names_of(((event.title, event.series),))
        case Plot() | DrawnPlot():
            return 2000  # the plotly layout
        case _:
            return 200


class EventsRefused(ServerRefused):
    """ClearML has taken a batch of events but for some; those of ``reports`` are still to be reported.

    ``untried`` are those after the last refused one that was looked for.
    """

    def __init__(
        self,
        refused: Sequence[tuple[str, str, YoloClearmlError]],
        count: int,
        untried: Sequence[tuple[str, str]] = (),
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


def add_apart(api: Api, events: _Owned, error: YoloClearmlError) -> None:
    """Send the events of a refused batch in ever smaller ones, so that a bad one keeps no other back.

    Raises EventsRefused, which names the bad ones. Where there are many, and not because their documents
    cannot be indexed, it is the batch that is refused: raises ``error``.
    """
    refused: list[tuple[str, str, YoloClearmlError]] = []
    unfit = isinstance(error, RefusedRequest) and error.code == UNFIT
    for owner, line, refusal in _bad_ones(api, events, error):
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
    api: Api, events: _Owned, error: YoloClearmlError
) -> Iterator[tuple[str, str, YoloClearmlError]]:
    if len(events) == 1:
        yield (*events[0], error)
        return
    middle = len(events) // 2
    for part in (events[:middle], events[middle:]):
        try:
            # once: whoever refuses the whole has been waited for
            api.add_events([line for _, line in part], patient=False)
        except (ServerRefused, ServerFailing) as refusal:
            yield from _bad_ones(api, part, refusal)
