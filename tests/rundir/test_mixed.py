"""A results.csv with rows of another training than the one args.yaml is of."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_ending import OLD_COLUMNS, OLD_ROWS, of_old
from test_scan import BEGAN, ENDED, WROTE, put, refused, run_of, training

from yolo_clearml.errors import RunUnreadable
from yolo_clearml.rundir.results_csv import Misfit, of_other_columns, parse
from yolo_clearml.rundir.scan import scan

WIDE_ROWS = tuple(f"{n},0.5,0.6,0.1,0.2,0.3,0.001" for n in (1, 2, 3, 4))


def table(*rows: str) -> str:
    return "\n".join((OLD_COLUMNS, *rows, ""))


@pytest.mark.parametrize("count", [1, 4])
def test_rows_of_other_columns_at_the_end_are_refused(tmp_path: Path, count: int) -> None:
    """detect, then segment, into one file with one header: whose rows these are is known, their names not."""
    path = of_old(tmp_path / "train", epochs=4)
    put(path / "results.csv", table(*OLD_ROWS[:5], *WIDE_ROWS[:count]), WROTE)
    said = refused(path)
    assert "holds two trainings with different columns: its header names the 5 of the first" in said
    assert "rows have 7 values" in said


def test_rows_of_other_columns_before_the_newest_training_are_an_earlier_ones(tmp_path: Path) -> None:
    """detect, segment, and detect again: the last are of the header's columns, and the run's own."""
    path = of_old(tmp_path / "train", exist_ok=True)
    put(path / "results.csv", table(*OLD_ROWS[:5], *WIDE_ROWS, *OLD_ROWS[:3]), WROTE)
    run = run_of(path)
    assert (9, [1, 2, 3], ()) == (
        run.earlier_rows,
        [row.epoch for row in run.table.rows],
        run.table.malformed,
    )


def test_a_torn_row_that_was_written_on_is_no_other_training(tmp_path: Path) -> None:
    """Killed within a row, then resumed: both are one line, which goes on counting."""
    path = of_old(tmp_path / "train", epochs=5)
    torn = f"{OLD_ROWS[3][:9]}{OLD_ROWS[3]}"
    assert OLD_COLUMNS.count(",") < torn.count(",")
    for rows in ((*OLD_ROWS[:3], torn), (*OLD_ROWS[:3], torn, OLD_ROWS[4])):
        put(path / "results.csv", table(*rows), WROTE)
        run = run_of(path)
        assert (0, (5,), len(rows) - 1) == (run.earlier_rows, run.table.malformed, len(run.table.rows))


@pytest.mark.parametrize(
    ("task", "columns"), [("segment", "(B)"), ("detect", "(B) (M)"), ("classify", "(B)")]
)
def test_rows_of_another_task_are_refused(tmp_path: Path, task: str, columns: str) -> None:
    """A second training was begun in the place of a first, of another task, and there is one header."""
    path = training(tmp_path / "train", task=task, exist_ok=True)
    names = ["epoch", "train/loss", *(f"metrics/mAP50{of}" for of in columns.split())]
    rows = [",".join([str(n), *["0.1"] * (len(names) - 1)]) for n in (1, 2, 3)]
    for at, twice in ((BEGAN - 5000, 1), (WROTE, 2)):  # before it, or its own rows are there as well
        put(path / "results.csv", "\n".join((",".join(names), *rows * twice, "")), at)
        with pytest.raises(RunUnreadable, match=f"its columns are not those of '{task}'"):
            scan(path, ENDED + 1e6)
    put(path / "results.csv", "\n".join((",".join(names), *rows, "")), WROTE)
    assert run_of(path).table.rows  # nothing says that there ever was another one


def test_misfits_are_named_with_their_place() -> None:
    """Line, epoch, width, and how many rows came before; what holds no numbers is none."""
    parsed = parse(table(*OLD_ROWS[:2], *WIDE_ROWS[:2], "1,a,b,c,d,e,f").encode())
    assert (Misfit(4, 1, 7, 2), Misfit(5, 2, 7, 2)) == parsed.misfits == of_other_columns(parsed)
    assert (4, 5, 6) == parsed.malformed


def test_rows_counted_from_one_below_rows_counted_from_nought() -> None:
    """An old release's file, gone on with by a newer one, which counts from one."""
    old = ["0,0.1,0.1,0.1,0.1", "1,0.1,0.1,0.1,0.1"]
    assert 4 == len(of_other_columns(parse(table(*old, *WIDE_ROWS).encode())))
    assert () == of_other_columns(parse(table(old[0], WIDE_ROWS[0]).encode()))  # may be the next one, torn
