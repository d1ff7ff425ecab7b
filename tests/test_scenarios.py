"""The main courses, read back over the API: against the double, and with ``-m server`` a real server.

A real server is the one that CLEARML_* variables or clearml.conf name. What a test makes there lies in a
project of its own and is deleted when the test ends; and each run says of itself that it was trained in a
place of its own, so its key is no other's and no task of a person's is found by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import GOLDEN, MakeRun, long_after
from live import expected, with_sdk
from test_adopt import REPORTED
from test_offline_sink import IMPORT
from uploading import fails, upload

from yolo_clearml.events import DrawnPlot, Image, OutputModel, Plan, Plot, Scalar, SingleValue, Status
from yolo_clearml.library import Options, watch
from yolo_clearml.library import upload as upload_as_asked
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.files import PNG
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.rundir.run import Run
from yolo_clearml.rundir.scan import scan
from yolo_clearml.server.api import Api
from yolo_clearml.sync.engine import sync
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, configuration_stamp
from yolo_clearml.sync.outcomes import Delivered, Outcome, UpToDate
from yolo_clearml.sync.sinks import Sink
from yolo_clearml.sync.work import Aim, Lazily, Work

# every directory that holds a training
TRAININGS = sorted(
    path.name.removesuffix(".tar.gz")
    for path in GOLDEN.glob("*.tar.gz")
    if not path.name.startswith(("v8.4.190-predict", "v8.4.190-val", "v8.0.220-detect-died-in-setup"))
)
FEW = ("v8.4.190-detect", "v8.4.190-detect-killed", "yolov5-7.0.14-detect")  # of each kind one


@dataclass
class Site:
    """A server that can be read back, and a project of its own on it."""

    api: Api
    project: str
    others: list[str] = field(default_factory=list)  # tasks outside of it

    @property
    def wishes(self) -> Wishes:
        return Wishes(project=self.project)

    def tasks(self) -> list[dict[str, Any]]:
        query = {"name": f"^{self.project}$", "search_hidden": True}
        projects = self.api.call("projects.get_all_ex", query)["projects"]
        found: list[dict[str, Any]] = []
        for project in projects:
            query = {"project": [project["id"]], "search_hidden": True}
            found += self.api.rows("tasks.get_all_ex", query, "tasks")
        return found

    def task(self, task: str) -> dict[str, Any]:
        (found,) = self.api.rows("tasks.get_all_ex", {"id": [task]}, "tasks")
        return found

    def console(self, task: str) -> list[str]:
        return [event["msg"] for event in self.api.call("events.get_task_log", {"task": task})["events"]]

    def clean_up(self) -> None:
        for task in [*(task["id"] for task in self.tasks()), *self.others]:
            payload = {"task": task, "force": True, "delete_output_models": True}
            self.api.call("tasks.delete", payload)
        query = {"name": f"^{self.project}$", "search_hidden": True}
        for project in self.api.call("projects.get_all_ex", query)["projects"]:
            self.api.call("projects.delete", {"project": project["id"], "force": True})

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


def on_both(
    names: list[str], few: tuple[str, ...] = FEW, marks: pytest.MarkDecorator | tuple[()] = ()
) -> pytest.MarkDecorator:
    """Every directory on a real server, a few on the double, which other tests try them all on."""
    real = [pytest.param("real", name, marks=pytest.mark.server, id=f"real-{name}") for name in names]
    double = [pytest.param("double", name, id=f"double-{name}", marks=marks) for name in names if name in few]
    return pytest.mark.parametrize(("site", "name"), [*double, *real], indirect=["site"])


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.server)])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    if request.param == "double":
        request.getfixturevalue("server")
    else:
        monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))
    site = Site(Api(30.0), f"yolo-clearml tests {uuid.uuid4().hex[:8]}")
    yield site
    site.clean_up()


@pytest.fixture
def own_run(make_run: MakeRun) -> MakeRun:
    """Give a function that unpacks a real run which was trained nowhere else, file times kept."""

    def make(name: str) -> Path:
        run = make_run(name)
        place = f"scenario-{uuid.uuid4().hex}".encode()
        path = stated(run)
        times = path.stat()
        text, count = re.subn(rb"(?m)^save_dir: /?", b"save_dir: /%s/" % place, path.read_bytes())
        assert 1 == count
        path.write_bytes(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return run

    return make


def stated(run: Path) -> Path:
    """Where a run says how it was trained."""
    return next(path for path in (run / "args.yaml", run / "opt.yaml") if path.exists())


def planned(run: Path, site: Site) -> Plan:
    snapshot = scan(run, long_after())
    assert isinstance(snapshot, Run)
    return plan(snapshot, site.wishes)


def delivered(site: Site, run: Path, **options: Any) -> Delivered:
    (outcome,) = upload([run], wishes=site.wishes, timeout=30.0, **options)
    assert isinstance(outcome, Delivered), fails([outcome])
    return outcome


def visited(site: Site, run: Path, sink: Lazily, **options: Any) -> Outcome:
    wishes, hint = site.wishes, configuration_stamp()
    work = Work(sink, FileLedgers(), hint, wishes=wishes, now=long_after, **options)
    return list(sync(find_runs([run]), work))[-1]


def assert_nothing_is_asked(site: Site, run: Path) -> None:
    """Once more: no session is made, so no request either."""

    def none() -> Sink:
        raise AssertionError("asked the server")

    assert isinstance(visited(site, run, Lazily(none)), UpToDate)


def assert_verified(site: Site, run: Path) -> None:
    (outcome,) = upload([run], wishes=site.wishes, timeout=30.0, aim=Aim.VERIFY)
    assert isinstance(outcome, UpToDate) and outcome.proof is not None, fails([outcome])
    assert [] == list(map(str, outcome.proof.differences))


def assert_reported(site: Site, run: Path, task: str, *, exactly: bool = True) -> None:
    """A task holds the run's plan, and nothing else where ``exactly``; what it had before may differ."""
    events = [event for report in planned(run, site).reports for event in report.events]
    scalars, singles = site.scalars(task), site.single_values(task)
    wanted = {(e.title, e.series, e.iteration): e.value for e in events if isinstance(e, Scalar)}
    single = {e.name: e.value for e in events if isinstance(e, SingleValue)}
    images = {
        (e.title, e.series, e.iteration): (run / e.file.name).read_bytes()
        for e in events
        if isinstance(e, Image)
    }
    plots = {(e.title, e.iteration): (run / e.file.name).read_bytes() for e in events if isinstance(e, Plot)}
    drawn = {(e.title, e.iteration) for e in events if isinstance(e, DrawnPlot)}
    stored, models = site.plots(task), site.models(task)
    assert all(stored[place].startswith(PNG[0]) for place in drawn)
    assert wanted.keys() <= scalars.keys() and single.keys() <= singles.keys()
    assert images.keys() <= site.images(task).keys() and plots.keys() <= stored.keys()
    wanted_models = [e for e in events if isinstance(e, OutputModel)]
    assert [e.name for e in wanted_models] == [m["name"] for m in models]
    best = hashlib.sha256((run / "weights" / "best.pt").read_bytes()).hexdigest()
    assert {best for _ in models} == {hashlib.sha256(site.fetch(m["uri"])).hexdigest() for m in models}
    if exactly:
        assert wanted == pytest.approx(scalars)
        assert single == pytest.approx(singles)
        assert images == site.images(task)
        assert plots == {place: content for place, content in stored.items() if place not in drawn}
        assert [dict(e.labels) for e in wanted_models] == [m["labels"] for m in models]


