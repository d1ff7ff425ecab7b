"""What a person has chosen to report of a run, and how the ledger remembers it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UsageError
from ..events import ModelFile, Part, Plan
from ..rundir.choice import NO_FILE, FileChoice
from ..rundir.further import Further
from ..rundir.release import Release
from ..rundir.run import Run
from .models import with_artifacts, with_models
from .validations import with_validations

_Choice = TypeVar("_Choice", Part, ModelFile)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is reported of a run, beside what always is; by default what the callback reports."""

    without: frozenset[Part] = frozenset()
    models: frozenset[ModelFile] | None = None  # None: best.pt, of a training that has finished
    artifacts: FileChoice = NO_FILE
    # real paths of what `yolo val` left; not for the ledger, which anybody may have put into a directory, and
    # which would then name what else of this machine is read
    validations: tuple[Path, ...] = ()

    def stored(self) -> dict[str, Any]:
        """Give it as JSON can hold it, for the ledger; nothing where all is as by default."""
        without = {"without": in_words(self.without)} if self.without else {}
        models = {"models": in_words(self.models)} if self.models is not None else {}
        patterns = self.artifacts.patterns
        return without | models | ({"artifacts": list(patterns)} if patterns else {})

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Wanted:
        """Read what `stored` gave; what does not fit counts as not chosen."""
        without, models = _known(Part, stored.get("without")), _known(ModelFile, stored.get("models"))
        try:
            artifacts = FileChoice(tuple(map(str, stored.get("artifacts", ()))))
        except (UsageError, TypeError):
            artifacts = NO_FILE
        return cls(without, models if "models" in stored else None, artifacts)

    def further(self, follow: tuple[Path, ...]) -> Further:
        """Give which files it takes beyond those that every run is read with; links as `scan` has it."""
        return Further(self.models or frozenset(), follow, self.artifacts, self.validations)

    def chosen(self, planned: Plan, run: Run, rules: Release | None) -> Plan:
        """Give the plan of a run with what is wanted; ``rules`` are those it was planned by."""
        whole = with_artifacts(with_models(planned, run, rules, self.models), run, self.artifacts)
        whole = with_validations(whole, run, [folder.name for folder in self.validations])
        return replace(whole, unwanted=self.without)


def _known(of: type[_Choice], stored: object) -> frozenset[_Choice]:
    names = stored if isinstance(stored, list) else ()
    return frozenset(each for each in of if each.value in names)


def in_words(chosen: Collection[_Choice]) -> list[str]:
    """Give the names of what was chosen, in the order of its list."""
    return [each.value for kind in {type(each) for each in chosen} for each in kind if each in chosen]


def named(option: str, of: type[_Choice], names: Iterable[str] | None) -> frozenset[_Choice] | None:
    """Read the value of an option, with commas or repeated; None where it is not given.

    Raises UsageError for what is none ``of`` a list.
    """
    if names is None:
        return None
    asked = [name.strip() for text in names for name in text.split(",")]
    known = [each.value for each in of]
    for name in asked:
        if name not in known:
            raise UsageError(
                f"{option} does not know {name!r}.",
                f"It takes {', '.join(known)}; several with commas between.",
            )
    return frozenset(map(of, asked))
