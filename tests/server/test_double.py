"""The server double behaves as the genuine server does."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from double import (
    ClearMLDouble,
    DropAfter,
    DropBefore,
    Fault,
    Fewer,
    Hang,
    NotJson,
    Status,
    Truncate,
)

Json = dict[str, Any]
REFUSED = (400, 110)


@pytest.fixture
def server() -> Iterator[ClearMLDouble]:
    with ClearMLDouble() as double:
        yield double


class Client:
    """Raw requests with a valid token."""

    def __init__(self, server: ClearMLDouble) -> None:
        self.server = server
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {server.token()}"

    def send(self, endpoint: str, **body: Any) -> requests.Response:
        return self.http.post(f"{self.server.api_url}/v2.23/{endpoint}", json=body, timeout=10)

    def ask(self, endpoint: str, **body: Any) -> Json:
        reply = self.send(endpoint, **body)
        assert 200 == reply.status_code, reply.text
        data: Json = reply.json()["data"]
        return data

    def code(self, endpoint: str, **body: Any) -> tuple[int, int]:
        return code_of(self.send(endpoint, **body))

    def post_lines(self, text: str | bytes) -> requests.Response:
        headers = {"Content-Type": "application/json-lines"}
        url = f"{self.server.api_url}/events.add_batch"
        return self.http.post(url, data=text, headers=headers, timeout=30)

    def batch(self, *events: Json) -> requests.Response:
        return self.post_lines("\n".join(json.dumps(event) for event in events))

    def task(self, **fields: Any) -> str:
        task_id: str = self.ask("tasks.create", **{"name": "run", "type": "training", **fields})["id"]
        return task_id

    def upload(self, path: str, content: bytes) -> requests.Response:
        return self.http.post(self.server.files_url, files={path: (path, content)}, timeout=10)


@pytest.fixture
def client(server: ClearMLDouble) -> Client:
    return Client(server)


def code_of(reply: requests.Response) -> tuple[int, int]:
    """The HTTP status and the subcode in the envelope."""
    meta = reply.json()["meta"]
    assert meta["result_code"] == reply.status_code
    return reply.status_code, meta["result_subcode"]


def scalar(task: str, iteration: int, value: float = 0.5, **more: Any) -> Json:
    event = {"type": "training_stats_scalar", "task": task, "metric": "train", "variant": "loss"}
    return {**event, "iter": iteration, "value": value, "timestamp": 1000 + iteration, **more}


# -- the stock SDK ---------------------------------------------------------------------------------

SDK_RUN = """
import sys
from pathlib import Path
from clearml import OutputModel, Task

folder = Path(sys.argv[1])
# not Task.init: its close takes ten seconds, whatever the server does
task = Task.create("Group/Nested", "first run")
task.mark_started(force=True)
task.output_uri = True
task.connect({"epochs": 3, "name": None, "cache": False, "freeze": [1, 2]}, name="General")
task.set_user_properties(origin="here")
logger = task.get_logger()
for i in range(3):
    logger.report_scalar("train", "box_loss", 1 / (i + 1), i)
logger.report_single_value("mAP", 0.5)
logger.report_image("Mosaic", "batch 0", iteration=0, local_path=str(folder / "pic ture.png"))
logger.report_media("Media", "clip", iteration=1, local_path=str(folder / "clip.txt"))
model = OutputModel(task=task, name="best model", framework="PyTorch", label_enumeration={"cat": 0})
model.update_weights(str(folder / "best.pt"), auto_delete_file=False, async_enable=False)
task.flush(wait_for_uploads=True)
task.mark_completed()
print(task.id)
"""

SDK_IMPORT = """
import sys
from clearml import Task

print(Task.import_offline_session(sys.argv[1]))
"""


def run_sdk(server: ClearMLDouble, home: Path, script: str, *arguments: str) -> str:
    """Run a script with the stock SDK in a process of its own; return the last line it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML", "TRAINS"))}
    environ = {**kept, **server.environ, "HOME": str(home), "CLEARML_CONFIG_FILE": str(home / "no.conf")}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_stock_sdk_reports_and_the_double_holds_exactly_that(server: ClearMLDouble, tmp_path: Path) -> None:
    """Whatever a script hands to the SDK stands on the server, under its own name."""
    (tmp_path / "pic ture.png").write_bytes(b"\x89PNG picture")
    (tmp_path / "clip.txt").write_bytes(b"hello")
    (tmp_path / "best.pt").write_bytes(b"weights" * 100)

    task_id = run_sdk(server, tmp_path, SDK_RUN, str(tmp_path))

    task = server.tasks[task_id]
    assert ["Group", "Group/Nested"] == [project["name"] for project in server.projects.values()]
    assert ("first run", "completed") == (task["name"], task["status"])
    general = {
        name: (item["value"], item.get("type")) for name, item in task["hyperparams"]["General"].items()
    }
    assert {
        "epochs": ("3", "int"),
        "name": ("", None),
        "cache": ("False", "bool"),
        "freeze": ("[1, 2]", "list/int"),
    } == general
    assert "here" == task["hyperparams"]["properties"]["origin"]["value"]
    assert {("train", "box_loss", i): 1 / (i + 1) for i in range(3)} == {
        key: event["value"] for key, event in server.scalars(task_id).items()
    }
    assert {"mAP": 0.5} == {name: event["value"] for name, event in server.single_values(task_id).items()}
    assert {
        ("Mosaic", "batch 0", 0): b"\x89PNG picture",
        ("Media", "clip", 1): b"hello",
    } == {key[:3]: server.file_of(event["url"]) for key, event in server.images(task_id).items()}
    (model,) = server.models.values()
    assert ("best model", "PyTorch", {"cat": 0}, task_id) == (
        model["name"],
        model["framework"],
        model["labels"],
        model["task"],
    )
    assert b"weights" * 100 == server.file_of(model["uri"])
    assert [model["id"]] == [item["model"] for item in task["models"]["output"]]
    unknown = [r.endpoint for r in server.requests if "files:" not in r.endpoint and "." not in r.endpoint]
    assert [] == unknown


