"""Outcomes to what a person or a program reads: plain lines, JSON lines, a plan; and which it is to be."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import assert_never

from ..errors import YoloClearmlError
from ..sync.outcomes import (
    Delivered,
    Facts,
    Failed,
    Gone,
    Outcome,
    Pending,
    Progress,
    Skipped,
    Started,
    UpToDate,
)
from ..sync.sinks import RecordingSink
from ..sync.verdict import Verdict
from .plan_text import noted, plan_json, plan_lines
from .terminal import Terminal
from .wording import (
    as_asked,
    counted,
    hint_of,
    mending,
    printable,
    proof_text,
    sent_text,
    shown_path,
    without,
    write_line,
    write_text,
)

_MOVED_IN = 2  # characters
_MOST_DIFFERENCES = 20  # of a run, that are spelled out
_UNSURE = "it was sent under another configuration of ClearML"
_MOST_ALIKE = 10  # runs named that failed for the same reason; a server may be away for ten thousand


class Console(Protocol):
    """Shows outcomes as they come; as a context manager, the summary when all have come."""

    def __enter__(self) -> Console:
        """Begin."""

    def show(self, outcome: Outcome) -> None:
        """Show one outcome."""

    def say(self, text: str) -> None:
        """Write a message that is no outcome's; from any thread."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, with a summary where there is one."""


def choose(
    as_json: bool,
    quiet: bool,
    verbose: bool,
    runs: int,
    sent: str = "sent",
    afterwards: str = "",
    named: Collection[Path] = (),
) -> Console:
    """Pick the console that fits where the output goes.

    ``sent`` is the word for what was done, ``afterwards`` what a person does next where something was,
    ``named`` are the paths the user gave.
    """
    if as_json:
        return JsonLines(quiet)
    if sys.stdout.isatty() and not quiet:
        return Terminal(verbose, runs, sent, afterwards)
    return PlainLines(quiet, verbose, sent, named)


def write_error(error: YoloClearmlError) -> None:
    """Write what happened and what to do next."""
    write_text(sys.stderr, f"yolo-clearml: {printable(str(error))}", _MOVED_IN)
    write_text(sys.stderr, f"  {printable(hint_of(error))}", _MOVED_IN)


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
            write_line(sys.stdout, json.dumps(line, ensure_ascii=True))

    def say(self, text: str) -> None:
        """Write to stderr."""
        if not self._quiet:
            write_line(sys.stderr, text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # each line stands for itself


def json_line(outcome: Outcome | Pending) -> dict[str, Any] | None:
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
        "without": [],
    }
    match outcome:
        case Started() | Progress() | Gone():
            return None
        case Delivered():
            line |= {"outcome": "delivered", "task_id": outcome.task_id, "url": outcome.url}
            line |= {"events": outcome.events, "files": outcome.files, "bytes": outcome.size}
            line |= {"reason": " ".join(outcome.notes) or None}
        case UpToDate():
            line |= {"outcome": "up-to-date", "task_id": outcome.task_id, "url": outcome.url}
            line |= {"reason": _UNSURE if outcome.unsure else " ".join(outcome.notes) or None}
        case Pending():
            line |= {"outcome": "pending", "task_id": outcome.task_id, "url": outcome.url}
        case Skipped():
            return line | {"outcome": "skipped", "reason": outcome.reason, "hint": outcome.hint}
        case Failed():
            line |= {"outcome": "failed", "task_id": outcome.task_id, "url": outcome.url}
            line |= {"events": outcome.events, "files": outcome.files, "bytes": outcome.size}
            line |= {"reason": str(outcome.error), "hint": hint_of(outcome.error)}
        case _:
            assert_never(outcome)
    facts = outcome.facts
    if not isinstance(outcome, (Pending, Failed)) and outcome.proof is not None:
        differences = [str(difference) for difference in outcome.proof.differences]
        line |= {"outcome": "differs" if differences else "verified", "differences": differences}
        line |= {"task_id": outcome.proof.task_id, "url": outcome.proof.url, "same": outcome.proof.facts}
        line |= {"hint": mending(outcome.proof) if differences else None}
    state = facts.state.value if facts.state else None
    line |= {"name": facts.name, "state": state, "epochs": facts.epochs}
    return line | {"missing": list(facts.missing), "without": list(facts.without)}


