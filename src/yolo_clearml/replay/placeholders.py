"""Names with placeholders, such as ``--project Team/{parent}``, and what each stands for in a run. Pure.

    Team/{task}/{parent} --template--> Template --filled, for each run--> Team/detect/lens-3

A placeholder is a plain word: no attribute, index, conversion or format, for what fills it comes from a
directory that nobody vouches for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from string import Formatter

from ..rundir.dating import Dated
from ..rundir.run import Run
from .draft import Draft, sendable

UNKNOWN = "unknown"  # stands for what a run does not state
_SEVERAL_LEVELS = ("project", "path")  # a slash in another value makes no project of its own
# of files that arguments name; a version in a name, as in "yolov8.1", is no ending
_ENDING = re.compile(r"\.(pt|pth|torchscript|onnx|engine|ya?ml|json|ndjson|zip|tar|tgz|gz)$", re.IGNORECASE)


class NoTemplate(Exception):
    """What a name holds in braces is no placeholder: what is wrong, and in ``hint`` what helps."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Template:
    """A name with placeholders, taken apart."""

    parts: tuple[tuple[str, str | None], ...]  # plain text, and the placeholder behind it
    roots: tuple[str, ...] = ()  # absolute folders that ``path`` is told from, where it is asked for


def template(text: str, roots: Sequence[Path] = ()) -> Template | str:
    """Take a name apart; one without placeholders is given as it is, but for doubled braces.

    Raises NoTemplate.
    """
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as cause:
        raise NoTemplate(f"has a brace that stands alone: {text!r}.", _HINT) from cause
    for _, name, form, conversion in parsed:
        if name is not None and name not in VALUES:
            raise NoTemplate(f"has no placeholder {{{name}}}: {text!r}.", _HINT)
        if form or conversion:
            raise NoTemplate(f"has more than a name in the braces of {{{name}}}: {text!r}.", _HINT)
    parts = tuple((plain, name) for plain, name, _, _ in parsed)
    names = {name for _, name in parts if name is not None}
    if not names:
        return "".join(plain for plain, _ in parts)
    return Template(parts, tuple(str(_absolute(root)) for root in roots) if "path" in names else ())


def filled(asked: Template, run: Run, own: tuple[str, str], levels: bool, draft: Draft) -> str:
    """Put a run's values in the place of the placeholders; a note names what it does not state.

    ``own`` are the project and name that the run itself asks for; with ``levels``, a slash parts projects.
    """

    def texts() -> Iterator[str]:
        for plain, name in asked.parts:
            yield plain
            if name is None:
                continue
            value = VALUES[name](run, own, asked.roots)
            if value is None:
                note = f"The run does not state what {{{name}}} stands for: {UNKNOWN!r} is in its place."
                if note not in draft.notes:  # it may be asked for twice
                    draft.notes.append(note)
            text = UNKNOWN if value is None else value
            yield text.replace("/", "_") if levels and name not in _SEVERAL_LEVELS else text

    return "".join(texts())


# -- what a run states ------------------------------------------------------------------------------------


def stated_task(run: Run) -> str | None:
    """Give the task that was trained for, as detect; None where no argument states it, as in YOLOv5."""
    return _text(run.args.get("task"))


def stated_model(run: Run) -> str | None:
    """Give what the training began with, without folder and ending: yolo11n of /weights/yolo11n.pt."""
    if run.yolov5:  # begins with weights, or else with a network's description
        return _stem(run.args.get("weights")) or _stem(run.args.get("cfg"))
    return _stem(run.args.get("model"))


def stated_data(run: Run) -> str | None:
    """Give the data set, without folder and ending: coco8 of /datasets/coco8.yaml."""
    return _stem(run.args.get("data"))


def _date(run: Run) -> str | None:
    """Give the day the training began in UTC, as the user property ``trained_from`` does."""
    if run.dated is Dated.NOTHING:
        return None
    return datetime.fromtimestamp(run.times.began / 1000, timezone.utc).date().isoformat()


def _epochs(run: Run) -> str | None:
    asked = run.args.get("epochs")
    return str(asked) if type(asked) is int else None


def _parent(run: Run) -> str | None:
    return _text(_absolute(run.path).parent.name)


def _path(run: Run, roots: Sequence[str]) -> str | None:
    """Give the path below the first root that holds the run; of one that is given itself, its own name."""
    place = _absolute(run.path)
    root = next((root for root in map(Path, roots) if root in place.parents), place.parent)
    return _text(place.relative_to(root).as_posix())


def _absolute(path: Path) -> Path:
    """Write a path from the root on, without where its links lead: what a person sees is what they gave."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _stem(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    address = value.replace("\\", "/")
    if "://" in address:  # what follows may be a key
        address = re.split(r"[?#]", address, maxsplit=1)[0]
    name = address.rstrip("/").rpartition("/")[2].strip()
    while (ending := _ENDING.search(name)) is not None and ending.start():
        name = name[: ending.start()]
    return _text(name)


def _text(value: object) -> str | None:
    return (sendable(value).strip() or None) if isinstance(value, str) else None


VALUES: dict[str, Callable[[Run, tuple[str, str], Sequence[str]], str | None]] = {
    "project": lambda run, own, roots: own[0],
    "name": lambda run, own, roots: own[1],
    "parent": lambda run, own, roots: _parent(run),
    "path": lambda run, own, roots: _path(run, roots),
    "task": lambda run, own, roots: stated_task(run),
    "model": lambda run, own, roots: stated_model(run),
    "data": lambda run, own, roots: stated_data(run),
    "date": lambda run, own, roots: _date(run),
    "epochs": lambda run, own, roots: _epochs(run),
}
_HINT = (
    f"There are {', '.join(f'{{{name}}}' for name in VALUES)}; a brace itself is written twice: {{{{ or }}}}."
)