def test_stock_sdk_imports_an_offline_session(server: ClearMLDouble, tmp_path: Path) -> None:
    """A session recorded without a server arrives through the stock importer."""
    offline: Json = {"id": "offline-1", "name": "packed", "type": "training", "project_name": "Offline"}
    offline |= {"execution": {"artifacts": []}, "output": {}, "offline_output_models": []}
    (tmp_path / "task.json").write_text(json.dumps(offline))
    (tmp_path / "metrics.jsonl").write_text(json.dumps([scalar("offline-1", 7, 0.25)]) + "\n")
    (tmp_path / "log.jsonl").write_text("")

    task_id = run_sdk(server, tmp_path, SDK_IMPORT, str(tmp_path))

    task = server.tasks[task_id]
    scalars = {key: event["value"] for key, event in server.scalars(task_id).items()}
    assert {("train", "loss", 7): 0.25} == scalars
    assert ("packed", "completed") == tuple(task[name] for name in ("name", "status"))


# -- credentials and the envelope ------------------------------------------------------------------


def test_login_takes_the_right_keys_only(server: ClearMLDouble) -> None:
    """auth.login hands out a token for the right keys and 401/22 for others."""
    url = f"{server.api_url}/auth.login"
    right = requests.get(url, auth=(server.access_key, server.secret_key), timeout=5)
    wrong = requests.get(url, auth=(server.access_key, "nonsense"), timeout=5)
    assert 200 == right.status_code
    assert 3 == len(right.json()["data"]["token"].split("."))
    assert (401, 22) == code_of(wrong)
    server.refuse_credentials = True
    assert 401 == requests.get(url, auth=(server.access_key, server.secret_key), timeout=5).status_code


def test_expired_tokens_are_refused(server: ClearMLDouble, client: Client) -> None:
    """A token works until it is expired, by order or by the clock."""
    assert (200, 0) == client.code("tasks.get_all")
    server.expire_tokens()
    assert (401, 30) == client.code("tasks.get_all")
    late = Client(server)
    server.clock = lambda: time.time() + server.token_lifetime + 1
    assert (401, 30) == late.code("tasks.get_all")


def test_ping_is_open_and_the_unknown_is_refused(server: ClearMLDouble, client: Client) -> None:
    """debug.ping is open to all; an endpoint nobody knows is 404/0, an address that names none 400/0."""
    assert 200 == requests.get(f"{server.api_url}/debug.ping", timeout=5).status_code
    assert (401, 20) == code_of(requests.get(f"{server.api_url}/tasks.get_all", timeout=5))
    assert (404, 0) == client.code("tasks.no_such_thing")
    assert (400, 0) == code_of(requests.get(f"{server.api_url}/", timeout=5))


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("tasks.create", {"name": "run"}),
        ("tasks.create", {"name": "run", "type": "no such type"}),
        ("tasks.create", {"name": "run", "type": "training", "tags": "one"}),
        ("models.create", {"name": "best"}),
        ("projects.get_by_id", {}),
    ],
)
def test_bodies_are_held_against_the_schema(client: Client, endpoint: str, body: Json) -> None:
    """A missing or mistyped field is 400/12."""
    assert (400, 12) == client.code(endpoint, **body)


def test_extra_fields_are_let_through(client: Client) -> None:
    """A field the schema does not know does not matter."""
    assert (200, 0) == client.code("tasks.create", name="run", type="training", surprise=1)


def test_a_body_over_15_mib_is_refused(client: Client) -> None:
    """One byte too many is 413."""
    assert 413 == client.post_lines(b" " * (15 * 1024 * 1024 + 1)).status_code


# -- names and projects ----------------------------------------------------------------------------


def test_names_need_three_characters(client: Client) -> None:
    """Tasks, models and every part of a project's name have three characters or more."""
    assert (400, 800) == client.code("tasks.create", name="ab", type="training")
    assert (400, 800) == client.code("models.create", name="ab", uri="s3://b/m")
    assert (400, 12) == client.code("projects.create", name="abc/de")
    assert (200, 0) == client.code("projects.create", name="abc/def")


def test_nested_projects_create_their_parents_once(server: ClearMLDouble, client: Client) -> None:
    """Parents come along, a second project of one name is 400/801, and names are found by pattern."""
    client.ask("projects.create", name="one/two/three")
    assert ["one", "one/two", "one/two/three"] == [p["name"] for p in server.projects.values()]
    assert (400, 801) == client.code("projects.create", name="one/two")
    assert (400, 12) == client.code("projects.create", name="/".join(["deep"] * 11))
    found = client.ask("projects.get_all", name="^one/two$", only_fields=["id", "name"])["projects"]
    assert ["one/two"] == [project["name"] for project in found]


