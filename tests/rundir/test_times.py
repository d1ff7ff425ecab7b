"""When each epoch ended, to the millisecond, from a column of seconds and the times of files."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_clearml.rundir.results_csv import Row, Table
from yolo_clearml.rundir.times import Times, last_write, when

WRITTEN = 1_700_000_000_000  # milliseconds since the epoch


def table(*rows: tuple[int, float]) -> Table:
    """Rows of (epoch, time)."""
    return Table(("time",), tuple(Row(epoch, (time,), b"") for epoch, time in rows))


def test_a_plain_run() -> None:
    """The last row was written when the file was, and the others as much earlier as ``time`` says."""
    assert Times(
        began=WRITTEN - 6_000,
        ended=WRITTEN,
        at={1: WRITTEN - 4_000, 2: WRITTEN - 1_500, 3: WRITTEN},
        took={1: 2.0, 2: 2.5, 3: 1.5},
        exact=True,
    ) == when(table((1, 2.0), (2, 4.5), (3, 6.0)), WRITTEN, None)


def test_the_first_batch_of_a_plain_run_does_not_move_its_rows() -> None:
    """``time`` is nearer the truth than when a thread had drawn a picture."""
    rows = table((1, 2.0), (2, 4.5))
    for drawn in (WRITTEN - 9_000, WRITTEN - 4_000):
        assert when(rows, WRITTEN, None) == when(rows, WRITTEN, drawn)


def test_a_resume_starts_the_clock_again() -> None:
    """The first process began with its first batch, the second as long before the last row as it says."""
    assert Times(
        began=WRITTEN - 100_000,
        ended=WRITTEN,
        at={1: WRITTEN - 98_000, 2: WRITTEN - 96_000, 3: WRITTEN - 1_500, 4: WRITTEN},
        took={1: 2.0, 2: 2.0, 3: 1.5, 4: 1.5},
        exact=True,
    ) == when(table((1, 2.0), (2, 4.0), (3, 1.5), (4, 3.0)), WRITTEN, WRITTEN - 100_000)


def test_a_resume_without_a_first_batch_follows_at_once() -> None:
    """With nothing on disk that says when, the first process ended when the second began."""
    times = when(table((1, 2.0), (2, 4.0), (3, 1.5)), WRITTEN, None)
    assert {1: WRITTEN - 3_500, 2: WRITTEN - 1_500, 3: WRITTEN} == times.at
    assert WRITTEN - 5_500 == times.began


def test_a_first_batch_drawn_after_a_resume_is_not_believed() -> None:
    """A process cannot have ended after the next one began."""
    rows = table((1, 2.0), (2, 4.0), (3, 1.5))
    assert when(rows, WRITTEN, None) == when(rows, WRITTEN, WRITTEN - 1_000)


def test_of_a_doubled_epoch_the_later_row_counts() -> None:
    """Killed before the checkpoint and resumed: the time and the length are those of the second pass."""
    times = when(table((1, 2.0), (2, 4.0), (2, 1.5), (3, 3.0)), WRITTEN, None)
    assert {1: WRITTEN - 5_000, 2: WRITTEN - 1_500, 3: WRITTEN} == times.at
    assert {1: 2.0, 2: 1.5, 3: 1.5} == times.took


def test_a_doubled_epoch_begins_a_process_even_where_time_goes_on_growing() -> None:
    """A second pass that took longer than the whole first process is still a second process."""
    times = when(table((1, 1.0), (2, 2.0), (2, 5.0)), WRITTEN, None)
    assert {1: 1.0, 2: 5.0} == times.took
    assert {1: WRITTEN - 6_000, 2: WRITTEN} == times.at


def test_without_a_time_column_rows_are_spread_evenly() -> None:
    """From the first batch to the last row, an equal share each; nothing claims to know their lengths."""
    rows = Table(("a",), tuple(Row(epoch, (0.0,), b"") for epoch in (0, 1, 2, 3)))
    quarter = {epoch: WRITTEN - 3_000 + epoch * 1_000 for epoch in range(4)}
    assert Times(WRITTEN - 4_000, WRITTEN, quarter, {}, exact=False) == when(rows, WRITTEN, WRITTEN - 4_000)
    at_once = dict.fromkeys(range(4), WRITTEN)
    for useless in (None, WRITTEN, WRITTEN + 5_000):
        assert Times(WRITTEN, WRITTEN, at_once, {}, exact=False) == when(rows, WRITTEN, useless)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -0.5, 1e9, 1e300])
def test_a_time_that_cannot_be_makes_the_column_worthless(odd: float) -> None:
    """One cell that is no duration, and the rows are spread as if there were no column."""
    for position in range(3):
        seconds = [1.0, 2.0, 3.0]
        seconds[position] = odd
        times = when(table(*enumerate(seconds, start=1)), WRITTEN, WRITTEN - 3_000)
        spread = {1: WRITTEN - 2_000, 2: WRITTEN - 1_000, 3: WRITTEN}
        assert Times(WRITTEN - 3_000, WRITTEN, spread, {}, exact=False) == times


@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1e10)), min_size=1, max_size=12),
    written=st.integers(0, 2**42),
    batch=st.none() | st.integers(0, 2**42),
)
def test_whatever_rows_claim_every_epoch_gets_a_time(
    rows: list[tuple[int, float]], written: int, batch: int | None
) -> None:
    """Each epoch has one, between the beginning and the last row, and not before 1970."""
    times = when(table(*rows), written, batch)
    assert {epoch for epoch, _ in rows} == set(times.at)
    assert times.began >= 0
    assert all(at >= times.began for at in times.at.values())
    assert all(took >= 0 for took in times.took.values())


# -- when results.csv was last written


def date_of(milliseconds: int, zone: timezone | None = timezone.utc) -> str:
    date = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return (date.astimezone(zone) if zone else date.replace(tzinfo=None)).isoformat()


HOUR = 3_600_000  # milliseconds


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=9)), timezone(timedelta(hours=-11))])
def test_a_copy_is_as_old_as_its_checkpoint(zone: timezone) -> None:
    """A file time far behind the checkpoint's own dated word is that of a copy."""
    saved = WRITTEN - 300 * HOUR
    assert saved == last_write(WRITTEN, date_of(saved, zone))