def ended(run: Path, site: Site) -> str:
    """The status that a run's task is to have in the end."""
    (status,) = (e for report in planned(run, site).reports for e in report.events if isinstance(e, Status))
    return {"finished": "completed", "stopped": "stopped"}[status.state.value]


@on_both(TRAININGS)
def test_an_upload_reads_back_whole(site: Site, own_run: MakeRun, name: str) -> None:
    """Every value, every picture, every byte of the model, one line of the console; again asks nothing."""
    run = own_run(name)
    outcome = delivered(site, run)
    (task,) = site.tasks()
    assert_reported(site, run, task["id"])
    assert ended(run, site) == task["status"]
    assert 1 == len(site.console(task["id"]))
    assert f"/projects/{task['project']}/" in str(outcome.url)
    assert_nothing_is_asked(site, run)
    assert_verified(site, run)


@on_both(TRAININGS)
def test_without_its_ledger_and_by_force(site: Site, own_run: MakeRun, name: str) -> None:
    """Sent again in full: the same task, and nothing in it twice."""
    run = own_run(name)
    first = delivered(site, run).task_id
    delivered(site, run, force=True)
    (run / LEDGER_NAME).unlink()
    delivered(site, run)
    assert [first] == [task["id"] for task in site.tasks()]
    assert_reported(site, run, first)
    assert 1 == len(site.console(first))
    assert_verified(site, run)


@on_both(TRAININGS)
def test_a_new_task_beside_the_first(site: Site, own_run: MakeRun, name: str) -> None:
    """Both hold the run; what follows goes to the new one."""
    run = own_run(name)
    first = delivered(site, run).task_id
    new = delivered(site, run, new=True).task_id
    assert {first, new} == {task["id"] for task in site.tasks()} and first != new
    for task in (first, new):
        assert_reported(site, run, task)
    assert_nothing_is_asked(site, run)
    assert_verified(site, run)