# -- the status machine ----------------------------------------------------------------------------

STEPS = {
    "created": [],
    "in_progress": ["started"],
    "completed": ["started", "completed"],
    "stopped": ["started", "stopped"],
    "failed": ["started", "failed"],
    "published": ["started", "completed", "publish"],
}
ALLOWED = {
    ("created", "started"),
    ("in_progress", "started"),
    ("in_progress", "completed"),
    ("in_progress", "stopped"),
    ("in_progress", "failed"),
    ("completed", "started"),
    ("completed", "completed"),
    ("completed", "publish"),
    ("stopped", "started"),
    ("stopped", "completed"),
    ("stopped", "stopped"),
    ("stopped", "failed"),
    ("stopped", "publish"),
    ("failed", "failed"),
    ("failed", "stopped"),
    ("failed", "publish"),
}


def task_in(client: Client, status: str) -> str:
    task = client.task()
    for action in STEPS[status]:
        client.ask(f"tasks.{action}", task=task)
    assert status == client.server.tasks[task]["status"]
    return task


@pytest.mark.parametrize("action", ["started", "completed", "stopped", "failed", "publish"])
@pytest.mark.parametrize("status", list(STEPS))
def test_status_changes(client: Client, status: str, action: str) -> None:
    """A change is allowed or refused with 400/110 as the server's table says, and always works by force."""
    expected = (200, 0) if (status, action) in ALLOWED else REFUSED
    task = task_in(client, status)
    assert expected == client.code(f"tasks.{action}", task=task)
    assert (200, 0) == client.code(f"tasks.{action}", task=task, force=True)


def test_unknown_tasks_are_refused(client: Client) -> None:
    """A task that is not there is 400/101."""
    assert (400, 101) == client.code("tasks.started", task="0" * 32)
    assert (400, 101) == client.code("tasks.get_by_id", task="0" * 32)


def test_times_follow_the_clock_and_a_task_that_starts_again_starts_anew(
    server: ClearMLDouble, client: Client
) -> None:
    """Started is the last start, unless in progress already; completed the last end, gone meanwhile."""
    moments = iter(range(1_700_000_000, 1_800_000_000, 60))
    now = [0.0]
    server.clock = lambda: now[0] or 1_700_000_000
    fresh = Client(server)
    task = fresh.task()
    times = []
    for action in ("started", "started", "completed", "started", "completed"):
        now[0] = next(moments)
        fresh.ask(f"tasks.{action}", task=task)
        stored = (server.tasks[task].get(name) for name in ("started", "completed"))
        times.append(tuple(time and time[14:19] for time in stored))
    assert [
        ("13:20", None),
        ("13:20", None),
        ("13:20", "15:20"),
        ("16:20", None),
        ("16:20", "17:20"),
    ] == times


WRITES: dict[str, Json] = {
    "tasks.edit_runtime": {"add_or_update": {"k": 1}},
    "tasks.add_or_update_artifacts": {"artifacts": [{"key": "a", "type": "custom", "uri": "s3://b/a"}]},
    "tasks.add_or_update_model": {"name": "best", "type": "output"},
    "tasks.edit_hyper_params": {"hyperparams": [{"section": "General", "name": "a", "value": "1"}]},
    "tasks.edit_configuration": {"configuration": [{"name": "a", "value": "1"}]},
    "tasks.edit": {"comment": "c"},
    "tasks.update": {"tags": ["t"], "comment": "c", "name": "new"},
}


@pytest.mark.parametrize("endpoint", list(WRITES))
@pytest.mark.parametrize("status", list(STEPS))
def test_what_may_be_written_when(client: Client, status: str, endpoint: str) -> None:
    """Runtime, models and artifacts want an unfinished task; parameters want a created one or force."""
    unfinished = status in ("created", "in_progress")
    by_force = endpoint in ("tasks.edit_hyper_params", "tasks.edit_configuration", "tasks.edit")
    expected = endpoint == "tasks.update" or (status == "created" if by_force else unfinished)
    task = task_in(client, status)
    body = {"task": task, **WRITES[endpoint]}
    if endpoint == "tasks.add_or_update_model":
        body["model"] = client.ask("models.create", name="best", uri="s3://b/m")["id"]
    assert ((200, 0) if expected else REFUSED) == client.code(endpoint, **body)
    if not by_force:  # then force changes nothing
        assert ((200, 0) if expected else REFUSED) == client.code(endpoint, **body, force=True)
    else:
        forced = (200, 0) if unfinished or endpoint == "tasks.edit" else REFUSED
        assert forced == client.code(endpoint, **body, force=True)
    properties = [{"section": "properties", "name": "p", "value": "1"}]
    assert (200, 0) == client.code("tasks.edit_hyper_params", task=task, hyperparams=properties)


def test_runtime_is_added_to_and_taken_from(server: ClearMLDouble, client: Client) -> None:
    """A field `runtime` is ignored without a word; keys that Mongo cannot hold are escaped."""
    task = client.task(runtime={"a": 1, "b": 2})
    edit = {"add_or_update": {"c": 3, "d.e": 4}, "remove": ["a"]}
    assert {"updated": 1} == client.ask("tasks.edit_runtime", task=task, **edit)
    assert {"updated": 0} == client.ask("tasks.edit_runtime", task=task, runtime={"z": 1}, force=True)
    assert {"b": 2, "c": 3, "d%2Ee": 4} == server.tasks[task]["runtime"]
    assert (400, 12) == client.code("tasks.edit_runtime", add_or_update={"k": "v"})


