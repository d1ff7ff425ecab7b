"""The table of releases says what was recorded of them, and every release finds its row."""

from __future__ import annotations

import ast
import itertools
from bisect import bisect_right
from fnmatch import fnmatchcase

import pytest
from releases import known, order

from yolo_clearml.replay.eras import ERAS, YOLOV5, Era, era_of, eras_between, likeliest_era
from yolo_clearml.rundir.release import Release, Releases, known_release, parse_release, published_between

FACTS = known()["facts"]
PUBLISHED = published_between((8, 0, 100), (8, 4, 190))
# what looks at all of the 724 is quick, and would not be as so many tests
BY_MINOR = pytest.mark.parametrize(
    "releases",
    [[*those] for _, those in itertools.groupby(PUBLISHED, lambda release: release[:2])],
    ids=lambda those: "{}.{}".format(*those[0]),
)
# what changed that no row needs, and why
NEEDS_NO_ROW = {
    "train scalars": "older releases are reported by the reference rules",
    "debug images": "a picture without a batch number is reported by every row",
    "epoch": "results.csv shows it itself",
    "csv": "the parser reads both",
    "old results.csv": "results.csv shows it itself",
    "resumed run": "read off args.yaml",
    "save_dir": "read off args.yaml",
    "curves of boxes": "the rows of plots name both",
    "fitness of pixels": "of a metric that no task had before",
    "fitness of depths": "of a metric that no task had before",
    "pictures of labels": "labels_correlogram.jpg was never reported",
    "plots kept by the trainer": "what they lost is reported",
    "plots kept by the validator": "what they lost is reported",
    "source of the callback": "a person has looked",
    "source of save_metrics": "a person has looked",
    "source of final_eval": "a person has looked",
}


def fact(name: str, release: Release) -> str:
    """What was read off the sources of a release, or of the last one before it that differs."""
    told = FACTS[name]
    since = sorted(map(order, told))
    first = since[bisect_right(since, release) - 1]
    return str(told[".".join(map(str, first))])


def read_off(release: Release) -> dict[str, object]:
    """The fields of an era, from what its sources say."""
    project = fact("project", release)
    stems = ("results", "confusion_matrix", "confusion_matrix_normalized")
    curves = ("F1_curve", "PR_curve", "P_curve", "R_curve")
    drawn = fact("plots", release) == "batch"
    pixels = filter(None, [fact("picture of pixels", release)])
    later = fact("final evaluation", release) == "after the last iteration"
    top5_alone = "top1" not in fact("fitness of classes", release)
    mine = "k.split('/')[0]" in fact("validation scalars", release)
    return {
        "project": "Ultralytics" if "'Ultralytics'" in project else "YOLOv8",
        "project_stripped_of": "/" if ".lstrip('/')" in project else "",
        "tag": ast.literal_eval(fact("tags", release))[0],
        "extra_arguments": {"_ignore_remote_overrides_": True}
        if "ignore_remote_overrides=True" in fact("arguments", release)
        else {},
        "titles": {} if mine else {"metrics": "val"},
        "plots": {"labels.jpg", *(f"{each}.png" for each in (*stems, "*_curve")), *pixels}
        if drawn
        else {f"{each}.png" for each in (*stems, *curves)},
        "fitness": tuple(ast.literal_eval(fact("fitness", release))[2:]),
        "class_fitness": (0.0, 1.0) if top5_alone else (0.5, 0.5),
        "final_evaluation": "after the last iteration" if later else "at the last iteration",
    }


@BY_MINOR
def test_every_release_is_reported_as_its_sources_say(releases: list[Release]) -> None:
    """Each of the 724 published ones, so also the last before and the first with each change."""
    for release in releases:
        era = era_of(release)
        wanted = read_off(release)
        after = str(wanted.pop("final_evaluation"))
        assert era.final_evaluation.endswith(after), release
        assert wanted == {
            "project": era.project,
            "project_stripped_of": era.project_stripped_of,
            "tag": era.tag,
            "extra_arguments": dict(era.extra_arguments),
            "titles": dict(era.titles),
            "plots": {rule.pattern for rule in era.plots},
            "fitness": era.fitness,
            "class_fitness": era.class_fitness,
        }, release


def test_every_change_has_a_row_or_a_reason() -> None:
    """A new kind of change that tests/releases.py finds is thought about, and each row is of one."""
    changed = {name for name, told in FACTS.items() if len(told) > 1}
    rows = {era.since for era in ERAS[1:]}
    turns = {parse_release(r) for n in changed - set(NEEDS_NO_ROW) for r in list(FACTS[n])[1:]}
    assert rows == turns - {(8, 0, 222)}  # validation scalars, whose rules older releases have as well
    assert set() == set(NEEDS_NO_ROW) - changed


def test_debug_images_and_the_output_model_never_changed() -> None:
    """Which is why no row speaks of the model, nor of when and how mosaics are reported."""
    assert {"mosaics", "output model", "final values", "picture of results"} == {
        name for name, told in FACTS.items() if len(told) == 1
    }


