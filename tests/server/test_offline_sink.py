"""Offline sessions: the stock importer makes of them the task that the plan describes."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

import pytest
from conftest import GOLDEN, long_after
from double import ClearMLDouble

from yolo_clearml.errors import RunChanged, RunUnreadable
from yolo_clearml.events import (
    DrawnPlot,
    Event,
    FileStamp,
    Hyperparameters,
    Image,
    OutputModel,
    Plan,
    Plot,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
)
from yolo_clearml.replay.figures import draw_results, picture_size
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.rundir.scan import scan
from yolo_clearml.server import offline as offline_sink
from yolo_clearml.server import task_log
from yolo_clearml.server.offline import ExportUnwritable, OfflineSink, _copy, _file_name, _lines, _plain
from yolo_clearml.sync.sinks import Acknowledged, Sent, Step

Json = dict[str, Any]

IMPORT = """
import sys
from clearml import Task
for session in sys.argv[1:]:
    print("imported", Task.import_offline_session(session))
"""
ODD = Wishes(project="Örtliche Läufe/zwei & drei/a#b?c%20", name='Lauf "№ 1"/../50% + ü', tags=("x y", "é"))
CASES = {
    "detect": ("v8.4.190-detect", ODD),
    "killed": ("v8.4.190-detect-killed", Wishes(project="one/two/three")),
    "segment": ("v8.1.0-segment", Wishes()),
    "yolov5": ("yolov5-7.0.14-detect", Wishes()),
}


def unpacked(name: str, target: Path) -> Path:
    """Unpack a real run, file times kept."""
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
        for member in archive.getmembers():
            member.name = str(Path(member.name).relative_to("run"))
            archive.extract(member, target, filter="tar")
    return target


def planned(root: Path, wishes: Wishes = Wishes()) -> Plan:
    run = scan(root, long_after())
    assert not isinstance(run, NotARun)
    return plan(run, wishes)


def export(folder: Path, root: Path, plan: Plan, output_uri: str | None = None) -> list[Step]:
    with OfflineSink(folder, output_uri).open(plan, root, None, "") as delivery:
        return list(delivery.deliver(plan.reports))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def events_of(plan: Plan, kind: type[Event]) -> list[Any]:
    return [event for report in plan.reports for event in report.events if isinstance(event, kind)]


def import_all(server: ClearMLDouble, folder: Path, sessions: list[Path]) -> list[str]:
    """Let the stock SDK import sessions in a process of its own; give the new tasks' ids."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML_", "TRAINS_"))}
    nowhere = {"CLEARML_CONFIG_FILE": str(folder / "no-clearml.conf"), "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *map(str, sessions)],
        env={**own, **nowhere, **server.environ},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("imported ")]


@dataclass(frozen=True)
class Imported:
    server: ClearMLDouble
    root: Path
    plan: Plan
    weights: Path  # the copy beside the zip
    task: Json
    task_id: str


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Imported]]:
    """Export real runs and import all sessions in one process; two more have lost their weights."""
    base = tmp_path_factory.mktemp("offline")
    runs: dict[str, tuple[Path, Plan, Path]] = {}
    with ClearMLDouble() as server:
        for case, (name, wishes) in CASES.items():
            root = unpacked(name, base / "runs" / case)
            runs[case] = (root, planned(root, wishes), base / "out" / case)
        root, detect, _ = runs["detect"]
        runs["uploaded"] = (root, detect, base / "out" / "uploaded")
        runs["lost"] = (root, detect, base / "out" / "lost")
        runs["lost, uploaded"] = (root, detect, base / "out" / "lost, uploaded")
        for case, (root, plan, out) in runs.items():
            export(out, root, plan, server.files_url if "uploaded" in case else None)
            if "lost" in case:
                next(out.glob("*.pt")).unlink()
        sessions = [next(out.glob("*.zip")) for _, _, out in runs.values()]
        ids = import_all(server, base, sessions)
        assert len(ids) == len(runs)
        yield {
            case: Imported(server, root, plan, session.with_suffix(".pt"), server.tasks[task], task)
            for (case, (root, plan, _)), session, task in zip(runs.items(), sessions, ids, strict=True)
        }


@pytest.fixture(params=[*CASES, "uploaded", "lost", "lost, uploaded"])
def case(request: pytest.FixtureRequest, imported: dict[str, Imported]) -> Imported:
    return imported[request.param]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return unpacked("v8.4.190-detect", tmp_path / "run")


# -- through the stock importer ---------------------------------------------------------------------------