def test_parameters_are_strings(client: Client) -> None:
    """A number as a hyperparameter's value is refused."""
    task = client.task()
    numbers = [{"section": "General", "name": "a", "value": 1}]
    assert (400, 12) == client.code("tasks.edit_hyper_params", task=task, hyperparams=numbers)


def test_a_reset_keeps_properties_and_loses_runtime(server: ClearMLDouble, client: Client) -> None:
    """After a reset events, runtime and output models are gone, user properties stay."""
    properties = {"properties": {"p": {"section": "properties", "name": "p", "value": "1"}}}
    task = client.task(runtime={"key": "a"}, hyperparams=properties)
    client.ask("tasks.started", task=task)
    client.batch(scalar(task, 0))
    client.ask("tasks.reset", task=task)
    assert ("created", {}, {}, {}) == (
        server.tasks[task]["status"],
        server.tasks[task]["runtime"],
        server.tasks[task]["last_metrics"],
        server.scalars(task),
    )
    assert "1" == server.tasks[task]["hyperparams"]["properties"]["p"]["value"]


@pytest.mark.parametrize(("keep", "expected"), [(False, {}), (True, {"m/best.pt": b"w"})])
def test_deleting_takes_the_files_along_unless_asked_not_to(
    server: ClearMLDouble, client: Client, keep: bool, expected: dict[str, bytes]
) -> None:
    """tasks.delete removes output models and, by default, the files behind them."""
    task = client.task()
    client.upload("m/best.pt", b"w")
    client.ask("models.create", name="best", uri=f"{server.files_url}/m/best.pt", task=task)
    client.ask("tasks.delete", task=task, **({"delete_external_artifacts": False} if keep else {}))
    assert (expected, {}, {}) == (server.files, server.models, server.tasks)


def test_the_watchdog_stops_silent_tasks(server: ClearMLDouble, client: Client) -> None:
    """Two hours without a sign of life stop a task; events, runtime and pings are signs, the rest is not."""
    signs: dict[str, Json] = {
        "tasks.ping": {},
        "tasks.edit_runtime": {"add_or_update": {"k": 1}},
        "tasks.update": {"comment": "no sign"},
        "tasks.edit_hyper_params": {"hyperparams": [{"section": "properties", "name": "p", "value": "1"}]},
    }
    tasks = {endpoint: task_in(client, "in_progress") for endpoint in [*signs, "events.add_batch", "nothing"]}
    start = time.time()
    server.clock = lambda: start + 3600
    for endpoint, body in signs.items():
        client.ask(endpoint, task=tasks[endpoint], **body)
    client.batch(scalar(tasks["events.add_batch"], 0))
    server.clock = lambda: start + 7300
    stopped = server.run_watchdog()
    assert {tasks["tasks.update"], tasks["tasks.edit_hyper_params"], tasks["nothing"]} == set(stopped)
    assert "stopped" == server.tasks[tasks["nothing"]]["status"]


# -- looking up ------------------------------------------------------------------------------------


def test_runtime_look_up_is_exact_by_value_and_type(client: Client) -> None:
    """Only the very value under a plain key is found."""
    text, number = client.task(runtime={"run_key": "1"}), client.task(runtime={"run_key": 1})
    flag = client.task(runtime={"run_key": True})
    everybody = [text, number, flag]

    def found(**body: Any) -> list[str]:
        return [task["id"] for task in client.ask("tasks.get_all_ex", **body)["tasks"]]

    assert [text] == found(**{"runtime.run_key": "1"})
    assert [number] == found(**{"runtime.run_key": 1})
    assert [flag] == found(**{"runtime.run_key": True})
    assert [] == found(**{"runtime.run_key": ""})
    assert everybody == found(**{"runtime.run_key": None})
    assert everybody == found(nonsense="12")


@pytest.mark.parametrize("key", ["a.b", "a__b", "size", "exists"])
def test_runtime_look_up_by_an_odd_key_finds_nothing(client: Client, key: str) -> None:
    """A key with a dot, two underscores or an operator's name is never found."""
    client.task(runtime={key: "v"})
    assert [] == client.ask("tasks.get_all_ex", **{f"runtime.{key}": "v"})["tasks"]


def test_filters_order_pages_and_fields(client: Client) -> None:
    """Tasks are found by project, name, tags, status and id, ordered, paged, and cut to the asked fields."""
    seconds = itertools.count()  # or those of one millisecond have no order
    client.server.clock = lambda: time.time() + next(seconds)
    project = client.ask("projects.create", name="Group")["id"]
    one = client.task(name="alpha", project=project, tags=["x"])
    two = client.task(name="beta", project=project, tags=["x", "y"], system_tags=["archived"])
    three = client.task(name="alphabet")

    def found(**body: Any) -> list[str]:
        return [task["id"] for task in client.ask("tasks.get_all_ex", **body)["tasks"]]

    assert [one, two] == found(project=[project])
    assert [one, three] == found(name="^ALPHA")
    assert [two] == found(tags=["y"])
    assert [one] == found(tags=["x", "-y"])
    assert [one, three] == found(system_tags=["-archived"])
    assert [three] == found(id=[three])
    assert [] == found(status=["completed"])
    assert [three, two, one] == found(order_by=["-created"], id=[one, two, three])
    assert [two] == found(order_by=["name"], page=2, page_size=1)
    assert [{"id": one, "name": "alpha", "project": {"id": project, "name": "Group"}}] == client.ask(
        "tasks.get_all_ex", id=[one], only_fields=["name", "project.name"]
    )["tasks"]


