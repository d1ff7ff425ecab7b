"""Outcomes to what a person or a program reads: a terminal with bars and a table, plain lines, JSON lines."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeAlias, TypeVar

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
from .sinks import RecordingSink

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.progress import Progress as Bars
    from rich.progress import Task

_Fact = TypeVar("_Fact")


class Console(Protocol):
    """Shows outcomes as they come; as a context manager, the summary when all have come."""

    def __enter__(self) -> Console:
        """Begin."""

    def show(self, outcome: Outcome) -> None:
        """Show one outcome."""

    def say(self, text: str) -> None:
        """Tell a person something that is no outcome; from any thread."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, with a summary where there is one."""


def choose(
    as_json: bool, quiet: bool, verbose: bool, runs: int, sent: str = "sent", afterwards: str = ""
) -> Console:
    """Pick the console that fits where the output goes.

    ``sent`` is the word for what was done, ``afterwards`` what a person does next where something was.
    """
    if as_json:
        return JsonLines(quiet)
    if sys.stdout.isatty() and not quiet:
        return Terminal(verbose, runs, sent, afterwards)
    return PlainLines(quiet, verbose, sent)


def say_error(error: YoloClearmlError) -> None:
    """Tell a person what happened and what to do next."""
    _write(sys.stderr, f"yolo-clearml: {printable(str(error))}\n  {printable(error.hint)}")


def size_text(size: int) -> str:
    """Write a number of bytes for a person: 950 B, 1.4 MB, 263 kB."""
    if size < 1000:
        return f"{size} B"
    amount, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 99.95 else f"{amount:.1f} {unit}"


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


class ReaderGone(Exception):
    """Nobody reads the output any more, as after ``| head``."""


