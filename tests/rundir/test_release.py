"""Which releases a run may be of, from what it holds; held against what was read off all of them."""

from __future__ import annotations

import itertools
import json
import shutil
from bisect import bisect_right
from pathlib import Path

import pytest
from conftest import MakeRun, long_after
from hypothesis import given
from hypothesis import strategies as st
from releases import known
from test_eras import BY_MINOR, PUBLISHED, fact
from test_golden import RUNS, events_of, replay

import yolo_clearml
from yolo_clearml.events import GUESSED, Hyperparameters, Image, Plan, Plot, Properties, Scalar
from yolo_clearml.replay.eras import likeliest_era
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir import release as module
from yolo_clearml.rundir.release import (
    Release,
    Releases,
    guess_releases,
    known_release,
    parse_release,
    published_between,
)
from yolo_clearml.rundir.run import Run
from yolo_clearml.rundir.scan import scan

SPANS = json.loads((Path(yolo_clearml.__file__).parent / "rundir" / "releases.json").read_text())["arguments"]
CURVES = ("F1_curve.png", "PR_curve.png", "P_curve.png", "R_curve.png")


def at(release: str) -> Release:
    found = parse_release(release)
    assert found is not None
    return found


def arguments(release: Release, **values: object) -> dict[str, object]:
    """What args.yaml of this release holds."""
    names = {
        name
        for name, spans in SPANS.items()
        if any(at(first) <= release and (end is None or release < at(end)) for first, end in spans)
    }
    absolute = fact("save_dir", release) == "absolute"
    defaults = {"task": "detect", "save_dir": f"{'/home/me/' if absolute else ''}runs/detect/train"}
    return {**dict.fromkeys(sorted(names)), **defaults, **values}


def columns(release: Release) -> list[str]:
    return [*(["time"] if " time " in fact("csv", release) else []), "train/box_loss", "val/box_loss"]


def first_epoch(release: Release) -> int:
    return int(fact("epoch", release) == "one-based")


def pictures(release: Release, task: str = "detect") -> set[str]:
    """What this release draws in a training."""
    old = fact("curves of boxes", release) == "*"
    kinds = {"segment": ["Box", "Mask"]}.get(task, ["" if old else "Box"])
    labels = fact("pictures of labels", release).split(", ")
    return {*labels, "results.png", *(f"{kind}{curve}" for kind in kinds for curve in CURVES)}


def guess(release: Release, drawn: set[str] | None = None, **values: object) -> Releases:
    args = arguments(release, **values)
    if drawn is None:
        drawn = pictures(release, str(args["task"]))
    return guess_releases(columns(release), first_epoch(release), args, drawn)


# -- what is known of the releases


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        (module.ZERO_BASED_UNTIL, "epoch"),
        (module.TIMED_SINCE, "csv"),
        (module.BARE_CURVES_UNTIL, "curves of boxes"),
        (module.CORRELOGRAM_UNTIL, "pictures of labels"),
        (module.RELATIVE_UNTIL, "save_dir"),
        (module.SEMANTIC_SINCE, "fitness of pixels"),
        (module.SEMANTIC_SINCE, "picture of pixels"),
        (module.DEPTH_SINCE, "fitness of depths"),
    ],
)
def test_each_mark_is_the_release_that_changed_it(mark: Release, name: str) -> None:
    """And nothing has changed it back."""
    facts = known()["facts"]
    assert [mark] == [parse_release(release) for release in facts[name]][1:]


def test_both_files_are_of_the_same_releases() -> None:
    """The packaged one holds every published release of the range that was read."""
    told = known()
    assert (at(told["first"]), at(told["last"])) == (PUBLISHED[0], PUBLISHED[-1])
    assert sorted(PUBLISHED) == PUBLISHED


@pytest.mark.parametrize(
    ("name", "first", "end"),
    [
        ("save_frames", "8.0.219", None),
        ("auto_augment", "8.0.233", None),
        ("bgr", "8.1.33", None),
        ("copy_paste_mode", "8.3.0", None),
        ("label_smoothing", "8.0.100", "8.3.38"),
        ("cutmix", "8.3.119", None),
        ("compile", "8.3.196", None),
        ("angle", "8.4.0", None),
        ("end2end", "8.4.8", "8.4.142"),
        ("cls_pw", "8.4.37", None),
        ("dis", "8.4.77", None),
        ("half", "8.0.100", "8.4.80"),
        ("cls_remap", "8.4.91", None),
        ("dgrad", "8.4.104", None),
        ("channels_last", "8.4.105", None),
        ("keras", "8.0.100", "8.4.164"),
    ],
)
def test_names_have_the_releases_that_others_found(name: str, first: str, end: str | None) -> None:
    """Read off the sources before, by another way."""
    assert [[first, end]] == SPANS[name]


