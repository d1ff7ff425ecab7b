"""The command line: flags to wiring to exit status."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from . import __version__
from .agenda import Agenda, follow
from .console import Console, Plans, choose, say_error
from .engine import Failed, Lazily, Outcome, Progress, Started, Work, sync
from .errors import Exit, OurFault, UsageError, YoloClearmlError
from .finding import Found, find_runs
from .interruption import STOPPED, Interruption
from .ledger import FileLedgers, Ledgers, NoLedgers, ReadOnlyLedgers, configuration_stamp
from .news import Watching
from .options import (
    AsJson,
    DryRun,
    Force,
    Jobs,
    Name,
    New,
    Offline,
    Once,
    OutputUri,
    Paths,
    Poll,
    Project,
    Quiet,
    Roots,
    Rules,
    StaleAfter,
    Tags,
    Timeout,
    Verbose,
    WithPoll,
    check,
    check_seconds,
    wishes_of,
)
from .scan import NotARun
from .sinks import RecordingSink, Sink
from .wording import OutputUnwritable, ReaderGone, write_line

_READER_GONE = 128 + signal.SIGPIPE  # what a shell reports of other programs then

_EPILOG = (
    "Every option of a command has an environment variable: YOLO_CLEARML_ and its name, as in"
    " YOLO_CLEARML_DRY_RUN=1. ClearML itself is configured as ever: clearml.conf, CLEARML_*."
)

app = typer.Typer(
    name="yolo-clearml",
    help="Replay YOLO training runs into ClearML as if Ultralytics' callback had been on.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
)


def _version(wanted: bool) -> None:
    if wanted:
        write_line(sys.stdout, f"yolo-clearml {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Replay YOLO training runs into ClearML as if Ultralytics' callback had been on."""