def _write(stream: TextIO, line: str) -> None:
    """Write a line at once; raises ReaderGone."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError as cause:
        # or Python may say at its end that the rest could not be written, as its manual has it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise ReaderGone from cause


def _sent(outcome: Delivered) -> str:
    files = f", {_count(outcome.files, 'file')} ({size_text(outcome.size)})" if outcome.files else ""
    return f"{_count(outcome.events, 'event')}{files}"


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
            _write(sys.stdout, json.dumps(line, ensure_ascii=True))

    def say(self, text: str) -> None:
        """Write to stderr."""
        if not self._quiet:
            _write(sys.stderr, text)

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
        self._failures: set[tuple[str, str]] = set()

    def __enter__(self) -> PlainLines:
        return self

    def show(self, outcome: Outcome) -> None:
        """Write the line of a run that is done."""
        run = shown_path(outcome.run)
        match outcome:
            case Started() | Progress():
                pass
            case Delivered():
                self._result(f"{run}: {self._word} {_sent(outcome)}{self._rest(outcome)}")
                for note in outcome.notes:
                    self.say(f"{run}: {printable(note)}")
                for fact in outcome.missing if self._verbose else ():
                    self.say(f"{run}: not on disk: {printable(fact)}")
            case UpToDate():
                if self._verbose:
                    self._result(f"{run}: up to date{_where(outcome)}")
            case Skipped():
                if self._verbose:
                    self.say(f"{run}: skipped: it {printable(outcome.reason)}. {printable(outcome.hint)}")
            case Failed():
                told = (printable(str(outcome.error)), printable(outcome.error.hint))
                text = " for the same reason" if told in self._failures else f": {told[0]} {told[1]}"
                self._failures.add(told)
                _write(sys.stderr, f"{run}: failed{text}")
            case _:
                assert_never(outcome)

    def say(self, text: str) -> None:
        """Write to stderr."""
        if not self._quiet:
            _write(sys.stderr, text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # each line stands for itself

    def _rest(self, outcome: Delivered) -> str:
        unnamed = 0 if self._verbose else len(outcome.missing)
        absent = f"; {_count(unnamed, 'fact')} not on disk (-v names them)" if unnamed else ""
        return f"{absent}{_where(outcome)}"

    def _result(self, line: str) -> None:
        if not self._quiet:
            _write(sys.stdout, line)


def _where(outcome: Delivered | UpToDate) -> str:
    return f": {printable(outcome.url)}" if outcome.url else ""


# -- a terminal ------------------------------------------------------------------------------------------

_Done: TypeAlias = "Delivered | UpToDate | Failed"
_MOST_ROWS = 20  # beyond, runs that were up to date are counted and links left to --json
_MOST_FACTS = 20  # of a kind, in the words below the table
_COLOURS = {RunState.LIVE: "cyan", RunState.FINISHED: "green", RunState.STOPPED: "yellow", None: ""}


class Terminal:
    """Bars on stderr while runs are under way, then one table on stdout and what it leaves open in words."""

    def __init__(self, verbose: bool, runs: int, sent: str, afterwards: str) -> None:
        from rich.console import Console as RichConsole

        self._verbose, self._word, self._afterwards = verbose, sent, afterwards
        self._out = RichConsole(highlight=False)
        self._err = RichConsole(highlight=False, stderr=True)
        self._bars = _bars(self._err)
        self._all = self._bars.add_task("all runs", total=runs, kind="runs") if runs > 1 else None
        self._bar_of: dict[Path, Any] = {}
        self._done: list[_Done] = []
        self._skipped: list[Skipped] = []
        self._printed = False

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def show(self, outcome: Outcome) -> None:
        """Move a bar, or keep the outcome for the table."""
        match outcome:
            case Started():
                name = _tail(shown_path(outcome.run), 36)
                total = outcome.size or None
                self._bar_of[outcome.run] = self._bars.add_task(name, total=total, kind="bytes")
            case Progress():
                self._bars.advance(self._bar_of[outcome.run], outcome.size)
            case Skipped():
                self._skipped.append(outcome)
                self._advance_all()
            case Delivered() | UpToDate() | Failed():
                self._done.append(outcome)
                if outcome.run in self._bar_of:
                    self._bars.remove_task(self._bar_of.pop(outcome.run))
                self._advance_all()
            case _:
                assert_never(outcome)

    def say(self, text: str) -> None:
        """Write to stderr, above the bars."""
        self._print(text, to=self._err)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        done = sorted(self._done, key=lambda outcome: (isinstance(outcome, Failed), _natural(outcome.run)))
        folder = _common_folder([outcome.run for outcome in done])
        listed = [o for o in done if self._verbose or len(done) <= _MOST_ROWS or not isinstance(o, UpToDate)]
        if listed:
            self._table(listed, folder)
        if unlisted := len(done) - len(listed):
            self._gap()
            self._print(f"{_count(unlisted, 'run')} up to date (-v lists them).")
        self._words(done, folder)

    def _advance_all(self) -> None:
        if self._all is not None:
            self._bars.advance(self._all)

    def _table(self, listed: Sequence[_Done], folder: str) -> None:
        from rich import box
        from rich.style import Style
        from rich.table import Table
        from rich.text import Text

        if folder:
            self._print(f"Below {folder}:")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("run")
        table.add_column("state", no_wrap=True)
        table.add_column("epochs", justify="right", no_wrap=True)
        table.add_column("best metric", overflow="fold")
        table.add_column(self._word, overflow="fold")
        for outcome in listed:
            facts = outcome.facts
            state = Text(facts.state.value if facts.state else "", style=_COLOURS.get(facts.state, ""))
            match outcome:
                case Delivered():
                    size = f", {size_text(outcome.size)}" if outcome.files else ""
                    told = Text(f"{_count(outcome.events, 'event')}{size}", style="green")
                case UpToDate():
                    told = Text("up to date")
                case Failed():
                    told = Text("failed", style="red")
                case _:
                    assert_never(outcome)
            name = _Folding(_below(outcome.run, folder), Style(link=printable(outcome.url or "") or None))
            table.add_row(name, state, Text(_epochs(facts)), Text(_best(facts)), told)
        self._out.print(table)
        self._printed = True

    def _words(self, done: Sequence[_Done], folder: str) -> None:
        delivered = [outcome for outcome in done if isinstance(outcome, Delivered)]
        if delivered and (len(delivered) > 1 or self._afterwards):
            self._gap()
        if len(delivered) > 1:
            events, files, size = (sum(getattr(o, n) for o in delivered) for n in ("events", "files", "size"))
            amount = f"{_count(events, 'event')} and {_count(files, 'file')} ({size_text(size)})"
            self._print(f"{self._word.capitalize()} {amount} of {len(delivered)} runs.")
        if delivered and self._afterwards:
            self._print(self._afterwards)
        self._links(done, folder)
        self._facts(
            "Not on disk, so not in ClearML:",
            [(fact, _below(outcome.run, folder)) for outcome in delivered for fact in outcome.missing],
            len(delivered),
        )
        notes = [(note, _below(outcome.run, folder)) for outcome in delivered for note in outcome.notes]
        self._facts("Done differently:", notes, len(delivered))
        skipped = sorted(self._skipped, key=lambda outcome: _natural(outcome.run))
        self._facts("Skipped, because it", [(o.reason, shown_path(o.run)) for o in skipped], 0)
        failures = [outcome for outcome in done if isinstance(outcome, Failed)]
        alike = [((str(o.error), o.error.hint), _below(o.run, folder)) for o in failures]
        for (text, hint), runs in _grouped(alike):
            self._gap()
            who = runs[0] if len(runs) == 1 else f"{len(runs)} runs"
            self._print(f"{who} failed: {text}", to=self._err, style="red")
            self._print(f"  {hint}", to=self._err)

    def _links(self, done: Sequence[_Done], folder: str) -> None:
        """Print addresses in full, each at the beginning of a line, where a terminal lets it be copied."""
        told = [o for o in done if self._verbose or len(done) == 1 or isinstance(o, Delivered)]
        links = [(outcome.run, printable(outcome.url)) for outcome in told if outcome.url]
        if links:
            self._gap()
        if len(links) > _MOST_ROWS and not self._verbose:
            self._print("Their addresses in ClearML: with -v, or with --json.")
            return
        for run, address in links:
            if len(done) > 1:
                self._print(_below(run, folder))
            self._out.print(address, markup=False, soft_wrap=True, style="blue")

    def _facts(self, title: str, facts: Iterable[tuple[str, str]], of: int) -> None:
        """Print equal facts once, with the runs they are of."""
        grouped = _grouped(facts)
        most = len(grouped) if self._verbose else _MOST_FACTS
        if grouped:
            self._gap()
            self._print(title)
        for fact, runs in grouped[:most]:
            whose = runs[0] if len(runs) == 1 else f"{len(runs)} of {of} runs" if of else f"{len(runs)} times"
            if self._verbose and len(runs) > 1:
                whose = ", ".join(runs)
            self._print(f"  {fact}{'' if len(runs) == of else f' ({whose})'}")
        if len(grouped) > most:
            self._print(f"  and {len(grouped) - most} more (-v names them)")

    def _gap(self) -> None:
        """Part what follows from what stands above it, if there is something."""
        if self._printed:
            self._out.print()

    def _print(self, line: str, to: RichConsole | None = None, style: str = "") -> None:
        """Print prose, folded between words; a word longer than a line is left whole."""
        indent = line[: len(line) - len(line.lstrip())]
        console = to or self._out
        text = textwrap.fill(
            printable(line),
            console.width,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(text, markup=False, emoji=False, soft_wrap=True, style=style)
        self._printed = True


def _bars(console: RichConsole) -> Bars:
    """Make bars that count bytes, and one that counts runs."""
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Amount(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.fields["kind"] == "runs":
                return Text(f"{task.completed:.0f} of {task.total:.0f} runs")
            done = min(task.completed, task.total or 0)
            return Text(f"{size_text(int(done))} of {size_text(int(task.total))}" if task.total else "")

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        Amount(),
        console=console,
        transient=True,
    )


class _Folding:
    """A path as a cell of a table, folded where its parts meet."""

    def __init__(self, text: str, style: Any) -> None:
        self._text, self._style = text, style

    def __rich_measure__(self, console: RichConsole, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        length = cell_len(self._text)
        return Measurement(min(length, 12), length)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        from rich.cells import cell_len
        from rich.text import Text

        lines = [""]
        for part in re.findall(r"[^/._-]*[/._-]?", self._text):
            if lines[-1] and cell_len(lines[-1] + part) > options.max_width:
                lines.append("")
            lines[-1] += part
        yield Text("\n".join(lines), style=self._style, overflow="fold")


def leave_terminal(text: str) -> None:
    """Write last words to stderr and give a terminal its cursor back; for ends that skip everything else."""
    before = "\n\x1b[?25h" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), (before + text + "\n" if before or text else "").encode())


def _epochs(facts: Facts) -> str:
    if facts.state is None and not facts.epochs:
        return ""
    return printable(f"{facts.epochs}/{facts.of_epochs}" if facts.of_epochs else str(facts.epochs))


def _best(facts: Facts) -> str:
    return f"{facts.best[1]:.3f} {printable(facts.best[0])}" if facts.best else ""


def _tail(text: str, length: int) -> str:
    return text if len(text) <= length else "\N{HORIZONTAL ELLIPSIS}" + text[1 - length :]


def _natural(path: Path) -> list[str | int]:
    """Give a key that sorts train2 before train10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def _common_folder(runs: Sequence[Path]) -> str:
    """Give the folder that all of several runs lie below; empty where there is no such."""
    shown = [shown_path(run) for run in runs]
    if len(set(shown)) < 2 or len({Path(text).is_absolute() for text in shown}) > 1:
        return ""
    folder = os.path.commonpath(shown)
    return "" if folder in ("", "/", ".") or folder in shown else folder