def test_the_ex_calls_expand_what_is_referred_to(client: Client) -> None:
    """`get_all` gives ids, and its own only if asked; `get_all_ex` objects with an id, and more if asked."""
    project = client.ask("projects.create", name="Group/Nested")["id"]
    parent = client.task(project=project)
    task = client.task(project=project, parent=parent)
    of = {"task": task, "project": project}
    model = client.ask("models.create", name="best", uri="s3://b/m", **of)["id"]
    client.ask("tasks.add_or_update_model", task=task, model=model, name="best", type="output")

    def found(endpoint: str, *fields: str, **body: Any) -> Json:
        (documents,) = client.ask(endpoint, only_fields=list(fields), **body).values()
        first: Json = documents[0]
        first.get("models", {}).get("output", [{}])[0].pop("updated", None)
        return first

    fields = ("project", "parent", "models.output", "output.destination")
    assert {
        "project": project,
        "parent": parent,
        "models": {"output": [{"name": "best", "model": model}]},
        "output": {},
    } == found("tasks.get_all", *fields, id=[task])
    assert {
        "id": task,
        "project": {"id": project},
        "parent": {"id": parent},
        "models": {"output": [{"name": "best", "model": {"id": model}}]},
        "output": {},
    } == found("tasks.get_all_ex", *fields, id=[task])
    named = {"id": project, "name": "Group/Nested"}
    assert {"id": model, "project": named, "task": {"id": task}} == found(
        "models.get_all_ex", "project.name", "task", id=[model]
    )
    above = client.ask("projects.get_all", name="^Group$")["projects"][0]["id"]
    assert {"id": project, "parent": {"id": above}} == found("projects.get_all_ex", "parent", id=[project])


def test_tasks_are_found_by_a_parameter_in_every_status(client: Client) -> None:
    """User properties can be searched for by value; a dot in a name is sent as %2E."""
    properties = [{"section": "properties", "name": "mark.it", "value": "key"}]
    marked = [task_in(client, status) for status in STEPS]
    for task in marked:
        client.ask("tasks.edit_hyper_params", task=task, hyperparams=properties)
    client.task()

    def found(name: str, value: Any) -> list[str]:
        only = {"only_fields": ["id"]}
        return [task["id"] for task in client.ask("tasks.get_all_ex", **{name: value}, **only)["tasks"]]

    assert marked == found("hyperparams.properties.mark%2Eit.value", "key")
    assert marked == found("hyperparams.properties.mark%2Eit.value", ["other", "key"])
    assert [] == found("hyperparams.properties.mark%2Eit.value", "other")
    assert (400, 12) == client.code("tasks.get_all_ex", **{"hyperparams.properties.mark.it.value": "key"})


# -- models ----------------------------------------------------------------------------------------


def test_models_are_ready_unless_asked_not_to_be(server: ClearMLDouble, client: Client) -> None:
    """models.create makes a new model each time, ready by default, and refuses labels Mongo cannot hold."""
    ids = [
        client.ask("models.create", name="best", uri="s3://b/m", **m)["id"] for m in ({}, {"ready": False})
    ]
    assert [True, False] == [server.models[model]["ready"] for model in ids]
    for labels in ({"": 0}, {"$cat": 0}):
        assert (400, 800) == client.code("models.create", name="best", uri="s3://b/m", labels=labels)
    found = client.ask("models.get_all", uri=["s3://b/m"])["models"]
    assert ids == [model["id"] for model in found]
    assert (400, 201) == client.code("models.get_by_id", model="0" * 32)


def test_one_model_per_name_and_direction(server: ClearMLDouble, client: Client) -> None:
    """Linking a second model under one name replaces the first."""
    task = client.task()
    first, second = (client.ask("models.create", name="best", uri=uri, task=task)["id"] for uri in ("a", "b"))
    for model in (first, second):
        client.ask("tasks.add_or_update_model", task=task, name="best", type="output", model=model)
    assert [second] == [item["model"] for item in server.tasks[task]["models"]["output"]]


# -- events ----------------------------------------------------------------------------------------


def test_events_overwrite_but_logs_double(server: ClearMLDouble, client: Client) -> None:
    """Sent twice, everything but a log line is stored once, while all lines count as received."""
    task = client.task()
    place: Json = {"task": task, "metric": "m", "variant": "v", "iter": 0, "timestamp": 5}
    events = [
        scalar(task, 0),
        scalar(task, -(2**31), metric="Summary", variant="mAP"),
        {**place, "type": "plot", "plot_str": "{}"},
        {**place, "type": "training_debug_image", "key": "a.png", "url": "http://x/a.png"},
        {**place, "type": "training_debug_image", "key": "b.png", "url": "http://x/b.png"},
        {"type": "log", "task": task, "msg": "hello", "timestamp": 5},
    ]
    for _ in range(2):
        assert {"added": 6, "errors": 0, "errors_info": {}} == client.batch(*events).json()["data"]
    held = (server.scalars, server.single_values, server.plots, server.images, server.logs)
    assert (1, 1, 1, 2, 2) == tuple(len(holder(task)) for holder in held)
    assert 12 == server.events_received(task)


