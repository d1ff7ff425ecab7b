"""The command line: flags to wiring to exit status."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from . import __version__
from .console import Console, choose, plan_json, plan_lines, say_error, silence_broken_pipe
from .engine import Failed, Lazily, Outcome, Work, once, sync
from .eras import Release, parse_release
from .errors import Exit, UsageError, YoloClearmlError
from .ledger import FileLedgers, Ledgers, NoLedgers, ReadOnlyLedgers, configuration_stamp
from .rules import SHORTEST_NAME, Wishes
from .scan import Found, NotARun, find_runs
from .sinks import RecordingSink, Sink

_GRACE = 4.5  # seconds after a signal; killed anywhere, the next run ends the same, so waiting is a courtesy

app = typer.Typer(
    name="yolo-clearml",
    help="Replay YOLO training runs into ClearML as if Ultralytics' callback had been on.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog="Every option has an environment variable: YOLO_CLEARML_ and its name, as in YOLO_CLEARML_JOBS.",
)


def _env(option: str) -> str:
    return f"YOLO_CLEARML_{option}"


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"yolo-clearml {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Replay YOLO training runs into ClearML as if Ultralytics' callback had been on."""


@app.command()
def upload(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Run directories (save_dir), or folders that are searched for them."
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--project",
            envvar=_env("PROJECT"),
            show_envvar=False,
            help="ClearML project; default: the run's own.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--name",
            envvar=_env("NAME"),
            show_envvar=False,
            help="Task name, of one run; default: the run's own.",
        ),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tags",
            envvar=_env("TAGS"),
            show_envvar=False,
            help="Tag instead of the release's own; repeat for more.",
        ),
    ] = None,
    output_uri: Annotated[
        str | None,
        typer.Option(
            "--output-uri",
            envvar=_env("OUTPUT_URI"),
            show_envvar=False,
            help="Where the model goes; default: as ClearML decides.",
        ),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            envvar=_env("RULES"),
            show_envvar=False,
            metavar="RELEASE",
            help="Report as this Ultralytics release did; default: the one that trained the run.",
        ),
    ] = None,
    offline: Annotated[
        Path | None,
        typer.Option(
            "--offline",
            envvar=_env("OFFLINE"),
            show_envvar=False,
            metavar="DIR",
            help="Write ClearML offline sessions into DIR; no server is needed.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            envvar=_env("DRY_RUN"),
            show_envvar=False,
            help="Print what would be sent; touch nothing.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            envvar=_env("FORCE"),
            show_envvar=False,
            help="Send everything again, into the same task.",
        ),
    ] = False,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            envvar=_env("NEW"),
            show_envvar=False,
            help="Make a new task, also where ClearML holds this run.",
        ),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "-j", "--jobs", envvar=_env("JOBS"), show_envvar=False, min=1, max=64, help="Runs at a time."
        ),
    ] = 4,
    stale_after: Annotated[
        float | None,
        typer.Option(
            "--stale-after",
            envvar=_env("STALE_AFTER"),
            show_envvar=False,
            metavar="SECONDS",
            min=1.0,
            help="An unfinished run that nothing has written to for so long has died;"
            " default: 1800, or three of its longest epochs.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            envvar=_env("TIMEOUT"),
            show_envvar=False,
            metavar="SECONDS",
            min=1.0,
            help="Give up on an unreachable server after so long.",
        ),
    ] = 30.0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", envvar=_env("JSON"), show_envvar=False, help="One JSON object per run on stdout."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", envvar=_env("QUIET"), show_envvar=False, help="Errors only.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            envvar=_env("VERBOSE"),
            show_envvar=False,
            help="Also what is skipped and missing.",
        ),
    ] = False,
) -> None:
    """Report each run to ClearML once; run it again at any time, it sends what is new."""
    interrupted = _Interrupted()
    try:
        wishes = _wishes(project, name, tags, rules)
        _check(dry_run and offline is not None, "--dry-run and --offline cannot be had together.")
        _check(force and new, "--force and --new cannot be had together.")
        _log(verbose, quiet)
        found = _found(paths, alone=name is not None)
        recording = RecordingSink()
        sink, ledgers = _destination(dry_run, offline, recording, timeout, output_uri, interrupted.stop)
        work = Work(
            sink=Lazily(sink),
            ledgers=ledgers,
            server_hint=configuration_stamp(),
            wishes=wishes,
            stale_after=stale_after,
            force=force,
            new=new,
        )
        console = choose(as_json, quiet, verbose, "wrote" if offline else "sent")
        show = _print_plans(recording, as_json) if dry_run else None
        with interrupted:
            failed = _run(console, show, found, work, jobs, interrupted.stop)
    except YoloClearmlError as error:
        say_error(error)
        raise typer.Exit(error.status) from error
    raise typer.Exit(interrupted.status or _status(failed))


