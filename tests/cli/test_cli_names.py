"""--project, --name and --move on the command line: trees, rehearsals, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import Ended, Run, run_cli, small  # noqa: F401  fixtures

from yolo_clearml.errors import UsageError
from yolo_clearml.library import Options, watch
from yolo_clearml.replay.placeholders import VALUES


def names(server: ClearMLDouble) -> set[tuple[str, str]]:
    projects = server.projects
    return {(projects[task["project"]]["name"], task["name"]) for task in server.tasks.values()}


def test_many_runs_have_a_name_each(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:  # noqa: F811
    """By what each states and where it lies; the second call has nothing to do."""
    make_run("v8.4.190-detect-noplots", "ann/train"), make_run("v8.3.100-detect", "bob/train")
    command = ("upload", "runs", "--name", "{parent}-{model}", "-p", "Lab/{task}/{path}")
    ended = run_cli(*command)
    assert 0 == ended.status, ended.err
    there = {("Lab/detect/ann/train", "ann-tiny-detect"), ("Lab/detect/bob/train", "bob-tiny-detect")}
    assert there == names(server)
    assert Ended(0, "", "") == run_cli(*command)


def test_a_watch_gives_names_as_well(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:  # noqa: F811
    """{path} is below its ROOT."""
    make_run("v8.4.190-detect-noplots", "ann/train")
    assert 0 == run_cli("watch", "runs", "--once", "--name", "{parent}", "-p", "Lab/{path}").status
    assert {("Lab/ann/train", "ann")} == names(server)


def test_a_program_need_not_give_its_roots_twice(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Of a watch they are known; a move of each look is none."""
    run = make_run("v8.4.190-detect-noplots", "ann/train")
    list(watch([run.parents[1]], Options(project="Lab/{path}"), once=True))
    assert {("Lab/ann/train", "train")} == names(server)
    with pytest.raises(UsageError, match="--move"):
        next(watch([run.parents[1]], Options(project="Lab", move=True)))


def test_a_rehearsal_shows_the_names_and_the_move(
    run_cli: Run,  # noqa: F811
    server: ClearMLDouble,
    small: Path,  # noqa: F811
) -> None:
    """Before the first upload where it would be made; afterwards where it would be moved; nothing is done."""
    asked = ("--name", "{data}", "-p", "Lab/{model}", "--move")
    lines = run_cli("upload", small, "--dry-run", *asked).out.splitlines()
    assert "  task     Lab/tiny-detect / shapes-detect  tags Ultralytics" in lines
    run_cli("upload", small)
    count = len(server.requests)
    ended = run_cli("upload", small, "--dry-run", *asked)
    says = "The task would be moved from 'train' in 'Ultralytics' to 'shapes-detect' in 'Lab/tiny-detect'."
    assert (0, True) == (ended.status, says in ended.err)
    (line,) = run_cli("upload", small, "--dry-run", "--json", *asked).out.splitlines()
    assert says in json.loads(line)["reason"]
    (line,) = run_cli("upload", small, "--dry-run", "--force", "--json", *asked).out.splitlines()
    assert says in json.loads(line)["notes"]
    assert (count, {("Ultralytics", "train")}) == (len(server.requests), names(server))


def test_a_move_is_said_once(run_cli: Run, server: ClearMLDouble, small: Path) -> None:  # noqa: F811
    """A line for the run, and what was done; under cron nothing when it is there."""
    run_cli("upload", small)
    ended = run_cli("upload", small, "--move", "--name", "other")
    assert ended.out.startswith("runs/v8.4.190-detect-noplots: up to date: http")
    says = "The task was moved from 'train' in 'Ultralytics' to 'other' in 'Ultralytics'."
    assert f"runs/v8.4.190-detect-noplots: {says}\n" == ended.err
    assert Ended(0, "", "") == run_cli("upload", small, "--move", "--name", "other")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("upload", "runs", "-n", "{foo}"), "--name has no placeholder {foo}: '{foo}'."),
        (("watch", "runs", "-p", "{foo}"), "--project has no placeholder {foo}: '{foo}'."),
        (("upload", "runs", "-p", "ab/{name}"), "names need three characters or more."),
        (("upload", "runs", "-n", "same"), "--name is for one run, and there are 2."),
        (("upload", "runs", "-n", "{{same}}"), "--name is for one run, and there are 2."),
        (
            ("watch", "runs", "-n", "same"),
            "--name of a watch is for many runs, and 'same' is the same for all.",
        ),
        (("upload", "runs", "--move"), "--move needs --project or --name, for where it is to go."),
        (("upload", "runs", "--move", "-p", "Lab", "--new"), "--move and --new cannot be had together."),
        (("upload", "runs", "--move", "-p", "Lab", "--offline", "x"), "--move and --offline cannot be had"),
        (("upload", "runs", "--move", "-p", "Lab", "--task-id", "1"), "--move and --task-id cannot be had"),
    ],
)
def test_what_cannot_be_meant_is_said(
    run_cli: Run,  # noqa: F811
    server: ClearMLDouble,
    make_run: MakeRun,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    """Usage, 2, before anything is asked of a server; with the list where it is about a placeholder."""
    make_run("v8.4.190-detect-noplots", "ann/train"), make_run("v8.3.100-detect", "bob/train")
    ended = run_cli(*arguments)
    assert (2, True, []) == (ended.status, sentence in ended.err, server.requests), ended.err
    listed = all(f"{{{name}}}" in ended.err for name in VALUES)
    assert listed is ("placeholder {foo}" in sentence)
