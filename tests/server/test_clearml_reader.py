"""Everything a task holds is read, however much and in whatever pages, or it is an error."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from double import ClearMLDouble, Status
from double.events import IMAGE, PLOT, SCALAR, SINGLE_VALUE_ITERATION
from test_faults import odd_server

from yolo_clearml.errors import Exit, FileServerUnreachable, YoloClearmlError
from yolo_clearml.events import Parameter
from yolo_clearml.server import reader as clearml_reader
from yolo_clearml.server.api import Api
from yolo_clearml.server.compare import Content, HeldModel, Holds
from yolo_clearml.server.reader import read

Line = dict[str, Any]


@pytest.fixture
def api(server: ClearMLDouble) -> Api:
    return Api(2.0)


@pytest.fixture
def task(api: Api) -> str:
    """Give a task that holds nothing yet."""
    project = api.call("projects.create", {"name": "lab/shapes", "description": ""})["id"]
    entry = {"name": "one", "project": project, "type": "training", "tags": ["a", "b"]}
    return str(api.call("tasks.create", entry)["id"])


def holds(api: Api, task: str, *titles: str) -> Holds:
    held = read(api, task, titles)
    assert held is not None
    return held


def scalar(task: str, iteration: int, value: float, title: str = "train", series: str = "loss") -> str:
    event = {"type": SCALAR, "task": task, "metric": title, "variant": series, "iter": iteration}
    return json.dumps(event | {"value": value, "timestamp": 5})


def image(task: str, iteration: int, series: str, name: str) -> str:
    event = {"type": IMAGE, "task": task, "metric": "m", "variant": series, "iter": iteration}
    return json.dumps(event | {"url": f"http://files/{name}", "key": name, "timestamp": 5})


def plot(task: str, title: str, iteration: int = 0, **fields: Any) -> str:
    event = {"type": PLOT, "task": task, "metric": title, "variant": "plot image", "iter": iteration}
    return json.dumps(event | {"timestamp": 5} | fields)


def layout(*sources: str) -> str:
    return json.dumps({"data": [], "layout": {"images": [{"source": source} for source in sources]}})


def test_an_empty_task_is_read_as_such(api: Api, task: str) -> None:
    """Its name, project, tags and status, and nothing in it; one that does not exist is none."""
    held = holds(api, task, "train")
    assert ("one", "lab/shapes", "created", ("a", "b")) == (held.name, held.project, held.status, held.tags)
    assert ({}, {}, {}, {}, ()) == (held.scalars, held.single_values, held.images, held.plots, held.models)
    assert read(api, "0" * 32, []) is None


def test_values_come_back_to_the_last_bit(api: Api, task: str) -> None:
    """Longer than a 32-bit float, tiny, whole, negative; and single values are no points."""
    values = [0.1, 1 / 3, 1e-45, 3.4e38, -0.0, 7, 0.30000000000000004]
    api.add_events([scalar(task, i, value) for i, value in enumerate(values)])
    api.add_events([scalar(task, SINGLE_VALUE_ITERATION, 1 / 7, "Summary", "mAP")])
    api.add_events([scalar(task, SINGLE_VALUE_ITERATION, 2.0, "another title", "mAP")])
    held = holds(api, task)
    assert {("train", "loss"): dict(enumerate(values))} == held.scalars
    assert {"mAP": 1 / 7} == held.single_values


def test_titles_that_the_server_does_not_name_are_read(api: Api, task: str, server: ClearMLDouble) -> None:
    """It names only so many; those a plan speaks of are asked for all the same."""
    api.add_events([scalar(task, 1, 0.5)])
    server.fault("events.get_scalar_metrics_and_variants", reply({"metrics": {}}), times=None)
    assert {("train", "loss"): {1: 0.5}} == holds(api, task, "train").scalars


@pytest.mark.parametrize("page", [1, 2, 7, 1000, 100_000])
def test_points_come_whole_from_pages_of_any_size(
    api: Api, task: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Nothing is lost or doubled between pages, whatever iteration one ends at but 0."""
    monkeypatch.setattr(clearml_reader, "_POINTS", page)
    wanted = {("train", s): {i: i * 0.1 for i in range(1, 8)} for s in ("a", "b", "c")}
    lines = [scalar(task, i, v, *curve) for curve, points in wanted.items() for i, v in points.items()]
    api.add_events(lines)
    assert wanted == holds(api, task).scalars


