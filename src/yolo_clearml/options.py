"""The options of the command line, each declared once for all commands, and what they must be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .eras import Release, parse_release
from .errors import UsageError
from .rules import SHORTEST_NAME, Wishes

_LONGEST = 10**9  # seconds; 30 years, so that no clock overflows
_POLL = "--poll"
POLL_EVERY = 5.0  # seconds


def _option(*names: str, **how: Any) -> Any:
    """Declare an option, with the environment variable every option has; the last name is the long one."""
    variable = "YOLO_CLEARML_" + names[-1].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, **how)


Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH", help="Run directories (save_dir), or folders that are searched for them."),
]
Roots = Annotated[
    list[Path],
    typer.Argument(metavar="ROOT", help="Folders below which runs are followed, or run directories."),
]
Project = Annotated[
    str | None,
    _option("-p", "--project", metavar="NAME", help="ClearML project; default: the run's own."),
]
Name = Annotated[
    str | None,
    _option("-n", "--name", metavar="NAME", help="Task name, of one run; default: the run's own."),
]
Tags = Annotated[
    list[str] | None,
    _option(
        "--tags",
        metavar="TAG",
        help="Tag instead of the release's own; repeat for more (in the variable: with blanks between).",
    ),
]
OutputUri = Annotated[
    str | None,
    _option("--output-uri", metavar="URI", help="Where the model goes; default: as ClearML decides."),
]
Rules = Annotated[
    str | None,
    _option(
        "--rules",
        metavar="RELEASE",
        help="Report as this Ultralytics release did; default: the one that trained the run.",
    ),
]
Offline = Annotated[
    Path | None,
    _option(
        "--offline",
        metavar="DIR",
        file_okay=False,
        help="Write ClearML offline sessions into DIR; no server is needed.",
    ),
]
DryRun = Annotated[bool, _option("--dry-run", help="Print what would be sent; touch nothing.")]
Force = Annotated[bool, _option("--force", help="Send everything again, into the same task.")]
New = Annotated[bool, _option("--new", help="Make a new task, also where ClearML holds this run.")]
Jobs = Annotated[int, _option("-j", "--jobs", metavar="N", min=1, max=64, help="Runs at a time.")]
StaleAfter = Annotated[
    float | None,
    _option(
        "--stale-after",
        metavar="SECONDS",
        min=1.0,
        help="An unfinished run that nothing has written to for so long has died;"
        " default: 1800, or three of its longest epochs.",
    ),
]
Poll = Annotated[
    float | None,
    _option(
        _POLL,
        metavar="[SECONDS]",
        min=1.0,
        help="Look by polling, for network mounts where changes are not announced;"
        f" default: every {POLL_EVERY:.0f} seconds.",
    ),
]
Once = Annotated[bool, _option("--once", help="Stop when every run seen has ended and is delivered.")]
Timeout = Annotated[
    float,
    _option(
        "--timeout",
        metavar="SECONDS",
        min=1.0,
        help="Give up on an unreachable server after so long.",
    ),
]
AsJson = Annotated[bool, _option("--json", help="One JSON object per run on stdout.")]
Quiet = Annotated[bool, _option("-q", "--quiet", help="Errors only.")]
Verbose = Annotated[bool, _option("-v", "--verbose", help="Also what is skipped and missing.")]


class WithPoll(TyperCommand):
    """A command whose ``--poll`` may stand without its value, also before a path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give ``--poll`` the value it has by default where no number follows."""
        filled = list(args)
        options = filled[: filled.index("--")] if "--" in filled else filled
        for at, argument in reversed(list(enumerate(options))):
            following = options[at + 1] if at + 1 < len(options) else ""
            if argument == _POLL and not re.fullmatch(r"\d+(\.\d*)?", following):
                filled.insert(at + 1, str(POLL_EVERY))
        return super().parse_args(ctx, filled)


def check_seconds(**seconds: float | None) -> None:
    """Raise UsageError where an option, named as its parameter, is no number of seconds to wait."""
    for name, value in seconds.items():
        wrong = value is not None and not 1 <= value <= _LONGEST
        check(wrong, f"--{name.replace('_', '-')} needs a number of seconds from 1 to {_LONGEST}.")


def wishes_of(project: str | None, name: str | None, tags: list[str] | None, rules: str | None) -> Wishes:
    """Collect what is wished for instead of what a run says; raises UsageError."""
    for option, values in (("--project", [project]), ("--name", [name]), ("--tags", tags or [])):
        for value in values:
            odd = value is not None and any("\ud800" <= c <= "\udfff" for c in value)
            check(odd, f"ClearML refuses {option} {value!r}: it holds what is no character.")
    if project is not None:
        parts = [part.strip() for part in project.split("/")]
        short = any(len(part) < SHORTEST_NAME for part in parts)
        check(short, f"ClearML refuses --project {project!r}: names need three characters or more.")
        project = "/".join(parts)
    if name is not None:
        short = len(name.strip()) < SHORTEST_NAME
        check(short, f"ClearML refuses --name {name!r}: names need three characters or more.")
        name = name.strip()
    check(any(not tag.strip() for tag in tags or ()), "--tags is empty.")
    release: Release | None = None
    if rules is not None:
        release = parse_release(rules)
        check(release is None or release[0] != 8, f"--rules {rules!r} is no release such as 8.3.100.")
    return Wishes(project, name, tuple(tags) if tags else None, release)


_SEE_HELP = "See the command's --help; an option may also come from a variable YOLO_CLEARML_*."


def check(wrong: bool, text: str, hint: str = _SEE_HELP) -> None:
    """Raise UsageError where something is ``wrong``."""
    if wrong:
        raise UsageError(text, hint)
