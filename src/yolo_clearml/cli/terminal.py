"""Outcomes on a terminal: bars while runs are under way, then one table and what it leaves open in words."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from typing_extensions import assert_never

from ..events import RunState
from ..sync.outcomes import Delivered, Facts, Failed, Gone, Outcome, Progress, Skipped, Started, UpToDate
from ..sync.verdict import Verdict
from .wording import (
    counted,
    files_text,
    hint_of,
    mending,
    printable,
    proof_text,
    shown_path,
    size_text,
    without,
)

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.progress import Progress as Bars
    from rich.progress import Task

_Fact = TypeVar("_Fact")
_Done: TypeAlias = "Delivered | UpToDate | Failed"
_MOST_ROWS = 20  # beyond, runs that were up to date are counted and links left to --json
_MOST_FACTS = 20  # of a kind, in the words below the table
STATE_COLOURS = {RunState.LIVE: "cyan", RunState.FINISHED: "green", RunState.STOPPED: "yellow", None: ""}


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
            case Gone():
                pass
            case _:
                assert_never(outcome)

    def say(self, text: str) -> None:
        """Write to stderr, above the bars."""
        self._print(text, to=self._err)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        done = sorted(self._done, key=lambda outcome: (isinstance(outcome, Failed), natural(outcome.run)))
        folder = common_folder([outcome.run for outcome in done])
        listed = [o for o in done if self._verbose or len(done) <= _MOST_ROWS or not isinstance(o, UpToDate)]
        if listed:
            self._table(listed, folder)
        if unlisted := len(done) - len(listed):
            self._gap()
            self._print(f"{counted(unlisted, 'run')} up to date (-v lists them).")
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
            state = Text(facts.state.value if facts.state else "", style=STATE_COLOURS.get(facts.state, ""))
            match outcome:
                case Delivered() | UpToDate() if outcome.proof is not None:
                    different = len(outcome.proof.differences)
                    where = f"differs ({different})" if outcome.proof.task_id else "not in ClearML"
                    result = Text(where if different else f"verified{without(facts)}")
                    result.stylize("red" if different else "green")
                case Delivered():
                    size = f", {size_text(outcome.size)}" if outcome.size else ""
                    result = Text(f"{counted(outcome.events, 'event')}{size}{without(facts)}", style="green")
                case UpToDate():
                    result = Text(f"up to date{without(facts)}")
                case Failed():
                    result = Text("failed", style="red")
                case _:
                    assert_never(outcome)
            name = _Folding(below(outcome.run, folder), Style(link=printable(outcome.url or "") or None))
            table.add_row(name, state, Text(epochs_text(facts)), Text(_best(facts)), result)
        self._out.print(table)
        self._printed = True

    def _words(self, done: Sequence[_Done], folder: str) -> None:
        delivered = [outcome for outcome in done if isinstance(outcome, Delivered)]
        if delivered and (len(delivered) > 1 or self._afterwards):
            self._gap()
        if len(delivered) > 1:
            events, files, size = (sum(getattr(o, n) for o in delivered) for n in ("events", "files", "size"))
            amount = f"{counted(events, 'event')} and {files_text(files, size)}"
            self._print(f"{self._word.capitalize()} {amount} of {len(delivered)} runs.")
        if delivered and self._afterwards:
            self._print(self._afterwards)
        for outcome in done:
            if not isinstance(outcome, Failed) and outcome.proof is not None:
                self._proof(below(outcome.run, folder), outcome.proof, outcome.facts)
        self._copies([o for o in delivered if o.proof is None], folder)
        self._links(done, folder)
        self._facts(
            "Not on disk, so not in ClearML:",
            [(fact, below(o.run, folder)) for o in delivered for fact in _absent(o.facts)],
            len(delivered),
        )
        left_out = [(fact, below(o.run, folder)) for o in delivered for fact in o.facts.left_out]
        self._facts("There, but not sent:", left_out, len(delivered))
        noted = [o for o in done if isinstance(o, Delivered) or (isinstance(o, UpToDate) and o.notes)]
        notes = [(note, below(outcome.run, folder)) for outcome in noted for note in outcome.notes]
        self._facts("Done differently:", notes, len(noted))
        skipped = sorted(self._skipped, key=lambda outcome: natural(outcome.run))
        self._facts("Skipped, because it", [(o.reason, shown_path(o.run)) for o in skipped], 0)
        failures = [outcome for outcome in done if isinstance(outcome, Failed)]
        alike = [((str(o.error), hint_of(o.error)), below(o.run, folder)) for o in failures]
        for (text, hint), runs in _grouped(alike):
            self._gap()
            who = runs[0] if len(runs) == 1 else f"{len(runs)} runs"
            self._print(f"{who} failed: {text}", to=self._err, style="red")
            self._print(f"  {hint}", to=self._err)

    def _proof(self, run: str, proof: Verdict, facts: Facts) -> None:
        found = proof.differences if proof.task_id is not None else ()
        shown = found if self._verbose else found[:_MOST_FACTS]
        if proof.differences:
            self._gap()
            self._print(f"{run} {proof_text(proof, facts)}{':' if shown else ''}", style="red")
        for difference in shown:
            self._print(f"  {difference}")
        if len(found) > len(shown):
            self._print(f"  and {len(found) - len(shown)} more (-v names them)")
        if proof.differences:
            self._print(f"  {mending(proof)}")
        if proof.extra and self._verbose:
            self._gap()
            self._print(f"Only in ClearML, of {run}:")
            for extra in proof.extra:
                self._print(f"  {extra}")

    def _copies(self, delivered: Iterable[Delivered], folder: str) -> None:
        """Name directories of one training, which has one task; what several sent there is there once."""
        of_task: dict[str, list[str]] = {}
        for outcome in delivered:
            of_task.setdefault(outcome.task_id, []).append(below(outcome.run, folder))
        for runs in of_task.values():
            if len(runs) > 1:
                named = ", ".join(runs[:_MOST_FACTS])
                more = f" and {len(runs) - _MOST_FACTS} more" if len(runs) > _MOST_FACTS else ""
                self._print(f"One training, so one task: {named}{more} (--new parts what only looks alike).")

    def _links(self, done: Sequence[_Done], folder: str) -> None:
        """Print addresses in full, each at the beginning of a line, where a terminal lets it be copied."""
        linked = [o for o in done if self._verbose or len(done) == 1 or isinstance(o, Delivered)]
        links = [(outcome.run, printable(outcome.url)) for outcome in linked if outcome.url]
        if links:
            self._gap()
        if len(links) > _MOST_ROWS and not self._verbose:
            self._print("Their addresses in ClearML: with -v, or with --json.")
            return
        for run, address in links:
            if len(done) > 1:
                self._print(below(run, folder))
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
        """Print prose, folded."""
        console = to or self._out
        text = folded(line, console.width)
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
        for part in re.findall(r"[^/\\._-]*[/\\._-]?", self._text):
            if lines[-1] and cell_len(lines[-1] + part) > options.max_width:
                lines.append("")
            lines[-1] += part
        yield Text("\n".join(lines), style=self._style, overflow="fold")


def leave_terminal(text: str) -> None:
    """Write last words to stderr and give a terminal its cursor back; for ends that skip everything else."""
    cursor = "\n\x1b[?25h"
    own = sys.stderr.isatty()
    with contextlib.suppress(OSError):
        if not own and sys.stdout.isatty():
            os.write(sys.stdout.fileno(), cursor.encode())
        if own or text:
            os.write(sys.stderr.fileno(), f"{cursor if own else ''}{text}\n".encode())


def folded(line: str, width: int) -> str:
    """Fold prose between words, and make it safe; a word longer than a line is left whole."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        printable(line),
        width,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def epochs_text(facts: Facts) -> str:
    """Write how far a training has come: 3/100."""
    if facts.state is None and not facts.epochs:
        return ""
    return printable(f"{facts.epochs}/{facts.of_epochs}" if facts.of_epochs else str(facts.epochs))


