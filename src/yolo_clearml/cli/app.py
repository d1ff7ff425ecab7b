"""The command line: flags to wiring to exit status."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .. import __version__, library
from ..errors import Exit, YoloClearmlError
from ..library import Options, require
from ..rundir.choice import Choice
from ..sync.outcomes import Failed
from ..sync.sinks import RecordingSink
from .checkup import write_checks
from .console import Console, Plans, choose, write_error
from .options import (
    AnyPaths,
    ArtifactGlobs,
    AsJson,
    ChangesAsJson,
    ChecksAsJson,
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
    Move,
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
    QuietChecks,
    Retry,
    Roots,
    Rules,
    ShardOf,
    Sort,
    StaleAfter,
    States,
    Tags,
    TaskId,
    Timeout,
    ValOf,
    Verbose,
    Verify,
    Without,
    WithPoll,
)
from .requirements import found_runs, require_current_folder, runs_validated
from .running import Shown, command, counting, end, print_traceback, show
from .standings import SortKey, StateName, chosen, left_out, write_json, write_table
from .wording import PLAINLY, OutputUnwritable, printable, shown_path, write_line, write_text

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
        "yolo-clearml upload runs/ --project 'Defects/{task}' --name '{path}'",
        "yolo-clearml upload runs/ --offline sessions",
        "yolo-clearml upload runs/detect/val --val-of runs/detect/train",
    ),
    cls=Command,
)
def upload(
    paths: Paths,
    project: Project = None,
    name: Name = None,
    move: Move = False,
    tags: Tags = None,
    output_uri: OutputUri = None,
    only: Only = None,
    without: Without = None,
    models: Models = None,
    artifacts: ArtifactGlobs = None,
    val_of: ValOf = None,
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
    shard: ShardOf = None,
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
    with command(quiet, verbose) as interruption:
        require(not (dry_run and offline), "--dry-run and --offline cannot be had together.")
        require(not (dry_run and verify), "--dry-run and --verify cannot be had together.")
        require(not (dry_run and task_id), "--dry-run and --task-id cannot be had together.")
        options, choice = _asked(locals())
        same = isinstance(options.wishes().name, str)  # for all of them
        alone = "--name" if same else "--task-id" if task_id is not None else None
        found = runs_validated(val_of, choice) or found_runs(paths, choice, alone, interruption.stop)
        recording = RecordingSink() if dry_run else None
        if recording is not None:
            console: Console = Plans(recording, as_json, quiet, verbose, frozenset(paths))
        else:
            sent = ("wrote", _IMPORT.format(offline)) if offline else ("sent", "")
            console = choose(as_json, quiet, verbose, len(found), *sent, frozenset(paths))
        outcomes = library.upload(found, options, interruption.stop, rehearsal=recording)
        with counting(None if dry_run else metrics, going_on=False) as count, console:
            shown = show(console, outcomes, interruption, count)
            if count is not None and interruption.status:
                count.cut_short()
        end(shown, interruption)


_IMPORT = "Where there is a server, clearml's Task.import_offline_session imports each zip in {}."


@app.command(
    epilog=_ending("yolo-clearml watch runs/", "yolo-clearml watch /mnt/nfs/runs --poll 10 --once"),
    cls=WithPoll,
)
def watch(
    roots: Roots,
    project: Project = None,
    name: Name = None,
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
    shard: ShardOf = None,
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

    with command(quiet, verbose) as interruption:
        options, choice = _asked(locals())
        console = Watching(as_json, quiet, verbose)
        outcomes = library.watch(
            roots, options, interruption.stop, poll=poll, once=once, choice=choice, say=console.say
        )
        with counting(metrics, going_on=True) as count, console:
            shown = show(console, outcomes, interruption, count)
        end(shown, interruption)


@app.command(epilog=_ending("yolo-clearml status runs/ --sort fitness --pending"), cls=Command)
def status(
    paths: Paths,
    sort: Sort = SortKey.PATH,
    state: States = None,
    pending: PendingOnly = False,
    rules: Rules = None,
    include: Include = None,
    exclude: Exclude = None,
    shard: ShardOf = None,
    stale_after: StaleAfter = None,
    follow_links: FollowLinks = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show for each run what is on disk and what ClearML has, a line each; no network.

    PATH is a run directory (save_dir), or a folder that is searched for them.
    """
    with command(quiet, verbose) as interruption:
        options, choice = _asked(locals())
        found = found_runs(paths, choice, None, interruption.stop)
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
                write_text(sys.stderr, unseen, 2)
        if not as_json:
            for failure in failed:
                what = f"failed: {printable(str(failure.error))} " if quiet else ""
                text = f"{shown_path(failure.run)}: {what}{printable(failure.error.hint)}"
                write_text(sys.stderr, text, 2)
        end(Shown({failure.run: failure for failure in failed}), interruption)


