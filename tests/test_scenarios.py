"""The main scenarios, read back over the API: against the double, and with ``-m server`` a real server.

A real server is the one that CLEARML_* variables or clearml.conf name. What a test makes there lies in a
project of its own and is deleted when the test ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import MakeRun
from uploading import fails, upload

from yolo_clearml.clearml_api import Api
from yolo_clearml.engine import Delivered, UpToDate
from yolo_clearml.events import Image, OutputModel, Plan, Plot, Scalar, SingleValue
from yolo_clearml.ledger import LEDGER_NAME
from yolo_clearml.rules import Wishes, plan
from yolo_clearml.scan import Run, scan


@dataclass
class Site:
    """A server that can be read back, and a project of its own on it."""

    api: Api
    project: str

    @property
    def wishes(self) -> Wishes:
        return Wishes(project=self.project)

    def tasks(self) -> list[dict[str, Any]]:
        query = {"name": f"^{self.project}$", "search_hidden": True}
        projects = self.api.call("projects.get_all_ex", query)["projects"]
        found: list[dict[str, Any]] = []
        for project in projects:
            query = {"project": [project["id"]], "search_hidden": True}
            found += self.api.call("tasks.get_all_ex", query)["tasks"]
        return found

    def scalars(self, task: str) -> dict[tuple[str, str, int], float]:
        """Every point exactly as stored; the calls the web UI makes give averages."""
        query = {"tasks": [task], "event_type": "training_stats_scalar"}
        (found,) = self.api.call("events.get_task_metrics", query)["metrics"] or [{"metrics": []}]
        metrics = {str(item["metric"] if isinstance(item, dict) else item) for item in found["metrics"]}
        points: dict[tuple[str, str, int], float] = {}
        for metric in metrics - {"Summary"}:
            payload = {"task": task, "metric": {"metric": metric}, "batch_size": 10_000}
            for series, axes in self.api.call("events.scalar_metrics_iter_raw", payload)["variants"].items():
                for iteration, value in zip(axes["iter"], axes["y"], strict=True):
                    points[metric, series, iteration] = value
        return points

    def single_values(self, task: str) -> dict[str, float]:
        reply = self.api.call("events.get_task_single_value_metrics", {"tasks": [task]})
        return {value["variant"]: value["value"] for each in reply["tasks"] for value in each["values"]}

    def images(self, task: str) -> dict[tuple[str, str, int], bytes]:
        payload = {"task": task, "event_type": "training_debug_image", "batch_size": 500}
        events = self.api.call("events.get_task_events", payload)["events"]
        return {(e["metric"], e["variant"], e["iter"]): self.fetch(e["url"]) for e in events}

    def plots(self, task: str) -> dict[tuple[str, int], bytes]:
        events = self.api.call("events.get_task_plots", {"task": task, "iters": 10})["plots"]
        found = {}
        for event in events:
            (image,) = json.loads(event["plot_str"])["layout"]["images"]
            found[event["metric"], event["iter"]] = self.fetch(image["source"])
        return found

    def models(self, task: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.call("models.get_all", {"task": [task]})["models"]
        return found

    def fetch(self, url: str) -> bytes:
        headers = self.api._session.add_auth_headers({})
        reply = requests.get(url, headers=headers, timeout=30)
        reply.raise_for_status()
        return reply.content


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.server)])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    if request.param == "double":
        request.getfixturevalue("server")
    else:
        monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))
    site = Site(Api(30.0), f"yolo-clearml tests {uuid.uuid4().hex[:8]}")
    yield site
    for task in site.tasks():
        payload = {"task": task["id"], "force": True, "delete_output_models": True}
        site.api.call("tasks.delete", payload)


def planned(run: Path, site: Site) -> Plan:
    snapshot = scan(run, os.stat(run / "results.csv").st_mtime + 10 * 365 * 86400)
    assert isinstance(snapshot, Run)
    return plan(snapshot, site.wishes)


def assert_told(site: Site, run: Path) -> str:
    """The one task of this site holds exactly the run's plan; gives its id."""
    (task,) = site.tasks()
    events = [event for report in planned(run, site).reports for event in report.events]
    wanted = {(e.title, e.series, e.iteration): e.value for e in events if isinstance(e, Scalar)}
    assert wanted == pytest.approx(site.scalars(task["id"]))
    singles = {e.name: e.value for e in events if isinstance(e, SingleValue)}
    assert singles == pytest.approx(site.single_values(task["id"]))
    images = {
        (e.title, e.series, e.iteration): (run / e.file.name).read_bytes()
        for e in events
        if isinstance(e, Image)
    }
    assert images == site.images(task["id"])
    plots = {(e.title, e.iteration): (run / e.file.name).read_bytes() for e in events if isinstance(e, Plot)}
    assert plots == site.plots(task["id"])
    models = [e for e in events if isinstance(e, OutputModel)]
    assert [(e.name, dict(e.labels)) for e in models] == [
        (m["name"], m["labels"]) for m in site.models(task["id"])
    ]
    for model in site.models(task["id"]):
        stored = hashlib.sha256(site.fetch(model["uri"])).hexdigest()
        assert hashlib.sha256((run / "weights" / "best.pt").read_bytes()).hexdigest() == stored
    return str(task["id"])


@pytest.mark.parametrize("name", ["v8.4.190-detect", "v8.1.0-segment", "yolov5-7.0.14-detect"])
def test_a_finished_run_reads_back_whole(site: Site, make_run: MakeRun, name: str) -> None:
    """Every value, every picture, every byte of the model; the task is completed."""
    run = make_run(name)
    (outcome,) = upload([run], wishes=site.wishes, timeout=30.0)
    assert isinstance(outcome, Delivered), fails([outcome])
    assert_told(site, run)
    (task,) = site.tasks()
    assert "completed" == task["status"]
    (outcome,) = upload([run], wishes=site.wishes)
    assert isinstance(outcome, UpToDate)


def test_without_its_ledger_a_run_finds_its_task(site: Site, make_run: MakeRun) -> None:
    """Uploaded twice from nothing: the same task, and nothing in it twice."""
    run = make_run("v8.4.190-detect")
    upload([run], wishes=site.wishes, timeout=30.0)
    first = assert_told(site, run)
    (run / LEDGER_NAME).unlink()
    upload([run], wishes=site.wishes, timeout=30.0)
    assert first == assert_told(site, run)


def test_a_live_run_goes_on_and_ends(site: Site, make_run: MakeRun) -> None:
    """in_progress, then more rows, then stopped, all in one task."""
    run = make_run("v8.4.190-detect-killed")
    rows = (run / "results.csv").read_bytes().splitlines(keepends=True)
    moment = (run / "weights" / "last.pt").stat().st_mtime
    (run / "results.csv").write_bytes(b"".join(rows[:2]))
    os.utime(run / "results.csv", (moment, moment))
    upload([run], wishes=site.wishes, timeout=30.0, now=lambda: moment + 5)
    (task,) = site.tasks()
    assert "in_progress" == task["status"]
    assert {0} == {iteration for _, _, iteration in site.scalars(task["id"])}
    (run / "results.csv").write_bytes(b"".join(rows))
    os.utime(run / "results.csv", (moment, moment))
    upload([run], wishes=site.wishes, timeout=30.0)
    (task,) = site.tasks()
    assert "stopped" == task["status"]
    assert {0, 1, 2} == {iteration for _, _, iteration in site.scalars(task["id"])}
