"""What a task holds against a plan, without a server: three findings, and the words for each difference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from yolo_clearml.events import (
    DrawnPlot,
    Event,
    FileStamp,
    Hyperparameters,
    Image,
    OutputModel,
    Parameter,
    Plan,
    Plot,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
)
from yolo_clearml.server.compare import (
    Absent,
    Content,
    Contradicts,
    Finding,
    HeldModel,
    Holds,
    Present,
    check,
    content_of,
    extra,
    verdict,
)
from yolo_clearml.sync.verdict import Difference, Extra, Kind, no_task

NOTHING = Holds("t", "created", "p", "i", "n", (), {}, {}, {}, {}, {}, ())
PNG = b"\x89PNG\r\n\x1a\n....IEND\xaeB`\x82"


@dataclass
class Shelf:
    """Files of both sides, by name and by address."""

    ours: Mapping[str, bytes] = field(default_factory=dict)
    theirs: Mapping[str, bytes] = field(default_factory=dict)

    def here(self, stamp: FileStamp) -> Content:
        return content_of([self.ours[stamp.name]], stamp.size)

    def there(self, url: str, most: int) -> Content | None:
        return content_of([self.theirs[url]], most) if url in self.theirs else None


def stamp(name: str, content: bytes) -> FileStamp:
    return FileStamp(name, len(content), 0)


def finding(event: Event, holds: Holds, shelf: Shelf | None = None) -> Finding:
    (checked,) = check(Report("r", (event,)), holds, shelf or Shelf())
    assert event is checked.event
    return checked.finding


def texts(found: Finding) -> list[str]:
    return [] if isinstance(found, Present) else [str(difference) for difference in found.differences]


POINT = Scalar("train", "train/loss", 0.1, 3, 0)
IMAGE = Image("Mosaic", "train.jpg", 0, stamp("a.jpg", b"abc"), 0)
PLOT = Plot("results", 4, stamp("results.png", PNG), 0)
DRAWN = DrawnPlot("results", 0, "results.png", (), (), (), 0)
MODEL = OutputModel("exp", stamp("weights/best.pt", b"weights"), {"cat": 0, "dog": 1}, 4)
ARGS = Hyperparameters("General", {"a": Parameter("1", "int"), "b": Parameter("", None)})
FACTS = Properties({"trained_from": "then", "release": "8"})
HELD = HeldModel("exp", "u", {"cat": 0, "dog": 1}, "best")
EVENTS: list[Event] = [POINT, SingleValue("mAP", 0.1, 0), IMAGE, PLOT, DRAWN, MODEL, ARGS, FACTS]
SHELF = Shelf(
    {"a.jpg": b"abc", "results.png": PNG, "weights/best.pt": b"weights"},
    {"a": b"abc", "p": PNG, "d": PNG, "u": b"weights"},
)
ALL = Holds(
    task_id="t",
    status="completed",
    project="p",
    project_id="i",
    name="n",
    tags=(),
    parameters={
        ("General", "a"): Parameter("1", "int"),
        ("General", "b"): Parameter("", ""),
        ("properties", "trained_from"): Parameter("another time", "str"),
        ("properties", "release"): Parameter("8", "str"),
    },
    scalars={("train", "train/loss"): {3: 0.1}},
    single_values={"mAP": 0.1},
    images={("Mosaic", "train.jpg", 0): ("a",)},
    plots={("results", "plot image", 4): ("p",), ("results", "plot image", 0): ("d",)},
    models=(HELD,),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_there_is_present_and_what_is_not_is_absent(event: Event) -> None:
    """Every kind of event, in a task that holds all and in one that holds nothing."""
    assert isinstance(finding(event, ALL, SHELF), Present)
    absent = finding(event, NOTHING, SHELF)
    assert isinstance(absent, Absent)
    assert absent.differences
    assert all(text.endswith(": not in ClearML") for text in texts(absent))


@pytest.mark.parametrize(
    ("state", "status", "right"),
    [
        (RunState.FINISHED, "completed", True),
        (RunState.FINISHED, "published", True),
        (RunState.FINISHED, "publishing", True),
        (RunState.FINISHED, "stopped", False),
        (RunState.FINISHED, "in_progress", False),
        (RunState.STOPPED, "stopped", True),
        (RunState.STOPPED, "published", True),
        (RunState.STOPPED, "completed", False),
        (RunState.LIVE, "in_progress", True),
        (RunState.LIVE, "completed", False),
        (RunState.LIVE, "created", False),
    ],
)
def test_statuses(state: RunState, status: str, right: bool) -> None:
    """The task of a run that ended may have been published; nothing else may differ."""
    assert right is isinstance(finding(Status(state), replace(NOTHING, status=status)), Present)


@pytest.mark.parametrize("there", [0.1 + 2**-56, 0.10000000149011612, -0.1, math.nan, math.inf, 0.0])
def test_a_value_is_the_same_to_the_last_bit(there: float) -> None:
    """A 32-bit float of it is another value."""
    holds = replace(ALL, scalars={("train", "train/loss"): {3: there}})
    found = finding(POINT, holds)
    assert isinstance(found, Contradicts)
    assert [f"scalar train / train/loss at iteration 3: 0.1 here, {there!r} in ClearML"] == texts(found)


def test_another_measure_of_sameness() -> None:
    """What a live training reported is compared with what its results.csv keeps of it."""
    holds = replace(ALL, scalars={("train", "train/loss"): {3: 0.1000004}})
    report = Report("r", (POINT,))
    (close,) = check(report, holds, Shelf(), lambda here, there: here == float(f"{there:.5g}"))
    assert Present(1) == close.finding


def test_an_event_in_part_contradicts() -> None:
    """One parameter of two is there: not absent, and the other one is named."""
    holds = replace(NOTHING, parameters={("General", "a"): Parameter("1", "int")})
    found = finding(ARGS, holds)
    assert isinstance(found, Contradicts)
    assert (1, ["hyperparameter General / b: not in ClearML"]) == (found.facts, texts(found))


@pytest.mark.parametrize(
    ("theirs", "there"),
    [
        (b"abd", "another file of 3 bytes"),
        (b"ab", "a file of 2 bytes"),
        (b"", "a file of 0 bytes"),
        (b"abcd", "a file of at least 4 bytes"),
        (None, "a dead link"),
    ],
)
def test_files_are_the_same_byte_for_byte(theirs: bytes | None, there: str) -> None:
    """Size and digest; and a link that leads nowhere is no absence."""
    shelf = Shelf(SHELF.ours, {} if theirs is None else {"a": theirs})
    found = finding(IMAGE, ALL, shelf)
    assert isinstance(found, Contradicts)
    assert [f"image Mosaic / train.jpg at iteration 0: a file of 3 bytes here, {there} in ClearML"] == texts(
        found
    )


@pytest.mark.parametrize("theirs", [PNG[:-1], PNG[1:], b"", PNG[:8], b"\xff\xd8\xff...\xff\xd9", PNG + b" "])
def test_a_drawn_figure_must_be_whole(theirs: bytes) -> None:
    """A PNG from its first byte to its last."""
    found = finding(DRAWN, ALL, Shelf({}, {"d": theirs}))
    assert [
        f"plot results at iteration 0: a figure here, a broken file of {len(theirs)} bytes in ClearML"
    ] == texts(found)
    assert Present(1) == finding(DRAWN, ALL, Shelf({}, {"d": PNG[:8] + b"other" + PNG[8:]}))


def test_one_of_several_pictures_will_do() -> None:
    """Under other keys there may be more at one place."""
    place = ("Mosaic", "train.jpg", 0)
    shelf = Shelf(SHELF.ours, {"x": b"xyz", "a": b"abc"})
    assert Present(1) == finding(IMAGE, replace(ALL, images={place: ("gone", "x", "a")}), shelf)
    assert isinstance(finding(IMAGE, replace(ALL, images={place: ("gone", "x")}), shelf), Contradicts)
    assert isinstance(finding(IMAGE, replace(ALL, images={place: ()}), shelf), Contradicts)


@pytest.mark.parametrize(
    ("held", "sentences"),
    [
        (replace(HELD, name="other"), ["model exp / name: 'exp' here, 'other' in ClearML"]),
        (replace(HELD, link="epoch1"), []),
        (
            replace(HELD, link=None),
            ["model exp: shown by the task here, a model that its task does not show in ClearML"],
        ),
        (replace(HELD, uri="gone"), ["model exp: a file of 7 bytes here, a dead link in ClearML"]),
        (replace(HELD, labels={"cat": 0}), ["model exp / label 'dog': 1 here, no label in ClearML"]),
        (
            replace(HELD, labels={"cat": 1, "dog": 1, "cow": 2}),
            [
                "model exp / label 'cat': 0 here, 1 in ClearML",
                "model exp / label 'cow': no label here, 2 in ClearML",
            ],
        ),
        (replace(HELD, name="other", link="other"), ["model exp: not in ClearML"]),
    ],
)
def test_models(held: HeldModel, sentences: list[str]) -> None:
    """Recognised by the name of the link, else by its own."""
    assert sentences == texts(finding(MODEL, replace(ALL, models=(held,)), SHELF))


def test_long_values_are_cut_in_sentences_only() -> None:
    """A person wants a line; whoever compares further has the whole."""
    here = Hyperparameters("General", {"names": Parameter("x" * 1000, "str")})
    found = finding(here, NOTHING)
    assert isinstance(found, Absent)
    (difference,) = found.differences
    assert len(difference.here) > 1000
    cut = replace(difference, there="y" * 1000)
    assert len(str(cut)) < 250


def plan_of(*events: Event) -> Plan:
    return Plan("k", "p", "n", (), ("p", "n"), "", (Report("r", events),), (), ())


def test_what_is_beyond_the_plan_is_counted() -> None:
    """Of each series, not of each point; what the plan speaks of is not."""
    assert () == extra(plan_of(*EVENTS), ALL)
    assert {
        Extra(Kind.SCALAR, "train", "train/loss", 1),
        Extra(Kind.SINGLE_VALUE, "mAP", None, 1),
        Extra(Kind.IMAGE, "Mosaic", "train.jpg", 1),
        Extra(Kind.PLOT, "results", "plot image", 2),
        Extra(Kind.HYPERPARAMETER, "General", "a", 1),
        Extra(Kind.HYPERPARAMETER, "General", "b", 1),
        Extra(Kind.PROPERTY, "properties", "trained_from", 1),
        Extra(Kind.PROPERTY, "properties", "release", 1),
        Extra(Kind.MODEL, "exp", None, 1),
    } == set(extra(plan_of(), ALL))
    more = replace(ALL, scalars={("train", "train/loss"): {2: 1.0, 3: 0.1, 4: 1.0}})
    assert (Extra(Kind.SCALAR, "train", "train/loss", 2),) == extra(plan_of(*EVENTS), more)


def test_a_verdict_sums_up() -> None:
    """Facts that are equal, differences in the plan's order."""
    plan = plan_of(*EVENTS)
    parameters = {**ALL.parameters, ("General", "a"): Parameter("2", "int")}
    holds = replace(ALL, parameters=parameters, single_values={}, images={})
    summed = verdict(plan, holds, "http://task", check(plan.reports[0], holds, SHELF))
    # point, two plots, file, link, name and labels of the model, one parameter, two properties
    assert (1 + 2 + 5 + 1 + 2, "t", "http://task") == (summed.facts, summed.task_id, summed.url)
    assert [Kind.SINGLE_VALUE, Kind.IMAGE, Kind.HYPERPARAMETER] == [d.kind for d in summed.differences]


def test_no_task() -> None:
    """That alone is the difference."""
    assert (Difference(Kind.TASK, "", None, None, "a run", None),) == no_task(None).differences
    assert ["task abc: not in ClearML"] == [str(each) for each in no_task("abc").differences]


def test_contents_do_not_depend_on_how_they_come() -> None:
    """In one piece or byte by byte: the same size, digest and ends."""
    content = bytes(range(100))
    whole = content_of([content], 100)
    assert whole == content_of([bytes([b]) for b in content], 100) == content_of([b"", content, b""], 100)
    assert Content(100, hashlib.sha256(content).hexdigest(), content[:8], content[-8:]) == whole
    assert Content(0, hashlib.sha256().hexdigest(), b"", b"") == content_of([], 0)
    assert content_of(iter([content, b"x", b"never"]), 100).size == 101
