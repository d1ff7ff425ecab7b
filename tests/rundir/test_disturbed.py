"""A directory that changes, vanishes or stops being readable between any two looks at it."""

from __future__ import annotations

import _io
import errno
import os
import posix
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hostile import CANARY, outside, replace
from test_files import descriptors
from test_scan import ENDED, training

from yolo_clearml.errors import RunUnreadable, YoloClearmlError
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.places import Unreadable, in_place_of
from yolo_clearml.rundir.results_csv import Row, parse
from yolo_clearml.rundir.run import NotARun, Run
from yolo_clearml.rundir.scan import scan

NOW = ENDED + 1e6
_BY_NAME = ("open", "stat", "lstat", "fstat", "scandir")
_OF_FILES = ("read", "readinto", "readline", "seek")


def touches(call: Any) -> bool:
    """Return whether a call of C code asks the file system."""
    owner, name = getattr(call, "__self__", None), getattr(call, "__name__", "")
    if owner is posix or isinstance(owner, os.DirEntry):
        return name in (*_BY_NAME, "is_dir", "is_file")
    return isinstance(owner, (_io.BufferedReader, _io.FileIO)) and name in _OF_FILES


def disturbed(look: Callable[[], Any], act: Callable[[], object], at: int) -> tuple[Any, int]:
    """Look, and ``act`` just before the file system is asked for the ``at``-th time.

    Gives what was seen, or how it failed, and how often the file system was asked.
    """
    asked = 0

    def profile(frame: FrameType, event: str, call: Any) -> None:
        nonlocal asked
        if event == "c_call" and touches(call):
            asked += 1
            if asked == at:
                sys.setprofile(None)
                act()
                sys.setprofile(profile)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        seen: Any = look()
    except YoloClearmlError as error:
        seen = error
    finally:
        sys.setprofile(before)
    return seen, asked


def files(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.is_file()]


def vanish(run: Path) -> None:
    shutil.rmtree(run)


def vanish_in_part(run: Path) -> None:
    for path in files(run):
        path.unlink()


def empty(run: Path) -> None:
    for path in files(run):
        os.truncate(path, 0)


def cut(run: Path) -> None:
    for path in files(run):
        os.truncate(path, path.stat().st_size // 2)


def grow(run: Path) -> None:
    for path in files(run):
        with path.open("ab") as file:
            file.write(b"4,120,0.2,0.4,0.4,0.001\n")


def become(kind: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for path in files(run):
            replace(path, kind)

    change.__name__ = f"become_{kind.replace(' ', '_')}"
    return change


def lead_weights_elsewhere(run: Path) -> None:
    (run / "weights").rename(run / "moved")
    (run / "weights").symlink_to(run.parent / "outside")


def become_a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_bytes(b"")


CHANGES = [
    *(vanish, vanish_in_part, empty, cut, grow, become("link out"), become("fifo"), become("folder")),
    *(lead_weights_elsewhere, become_a_file),
]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Give a function that makes the same small training again, in the same place, as it was at first."""
    outside(tmp_path)
    master = training(tmp_path / "master")
    for name in ("train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg", "BoxF1_curve.png"):
        (master / name).unlink()
    for name in ("confusion_matrix.png", "val_batch0_labels.jpg"):
        (master / name).unlink()

    def make() -> Path:
        run = tmp_path / "train"
        for path in (run, tmp_path / "moved"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        shutil.copytree(master, run)
        return run

    yield make


def rows_in(run: Path) -> set[Row]:
    """Give the rows of a results.csv that is the run's own."""
    path = run / "results.csv"
    own = path.is_file() and not path.is_symlink() and not run.is_symlink()
    return set(parse(path.read_bytes()).rows) if own else set()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_directory_that_changes_between_any_two_looks(
    change: Callable[[Path], None], fresh: Callable[[], Path]
) -> None:
    """It is seen as it was or as it is, in each of its parts, or it is refused in a sentence; nothing outside
    it is seen, nothing stays open, and no row is seen that neither the old file nor the new one holds."""
    run = fresh()
    whole, asked = disturbed(lambda: scan(run, NOW), lambda: None, 0)
    assert asked > 50
    assert isinstance(whole, Run)
    rows = rows_in(run)
    change(run)
    rows |= rows_in(run)
    before = descriptors()
    for at in range(1, asked + 1):
        run = fresh()
        seen, _ = disturbed(lambda: scan(run, NOW), lambda: change(run), at)  # noqa: B023  called at once
        assert isinstance(seen, (Run, NotARun, YoloClearmlError))
        assert CANARY.decode() not in repr(seen)
        if isinstance(seen, Run):
            assert set(seen.table.rows) <= rows
            assert plan(seen, Wishes()) == plan(seen, Wishes())
        assert before == descriptors()


def names_what_is_left_out(seen: object, whole: object) -> bool:
    """Return whether all but the pictures and weights that are named is as it would be."""
    assert isinstance(seen, Run)
    assert isinstance(whole, Run)
    left_out = {name for name in whole.files if in_place_of(name, seen.places) is not None}
    kept = {name: stamp for name, stamp in whole.files.items() if name not in left_out}
    return bool(left_out) and (kept, whole.table, whole.args) == (seen.files, seen.table, seen.args)


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE], ids=errno.errorcode.get
)
def test_a_directory_that_cannot_be_read_at_any_one_look(number: int, fresh: Callable[[], Path]) -> None:
    """It is refused, or nothing was missed, or just that is named: it is never taken for something else."""
    run = fresh()
    whole, asked = disturbed(lambda: scan(run, NOW), lambda: None, 0)

    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    before = descriptors()
    refused = named = 0
    for at in range(1, asked + 1):
        seen, _ = disturbed(lambda: scan(run, NOW), refuse, at)
        assert (
            isinstance(seen, RunUnreadable)
            or repr(seen) == repr(whole)
            or names_what_is_left_out(seen, whole)
        )
        if isinstance(seen, Run) and seen.places:
            named += 1
            assert {Unreadable(os.strerror(number))} == set(seen.places.values())
        if isinstance(seen, RunUnreadable):
            assert os.strerror(number) in str(seen)
            refused += 1
        assert before == descriptors()
    assert refused + named > 50
    assert min(refused, named) > 10
