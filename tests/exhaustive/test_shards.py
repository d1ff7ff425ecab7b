"""Four workers at once, each with its part of a tree: the server ends as after one of them alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from benchmark import make_run
from conftest import Doubles
from double import ClearMLDouble
from killing import hidden
from test_cli import COMMAND

from yolo_clearml.rundir.choice import Choice, Shard
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.sync.ledger import LEDGER_NAME

pytestmark = pytest.mark.exhaustive
WORKERS = 4
_LONG = 300  # seconds; a test that waits longer has failed


def told(server: ClearMLDouble) -> dict[str, Any]:
    """Give what is there of each run, by its directory; all are in one project, and none is there twice."""
    (project,) = {task["project"] for task in server.tasks.values()}
    assert project in server.projects
    found = {
        task["hyperparams"]["properties"]["run_directory"]["value"]: (
            task["status"],
            server.events_received(key),
            {place: event["value"] for place, event in server.scalars(key).items()},
            sorted(str(place[:3]) for place in server.images(key)),  # the rest is of the task's own id
            sorted(server.single_values(key)),
            [event["msg"] for event in server.logs(key)],
            sorted(model["name"] for model in server.models.values() if model["task"] == key),
        )
        for key, task in server.tasks.items()
    }
    assert len(server.tasks) == len(found)
    return found


def test_four_workers_do_what_one_does(doubles: Doubles, tmp_path: Path) -> None:
    """Nothing is lost, nothing is sent twice; the project, which each found missing, is there once."""
    runs = [make_run(tmp_path / "runs" / f"p{n % 3}" / f"train{n}", 5, 1, 0, 0) for n in range(24)]
    parts = [list(find_runs([tmp_path], Choice(shard=Shard(n, WORKERS)))) for n in range(1, WORKERS + 1)]
    assert all(parts)
    with doubles() as double:
        subprocess.run([*COMMAND, "upload", "-q", "runs"], cwd=tmp_path, check=True, timeout=_LONG)
        wanted = told(double)
    assert len(runs) == len(wanted)
    for run in runs:
        (run / LEDGER_NAME).unlink()
    with doubles() as double:
        workers = [
            subprocess.Popen([*COMMAND, "upload", "-q", "runs", "--shard", f"{n}/{WORKERS}"], cwd=tmp_path)
            for n in range(1, WORKERS + 1)
        ]
        assert [0] * WORKERS == [worker.wait(_LONG) for worker in workers]
        assert wanted == told(double)
        assert [[LEDGER_NAME]] * len(runs) == [hidden(run) for run in runs]
        count = len(double.requests)
        again = subprocess.run([*COMMAND, "upload", "runs"], cwd=tmp_path, capture_output=True, timeout=_LONG)
        assert (0, b"", b"", count) == (again.returncode, again.stdout, again.stderr, len(double.requests))
