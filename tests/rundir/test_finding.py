"""Runs are found in every tree, and what only looks like one is named."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeRun
from test_scan import WROTE, put

from yolo_clearml.errors import RunUnreadable, UsageError
from yolo_clearml.rundir.choice import EVERY_RUN
from yolo_clearml.rundir.finding import find_runs, run_around, walk
from yolo_clearml.rundir.listing import listing
from yolo_clearml.rundir.run import NotARun


def found(*paths: Path) -> list[str]:
    """Names of the directories found, those that are no runs with a question mark."""
    return [f"{f.path.name}?" if isinstance(f, NotARun) else f.name for f in find_runs([*paths])]


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        put(folder / name, b"", WROTE)
    return folder


def test_runs_are_found_in_every_layout_and_in_order(tmp_path: Path) -> None:
    """The run itself, a folder of runs, runs by task and project, YOLOv5's; in order of their paths."""
    make(tmp_path / "runs" / "detect" / "train", "args.yaml", "results.csv")
    make(tmp_path / "runs" / "detect" / "train2", "args.yaml")
    make(tmp_path / "runs" / "train" / "exp", "opt.yaml", "hyp.yaml", "results.csv")
    make(tmp_path / "runs" / "detect" / "lost", "results.csv")
    make(tmp_path / "a" / "b" / "c" / "d", "args.yaml")
    make(tmp_path / "nothing" / "here", "readme.txt")
    assert ["d", "lost", "train", "train2", "exp"] == found(tmp_path)
    assert ["train"] == found(tmp_path / "runs" / "detect" / "train")
    assert [] == found(tmp_path / "nothing")


def test_what_only_looks_like_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    """Validation and prediction are named, and so is a tuning without results; its trainings are found."""
    make_run("v8.4.190-val", "val")
    make_run("v8.4.190-predict", "predict")
    make(tmp_path / "runs" / "tune", "tune_results.ndjson", "tune_fitness.png", "best_hyperparameters.yaml")
    make(tmp_path / "runs" / "multitrain" / "train", "args.yaml")
    make(tmp_path / "runs" / "tune2", "best_hyperparameters.yaml")
    assert ["train", "predict?", "tune", "tune2?", "val?"] == found(tmp_path)


def test_a_stray_picture_hides_no_runs(tmp_path: Path) -> None:
    """Somebody keeps a confusion matrix beside their runs."""
    make(tmp_path / "runs", "confusion_matrix.png")
    make(tmp_path / "runs" / "train", "args.yaml")
    assert ["runs?", "train"] == found(tmp_path)


def test_a_run_is_not_entered(tmp_path: Path) -> None:
    """What lies in a run belongs to it."""
    make(tmp_path / "train", "args.yaml")
    make(tmp_path / "train" / "inner", "args.yaml")
    assert ["train"] == found(tmp_path)


def test_a_directory_given_twice_is_found_once(tmp_path: Path) -> None:
    """By two names, or once by itself and once from above."""
    make(tmp_path / "runs" / "train", "args.yaml")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    again = tmp_path / "runs" / ".." / "runs"
    assert ["train"] == found(
        tmp_path / "runs" / "train", tmp_path / "runs", tmp_path, again, tmp_path / "link"
    )


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """Neither to a run outside nor round in a circle; a link that the user names is followed."""
    make(tmp_path / "elsewhere" / "train", "args.yaml")
    folder = make(tmp_path / "runs")
    (folder / "circle").symlink_to(folder)
    (folder / "latest").symlink_to(tmp_path / "elsewhere" / "train")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    assert [] == found(folder)
    assert ["latest"] == found(folder / "latest")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing", "does not exist"),
        ("file", "is not a directory"),
        ("n" * 300, "cannot be"),
        ("a\0b", "cannot be"),
    ],
)
def test_a_path_that_cannot_be_meant_is_a_wrong_usage(tmp_path: Path, name: str, word: str) -> None:
    """Missing, a file, too long, or no path at all: a sentence, not a traceback."""
    put(tmp_path / "file", b"", WROTE)
    with pytest.raises(UsageError, match=word):
        list(find_runs([tmp_path / name]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter everything")
def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    """As a run that cannot be read, for it may be one; the others are found all the same."""
    closed = make(tmp_path / "closed")
    make(tmp_path / "open", "args.yaml")
    closed.chmod(0)
    try:
        assert ["closed", "open"] == found(tmp_path)
    finally:
        closed.chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that is gone, say, which may hold runs; the others are found all the same."""
    gone = make(tmp_path / "gone")
    make(tmp_path / "open", "args.yaml")
    genuine: Callable[[Path], object] = os.scandir

    def scandir(folder: Path) -> object:
        if folder == gone:
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert ["gone", "open"] == found(tmp_path, tmp_path, gone)
    with pytest.raises(RunUnreadable, match="cannot be listed: Permission denied"):
        listing(gone)


def test_a_folder_that_vanishes_while_it_is_searched_for_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can have wanted it."""
    gone = make(tmp_path / "gone")
    make(tmp_path / "open", "args.yaml")
    genuine: Callable[[Path], object] = os.scandir

    def scandir(folder: Path) -> object:
        if folder == gone:
            gone.rmdir()
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert ["open"] == found(tmp_path)


def test_a_deep_and_wide_tree_is_searched_in_order(tmp_path: Path) -> None:
    """Deeper than Python recurses comfortably, and in the order of names at every level."""
    for letters in itertools.product("abc", repeat=3):
        make(tmp_path.joinpath("wide", *letters, "-".join(letters)), "args.yaml")
    deep = tmp_path / "deep"
    for _ in range(300):
        deep = deep / "d"
    make(deep / "bottom", "args.yaml")
    assert ["bottom", *("-".join(letters) for letters in itertools.product("abc", repeat=3))] == found(
        tmp_path
    )


# -- what they are ----------------------------------------------------------------------------------------


def reasons(path: Path) -> dict[str, str]:
    """Why what was found below is no run, by the directory's name."""
    return {item.path.name: item.reason for item in find_runs([path]) if isinstance(item, NotARun)}


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("confusion_matrix.png",), "a validation"),
        (("val_batch0_pred.jpg",), "a validation"),
        (("val_batch0_labels.jpg", "predictions.json"), "a validation"),
        (("best_hyperparameters.yaml",), "a hyperparameter search"),
    ],
)
def test_leftovers_of_other_commands_say_what_they_are(
    tmp_path: Path, names: tuple[str, ...], what: str
) -> None:
    """By the files that command leaves, whatever its folder is called; with arguments it is a training."""
    make(tmp_path / "anything", *names)
    make(tmp_path / "train", *names, "args.yaml")
    assert {"anything": f"is {what}, not a training"} == reasons(tmp_path)
    assert ["anything?", "train"] == found(tmp_path)


