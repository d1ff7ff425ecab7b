"""The manual's lines for Slurm, Kubernetes and GNU parallel start each part once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolo_clearml.rundir.choice import Shard

GUIDE = (Path(__file__).parent.parent / ".github" / "GUIDE.md").read_text()
ALL = [Shard(part, 4) for part in (1, 2, 3, 4)]


def block(mark: str) -> str:
    """Give the block of code that is marked."""
    (text,) = re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", GUIDE, re.S)
    return str(text)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give a PATH on which the program writes down how it was called."""
    program = tmp_path / "yolo-clearml"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def called(command: list[str], path: str, **variables: object) -> list[Shard]:
    """Give the parts that a command starts."""
    environment = {"PATH": path, **{name: str(value) for name, value in variables.items()}}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return [Shard.parse(text) for text in re.findall(r"^upload .*--shard (\S+) /", ended.stdout, re.M)]


def test_a_slurm_array(path: str) -> None:
    """Its own count, and indices that begin with 1."""
    script = block("slurm")
    first, last = re.findall(r"#SBATCH --array=(\d+)-(\d+)", script)[0]
    indices = range(int(first), int(last) + 1)
    variables = [{"SLURM_ARRAY_TASK_ID": i, "SLURM_ARRAY_TASK_COUNT": len(indices)} for i in indices]
    assert [[part] for part in ALL] == [called(["sh", "-c", script], path, **these) for these in variables]


def test_an_indexed_job(path: str) -> None:
    """As many completions as parts, by an index from 0."""
    job: dict[str, Any] = yaml.safe_load(block("kubernetes job"))
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert ("batch/v1", "Job", "Indexed") == (job["apiVersion"], job["kind"], spec["completionMode"])
    (container,) = pod["containers"]
    assert pod["restartPolicy"] in ("OnFailure", "Never")  # which a Job demands
    assert {volume["name"] for volume in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
    command = [*container["command"], *container["args"]]
    indices = range(spec["completions"])
    assert [[part] for part in ALL] == [called(command, path, JOB_COMPLETION_INDEX=i) for i in indices]


def test_parallel_and_xargs(path: str) -> None:
    """Each of the lines by itself, where there is such a program."""
    lines = block("parallel").splitlines()
    assert ["parallel", "xargs"] == [word for line in lines for word in ("parallel", "xargs") if word in line]
    for line in lines:
        if line.startswith("parallel ") and shutil.which("parallel") is None:
            continue
        assert sorted(map(str, ALL)) == sorted(map(str, called(["sh", "-c", line], path)))
