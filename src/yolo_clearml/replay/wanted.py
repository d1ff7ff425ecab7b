"""What a person has chosen to report of a run, and how the ledger remembers it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..events import Part


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is reported of a run, beside what always is; by default what the callback reports."""

    without: frozenset[Part] = frozenset()

    def stored(self) -> dict[str, Any]:
        """Give it as JSON can hold it, for the ledger; nothing where all is as by default."""
        return {"without": in_words(self.without)} if self.without else {}

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Wanted:
        """Read what `stored` gave; what does not fit counts as not chosen."""
        without = stored.get("without")
        names = without if isinstance(without, list) else ()
        return cls(frozenset(part for part in Part if part.value in names))


def in_words(parts: Iterable[Part]) -> list[str]:
    """Give the names of parts, in the order of their list."""
    there = frozenset(parts)
    return [part.value for part in Part if part in there]


def parts_named(option: str, names: Iterable[str] | None) -> frozenset[Part] | None:
    """Read the value of an option, with commas or repeated; None where it is not given.

    Raises UsageError for what names no part.
    """
    if names is None:
        return None
    asked = [name.strip() for text in names for name in text.split(",")]
    known = [part.value for part in Part]
    for name in asked:
        if name not in known:
            raise UsageError(
                f"{option} {name!r} is no kind of thing that is sent.",
                f"The kinds are {', '.join(known)}; several with commas between.",
            )
    return frozenset(map(Part, asked))