def _best(facts: Facts) -> str:
    return f"{facts.best[1]:.3f} {printable(facts.best[0])}" if facts.best else ""


def _absent(facts: Facts) -> list[str]:
    return [fact for fact in facts.missing if fact not in facts.left_out]


def _tail(text: str, length: int) -> str:
    return text if len(text) <= length else "\N{HORIZONTAL ELLIPSIS}" + text[1 - length :]


def natural(path: Path) -> list[str | int]:
    """Give a key that sorts train2 before train10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def common_folder(runs: Sequence[Path]) -> str:
    """Give the folder that all of several runs lie below; empty where there is no such."""
    shown = [shown_path(run) for run in runs]
    if len(set(shown)) < 2 or len({Path(text).anchor for text in shown}) > 1:
        return ""
    folder = os.path.commonpath(shown)
    return "" if Path(folder) in (Path(), Path(Path(folder).anchor)) or folder in shown else folder


def below(run: Path, folder: str) -> str:
    """Write the path of a run that lies below a folder, without that."""
    text = shown_path(run)
    return text.removeprefix(folder).lstrip(os.sep) if folder else text


def _grouped(facts: Iterable[tuple[_Fact, str]]) -> list[tuple[_Fact, list[str]]]:
    """Collect the runs of equal facts, the most frequent first."""
    runs: dict[_Fact, list[str]] = {}
    for fact, run in facts:
        runs.setdefault(fact, []).append(run)
    return sorted(runs.items(), key=lambda item: -len(item[1]))
