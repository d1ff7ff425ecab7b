"""What was read back and found the same proves nothing of a file that nobody may read here."""

from __future__ import annotations

import errno

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_adopt import DETECT, delivered
from test_files import refuse
from uploading import upload

from yolo_clearml.errors import RunUnreadable
from yolo_clearml.sync.outcomes import Failed
from yolo_clearml.sync.work import Aim


def test_a_run_is_not_verified_while_a_file_of_it_cannot_be_read(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the rest is the same in ClearML."""
    run = make_run(DETECT)
    delivered(run)
    refuse(monkeypatch, "results.png", errno.EACCES)
    (outcome,) = upload([run], aim=Aim.VERIFY)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, RunUnreadable), outcome.error
    assert "results.png" in str(outcome.error)
