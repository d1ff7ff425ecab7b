"""``--shard``: each worker takes its part of a tree, as Slurm, Kubernetes and GNU parallel start them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import Run, run_cli

from yolo_clearml.rundir.choice import Shard

__all__ = ["run_cli"]  # a fixture

NAMES = ("v8.4.190-detect-noplots", "v8.3.100-detect", "v8.4.190-detect-killed")


@pytest.fixture
def runs(make_run: MakeRun) -> Path:
    """Give a folder of three runs and what a validation has left."""
    for name in (*NAMES, "v8.4.190-val"):
        make_run(name)
    return Path("runs")


def of(part: int, count: int) -> set[str]:
    """Names of those of the three runs that are in a part."""
    return {name for name in NAMES if Shard(part, count).holds(Path("runs", name), Path("runs"))}


def lines(text: str) -> dict[str, str]:
    """Give the name and the outcome of each run."""
    parsed = map(json.loads, text.splitlines())
    return {Path(line["run"]).name: line["outcome"] for line in parsed if line["outcome"] != "skipped"}


def test_the_parts_together_upload_verify_and_show_everything(
    run_cli: Run, server: ClearMLDouble, runs: Path
) -> None:
    """Each its own runs, with their counts alone; afterwards nothing is left to send without it."""
    for command, outcome in (("upload", "delivered"), ("verify", "verified"), ("status", "up-to-date")):
        for part in (1, 2):
            ended = run_cli(command, "--json", "--shard", f"{part}/2", runs)
            assert (0, "") == (ended.status, ended.err)
            assert dict.fromkeys(of(part, 2), outcome) == lines(ended.out)
    assert of(1, 2) and of(2, 2)
    assert 3 == len(server.tasks)
    assert (0, "", "") == run_cli("upload", runs)


@pytest.mark.parametrize("command", ["upload", "verify", "status"])
def test_an_empty_part_is_no_mistake(run_cli: Run, server: ClearMLDouble, runs: Path, command: str) -> None:
    """A worker too many has nothing to do: silence and 0, and no request; also where it holds no run."""
    empty = next(part for part in range(1, 40) if not of(part, 40))
    beside = next(p for p in range(1, 41) if Shard(p, 40).holds(runs / "v8.4.190-val", runs))
    for part in (empty, beside):
        assert not of(part, 40)
        ended = run_cli(command, "--shard", f"{part}/40", runs)
        skipped = "1 directory is skipped; -v or --state skipped names it.\n"
        told = skipped if (command, part) == ("status", beside) else ""
        assert (0, "", told) == ended
    assert [] == server.requests


def test_a_tree_without_a_run_is_a_mistake_of_each_worker(run_cli: Run, make_run: MakeRun) -> None:
    """2 as ever, with what looked like one, whichever part that is in; also where the patterns leave none."""
    make_run("v8.4.190-val")
    for part in (1, 2, 3):
        ended = run_cli("upload", "--shard", f"{part}/3", "runs")
        assert (2, "") == (ended.status, ended.out)
        assert "There is no run in or below runs. runs/v8.4.190-val is a validation" in ended.err
    make_run("v8.4.190-detect-noplots")
    ended = run_cli("upload", "--shard", "1/3", "--include", "nowhere", "runs")
    assert 2 == ended.status
    assert "no run that --include and --exclude leave" in ended.err


@pytest.mark.parametrize("command", ["upload", "verify", "status", "watch"])
def test_what_is_no_part_is_a_wrong_usage(
    run_cli: Run, runs: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2, with where it stands and the form it has; an empty variable counts as none."""
    for text, said in (("0/4", "no part 0 of 4"), ("/", "'/' names no part")):
        ended = run_cli(command, "--shard", text, runs)
        told = " ".join(re.sub("[│╭╮╰╯─]", " ", ended.err).split())
        assert (2, "") == (ended.status, ended.out)
        assert f"'--shard': {said}" in told.replace("There is ", "")
        assert "Write I/N, counted from 1, as 1/4 to 4/4" in told
    monkeypatch.setenv("YOLO_CLEARML_SHARD", "5/4")
    assert "YOLO_CLEARML_SHARD: There is no part 5 of 4" in run_cli(command, runs).err


@pytest.mark.parametrize("option", ["--name", "--task-id"])
def test_what_is_for_one_run_is_not_for_a_part(
    run_cli: Run, runs: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of four workers would find that there is one run alone."""
    monkeypatch.setenv("YOLO_CLEARML_SHARD", "1/4")
    ended = run_cli("upload", option, "baseline", runs)
    assert (2, "") == (ended.status, ended.out)
    assert f"{option} and --shard cannot be had together." in ended.err
    assert "YOLO_CLEARML_SHARD" in ended.err


def test_copies_of_a_run_in_two_parts_have_one_task(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Two workers that meet the same training, one after the other; at once is tested in test_two_at_once."""
    run = make_run("v8.4.190-detect-noplots", "exp")
    shutil.copytree(run, run.parent / "exp3")
    held = [
        {n for n in ("exp", "exp3") if Shard(part, 2).holds(Path("runs", n), Path("runs"))} for part in (1, 2)
    ]
    assert [1, 1] == [len(names) for names in held], "choose other names"
    for part in (1, 2):
        assert 0 == run_cli("upload", "-q", "--shard", f"{part}/2", "runs").status
    assert (1, 1) == (len(server.tasks), len(server.models))


def test_a_watch_follows_its_part(run_cli: Run, server: ClearMLDouble, runs: Path) -> None:
    """To its end with --once; one whose part is empty waits for no first run where others have some."""
    empty = next(part for part in range(1, 40) if not of(part, 40))
    for part, count in ((1, 2), (2, 2), (empty, 40)):
        ended = run_cli("watch", "--once", "--json", "--shard", f"{part}/{count}", runs)
        assert (0, "") == (ended.status, ended.err)
        assert of(part, count) == set(lines(ended.out))
    assert 3 == len(server.tasks)
