"""The options of the command line, each declared once for all commands that have it."""

from __future__ import annotations

import itertools
import os
import re
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import UsageError
from ..events import ModelFile, Part
from ..replay.placeholders import VALUES
from ..rundir.choice import Shard
from .standings import SortKey, StateName

_POLL = "--poll"
_FOLLOW = "--follow-links"
POLL_EVERY = 5.0  # seconds

_WHICH = "Which runs"  # the groups that the help is in
_WHERE = "Where it goes"
_WHAT = "What is sent"
_HOW = "How it runs"
_OUTPUT = "Output"


def _option(group: str, *names: str, **how: Any) -> Any:
    """Declare an option, with the environment variable every option has; the last name is the long one."""
    variable = "YOLO_CLEARML_" + names[-1].removeprefix("--").replace("-", "_").upper()
    # the help texts state the default: Typer would write "None" for most
    plain = partial(typer.Option, show_envvar=False, show_default=False, rich_help_panel=group)
    return plain(*names, envvar=variable, **how)


def _flag(group: str, *names: str, help: str) -> Any:  # noqa: A002  typer's word
    """Declare an option without a value; the help names none."""
    return _option(group, *names, metavar="", help=help)


def _choices(of: type[Enum]) -> str:
    *others, last = (str(choice.value) for choice in of)
    return f"{', '.join(others)} or {last}"


def _place(text: str) -> Path:
    """Read a path; an empty one, as of a shell's variable that is not set, is not the current folder."""
    if not text:
        raise typer.BadParameter("It is empty.")
    return Path(text)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except UsageError as error:
        raise typer.BadParameter(f"{error} {error.hint}") from error


def _path(metavar: str) -> Any:
    """Declare the paths of a command, which its own text explains: Typer would name their Python type."""
    return typer.Argument(metavar=metavar, parser=_place, hidden=True)


Paths = Annotated[list[Path], _path("PATH")]
AnyPaths = Annotated[list[Path] | None, _path("PATH")]
Roots = Annotated[list[Path], _path("ROOT")]

# -- which runs ---------------------------------------------------------------------------------------

