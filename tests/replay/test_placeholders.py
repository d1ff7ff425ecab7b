"""Placeholders in --project and --name: which there are, and what each is of a run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SAMPLES, long_after

from yolo_clearml.errors import UsageError
from yolo_clearml.events import Plan, Properties
from yolo_clearml.library import Options, plan_run
from yolo_clearml.replay.placeholders import VALUES, NoTemplate, Template, template
from yolo_clearml.rundir.dating import Dated
from yolo_clearml.rundir.run import Run
from yolo_clearml.rundir.scan import scan

PLACE = SAMPLES / "v8.4.190-detect"


@pytest.fixture(scope="module")
def run() -> Run:
    found = scan(PLACE, long_after())
    assert isinstance(found, Run)
    return replace(found, args={**found.args, "name": "exp", "project": "Mine/Own"})


def planned(run: Run, roots: tuple[Path, ...] = (), **options: str) -> Plan:
    return plan_run(run, Options(**options, roots=roots))  # type: ignore[arg-type]


def named(run: Run, name: str, roots: tuple[Path, ...] = ()) -> str:
    return planned(run, roots, name=name).name


def stating(run: Run, **args: object) -> Run:
    return replace(run, args={**run.args, **args})


# -- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("{project}", "Mine/Own"),
        ("{name}", "exp"),
        ("{parent}", "sample_runs"),
        ("{task}", "detect"),
        ("{model}", "tiny-detect"),
        ("{data}", "shapes-detect"),
        ("{date}", "2026-11-22"),
        ("{epochs}", "5__"),
        ("{name}-{name} of {parent}", "exp-exp of sample_runs"),
        ("{{{name}}}", "{exp}"),
        ("{{name}}", "{name}"),
        (" {name} ", "exp"),
    ],
)
def test_each_placeholder_is_of_the_run(run: Run, asked: str, given: str) -> None:
    assert given == named(run, asked)


def test_every_placeholder_is_tried_here(run: Run) -> None:
    """Each of the list gives something of a run that states everything."""
    plan = planned(run, name=" ".join(f"{{{name}}}" for name in VALUES))
    assert "unknown" not in plan.name
    assert () == plan.notes


@pytest.mark.parametrize(
    ("roots", "given"),
    [
        ((SAMPLES.parent,), "sample_runs/v8.4.190-detect"),
        ((SAMPLES,), "v8.4.190-detect"),
        ((PLACE,), "v8.4.190-detect"),  # given itself: its own name
        ((), "v8.4.190-detect"),
        ((SAMPLES.parent / "src", SAMPLES / "..", SAMPLES), "sample_runs/v8.4.190-detect"),
    ],
)
def test_the_path_is_below_what_was_given(run: Run, roots: tuple[Path, ...], given: str) -> None:
    assert given == named(run, "{path}", roots)


@pytest.mark.parametrize("inside", ["", ".", "weights/.."])
def test_a_path_from_where_a_person_stands(run: Run, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the run's own folder, or the one above it: its folders have names all the same."""
    monkeypatch.chdir(PLACE)
    here = replace(run, path=Path(inside))
    assert "sample_runs v8.4.190-detect" == named(here, "{parent} {path}", (Path(inside),))
    monkeypatch.chdir(SAMPLES)
    there = replace(run, path=Path("v8.4.190-detect"))
    assert "sample_runs v8.4.190-detect" == named(there, "{parent} {path}", (Path(),))


def test_a_link_is_called_as_the_person_calls_it(run: Run, tmp_path: Path) -> None:
    """Not by the folder that it leads to."""
    (tmp_path / "mine").symlink_to(SAMPLES)
    assert "mine" == named(replace(run, path=tmp_path / "mine" / PLACE.name), "{parent}")


@pytest.mark.parametrize(
    ("stated", "given"),
    [
        ("yolo11n.pt", "yolo11n"),
        ("/weights/yolo11n-seg.yaml", "yolo11n-seg"),
        (r"C:\weights\yolov8n.PT", "yolov8n"),
        ("yolov8.1", "yolov8.1"),  # a version is no ending
        ("yolov8.1.pt", "yolov8.1"),
        ("datasets/coco8/", "coco8"),
        ("https://host/sets/coco8.tar.gz?token=secret.pt", "coco8"),
        ("ul://me/sets/coco8.ndjson", "coco8"),
        (".yaml", ".yaml"),
        ("", "unknown"),
        (None, "unknown"),
        (7, "unknown"),
        ({"a": 1}, "unknown"),
        ("a\udcff.pt", "a?_"),
    ],
)
def test_model_and_data_are_without_folder_and_ending(run: Run, stated: object, given: str) -> None:
    """Both as placeholders and as user properties, which a table of tasks has as columns."""
    got = planned(stating(run, model=stated, data=stated), name="{model}", project="abc/{data}")
    assert (given, f"abc/{given}") == (got.name, got.project)
    (properties,) = (e for report in got.reports for e in report.events if isinstance(e, Properties))
    assert {given.rstrip("_")} == {properties.values["model"], properties.values["dataset"]}


