"""Outcomes to what a person or a program reads: a terminal with bars and a table, plain lines, JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from typing_extensions import assert_never

from .engine import Delivered, Facts, Failed, Outcome, Progress, Skipped, Started, UpToDate
from .errors import YoloClearmlError
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


class Console(Protocol):
    """Shows outcomes as they come; as a context manager, the summary when all have come."""

    def __enter__(self) -> Console:
        """Begin."""

    def show(self, outcome: Outcome) -> None:
        """Show one outcome."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, with a summary where there is one."""


def choose(as_json: bool, quiet: bool, verbose: bool, sent: str = "delivered") -> Console:
    """Pick the console that fits where the output goes; ``sent`` is the word for what was done."""
    if as_json:
        return JsonLines(quiet)
    if sys.stdout.isatty() and sys.stderr.isatty() and not quiet:
        return Terminal(verbose, sent)
    return PlainLines(quiet, verbose, sent)


def say_error(error: YoloClearmlError) -> None:
    """Tell a person what happened and what to do next."""
    print(f"yolo-clearml: {error}\n  {error.hint}", file=sys.stderr)  # noqa: T201


def size_text(size: int) -> str:
    """Write a number of bytes for a person: 950 B, 1.4 MB."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def shown_path(path: Path) -> str:
    """Write a path as short as it can be typed, on one line."""
    try:
        text = str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        text = str(path)
    return printable(text)


def printable(text: str) -> str:
    """Make text from an untrusted directory safe for a terminal: no control characters, one line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _sent(outcome: Delivered) -> str:
    files = f", {outcome.files} files ({size_text(outcome.size)})" if outcome.files else ""
    return f"{outcome.events} events{files}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# -- JSON ----------------------------------------------------------------------------------------------


