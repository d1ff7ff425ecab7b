"""The project and name of a run's task: those it was made with, or those it is to be moved to."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UsageError
from ..events import Plan
from ..replay.rules import Wishes
from .ledger import Ledger
from .outcomes import Facts
from .sinks import Delivery, Mover
from .work import Work


def as_made(planned: Plan, ledger: Ledger, work: Work) -> tuple[Plan, tuple[str, ...]]:
    """A task keeps the project, name and tags it was made with; a note where others are wished for.

    But for the project and name that it is to be moved to.
    """
    made, wishes = Facts.restored(ledger.facts), work.wishes
    if ledger.run != planned.key or ledger.task is None or made.project is None or made.name is None:
        return planned, ()
    kept = replace(planned, project=made.project, name=made.name, tags=made.tags)
    if work.move:
        project = made.project if wishes.project is None else planned.project
        return replace(kept, project=project, name=made.name if wishes.name is None else planned.name), ()
    if kept == planned or wishes == Wishes(rules=wishes.rules):
        return kept, ()
    return kept, (_left_there(made.project, made.name),)


def _left_there(project: str | None, name: str) -> str:
    return (
        f"ClearML holds this run already, as {name!r} in {project!r}, and it is left there:"
        " --project, --name and --tags are for a task that is made. 'upload --move' gives it another project"
        " or name, --new makes another."
    )


def as_found(delivery: Delivery, facts: Facts, work: Work) -> tuple[Facts, str | None]:
    """Give the facts with the project and name of a task that no ledger knew; a note where others are wished.

    As that of a copy of the run, or of a run whose ledger was deleted.
    """
    wishes = work.wishes
    if work.task_id is not None or (wishes.project is None and wishes.name is None):
        return facts, None
    found = delivery.found_in()
    if found is None or found == (facts.project, facts.name):
        return facts, None
    return replace(facts, project=found[0], name=found[1]), _left_there(*found)


def put_in_place(planned: Plan, ledger: Ledger, facts: Facts, work: Work) -> tuple[Ledger, str | None]:
    """Move the task of a run, if there is one, to the project and name that are wished for.

    Gives the ledger that follows, in which a task that is not in ClearML any more is forgotten, and what was
    done, in a sentence; None where it was there already. Raises a YoloClearmlError.
    """
    sink, wishes = work.sink(), work.wishes
    if not isinstance(sink, Mover):
        raise UsageError("There is no task here that could be moved.", "Leave --move out.")
    wanted = (
        None if wishes.project is None else planned.project,
        None if wishes.name is None else planned.name,
    )
    made = Facts.restored(ledger.facts)
    known = None if made.project is None or made.name is None else (made.project, made.name)
    moved = sink.move(planned, wanted, known, ledger.task, ledger.copy)
    text = moved.text if moved is not None else None
    if ledger.task is None:  # it is remembered when it is reported to
        return ledger, text
    if moved is None or moved.task_id != ledger.task:
        return Ledger(server=ledger.server, run=ledger.run, configured=ledger.configured), text
    return replace(ledger, url=moved.url, facts=facts.stored()), text