def test_twelve_thousand_points_of_a_metric(
    api: Api, task: str, server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one page of the server's own, and more than it samples a curve down to."""
    monkeypatch.setattr(clearml_reader, "_POINTS", 5000)
    for series in ("a", "b"):
        api.add_events([scalar(task, i, i / 7, series=series) for i in range(6000)])
    before = len(server.requests)
    held = holds(api, task, "train")
    curve = {i: i / 7 for i in range(6000)}
    assert {("train", "a"): curve, ("train", "b"): curve} == held.scalars
    asked = [r.endpoint for r in server.requests[before:]]
    assert 3 == asked.count("events.scalar_metrics_iter_raw")


@pytest.mark.parametrize("page", [1, 100, 250, 5000])
def test_six_hundred_images(api: Api, task: str, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """Over several pages, of which one ends at iteration 0; two under one place are both there."""
    monkeypatch.setattr(clearml_reader, "_IMAGES", page)
    lines = [image(task, i // 3, str(i % 3), f"{i}.jpg") for i in range(600)]
    api.add_events([*lines, image(task, 0, "0", "twin.jpg")])
    held = holds(api, task)
    assert 600 == len(held.images)
    assert ("http://files/599.jpg",) == held.images["m", "2", 199]
    assert {"http://files/0.jpg", "http://files/twin.jpg"} == set(held.images["m", "0", 0])


def test_all_iterations_of_each_plot(api: Api, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of 150 titles; a plot without pictures is one all the same, a long one is unpacked."""
    monkeypatch.setattr(clearml_reader, "_PLOTS", 40)
    lines = [plot(task, f"t{i}", 3, plot_str=layout(f"http://files/{i}")) for i in range(150)]
    lines += [plot(task, "t0", i, plot_str=layout("http://files/x")) for i in (0, 1, 2)]
    long = json.dumps({"data": ["x" * 200_000], "layout": {"images": [{"source": "http://files/long"}]}})
    lines += [plot(task, "long", plot_str=long), plot(task, "none"), plot(task, "odd", plot_str="[" * 99_000)]
    lines += [plot(task, "curve", plot_str='{"data": [1], "layout": {}}')]
    lines += [plot(task, "inside", plot_str=layout("data:image/png;base64,AA"))]
    api.add_events(lines)
    held = holds(api, task).plots
    assert 150 + 3 + 5 == len(held)
    assert all((f"http://files/{i}",) == held[f"t{i}", "plot image", 3] for i in range(150))
    assert ("http://files/long",) == held["long", "plot image", 0]
    assert [()] * 4 == [held[t, "plot image", 0] for t in ("none", "odd", "curve", "inside")]


def test_parameters_and_models(api: Api, task: str, server: ClearMLDouble) -> None:
    """Types as they are stored; models oldest first, with the name under which the task shows them."""
    items = [
        {"section": "General", "name": "a/b", "value": "1", "type": "int"},
        {"section": "General", "name": "none", "value": ""},
        {"section": "properties", "name": "release", "value": "8", "type": "str"},
    ]
    api.call("tasks.edit_hyper_params", {"task": task, "hyperparams": items, "force": True})
    for name, labels in (("first", {"cat": 0}), ("second", {})):
        entry = {"name": name, "uri": f"s3://b/{name}", "task": task, "labels": labels, "ready": False}
        api.call("models.create", entry)
    first, _ = server.models
    api.call("tasks.add_or_update_model", {"task": task, "model": first, "type": "output", "name": "best"})
    held = holds(api, task)
    assert {
        ("General", "a/b"): Parameter("1", "int"),
        ("General", "none"): Parameter("", None),
        ("properties", "release"): Parameter("8", "str"),
    } == held.parameters
    assert (
        HeldModel("first", "s3://b/first", {"cat": 0}, "best"),
        HeldModel("second", "s3://b/second", {}, None),
    ) == held.models


def test_more_models_than_a_page(api: Api, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is read to its end."""
    monkeypatch.setattr(clearml_reader, "_MODELS", 2)
    for i in range(4):
        api.call("models.create", {"name": f"model {i}", "uri": f"s3://b/{i}", "task": task})
    assert [f"model {i}" for i in range(4)] == [held.name for held in holds(api, task).models]


def reply(data: object) -> Status:
    meta = {"id": "0", "result_code": 200, "result_subcode": 0, "result_msg": "OK"}
    body = json.dumps({"meta": meta, "data": data}).encode()
    return Status(200, body=body, headers={"Content-Type": "application/json"})


POINT: Line = {"variants": {"loss": {"iter": [0], "y": [1.0]}}, "total": 1, "scroll_id": "x"}
EVENT: Line = {"metric": "m", "variant": "v", "iter": 0, "url": "http://files/x"}
EVENTS: Line = {"events": [EVENT], "total": 1, "scroll_id": "x"}


def task_of(**fields: Any) -> Line:
    return {"tasks": [{"id": "TASK", "name": "one", "status": "created", **fields}]}


SHAPES: dict[str, list[Any]] = {
    "events.get_scalar_metrics_and_variants": [{}, {"metrics": []}, {"metrics": None}],
    "events.scalar_metrics_iter_raw": [
        {},
        {**POINT, "variants": None},
        {**POINT, "variants": []},
        {**POINT, "variants": {"loss": {"iter": [0]}}},
        {**POINT, "variants": {"loss": {"iter": [0, 1], "y": [1.0]}}},
        {**POINT, "variants": {"loss": {"iter": ["0"], "y": [1.0]}}},
        {**POINT, "variants": {"loss": {"iter": [0], "y": [None]}}},
        {**POINT, "variants": {"loss": {"iter": [0], "y": ["1.0"]}}},
        {**POINT, "variants": {"loss": {"iter": [0], "y": [True]}}},
        {**POINT, "variants": {"loss": {"iter": [0], "y": [10**400]}}},
        {**POINT, "total": None},
        {**POINT, "total": 2},  # and the same page again
        {**POINT, "total": 2, "scroll_id": None},
        {"variants": {}, "total": 1, "scroll_id": "x"},
    ],
    "events.get_task_single_value_metrics": [
        {},
        {"tasks": None},
        {"tasks": [None]},
        {"tasks": [{"task": "TASK"}]},
        {"tasks": [{"task": "TASK", "values": [{}]}]},
        {"tasks": [{"task": "TASK", "values": [{"metric": "Summary", "variant": "x"}]}]},
        {"tasks": [{"task": "TASK", "values": [{"metric": "Summary", "variant": "x", "value": "1"}]}]},
    ],
    "events.get_task_events": [
        {},
        {**EVENTS, "events": None},
        {**EVENTS, "events": [None]},
        {**EVENTS, "events": [{**EVENT, "metric": None}]},
        {**EVENTS, "events": [{**EVENT, "iter": "0"}]},
        {**EVENTS, "events": [{"metric": "m", "variant": "v", "iter": 0, "url": 5}]},
        {**EVENTS, "total": None},
        {**EVENTS, "total": 2},
        {**EVENTS, "total": 2, "scroll_id": None},
        {**EVENTS, "events": []},
    ],
    "models.get_all": [
        {},
        {"models": None},
        {"models": [{}]},
        {"models": [{"id": "1"}]},
        {"models": [{"id": "1", "name": "m"}]},
        {"models": [{"id": "1", "name": "m", "uri": "u", "labels": {"cat": "0"}}]},
        {"models": [{"id": "1", "name": "m", "uri": "u", "labels": ["cat"]}]},
    ],
    "tasks.get_all_ex": [
        {},
        {"tasks": None},
        {"tasks": [{"id": "TASK"}]},
        task_of(status=None),
        task_of(name=5),
        task_of(project={"id": 5}),
        task_of(tags=[5]),
        task_of(hyperparams=["x"]),
        task_of(hyperparams={"General": {"a": None}}),
        task_of(hyperparams={"General": {"a": {"value": "1"}}}),
        task_of(hyperparams={"General": {"a": {"section": "General", "name": "a", "value": 1}}}),
        task_of(models={"output": [{}]}),
    ],
}
ODD = [(endpoint, data) for endpoint, shapes in SHAPES.items() for data in shapes]


@pytest.mark.parametrize(("endpoint", "data"), ODD, ids=lambda value: str(value)[:90])
def test_a_reply_that_lacks_something_is_an_error(
    api: Api, task: str, server: ClearMLDouble, endpoint: str, data: Any
) -> None:
    """What a reply must have is never taken for granted, nor fewer than the server itself counts."""
    data = json.loads(json.dumps(data).replace("TASK", task))
    server.fault(endpoint, reply(data), times=None)
    with pytest.raises(YoloClearmlError, match=endpoint) as error:
        read(api, task, ["train"])
    assert Exit.UNREACHABLE == error.value.status


def test_a_task_of_another_id_is_none(api: Api, task: str, server: ClearMLDouble) -> None:
    """A server that ignores the filter gives other tasks: none of them is believed."""
    server.fault("tasks.get_all_ex", reply({"tasks": [{"id": "f" * 32, "name": "x", "status": "y"}]}))
    assert read(api, task, []) is None


def test_a_project_that_is_gone_is_none(api: Api, task: str, server: ClearMLDouble) -> None:
    """The task is read all the same."""
    server.tasks[task]["project"] = None
    held = holds(api, task)
    assert (None, None) == (held.project, held.project_id)


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100_000, 3_000_001])
def test_a_file_is_recognised_by_its_bytes(api: Api, server: ClearMLDouble, size: int) -> None:
    """Size, digest, and both ends."""
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    server.files["a b/c.png"] = content
    fetched = api.fetch(f"{server.files_url}/a%20b/c.png", size)
    assert fetched is not None
    assert (size, content[:8], content[-8:]) == (fetched.size, fetched.head, fetched.tail)
    assert 64 == len(fetched.sha256)
    assert api.fetch(f"{server.files_url}/gone", size) is None


def test_a_file_too_large_is_not_read_on(api: Api, server: ClearMLDouble) -> None:
    """It differs already, and might never end."""
    server.files["big"] = b"x" * 10_000_000
    fetched = api.fetch(f"{server.files_url}/big", 1000)
    assert fetched is not None
    assert "" == fetched.sha256
    assert 1000 < fetched.size < 10_000_000


def test_a_file_packed_on_the_way_is_unpacked(api: Api, server: ClearMLDouble) -> None:
    """By a proxy that was asked not to."""
    server.files["a"] = b"plain"
    server.fault("files:GET", Status(200, gzip.compress(b"plain"), {"Content-Encoding": "gzip"}))
    packed = api.fetch(f"{server.files_url}/a", 100)
    assert isinstance(packed, Content)
    assert packed == api.fetch(f"{server.files_url}/a", 100)


def test_a_file_that_drips_is_given_up(server: ClearMLDouble) -> None:
    """A byte now and then is a file that never comes."""
    api, late = Api(0.5), pytest.raises(FileServerUnreachable, match="does not answer")
    with odd_server(b"x" * 100_000, pause=0.1) as address, late:
        api.fetch(f"{address}/x", 100_000)


def test_a_server_that_is_down_is_waited_for_once(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next thousand files do not wait as well."""
    api = Api(0.3)
    server.stop_files()
    with pytest.raises(FileServerUnreachable):
        api.fetch(f"{server.files_url}/x", 1)
    monkeypatch.setattr(api._files, "_patiently", None)
    with pytest.raises(FileServerUnreachable):
        api.fetch(f"{server.files_url}/y", 1)
