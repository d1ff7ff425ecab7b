"""The project and the name of a run's task, as the callback and ClearML would have them. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TypeAlias

from ..rundir.run import Run
from .draft import Draft, sendable
from .eras import Era
from .placeholders import Template, filled

SHORTEST_NAME = 3  # characters; ClearML refuses shorter projects, tasks and models
_DEEPEST_PROJECT = 10  # levels; ClearML refuses deeper ones
_LONGEST_NAME = 256  # characters


Wish: TypeAlias = "Template | str | None"  # what is asked for; None: the run's own


def task_names(
    run: Run, era: Era, asked: tuple[Wish, Wish], draft: Draft
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Give the task's project and name, ``asked`` for or else the run's own, and these own ones."""
    project, name = _stated_project(run, era), _stated_name(run, era)
    parts = _project_parts(project or "")
    own = ("/".join(parts[-_DEEPEST_PROJECT:]) or era.project, _acceptable(name))
    for what, stated, is_now, accepted, wish in (
        ("project", project, "in", own[0], asked[0]),
        ("name", name, "called", own[1], asked[1]),
    ):
        if wish is None and stated is not None and stated != accepted:
            draft.notes.append(
                f"ClearML refuses the {what} {stated!r}; the task is {is_now} {accepted!r}, --{what} chooses."
            )
    project_asked, name_asked = asked
    if isinstance(project_asked, Template):
        project_asked = _project_of(filled(project_asked, run, own, True, draft), draft)
    if isinstance(name_asked, Template):
        name_asked = _name_of(filled(name_asked, run, own, False, draft), draft)
    return (project_asked or own[0], name_asked or own[1]), own


def _project_of(text: str, draft: Draft) -> str:
    """Make a project ClearML takes of what placeholders gave; what they name at its end is not lost."""
    parts = _project_parts(text)
    if len(parts) > _DEEPEST_PROJECT:
        parts = [*parts[: _DEEPEST_PROJECT - 1], _acceptable("_".join(parts[_DEEPEST_PROJECT - 1 :]))]
    project = "/".join(parts)
    if project != "/".join(part.strip() for part in text.split("/")):
        draft.notes.append(
            f"ClearML refuses the project {text!r} that --project gives, so it is {project!r}."
        )
    return project


def _name_of(text: str, draft: Draft) -> str:
    name = _acceptable(text)
    if name != text.strip():
        draft.notes.append(f"ClearML refuses the name {text!r} that --name gives, so it is {name!r}.")
    return name


def _project_parts(project: str) -> list[str]:
    return [_acceptable(part) for part in project.split("/") if part not in ("", ".", "..")]


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