@on_both(TRAININGS)
def test_into_a_task_without_a_project(site: Site, own_run: MakeRun, name: str) -> None:
    """--task-id: it holds the run, has an address, and is found again without the ledger."""
    run = own_run(name)
    given = str(site.api.call("tasks.create", {"name": "mine", "type": "training"})["id"])
    site.others.append(given)
    outcome = delivered(site, run, task_id=given)
    assert f"/projects/*/tasks/{given}/" in str(outcome.url)
    assert_reported(site, run, given)
    assert ended(run, site) == site.task(given)["status"]
    (run / LEDGER_NAME).unlink()
    assert given == delivered(site, run).task_id
    assert [] == site.tasks()
    assert_nothing_is_asked(site, run)
    assert_verified(site, run)


@on_both(TRAININGS)
def test_into_a_task_that_a_person_stopped(site: Site, own_run: MakeRun, name: str) -> None:
    """It takes what it lacks and stays stopped."""
    run = own_run(name)
    given = str(site.api.call("tasks.create", {"name": "mine", "type": "training"})["id"])
    site.others.append(given)
    site.api.call("tasks.started", {"task": given})
    site.api.call("tasks.stopped", {"task": given, "status_reason": "by hand"})
    delivered(site, run, task_id=given)
    assert_reported(site, run, given)
    assert "stopped" == site.task(given)["status"]
    assert_nothing_is_asked(site, run)
    assert_verified(site, run)


@on_both(REPORTED, FEW[:1], pytest.mark.exhaustive)
def test_a_task_that_the_stock_sdk_reported_is_completed(
    site: Site, own_run: MakeRun, tmp_path: Path, name: str
) -> None:
    """It gets what it lacks and no twin, and a copy without its ledger finds it again."""
    run = own_run(name)
    told = expected(f"{name}.expected")
    told |= {"project": site.project}
    place = re.findall(r"(?m)^save_dir: (.*)$", stated(run).read_text())[0]
    for values in (told.get("hyperparams") or {"General": told["hyperparams_General"]}).values():
        if "save_dir" in values:
            values["save_dir"]["value"] = place
    end = "stopped" if "killed" in name else "completed"
    live = with_sdk(dict(os.environ), told, run, tmp_path, end)
    outcome = delivered(site, run)
    assert live == outcome.task_id, outcome.notes
    (run / LEDGER_NAME).unlink()
    assert live == delivered(site, run).task_id
    assert [live] == [task["id"] for task in site.tasks()]
    assert_reported(site, run, live, exactly=False)
    assert end == site.task(live)["status"]
    assert_nothing_is_asked(site, run)
    assert_verified(site, run)


@on_both(TRAININGS)
def test_a_watch_delivers_what_it_finds(site: Site, own_run: MakeRun, name: str) -> None:
    """Until all runs have ended; an upload then has nothing to ask."""
    run = own_run(name)
    *_, outcome = watch([run.parent], Options(project=site.project, timeout=30.0), once=True)
    assert isinstance(outcome, Delivered), fails([outcome])
    assert_reported(site, run, outcome.task_id)
    assert ended(run, site) == site.task(outcome.task_id)["status"]
    assert_verified(site, run)


@on_both(TRAININGS)
def test_an_imported_session_is_recognised(site: Site, own_run: MakeRun, tmp_path: Path, name: str) -> None:
    """Exported, imported by the stock importer, uploaded: one task, and nothing in it twice."""
    run = own_run(name)
    options = Options(project=site.project, offline=tmp_path / "sessions", output_uri=site.api.files_host)
    *_, outcome = upload_as_asked(find_runs([run]), options)
    assert isinstance(outcome, Delivered), fails([outcome])
    (session,) = (tmp_path / "sessions").glob("*.zip")
    command = [sys.executable, "-c", IMPORT, str(session)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert 0 == done.returncode, done.stdout + done.stderr
    (imported,) = site.tasks()
    assert imported["id"] == delivered(site, run).task_id
    assert [imported["id"]] == [task["id"] for task in site.tasks()]
    assert_reported(site, run, imported["id"])
    assert 1 == len(site.console(imported["id"]))
    assert_nothing_is_asked(site, run)
    assert_verified(site, run)


def test_a_live_run_goes_on_and_ends(site: Site, own_run: MakeRun) -> None:
    """in_progress, then more rows, then stopped, all in one task."""
    run = own_run("v8.4.190-detect-killed")
    rows = (run / "results.csv").read_bytes().splitlines(keepends=True)
    moment = (run / "weights" / "last.pt").stat().st_mtime
    (run / "results.csv").write_bytes(b"".join(rows[:2]))
    os.utime(run / "results.csv", (moment, moment))
    delivered(site, run, now=lambda: moment + 5)
    (task,) = site.tasks()
    assert "in_progress" == task["status"]
    assert {0} == {iteration for _, _, iteration in site.scalars(task["id"])}
    (run / "results.csv").write_bytes(b"".join(rows))
    os.utime(run / "results.csv", (moment, moment))
    delivered(site, run)
    (task,) = site.tasks()
    assert "stopped" == task["status"]
    assert {0, 1, 2} == {iteration for _, _, iteration in site.scalars(task["id"])}
    assert 1 == len(site.console(task["id"]))