def test_the_task(case: Imported) -> None:
    """Project, name, type, tags and comment are the plan's; the comment also says of an early end."""
    said = {RunState.STOPPED: " The training had stopped before its end.", RunState.FINISHED: ""}
    (status,) = events_of(case.plan, Status)
    expected = {
        "name": case.plan.name,
        "type": "training",
        "tags": list(case.plan.tags),
        "comment": case.plan.comment + said[status.state],
        "status": "completed",
    }
    assert {name: case.task[name] for name in expected} == expected
    assert case.server.projects[case.task["project"]]["name"] == case.plan.project


def test_hyperparameters_and_properties(case: Imported) -> None:
    """Every section holds its values with their types, and no other section is there."""
    expected: dict[str, dict[str, tuple[str, str | None]]] = {}
    for event in events_of(case.plan, Hyperparameters):
        expected[event.section] = {name: (p.value, p.type) for name, p in event.values.items()}
    for event in events_of(case.plan, Properties):
        mark = {"yolo_clearml": case.plan.key}  # by which a later upload recognises the task
        expected["properties"] = {name: (v, "str") for name, v in {**mark, **event.values}.items()}
    stored = {
        section: {name: (item["value"], item.get("type")) for name, item in items.items()}
        for section, items in case.task["hyperparams"].items()
    }
    assert stored == expected


def test_curves_and_single_values(case: Imported) -> None:
    """Each point has its exact value, iteration and time."""
    expected = {(e.title, e.series, e.iteration): (e.value, e.at) for e in events_of(case.plan, Scalar)}
    stored = case.server.scalars(case.task_id)
    assert {place: (e["value"], e["timestamp"]) for place, e in stored.items()} == expected
    single = {e.name: (e.value, e.at) for e in events_of(case.plan, SingleValue)}
    values = case.server.single_values(case.task_id)
    assert {name: (e["value"], e["timestamp"]) for name, e in values.items()} == single


def test_debug_images(case: Imported) -> None:
    """Each image is behind its link, byte for byte."""
    expected = {
        (e.title, e.series, e.iteration): (e.at, (case.root / e.file.name).read_bytes())
        for e in events_of(case.plan, Image)
    }
    stored = {
        place[:3]: (e["timestamp"], case.server.file_of(e["url"]))
        for place, e in case.server.images(case.task_id).items()
    }
    assert stored == expected
    assert expected


def test_plots(case: Imported) -> None:
    """Each plot's link leads to its picture, byte for byte, in the picture's proportions."""
    expected = {}
    for event in events_of(case.plan, Plot):
        content = (case.root / event.file.name).read_bytes()
        expected[event.title, "plot image", event.iteration] = (event.at, content)
    for event in events_of(case.plan, DrawnPlot):
        expected[event.title, "plot image", event.iteration] = (event.at, draw_results(event))
    stored = {}
    for place, event in case.server.plots(case.task_id).items():
        (picture,) = json.loads(event["plot_str"])["layout"]["images"]
        content = case.server.file_of(picture["source"])
        assert content is not None
        width, height = picture_size(content)
        assert (picture["sizex"], picture["sizey"]) == (640, int(640 * height / width))
        stored[place] = (event["timestamp"], content)
    assert stored == expected
    assert expected


def test_nothing_else_arrives(case: Imported) -> None:
    """No event but the plan's and what the console says of them, each sent once."""
    kinds = (Scalar, SingleValue, Image, Plot, DrawnPlot)
    expected = sum(len(events_of(case.plan, kind)) for kind in kinds)
    assert case.server.events_received(case.task_id) == expected + 1
    assert [task_log.upload(case.plan)] == [event["msg"] for event in case.server.logs(case.task_id)]


def test_the_output_model(case: Imported) -> None:
    """Name, framework and labels arrive whether or not the weights do; a stopped run has no model."""
    models = [m for m in case.server.models.values() if m["task"] == case.task_id]
    expected = [
        {
            "name": event.name,
            "framework": "PyTorch",
            "labels": dict(event.labels),
            "comment": f"Created by task id: {case.task_id}",
            "ready": False,
        }
        for event in events_of(case.plan, OutputModel)
    ]
    assert [{name: model[name] for name in expected[0]} for model in models] == expected
    entries = [entry["name"] for entry in case.task["models"]["output"]]
    assert entries == ["best"] * len(expected)