def test_rows_are_in_the_order_of_releases() -> None:
    """Each row begins later than the one before it, so that the last that fits is the right one."""
    since = [era.since for era in ERAS]
    assert sorted(set(since)) == since


@pytest.mark.parametrize("era", ERAS, ids=str)
def test_every_row_is_found_by_its_own_release(era: object) -> None:
    """The release a row begins with, and the one after it, belong to that row."""
    (found,) = [each for each in ERAS if each is era]
    major, minor, patch = found.since
    assert found is era_of(found.since)
    assert found is not era_of((major, minor, patch - 1)) or found is ERAS[0]


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("8.3.100", (8, 3, 100)),
        ("8.4.190.dev0", (8, 4, 190)),
        ("8.4.190rc1", (8, 4, 190)),
        ("8.4.190+cu118", (8, 4, 190)),
        ("v8.1.0", (8, 1, 0)),
        (" 8.1.0\n", (8, 1, 0)),
        ("8.3", (8, 3, 0)),
        ("8.3.1.2", (8, 3, 1)),
        ("7.0.14", (7, 0, 14)),
        ("", None),
        ("8", None),
        ("latest", None),
        ("8.", None),
        ("8.x", None),
        (".8.3", None),
        ("vv8.3.0", None),
        ("-8.3.0", None),
        ("8.3.12345", None),
        ("8.30000", None),
        ("12345.0.0", None),
        ("٨.٣.٠", None),
        ("8" * 100_000, None),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_releases_are_read_or_refused(release: str, expected: Release | None) -> None:
    """Suffixes are read over; what is not two or three short numbers is no release."""
    assert expected == parse_release(release)


def test_releases_before_the_reference_are_reported_by_its_rules() -> None:
    """What they reported live, the previous epoch's metrics as train, nobody wants back."""
    reference = era_of((8, 0, 222))
    assert [reference] * 3 == [era_of(release) for release in ((8, 0, 137), (8, 0, 200), (8, 0, 220))]
    old = era_of((8, 0, 100))
    assert (dict(reference.titles), reference.plots) == (dict(old.titles), old.plots)
    assert old is era_of((8, 0, 0))


@pytest.mark.parametrize("era", [*ERAS, YOLOV5], ids=str)
def test_no_picture_is_two_plots(era: Era) -> None:
    """Each belongs to one rule at the most, so it is reported once."""
    names = [rule.pattern.replace("*", "a") for rule in era.plots]
    for name in names:
        assert 1 == sum(fnmatchcase(name, rule.pattern) for rule in era.plots)
    assert len(names) == len(set(names))


def test_yolov5_is_an_era_apart() -> None:
    """Releases below 8 are YOLOv5's, which no row of Ultralytics' table is."""
    assert [YOLOV5, YOLOV5] == [era_of((7, 0, 14)), era_of((6, 2, 0))]
    assert YOLOV5 not in ERAS


def maybe(first: str, last: str, early: tuple[str, str] | None = None) -> Releases:
    ends = [parse_release(each) for each in (first, last, *(early or (first, last)))]
    a, b, c, d = (each for each in ends if each is not None)
    return Releases(a, b, (c, d))


def test_the_eras_of_an_interval_are_in_order() -> None:
    """From that of its first to that of its last."""
    assert [(8, 3, 173), (8, 3, 198), (8, 3, 235)] == [
        era.since for era in eras_between((8, 3, 180), (8, 4, 21))
    ]
    assert [(8, 4, 68)] == [era.since for era in eras_between((8, 4, 68), (8, 9, 0))]


@pytest.mark.parametrize(
    ("releases", "since"),
    [
        (maybe("8.4.37", "8.4.76"), (8, 4, 52)),  # 15, 16 and 9 of them
        (maybe("8.3.196", "8.3.253"), (8, 3, 198)),  # 2, 37 and 19
        (maybe("8.3.119", "8.3.195"), (8, 3, 9)),
        (maybe("8.3.119", "8.3.161", ("8.3.119", "8.3.195")), (8, 3, 9)),  # as it was before the curves
        (maybe("8.3.162", "8.3.195", ("8.3.119", "8.3.195")), (8, 3, 9)),
        (maybe("8.3.173", "8.3.195", ("8.3.119", "8.3.195")), (8, 3, 173)),  # it cannot stay
        (Releases((8, 0, 100), (8, 4, 190), ((8, 3, 180), (8, 3, 180)), contradictory=True), (8, 3, 173)),
        (known_release((8, 3, 235)), (8, 3, 235)),
    ],
    ids=str,
)
def test_most_of_the_releases_decide_the_rules(releases: Releases, since: Release) -> None:
    """By what is on disk from the first epoch on, so that no curve changes its title half-way."""
    assert since == likeliest_era(releases).since