class JsonLines:
    """One JSON object per run on stdout, when the run is done."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def __enter__(self) -> JsonLines:
        return self

    def show(self, outcome: Outcome) -> None:
        """Write the line of a run that is done."""
        line = json_line(outcome)
        if line is not None and not (self._quiet and line["outcome"] != "failed"):
            sys.stdout.write(json.dumps(line, ensure_ascii=True) + "\n")
            sys.stdout.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # each line stands for itself


def json_line(outcome: Outcome) -> dict[str, Any] | None:
    """Give the promised JSON object of an outcome; None where the run is still under way."""
    line: dict[str, Any] = {
        "run": str(outcome.run),
        "name": None,
        "state": None,
        "outcome": None,
        "task_id": None,
        "url": None,
        "epochs": 0,
        "events": 0,
        "files": 0,
        "bytes": 0,
        "reason": None,
        "hint": None,
        "missing": [],
    }
    match outcome:
        case Started() | Progress():
            return None
        case Delivered():
            line |= {"outcome": "delivered", "task_id": outcome.task_id, "url": outcome.url}
            line |= {"events": outcome.events, "files": outcome.files, "bytes": outcome.size}
            line |= {"missing": list(outcome.missing), "reason": " ".join(outcome.notes) or None}
        case UpToDate():
            line |= {"outcome": "up-to-date", "task_id": outcome.task_id, "url": outcome.url}
        case Skipped():
            return line | {"outcome": "skipped", "reason": outcome.reason, "hint": outcome.hint}
        case Failed():
            line |= {"outcome": "failed", "task_id": outcome.task_id, "url": outcome.url}
            line |= {"reason": str(outcome.error), "hint": outcome.error.hint}
        case _:
            assert_never(outcome)
    facts = outcome.facts
    state = facts.state.value if facts.state else None
    return line | {"name": facts.name, "state": state, "epochs": facts.epochs}


# -- plain lines ---------------------------------------------------------------------------------------


class PlainLines:
    """A line per run that changed, for pipes, files and cron; nothing at all where nothing did."""

    def __init__(self, quiet: bool, verbose: bool, sent: str) -> None:
        self._quiet, self._verbose, self._word = quiet, verbose, sent

    def __enter__(self) -> PlainLines:
        return self

    def show(self, outcome: Outcome) -> None:
        """Write the line of a run that is done."""
        run = shown_path(outcome.run)
        match outcome:
            case Started() | Progress():
                pass
            case Delivered():
                where = f": {outcome.url}" if outcome.url else ""
                absent = ""
                if outcome.missing and not self._verbose:
                    absent = f"; {_count(len(outcome.missing), 'fact')} not on disk (-v names them)"
                self._out(f"{run}: {self._word} {_sent(outcome)}{absent}{where}")
                for note in outcome.notes:
                    self._err(f"{run}: {printable(note)}")
                if self._verbose:
                    for fact in outcome.missing:
                        self._out(f"{run}: not on disk: {printable(fact)}")
            case UpToDate():
                if self._verbose:
                    self._out(f"{run}: up to date")
            case Skipped():
                if self._verbose:
                    self._err(f"{run}: skipped: {outcome.reason}")
            case Failed():
                text = f"{run}: failed: {printable(str(outcome.error))} {printable(outcome.error.hint)}"
                sys.stderr.write(text + "\n")
            case _:
                assert_never(outcome)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # each line stands for itself

    def _out(self, line: str) -> None:
        if not self._quiet:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def _err(self, line: str) -> None:
        if not self._quiet:
            sys.stderr.write(line + "\n")


# -- a terminal ------------------------------------------------------------------------------------------


class Terminal:
    """Bars on stderr while runs are under way, then one table on stdout and what it leaves open in words."""

    def __init__(self, verbose: bool, sent: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, DownloadColumn, TextColumn
        from rich.progress import Progress as Bars

        self._verbose, self._word = verbose, sent
        self._out = RichConsole(highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            console=RichConsole(stderr=True),
            transient=True,
        )
        self._bar_of: dict[Path, Any] = {}
        self._done: list[Delivered | UpToDate | Failed] = []
        self._skipped: list[Skipped] = []

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def show(self, outcome: Outcome) -> None:
        """Move a bar, or keep the outcome for the table."""
        match outcome:
            case Started():
                total = outcome.size or None
                self._bar_of[outcome.run] = self._bars.add_task(shown_path(outcome.run), total=total)
            case Progress():
                self._bars.advance(self._bar_of[outcome.run], outcome.size)
            case Skipped():
                self._skipped.append(outcome)
            case Delivered() | UpToDate() | Failed():
                self._done.append(outcome)
                if outcome.run in self._bar_of:
                    self._bars.remove_task(self._bar_of.pop(outcome.run))
            case _:
                assert_never(outcome)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        done = sorted(self._done, key=lambda outcome: (isinstance(outcome, Failed), str(outcome.run)))
        if done:
            self._table(done)
        self._words(done)

    def _table(self, done: Sequence[Delivered | UpToDate | Failed]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", overflow="fold", ratio=2)
        table.add_column("state", no_wrap=True)
        table.add_column("epochs", justify="right", no_wrap=True)
        table.add_column("best", no_wrap=True)
        table.add_column("ClearML", overflow="fold", ratio=2)
        for outcome in done:
            facts = outcome.facts
            state = Text(facts.state.value if facts.state else "", style=_COLOURS.get(facts.state, ""))
            match outcome:
                case Delivered():
                    told = Text(f"{self._word} {_sent(outcome)}", style="green")
                case UpToDate():
                    told = Text("up to date")
                case Failed():
                    told = Text("failed, see below", style="red")
                case _:
                    assert_never(outcome)
            if outcome.url:
                told.stylize(f"link {outcome.url}")
            name = Text(shown_path(outcome.run))
            table.add_row(name, state, _epochs(facts), _best(facts), told)
        self._out.print(table)

    def _words(self, done: Sequence[Delivered | UpToDate | Failed]) -> None:
        delivered = [outcome for outcome in done if isinstance(outcome, Delivered)]
        links = [outcome for outcome in delivered if outcome.url]
        if links and len(links) <= _MOST_LINKS:
            for outcome in links:
                self._say(f"{shown_path(outcome.run)}: {outcome.url}")
            self._say("")
        if missing := _grouped((fact, outcome.run) for outcome in delivered for fact in outcome.missing):
            self._say("Not on disk, so not in ClearML:")
            for fact, runs in missing:
                self._say(f"  {printable(fact)}{_of_runs(runs, len(delivered))}")
        for outcome in delivered:
            for note in outcome.notes:
                self._say(f"{shown_path(outcome.run)}: {printable(note)}")
        if self._skipped:
            end = ":" if self._verbose else " (-v names them)."
            self._say(f"{_count(len(self._skipped), 'directory').replace('ys', 'ies')} skipped{end}")
            for skipped in self._skipped if self._verbose else ():
                self._say(f"  {shown_path(skipped.run)} {skipped.reason}")
        for failed in (outcome for outcome in done if isinstance(outcome, Failed)):
            self._say(f"{shown_path(failed.run)} failed: {printable(str(failed.error))}")
            self._say(f"  {printable(failed.error.hint)}")

    def _say(self, line: str) -> None:
        self._out.print(line, markup=False, soft_wrap=True)


_MOST_LINKS = 20  # beyond, the table's own links have to do
_COLOURS = {RunState.LIVE: "cyan", RunState.FINISHED: "green", RunState.STOPPED: "yellow", None: ""}


def _epochs(facts: Facts) -> str:
    return f"{facts.epochs}/{facts.of_epochs}" if facts.of_epochs else str(facts.epochs)


def _best(facts: Facts) -> str:
    return f"{facts.best[0]} {facts.best[1]:.3f}" if facts.best else ""


def _grouped(facts: Iterator[tuple[str, Path]]) -> list[tuple[str, list[Path]]]:
    """Collect the runs of equal facts, the most frequent first."""
    runs: dict[str, list[Path]] = {}
    for fact, run in facts:
        runs.setdefault(fact, []).append(run)
    return sorted(runs.items(), key=lambda item: -len(item[1]))


def _of_runs(runs: Sequence[Path], of: int) -> str:
    if len(runs) == of:
        return ""
    return f" ({shown_path(runs[0])})" if len(runs) == 1 else f" ({len(runs)} runs)"


# -- dry run ----------------------------------------------------------------------------------------------


def plan_lines(run: Path, plan: Plan, pending: Sequence[Report]) -> Iterator[str]:
    """Write a plan for a person: every event that would be sent, one a line, the same every time."""
    yield f"{shown_path(run)}"
    yield f"  task     {printable(plan.project)} / {printable(plan.name)}  tags {', '.join(plan.tags) or '-'}"
    for report in pending:
        for event in report.events:
            for line in _event_lines(event):
                yield f"  {printable(line)}"
    for fact in plan.missing:
        yield f"  missing  {printable(fact)}"
    for note in plan.notes:
        yield f"  note     {printable(note)}"


def _event_lines(event: Event) -> Iterator[str]:
    match event:
        case Hyperparameters(section, values):
            for name, parameter in values.items():
                yield f"param    {section}/{name} = {parameter.value!r} ({parameter.type or 'untyped'})"
        case Properties(values):
            for name, value in values.items():
                yield f"property {name} = {value!r}"
        case Scalar():
            yield f"scalar   {event.title} / {event.series} [{event.iteration}] = {event.value!r}"
        case SingleValue():
            yield f"single   {event.name} = {event.value!r}"
        case Image():
            yield f"image    {event.title} / {event.series} [{event.iteration}] <- {event.file.name}"
        case Plot():
            yield f"plot     {event.title} [{event.iteration}] <- {event.file.name}"
        case DrawnPlot():
            yield f"plot     {event.title} [{event.iteration}] <- drawn from results.csv"
        case OutputModel():
            labels = ", ".join(event.labels) or "none"
            yield f"model    {event.name} <- {event.file.name} ({event.file.size} bytes, labels: {labels})"
        case Status(state):
            word = {RunState.LIVE: "in_progress", RunState.FINISHED: "completed", RunState.STOPPED: "stopped"}
            yield f"status   {word[state]}"
        case _:
            assert_never(event)


def plan_json(run: Path, plan: Plan, pending: Sequence[Report]) -> dict[str, Any]:
    """Give a plan as JSON can hold it: the same events, times included, in the order of sending."""
    return {
        "run": str(run),
        "key": plan.key,
        "project": plan.project,
        "name": plan.name,
        "tags": list(plan.tags),
        "reports": [
            {"key": report.key, "events": [_event_json(e) for e in report.events]} for report in pending
        ],
        "missing": list(plan.missing),
        "notes": list(plan.notes),
    }


def _event_json(event: object) -> Any:
    if isinstance(event, RunState):
        return event.value
    if isinstance(event, dict):
        return {str(name): _event_json(value) for name, value in event.items()}
    if isinstance(event, tuple):
        return [_event_json(value) for value in event]
    if isinstance(event, float) and event != event:
        return None
    slots = getattr(type(event), "__slots__", None)
    if slots is None:
        return event
    fields = {name: _event_json(getattr(event, name)) for name in slots}
    kind = type(event).__name__
    return fields if kind in ("FileStamp", "Parameter") else {"event": kind, **fields}


def silence_broken_pipe(stream: IO[str]) -> None:
    """Let a reader that has gone, as in ``| head``, end the program without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