def _below(run: Path, folder: str) -> str:
    text = shown_path(run)
    return text.removeprefix(folder).lstrip("/") if folder else text


def _grouped(facts: Iterable[tuple[_Fact, str]]) -> list[tuple[_Fact, list[str]]]:
    """Collect the runs of equal facts, the most frequent first."""
    runs: dict[_Fact, list[str]] = {}
    for fact, run in facts:
        runs.setdefault(fact, []).append(run)
    return sorted(runs.items(), key=lambda item: -len(item[1]))


# -- dry run ----------------------------------------------------------------------------------------------


class Plans:
    """What would be sent, for each run that has something to send; the others as in lines."""

    def __init__(self, recording: RecordingSink, as_json: bool, quiet: bool, verbose: bool) -> None:
        self._recording, self._as_json, self._quiet = recording, as_json, quiet
        self._lines: Console = JsonLines(quiet) if as_json else PlainLines(quiet, verbose, "would send")
        self._nothing = True

    def __enter__(self) -> Plans:
        return self

    def show(self, outcome: Outcome) -> None:
        """Print the plan of a run that is done, instead of saying that it was delivered."""
        self._nothing = self._nothing and not isinstance(outcome, (Delivered, Failed))
        if not isinstance(outcome, Delivered):
            self._lines.show(outcome)
            return
        plan, reports = self._recording.recorded.pop(outcome.run)
        if self._quiet:
            return
        if self._as_json:
            _write(sys.stdout, json.dumps(plan_json(outcome.run, plan, reports)))
        else:
            for line in plan_lines(outcome, plan, reports):
                _write(sys.stdout, line)

    def say(self, text: str) -> None:
        """Write to stderr."""
        self._lines.say(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nothing and kind is None and sys.stdout.isatty():
            self.say("There is nothing to send.")


def plan_lines(outcome: Delivered, plan: Plan, pending: Sequence[Report]) -> Iterator[str]:
    """Write a plan for a person: every event that would be sent, one a line, the same every time."""
    yield f"{shown_path(outcome.run)}: would send {_sent(outcome)}"
    known = f"  id {outcome.task_id}" if outcome.task_id else ""
    tags = ", ".join(plan.tags) or "-"
    yield printable(f"  task     {plan.project} / {plan.name}  tags {tags}{known}")
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
    if isinstance(event, float) and not math.isfinite(event):
        return None
    slots = getattr(type(event), "__slots__", None)
    if slots is None:
        return event
    fields = {name: _event_json(getattr(event, name)) for name in slots}
    kind = type(event).__name__
    return fields if kind in ("FileStamp", "Parameter") else {"event": kind, **fields}
