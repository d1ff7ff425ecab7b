"""Every real run, replayed from its files alone, against what the callback reported during that very run."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN, MakeRun, long_after

from yolo_clearml.events import (
    GUESSED,
    DrawnPlot,
    Event,
    Hyperparameters,
    Image,
    OutputModel,
    Plan,
    Plot,
    Properties,
    RunState,
    Scalar,
    SingleValue,
    Status,
)
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.rundir.release import parse_release
from yolo_clearml.rundir.run import NotARun, Run
from yolo_clearml.rundir.scan import scan

# What the callback reported and no file holds (facts are named in the plan's `missing`).
NOT_ON_DISK = {"model/GFLOPs", "model/speed_PyTorch(ms)", "model/speed(ms)"}
RUNS = [
    "v8.1.0-segment",
    "v8.3.100-detect",
    "v8.4.190-classify",
    "v8.4.190-detect",
    "v8.4.190-detect-killed",
    "v8.4.190-detect-nan",
    "v8.4.190-detect-noplots",
    "v8.4.190-detect-resumed",
    "v8.4.190-segment",
    "yolov5-7.0.14-detect",
]
OLDER = ["v8.0.100-detect", "v8.0.220-detect"]  # reported live by rules nobody wants back
FINISHED = [name for name in (*RUNS, *OLDER) if name != "v8.4.190-detect-killed"]


def expected_of(name: str) -> dict[str, Any]:
    """Read what the callback reported; of a resumed run, both its tasks as one."""
    parts = sorted(GOLDEN.glob(f"{name}.expected*.json"))
    first, *later = (json.loads(part.read_text()) for part in parts)
    for part in later:
        for kind in ("scalars", "single_values", "images", "plots", "output_model"):
            first[kind] = first[kind] + part[kind]
        first["hyperparams_General"] = part["hyperparams_General"]
    return dict(first)


def replay(make_run: MakeRun, name: str, wishes: Wishes = Wishes()) -> tuple[Run, Plan]:
    run = scan(make_run(name), long_after())
    assert not isinstance(run, NotARun)
    return run, plan(run, wishes)


def events_of(plan: Plan, kind: type[Event]) -> list[Any]:
    return [event for report in plan.reports for event in report.events if isinstance(event, kind)]


def printed_digits(run: Run, value: float) -> float:
    """How far a value may be from the one in the CSV: half a unit of the last digit printed."""
    digits = 6 if run.times.took else 5
    exponent = math.floor(math.log10(abs(value))) if value else 0
    return max(0.51 * 10.0 ** (exponent - digits + 1), 1e-12)


@pytest.mark.parametrize("name", [*RUNS, *OLDER])
def test_the_task_is_called_as_live(make_run: MakeRun, name: str) -> None:
    """Project, tags and, where the callback had one, the name are those of the live task."""
    expected = expected_of(name)
    _, replayed = replay(make_run, name)
    assert (expected["project"], expected["tags"]) == (replayed.project, list(replayed.tags))
    # 8.0.100 has no name in args.yaml: live, ClearML took the script's
    assert ("train" if name == "v8.0.100-detect" else expected["task_name"]) == replayed.name


@pytest.mark.parametrize("name", [*RUNS, *OLDER])
def test_every_hyperparameter_is_there_with_its_type(make_run: MakeRun, name: str) -> None:
    """Sections hold the very names, values and types that ``connect`` stored."""
    expected = expected_of(name)
    wanted = expected.get("hyperparams") or {"General": expected["hyperparams_General"]}
    wanted = {section: dict(values) for section, values in wanted.items()}
    if name.startswith("yolov5"):
        wanted["Args"].pop("hyp")  # the file's name; the file holds its contents instead
    _, replayed = replay(make_run, name)
    got = {
        event.section: {n: {"type": p.type, "value": p.value} for n, p in event.values.items()}
        for event in events_of(replayed, Hyperparameters)
    }
    assert wanted == got


@pytest.mark.parametrize("name", RUNS)
def test_every_point_of_every_curve_is_there(make_run: MakeRun, name: str) -> None:
    """Titles, series and iterations are those of the live task, values agree to the CSV's printed digits."""
    run, replayed = replay(make_run, name)
    last = max(event.iteration for event in events_of(replayed, Scalar))
    wanted: dict[tuple[str, str, int], float] = {}
    for title, series, iteration, value, _ in expected_of(name)["scalars"]:
        key = (title, series, iteration)
        if iteration > last or (key in wanted and iteration == last and title != "train"):
            continue  # the final evaluation's extra point
        if title == "Epoch Time" and not run.times.took:
            continue  # no time on disk before 8.3.9
        wanted[key] = value  # of a NaN epoch that was repeated, the last pass
    got = {(e.title, e.series, e.iteration): e.value for e in events_of(replayed, Scalar)}
    assert set(wanted) == set(got)
    for (title, series, iteration), value in wanted.items():
        # the callback's own clock was read a little later than the CSV's
        slack = 0.75 if title == "Epoch Time" else printed_digits(run, value)
        assert value == pytest.approx(got[title, series, iteration], rel=0, abs=slack), (series, iteration)


