"""Where file times are coarse, two ledgers of one run can have the same; the one saved last counts."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from test_ledger import FULL, ReadOnly, load, run, save, state

from yolo_clearml.sync.ledger import FileLedgers

__all__ = ["run", "state"]  # fixtures
_THEN = 1_700_000_000 * 10**9  # nanoseconds since the epoch


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever is written now have one and the same time, as within a tick of two seconds of FAT."""
    genuine = os.fstat

    def call(descriptor: int) -> os.stat_result:
        status = genuine(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_mtime_ns > _THEN + 3600 * 10**9:
            os.utime(descriptor, ns=(_THEN, _THEN))
        return genuine(descriptor)

    monkeypatch.setattr(os, "fstat", call)


def test_of_two_ledgers_of_one_time_the_one_saved_last_counts(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch, coarse: None
) -> None:
    """In the run directory, then in the user's own, where that takes none any more; and back again."""
    save(run, FULL)
    with monkeypatch.context() as patch:
        ReadOnly(patch, run, errno.EROFS)
        save(run, replace(FULL, task="later"))
    assert "later" == load(run).task
    with FileLedgers().hold(run) as held:
        held.save(replace(FULL, task="last"))
        assert "last" == load(run).task
