"""The table of releases says what was recorded of them, and every release finds its row."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from yolo_clearml.eras import ERAS, YOLOV5, Era, Release, era_of, guess_release, parse_release


def plots(release: Release) -> set[str]:
    return {rule.pattern for rule in era_of(release).plots}


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


@pytest.mark.parametrize(
    ("release", "project", "tag"),
    [
        ((8, 0, 100), "YOLOv8", "YOLOv8"),
        ((8, 3, 0), "YOLOv8", "YOLOv8"),
        ((8, 3, 20), "Ultralytics", "Ultralytics"),
        ((8, 4, 190), "Ultralytics", "Ultralytics"),
        ((9, 0, 0), "Ultralytics", "Ultralytics"),
    ],
)
def test_project_and_tag_changed_after_8_3_0(release: Release, project: str, tag: str) -> None:
    """YOLOv8 to 8.3.0, Ultralytics since 8.3.20."""
    assert (project, tag) == (era_of(release).project, era_of(release).tag)


@pytest.mark.parametrize(
    ("release", "title"),
    [((8, 0, 222), "val"), ((8, 3, 150), "val"), ((8, 3, 175), "metrics"), ((8, 4, 190), "metrics")],
)
def test_metrics_have_been_under_two_titles(release: Release, title: str) -> None:
    """All validation scalars are titled ``val`` to 8.3.150, by their own prefix since 8.3.175."""
    titles = era_of(release).titles
    assert (title, "val", "train", "lr") == tuple(
        titles.get(prefix, prefix) for prefix in ("metrics", "val", "train", "lr")
    )


def test_releases_before_the_reference_are_reported_by_its_rules() -> None:
    """What they reported live, the previous epoch's metrics as train, nobody wants back."""
    reference = era_of((8, 0, 222))
    assert [reference] * 3 == [era_of(release) for release in ((8, 0, 0), (8, 0, 100), (8, 0, 220))]


@pytest.mark.parametrize("era", [*ERAS, YOLOV5], ids=str)
def test_no_picture_is_two_plots(era: Era) -> None:
    """Each belongs to one rule at the most, so it is told once."""
    names = [rule.pattern.replace("*", "a") for rule in era.plots]
    for name in names:
        assert 1 == sum(fnmatchcase(name, rule.pattern) for rule in era.plots)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("release", [(8, 0, 222), (8, 1, 0), (8, 3, 225)])
def test_seven_fixed_plots_to_8_3_225(release: Release) -> None:
    """The old list names each plot, so those of masks and poses are not in it."""
    stems = ("results", "confusion_matrix", "confusion_matrix_normalized")
    curves = ("F1_curve", "PR_curve", "P_curve", "R_curve")
    assert {f"{stem}.png" for stem in (*stems, *curves)} == plots(release)


def test_every_drawn_plot_since_8_3_253() -> None:
    """The first such release misses the raw confusion matrix."""
    drawn = {"labels.jpg", "results.png", "*_curve.png", "confusion_matrix_normalized.png"}
    assert drawn == plots((8, 3, 253))
    assert drawn | {"confusion_matrix.png"} == plots((8, 3, 254)) == plots((8, 4, 190))


@pytest.mark.parametrize(
    ("release", "weights"),
    [
        ((8, 0, 100), (0.1, 0.9)),
        ((8, 3, 150), (0.1, 0.9)),
        ((8, 3, 200), (0.0, 1.0)),
        ((8, 4, 190), (0.0, 1.0)),
    ],
)
def test_fitness_lost_its_tenth_of_map50(release: Release, weights: tuple[float, float]) -> None:
    """0.1 mAP50 + 0.9 mAP50-95 to 8.3.150, mAP50-95 alone since 8.3.200."""
    assert weights == era_of(release).fitness


@pytest.mark.parametrize(("release", "after"), [((8, 4, 50), False), ((8, 4, 75), True), ((8, 4, 190), True)])
def test_the_final_evaluation_moved_behind_the_last_iteration(release: Release, after: bool) -> None:
    """Its point, which is not on disk, was at the last iteration to 8.4.50 and is after it since 8.4.75."""
    assert after == ("after the last iteration" in era_of(release).final_evaluation)


@pytest.mark.parametrize(
    ("release", "extra"), [((8, 4, 75), {}), ((8, 4, 190), {"_ignore_remote_overrides_": True})]
)
def test_8_4_190_has_an_argument_of_its_own(release: Release, extra: dict[str, object]) -> None:
    """Its callback adds an argument that args.yaml does not hold."""
    assert extra == dict(era_of(release).extra_arguments)


def test_yolov5_is_an_era_apart() -> None:
    """Releases below 8 are YOLOv5's, which no row of Ultralytics' table is."""
    assert [YOLOV5, YOLOV5] == [era_of((7, 0, 14)), era_of((6, 2, 0))]
    assert YOLOV5 not in ERAS


@pytest.mark.parametrize(
    ("columns", "arguments", "release"),
    [
        (["train/loss"], ["name"], (8, 3, 0)),
        (["train/loss"], ["cls_remap"], (8, 3, 0)),  # the file's shape is the stronger sign
        (["time", "train/loss"], ["name"], (8, 3, 20)),
        (["time"], ["cutmix"], (8, 3, 175)),
        (["time"], ["cutmix", "compile"], (8, 3, 254)),
        (["time"], ["cutmix", "compile", "cls_remap"], (8, 4, 190)),
    ],
)
def test_without_a_checkpoint_the_release_is_guessed(
    columns: list[str], arguments: list[str], release: Release
) -> None:
    """``time`` came with 8.3.20, and later arguments tell later eras."""
    assert release == guess_release(columns, arguments)