@app.command("verify", epilog=_ending("yolo-clearml verify runs/train/exp"), cls=Command)
def verify_runs(
    paths: Paths,
    val_of: ValOf = None,
    rules: Rules = None,
    jobs: Jobs = 4,
    include: Include = None,
    exclude: Exclude = None,
    shard: ShardOf = None,
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
    with command(quiet, verbose) as interruption:
        options, choice = _asked(locals())
        found = runs_validated(val_of, choice) or found_runs(paths, choice, None, interruption.stop)
        # that a run was not verified is named, and not only of one that was given by itself
        named = frozenset(paths).union(item for item in found if isinstance(item, Path))
        console = choose(as_json, quiet, verbose, len(found), "verified", "", named)
        with console:
            shown = show(console, library.verify(found, options, interruption.stop), interruption, None)
        end(shown, interruption)


@app.command(epilog=_ending("yolo-clearml doctor runs/"), cls=Command)
def doctor(
    paths: AnyPaths = None,
    output_uri: OutputUri = None,
    follow_links: FollowLinks = None,
    timeout: Timeout = 30.0,
    as_json: ChecksAsJson = False,
    quiet: QuietChecks = False,
) -> None:
    """Look into what runs rest on, one after the other: configuration, server, storage, folders; what to do.

    PATH is what would be given to upload or watch. A small file is sent to each storage and deleted again.
    """
    with command(quiet, False) as interruption:
        require_current_folder(locals())
        options = Options(output_uri=output_uri, follow_links=tuple(follow_links or ()), timeout=timeout)
        checks = library.diagnose(paths or (), options, interruption.stop)
        status = write_checks(checks, as_json, quiet, interruption.stop)
        raise typer.Exit(interruption.status or status)


def _asked(arguments: Mapping[str, Any]) -> tuple[Options, Choice]:
    """Collect what a command was asked: an argument that has the name of a field is that option."""
    require_current_folder(arguments)
    given = {option.name: arguments[option.name] for option in fields(Options) if option.name in arguments}
    given |= {name: tuple(given.get(name) or ()) or None for name in ("tags", "only", "without", "models")}
    paths = tuple(arguments.get("paths") or arguments.get("roots") or ())
    validated = arguments.get("val_of")
    given |= {"roots": paths} if validated is None else {"roots": (validated,), "validations": paths}
    given |= {name: tuple(given.get(name) or ()) for name in ("follow_links", "artifacts")}
    include, exclude = arguments["include"] or (), arguments["exclude"] or ()
    return Options(**given), Choice(tuple(include), tuple(exclude), arguments["shard"])


def main() -> NoReturn:
    """Run the command line and exit with the promised status."""
    # closed by who called: what is written there is thrown away
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open to the end, as they are
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAINLY)
    try:
        app()
    except OutputUnwritable as error:
        write_error(error)
    except Exception as fault:  # noqa: BLE001  shown whole, with the status of its own
        print_traceback(fault)
        write_error(YoloClearmlError("This is a fault of ours.", "Please report it, with the lines above."))
    sys.exit(Exit.OURS)
