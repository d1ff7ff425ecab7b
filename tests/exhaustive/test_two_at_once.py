"""Two at work on one run at the same time, each interleaving forced: one task, one model, each event once.

The one is held at its n-th request, for every n, while the other runs to its end; then it goes on.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_AND_EVERY, Doubles, long_after, numbers
from double import ClearMLDouble
from killing import hidden
from live import expected, report_live
from test_kill import Case, nothing, redraw, told, told_and_changed, told_and_lost
from test_watch import comparable
from timelines import Clock, Watch, looks, put
from uploading import end_state as whole_state
from uploading import fails
from uploading import upload as upload_soon

from yolo_clearml.errors import OurFault, RunBusy
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, UpToDate
from yolo_clearml.sync.work import Aim

pytestmark = pytest.mark.usefixtures("told_at_once")
_LONG = 60  # seconds; no test waits so long, but for one that fails
upload = partial(upload_soon, timeout=_LONG)  # one is held for as long as the other takes


def end_state(server: ClearMLDouble) -> dict[str, Any]:
    """Everything on the server; of the console what it says, without how often and of how much.

    Both may look for a line at the same moment, and then both say it: ClearML has no means against that.
    """
    state = whole_state(server)
    for task in state["tasks"].values():
        task["log"] = {event["msg"].split(": ")[0] for event in task["log"]}
    return state


def beside(
    double: ClearMLDouble,
    number: int,
    one: Callable[[], list[Outcome]],
    other: Callable[[], list[Outcome]],
) -> tuple[list[Outcome], list[Outcome]] | None:
    """Do ``one``; before its ``number``-th request is carried out, it waits for the whole of ``other``.

    Gives the outcomes of both; None where it has come to its end with fewer requests. After the request would
    be the same as before the next one: nothing that both can see lies between the two.
    """
    first = len(double.requests) + number
    reached, go_on = threading.Event(), threading.Event()
    outcomes: list[list[Outcome]] = []

    def hold(endpoint: str, count: int) -> None:
        if count == first:
            reached.set()
            assert go_on.wait(_LONG)

    def do_one() -> None:
        try:
            outcomes.append(one())
        finally:
            reached.set()

    double.before_request = hold
    thread = threading.Thread(target=do_one)
    thread.start()
    try:
        assert reached.wait(_LONG)
        held = len(double.requests) >= first
        others = other() if held else []
    finally:
        go_on.set()
        thread.join(_LONG)
        double.before_request = None
    return (outcomes[0], others) if held else None


def reported_live(double: ClearMLDouble, run: Path) -> None:
    """Let the callback report it, which loses the plots and the model."""
    story = expected("v8.4.190-detect.expected")
    story["output_model"], story["plots"] = [], []
    story["images"] = [image for image in story["images"] if image[1:3] == ["train.jpg", 0]]
    report_live(double, story, run)


COMMANDS = {
    "upload": Case(nothing, 15),
    "of what changed": Case(told_and_changed, 7),
    "--force": Case(told_and_lost, 8, {"force": True}),
    "adoption": Case(reported_live, 15),
}


@FEW_AND_EVERY
@pytest.mark.parametrize("name", COMMANDS)
def test_two_uploads_of_copies(
    server: ClearMLDouble, doubles: Doubles, small_run: Path, tmp_path: Path, name: str, every: bool
) -> None:
    """On two machines, with no lock between them: the server ends as after one of them."""
    case = COMMANDS[name]
    kept, copy = tmp_path / "kept", tmp_path / "copy"
    shutil.copytree(small_run, kept)
    case.prepare(server, small_run)
    assert [] == fails(upload([small_run], **case.options))
    wanted = end_state(server)
    for number in numbers(every, 2, 5, 7, case.requests):
        for path in (small_run, copy):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(kept, small_run)
        with doubles() as double:
            case.prepare(double, small_run)
            shutil.copytree(small_run, copy)
            both = beside(
                double,
                number,
                lambda: upload([small_run], **case.options),
                lambda: upload([copy], **case.options),
            )
            held = both is not None
            assert [] == [sentence for outcomes in both or () for sentence in fails(outcomes)], number
            assert wanted == end_state(double), number
            assert 1 == len(double.tasks) == len(double.models)
            count = len(double.requests)
            if held:
                again = upload([small_run, copy])
                assert ([UpToDate, UpToDate], count) == ([type(o) for o in again], len(double.requests)), (
                    number
                )
                assert [[LEDGER_NAME]] * 2 == [hidden(small_run), hidden(copy)]
        if not held:
            break
    assert number >= case.requests


@FEW_AND_EVERY
@pytest.mark.parametrize("other", ["upload", "watch", "verify"])
def test_beside_an_upload_of_the_same_directory(
    server: ClearMLDouble, doubles: Doubles, small_run: Path, other: str, every: bool
) -> None:
    """Another upload and a watch say that it is busy and ask nothing; verify changes nothing."""
    told(server, small_run)
    wanted = end_state(server)
    (small_run / LEDGER_NAME).unlink()
    for number in numbers(every, 3, 11):
        with doubles() as double:
            watch = Watch(Clock(long_after()), timeout=_LONG)
            others = {
                "upload": lambda: upload([small_run]),
                "watch": lambda: watch.see(small_run),  # noqa: B023  called in this turn
                "verify": lambda: upload([small_run], aim=Aim.VERIFY),
            }
            both = beside(double, number, lambda: upload([small_run]), others[other])
            held = both is not None
            if both is not None:
                ((delivered,), (beside_it,)) = both
                assert isinstance(delivered, Delivered), number
                if other == "verify":
                    assert isinstance(beside_it, UpToDate), number
                else:
                    assert isinstance(beside_it, Failed)
                    assert isinstance(beside_it.error, RunBusy)
            assert wanted == end_state(double), number
            ledger = FileLedgers().load(small_run)
            assert (True, None) == (ledger.settled is not None, ledger.verified)
            if both is not None and other == "watch":
                assert [UpToDate] == [type(outcome) for outcome in watch.outcomes(60)]
            (small_run / LEDGER_NAME).unlink()
        if not held:
            break
    assert number > (14 if every else 10)


@FEW_AND_EVERY
def test_an_upload_beside_verify(
    server: ClearMLDouble, doubles: Doubles, small_run: Path, tmp_path: Path, every: bool
) -> None:
    """What changes while it is read back is never said to be verified."""
    kept = tmp_path / "kept"
    shutil.copytree(small_run, kept)
    for number in numbers(every, 2, 6, 8):
        shutil.rmtree(small_run)
        shutil.copytree(kept, small_run)
        with doubles() as double:
            told(double, small_run)

            def change() -> list[Outcome]:
                redraw(small_run)
                return upload([small_run])

            both = beside(double, number, lambda: upload([small_run], aim=Aim.VERIFY), change)
            held = both is not None
            ledger = FileLedgers().load(small_run)
            if both is None:
                assert ledger.settled == ledger.verified
            else:
                assert [Delivered] == [type(outcome) for outcome in both[1]], number
                assert not any(isinstance(o, Failed) and isinstance(o.error, OurFault) for o in both[0])
                assert ledger.verified != ledger.settled, number
        if not held:
            break
    assert number >= 8


class Growing:
    """A copy of a run that grows, part by part, under a watch of its own."""

    def __init__(self, run: Path) -> None:
        self.run, self.parts, self._clock = run, 0, Clock(0.0)
        self._watch = Watch(self._clock, timeout=_LONG)

    def grow(self, to: int) -> list[Outcome]:
        """Let it grow to so many parts."""
        outcomes: list[Outcome] = []
        for part in looks("v8.4.190-detect")[self.parts : to]:
            self.parts += 1
            for step in part:
                put(step, self.run)
                self._clock.reach(step.at)
            outcomes += self._watch.see(self.run)
        return outcomes


@FEW_AND_EVERY
@pytest.mark.parametrize("pace", ["ahead", "level"])
def test_two_watches_of_copies_that_grow(
    server: ClearMLDouble, doubles: Doubles, tmp_path: Path, pace: str, every: bool
) -> None:
    """On two machines; one is held at each request of a whole training, while the other sees as much.

    What lags behind does not undo what is there, once it has caught up.
    """
    whole = len(looks("v8.4.190-detect"))
    wanted = None
    for number in numbers(every, 4, 20):
        with doubles() as double:
            one, other = (Growing(tmp_path / f"{number}" / name) for name in ("one", "other"))
            both = beside(
                double,
                number,
                lambda one=one: one.grow(whole),  # type: ignore[misc]
                lambda one=one, other=other: other.grow(whole if pace == "ahead" else one.parts),  # type: ignore[misc]
            )
            held = both is not None
            assert [] == [sentence for outcomes in both or () for sentence in fails(outcomes)], number
            assert [] == fails(other.grow(whole))
            wanted = wanted or comparable(double)
            assert wanted == comparable(double), number
            assert (1, 1) == (len(double.tasks), len(double.models))
            count = len(double.requests)
            again = upload([one.run, other.run], now=Clock(looks("v8.4.190-detect")[-1][-1].at))
            assert ([UpToDate, UpToDate], count) == ([type(o) for o in again], len(double.requests)), number
        if not held:
            break
    assert number >= 20