@app.command(epilog=_EPILOG)
def upload(
    paths: Paths,
    project: Project = None,
    name: Name = None,
    tags: Tags = None,
    output_uri: OutputUri = None,
    rules: Rules = None,
    offline: Offline = None,
    dry_run: DryRun = False,
    force: Force = False,
    new: New = False,
    jobs: Jobs = 4,
    stale_after: StaleAfter = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Report each run to ClearML once; run it again at any time, it sends what is new."""
    with _command(quiet, verbose) as interruption:
        wishes = wishes_of(project, name, tags, rules)
        check(dry_run and offline is not None, "--dry-run and --offline cannot be had together.")
        check(force and new, "--force and --new cannot be had together.")
        check_seconds(timeout=timeout, stale_after=stale_after)
        found = _found(paths, name is not None, interruption.stop)
        recording = RecordingSink()
        sink, ledgers = _destination(dry_run, offline, recording, timeout, output_uri, interruption.stop)
        work = Work(
            sink=Lazily(sink),
            ledgers=ledgers,
            server_hint=configuration_stamp(),
            wishes=wishes,
            stale_after=stale_after,
            force=force,
            new=new,
        )
        console: Console = Plans(recording, as_json, quiet, verbose)
        if not dry_run:
            sent = ("wrote", _IMPORT.format(offline)) if offline else ("sent", "")
            console = choose(as_json, quiet, verbose, len(found), *sent, frozenset(paths))
        # one at a time, a dry run says the same in the same order every time
        outcomes = sync(found, work, 1 if dry_run else jobs, interruption.stop)
        with console:
            shown = _show(console, outcomes, interruption)
        _end(shown, interruption)


_IMPORT = "Where there is a server, clearml's Task.import_offline_session imports each zip in {}."


@app.command(epilog=_EPILOG, cls=WithPoll)
def watch(
    roots: Roots,
    project: Project = None,
    tags: Tags = None,
    output_uri: OutputUri = None,
    rules: Rules = None,
    jobs: Jobs = 4,
    stale_after: StaleAfter = None,
    poll: Poll = None,
    once: Once = False,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Report runs as they appear and grow, until stopped; what was missed meanwhile comes first."""
    with _command(quiet, verbose) as interruption:
        from .triggers import Lookout

        wishes = wishes_of(project, None, tags, rules)
        check_seconds(timeout=timeout, stale_after=stale_after, poll=poll)
        stop = interruption.stop
        sink, ledgers = _destination(False, None, RecordingSink(), timeout, output_uri, stop)
        lazily = Lazily(sink)
        work = Work(lazily, ledgers, configuration_stamp(), wishes, stale_after)
        agenda = Agenda(lazily.renew, stop, once)
        console = Watching(as_json, quiet, verbose)
        with console, Lookout(roots, agenda, console.say, stop, poll):
            if not agenda.open_runs:
                console.say("There is no run yet; waiting for the first.")
            shown = _show(console, follow(agenda, work, jobs, stop), interruption)
        _end(shown, interruption)


@contextlib.contextmanager
def _command(quiet: bool, verbose: bool) -> Iterator[Interruption]:
    """Turn what a command meets into messages and the promised exit status."""
    interruption = Interruption(quiet)
    # the libraries' warnings are for -v, for what matters is said by us
    level = logging.ERROR if quiet or not verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(name)s: %(message)s")
    try:
        with interruption:
            yield interruption
    except YoloClearmlError as error:
        say_error(error)
        raise typer.Exit(error.status) from error
    except (BrokenPipeError, EOFError) as fault:
        raise RuntimeError("unforeseen") from fault  # by themselves they let typer end without a trace
    except ReaderGone as gone:
        raise typer.Exit(_READER_GONE) from gone


@dataclass(slots=True)
class _Shown:
    """What is left of the outcomes when all were shown."""

    failed: dict[Path, Failed] = field(default_factory=dict)  # whose last outcome that is
    unwritable: OutputUnwritable | None = None


def _show(console: Console, outcomes: Iterable[Outcome], interruption: Interruption) -> _Shown:
    """Show what happens, to the end: a full disk under the output is no reason to stop."""
    interruption.say = console.say
    shown = _Shown()
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            shown.failed[outcome.run] = outcome
        elif not isinstance(outcome, (Started, Progress)):
            shown.failed.pop(outcome.run, None)
        try:
            console.show(outcome)
        except OutputUnwritable as error:
            shown.unwritable = error
    if interruption.status:
        console.say(STOPPED)
    return shown


def _end(shown: _Shown, interruption: Interruption) -> NoReturn:
    """Exit with the promised status; raises OutputUnwritable."""
    for failure in shown.failed.values():
        if isinstance(failure.error, OurFault) and failure.error.__cause__ is not None:
            traceback.print_exception(failure.error.__cause__)
    if shown.unwritable is not None:
        raise shown.unwritable
    raise typer.Exit(interruption.status or _status(list(shown.failed.values())))


def _found(paths: list[Path], alone: bool, stop: threading.Event) -> list[Found]:
    """Look for runs; raises UsageError where there is none, or several for a name that is for one."""
    found: list[Found] = []
    for item in find_runs(paths):
        found.append(item)
        if stop.is_set():
            return found
    runs = [item for item in found if not isinstance(item, NotARun)]
    if not runs:
        reasons = "".join(f" {item.path} {item.reason}." for item in found[:5] if isinstance(item, NotARun))
        where = ", ".join(map(str, paths))
        raise UsageError(
            f"There is no run in or below {where}.{reasons}",
            "A run directory holds args.yaml and results.csv, as 'yolo train' leaves them in its save_dir.",
        )
    check(
        alone and len(runs) > 1,
        f"--name is for one run, and there are {len(runs)}.",
        "Give the directory of that run alone, or leave --name out.",
    )
    return found


def _destination(
    dry_run: bool,
    offline: Path | None,
    recording: RecordingSink,
    timeout: float,
    output_uri: str | None,
    stop: threading.Event,
) -> tuple[Callable[[], Sink], Ledgers]:
    """Choose where reports go and what remembers them; the heavy imports wait until a run needs them."""
    if dry_run:
        return lambda: recording, ReadOnlyLedgers()
    if offline is not None:
        from .offline_sink import OfflineSink

        folder = offline
        return lambda: OfflineSink(folder, output_uri), NoLedgers()

    def online() -> Sink:
        from .clearml_sink import ClearmlSink

        return ClearmlSink(timeout, output_uri, stop)

    return online, FileLedgers()


def _status(failed: Sequence[Failed]) -> Exit:
    """One status for all failures: their own where they agree, the server's where it is at fault."""
    statuses = {failure.error.status for failure in failed}
    fatal = {failure.error.status for failure in failed if failure.error.fatal}
    if not statuses:
        return Exit.OK
    if len(statuses) == 1:
        return statuses.pop()
    return min(fatal) if fatal else Exit.SOME_FAILED


def main() -> NoReturn:
    """Run the command line and exit with the promised status."""
    # closed by who called: what is written there is thrown away
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open to the end, as they are
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name must not be too much for a locale
    try:
        app()
    except OutputUnwritable as error:
        say_error(error)
    except Exception:  # noqa: BLE001  shown whole, with the status of its own
        traceback.print_exc()
        say_error(YoloClearmlError("This is a fault of ours.", "Please report it, with the lines above."))
    sys.exit(Exit.OURS)
