"""The command line: flags to wiring to exit status."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .. import __version__, library
from ..errors import Exit, OurFault, UsageError, YoloClearmlError, public
from ..library import Options, require
from ..rundir.choice import EVERY_RUN, Choice
from ..rundir.finding import Found, find_runs
from ..rundir.run import NotARun
from ..sync.outcomes import Delivered, Failed, Outcome, Progress, Started, UpToDate
from ..sync.sinks import RecordingSink
from .console import Console, Plans, choose, write_error
from .interruption import Interruption
from .options import (
    ArtifactGlobs,
    AsJson,
    ChangesAsJson,
    Command,
    DryRun,
    Exclude,
    FollowLinks,
    Force,
    Group,
    Include,
    Jobs,
    MetricsFile,
    Models,
    Name,
    New,
    Offline,
    Once,
    Only,
    OutputUri,
    Paths,
    PendingOnly,
    Poll,
    Project,
    Quiet,
    Retry,
    Roots,
    Rules,
    Sort,
    StaleAfter,
    States,
    Tags,
    TaskId,
    Timeout,
    Verbose,
    Verify,
    Without,
    WithPoll,
)
from .standings import SortKey, StateName, chosen, left_out, write_json, write_table
from .wording import OutputUnwritable, ReaderGone, printable, shown_path, write_line

if TYPE_CHECKING:
    from .metrics import Metrics

_READER_GONE = 128 + signal.SIGPIPE  # what a shell reports of other programs then

_VARIABLES = (
    "Every option of a command has an environment variable: YOLO_CLEARML_ and its name, as in"
    " YOLO_CLEARML_DRY_RUN=1. ClearML itself is configured as ever: clearml.conf, CLEARML_*."
)


def _ending(*examples: str) -> str:
    """End a help with examples, a line each, and with what is true of every command."""
    return "\n\n".join((*(f"Example: {example}" for example in examples), _VARIABLES))


app = typer.Typer(
    name="yolo-clearml",
    help="Replay YOLO training runs into ClearML as if Ultralytics' callback had been on.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog=_ending("yolo-clearml upload runs/train/exp"),
    cls=Group,
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


@app.command(
    epilog=_ending(
        "yolo-clearml upload runs/",
        "yolo-clearml upload runs/train/exp --project Defects --name baseline",
        "yolo-clearml upload runs/ --offline sessions",
    ),
    cls=Command,
)
def upload(
    paths: Paths,
    project: Project = None,
    name: Name = None,
    tags: Tags = None,
    output_uri: OutputUri = None,
    only: Only = None,
    without: Without = None,
    models: Models = None,
    artifacts: ArtifactGlobs = None,
    rules: Rules = None,
    offline: Offline = None,
    dry_run: DryRun = False,
    force: Force = False,
    new: New = False,
    verify: Verify = False,
    task_id: TaskId = None,
    metrics: MetricsFile = None,
    jobs: Jobs = 4,
    include: Include = None,
    exclude: Exclude = None,
    stale_after: StaleAfter = None,
    follow_links: FollowLinks = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Report each run to ClearML once; run it again at any time, it sends what is new.

    PATH is a run directory (save_dir), or a folder that is searched for them.
    """
    with _command(quiet, verbose) as interruption:
        require(not (dry_run and offline), "--dry-run and --offline cannot be had together.")
        require(not (dry_run and verify), "--dry-run and --verify cannot be had together.")
        require(not (dry_run and task_id), "--dry-run and --task-id cannot be had together.")
        options, choice = _asked(locals())
        alone = "--name" if name is not None else "--task-id" if task_id is not None else None
        found = _found(paths, choice, alone, interruption.stop)
        recording = RecordingSink() if dry_run else None
        if recording is not None:
            console: Console = Plans(recording, as_json, quiet, verbose, frozenset(paths))
        else:
            sent = ("wrote", _IMPORT.format(offline)) if offline else ("sent", "")
            console = choose(as_json, quiet, verbose, len(found), *sent, frozenset(paths))
        outcomes = library.upload(found, options, interruption.stop, rehearsal=recording)
        with _counting(None if dry_run else metrics, going_on=False) as count, console:
            shown = _show(console, outcomes, interruption, count)
            if count is not None and interruption.status:
                count.cut_short()
        _end(shown, interruption)


