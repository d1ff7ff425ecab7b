"""From what happens while a command runs to the status it exits with."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from .. import system
from ..errors import Exit, OurFault, YoloClearmlError, public
from ..sync.outcomes import Delivered, Failed, Outcome, Progress, Started, UpToDate
from .console import Console, write_error
from .interruption import Interruption
from .statuses import status_of_failures
from .wording import OutputUnwritable, ReaderGone, write_line

if TYPE_CHECKING:
    from .metrics import Metrics


@contextlib.contextmanager
def command(quiet: bool, verbose: bool) -> Iterator[Interruption]:
    """Turn what a command meets into messages and the promised exit status."""
    interruption = Interruption(quiet)
    # the libraries' warnings are for -v, for what matters is in our own messages
    level = logging.ERROR if quiet or not verbose else logging.INFO
    if not verbose:
        warnings.simplefilter("ignore")
    logging.basicConfig(stream=sys.stderr, level=level, format="%(name)s: %(message)s")
    try:
        with interruption:
            yield interruption
    except YoloClearmlError as error:
        write_error(error)
        raise typer.Exit(error.status) from error
    except (BrokenPipeError, EOFError) as fault:
        raise RuntimeError("unforeseen") from fault  # by themselves they let typer end without a trace
    except ReaderGone as gone:
        raise typer.Exit(system.READER_GONE) from gone


@dataclass(slots=True)
class Shown:
    """What is left of the outcomes when all were shown."""

    failed: dict[Path, Failed] = field(default_factory=dict)  # whose last outcome that is
    differs: bool = False  # some run, when it was read back
    unwritable: OutputUnwritable | None = None


def counting(metrics: Path | None, going_on: bool) -> contextlib.AbstractContextManager[Metrics | None]:
    """Count outcomes into a file for Prometheus, or nothing where there is none."""
    if metrics is None:
        return contextlib.nullcontext()
    from .metrics import Metrics

    return Metrics(metrics, going_on)


def show(
    console: Console, outcomes: Iterable[Outcome], interruption: Interruption, count: Metrics | None
) -> Shown:
    """Show what happens, to the end: a full disk under the output is no reason to stop."""
    interruption.say = console.say
    shown = Shown()
    for outcome in outcomes:
        if count is not None:
            count.note(outcome)
        if isinstance(outcome, Failed):
            shown.failed[outcome.run] = outcome
        elif not isinstance(outcome, (Started, Progress)):
            shown.failed.pop(outcome.run, None)
        if isinstance(outcome, (Delivered, UpToDate)) and outcome.proof is not None:
            shown.differs = shown.differs or bool(outcome.proof.differences)
        try:
            console.show(outcome)
        except OutputUnwritable as error:
            shown.unwritable = error
    if interruption.status:
        interruption.stopped()
    return shown


def end(shown: Shown, interruption: Interruption) -> NoReturn:
    """Exit with the promised status; raises OutputUnwritable."""
    for failure in shown.failed.values():
        if isinstance(failure.error, OurFault) and failure.error.__cause__ is not None:
            print_traceback(failure.error.__cause__)
    if shown.unwritable is not None:
        raise shown.unwritable
    differing = Exit.SOME_FAILED if shown.differs else Exit.OK
    raise typer.Exit(interruption.status or status_of_failures(list(shown.failed.values())) or differing)


def print_traceback(fault: BaseException) -> None:
    """Write where a fault of ours happened, with nothing secret in it."""
    write_line(sys.stderr, public("".join(traceback.format_exception(fault))).rstrip("\n"))