Include = Annotated[
    list[str] | None,
    _option(
        _WHICH,
        "--include",
        metavar="GLOB",
        help="Only runs whose path below the given folder fits a pattern as in .gitignore; repeat for more."
        " Default: every run.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    _option(
        _WHICH,
        "--exclude",
        metavar="GLOB",
        help="No runs whose path below the given folder fits a pattern as in .gitignore; repeat for more."
        " Default: none is left out.",
    ),
]
ShardOf = Annotated[
    Shard | None,
    _option(
        _WHICH,
        "--shard",
        metavar="I/N",
        parser=_shard,
        help="Only the I-th of N parts, so that N workers, each with its own I and the same paths, take every"
        " run once; its path below the given folder decides. Default: all.",
    ),
]
StaleAfter = Annotated[
    float | None,
    _option(
        _WHICH,
        "--stale-after",
        metavar="SECONDS",
        min=1.0,
        help="An unfinished run that nothing has written to for so long has died."
        " Default: 1800, or three of its longest epochs.",
    ),
]
FollowLinks = Annotated[
    list[Path] | None,
    _option(
        _WHICH,
        _FOLLOW,
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Follow links of a run that lead into this folder; repeat for more (in the variable: with"
        f" {os.pathsep} between). Default: no link is followed.",
    ),
]
States = Annotated[
    list[StateName] | None,
    _option(
        _WHICH,
        "--state",
        metavar="STATE",
        help=f"Only runs that are {_choices(StateName)}; repeat for more. Default: all but skipped ones.",
    ),
]
PendingOnly = Annotated[
    bool,
    _flag(
        _WHICH,
        "--pending",
        help="Only runs with something to send, and those of which only the server knows (?).",
    ),
]

# -- where it goes ------------------------------------------------------------------------------------

Project = Annotated[
    str | None,
    _option(
        _WHERE,
        "-p",
        "--project",
        metavar="NAME",
        help="ClearML project of a task that is made, with placeholders as in --name. Default: the run's own,"
        " else that of its release's callback.",
    ),
]
_PLACEHOLDERS = ", ".join(f"{{{name}}}" for name in VALUES)
Name = Annotated[
    str | None,
    _option(
        _WHERE,
        "-n",
        "--name",
        metavar="NAME",
        help="Name of a task that is made; for many runs, and with --shard, with placeholders:"
        f" {_PLACEHOLDERS}."
        " Default: the run's own.",
    ),
]
Move = Annotated[
    bool,
    _flag(
        _WHERE,
        "--move",
        help="A task that ClearML holds already goes where --project and --name say, too. Not with --new,"
        " --task-id or --offline.",
    ),
]
Tags = Annotated[
    list[str] | None,
    _option(
        _WHERE,
        "--tags",
        metavar="TAG",
        help="Tag of a task that is made; repeat for more (in the variable: with blanks between)."
        " Default: that of the release's callback.",
    ),
]
TaskId = Annotated[
    str | None,
    _option(
        _WHERE,
        "--task-id",
        metavar="ID",
        help="Report into this task, whoever made it, and add only what it lacks; for one run."
        " Not with --new, --offline, --shard or --dry-run.",
    ),
]
New = Annotated[
    bool,
    _flag(
        _WHERE,
        "--new",
        help="Make a new task, also where ClearML holds this run. Not with --force or --task-id.",
    ),
]
OutputUri = Annotated[
    str | None,
    _option(
        _WHERE,
        "--output-uri",
        metavar="URI",
        help="Where the model goes. Default: as ClearML decides (project, clearml.conf, file server).",
    ),
]
Offline = Annotated[
    Path | None,
    _option(
        _WHERE,
        "--offline",
        metavar="DIR",
        file_okay=False,
        help="Write ClearML offline sessions into DIR; no server is needed. Not with --verify, --dry-run or"
        " --task-id.",
    ),
]

# -- what is sent -------------------------------------------------------------------------------------

Only = Annotated[
    list[str] | None,
    _option(
        _WHAT,
        "--only",
        metavar="KIND",
        help=f"Send nothing but {_choices(Part)}; repeat for more, or with commas. Not with --without."
        " Default: everything.",
    ),
]
Without = Annotated[
    list[str] | None,
    _option(
        _WHAT,
        "--without",
        metavar="KIND",
        help="Leave out kinds of things, those of --only; repeat for more, or with commas. A later call"
        " without this option sends them. Default: nothing is left out.",
    ),
]
Models = Annotated[
    list[str] | None,
    _option(
        _WHAT,
        "--models",
        metavar="MODEL",
        help=f"Which models to send: {_choices(ModelFile)}; repeat for more, or with commas."
        " Default: best, once the training has finished.",
    ),
]
ArtifactGlobs = Annotated[
    list[str] | None,
    _option(
        _WHAT,
        "--artifacts",
        metavar="GLOB",
        help="Send files of a run whose path in it fits a pattern as in .gitignore, as artifacts; repeat for"
        " more. Default: none.",
    ),
]
ValOf = Annotated[
    Path | None,
    _option(
        _WHAT,
        "--val-of",
        metavar="RUN",
        help="The paths are what 'yolo val' left, validations of RUN: their pictures go into its task, each"
        " below the name of its directory. Not with --shard, --include or --exclude.",
    ),
]
Rules = Annotated[
    str | None,
    _option(
        _WHAT,
        "--rules",
        metavar="RELEASE",
        help="Report as the callback of this Ultralytics release did, such as 8.3.100. Default: the release"
        " that trained the run.",
    ),
]
DryRun = Annotated[
    bool,
    _flag(
        _WHAT,
        "--dry-run",
        help="Print what would be sent; touch nothing. Not with --offline, --verify or --task-id.",
    ),
]
Force = Annotated[
    bool, _flag(_WHAT, "--force", help="Send everything again, into the same task. Not with --new.")
]
Verify = Annotated[
    bool,
    _flag(
        _WHAT,
        "--verify",
        help="Read everything back when done, as 'yolo-clearml verify' does."
        " Not with --offline or --dry-run.",
    ),
]

# -- how it runs --------------------------------------------------------------------------------------

Jobs = Annotated[
    int,
    _option(
        *(_HOW, "-j", "--jobs"),
        metavar="N",
        min=1,
        max=64,
        help="Runs at a time. Default: 4.",
    ),
]
Timeout = Annotated[
    float,
    _option(
        _HOW,
        "--timeout",
        metavar="SECONDS",
        min=1.0,
        help="Give up on an unreachable server after so long. Default: 30.",
    ),
]
Retry = Annotated[
    float,
    _option(
        _HOW,
        "--timeout",
        metavar="SECONDS",
        min=1.0,
        help="Take a server for unreachable after so long, and then ask again and again. Default: 30.",
    ),
]
Poll = Annotated[
    float | None,
    _option(
        _HOW,
        _POLL,
        metavar="[SECONDS]",
        min=1.0,
        help="Look by polling, for network mounts where changes are not announced; without a number every"
        f" {POLL_EVERY:.0f} seconds. Default: changes are announced by the system.",
    ),
]
Once = Annotated[bool, _flag(_HOW, "--once", help="Stop when every run seen has ended and is delivered.")]

# -- output -------------------------------------------------------------------------------------------

Sort = Annotated[
    SortKey,
    _option(
        _OUTPUT,
        "--sort",
        metavar="KEY",
        help=f"Sort the lines by {_choices(SortKey)}. Default: {SortKey.PATH.value}.",
    ),
]
MetricsFile = Annotated[
    Path | None,
    _option(
        _OUTPUT,
        "--metrics",
        metavar="FILE",
        help="Write counts for Prometheus' textfile collector; FILE must end in .prom to be read.",
    ),
]
AsJson = Annotated[bool, _flag(_OUTPUT, "--json", help="One JSON object per run on stdout.")]
ChangesAsJson = Annotated[bool, _flag(_OUTPUT, "--json", help="One JSON object per change on stdout.")]
ChecksAsJson = Annotated[bool, _flag(_OUTPUT, "--json", help="One JSON object per check on stdout.")]
QuietChecks = Annotated[bool, _flag(_OUTPUT, "-q", "--quiet", help="Only what is not well.")]
Quiet = Annotated[bool, _flag(_OUTPUT, "-q", "--quiet", help="Errors only.")]
Verbose = Annotated[
    bool, _flag(_OUTPUT, "-v", "--verbose", help="Also what is skipped, and what is not on disk.")
]


class _Grouped:
    """Of a command: its options in groups; flags that Typer itself adds show no type, as ours do not."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Give the options and arguments, in the order of the help."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        grouped = any(getattr(parameter, "rich_help_panel", None) for parameter in parameters)
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
            if grouped and "--help" in parameter.opts:
                parameter.rich_help_panel = _OUTPUT
        groups = {group: place for place, group in enumerate((_WHICH, _WHERE, _WHAT, _HOW, _OUTPUT))}
        return sorted(parameters, key=lambda parameter: groups.get(_group(parameter), -1))


def _group(parameter: Any) -> str:
    return str(getattr(parameter, "rich_help_panel", ""))


class Group(_Grouped, TyperGroup):
    """The program itself."""


class Command(_Grouped, TyperCommand):
    """A command whose errors name the variable that a wrong value came from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let an error name where the value stands that it is about, and what is wrong with it alone."""
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
