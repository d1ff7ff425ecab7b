"""Refusals of the API that mean something else than they seem to: tokens, documents, projects."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble, Status
from fronted import no_proxies, run
from test_faults import status_of
from uploading import fails, upload

from yolo_clearml.errors import (
    Exit,
)
from yolo_clearml.server.api import Api, RefusedRequest

__all__ = ["no_proxies", "run"]  # fixtures


def refusal(code: int, subcode: int, message: str) -> Status:
    """Give the API server's own word."""
    meta = {"result_code": code, "result_subcode": subcode, "result_msg": message}
    return Status(code, json.dumps({"meta": meta, "data": {}}), {"Content-Type": "application/json"})


INVALID_TOKEN = refusal(401, 30, "Invalid token (invalid jwt token)")


def test_a_token_refused_twice_passes(server: ClearMLDouble, run: Path) -> None:
    """A server that is restarting: the login before was good, and so is the next."""
    server.fault("tasks.create", INVALID_TOKEN, times=2)
    assert [] == fails(upload([run], timeout=10.0))
    assert 1 == len(server.tasks)


def test_a_token_refused_for_ever_is_no_matter_of_keys(server: ClearMLDouble, run: Path) -> None:
    """69, never 77."""
    server.fault("tasks.create", INVALID_TOKEN, times=None)
    outcomes = upload([run], timeout=0.5)
    assert Exit.UNREACHABLE == status_of(outcomes)
    assert "refuses the token that it has just given" in fails(outcomes)[0]


NOT_INDEXED = (
    "General data error: err=1 document(s) failed to index., extra_info=[1:1] failed to parse field [value]"
)


def test_a_document_that_is_not_indexed_is_refused_at_once(server: ClearMLDouble) -> None:
    """It is no outage: the same again is refused again."""
    api = Api(60.0)
    server.fault("events.add_batch", refusal(500, 100, NOT_INDEXED), times=None)
    before = len(server.requests)
    with pytest.raises(RefusedRequest) as refused:
        api.add_events(['{"type": "training_stats_scalar"}'])
    assert (500, 100, NOT_INDEXED) == (refused.value.code, refused.value.subcode, refused.value.message)
    assert 1 == len(server.requests) - before


@pytest.mark.parametrize(
    ("subcode", "reason"),
    [
        (0, "general server error"),
        (100, "(ConnectionError(<HTTPConnection>: Failed to establish a new connection))"),
        (100, "err=9 document(s) failed to index., extra_info=rejected execution of a task"),
        (100, "err=9 document(s) failed to index., extra_info=[primary shard is not active]"),
    ],
)
def test_other_failures_of_the_index_pass(server: ClearMLDouble, subcode: int, reason: str) -> None:
    """Elasticsearch that is away or busy has the same code, and subcode: the same is sent again."""
    api = Api(10.0)
    server.fault("events.add_batch", refusal(500, subcode, f"General data error: {reason}"), times=2)
    before = len(server.requests)
    with pytest.raises(RefusedRequest) as refused:
        api.add_events(['{"type": "training_stats_scalar"}'])
    assert 400 == refused.value.code  # the server's own word over that event, in the end
    assert 3 == len(server.requests) - before


def test_threads_make_a_project_once(server: ClearMLDouble, make_run: MakeRun) -> None:
    """None of them is refused: the server would log an error for each."""
    runs = [make_run("v8.4.190-detect-noplots", f"run{number}") for number in range(4)]
    for number, each in enumerate(runs):  # four trainings, not copies of one
        text = (each / "args.yaml").read_text()
        (each / "args.yaml").write_text(text.replace("save_dir: ", f"save_dir: {number}/"))
    gate = threading.Barrier(4, timeout=5)
    waiting = Counter[str]()

    def meet(endpoint: str, number: int) -> None:
        """Hold the look-ups until every thread has seen that there is none."""
        if endpoint == "projects.get_all_ex" and waiting[endpoint] < 4:
            waiting[endpoint] += 1
            gate.wait()

    server.after_request = meet
    outcomes = upload(runs, jobs=4)
    assert [] == fails(outcomes)
    made = [request for request in server.requests if request.endpoint == "projects.create"]
    assert 1 == len(made)
    assert 4 == len(server.tasks)
