"""A watch on a terminal: a table of the runs under way that is drawn anew whenever something happened.

show, say, from any thread ──> rows, words ──> one thread that draws, now and then ──> stdout

Below runs/detect:
run     state     epoch  last mAP50-95(B)  pending
───────────────────────────────────────────────────────────────
train3  live     12/100             0.412  sending 1.2 of 6.1 MB
train2  stopped   7/100             0.377  up to date
1,996 more: 1,990 up to date, 6 skipped
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import assert_never

from ..events import RunState
from ..sync.outcomes import Delivered, Facts, Failed, Gone, Outcome, Progress, Skipped, Started, UpToDate
from .terminal import STATE_COLOURS, below, common_folder, epochs_text, folded, natural
from .wording import ReaderGone, counted, printable, shown_path, size_text, write_line

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, JustifyMethod, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text

_PAUSE = 0.25  # seconds from one drawing to the next at least; 2,000 runs may change in one
_FRAME = 7  # lines that are no rows: a gap, the folder, a head of two, the rest, what is typed below
_NARROW = 72  # columns; below, words give way to numbers
_NARROWEST = 50  # columns; below, the metric gives way to the run


class _Standing(Enum):
    """How a run stands with ClearML; the word, and those that a low terminal shows first."""

    SENDING = "sending"
    UP_TO_DATE = "up to date"
    FAILED = "failed"
    WAITING = "waiting"


_FIRST = list(_Standing)
_KINDS = ("live", "sending", "waiting", "failed", "up to date", "skipped")  # as they are counted


@dataclass(slots=True)
class _Row:
    """What is known of a run."""

    run: Path
    order: list[str | int]
    facts: Facts = field(default_factory=Facts)
    url: str | None = None
    standing: _Standing = _Standing.UP_TO_DATE
    size: int = 0  # bytes of files to send
    sent: int = 0  # bytes of them that are
    waiting: int | None = None  # events
    ended: int = 0  # when it ended or was delivered, counted; 0: not while watching

    @property
    def live(self) -> bool:
        return self.facts.state is RunState.LIVE

    @property
    def active(self) -> bool:
        """Whether something is to be expected, or done by someone."""
        return self.live or self.standing is not _Standing.UP_TO_DATE

    @property
    def kind(self) -> str:
        """Name what it is counted as."""
        return "live" if self.live and self.standing is _Standing.UP_TO_DATE else self.standing.value


class LiveTable:
    """The table, and the messages above it; `show` and the end raise ReaderGone and OutputUnwritable."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        self._console = RichConsole(highlight=False)
        self._live = Live(
            self,
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),  # a library's warning must not tear the table
            vertical_overflow="crop",
        )
        self._lock = threading.Lock()  # of what follows; never held while writing, a terminal may be stopped
        self._rows: dict[Path, _Row] = {}
        self._folder: str | None = None  # that all of them lie below; None: to be found anew
        self._skipped: set[Path] = set()
        self._introduced: set[tuple[Path, str]] = set()  # addresses and notes that were written
        self._words: list[tuple[str, str | None]] = []  # to be written above: prose, and an address
        self._fault: Exception | None = None  # met by the thread that draws, for the one that works
        self._order = itertools.count(1)
        self._news = threading.Event()
        self._over = threading.Event()
        self._drawer = threading.Thread(target=self._draw_news, name="table", daemon=True)

    def __enter__(self) -> LiveTable:
        self._write(self._live.start)
        self._drawer.start()
        return self

    def show(self, outcome: Outcome) -> None:
        """Take note of an outcome, to be drawn soon."""
        with self._lock:
            self._note(outcome)
            fault, self._fault = self._fault, None
        self._news.set()
        if fault is not None:
            raise fault

    def say(self, text: str) -> None:
        """Write a line above the table, soon; from any thread."""
        with self._lock:
            self._words.append((text, None))
        self._news.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table as it is at last."""
        self._over.set()
        self._news.set()
        self._drawer.join()
        self._write(self._draw)
        self._write(self._live.stop)
        if self._fault is not None and kind is None:
            raise self._fault

    # -- what is known --------------------------------------------------------------------------------

    def _note(self, outcome: Outcome) -> None:
        if isinstance(outcome, Skipped):
            self._rows.pop(outcome.run, None)
            self._folder = None
            self._skipped.add(outcome.run)
            return
        self._skipped.discard(outcome.run)
        if isinstance(outcome, Gone):
            self._rows.pop(outcome.run, None)
            self._folder = None
            return
        row = self._rows.get(outcome.run)
        if row is None:
            row = self._rows[outcome.run] = _Row(outcome.run, natural(outcome.run))
            self._folder = None
        was_live = row.live
        if not isinstance(outcome, Progress) and outcome.facts != Facts():
            row.facts = outcome.facts
        match outcome:
            case Started():
                row.standing, row.size, row.sent = _Standing.SENDING, outcome.size, 0
            case Progress():
                row.sent += outcome.size
            case Delivered() | UpToDate():
                row.standing, row.url = _Standing.UP_TO_DATE, outcome.url
                if was_live or isinstance(outcome, Delivered):
                    row.ended = next(self._order)
                self._introduce(outcome)
            case Failed():
                row.standing = _Standing.WAITING if outcome.error.outage else _Standing.FAILED
                row.waiting, row.url = outcome.pending, outcome.url or row.url
            case _:
                assert_never(outcome)

    def _introduce(self, outcome: Delivered | UpToDate) -> None:
        """Write once where a delivery went, in a way that can be copied, and what was done differently."""
        run = shown_path(outcome.run)
        once: list[tuple[str, str | None]] = [(f"{run}: {note}", None) for note in outcome.notes]
        if outcome.url and isinstance(outcome, Delivered):
            once.append((f"{run} is in ClearML:", outcome.url))
        for text, address in once:
            if (outcome.run, address or text) not in self._introduced:
                self._introduced.add((outcome.run, address or text))
                self._words.append((text, address))

    # -- drawing --------------------------------------------------------------------------------------

    def _draw_news(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()  # what comes while this is drawn is drawn next time
            if self._over.is_set():
                return
            self._write(self._draw)
            self._over.wait(_PAUSE)

    def _write(self, write: Callable[[], None]) -> None:
        """Write to the terminal; what goes wrong is kept for who works, and what follows is thrown away."""
        try:
            try:
                write()
            except OSError:
                write_line(sys.stdout, "")  # meets the same, and knows what to do about it
        except SystemExit:  # Rich's own answer to a broken pipe
            self._fault = ReaderGone()
        except Exception as fault:  # noqa: BLE001  raised where it is seen
            self._fault = fault

    def _draw(self) -> None:
        """Write the messages, and the table below it."""
        from rich.text import Text

        with self._lock:
            words, self._words = self._words, []
        lines = []
        for text, address in words:
            lines.append(Text(folded(text, self._console.width)))
            if address is not None:
                lines.append(Text(printable(address), style="blue"))
        if lines:
            # in one go, since Rich draws the table below whatever is printed; an address is not folded
            self._console.print(*lines, sep="\n", soft_wrap=True)
        else:
            self._live.refresh()

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """Draw what is known by now, for a terminal as it is by now."""
        with self._lock:
            parts = list(self._parts(options.max_width, options.size.height))
        yield from parts

    def _parts(self, width: int, height: int) -> Iterator[RenderableType]:
        from rich.text import Text

        if self._folder is None:
            self._folder = common_folder(list(self._rows))
        folder = self._folder
        rows = self._shown(max(1, height - _FRAME))
        if rows:
            yield Text()
            if folder:
                yield Text(_shortened(f"Below {folder}:", width), no_wrap=True)
            yield self._table(rows, folder, width)
        over = self._over.is_set()
        counts = Counter(row.kind for row in self._rows.values())
        if not over:
            counts.subtract(row.kind for row in rows)
        counts["skipped"] = len(self._skipped)
        number = sum(counts.values())
        if number > over:
            what = counted(number, "run") if over or not rows else f"{number} more"
            what = what.replace(str(number), f"{number:,}", 1)
            text = ", ".join(f"{counts[kind]:,} {self._word(kind)}" for kind in _KINDS if counts[kind])
            yield Text(folded(f"{what}: {text}", width), style="" if over else "dim")

    def _shown(self, room: int) -> list[_Row]:
        """Choose those that something is to be expected of, in their order, then those that ended last."""
        rows = self._rows.values()
        active = [row for row in rows if row.active]
        if len(active) > room:
            active.sort(key=lambda row: (_FIRST.index(row.standing), not row.live, row.order))
        active = sorted(active[:room], key=lambda row: row.order)
        past = sorted((row for row in rows if row.ended and not row.active), key=lambda row: -row.ended)
        return active + past[: room - len(active)]

    def _table(self, rows: Sequence[_Row], folder: str, width: int) -> Table:
        from rich import box
        from rich.style import Style
        from rich.table import Table
        from rich.text import Text

        narrow = width < _NARROW
        metrics = {row.facts.best[0] for row in rows if row.facts.best}
        metric = printable(metrics.pop()) if len(metrics) == 1 else ""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("run")
        table.add_column("state", no_wrap=True, min_width=5 if narrow else 8)
        table.add_column("epoch", justify="right", no_wrap=True)
        title = metric if metric and narrow else f"last {metric or 'metric'}"
        if width >= _NARROWEST:
            justify: JustifyMethod = "right" if metric else "left"
            table.add_column(title, justify=justify, no_wrap=True, max_width=13 if narrow else None)
        table.add_column("pending", no_wrap=True, min_width=10 if narrow else 21)
        for row in rows:
            state = row.facts.state
            cells: list[RenderableType] = [
                _Name(below(row.run, folder), Style(link=printable(row.url or "") or None)),
                Text(state.value if state else "", style=STATE_COLOURS[state]),
                Text(epochs_text(row.facts)),
            ]
            if width >= _NARROWEST:
                cells.append(Text(_latest(row.facts, named=not metric)))
            table.add_row(*cells, self._pending(row, narrow))
        return table

    def _pending(self, row: _Row, narrow: bool) -> Text:
        from rich.text import Text

        match row.standing:
            case _Standing.SENDING if row.size and not self._over.is_set():
                amount = _amount(row.sent, row.size)
                return Text(amount if narrow else f"sending {amount}", style="cyan")
            case _Standing.SENDING:
                return Text(self._word("sending"), style="cyan")
            case _Standing.WAITING if row.waiting:
                return Text(f"{counted(row.waiting, 'event')} wait{'s' * (row.waiting == 1)}", style="yellow")
            case _Standing.WAITING:
                return Text("waiting", style="yellow")
            case _Standing.FAILED:
                return Text("failed", style="red")
            case _Standing.UP_TO_DATE:
                return Text("up to date")
            case _:
                assert_never(row.standing)

    def _word(self, kind: str) -> str:
        """Name a kind of runs; at the end nothing is on its way any more."""
        return "not all sent" if kind == "sending" and self._over.is_set() else kind


class _Name:
    """A path as a cell of a table, on one line, whatever of its end fits."""

    def __init__(self, text: str, style: Style) -> None:
        self._text, self._style = text, style

    def __rich_measure__(self, console: RichConsole, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        length = cell_len(self._text)
        return Measurement(min(length, 12), length)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(_shortened(self._text, options.max_width), style=self._style, no_wrap=True)


def _shortened(text: str, width: int) -> str:
    """Give the end of a text, as much as fits into so many columns; a wide character takes two."""
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    taken = 1  # by the ellipsis
    for start in reversed(range(len(text))):
        taken += cell_len(text[start])
        if taken > width:
            return "\N{HORIZONTAL ELLIPSIS}" + text[start + 1 :]
    return text


def _latest(facts: Facts, named: bool) -> str:
    # a ledger, which may hold anything, is where the facts of a run that was not read again come from
    if not facts.best or not isinstance(facts.latest, (int, float)):
        return ""
    return f"{facts.latest:.3f}" + (f" {printable(facts.best[0])}" if named else "")


def _amount(sent: int, size: int) -> str:
    """Write how much of something is done: 1.2 of 6.1 MB."""
    done, unit = size_text(min(sent, size)).split()
    whole = size_text(size)
    return f"{done} of {whole}" if whole.endswith(f" {unit}") else f"{done} {unit} of {whole}"