_IMPORT = "Where there is a server, clearml's Task.import_offline_session imports each zip in {}."


@app.command(
    epilog=_ending("yolo-clearml watch runs/", "yolo-clearml watch /mnt/nfs/runs --poll 10 --once"),
    cls=WithPoll,
)
def watch(
    roots: Roots,
    project: Project = None,
    tags: Tags = None,
    output_uri: OutputUri = None,
    only: Only = None,
    without: Without = None,
    models: Models = None,
    artifacts: ArtifactGlobs = None,
    rules: Rules = None,
    metrics: MetricsFile = None,
    jobs: Jobs = 4,
    include: Include = None,
    exclude: Exclude = None,
    stale_after: StaleAfter = None,
    follow_links: FollowLinks = None,
    poll: Poll = None,
    once: Once = False,
    timeout: Retry = 30.0,
    as_json: ChangesAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Report runs as they appear and grow, until stopped; what was missed meanwhile comes first.

    ROOT is a folder below which runs are followed, or a run directory.
    """
    from .news import Watching

    with _command(quiet, verbose) as interruption:
        options, choice = _asked(locals())
        console = Watching(as_json, quiet, verbose)
        outcomes = library.watch(
            roots, options, interruption.stop, poll=poll, once=once, choice=choice, say=console.say
        )
        with _counting(metrics, going_on=True) as count, console:
            shown = _show(console, outcomes, interruption, count)
        _end(shown, interruption)


@app.command(epilog=_ending("yolo-clearml status runs/ --sort fitness --pending"), cls=Command)
def status(
    paths: Paths,
    sort: Sort = SortKey.PATH,
    state: States = None,
    pending: PendingOnly = False,
    rules: Rules = None,
    include: Include = None,
    exclude: Exclude = None,
    stale_after: StaleAfter = None,
    follow_links: FollowLinks = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show for each run what is on disk and what ClearML has, a line each; no network.

    PATH is a run directory (save_dir), or a folder that is searched for them.
    """
    with _command(quiet, verbose) as interruption:
        options, choice = _asked(locals())
        found = _found(paths, choice, None, interruption.stop)
        states = state or (list(StateName) if verbose and not pending else ())
        everything = list(library.status(found, options))
        standings = chosen(everything, states, pending, sort)
        failed = [standing for standing in standings if isinstance(standing, Failed)]
        if as_json:
            write_json(failed if quiet else standings)
        elif not quiet:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            write_table(standings, width, verbose)
            unseen = left_out(everything, standings, states, pending)
            if unseen is not None:
                write_line(sys.stderr, unseen)
        if not as_json:
            for failure in failed:
                what = f"failed: {printable(str(failure.error))} " if quiet else ""
                write_line(sys.stderr, f"{shown_path(failure.run)}: {what}{printable(failure.error.hint)}")
        _end(_Shown({failure.run: failure for failure in failed}), interruption)


@app.command("verify", epilog=_ending("yolo-clearml verify runs/train/exp"), cls=Command)
def verify_runs(
    paths: Paths,
    rules: Rules = None,
    jobs: Jobs = 4,
    include: Include = None,
    exclude: Exclude = None,
    stale_after: StaleAfter = None,
    follow_links: FollowLinks = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read everything back from ClearML and compare it with the disk: every value, every byte.

    PATH is a run directory (save_dir), or a folder that is searched for them.
    """
    with _command(quiet, verbose) as interruption:
        options, choice = _asked(locals())
        found = _found(paths, choice, None, interruption.stop)
        console = choose(as_json, quiet, verbose, len(found), "verified", "", frozenset(paths))
        with console:
            shown = _show(console, library.verify(found, options, interruption.stop), interruption, None)
        _end(shown, interruption)


def _asked(arguments: Mapping[str, Any]) -> tuple[Options, Choice]:
    """Collect what a command was asked: an argument that has the name of a field is that option."""
    given = {option.name: arguments[option.name] for option in fields(Options) if option.name in arguments}
    given |= {name: tuple(given.get(name) or ()) or None for name in ("tags", "only", "without", "models")}
    given |= {name: tuple(given.get(name) or ()) for name in ("follow_links", "artifacts")}
    include, exclude = arguments["include"] or (), arguments["exclude"] or ()
    return Options(**given), Choice(tuple(include), tuple(exclude))


@contextlib.contextmanager
def _command(quiet: bool, verbose: bool) -> Iterator[Interruption]:
    """Turn what a command meets into messages and the promised exit status."""
    interruption = Interruption(quiet)
    # the libraries' warnings are for -v, for what matters is in our own messages
    level = logging.ERROR if quiet or not verbose else logging.INFO
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
        raise typer.Exit(_READER_GONE) from gone


@dataclass(slots=True)
class _Shown:
    """What is left of the outcomes when all were shown."""

    failed: dict[Path, Failed] = field(default_factory=dict)  # whose last outcome that is
    differs: bool = False  # some run, when it was read back
    unwritable: OutputUnwritable | None = None


def _counting(metrics: Path | None, going_on: bool) -> contextlib.AbstractContextManager[Metrics | None]:
    if metrics is None:
        return contextlib.nullcontext()
    from .metrics import Metrics

    return Metrics(metrics, going_on)


def _show(
    console: Console, outcomes: Iterable[Outcome], interruption: Interruption, count: Metrics | None
) -> _Shown:
    """Show what happens, to the end: a full disk under the output is no reason to stop."""
    interruption.say = console.say
    shown = _Shown()
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


def _end(shown: _Shown, interruption: Interruption) -> NoReturn:
    """Exit with the promised status; raises OutputUnwritable."""
    for failure in shown.failed.values():
        if isinstance(failure.error, OurFault) and failure.error.__cause__ is not None:
            _print_traceback(failure.error.__cause__)
    if shown.unwritable is not None:
        raise shown.unwritable
    differing = Exit.SOME_FAILED if shown.differs else Exit.OK
    raise typer.Exit(interruption.status or _status(list(shown.failed.values())) or differing)


def _print_traceback(fault: BaseException) -> None:
    write_line(sys.stderr, public("".join(traceback.format_exception(fault))).rstrip("\n"))


def _found(paths: list[Path], choice: Choice, alone: str | None, stop: threading.Event) -> list[Found]:
    """Look for runs; raises UsageError where there is none, or several for an option that is for one."""
    found: list[Found] = []
    for item in find_runs(paths, choice):
        found.append(item)
        if stop.is_set():
            return found
    runs = [item for item in found if not isinstance(item, NotARun)]
    if not runs:
        reasons = "".join(f" {item.path} {item.reason}." for item in found[:5] if isinstance(item, NotARun))
        where = ", ".join(map(str, paths))
        if choice != EVERY_RUN:
            raise UsageError(
                f"There is no run that --include and --exclude leave in or below {where}.{reasons}",
                "Patterns are held against a run's path below the folder that is given, as in .gitignore:"
                " 'train' fits that name at any depth, '/train' only in the folder itself.",
            )
        raise UsageError(
            f"There is no run in or below {where}.{reasons}",
            "A run directory holds args.yaml and results.csv, as 'yolo train' leaves them in its save_dir.",
        )
    require(
        not alone or len(runs) == 1,
        f"{alone} is for one run, and there are {len(runs)}.",
        f"Give the directory of that run alone, or leave {alone} out.",
    )
    return found


def _status(failed: Sequence[Failed]) -> Exit:
    """One status for all failures: their own where they agree, the server's where it is at fault.

    What does not pass by itself comes before an outage: it is what ended a watch.
    """
    statuses = {failure.error.status for failure in failed}
    fatal = {failure.error.status for failure in failed if failure.error.fatal}
    lasting = {failure.error.status for failure in failed if failure.error.fatal and not failure.error.outage}
    if not statuses:
        return Exit.OK
    if len(statuses) == 1:
        return statuses.pop()
    return min(lasting or fatal, default=Exit.SOME_FAILED)


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
        write_error(error)
    except Exception as fault:  # noqa: BLE001  shown whole, with the status of its own
        _print_traceback(fault)
        write_error(YoloClearmlError("This is a fault of ours.", "Please report it, with the lines above."))
    sys.exit(Exit.OURS)