def test_where_the_weights_are(imported: dict[str, Imported]) -> None:
    """Without an address the model is the copy beside the zip; with one, the very bytes at that address."""
    uris = {}
    for case, there in imported.items():
        for model in there.server.models.values():
            if model["task"] == there.task_id:
                uris[case] = model["uri"]
    for case in ("detect", "segment", "yolov5"):
        weights = imported[case].weights
        assert uris[case] == f"file://{weights}"
        assert weights.read_bytes() == (imported[case].root / "weights/best.pt").read_bytes()
    uploaded = imported["uploaded"]
    content = uploaded.server.file_of(uris["uploaded"])
    assert content == (uploaded.root / "weights/best.pt").read_bytes()
    assert uris["lost"] == f"file://{imported['lost'].weights}"
    assert uris["lost, uploaded"] == f"{uploaded.server.files_url}/failed_uploading"
    assert "killed" not in uris


# -- the files ----------------------------------------------------------------------------------------------


def test_what_is_written(tmp_path: Path, run: Path) -> None:
    """A zip and the weights, named by the task and the run's key; the run directory stays as it was."""
    before = files_in(run)
    told = planned(run, ODD)
    export(tmp_path / "a/b", run, told)
    stem = f"Lauf____1__.._50__+_ü-{told.key[:8]}"
    assert sorted(files_in(tmp_path / "a/b")) == [f"{stem}.pt", f"{stem}.zip"]
    assert files_in(run) == before


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, run: Path) -> None:
    """Also of a run whose figure is drawn."""
    killed = unpacked("v8.4.190-detect-killed", tmp_path / "killed")
    for root in (run, killed):
        export(tmp_path / "one", root, planned(root))
        export(tmp_path / "two", root, planned(root))
    first = {name: data for name, data in files_in(tmp_path / "one").items() if name.endswith(".pt")}
    assert len(first) == 1
    assert sorted(files_in(tmp_path / "one")) == sorted(files_in(tmp_path / "two"))
    for name, data in files_in(tmp_path / "one").items():
        other = files_in(tmp_path / "two")[name]
        if name.endswith(".pt"):
            assert other == data
            continue
        one, two = (zipfile.ZipFile(io.BytesIO(content)) for content in (data, other))
        assert {e.filename: two.read(e) for e in two.infolist()}.keys() == set(one.namelist())
        for entry in one.namelist():
            if entry != "task.json":  # it holds the folder's path
                assert two.read(entry) == one.read(entry)
    before = files_in(tmp_path / "one")
    export(tmp_path / "one", run, planned(run))
    assert files_in(tmp_path / "one") == before


def test_acknowledged_once_at_the_end(tmp_path: Path, run: Path) -> None:
    """Bytes are counted as they go; the reports only when the zip is there under its name."""
    told = planned(run)
    with OfflineSink(tmp_path / "out").open(told, run, None, "") as delivery:
        assert delivery.task_id == f"offline-{told.key}"
        assert str(delivery.url).startswith((tmp_path / "out").as_uri())
        assert delivery.fresh
        seen = []
        for step in delivery.deliver(told.reports):
            done = bool(list((tmp_path / "out").glob("*.zip")))
            assert done == isinstance(step, Acknowledged)
            seen.append(step)
    (acknowledged,) = [step for step in seen if isinstance(step, Acknowledged)]
    assert acknowledged.reports == told.reports
    assert acknowledged.size == sum(step.size for step in seen if isinstance(step, Sent))


def test_two_pictures_at_one_place(tmp_path: Path, run: Path) -> None:
    """The last wins, as it would on a server, and the zip holds one."""
    told = planned(run)
    first, last = [e for e in events_of(told, Plot) if e.file.name.endswith(".png")][:2]
    pictures = (first, replace(first, file=last.file))
    export(tmp_path / "out", run, replace(told, reports=(Report("plot/both", pictures),)))
    (path,) = (tmp_path / "out").glob("*.zip")
    session = zipfile.ZipFile(path)
    (place,) = [name for name in session.namelist() if name.startswith("data/")]
    assert session.read(place) == (run / last.file.name).read_bytes()


def test_a_live_run_is_stated_to_be_one(tmp_path: Path, run: Path) -> None:
    """The importer calls every task completed, so the comment says that the training was going on."""
    told = planned(run)
    reports = tuple(Report(r.key, (Status(RunState.LIVE),)) if r.key == "status" else r for r in told.reports)
    export(tmp_path / "out", run, replace(told, reports=reports))
    (session,) = (tmp_path / "out").glob("*.zip")
    task = json.loads(zipfile.ZipFile(session).read("task.json"))
    assert task["comment"] == f"{told.comment} The training was still going on."