def test_statistics_add_up_per_batch(server: ClearMLDouble, client: Client) -> None:
    """Count and mean grow with every accepted batch, and the last value is that of the last batch."""
    task = client.task()
    client.batch(*(scalar(task, i, value) for i, value in enumerate((4.0, 2.0, 3.0))))
    client.batch(scalar(task, 0, 1.0))
    ((series,),) = [list(metric.values()) for metric in server.tasks[task]["last_metrics"].values()]
    expected = {"value": 1.0, "min_value": 1.0, "max_value": 4.0, "count": 4, "mean_value": 2.5}
    assert expected == {name: series[name] for name in expected}
    assert 2 == server.tasks[task]["last_iteration"]


def test_errors_are_counted_when_others_are_added(client: Client) -> None:
    """Unknown and locked tasks, wrong and missing types and missing tasks are counted, not refused."""
    task, published = client.task(), task_in(client, "published")
    bad: list[Json] = [scalar("0" * 32, 0), scalar(published, 0), scalar(task, 0, type="nonsense")]
    bad += [{name: v for name, v in scalar(task, 0).items() if name != gone} for gone in ("type", "task")]
    reply = client.batch(scalar(task, 0), *bad).json()["data"]
    assert {
        "added": 1,
        "errors": 5,
        "errors_info": {
            f"Invalid task id {'0' * 32}": 1,
            f"Invalid task id {published}": 1,
            "Invalid event type nonsense": 1,
            "Event must have a 'type' field": 1,
            "Event must have a 'task' field": 1,
        },
    } == reply
    assert (400, 131) == code_of(client.batch(*bad))


@pytest.mark.parametrize(
    "bad",
    [
        {"value": math.nan},
        {"value": math.inf},
        {"value": 1e39},
        {"value": True},
        {"metric": "m" * 32767},
        {"variant": "ä" * 16384},
    ],
)
def test_a_bad_event_costs_the_later_chunks(server: ClearMLDouble, client: Client, bad: Json) -> None:
    """What Elasticsearch refuses is 500/100; its chunk of 500 is stored, later ones and statistics not."""
    task = client.task()
    events = [scalar(task, i) for i in range(1100)]
    events[600] = scalar(task, 600, **bad)
    assert (500, 100) == code_of(client.batch(*events))
    assert set(range(1000)) - {600} == {key[2] for key in server.scalars(task)}
    assert {} == server.tasks[task]["last_metrics"]


def test_a_value_that_is_no_number_costs_all(server: ClearMLDouble, client: Client) -> None:
    """The server adds up before it writes, and stumbles: 500/0, and nothing is stored."""
    task = client.task()
    assert (500, 0) == code_of(client.batch(scalar(task, 0), {**scalar(task, 1), "value": "much"}))
    assert {} == server.scalars(task)


def test_an_iteration_over_int64_is_500(server: ClearMLDouble, client: Client) -> None:
    """The good ones are stored and counted before the reply says 500/100."""
    task = client.task()
    assert (500, 100) == code_of(client.batch(scalar(task, 2**63), scalar(task, 1), scalar(task, 2**63 - 1)))
    assert {1, 2**63 - 1} == {key[2] for key in server.scalars(task)}
    assert server.tasks[task]["last_metrics"] != {}


def test_a_date_is_stored_and_then_500(server: ClearMLDouble, client: Client) -> None:
    """Elasticsearch takes an ISO date, the statistics do not."""
    task = client.task()
    reply = client.batch(scalar(task, 1, timestamp="2024-01-01T00:00:00"))
    assert ((500, 100), 1, {}) == (
        code_of(reply),
        len(server.scalars(task)),
        server.tasks[task]["last_metrics"],
    )


@pytest.mark.parametrize("line", ["", "{", "[]", '{"value": 1e999}'])
def test_a_bad_line_refuses_the_whole_request(server: ClearMLDouble, client: Client, line: str) -> None:
    """A blank line, broken JSON or a number that overflows is 400 for all lines."""
    task = client.task()
    good = json.dumps(scalar(task, 0))
    assert (400, 0) == code_of(client.post_lines(f"{good}\n{line}\n{good}"))
    assert 0 == server.events_received(task)


def test_fields_of_events_have_their_types(client: Client) -> None:
    """A mistyped field is 400/18; an empty batch is 400/17."""
    task = client.task()
    assert (400, 18) == code_of(client.batch(scalar(task, 0, iter="1")))
    assert (400, 18) == code_of(client.batch(scalar(task, 0, metric=1)))
    assert (400, 17) == code_of(client.batch())