@pytest.mark.parametrize("name", [n for n in RUNS if n.startswith(("v8.3", "v8.4"))])
def test_events_carry_the_time_they_happened(make_run: MakeRun, name: str) -> None:
    """An epoch's time is that of the live task within a second, though it is read off files."""
    _, replayed = replay(make_run, name)
    live: dict[int, int] = defaultdict(int)
    for _, series, iteration, _, at in expected_of(name)["scalars"]:
        if series.startswith("val/"):
            live[iteration] = max(at, live[iteration])
    told = {event.iteration: event.at for event in events_of(replayed, Scalar)}
    assert set(live) == set(told)
    assert max(abs(live[i] - told[i]) for i in live) < 1000


@pytest.mark.parametrize("name", RUNS + OLDER[:1])
def test_every_debug_image_is_there(make_run: MakeRun, name: str) -> None:
    """Title, series and iteration are those of the live task; the file is the one on disk."""
    _, replayed = replay(make_run, name)
    wanted = {(title, series, iteration) for title, series, iteration, *_ in expected_of(name)["images"]}
    got = {(e.title, e.series, e.iteration): e.file.name for e in events_of(replayed, Image)}
    assert wanted == set(got)
    for (_, series, iteration), file in got.items():
        assert file == re.sub(r"^([a-z]+)", rf"\1_batch{iteration}", series)


def test_validation_images_that_the_live_callback_forgot_are_reported(make_run: MakeRun) -> None:
    """8.0.200 to 8.0.235 forgot them live; they are on disk."""
    _, replayed = replay(make_run, "v8.0.220-detect")
    assert {"val_labels.jpg", "val_pred.jpg"} == {
        e.series for e in events_of(replayed, Image) if e.title == "Validation"
    }


@pytest.mark.parametrize("name", RUNS + OLDER)
def test_every_plot_is_there(make_run: MakeRun, name: str) -> None:
    """Plots have the titles and iterations of the live task; only a dead run's results is drawn by us."""
    _, replayed = replay(make_run, name)
    wanted = {(title, iteration) for title, _, iteration, *_ in expected_of(name)["plots"]}
    assert wanted == {(e.title, e.iteration) for e in events_of(replayed, Plot)}
    drawn = {("results", 0)} if name == "v8.4.190-detect-killed" else set()
    assert drawn == {(e.title, e.iteration) for e in events_of(replayed, DrawnPlot)}


@pytest.mark.parametrize("name", [n for n in RUNS + OLDER if not n.startswith("yolov5")])
def test_single_values_are_there_or_named_as_missing(make_run: MakeRun, name: str) -> None:
    """Names are those of the live task but for what no file holds; final values are best.pt's own record."""
    _, replayed = replay(make_run, name)
    live = {single: value for single, value, _ in expected_of(name)["single_values"]}
    got = {e.name: e.value for e in events_of(replayed, SingleValue)}
    assert set(live) - NOT_ON_DISK == set(got)
    assert {"model/GFLOPs", "model/speed_PyTorch(ms)"} <= set(replayed.missing)
    assert live["model/parameters"] == got["model/parameters"]
    for single, value in got.items():
        # the live values come from one more validation of best.pt, which is not on disk
        assert value == pytest.approx(live[single], rel=0, abs=0.025), single


