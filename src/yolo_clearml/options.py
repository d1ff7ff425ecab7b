"""The options of the command line, each declared once for all commands that have it."""

from __future__ import annotations

import itertools
import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .standings import SortKey, StateName

_POLL = "--poll"
_FOLLOW = "--follow-links"
POLL_EVERY = 5.0  # seconds


def _option(*names: str, **how: Any) -> Any:
    """Declare an option, with the environment variable every option has; the last name is the long one."""
    variable = "YOLO_CLEARML_" + names[-1].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, **how)


def _flag(*names: str, help: str) -> Any:  # noqa: A002  typer's word
    """Declare an option without a value; the help says nothing of one."""
    return _option(*names, metavar="", help=help)


def _choices(of: type[Enum]) -> str:
    *others, last = (str(choice.value) for choice in of)
    return f"{', '.join(others)} or {last}"


def _place(text: str) -> Path:
    """Read a path; an empty one, as of a shell's variable that is not set, is not the current folder."""
    if not text:
        raise typer.BadParameter("It is empty.")
    return Path(text)


Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH",
        parser=_place,
        help="Run directories (save_dir), or folders that are searched for them.",
    ),
]
Roots = Annotated[
    list[Path],
    typer.Argument(
        metavar="ROOT",
        parser=_place,
        help="Folders below which runs are followed, or run directories.",
    ),
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
DryRun = Annotated[bool, _flag("--dry-run", help="Print what would be sent; touch nothing.")]
Force = Annotated[bool, _flag("--force", help="Send everything again, into the same task.")]
New = Annotated[bool, _flag("--new", help="Make a new task, also where ClearML holds this run.")]
TaskId = Annotated[
    str | None,
    _option("--task-id", metavar="ID", help="Report into this task, of one run; add only what it lacks."),
]
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
Once = Annotated[bool, _flag("--once", help="Stop when every run seen has ended and is delivered.")]
Verify = Annotated[bool, _flag("--verify", help="Read everything back when done, as verify does.")]
MetricsFile = Annotated[
    Path | None,
    _option("--metrics", metavar="FILE", help="Write counts for Prometheus' textfile collector."),
]
Include = Annotated[
    list[str] | None,
    _option("--include", metavar="GLOB", help="Only runs whose path below PATH fits, as in .gitignore."),
]
Exclude = Annotated[
    list[str] | None,
    _option("--exclude", metavar="GLOB", help="No runs whose path below PATH fits, as in .gitignore."),
]
Sort = Annotated[
    SortKey,
    _option("--sort", metavar="KEY", help=f"What the lines are sorted by: {_choices(SortKey)}."),
]
States = Annotated[
    list[StateName] | None,
    _option("--state", metavar="STATE", help=f"Only runs that are {_choices(StateName)}; repeat for more."),
]
PendingOnly = Annotated[bool, _flag("--pending", help="Only runs with something to send.")]
FollowLinks = Annotated[
    list[Path] | None,
    _option(
        _FOLLOW,
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Follow links of a run that lead into this folder; repeat for more"
        " (in the variable: with : between).",
    ),
]
Timeout = Annotated[
    float,
    _option(
        "--timeout",
        metavar="SECONDS",
        min=1.0,
        help="Give up on an unreachable server after so long.",
    ),
]
AsJson = Annotated[bool, _flag("--json", help="One JSON object per run on stdout; of a watch, per change.")]
Quiet = Annotated[bool, _flag("-q", "--quiet", help="Errors only.")]
Verbose = Annotated[bool, _flag("-v", "--verbose", help="Also what is skipped and missing.")]


class Command(TyperCommand):
    """A command whose errors name the variable that a wrong value came from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let an error say where the value stands that it is about, and what is wrong with it alone."""
        try:
            # of a shell's variable that is not set; to the parser it is the current folder
            if f"{_FOLLOW}=" in args or (_FOLLOW, "") in itertools.pairwise(args):
                raise typer.BadParameter("It is empty.", param_hint=f"'{_FOLLOW}'")
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            option = error.param
            source = ctx.get_parameter_source(option.name) if option is not None else None
            if option is not None and source is not None and source.name == "ENVIRONMENT":
                error.param_hint = str(option.envvar)
            error.message = error.message.removeprefix("Value error, ")  # what pydantic calls it
            raise


class WithPoll(Command):
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