def test_reading_back(client: Client) -> None:
    """Scalars come exactly and in pages, single values apart, a long plot packed where it is not unpacked."""
    task = client.task()
    values = [0.1 * i for i in range(5)]
    client.batch(*(scalar(task, i, value) for i, value in enumerate(values)))
    client.batch(scalar(task, -(2**31), 0.7, metric="Summary", variant="mAP"))
    plot: Json = {"type": "plot", "task": task, "metric": "m", "iter": 0, "timestamp": 5}
    client.batch(
        *({**plot, "variant": v, "plot_str": text} for v, text in (("short", "{}"), ("v", "x" * 100_000)))
    )
    body: Json = {"task": task, "metric": {"metric": "train"}, "batch_size": 3, "count_total": True}
    first = client.ask("events.scalar_metrics_iter_raw", **body)
    rest = client.ask("events.scalar_metrics_iter_raw", **body, scroll_id=first["scroll_id"])
    assert (5, {"loss": {"iter": [0, 1, 2], "y": values[:3]}}) == (first["total"], first["variants"])
    assert {"loss": {"iter": [3, 4], "y": values[3:]}} == rest["variants"]
    (single,) = client.ask("events.get_task_single_value_metrics", tasks=[task])["tasks"]
    assert [("Summary", "mAP", 0.7)] == [(v["metric"], v["variant"], v["value"]) for v in single["values"]]
    plots = client.ask("events.get_task_plots", task=task)["plots"]
    assert [("short", True), ("v", True)] == [(p["variant"], "plot_str" in p) for p in plots]
    stored = client.ask("events.get_task_events", task=task, event_type="plot")["events"]
    assert [("short", True), ("v", False)] == [(p["variant"], "plot_str" in p) for p in stored]
    ended = client.ask("events.scalar_metrics_iter_raw", **body, scroll_id=rest["scroll_id"])
    assert (0, 5, {}) == (ended["returned"], ended["total"], ended["variants"])