class PlainLines:
    """A line per run that changed, for pipes, files and cron; nothing at all where nothing did."""

    def __init__(self, quiet: bool, verbose: bool, sent: str, named: Collection[Path] = ()) -> None:
        self._quiet, self._verbose, self._word = quiet, verbose, sent
        self._named = named  # what the user pointed at; to skip that in silence would look like success
        self._failures: dict[str, int] = {}  # reason in words: runs that failed for it

    def __enter__(self) -> PlainLines:
        return self

    def show(self, outcome: Outcome) -> None:
        """Write the line of a run that is done."""
        if isinstance(outcome, UpToDate) and not (self._verbose or outcome.proof or outcome.notes):
            return  # ten thousand times, under cron
        if isinstance(outcome, (Started, Progress, Gone)):
            return
        run = shown_path(outcome.run)
        match outcome:
            case Delivered() | UpToDate() if outcome.proof is not None:
                self._proof(run, outcome, outcome.proof)
            case Delivered():
                sent = f"{sent_text(outcome)}{as_asked(outcome.facts)}"
                self._result(f"{run}: {self._word} {sent}{self._rest(outcome)}")
                self._notes(run, outcome)
                self._missing(run, outcome.facts)
            case UpToDate():
                self._result(f"{run}: up to date{without(outcome.facts)}{_where(outcome)}")
                self._notes(run, outcome)
                self._missing(run, outcome.facts)
            case Skipped():
                if self._verbose or outcome.run in self._named:
                    self.say(f"{run}: skipped: it {printable(outcome.reason)}. {printable(outcome.hint)}")
            case Failed():
                reason = f"{printable(str(outcome.error))} {printable(hint_of(outcome.error))}"
                alike = self._failures[reason] = self._failures.get(reason, 0) + 1
                if self._verbose or alike <= _MOST_ALIKE:
                    why = f": {reason}" if alike == 1 else " for the same reason"
                    write_line(sys.stderr, f"{run}: failed{why}")
            case _:
                assert_never(outcome)

    def say(self, text: str) -> None:
        """Write to stderr."""
        if not self._quiet:
            write_line(sys.stderr, text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reason, alike in self._failures.items():
            if alike > _MOST_ALIKE and not self._verbose:
                text = f"{alike - _MOST_ALIKE:,} more failed for the same reason (-v names them): {reason}"
                write_line(sys.stderr, text)

    def _proof(self, run: str, outcome: Delivered | UpToDate, proof: Verdict) -> None:
        sent = f"sent {sent_text(outcome)}; " if isinstance(outcome, Delivered) else ""
        self._result(f"{run}: {sent}{proof_text(proof, outcome.facts)}{_where(proof)}")
        found = proof.differences if proof.task_id is not None else ()
        shown = found if self._verbose else found[:_MOST_DIFFERENCES]
        for difference in shown:
            self._result(f"{run}: {printable(str(difference))}")
        if len(found) > len(shown):
            self._result(f"{run}: and {len(found) - len(shown)} more (-v names them)")
        if proof.differences:
            self.say(f"{run}: {mending(proof)}")
        for extra in proof.extra if self._verbose else ():
            self.say(f"{run}: only in ClearML: {printable(str(extra))}")
        self._notes(run, outcome)
        self._missing(run, outcome.facts)

    def _notes(self, run: str, outcome: Delivered | UpToDate) -> None:
        for note in outcome.notes:
            self.say(f"{run}: {printable(note)}")

    def _missing(self, run: str, facts: Facts) -> None:
        for fact in facts.missing if self._verbose else ():
            why = "not sent" if fact in facts.left_out else "not on disk"
            self.say(f"{run}: {why}: {printable(fact)}")

    def _rest(self, outcome: Delivered) -> str:
        left_out = outcome.facts.left_out
        absent = [fact for fact in outcome.facts.missing if fact not in left_out]
        unnamed = [f"{counted(len(absent), 'fact')} not on disk"] if absent else []
        unnamed += [f"{counted(len(left_out), 'file')} not sent"] if left_out else []
        rest = f"; {', '.join(unnamed)} (-v names them)" if unnamed and not self._verbose else ""
        return f"{rest}{_where(outcome)}"

    def _result(self, line: str) -> None:
        if not self._quiet:
            write_line(sys.stdout, line)


def _where(outcome: Delivered | UpToDate | Verdict) -> str:
    return f": {printable(outcome.url)}" if outcome.url else ""


class Plans:
    """What would be sent, for each run that has something to send; the others as in lines."""

    def __init__(
        self,
        recording: RecordingSink,
        as_json: bool,
        quiet: bool,
        verbose: bool,
        named: Collection[Path] = (),
    ) -> None:
        self._recording, self._as_json, self._quiet = recording, as_json, quiet
        lines = PlainLines(quiet, verbose, "would send", named)
        self._lines: Console = JsonLines(quiet) if as_json else lines
        self._nothing = True

    def __enter__(self) -> Plans:
        return self

    def show(self, outcome: Outcome) -> None:
        """Print the plan of a run that is done, instead of the line of one that was delivered."""
        self._nothing = self._nothing and not isinstance(outcome, (Delivered, Failed))
        if isinstance(outcome, (Delivered, Failed)) and outcome.run in self._recording.recorded:
            self._plan(outcome)
        if not isinstance(outcome, Delivered):
            self._lines.show(outcome)

    def _plan(self, outcome: Delivered | Failed) -> None:
        plan, reports = self._recording.recorded.pop(outcome.run)
        if self._quiet:
            return
        if self._as_json:
            # nothing was delivered: as `status` has it, with the plan beside what every line has
            planned = {**(json_line(outcome) or {}), "outcome": "pending", **plan_json(plan, reports)}
            planned |= {"task_id": outcome.task_id or None, "notes": list(noted(outcome, plan))}
            write_line(sys.stdout, json.dumps(planned))
        else:
            for line in plan_lines(outcome, plan, reports):
                write_text(sys.stdout, line, 2 * _MOVED_IN)

    def say(self, text: str) -> None:
        """Write to stderr."""
        self._lines.say(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nothing and kind is None:
            self.say("There is nothing to send.")