def test_an_original_has_its_file_time() -> None:
    """A checkpoint is saved within the hour; then the file's time, which is more exact, is taken."""
    for before in (0, 100, HOUR, -HOUR, -300 * HOUR):  # also a checkpoint saved after the file
        assert WRITTEN == last_write(WRITTEN, date_of(WRITTEN - before))
    assert WRITTEN - HOUR - 1 == last_write(WRITTEN, date_of(WRITTEN - HOUR - 1))


def test_a_date_without_a_zone_may_be_of_any() -> None:
    """Before 8.4.190 a date is local time of some machine: a day's difference is no sign of a copy."""
    assert WRITTEN == last_write(WRITTEN, date_of(WRITTEN - 11 * HOUR, None))
    copied = last_write(WRITTEN, date_of(WRITTEN - 300 * HOUR, None))
    assert abs(WRITTEN - 300 * HOUR - copied) <= 15 * HOUR


def test_the_zone_of_utc_may_be_a_letter() -> None:
    """``Z`` is read on every Python."""
    assert 1_600_000_000_000 == last_write(WRITTEN, "2020-09-13T12:26:40Z")


@pytest.mark.parametrize(
    "nonsense",
    [
        *(None, "", "yesterday", "2026-13-45T00:00:00", "0001-01-01T00:00:00", "0001-01-01T00:00:00+23:59"),
        *(
            "9999-12-31T23:59:59-23:59",
            "1960-01-01T00:00:00+00:00",
            "2026-11-22T10:05:37+99:99",
            "\0",
            "8" * 10_000,
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_date_that_cannot_be_is_not_believed(nonsense: str | None) -> None:
    """Then the file's time stands."""
    assert WRITTEN == last_write(WRITTEN, nonsense)