def test_a_page_of_events_that_ends_at_iteration_0_starts_again(client: Client) -> None:
    """Pages hold whole iterations; after iteration 0 the first page comes again, for ever."""
    task = client.task()
    image = {"type": "training_debug_image", "task": task, "metric": "m", "timestamp": 5}
    client.batch(*({**image, "variant": str(i), "iter": i // 2, "key": str(i)} for i in range(6)))
    body: Json = {"task": task, "event_type": "training_debug_image", "batch_size": 1}
    first = client.ask("events.get_task_events", **body)
    again = client.ask("events.get_task_events", **body, scroll_id=first["scroll_id"])
    larger: Json = {**body, "batch_size": 3}
    second = client.ask("events.get_task_events", **larger)
    third = client.ask("events.get_task_events", **larger, scroll_id=second["scroll_id"])
    assert (["0", "1"], 6) == ([event["variant"] for event in first["events"]], first["total"])
    assert first["events"] == again["events"]
    assert (
        ["0", "1", "2", "3"],
        ["4", "5"],
    ) == tuple([event["variant"] for event in page["events"]] for page in (second, third))
    assert (500, 100) == client.code("events.get_task_events", task=task, batch_size=10_001)


# -- the file server -------------------------------------------------------------------------------


def test_files_come_back_as_they_went(server: ClearMLDouble, client: Client) -> None:
    """An upload is readable under its quoted path until it is deleted."""
    content = bytes(range(256)) * 3 + b"\r\n--\r\n"
    reply = client.upload("a b/ü#1.png", content)
    url = f"{server.files_url}/a%20b/%C3%BC%231.png"
    assert (200, ["a b/ü#1.png"]) == (reply.status_code, reply.json())
    assert {"a b/ü#1.png": content} == server.files
    assert content == requests.get(url, timeout=5).content == server.file_of(url)
    assert (200, b"") == (requests.head(url, timeout=5).status_code, requests.head(url, timeout=5).content)
    assert [200, 404] == [requests.delete(url, timeout=5).status_code for _ in range(2)]
    assert [404, 404] == [call(url, timeout=5).status_code for call in (requests.get, requests.head)]


def test_paths_are_normalised_and_overlong_parts_refused(server: ClearMLDouble, client: Client) -> None:
    """Dots, doubled slashes and a literal backslash vanish; a part over 255 bytes is 500, a way out 404."""
    client.upload("/a//b/../c.txt", b"1")
    body = b'--x\r\nContent-Disposition: form-data; name="d\\e"; filename="f"\r\n\r\n2\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    requests.post(server.files_url, data=body, headers=headers, timeout=5)
    assert {"a/c.txt": b"1", "de": b"2"} == server.files
    assert 500 == client.upload("n" * 256, b"").status_code
    assert 404 == client.upload("../out", b"").status_code


def test_the_file_server_may_ask_for_the_token(server: ClearMLDouble, client: Client) -> None:
    """With files_auth only those with a token get through."""
    server.files_auth = True
    assert 200 == client.upload("a", b"1").status_code
    assert 401 == requests.get(f"{server.files_url}/a", timeout=5).status_code


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "stored", "outcome"),
    [
        (Status(500), 0, 500),
        (Status(429, body="slow down", headers={"Retry-After": "1"}), 0, 429),
        (DropBefore(), 0, requests.ConnectionError),
        (DropAfter(), 1, requests.ConnectionError),
        (Truncate(), 1, requests.exceptions.ChunkedEncodingError),
        (NotJson(), 0, 200),
        (Hang(0.05), 1, 200),
    ],
)
def test_faults_strike_the_nth_request_only(
    server: ClearMLDouble, client: Client, kind: Fault, stored: int, outcome: int | type[Exception]
) -> None:
    """The second batch is struck, and processed or not as the fault says; the first and third are not."""
    task = client.task()
    server.fault("events.add_*", kind, nth=2)
    assert 200 == client.batch(scalar(task, 0)).status_code
    if isinstance(outcome, int):
        reply = client.batch(scalar(task, 1))
        assert outcome == reply.status_code
        assert isinstance(kind, NotJson) == ("<html>" in reply.text)
        if isinstance(kind, Status) and kind.headers:
            assert ("1", "slow down") == (reply.headers["Retry-After"], reply.text)
    else:
        with pytest.raises(outcome):
            client.batch(scalar(task, 1))
    assert 1 + stored == server.events_received(task)
    assert 200 == client.batch(scalar(task, 2)).status_code
    assert ["tasks.create"] + ["events.add_batch"] * 3 == [request.endpoint for request in server.requests]


def test_fewer_leaves_one_event_out_and_says_so(server: ClearMLDouble, client: Client) -> None:
    """The reply is 200 with an error, and the last event is not there."""
    task = client.task()
    server.fault("events.add_batch", Fewer())
    reply = client.batch(scalar(task, 0), scalar(task, 1)).json()["data"]
    assert (1, 1, {0}) == (reply["added"], reply["errors"], {key[2] for key in server.scalars(task)})


def test_faults_last_as_long_as_they_are_set(server: ClearMLDouble, client: Client) -> None:
    """times=2 strikes twice, times=None until the faults are cleared."""
    server.fault("tasks.*", Status(502), times=2)
    assert [502, 502, 200] == [client.send("tasks.get_all").status_code for _ in range(3)]
    server.fault("files:POST", Status(507), times=None)
    assert [507] * 3 == [client.upload("a", b"").status_code for _ in range(3)]
    server.clear_faults()
    assert 200 == client.upload("a", b"").status_code


def test_servers_stop_and_start_on_their_port(server: ClearMLDouble, client: Client) -> None:
    """A stopped server refuses, old connections too; started again it still knows everything."""
    task, environ = client.task(), server.environ
    server.stop_api()
    with pytest.raises(requests.ConnectionError):
        client.send("tasks.get_all")
    assert 200 == client.upload("a", b"1").status_code
    server.start_api()
    server.stop_files()
    assert task == client.ask("tasks.get_by_id", task=task)["task"]["id"]
    with pytest.raises(requests.ConnectionError):
        client.upload("a", b"1")
    server.start_files()
    assert (200, environ) == (client.upload("a", b"1").status_code, server.environ)


def test_hooks_and_the_list_of_requests(server: ClearMLDouble, client: Client) -> None:
    """Hooks run around the processing of each request, and each request is listed with what it carried."""
    seen: list[Any] = []
    server.before_request = lambda endpoint, n: seen.append(("before", endpoint, n, len(server.tasks)))
    server.after_request = lambda endpoint, n: seen.append(("after", endpoint, n, len(server.tasks)))
    client.task()
    client.upload("a", b"1")
    assert [
        ("before", "tasks.create", 1, 0),
        ("after", "tasks.create", 1, 1),
        ("before", "files:POST", 2, 1),
        ("after", "files:POST", 2, 1),
    ] == seen
    assert [
        ("POST", "tasks.create", {"name": "run", "type": "training"}),
        ("POST", "files:POST", ["a"]),
    ] == [(request.method, request.endpoint, request.payload) for request in server.requests]


def test_latency_is_added(server: ClearMLDouble, client: Client) -> None:
    """Each request takes at least the latency of its server."""
    server.latency = 0.05
    begin = time.perf_counter()
    client.task()
    client.upload("a", b"")
    assert 0.1 <= time.perf_counter() - begin


# -- snapshots -------------------------------------------------------------------------------------


def fill(server: ClearMLDouble, loss: float = 0.5) -> None:
    """A small upload, whose links hold the server's own ids and ports."""
    client = Client(server)
    project = client.ask("projects.create", name="Group/Nested")["id"]
    task = client.task(project=project, runtime={"key": "k"}, output_dest=server.files_url)
    client.upload(f"Nested/run.{task}/a.png", b"picture")
    url = f"{server.files_url}/Nested/run.{task}/a.png"
    image = {
        "type": "training_debug_image",
        "task": task,
        "metric": "m",
        "variant": "v",
        "iter": 0,
        "url": url,
    }
    client.batch(scalar(task, 0, loss), {**image, "key": url})
    model = client.ask("models.create", name="best", uri=url, task=task, comment=f"by {task}")["id"]
    client.ask("tasks.add_or_update_model", task=task, name="best", type="output", model=model)
    client.ask("tasks.started", task=task)
    client.ask("tasks.completed", task=task)


def test_snapshots_of_equal_ends_are_equal_and_of_others_are_not() -> None:
    """Ids, ports and the server's times do not matter; a value does."""
    taken = []
    for moment, loss in ((1_000_000_000, 0.5), (1_500_000_000, 0.5), (1_000_000_000, 0.25)):
        with ClearMLDouble() as server:
            server.clock = lambda moment=moment: moment  # type: ignore[misc]
            fill(server, loss)
            taken.append(server.snapshot())
    assert taken[0] == taken[1] != taken[2]
    assert ["Nested/run.<task Group/Nested/run 1>/a.png"] == list(taken[0]["files"])
    assert "127.0.0.1" not in repr(taken[0])
