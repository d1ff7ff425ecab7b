"""The double answers as the genuine server did, exchange by exchange."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, one_in, sampled
from double import Altered, ClearMLDouble, Fault, Status
from endpoints import UNNAMED, endpoints_in_source
from genuine import GENUINE, Json, Replay, load
from genuine import endpoint as endpoint_of

RECORDS = sorted(GENUINE.rglob("*.jsonl"))


@cache
def differences(folder: Path) -> dict[Path, list[str]]:
    """Replay the files of a folder, in order, on one server."""
    with ClearMLDouble() as server:
        replay = Replay(server)
        return {
            path: [
                f"line {number}: {text}"
                for number, exchange in enumerate(load(path), 1)
                for text in replay.differences(exchange)
            ]
            for path in sorted(folder.glob("*.jsonl"))
        }


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.relative_to(GENUINE)))
def test_the_double_answers_as_the_genuine_server_did(path: Path) -> None:
    """Status, codes and every field of each reply, but for those that `genuine.NOT_COMPARED` names."""
    found = differences(path.parent)[path]
    assert not found, "\n".join(found)


# -- the test of the test ---------------------------------------------------------------------------------


def _flat(data: Json) -> Json:
    """Give ids for references, as the double once did."""
    return {
        kind: [
            {name: value["id"] if name == "project" else value for name, value in row.items()} for row in rows
        ]
        for kind, rows in data.items()
    }


def _fine(**data: object) -> Status:
    meta = {"result_code": 200, "result_subcode": 0, "result_msg": "OK"}
    body = json.dumps({"meta": meta, "data": data})
    return Status(200, body, {"Content-Type": "application/json"})


def _has_an_odd_value(lines: list[Json]) -> bool:
    return any(line["value"] != line["value"] for line in lines if isinstance(line.get("value"), float))


SEEDS: dict[str, tuple[str, Fault, Callable[[Any], bool] | None]] = {
    "references are not expanded": ("tasks.get_all_ex", Altered(_flat), None),
    "a field runtime is taken": (
        "tasks.edit_runtime",
        _fine(updated=1),
        lambda body: "runtime" in body and "add_or_update" not in body,
    ),
    "force lets the runtime be edited": (
        "tasks.edit_runtime",
        _fine(updated=1),
        lambda body: "force" in body,
    ),
    "everything can be indexed": (
        "events.add_batch",
        _fine(added=2, errors=0, errors_info={}),
        _has_an_odd_value,
    ),
    "a project is made twice": (
        "projects.create",
        _fine(id="0" * 32),
        lambda body: body["description"] == "",
    ),
}


@pytest.mark.parametrize("seed", sampled(SEEDS, one_in(len(SEEDS))))
def test_a_double_that_strays_is_found_out(seed: str) -> None:
    """A reply as the double once gave it, or would give by mistake, is a difference of that endpoint."""
    endpoint, fault, only = SEEDS[seed]
    (matrix,) = GENUINE.glob("*-matrix.jsonl")
    with ClearMLDouble() as server:
        nth = 2 if endpoint == "projects.create" else None
        server.fault(endpoint, fault, times=None, nth=nth, only=only)
        replay = Replay(server)
        found = [text for exchange in load(matrix) for text in replay.differences(exchange)]
    assert found
    assert {endpoint} == {text.split()[0] for text in found}


# -- what there is to be recorded -------------------------------------------------------------------------

# no recording of the genuine server has these: they are recorded from an emulator, which CONTRIBUTING says
NOT_GENUINE = {"tasks.edit", "tasks.delete", "models.delete", "events.get_task_log"}
NOT_GENUINE |= {"tasks.add_or_update_artifacts"}


def recorded(servers: set[str]) -> set[str]:
    return {
        endpoint_of(exchange)
        for path in RECORDS
        for exchange in load(path)
        if exchange["server"] in servers and exchange["status"] == 200
    }


def test_every_endpoint_of_the_source_was_recorded() -> None:
    """From the genuine server, but for those that are named as not."""
    asked = endpoints_in_source() | UNNAMED
    assert NOT_GENUINE == asked - recorded({"api", "files"})
    assert NOT_GENUINE <= recorded({"emulator"})


def test_contributing_names_what_is_not_genuine() -> None:
    section = (GENUINE.parents[2] / "CONTRIBUTING.md").read_text().split("## Tests\n")[1]
    (sentence,) = re.findall(r"from an emulator:([^.]*(?:\.\w[^.]*)*)\.", section)
    assert NOT_GENUINE == set(re.findall(r"`([\w.]+)`", sentence))


# -- recording --------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_what_is_recorded_here_is_answered_so_again(server: ClearMLDouble, tmp_path: Path) -> None:
    """The tool's courses, recorded from a double, trimmed and sent to another; nothing stays on the first."""
    records, trimmed = tmp_path / "records", tmp_path / "trimmed"
    only = ("upload-finished", "verify", "upload-ledger-lost", "deletions")
    options = [word for course in only for word in ("--only", course)]
    run_script("record_genuine.py", str(records), *options)
    assert ({}, {}, {}, {}) == (server.tasks, server.models, server.projects, server.files)
    paths = [records / f"{course}.jsonl" for course in only]
    text = "".join(path.read_text() for path in paths)
    for private in (server.secret_key, server.api_url, server.files_url, "eyJ", tempfile.gettempdir()):
        assert private not in text
    run_script("trim_genuine.py", *map(str, paths), "--into", str(trimmed))
    assert {path: [] for path in sorted(trimmed.iterdir())} == differences(trimmed)
    asked = {endpoint_of(exchange) for path in trimmed.iterdir() for exchange in load(path)}
    assert {"tasks.create", "models.create", "tasks.completed", "files:POST", "files:GET"} <= asked


def run_script(name: str, *arguments: str) -> None:
    script = ROOT / "tests" / name
    ended = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, timeout=120)
    assert 0 == ended.returncode, ended.stderr.decode()