def _run(
    console: Console,
    show_plan: Callable[[Outcome], bool] | None,
    found: Sequence[Found],
    work: Work,
    jobs: int,
    stop: threading.Event,
) -> list[Failed]:
    """Go through the runs once and show what happens; gives the failures."""
    failed = []
    with console:
        for outcome in sync(lambda: found, once(), work, jobs, stop):
            if isinstance(outcome, Failed):
                failed.append(outcome)
            if show_plan is None or not show_plan(outcome):
                console.show(outcome)
    return failed


def _wishes(project: str | None, name: str | None, tags: list[str] | None, rules: str | None) -> Wishes:
    for option, value in (("--project", project), ("--name", name)):
        parts = value.split("/") if value is not None and option == "--project" else [value or ""]
        short = value is not None and any(len(part.strip()) < SHORTEST_NAME for part in parts)
        _check(short, f"ClearML refuses {option} {value!r}: names need three characters or more.")
    release: Release | None = None
    if rules is not None:
        release = parse_release(rules)
        _check(release is None or release[0] != 8, f"--rules {rules!r} is no release such as 8.3.100.")
    return Wishes(project, name, tuple(tags) if tags else None, release)


def _check(wrong: bool, text: str) -> None:
    if wrong:
        raise UsageError(text, "See 'yolo-clearml upload --help'.")


def _found(paths: list[Path], alone: bool) -> list[Found]:
    """Look for runs; raises UsageError where there is none, or several for a name that is for one."""
    found = list(find_runs(paths))
    runs = [item for item in found if not isinstance(item, NotARun)]
    if not runs:
        reasons = "".join(f" {item.path} {item.reason}." for item in found[:5] if isinstance(item, NotARun))
        where = ", ".join(map(str, paths))
        raise UsageError(
            f"There is no run in or below {where}.{reasons}",
            "A run directory holds args.yaml and results.csv, as 'yolo train' leaves them in its save_dir.",
        )
    _check(alone and len(runs) > 1, f"--name is for one run, and there are {len(runs)}.")
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
        return lambda: OfflineSink(folder), NoLedgers()

    def online() -> Sink:
        from .clearml_sink import ClearmlSink

        return ClearmlSink(timeout, output_uri, stop)

    return online, FileLedgers()


def _print_plans(recording: RecordingSink, as_json: bool) -> Callable[[Outcome], bool]:
    def show(outcome: Outcome) -> bool:
        """Print the plan of a run that is done, instead of saying that it was delivered."""
        recorded = recording.recorded.pop(outcome.run, None)
        if recorded is None:
            return False
        if as_json:
            sys.stdout.write(json.dumps(plan_json(outcome.run, *recorded)) + "\n")
        else:
            sys.stdout.write("".join(f"{line}\n" for line in plan_lines(outcome.run, *recorded)))
        return True

    return show


def _status(failed: Sequence[Failed]) -> Exit:
    """One status for all failures: their own where they agree, the server's where it is at fault."""
    statuses = {failure.error.status for failure in failed}
    fatal = {failure.error.status for failure in failed if failure.error.fatal}
    if not statuses:
        return Exit.OK
    if len(statuses) == 1:
        return statuses.pop()
    return min(fatal) if fatal else Exit.SOME_FAILED


class _Interrupted:
    """Turns the first SIGINT or SIGTERM into a wish to stop; after a while, or a second one, stops hard."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.status: Exit | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Interrupted:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        status = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        if self.status is not None:
            os._exit(status)
        self.status = status
        self.stop.set()
        timer = threading.Timer(_GRACE, os._exit, (status,))
        timer.daemon = True
        timer.start()


def _log(verbose: bool, quiet: bool) -> None:
    """Let the libraries' logs reach stderr: warnings are for -v, for what matters is said by us."""
    level = logging.ERROR if quiet or not verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(name)s: %(message)s")


def main() -> NoReturn:
    """Run the command line and exit with the promised status."""
    try:
        app()
    except BrokenPipeError:
        silence_broken_pipe(sys.stdout)
    sys.exit(Exit.OURS)
