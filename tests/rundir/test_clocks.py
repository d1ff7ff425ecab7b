"""Clocks that differ: the trainer's, in whichever zone, the file server's and this machine's."""

from __future__ import annotations

import time
import zoneinfo
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from test_dating import growing
from test_rules import planned
from test_scan import WROTE, put, renew, run_of

from yolo_clearml.events import RunState
from yolo_clearml.rundir.dating import _ZONES, Dated, Dating, dated

WRITTEN = round(WROTE * 1000)
HOUR = 3_600_000  # milliseconds


def naive(hours: float, minutes: float = 0.0) -> str:
    """Give the date that a trainer writes when the file is written: its zone, how wrong its clock is."""
    local = datetime.fromtimestamp(WROTE, timezone.utc) + timedelta(hours=hours, minutes=minutes)
    return local.replace(tzinfo=None).isoformat()


# -- dates without a zone --------------------------------------------------------------------------------


def test_the_offsets_are_those_that_exist() -> None:
    """Somewhere, in some month since 2020, when there was the first release that is replayed."""
    places = [zoneinfo.ZoneInfo(name) for name in zoneinfo.available_timezones()]
    if not places:
        pytest.skip("needs a time zone database")
    months = [datetime(year, month, 15) for year in range(2020, 2027) for month in range(1, 13)]
    there = {month.replace(tzinfo=place).utcoffset() for place in places for month in months}
    assert sorted(offset for offset in there if offset is not None) == list(_ZONES)
    assert all(offset % timedelta(minutes=15) == timedelta(0) for offset in _ZONES)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("fit", [True, None])
def test_a_date_without_a_zone_is_read_in_the_one_that_fits(fit: bool | None, fresh: bool) -> None:
    """Of each that exists, some seconds after the row; which one is said, unless it fits as it stands."""
    for zone in _ZONES:
        dating = dated(WRITTEN, naive(zone / timedelta(hours=1), 0.2), 0, fit, fresh)
        assert (WRITTEN, Dated.FILES) == (dating.written, dating.rests_on)
        if zone == timedelta(0):
            assert dating.clock is None
        else:
            assert dating.clock is not None
            assert f"(read as {timezone(zone)}, where it fits the file times best)" in dating.clock


def test_the_rows_since_the_checkpoint_count() -> None:
    """A checkpoint of three hours before the last row is not of a zone three hours off."""
    assert Dating(WRITTEN, Dated.FILES, None) == dated(WRITTEN, naive(-3), 3 * HOUR, True, False)


@pytest.mark.parametrize(("hours", "copied"), [(-12.9, False), (-13.1, True), (-25, True), (14.9, False)])
def test_a_date_that_fits_no_zone_is_that_of_a_copy(hours: float, copied: bool) -> None:
    """A day is not a zone: between two that exist there is an hour, and beyond the last one nothing."""
    dating = dated(WRITTEN, naive(hours), 0, None, fresh=False)
    assert (Dated.CHECKPOINT_NAIVE if copied else Dated.FILES) is dating.rests_on
    assert (dating.written < WRITTEN) == copied


def test_no_zone_fits_the_times_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made some hours or days later, it is dated in this machine's zone, as is said."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for hours in (-50, -5):
        dating = dated(WRITTEN, naive(hours), 0, False, fresh=True)
        assert Dating(WRITTEN + hours * HOUR, Dated.CHECKPOINT_NAIVE) == dating
    # a copy is not older than its training: this date is of a zone farther east
    assert "UTC+05:00" in str(dated(WRITTEN, naive(5), 0, False, fresh=True).clock)
    monkeypatch.undo()
    time.tzset()


def test_a_clock_that_is_off_in_every_zone() -> None:
    """How much at least is said, as the zone is unknown; files that are written now count all the same."""
    for hours, said in ((-24.0, "at least 720 minutes behind"), (38.0, "at least 1440 minutes ahead of")):
        dating = dated(WRITTEN, naive(hours), 0, True, fresh=True)
        assert (WRITTEN, Dated.FILES) == (dating.written, dating.rests_on)
        assert f"clock is {said} the file times" in (dating.clock or "")


# -- live runs -------------------------------------------------------------------------------------------

