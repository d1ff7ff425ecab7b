"""What a command needs of where it is called, before it begins."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..library import require
from ..rundir.choice import Choice
from ..rundir.finding import Found, find_runs, is_validation
from ..rundir.run import NotARun


def require_current_folder(arguments: Mapping[str, Any]) -> None:
    """Raise UsageError where a path is relative, and there is no folder that it could be relative to."""
    given = [value if isinstance(value, list) else [value] for value in arguments.values()]
    relative = [
        path for paths in given for path in paths if isinstance(path, Path) and not path.is_absolute()
    ]
    try:
        Path.cwd()
    except OSError as cause:
        if relative:
            raise UsageError(
                f"{relative[0]} is a path from the current folder on, which is not there any more.",
                "Change to a folder that is there, or give whole paths.",
            ) from cause


def runs_validated(run: Path | None, choice: Choice) -> list[Found]:
    """Give the one run that validations are of, or nothing where none was named; raises UsageError."""
    if run is None:
        return []
    for option, given in (
        ("--shard", choice.shard),
        ("--include", choice.include),
        ("--exclude", choice.exclude),
    ):
        require(
            not given, f"--val-of and {option} cannot be had together.", "It is for the one run it names."
        )
    found = list(find_runs([run]))
    require(
        found == [run],
        f"--val-of {run} is not a run directory.",
        "Give the save_dir of the training whose weights were validated.",
    )
    return found


def found_runs(paths: list[Path], choice: Choice, alone: str | None, stop: threading.Event) -> list[Found]:
    """Look for runs; raises UsageError where there is none, or several for an option that is for one."""
    require(
        not (alone and choice.shard),
        f"{alone} and --shard cannot be had together.",
        f"{alone} is for one run, --shard or YOLO_CLEARML_SHARD for a part of many: leave one of them out.",
    )
    found: list[Found] = []
    for item in find_runs(paths, choice):
        found.append(item)
        if stop.is_set():
            return found
    if choice.shard is not None and all(isinstance(item, NotARun) for item in found):
        everything = list(find_runs(paths, replace(choice, shard=None)))
        if not all(isinstance(item, NotARun) for item in everything):
            return found  # this part is empty, and that is no mistake
        found = everything
    runs = [item for item in found if not isinstance(item, NotARun)]
    if not runs:
        reasons = "".join(f" {item.path} {item.reason}." for item in found[:5] if isinstance(item, NotARun))
        where = ", ".join(map(str, paths))
        if choice.include or choice.exclude:
            raise UsageError(
                f"There is no run that --include and --exclude leave in or below {where}.{reasons}",
                "Patterns are held against a run's path below the folder that is given, as in .gitignore:"
                " 'train' fits that name at any depth, '/train' only in the folder itself.",
            )
        hints = [item.hint for item in found if is_validation(item)]
        hints += [
            "A run directory holds args.yaml and results.csv, as 'yolo train' leaves them in its save_dir."
        ]
        raise UsageError(f"There is no run in or below {where}.{reasons}", hints[0])
    require(
        not alone or len(runs) == 1,
        f"{alone} is for one run, and there are {len(runs)}.",
        f"Give the directory of that run alone, or leave {alone} out."
        + (" With a placeholder, such as {parent}, it is for many." if alone == "--name" else ""),
    )
    return found