@pytest.mark.parametrize("name", RUNS + OLDER)
def test_the_output_model_is_there_where_live_made_one(make_run: MakeRun, name: str) -> None:
    """best.pt, named as live, with the class names as labels; none for a run that died."""
    expected = expected_of(name)
    _, replayed = replay(make_run, name)
    models = events_of(replayed, OutputModel)
    if name.startswith("yolov5"):
        assert ["Training - Best Model"] == [model.name for model in models]
    else:
        wanted = [m["model_name"] or replayed.name for m in expected["output_model"]]
        assert wanted == [model.name for model in models]
    for model in models:
        assert "weights/best.pt" == model.file.name
        classes = {"circle": 0, "square": 1, "triangle": 2}
        assert classes == dict(model.labels)


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_known_as_finished(make_run: MakeRun, name: str) -> None:
    """Stripped checkpoints say so, whatever the time is."""
    run = scan(make_run(name), 0.0)
    assert isinstance(run, Run)
    assert RunState.FINISHED is run.state


def test_a_killed_run_is_stopped_once_nothing_writes_to_it(make_run: MakeRun) -> None:
    """Dead and alive look alike on disk; only the time since the last write decides."""
    path = make_run("v8.4.190-detect-killed")
    written = (path / "weights" / "last.pt").stat().st_mtime
    states = [run.state for after in (10, 1790, 1810) if isinstance(run := scan(path, written + after), Run)]
    assert [RunState.LIVE, RunState.LIVE, RunState.STOPPED] == states
    replayed = plan(_run(scan(path, written + 1810)), Wishes())
    assert [Status(RunState.STOPPED)] == events_of(replayed, Status)


def _run(found: Run | NotARun) -> Run:
    assert isinstance(found, Run)
    return found


@pytest.mark.parametrize("name", ["v8.0.220-detect-died-in-setup", "v8.4.190-predict", "v8.4.190-val"])
def test_what_is_no_training_makes_no_task(make_run: MakeRun, name: str) -> None:
    """Validation and prediction are none, and a run that died in setup has nothing to report."""
    (found,) = find_runs([make_run(name)]) if name != "v8.4.190-predict" else (None,)
    if isinstance(found, Path):
        assert isinstance(scan(found, long_after()), NotARun)
    else:
        assert [] == [f for f in find_runs([make_run(name, "again")]) if isinstance(f, Path)]


@pytest.mark.parametrize("name", RUNS + OLDER)
def test_a_plan_is_the_same_every_time(make_run: MakeRun, name: str) -> None:
    """The plan depends on the disk alone, and each of its keys occurs once."""
    run, replayed = replay(make_run, name)
    assert replayed == plan(run, Wishes())
    keys = [report.key for report in replayed.reports]
    assert sorted(set(keys)) == sorted(keys)


def test_rules_of_another_release_can_be_asked_for(make_run: MakeRun) -> None:
    """With --rules 8.4.190, an old segment run gets the plots that its own release forgot."""
    _, replayed = replay(make_run, "v8.1.0-segment", Wishes(rules=parse_release("8.4.190")))
    wanted = {"MaskPR_curve", "BoxF1_curve", "labels", "confusion_matrix", "results"}
    assert wanted <= {e.title for e in events_of(replayed, Plot)}
    assert ("Ultralytics", "metrics") == (
        replayed.project,
        next(e.title for e in events_of(replayed, Scalar) if e.series.startswith("metrics/")),
    )


def test_a_run_without_a_checkpoint_is_reported_by_a_guess_that_is_named(make_run: MakeRun) -> None:
    """What else is there decides the era, and the property that it was guessed."""
    for name, project in (("v8.1.0-segment", "YOLOv8"), ("v8.4.190-detect", "Ultralytics")):
        path = make_run(name)
        for weights in (path / "weights").iterdir():
            weights.unlink()
        guessed = plan(_run(scan(path, long_after())), Wishes())
        assert project == guessed.project
        (told,) = events_of(guessed, Properties)
        assert told.values["release"].endswith(GUESSED)
        assert "the output model (weights/best.pt)" in guessed.missing