UTC = timezone.utc
SCENES = {
    # what the checkpoint's date is off the file times, its zone, seconds an epoch, what is said of it
    "a container in UTC, of a release without zones": (timedelta(0), None, 30.0, None),
    "a workstation in Tokyo": (timedelta(hours=9), None, 30.0, "read as UTC+09:00,"),
    "one in Kathmandu, whose row is minutes older": (
        timedelta(hours=5, minutes=48),
        None,
        30.0,
        "UTC+05:45,",
    ),
    "before a change of summer time": (timedelta(hours=2), None, 30.0, "read as UTC+02:00,"),
    "after it, an hour back": (timedelta(hours=1), None, 30.0, "read as UTC+01:00,"),
    "no NTP, 90 minutes behind": (timedelta(minutes=-90), UTC, 30.0, "90 minutes behind"),
    "no NTP, 90 minutes ahead": (timedelta(minutes=90), UTC, 30.0, "90 minutes ahead of"),
    "90 minutes behind, and no zone": (timedelta(minutes=-90), None, 30.0, "read as UTC-0"),
    "quick epochs, 90 minutes behind": (timedelta(minutes=-90), UTC, 0.3, "90 minutes behind"),
    "local time that says it is UTC": (timedelta(hours=-8), UTC, 30.0, "480 minutes behind"),
    "a clock that was never set": (timedelta(days=-9000), UTC, 30.0, "minutes behind"),
    "the same without a zone": (timedelta(days=-9000), None, 30.0, "minutes behind"),
    "a clock years ahead": (timedelta(days=2000), UTC, 30.0, "minutes ahead of"),
}


@pytest.mark.parametrize("scene", SCENES)
def test_a_live_run_is_live_whatever_the_trainers_clock_says(tmp_path: Path, scene: str) -> None:
    """It is dated by its files, and what was assumed is named beside what is not on disk (-v)."""
    off, zone, each, said = SCENES[scene]
    now = growing(tmp_path / "train", off, zone, each)
    run = run_of(tmp_path / "train", now)
    assert (RunState.LIVE, False, WROTE) == (run.state, run.copied, run.times.ended / 1000)
    assert run.clock is None if said is None else said in (run.clock or "")
    assert [run.clock] == [
        m for m in planned(run.path, now).missing if "clock" in m or "zone" in m
    ] or not said


@pytest.mark.parametrize("ahead", [600.0, 10_800.0])
def test_a_file_server_whose_clock_is_ahead(tmp_path: Path, ahead: float) -> None:
    """Its times are yet to come here; nothing is as fresh as that."""
    growing(tmp_path / "train", timedelta(0), UTC)
    assert RunState.LIVE is run_of(tmp_path / "train", WROTE - ahead).state


@pytest.mark.parametrize("zone", [UTC, None])
def test_a_clock_that_is_set_during_a_training(tmp_path: Path, zone: timezone | None) -> None:
    """NTP sets it three hours forward: by the column ``time`` it took longer than file times can hold."""
    now = growing(tmp_path / "train", timedelta(0), zone)
    table = (tmp_path / "train" / "results.csv").read_text().replace("\n3,90.0,", "\n3,10890.0,")
    assert "10890" in table
    put(tmp_path / "train" / "results.csv", table, WROTE)
    run = run_of(tmp_path / "train", now)
    assert (RunState.LIVE, WROTE) == (run.state, run.times.ended / 1000)


# -- copies ----------------------------------------------------------------------------------------------


def test_a_copy_that_looks_live_says_why_it_counts_as_stopped(tmp_path: Path) -> None:
    """Its files are new and its checkpoint is not: with -v, while they are new."""
    growing(tmp_path / "train", timedelta(0), UTC)
    renew(tmp_path / "train", WROTE + 5400)
    run = run_of(tmp_path / "train", WROTE + 5410)
    assert (RunState.STOPPED, True) == (run.state, run.copied)
    (said,) = (m for m in planned(run.path, WROTE + 5410).missing if "still training" in m)
    written = datetime.fromtimestamp(WROTE, UTC).isoformat(timespec="seconds")
    assert f"by the date in the checkpoint it last wrote at {written}; so it counts as stopped" in said
    assert not any("still training" in m for m in planned(run.path, WROTE + 1e6).missing)
    assert RunState.STOPPED is run_of(run.path, WROTE + 1e6).state