def test_memory_is_bounded(tmp_path: Path, run: Path) -> None:
    """64 MiB of weights pass through a few MiB of memory."""
    (run / "weights/large.pt").touch()
    os.truncate(run / "weights/large.pt", 64 * 2**20)
    large = FileStamp("weights/large.pt", 64 * 2**20, (run / "weights/large.pt").stat().st_mtime_ns)
    model = Report("model", (OutputModel("large", large, {"a": 0}, 0),))
    told = replace(planned(run), reports=(model,))
    tracemalloc.start()
    try:
        export(tmp_path / "out", run, told)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    (weights,) = (tmp_path / "out").glob("*.pt")
    assert weights.stat().st_size == large.size


# -- when it goes wrong -------------------------------------------------------------------------------------


def test_a_kill_leaves_no_half_zip(tmp_path: Path, run: Path) -> None:
    """Killed at any file, nothing stands under the final name of the zip; the next export mends it all."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "sys.path[:0] = sys.argv[1].split(os.pathsep)\n"
        "from test_offline_sink import planned\n"
        "from yolo_clearml.server.offline import OfflineSink\n"
        "root, out = Path(sys.argv[2]), Path(sys.argv[3])\n"
        "told = planned(root)\n"
        "with OfflineSink(out).open(told, root, None, '') as delivery:\n"
        "    for number, _ in enumerate(delivery.deliver(told.reports)):\n"
        "        if number == 8:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    out = tmp_path / "out"
    arguments = [os.pathsep.join(sys.path), str(run), str(out)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    left = sorted(path.suffixes[-1] for path in out.iterdir())
    assert left == [".pt", ".tmp"]
    (stale,) = out.glob("*.tmp")
    stale.write_bytes(b"x" * 10**7)  # longer than the zip will be
    export(out, run, planned(run))
    (session,) = out.glob("*.zip")
    assert sorted(path.suffix for path in out.iterdir()) == [".pt", ".zip"]
    assert zipfile.ZipFile(session).testzip() is None


def test_a_failed_export_leaves_the_last_good_one(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is named with a path and a next step, and neither a temporary file nor a change is left."""
    out = tmp_path / "out"
    export(out, run, planned(run))
    before = files_in(out)

    def full(source: BinaryIO, target: IO[bytes], path: Path) -> Iterator[Sent]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(offline_sink, "_copy", full)
    with pytest.raises(ExportUnwritable, match=r"\.zip cannot be written: No space left") as caught:
        export(out, run, planned(run))
    assert caught.value.hint.startswith("Free some space")
    assert files_in(out) == before


def test_a_folder_that_takes_nothing(tmp_path: Path, run: Path) -> None:
    """A file where the folder should be is named, not raised raw."""
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(ExportUnwritable, match="out"):
        export(tmp_path / "out", run, planned(run))


def test_an_abandoned_export_leaves_nothing(tmp_path: Path, run: Path) -> None:
    """Who stops asking gets neither a zip nor a temporary file."""
    told = planned(run)
    with OfflineSink(tmp_path / "out").open(told, run, None, "") as delivery:
        steps = delivery.deliver(told.reports)
        next(steps)
        del steps
    assert files_in(tmp_path / "out") == {}


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("harm", "name", "error"),
    [
        (touch, "weights/best.pt", RunChanged),
        (touch, "val_batch0_pred.jpg", RunChanged),
        (Path.unlink, "results.png", RunChanged),
        (replace_by_link, "results.png", RunChanged),
        (replace_by_link, "weights/best.pt", RunChanged),
    ],
)
def test_files_that_are_not_as_planned(
    tmp_path: Path, run: Path, harm: Callable[[Path], None], name: str, error: type[Exception]
) -> None:
    """A file that changed or vanished is named, and no zip is left."""
    told = planned(run)
    harm(run / name)
    with pytest.raises(error, match=name):
        export(tmp_path / "out", run, told)
    assert list((tmp_path / "out").glob("*.zip*")) == []


@pytest.mark.parametrize("name", ["weights/best.pt", "val_batch0_pred.jpg"])
def test_a_file_that_changes_while_it_is_copied(tmp_path: Path, run: Path, name: str) -> None:
    """Neither the copy of the weights nor the zip gets its name."""
    told = planned(run)
    size = (run / name).stat().st_size
    sink = OfflineSink(tmp_path / "out")
    with sink.open(told, run, None, "") as delivery, pytest.raises(RunChanged, match=name):
        for step in delivery.deliver(told.reports):
            if step == Sent(size):
                touch(run / name)
    expected = [] if name.startswith("weights") else [".pt"]
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == expected


