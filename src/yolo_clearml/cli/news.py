"""What a watch shows: each outcome when it is new, and a server that is away once."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from typing_extensions import assert_never

from ..errors import RunBusy, RunChanged, ServerFailing, YoloClearmlError
from ..events import RunState
from ..sync.outcomes import Delivered, Facts, Failed, Gone, Outcome, Progress, Skipped, Started, UpToDate
from .console import Console, JsonLines
from .live_table import LiveTable
from .wording import as_asked, hint_of, printable, sent_text, shown_path, write_line

_NOT_SHOWN = ("away", "again", "as all")  # failures that are not shown for this run, or not yet
_DUMB = ("dumb", "unknown")  # terminals on which nothing can be drawn anew
_PASSING = re.compile(r"(0x)?[0-9a-f]{8,}", re.IGNORECASE)  # ids and addresses, other ones in each reply


class Watching:
    """A console that shows what is new, in the way that fits where the output goes."""

    def __init__(self, as_json: bool, quiet: bool, verbose: bool) -> None:
        self._live: LiveTable | None = None
        if not as_json and not quiet and sys.stdout.isatty() and os.environ.get("TERM") not in _DUMB:
            self._live = LiveTable()
        lines: Console = JsonLines(quiet) if as_json else WatchLines(quiet, verbose)
        self._inner: Console = self._live or lines
        self._as_json = as_json
        self._last: dict[Path, str | None] = {}  # a run's last outcome, to know the same when it comes again
        self._away: set[Path] = set()  # runs that wait for a server
        self._away_shown = False
        self._fatal = False  # an error was shown that every run meets

    def __enter__(self) -> Watching:
        self._inner.__enter__()
        return self

    def show(self, outcome: Outcome) -> None:
        """Show an outcome, unless it is the same as the run's last one."""
        same: str | None = None
        match outcome:
            case Started() | Progress():
                self._inner.show(outcome)
                return
            case Gone():
                self._inner.show(outcome)
                self._away.discard(outcome.run)
                self._last.pop(outcome.run, None)
                return
            case Failed() if outcome.error.outage:
                if not self._away_shown:
                    self._away_shown = True
                    self._alert(f"{outcome.error} It is asked again until it answers; nothing is lost.")
                self._away.add(outcome.run)
                same = "away"
            case Failed():
                self._away.discard(outcome.run)
                same = f"failed: {_gist(outcome.error)}"
                if outcome.error.fatal and self._fatal:
                    same = "as all"  # which ends the watch; the other runs meet it as well
                self._fatal = self._fatal or outcome.error.fatal
                if isinstance(outcome.error, (RunBusy, RunChanged)):
                    if self._last.get(outcome.run) not in (same, "again"):
                        same = "again"  # it is tried again in a moment; shown if it is no better then
                    hint = "It is tried again by itself."
                    outcome = replace(outcome, error=type(outcome.error)(str(outcome.error), hint))
            case Skipped():
                self._away.discard(outcome.run)
                same = f"skipped: {outcome.reason}"
            case Delivered():
                self._answered(outcome)
            case UpToDate():
                self._answered(outcome)
                same = "up to date"
        new = same is None or self._last.get(outcome.run) != same
        self._last[outcome.run] = same or "up to date"
        if self._live is not None:
            self._live.show(outcome)
            if new and isinstance(outcome, Failed) and same not in _NOT_SHOWN:
                reason = f"{outcome.error} {hint_of(outcome.error)}"
                self._alert(f"{shown_path(outcome.run)}: failed: {reason}")
        elif new and (same not in _NOT_SHOWN or self._as_json):
            self._inner.show(outcome)

    def say(self, text: str) -> None:
        """Write a message that is no outcome's; from any thread."""
        self._inner.say(printable(text))

    def _answered(self, outcome: Delivered | UpToDate) -> None:
        if not self._away_shown:
            return
        # a run that is gone waits for nothing, and there may have been no outcome
        last = isinstance(outcome, Delivered) and not any(os.path.lexists(run) for run in self._away)
        if last or outcome.run in self._away:
            self._away_shown = False
            self._away.clear()
            self.say("ClearML answers again.")

    def _alert(self, text: str) -> None:
        """Write what even someone who asked for errors only wants to know."""
        if self._live is not None:
            self._live.say(text)
        else:
            write_line(sys.stderr, f"yolo-clearml: {printable(text)}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)


class WatchLines:
    """A line per run that changed, for pipes, files and journals: outcomes that are news."""

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._introduced: set[tuple[Path, str]] = set()  # runs and the addresses that were shown
        self._noted: set[tuple[Path, str]] = set()

    def __enter__(self) -> WatchLines:
        return self

    def show(self, outcome: Outcome) -> None:
        """Write a line that begins with the run."""
        run = shown_path(outcome.run)
        match outcome:
            case Started() | Progress() | Gone():
                pass
            case Delivered():
                sent = f"{sent_text(outcome)}{as_asked(outcome.facts)}"
                line = f"{run}: {how_far(outcome.facts)}: sent {sent}"
                self._result(f"{line}{self._address(outcome)}")
                self._notes(run, outcome)
            case UpToDate():
                if self._verbose:
                    state = f"up to date{as_asked(outcome.facts)}"
                    self._result(f"{run}: {how_far(outcome.facts)}: {state}{self._address(outcome)}")
                self._notes(run, outcome)
            case Skipped():
                if self._verbose:
                    self.say(f"{run}: skipped: it {printable(outcome.reason)}. {printable(outcome.hint)}")
            case Failed():
                reason = f"{printable(str(outcome.error))} {printable(hint_of(outcome.error))}"
                write_line(sys.stderr, f"{run}: failed: {reason}")
            case _:
                assert_never(outcome)

    def say(self, text: str) -> None:
        """Write to stderr."""
        if not self._quiet:
            write_line(sys.stderr, text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # each line stands for itself

    def _result(self, line: str) -> None:
        if not self._quiet:
            write_line(sys.stdout, line)

    def _notes(self, run: str, outcome: Delivered | UpToDate) -> None:
        facts = outcome.facts
        missing = [
            f"{'not sent' if fact in facts.left_out else 'not on disk'}: {fact}"
            for fact in (facts.missing if self._verbose else ())
        ]
        for note in (*outcome.notes, *missing):
            if (outcome.run, note) not in self._noted:
                self._noted.add((outcome.run, note))
                self.say(f"{run}: {printable(note)}")

    def _address(self, outcome: Delivered | UpToDate) -> str:
        """Give the task's address, once; that of another, where it was deleted or the run trained anew."""
        if outcome.url is None or (outcome.run, outcome.url) in self._introduced:
            return ""
        self._introduced.add((outcome.run, outcome.url))
        return f": {printable(outcome.url)}"


def _gist(error: YoloClearmlError) -> str:
    """Give what makes an error the same as the one before, though a server words it anew each time."""
    text = _PASSING.sub("", str(error)) if isinstance(error, ServerFailing) else str(error)
    return f"{text} {error.hint}"


def how_far(facts: Facts) -> str:
    """Write how far a training has come: epoch 3 of 8, mAP50-95(B) 0.412."""
    of = f" of {facts.of_epochs}" if facts.of_epochs else ""
    metric = f", {facts.best[0]} {facts.latest:.3f}" if facts.best and facts.latest is not None else ""
    ended = f"{facts.state.value}, " if facts.state not in (None, RunState.LIVE) else ""
    return printable(f"{ended}epoch {facts.epochs}{of}{metric}")
