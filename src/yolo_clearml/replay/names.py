"""The project and the name of a run's task, as the callback and ClearML would have them. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from ..rundir.run import Run
from .draft import Draft, sendable
from .eras import Era

SHORTEST_NAME = 3  # characters; ClearML refuses shorter projects, tasks and models
_DEEPEST_PROJECT = 10  # levels; ClearML refuses deeper ones
_LONGEST_NAME = 256  # characters


def task_names(
    run: Run, era: Era, asked: tuple[str | None, str | None], draft: Draft
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Give the task's project and name, ``asked`` for or else the run's own, and these own ones."""
    project, name = _stated_project(run, era), _stated_name(run, era)
    parts = [_acceptable(part) for part in (project or "").split("/") if part not in ("", ".", "..")]
    own = ("/".join(parts[-_DEEPEST_PROJECT:]) or era.project, _acceptable(name))
    for what, stated, is_now, accepted, wish in (
        ("project", project, "in", own[0], asked[0]),
        ("name", name, "called", own[1], asked[1]),
    ):
        if wish is None and stated is not None and stated != accepted:
            draft.notes.append(
                f"ClearML refuses the {what} {stated!r}; the task is {is_now} {accepted!r}, --{what} chooses."
            )
    return (asked[0] or own[0], asked[1] or own[1]), own


def _stated_project(run: Run, era: Era) -> str | None:
    stated, prefix = run.args.get("project"), era.default_project_prefix
    if stated is None or (prefix and str(stated).startswith(prefix)):
        return None
    return str(stated).lstrip(era.project_stripped_of) or None


def _stated_name(run: Run, era: Era) -> str:
    stated = run.args.get("name")
    if era.default_task_name and str(stated) == era.default_name:
        return era.default_task_name
    directory = PurePosixPath(save_dir(run).replace("\\", "/")).name
    return str(stated) if stated not in (None, "") else directory or run.path.name


def _acceptable(name: str) -> str:
    """Make a name ClearML takes: printable, with at least three characters and not too many."""
    printable = "".join(c if c.isprintable() else "_" for c in name).strip()[:_LONGEST_NAME].strip()
    return printable.ljust(SHORTEST_NAME, "_")


def save_dir(run: Run) -> str:
    """Where it was trained, as args.yaml states; not where it lies now, for every copy is the same run."""
    return sendable(str(run.args.get("save_dir") or run.path.name))