def test_yolov5_states_its_weights_or_its_network() -> None:
    found = scan(SAMPLES / "yolov5-7.0.14-detect", long_after())
    assert isinstance(found, Run)
    assert "tiny-v5 unknown" == named(found, "{model} {task}")
    scratch = stating(found, weights="", cfg="models/yolov5s.yaml")
    assert "yolov5s" == named(scratch, "{model}")


def test_what_is_not_stated_is_unknown_and_said(run: Run) -> None:
    """A word in its place, for no run is kept out of ClearML over its name; one note for each."""
    bare = replace(stating(run, model=None, task=None, epochs=None), dated=Dated.NOTHING)
    got = planned(bare, name="{model} {task} {date} {epochs} {model}", project="Lab/{task}")
    assert ("unknown unknown unknown unknown unknown", "Lab/unknown") == (got.name, got.project)
    assert 4 == sum("does not state what" in note for note in got.notes)


# -- what ClearML takes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "given"),
    [
        ("a", "Lab/a__"),
        ("a/b/c", "Lab/a_b_c"),  # one level each, but for project and path
        ("../..", "Lab/.._.."),
        ("x\ny", "Lab/x_y"),
        ("x" * 300, "Lab/" + "x" * 256),
        (" ", "Lab/unknown"),
    ],
)
def test_a_value_is_made_to_fit(run: Run, stated: str, given: str) -> None:
    assert given == planned(stating(run, task=stated), project="Lab/{task}").project


def test_projects_of_a_project_stay_levels_and_no_more_than_ten(run: Run, tmp_path: Path) -> None:
    assert "Lab/Mine/Own" == planned(run, project="Lab/{project}").project
    deep = tmp_path.joinpath(*(f"level{number}" for number in range(12)))
    got = planned(replace(run, path=deep), (tmp_path,), project="Lab/{path}")
    expected = ["Lab", *(f"level{number}" for number in range(8)), "level8_level9_level10_level11"]
    assert expected == got.project.split("/")
    (note,) = got.notes
    assert "ClearML refuses the project 'Lab/level0/" in note


def test_the_run_itself_stays_the_same(run: Run) -> None:
    """Its key, where its files go and what is reported do not depend on any name."""
    plain, other = plan_run(run), planned(run, name="{task}{parent}", project="Lab/{task}")
    assert (plain.key, plain.folder, plain.reports) == (other.key, other.folder, other.reports)
    assert [report.digest for report in plain.reports] == [report.digest for report in other.reports]


# -- what is no placeholder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["project", "name"])
@pytest.mark.parametrize(
    "asked",
    [
        *("{}", "{0}", "{runs}", "{ name }", "{NAME}", "{name.__class__}", "{name[0]}", "{name!r}"),
        *("{name:>3}", "{name:{task}}", "{name", "name}", "}{", "{{name}", "{a/b}"),
    ],
)
def test_anything_else_in_braces_is_refused_with_the_list(option: str, asked: str) -> None:
    with pytest.raises(UsageError) as refused:
        Options(project=f"abc {asked}") if option == "project" else Options(name=f"abc {asked}")
    assert str(refused.value).startswith(f"--{option} has ")
    assert all(f"{{{name}}}" in refused.value.hint for name in VALUES)


def test_plain_parts_are_held_to_the_rules_at_once() -> None:
    with pytest.raises(UsageError, match="three characters"):
        Options(project="ab/{name}")
    with pytest.raises(UsageError, match="three characters"):
        Options(name="{{}}")
    assert "a{b" == Options(name="a{{b").wishes().name
    assert "abc/def" == Options(project=" abc / def ").wishes().project


def test_a_template_remembers_the_roots_only_for_the_path() -> None:
    """Or the same run, given by another path, would not look settled."""
    assert Template((("", "name"),)) == template("{name}", (SAMPLES,))
    assert Template((("a", "path"),), (str(SAMPLES),)) == template("a{path}", (SAMPLES,))
    assert Template((("", "path"),), (os.getcwd(),)) == template("{path}", (Path(),))
    with pytest.raises(NoTemplate):
        template("{")
