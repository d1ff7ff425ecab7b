"""What Ultralytics' own callback reported during a real training, reported to the server double.

`report_live` posts what the SDK posts for the callback's calls. `report_by_sdk` makes those calls, with the
stock SDK in a process of its own; that takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from conftest import GOLDEN
from double import ClearMLDouble

SINGLE = -(2**31)  # the iteration of single values
RENDERED = b"\x89PNG\r\n\x1a\n as matplotlib draws it anew"


def expected(name: str) -> dict[str, Any]:
    """Read what was reported; ``name`` is that of a file in golden/, without ``.json``."""
    told: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return told


def report_live(
    server: ClearMLDouble, told: dict[str, Any], run: Path, *, end: str | None = "completed", **fields: Any
) -> str:
    """Make the live task and report everything to it; ``end`` is its last status, None: still in progress."""
    project = _project(server, told["project"])
    sections = told.get("hyperparams") or {"General": told["hyperparams_General"]}
    task: str = server.ask(
        "tasks.create",
        name=told["task_name"],
        project=project,
        type="training",
        tags=told["tags"],
        system_tags=["development"],
        runtime={"python_version": "3.12"},
        hyperparams={
            section: {name: {k: v for k, v in item.items() if v is not None} for name, item in values.items()}
            for section, values in sections.items()
        },
        **fields,
    )["id"]
    server.ask("tasks.started", task=task)
    folder = f"{told['project']}/{told['task_name']}.{task}"

    def event(kind: str, metric: str, variant: str, iteration: int, at: int, **more: Any) -> None:
        event = {"type": kind, "metric": metric, "variant": variant, "iter": iteration, "timestamp": at}
        server.ask("events.add", task=task, **event, **more)

    for title, series, iteration, value, at in told["scalars"]:
        event("training_stats_scalar", title, series, iteration, at, value=value)
    for name, value, at in told["single_values"]:
        event("training_stats_scalar", "Summary", name, SINGLE, at, value=value)
    for title, series, iteration, file, at in told["images"]:
        key = f"{folder}/metrics/{title}/{series}/{PurePosixPath(file).stem}_live.jpg"
        url = _store(server, key, _image(run, series, iteration))
        event("training_debug_image", title, series, iteration, at, key=key, url=url)
    for title, variant, iteration, _, file, at in told["plots"]:
        url = _store(server, f"{folder}/metrics/{title}/{variant}/{PurePosixPath(file).name}", RENDERED)
        layout = {"data": [], "layout": {"images": [{"source": url}]}}
        event("plot", title, variant, iteration, at, plot_str=json.dumps(layout))
    for model in told.get("output_model", ()):
        content = (run / "weights" / "best.pt").read_bytes()
        url = _store(server, f"{folder}/models/best.pt", content)
        entry = {"name": model["model_name"] or told["task_name"], "uri": url, "task": task}
        made = server.ask("models.create", **entry, project=project, framework="PyTorch", ready=False)
        server.ask("tasks.add_or_update_model", task=task, model=made["id"], type="output", name="best")
    if end:
        server.ask(f"tasks.{end}", task=task)
    return task


def _project(server: ClearMLDouble, name: str) -> str:
    for project in server.projects.values():
        if project["name"] == name:
            return str(project["id"])
    return str(server.ask("projects.create", name=name, description="")["id"])


def _image(run: Path, series: str, iteration: int) -> bytes:
    stem, _, ending = series.rpartition(".")
    kind, _, rest = stem.partition("_")
    return (run / f"{kind}_batch{iteration}{'_' + rest if rest else ''}.{ending}").read_bytes()


def _store(server: ClearMLDouble, key: str, content: bytes) -> str:
    server.files[key] = content
    return f"{server.files_url}/{quote(key)}"


SDK_CALLS = """
import itertools, json, sys
from pathlib import Path
from clearml import OutputModel, Task
import matplotlib
matplotlib.use("agg")
import matplotlib.image as mpimg
import matplotlib.pyplot as plt

told, run, end = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3]
# not Task.init: it allows one task per process, and its close takes ten seconds
task = Task.create(told["project"], told["task_name"], task_type=Task.TaskTypes.training)
task.mark_started(force=True)
task.add_tags(told["tags"])
task.output_uri = True
kinds = {"int": int, "float": float, "bool": lambda text: text == "True", "str": str}
if "hyperparams" in told:  # as of an argument parser, which states the types: any text may be an int
    items = {f"{section}/{name}": i for section, v in told["hyperparams"].items() for name, i in v.items()}
    values = {name: item["value"] for name, item in items.items()}
    task._set_parameters(values, __parameters_types={name: item["type"] for name, item in items.items()})
else:
    values = {
        name: None if item["value"] == "" else kinds[item["type"]](item["value"])
        for name, item in told["hyperparams_General"].items()
        if not name.startswith("_")
    }
    task.connect(values, name="General")
logger = task.get_logger()
for title, series, iteration, value, _ in told["scalars"]:
    logger.report_scalar(title, series, value, iteration)
for name, value, _ in told["single_values"]:
    logger.report_single_value(name, value)
for title, series, iteration, *_ in told["images"]:
    kind, _, rest = series.split(".")[0].partition("_")
    path = run / f"{kind}_batch{iteration}{'_' + rest if rest else ''}.jpg"
    logger.report_image(title=title, series=series, local_path=str(path), iteration=iteration)
for title, _, iteration, *_ in told["plots"]:
    figure = plt.figure(figsize=(4, 2))
    axes = figure.add_axes([0, 0, 1, 1], frameon=False, aspect="auto", xticks=[], yticks=[])
    axes.imshow(mpimg.imread(next(itertools.chain(run.glob(f"{title}.*[gG]"), run.glob("*.*[gG]")))))
    logger.report_matplotlib_figure(
        title=title, series="", figure=figure, iteration=iteration, report_interactive=False
    )
    plt.close(figure)
for model in told.get("output_model") or ():
    best = str(run / "weights" / "best.pt")
    task.update_output_model(best, model_name=model["model_name"], auto_delete_file=False)
task.flush(wait_for_uploads=True)
task.mark_completed() if end == "completed" else task.mark_stopped(force=True)
print(task.id)
"""


def report_by_sdk(server: ClearMLDouble, name: str, run: Path, home: Path) -> str:
    """Make the calls the callback makes, with the objects it makes them with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML", "TRAINS"))}
    environ = {**kept, **server.environ, "HOME": str(home), "CLEARML_CONFIG_FILE": str(home / "no.conf")}
    return with_sdk(environ, expected(name), run, home, "completed")


def with_sdk(environ: dict[str, str], told: dict[str, Any], run: Path, home: Path, end: str) -> str:
    """Make those calls on the server of an environment; ``end`` is the last status."""
    stated = home / "told.json"
    stated.write_text(json.dumps(told))
    command = [sys.executable, "-c", SDK_CALLS, str(stated), str(run), end]
    done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=300)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]