def test_a_broken_disk(tmp_path: Path) -> None:
    """What cannot be read is a fault of the run's place, not of the folder written to."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(RunUnreadable, match=r"best\.pt cannot be read: Input/output error"):
        list(_copy(Broken(), io.BytesIO(), tmp_path / "best.pt"))


def test_two_exports_of_one_run_at_a_time(tmp_path: Path, run: Path) -> None:
    """Copies of a run have one key and so one zip; they take turns at it."""
    told = planned(run)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(export, tmp_path / "out", run, told) for _ in range(8)]:
            done.result()
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".pt", ".zip"]
    (session,) = (tmp_path / "out").glob("*.zip")
    assert zipfile.ZipFile(session).testzip() is None


@pytest.mark.parametrize("kind", ["hard link", "link", "fifo", "directory"])
@pytest.mark.parametrize("ending", ["zip", "pt"])
def test_a_leftover_in_the_place_of_a_temporary_is_not_written_into(
    tmp_path: Path, run: Path, kind: str, ending: str
) -> None:
    """A file with another name keeps its content, nothing is waited for, and a directory is named."""
    out, precious = tmp_path / "out", tmp_path / "precious"
    export(out, run, planned(run))
    (leftover,) = (path.with_name(path.name + ".tmp") for path in out.glob(f"*.{ending}"))
    precious.write_bytes(b"precious")
    if kind == "hard link":
        os.link(precious, leftover)
    elif kind == "link":
        leftover.symlink_to(precious)
    elif kind == "fifo":
        os.mkfifo(leftover)
    else:
        leftover.mkdir()
        with pytest.raises(ExportUnwritable) as caught:
            export(out, run, planned(run))
        assert str(caught.value) == f"{leftover} cannot be written: Is a directory."
        assert caught.value.hint.startswith("Remove it")
        leftover.rmdir()
    export(out, run, planned(run))
    assert precious.read_bytes() == b"precious"
    assert sorted(path.suffix for path in out.iterdir()) == [".pt", ".zip"]


# -- names and lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("läuft 2/½", "läuft_2_½"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("--help", "help"),
        ("列車", "列車"),
        ("a\\b\0c\n\udcff", "a_b_c__"),
        ("...", "run"),
        ("ü" * 300, "ü" * 90),
        ("e\u0301", "e\u0301"),
        ("con", "_con"),
        ("NUL.v2", "_NUL.v2"),
        ("com1", "_com1"),
        ("console", "console"),
    ],
)
def test_file_names(name: str, expected: str) -> None:
    """Letters of any script stay; separators, control characters and leading dashes or dots do not."""
    assert _file_name(name) == expected


@pytest.mark.parametrize("part", ["con", "Aux", "nul.jpg", "LPT1.a.jpg", "run."])
def test_session_paths_can_be_unpacked_on_windows(part: str) -> None:
    """Where some names are devices, whatever their ending, and a dot at the end is dropped."""
    plain = _plain(part)
    assert part != plain and plain.partition(".")[0].lower() not in ("con", "aux", "nul", "lpt1")
    assert not plain.endswith(".") and plain.endswith(".jpg") == part.endswith(".jpg")
    assert "control" == _plain("control")


@pytest.mark.parametrize("part", ["a b", "ü", "a#b", "50%", "..", "", "x" * 300, "a/b.jpg", "\udcff"])
def test_session_paths_need_no_quoting(part: str) -> None:
    """What is changed is plain, short and differs from its like; the ending stays."""
    plain = _plain(part)
    assert set(plain) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert 3 <= len(plain) <= 100
    assert plain.endswith(".jpg") == part.endswith(".jpg")
    assert _plain(part) != _plain(part + " ")
    assert _plain("val_batch0.jpg") == "val_batch0.jpg"


def test_lines_are_bounded() -> None:
    """At most 1000 events or 4 MiB to a line, all of them in order; nothing is no line."""
    small = [{"n": n} for n in range(2500)]
    lines = [json.loads(line) for line in _lines(small)]
    assert [len(line) for line in lines] == [1000, 1000, 500]
    assert [event for line in lines for event in line] == small
    large = [{"n": n, "text": "x" * 2**20} for n in range(9)]
    assert [len(json.loads(line)) for line in _lines(large)] == [3, 3, 3]
    assert list(_lines([{}])) == [b"[{}]\n"]
    assert list(_lines([])) == []
