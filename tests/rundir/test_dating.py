"""Dates that are a copy's are not stated as the training's, and a wrong clock ends no training."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from test_ending import of_old, without_weights
from test_rules import planned
from test_scan import BEGAN, ENDED, ROWS, WROTE, checkpoint, put, renew, run_of, training

from yolo_clearml.events import Properties, RunState
from yolo_clearml.rundir.dating import Dated

COPIED = datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp()
COPY = "unknown: the files have the times of a copy, 2026-03-01T00:00:0"


def said(path: Path, now: float = COPIED + 1e6) -> tuple[str, str]:
    """Give what is reported to ClearML of when the training began and ended."""
    plan = planned(path, now)
    (told,) = (e.values for report in plan.reports for e in report.events if isinstance(e, Properties))
    return told["trained_from"], told["trained_until"]


@pytest.mark.parametrize("apart", [0.0, 0.001, 2.0])
def test_the_dates_of_a_copy_are_not_stated_as_the_trainings(tmp_path: Path, apart: float) -> None:
    """90 seconds of training do not lie within 20 of file times, so results.csv itself shows it."""
    path = without_weights(tmp_path / "train")
    renew(path, COPIED, apart)
    began, ended = said(path)
    assert began.startswith(COPY[:-2])
    assert began == ended
    assert "when it was trained (the files have the times of a copy)" in planned(path).missing


def test_the_dates_of_a_copy_without_a_time_column(tmp_path: Path) -> None:
    """Every file of one second, and three epochs."""
    path = of_old(tmp_path / "train")
    assert ("2026-01-01T00:00:08+00:00 (by file times alone)", RunState.FINISHED) == (
        said(path)[0],
        run_of(path).state,
    )
    renew(path, COPIED, 0.0)
    assert said(path)[0].startswith(COPY)


@pytest.mark.parametrize("at", [315_532_800.0, 0.0])
def test_files_of_1980_and_1970(tmp_path: Path, at: float) -> None:
    """As archives without dates leave them, however far apart they are."""
    path = without_weights(tmp_path / "train")
    for file in path.iterdir():
        before = file.stat().st_mtime
        os.utime(file, (at + before - BEGAN, at + before - BEGAN))
    assert said(path)[0].startswith("unknown: ")


def test_a_copy_whose_first_batches_are_newer_than_its_rows(tmp_path: Path) -> None:
    """A slow one, in order of name: no training draws its first batch after its last row."""
    path = of_old(tmp_path / "train")
    renew(path, COPIED, 5.0)
    assert said(path)[0].startswith("unknown: ")
    os.utime(path / "results.csv", (COPIED + 1000, COPIED + 1000))
    assert said(path)[0].endswith(" (by file times alone)")


def test_the_date_in_a_checkpoint_survives_a_copy(tmp_path: Path) -> None:
    """It is what the dates rest on then, and they say so."""
    path = training(tmp_path / "train")
    assert ("2026-01-01T00:00:10+00:00", "2026-01-01T00:01:40+00:00") == said(path)
    renew(path, WROTE + 600)  # minutes later
    assert (
        "2026-01-01T00:00:10+00:00 (by the date in the checkpoint)",
        "2026-01-01T00:01:40+00:00 (by the date in the checkpoint)",
    ) == said(path)
    for name in ("last.pt", "best.pt"):
        checkpoint(path / "weights" / name, COPIED, date="2026-01-01T00:01:40")
    renew(path, COPIED)
    assert said(path)[1].endswith(" (by the date in the checkpoint, read in this machine's time zone)")


def test_a_copy_of_a_moment_ago_that_is_all_there_has_finished(tmp_path: Path) -> None:
    """A fresh clone: nobody writes to it, so nothing is waited for."""
    path = without_weights(tmp_path / "train")
    (path / "results.png").unlink()
    renew(path, COPIED)
    assert RunState.FINISHED is run_of(path, COPIED + 10).state


# -- clocks


def growing(path: Path, off: timedelta, zone: timezone | None, each: float = 30.0) -> float:
    """Make a training whose third of nine epochs has just ended; its checkpoints' dates are ``off``."""
    training(path, stripped=False, epochs=9)
    rows = [row.replace(f",{n * 30},", f",{n * each},") for n, row in enumerate(ROWS, 1)]
    header = "epoch,time,train/loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0"
    put(path / "results.csv", "\n".join((header, *rows, "")), WROTE)
    date = datetime.fromtimestamp(WROTE, timezone.utc) + off
    for name in ("last.pt", "best.pt"):
        text = date.replace(tzinfo=zone).isoformat()
        checkpoint(path / "weights" / name, epoch=2, optimizer={"lr": 0.1}, date=text)
    return WROTE + 10


@pytest.mark.parametrize("zone", [timezone.utc, None])
@pytest.mark.parametrize("each", [30.0, 0.3])
@pytest.mark.parametrize("minutes", [-90, 90, -1440])
def test_a_clock_that_is_off_does_not_end_a_live_run(
    tmp_path: Path, zone: timezone | None, each: float, minutes: int
) -> None:
    """A container in another zone, a node without NTP: its files are being written, at times that fit."""
    now = growing(tmp_path / "train", timedelta(minutes=minutes), zone, each)
    run = run_of(tmp_path / "train", now)
    assert (RunState.LIVE, False, WROTE) == (run.state, run.copied, run.times.ended / 1000)
    if zone is not None:
        how = "behind" if minutes < 0 else "ahead of"
        assert any(
            f"clock is {abs(minutes)} minutes {how} the file times" in m for m in _missing(run.path, now)
        )


def test_the_first_row_of_a_quick_training_with_a_clock_that_is_off(tmp_path: Path) -> None:
    """All its files are a moment old, which is no sign of a copy where it took no longer."""
    now = growing(tmp_path / "train", timedelta(minutes=-90), timezone.utc, 0.3)
    renew(tmp_path / "train", WROTE)
    assert (RunState.LIVE, False) == ((run := run_of(tmp_path / "train", now)).state, run.copied)


def _missing(path: Path, now: float) -> tuple[str, ...]:
    return planned(path, now).missing


def test_a_node_without_any_clock(tmp_path: Path) -> None:
    """Years off, on a file server that knows the time."""
    now = growing(tmp_path / "train", timedelta(days=-3000), timezone.utc)
    assert RunState.LIVE is run_of(tmp_path / "train", now).state
    later = run_of(tmp_path / "train", now + 1e6)
    assert (RunState.STOPPED, Dated.CHECKPOINT) == (later.state, later.dated)  # as a slow copy would be


def test_a_clock_that_is_right_is_not_spoken_of(tmp_path: Path) -> None:
    """Nor is a date without a zone that fits one."""
    for number, zone in enumerate((timezone.utc, None)):
        now = growing(tmp_path / str(number), timedelta(0), zone)
        assert not any("clock" in missing for missing in _missing(tmp_path / str(number), now))


def test_a_copy_of_a_dead_run_is_not_brought_to_life_by_its_new_times(tmp_path: Path) -> None:
    """What a wrong clock is given credit for, 90 seconds within one do not get."""
    growing(tmp_path / "train", timedelta(0), timezone.utc)
    renew(tmp_path / "train", WROTE + 5400)
    run = run_of(tmp_path / "train", WROTE + 5410)
    assert (RunState.STOPPED, True, WROTE) == (run.state, run.copied, run.times.ended / 1000)
    assert ENDED > WROTE