@pytest.mark.parametrize("name", RUNS[:-1])
def test_args_of_a_real_run_hold_every_name_of_its_release(make_run: MakeRun, name: str) -> None:
    """And no name that only others have."""
    run, _ = replay(make_run, name)
    assert set(arguments(run.releases.first)) - {"save_dir"} == set(run.args) - {"save_dir"} & set(SPANS)


# -- what a release leaves behind leads back to it


@pytest.mark.parametrize("task", ["detect", "segment"])
@BY_MINOR
def test_every_release_is_in_its_own_interval(releases: list[Release], task: str) -> None:
    """Of each task, with and without pictures, resumed or not."""
    own = "/x/train/weights/last.pt"
    for release, drawn in itertools.product(releases, (None, set[str]())):
        found = guess(release, drawn, task=task)
        assert found.first <= release <= found.last, release
        assert not found.contradictory, release
        for marks in ({"resume": own}, {"resume": False, "model": own, "save_dir": "/x/train"}):
            found = guess(release, drawn, task=task, **marks)
            assert found.first <= release <= found.last, release


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_no_run_changes_the_titles_of_its_curves_when_its_plots_are_drawn(task: str) -> None:
    """They are drawn at the end, when the curves have been reported; of every release."""
    for release in PUBLISHED:
        labels = {"labels.jpg", "labels_correlogram.jpg"} & pictures(release)
        before, after = (likeliest_era(guess(release, drawn, task=task)) for drawn in (labels, None))
        assert (before.titles, before.project, before.extra_arguments) == (
            *(after.titles, after.project, after.extra_arguments),
        )


@pytest.mark.parametrize(
    ("release", "interval"),
    [
        ("8.0.100", "8.0.109 or earlier"),
        ("8.0.161", "8.0.154 to 8.0.161"),
        ("8.0.162", "8.0.162 to 8.0.163"),
        ("8.2.50", "8.1.33 to 8.2.103"),
        ("8.3.8", "8.3.0 to 8.3.8"),
        ("8.3.9", "8.3.9 to 8.3.37"),
        ("8.3.161", "8.3.119 to 8.3.161"),
        ("8.3.162", "8.3.162 to 8.3.186"),
        ("8.3.195", "8.3.162 to 8.3.195"),
        ("8.3.235", "8.3.196 to 8.3.253"),
        ("8.4.50", "8.4.37 to 8.4.76"),
        ("8.4.104", "8.4.104"),
        ("8.4.190", "8.4.164 or later"),
    ],
)
def test_intervals_are_as_narrow_as_what_is_there(release: str, interval: str) -> None:
    """From the first release that fits to the last."""
    assert interval == str(guess(at(release)))


def test_pictures_of_other_tasks_bound_no_release() -> None:
    """Curves of boxes have been called so in segmentation all along."""
    drawn = {"BoxF1_curve.png"}
    assert "8.1.33 to 8.2.103" == str(guess(at("8.2.50"), drawn, task="segment"))
    assert "unknown" == str(guess(at("8.2.50"), drawn, task="detect"))


def test_a_shortened_args_yaml_bounds_by_what_is_left() -> None:
    """Only where every name is there that all releases have, one that is not there bounds the release."""
    whole = arguments(at("8.4.50"))
    short = {name: value for name, value in whole.items() if name != "lr0"}
    assert "8.4.37 to 8.4.79" == str(guess_releases(["time"], 1, short, ()))
    assert "any" == str(guess_releases([], 1, {}, ()).__class__((8, 0, 100), (8, 4, 190), ((8, 0, 100),) * 2))
    assert "8.3.9 or later" == str(guess_releases(["time"], 1, {}, ()))
    assert "8.0.161 or earlier" == str(guess_releases(["train/loss"], 0, {}, ()))


def test_names_that_no_release_has_bound_nothing() -> None:
    """A fork's own, or those of a release that is yet to come."""
    assert "8.4.37 to 8.4.76" == str(guess(at("8.4.50"), my_own=1, session=None))
    assert "8.4.164 or later" == str(guess(at("8.4.190"), brand_new=1))


def test_a_resumed_run_may_have_been_begun_by_an_older_release() -> None:
    """Its args.yaml has the names of both; a name that went bounds nothing then, one that came does."""
    both = {**arguments(at("8.3.30")), **arguments(at("8.4.50")), "resume": "/x/train/weights/last.pt"}
    assert "8.4.37 to 8.4.76" == str(guess_releases(["time"], 1, both, ()))
    not_resumed = {**both, "resume": False}
    assert "unknown" == str(guess_releases(["time"], 1, not_resumed, ()))
    # as args.yaml says it to 8.1.40
    older = {**arguments(at("8.0.130")), **arguments(at("8.1.20")), "model": "/x/train/weights/last.pt"}
    assert "8.0.235 to 8.1.32" == str(guess_releases([], 1, {**older, "save_dir": "/x/train"}, ()))
    assert "unknown" == str(guess_releases([], 1, {**older, "save_dir": "/x/train2"}, ()))
    begun_before_time = {**both, "save_dir": "/x/train"}
    assert "8.4.37 to 8.4.76" == str(guess_releases(["train/loss"], 1, begun_before_time, ()))


