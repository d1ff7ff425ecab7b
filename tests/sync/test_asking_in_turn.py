"""While ClearML is away, it is another run each time that asks for all."""

from __future__ import annotations

from pathlib import Path

from test_agenda import Time, _asking, away, taken, when_due


def test_who_asked_in_vain_asks_again_after_all_others() -> None:
    """It may be that run alone that ClearML does not answer."""
    time = Time()
    agenda = time.agenda()
    runs = [Path(f"run{number}") for number in range(3)]
    for run in runs:
        agenda.notice(run)
    for run in taken(agenda):
        agenda.settle(away(run))
    asked = []
    for _ in range(2 * len(runs)):
        when_due(agenda, time)
        asked.append(_asking(agenda))
        agenda.settle(away(asked[-1]))
    assert runs * 2 == asked
