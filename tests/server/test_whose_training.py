"""When a task of somebody else's is another training, and when it may keep how it ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_compare import NOTHING
from test_ledger import plan_of

from yolo_clearml.events import Report, RunState, Scalar
from yolo_clearml.server.adoption import another_training, ended_right

OURS = "yolo-clearml: the training finished"
SILENT = "Forced stop (non-responsive)"
STATUSES = ("created", "queued", "in_progress", "stopped", "completed", "failed", "closed", "published")


@pytest.mark.parametrize(
    ("state", "reason", "right"),
    [
        (RunState.LIVE, "", {"in_progress"}),
        (RunState.FINISHED, "", {"completed", "stopped"}),  # by hand
        (RunState.FINISHED, OURS, {"completed"}),
        (RunState.FINISHED, SILENT, {"completed"}),
        (RunState.STOPPED, "", {"completed", "stopped"}),
        (RunState.STOPPED, SILENT, {"completed", "stopped"}),
    ],
)
def test_who_reported_a_task_knows_how_it_ended_and_not_that_it_went_on(
    state: RunState, reason: str, right: set[str]
) -> None:
    """And what a person has closed stays so, whatever the run is."""
    closed = {"failed", "closed", "published"}
    assert right | closed == {status for status in STATUSES if ended_right(state, status, reason)}


@pytest.mark.parametrize(("wrong", "another"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_a_task_is_another_training_where_most_points_are_otherwise(wrong: int, another: bool) -> None:
    """Of four; half of them are not most."""
    values = [0.5 + number / 8 for number in range(4)]
    points = [Scalar("train", "train/box_loss", value, number, 0) for number, value in enumerate(values)]
    there = {number: value + (number < wrong) for number, value in enumerate(values)}
    holds = replace(NOTHING, scalars={("train", "train/box_loss"): there})
    plan = plan_of(*(Report(f"epoch/{point.iteration}", (point,)) for point in points))
    assert another == another_training(plan, holds)