@pytest.mark.parametrize(
    ("times", "args", "nearest"),
    [
        (["train/loss"], "8.4.190", "8.3.8"),  # the shape of the file is the stronger sign
        (["time", "train/loss"], "8.0.230", "8.3.37"),
    ],
)
def test_what_contradicts_itself_is_any_release_by_the_nearest_rules(
    times: list[str], args: str, nearest: str
) -> None:
    """A fork, or files of several trainings: nothing is ruled out, and rules are chosen all the same."""
    found = guess_releases(times, 1, arguments(at(args), save_dir="/x/train"), ())
    assert (True, "unknown") == (found.contradictory, str(found))
    assert (PUBLISHED[0], PUBLISHED[-1]) == (found.first, found.last)
    assert (at(nearest), at(nearest)) == found.early


VALUES = st.one_of(st.none(), st.booleans(), st.text(max_size=8), st.lists(st.integers(), max_size=2))


@given(
    st.sets(st.sampled_from(["time", "train/loss", "x"])),
    st.integers(0, 9),
    st.dictionaries(st.one_of(st.sampled_from(sorted(SPANS)), st.text(max_size=5)), VALUES),
    st.sets(st.sampled_from([*pictures((8, 1, 0)), *pictures((8, 4, 0)), "a\udc80.jpg"])),
)
def test_whatever_is_there_gives_an_interval(
    told: set[str], epoch: int, args: dict[str, object], drawn: set[str]
) -> None:
    """Never an error, and rules in any case."""
    found = guess_releases(told, epoch, args, drawn)
    assert PUBLISHED[0] <= found.first <= found.last <= PUBLISHED[-1]
    assert found.contradictory or found.early[0] <= found.first <= found.last <= found.early[1]
    assert str(found)
    assert likeliest_era(found)


# -- how it is said


@pytest.mark.parametrize(
    ("releases", "text"),
    [
        (known_release((8, 9, 1)), "8.9.1"),
        (Releases((8, 3, 1), (8, 3, 1), ((8, 3, 1), (8, 3, 1))), "8.3.1"),
        (Releases((8, 3, 1), (8, 3, 8), ((8, 3, 1), (8, 3, 8))), "8.3.1 to 8.3.8"),
        (Releases((8, 0, 100), (8, 3, 8), ((8, 0, 100), (8, 3, 8))), "8.3.8 or earlier"),
        (Releases((8, 3, 9), (8, 4, 190), ((8, 3, 9), (8, 4, 190))), "8.3.9 or later"),
        (Releases((8, 0, 100), (8, 4, 190), ((8, 0, 100), (8, 4, 190))), "any"),
    ],
)
def test_an_interval_is_stated_in_words(releases: Releases, text: str) -> None:
    """Open where nothing is known beyond."""
    assert text == str(releases)


def test_published_releases_are_those_of_the_index() -> None:
    """Some numbers were never published, or taken back."""
    told = published_between(at("8.4.43"), at("8.4.46"))
    assert [at("8.4.43"), at("8.4.45"), at("8.4.46")] == told
    assert bisect_right(PUBLISHED, at("8.4.44")) == bisect_right(PUBLISHED, at("8.4.43"))


# -- real runs, their weights removed


def without_weights(make_run: MakeRun, name: str) -> tuple[Run, Plan]:
    path = make_run(name, f"{name}-bare")
    shutil.rmtree(path / "weights")
    run = scan(path, long_after())
    assert isinstance(run, Run)
    return run, plan(run, Wishes())


@pytest.mark.parametrize("name", [*RUNS[:-1], "v8.0.100-detect", "v8.0.220-detect"])
def test_without_its_weights_a_real_run_is_reported_by_the_same_rules(make_run: MakeRun, name: str) -> None:
    """Its release is in the interval, every rule is the same there, and so no note speaks of it."""
    run, whole = replay(make_run, name)
    bare_run, bare = without_weights(make_run, name)
    assert bare_run.releases.first <= run.releases.first <= bare_run.releases.last
    assert not bare_run.releases.known
    assert (whole.project, whole.name, whole.tags) == (bare.project, bare.name, bare.tags)
    assert not any("release;" in note or "names the release" in note for note in bare.notes)

    def said(of: Plan) -> list[object]:
        curves = {(e.title, e.series, e.iteration, e.value) for e in events_of(of, Scalar)}
        drawn = {(type(e), e.title, e.file.name) for kind in (Image, Plot) for e in events_of(of, kind)}
        return [curves, drawn, events_of(of, Hyperparameters)]

    assert said(whole) == said(bare)
    (told,) = events_of(bare, Properties)
    assert told.values["release"] == f"{bare_run.releases}{GUESSED}"
