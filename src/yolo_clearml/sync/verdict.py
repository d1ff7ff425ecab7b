"""What reading a task back and holding it against the disk has shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_LONGEST_TEXT = 80  # characters of a value in a sentence


class Kind(Enum):
    """What can differ."""

    TASK = "task"
    STATUS = "status"
    HYPERPARAMETER = "hyperparameter"
    PROPERTY = "property"
    SCALAR = "scalar"
    SINGLE_VALUE = "single value"
    IMAGE = "image"
    PLOT = "plot"
    MODEL = "model"
    ARTIFACT = "artifact"
    CHILD = "training"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that ClearML does not hold as the disk does; ``str()`` is a phrase for a person."""

    kind: Kind
    title: str
    series: str | None
    iteration: int | None
    here: str
    there: str | None  # None: nothing

    def __str__(self) -> str:
        names = " / ".join(filter(None, (self.title, self.series)))
        where = f"{self.kind.value} {names}".strip()
        if self.iteration is not None:
            where += f" at iteration {self.iteration}"
        if self.there is None:
            return f"{where}: not in ClearML"
        return f"{where}: {_short(self.here)} here, {_short(self.there)} in ClearML"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


@dataclass(frozen=True, slots=True)
class Extra:
    """What a task holds beyond the plan, such as what only a live training knows; ``str()`` names it."""

    kind: Kind
    title: str
    series: str | None
    count: int  # points, pictures, ...

    def __str__(self) -> str:
        names = " / ".join(filter(None, (self.title, self.series)))
        return f"{self.kind.value} {names}" + (f" ({self.count} times)" if self.count > 1 else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of reading a task back."""

    task_id: str | None  # None: there is no task
    url: str | None  # where a person sees the task; None where nobody can
    facts: int  # values and files that ClearML holds as the disk does
    differences: tuple[Difference, ...]  # in the plan's order
    extra: tuple[Extra, ...]
    closed: str | None = None  # why the differences cannot be mended, and what to do; None: they can be
    unsent: bool = False  # some of it was never sent: a plain upload sends that


def no_task(task_id: str | None) -> Verdict:
    """Give the verdict where there is no task, or no longer the one of this id."""
    return Verdict(None, None, 0, (Difference(Kind.TASK, task_id or "", None, None, "a run", None),), ())