def test_a_prediction_is_recognised_by_its_name(tmp_path: Path) -> None:
    """Of what is in it nothing is sure; without anything in it, or by another name, nothing is said."""
    for name in ("predict", "predict2", "predict17"):
        make(tmp_path / name, "bus.jpg")
    for name in ("prediction", "predict-old", "my-predict"):
        make(tmp_path / name, "bus.jpg")
    make(tmp_path / "empty" / "predict")
    make(tmp_path / "holder" / "predict" / "train", "args.yaml")
    expected = dict.fromkeys(("predict", "predict2", "predict17"), "is a prediction, not a training")
    assert expected == reasons(tmp_path)
    assert "train" in found(tmp_path)


# -- walking and going up ---------------------------------------------------------------------------------


def test_a_walk_shows_folders_and_passes_known_runs_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders in order, each with what it is; a known run is not even looked at."""
    known = make(tmp_path / "b" / "known", "args.yaml")
    new = make(tmp_path / "b" / "new", "results.csv")
    make(tmp_path / "a", "readme.txt")
    listed: list[Path] = []
    genuine: Callable[[Path], object] = os.scandir

    def scandir(folder: Path) -> object:
        listed.append(folder)
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    seen = [(path, folder.found) for path, folder in walk(tmp_path, tmp_path, EVERY_RUN, set(), {known})]
    assert [(tmp_path, None), (tmp_path / "a", None), (tmp_path / "b", None), (new, new)] == seen
    assert [tmp_path, tmp_path / "a", tmp_path / "b", new] == listed
    assert [] == list(walk(known, known, EVERY_RUN, set(), {known}))


def test_a_walk_from_what_is_gone_shows_nothing(tmp_path: Path) -> None:
    """Nor from what became a file."""
    put(tmp_path / "file", b"", WROTE)
    assert [] == [
        *walk(tmp_path / "gone", tmp_path / "gone", EVERY_RUN, set()),
        *walk(tmp_path / "file", tmp_path / "file", EVERY_RUN, set()),
    ]


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOTDIR])
def test_a_folder_deleted_under_the_walk_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Between its parent's listing and its own."""
    make(tmp_path / "a")
    last = make(tmp_path / "b", "args.yaml")
    genuine: Callable[[Path], object] = os.scandir

    def scandir(folder: Path) -> object:
        if folder == tmp_path / "a":
            raise OSError(error, os.strerror(error))
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [tmp_path, last] == [path for path, _ in walk(tmp_path, tmp_path, EVERY_RUN, set())]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_folder_that_cannot_be_listed_may_be_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """It comes as one, and nothing is said to be below it."""
    closed = make(tmp_path / "closed")
    genuine: Callable[[Path], object] = os.scandir

    def scandir(folder: Path) -> object:
        if folder == closed:
            raise OSError(error, os.strerror(error))
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [None, closed] == [folder.found for _, folder in walk(tmp_path, tmp_path, EVERY_RUN, set())]


def test_what_a_path_belongs_to(tmp_path: Path) -> None:
    """The outermost run at or above it and below the root; were it gone, or not there yet."""
    run = make(tmp_path / "runs" / "train", "args.yaml")
    make(run / "inner", "results.csv")
    make(tmp_path / "runs" / "exp", "opt.yaml")
    make(tmp_path / "runs" / "other", "readme.txt")
    for path in (run, run / "results.csv", run / "weights" / "best.pt", run / "inner" / "results.csv"):
        assert run == run_around(path, tmp_path)
        assert run == run_around(path, run)
    assert tmp_path / "runs" / "exp" == run_around(tmp_path / "runs" / "exp" / "x", tmp_path)
    for path in (tmp_path, tmp_path / "runs", tmp_path / "runs" / "other" / "x", tmp_path / "no" / "where"):
        assert None is run_around(path, tmp_path)


def test_what_a_relative_path_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the user gave the root, so the run is named."""
    make(tmp_path / "runs" / "train", "args.yaml")
    monkeypatch.chdir(tmp_path)
    assert Path("runs/train") == run_around(Path("runs/train/x.jpg"), Path("runs"))
    assert Path("runs/train") == run_around(Path("runs/train/x.jpg"), Path())
