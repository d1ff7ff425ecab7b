"""The command line: flags to wiring to exit status."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from . import __version__
from .console import Console, Plans, choose, say_error
from .engine import Failed, Lazily, Work, once, sync
from .eras import Release, parse_release
from .errors import Exit, OurFault, UsageError, YoloClearmlError
from .ledger import FileLedgers, Ledgers, NoLedgers, ReadOnlyLedgers, configuration_stamp
from .rules import SHORTEST_NAME, Wishes
from .scan import Found, NotARun, find_runs
from .sinks import RecordingSink, Sink
from .terminal import leave_terminal
from .wording import OutputUnwritable, ReaderGone, write_line

_READER_GONE = 128 + signal.SIGPIPE  # what a shell reports of other programs then
_LONGEST = 10**9  # seconds; 30 years, so that no clock overflows
_GRACE = 4.0  # seconds after a signal; killed anywhere, the next run ends the same, so waiting is a courtesy

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


def _env(option: str) -> str:
    return f"YOLO_CLEARML_{option}"


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
            metavar="NAME",
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
            metavar="NAME",
            help="Task name, of one run; default: the run's own.",
        ),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tags",
            envvar=_env("TAGS"),
            show_envvar=False,
            metavar="TAG",
            help="Tag instead of the release's own; repeat for more (in the variable: with blanks between).",
        ),
    ] = None,
    output_uri: Annotated[
        str | None,
        typer.Option(
            "--output-uri",
            envvar=_env("OUTPUT_URI"),
            show_envvar=False,
            metavar="URI",
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
            file_okay=False,
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
            "-j",
            "--jobs",
            envvar=_env("JOBS"),
            show_envvar=False,
            metavar="N",
            min=1,
            max=64,
            help="Runs at a time.",
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
    interrupted = _Interrupted(quiet)
    try:
        wishes = _wishes(project, name, tags, rules)
        _check(dry_run and offline is not None, "--dry-run and --offline cannot be had together.")
        _check(force and new, "--force and --new cannot be had together.")
        for option, seconds in (("--timeout", timeout), ("--stale-after", stale_after)):
            wrong = seconds is not None and not 1 <= seconds <= _LONGEST
            _check(wrong, f"{option} needs a number of seconds from 1 to {_LONGEST}.")
        _log(verbose, quiet)
        with interrupted:
            found = _found(paths, name is not None, interrupted.stop)
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
            console: Console = Plans(recording, as_json, quiet, verbose)
            if not dry_run:
                sent = ("wrote", _IMPORT.format(offline)) if offline else ("sent", "")
                console = choose(as_json, quiet, verbose, len(found), *sent, frozenset(paths))
            interrupted.say = console.say
            # one at a time, a dry run says the same in the same order every time
            failed = _run(console, found, work, 1 if dry_run else jobs, interrupted.stop)
            if interrupted.status:
                console.say(_STOPPED)
    except YoloClearmlError as error:
        say_error(error)
        raise typer.Exit(error.status) from error
    except (BrokenPipeError, EOFError) as fault:
        raise RuntimeError("unforeseen") from fault  # by themselves they let typer end without a trace
    except ReaderGone as gone:
        raise typer.Exit(_READER_GONE) from gone
    raise typer.Exit(interrupted.status or _status(failed))


_IMPORT = "Where there is a server, clearml's Task.import_offline_session imports each zip in {}."
_STOPPING = "Stopping as soon as what is on its way has arrived; the same signal again stops at once."
_STOPPED = "Stopped. What arrived is remembered; run the same command again to send the rest."


def _run(
    console: Console,
    found: Sequence[Found],
    work: Work,
    jobs: int,
    stop: threading.Event,
) -> list[Failed]:
    """Go through the runs once and show what happens; gives the failures.

    Raises OutputUnwritable, but only when all is done: a full disk under the output is no reason to stop.
    """
    failed, unwritable = [], None
    with console:
        for outcome in sync(lambda: found, once(), work, jobs, stop):
            if isinstance(outcome, Failed):
                failed.append(outcome)
            try:
                console.show(outcome)
            except OutputUnwritable as error:
                unwritable = error
    for failure in failed:
        if isinstance(failure.error, OurFault) and failure.error.__cause__ is not None:
            traceback.print_exception(failure.error.__cause__)
    if unwritable is not None:
        raise unwritable
    return failed


def _wishes(project: str | None, name: str | None, tags: list[str] | None, rules: str | None) -> Wishes:
    for option, values in (("--project", [project]), ("--name", [name]), ("--tags", tags or [])):
        for value in values:
            odd = value is not None and any("\ud800" <= c <= "\udfff" for c in value)
            _check(odd, f"ClearML refuses {option} {value!r}: it holds what is no character.")
    if project is not None:
        parts = [part.strip() for part in project.split("/")]
        short = any(len(part) < SHORTEST_NAME for part in parts)
        _check(short, f"ClearML refuses --project {project!r}: names need three characters or more.")
        project = "/".join(parts)
    if name is not None:
        short = len(name.strip()) < SHORTEST_NAME
        _check(short, f"ClearML refuses --name {name!r}: names need three characters or more.")
        name = name.strip()
    _check(any(not tag.strip() for tag in tags or ()), "--tags is empty.")
    release: Release | None = None
    if rules is not None:
        release = parse_release(rules)
        _check(release is None or release[0] != 8, f"--rules {rules!r} is no release such as 8.3.100.")
    return Wishes(project, name, tuple(tags) if tags else None, release)


_SEE_HELP = "See 'yolo-clearml upload --help'; an option may also come from a variable YOLO_CLEARML_*."


def _check(wrong: bool, text: str, hint: str = _SEE_HELP) -> None:
    if wrong:
        raise UsageError(text, hint)


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
    _check(
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


class _Interrupted:
    """Turns the first SIGINT or SIGTERM into a wish to stop; after a while, or a second one, stops hard."""

    def __init__(self, quiet: bool) -> None:
        self.stop = threading.Event()
        self.status: Exit | None = None
        self.say: Callable[[str], None] = lambda text: None
        self._quiet = quiet
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
            self._leave(status)
        self.status = status
        self.stop.set()
        # in threads of their own: this one may be in the middle of writing
        for seconds, action, told in ((0.0, self.say, _STOPPING), (_GRACE, self._leave, status)):
            timer = threading.Timer(seconds, action, (told,))
            timer.daemon = True
            timer.start()

    def _leave(self, status: Exit) -> None:
        leave_terminal("" if self._quiet else _STOPPED)
        os._exit(status)


def _log(verbose: bool, quiet: bool) -> None:
    """Let the libraries' logs reach stderr: warnings are for -v, for what matters is said by us."""
    level = logging.ERROR if quiet or not verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(name)s: %(message)s")


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
