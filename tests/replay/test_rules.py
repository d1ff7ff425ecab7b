"""What is reported of a run: names ClearML takes, numbers that are there, and the same words every time."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, MakeRun, long_after
from hypothesis import given
from hypothesis import strategies as st
from test_eras import maybe
from test_scan import BEGAN, COLUMNS, ENDED, JPEG, PNG, ROWS, WROTE, checkpoint, put, renew, run_of, training

from yolo_clearml.events import (
    DrawnPlot,
    Event,
    FileStamp,
    Hyperparameters,
    Image,
    OutputModel,
    Parameter,
    Plan,
    Plot,
    Properties,
    Report,
    RunState,
    Scalar,
    SingleValue,
    Status,
)
from yolo_clearml.replay.names import SHORTEST_NAME
from yolo_clearml.replay.rules import Wishes, fitness_by_epoch, main_metric, plan
from yolo_clearml.rundir.identity import run_key
from yolo_clearml.rundir.release import Release, Releases, known_release
from yolo_clearml.rundir.results_csv import parse
from yolo_clearml.rundir.run import Run


def planned(path: Path, now: float = ENDED + 1e6, wishes: Wishes = Wishes()) -> Plan:
    return plan(run_of(path, now), wishes)


def events_of(of: Plan, kind: type[Event]) -> Iterator[Any]:
    return (event for report in of.reports for event in report.events if isinstance(event, kind))


def digests(of: Plan) -> dict[str, str]:
    assert len({report.key for report in of.reports}) == len(of.reports)
    return {report.key: report.digest for report in of.reports}


def rows_of(*rows: str, columns: str = COLUMNS) -> str:
    return "\n".join((columns, *rows, ""))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run; tests change what they need of it."""
    return run_of(training(tmp_path / "train"))


@functools.cache
def sample() -> Run:
    """A real run that no test changes."""
    return run_of(SAMPLES / "v8.4.190-detect", long_after())


def of_args(run: Run, **args: object) -> Plan:
    return plan(replace(run, args={**run.args, **args}), Wishes())


# -- names


@pytest.mark.parametrize(
    ("stated", "project"),
    [
        ("ab", "ab_"),
        ("a/bc/def", "a__/bc_/def"),
        ("/home/me/runs", "home/me_/runs"),  # an absolute path, which ClearML refuses
        ("../shared/runs", "shared/runs"),
        ("./runs/./detect/", "runs/detect"),
        ("runs//detect", "runs/detect"),
        ("..", "Ultralytics"),
        ("a\x07b\nc\td", "a_b_c_d"),
        ("x" * 300, "x" * 256),
        ("x" * 255 + " " + "y" * 9, "x" * 255),
        ("/".join(f"level{n}" for n in range(12)), "/".join(f"level{n}" for n in range(2, 12))),
        ("  spaced  ", "spaced"),
        ("\ud800abc", "_abc"),
        (5, "5__"),
    ],
)
def test_a_project_clearml_refuses_becomes_one_it_takes(run: Run, stated: object, project: str) -> None:
    """The nearest acceptable name is used, and a note says so."""
    got = of_args(run, project=stated)
    assert project == got.project
    assert str(stated) == project or [project] == re.findall(
        r"the task is in '(.*)', --project", got.notes[0]
    )


@pytest.mark.parametrize("stated", ["Shapes", "team/Shapes", "Größe 3", "形状识别"])
def test_a_project_clearml_takes_is_left_alone(run: Run, stated: str) -> None:
    """Without a note."""
    got = of_args(run, project=stated)
    assert (stated, ()) == (got.project, got.notes)


@pytest.mark.parametrize("stated", [None, ""])
def test_a_run_without_a_project_is_in_the_callbacks_own(run: Run, stated: str | None) -> None:
    """As live; that is nothing to note."""
    got = of_args(run, project=stated)
    assert ("Ultralytics", ()) == (got.project, got.notes)


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("a", "a__"),
        ("tr\nain", "tr_ain"),
        ("n" * 300, "n" * 256),
        (" " * 9 + "n" * 300, "n" * 256),
        (" ", "___"),
        (7, "7__"),
    ],
)
def test_a_name_clearml_refuses_becomes_one_it_takes(run: Run, stated: object, name: str) -> None:
    """Three characters at least, none that cannot be printed, and not too many."""
    got = of_args(run, name=stated)
    assert name == got.name
    assert [name] == re.findall(r"the task is called '(.*)', --name", got.notes[0])


@pytest.mark.parametrize("stated", [None, ""])
def test_a_run_without_a_name_has_its_directorys(run: Run, stated: str | None) -> None:
    """8.0.100 to 8.0.180 write ``name: null``; the directory is that of save_dir, else where the run is."""
    assert "train7" == of_args(run, name=stated, save_dir="runs/detect/train7").name
    assert "train7" == of_args(run, name=stated, save_dir="C:\\work\\runs\\train7").name
    assert "train" == of_args(run, name=stated, save_dir=None).name
    assert "train" == of_args(run, name=stated, save_dir="/").name


@given(stated=st.text(max_size=300), name=st.text(max_size=300))
def test_any_name_becomes_one_that_clearml_takes(stated: str, name: str) -> None:
    """At most ten levels, each of three printable characters or more; once more changes nothing."""
    got = of_args(sample(), project=stated, name=name)
    levels = got.project.split("/")
    assert len(levels) <= 10
    for text in (*levels, got.name):
        assert SHORTEST_NAME <= len(text) <= 256
        assert text.isprintable()
        assert text.strip() == text
    again = of_args(sample(), project=got.project, name=got.name)
    assert (got.project, got.name) == (again.project, again.name)


def test_what_the_user_wishes_is_taken_as_it_is(run: Run) -> None:
    """Project, name and tags given by the user win, and no note is left of the run's own."""
    run = replace(run, args={**run.args, "project": "/", "name": "x"})
    got = plan(run, Wishes("My/Project", "my name", ("a", "b")))
    assert ("My/Project", "my name", ("a", "b"), ()) == (got.project, got.name, got.tags, got.notes)
    assert () == plan(run, Wishes(tags=())).tags


def test_a_yolov5_run_with_default_names(make_run: MakeRun) -> None:
    """``exp`` below ``runs/`` is what the trainer gives when the user gives nothing."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    assert ("YOLOv5", "Training") == (plan(run, Wishes()).project, plan(run, Wishes()).name)
    got = of_args(run, project="Shapes", name="exp2")
    assert ("Shapes", "exp2") == (got.project, got.name)
    assert "5__" == of_args(run, project=5).project


# -- the run's own key


def test_a_move_and_a_copy_keep_the_key(tmp_path: Path) -> None:
    """Wherever the directory is, with its file times or without, it is the same run."""
    path = training(tmp_path / "train")
    key = run_key(run_of(path))
    assert re.fullmatch("[0-9a-f]{32}", key)
    moved = path.rename(tmp_path / "another name")
    copied = Path(shutil.copytree(moved, tmp_path / "deep" / "copy"))
    renew(copied, ENDED + 1e6)
    assert [key, key] == [run_key(run_of(moved)), run_key(run_of(copied, ENDED + 1e6 + 1))]


def test_a_spreadsheets_line_ends_keep_the_key(tmp_path: Path) -> None:
    """A results.csv that was opened and saved has the same first row."""
    path = training(tmp_path / "train")
    key = run_key(run_of(path))
    put(path / "results.csv", rows_of(*ROWS).replace("\n", "\r\n"), WROTE)
    assert key == run_key(run_of(path))


def test_growing_and_resuming_keep_the_key(tmp_path: Path) -> None:
    """From the first row to the last, and when a resume repeats an epoch and writes args.yaml again."""
    path = training(tmp_path / "train", stripped=False)
    keys = set()
    for rows in (ROWS[:1], ROWS, (*ROWS, ROWS[2]), (*ROWS, ROWS[1], ROWS[2], "4,99,1,1,1,1")):
        put(path / "results.csv", rows_of(*rows), WROTE)
        keys.add(run_key(run_of(path)))
    text = (path / "args.yaml").read_text().replace("epochs: 3", "epochs: 9\nresume: weights/last.pt")
    put(path / "args.yaml", text, WROTE - 5)
    keys.add(run_key(run_of(path)))
    assert 1 == len(keys)


def test_a_new_training_has_a_new_key(tmp_path: Path) -> None:
    """In place of the old one, appended to it, or with the same first row under another name or place."""
    path = training(tmp_path / "train")
    keys = [run_key(run_of(path))]
    other = ROWS[0].replace(",30,", ",31,")
    for rows in ((other, *ROWS[1:]), (*ROWS, ROWS[0].replace(",30,", ",32,"))):
        put(path / "results.csv", rows_of(*rows), WROTE)
        keys.append(run_key(run_of(path)))
    keys.append(run_key(run_of(training(tmp_path / "1", name="train2"))))
    keys.append(run_key(run_of(training(tmp_path / "2", save_dir="/elsewhere"))))
    assert 5 == len(set(keys))


def test_parts_of_a_key_do_not_run_into_each_other(run: Run) -> None:
    """Another border between name and place is another run."""
    keys = {run_key(replace(run, args={"name": a, "save_dir": b})) for a, b in (("ab", "c"), ("a", "bc"))}
    assert 2 == len(keys)


@pytest.mark.parametrize(
    ("name", "save_dir", "key"),
    [
        ("train", "/home/somebody/runs/train", "db1abda3b07dbe0d95a16cac7a91e238"),
        (None, None, "e51bbbe0e488e64b333db9186341178c"),
        (5, "\ud800ä", "be2a7fd5e8389f1fc8205cc79e60d589"),
    ],
)
def test_a_key_is_the_same_for_ever(run: Run, name: object, save_dir: object, key: str) -> None:
    """Tasks carry it: another one, in a later version, would make every task a second time."""
    assert key == run_key(replace(run, args={"name": name, "save_dir": save_dir}))


# -- digests


def test_moving_and_copying_change_no_digest(tmp_path: Path) -> None:
    """ClearML knows all of it already, though every file of a copy has another time."""
    path = training(tmp_path / "train")
    before = digests(planned(path))
    moved = path.rename(tmp_path / "moved")
    assert before == digests(planned(moved))
    renew(moved, ENDED + 1e6)
    assert before == digests(planned(moved, ENDED + 1e6 + 1))


def test_times_change_no_digest_of_a_real_run(make_run: MakeRun) -> None:
    """Also where a copy made at once cannot be told from an original."""
    path = make_run("v8.4.190-detect")
    before = digests(planned(path, long_after()))
    written = (path / "results.csv").stat().st_mtime
    renew(path, written + 60)
    assert before == digests(planned(path, long_after()))


PICTURE_CHANGES = ("labels.jpg", "train_batch1.jpg", "val_batch0_pred.jpg", "BoxF1_curve.png", "results.png")


@pytest.mark.parametrize("name", PICTURE_CHANGES)
def test_another_picture_of_the_same_size_and_time_is_another_report(tmp_path: Path, name: str) -> None:
    """Of all digests that of its own report changes."""
    path = training(tmp_path / "train")
    before = digests(planned(path))
    content = (path / name).read_bytes()
    put(path / name, content.replace(b"....", b"...!", 1), (path / name).stat().st_mtime)
    after = digests(planned(path))
    stem = name.partition(".")[0]
    expected = f"image/{name}" if "_batch" in name else f"plot/{stem}"
    assert [expected] == [key for key in before if before[key] != after[key]]
    assert set(before) == set(after)


def test_another_value_is_another_report_and_no_other(tmp_path: Path) -> None:
    """A changed cell, argument or checkpoint changes the digest of what it says."""
    path = training(tmp_path / "train")
    before = digests(planned(path))
    put(path / "results.csv", rows_of(ROWS[0], ROWS[1].replace(",0.5,", ",0.51,"), ROWS[2]), WROTE)
    after = digests(planned(path))
    assert ["epoch/1"] == [key for key in before if before[key] != after[key]]
    put(path / "args.yaml", (path / "args.yaml").read_text() + "batch: 4\n", BEGAN)
    later = digests(planned(path))
    assert ["args/General"] == [key for key in before if later[key] != after[key]]
    checkpoint(path / "weights" / "best.pt", train_metrics={"metrics/mAP50(B)": 0.4}, names={0: "circle"})
    last = digests(planned(path))
    assert {"final", "model"} == {key for key in before if later[key] != last[key]}


EVENTS: list[Event] = [
    Scalar("a", "b", 1.0, 2, 3),
    SingleValue("a", 1.0, 3),
    Image("a", "b", 1, FileStamp("f", 1, 2, "c"), 3),
    Plot("a", 1, FileStamp("f", 1, 2, "c"), 3),
    DrawnPlot("a", 1, "f", ("c",), (1,), ((math.nan,),), 3),
    OutputModel("a", FileStamp("f", 1, 2, "c"), {"x": 0}, 1),
    Hyperparameters("a", {"x": Parameter("1", "int")}),
    Properties({"release": "8", "trained_from": "x"}),
    Status(RunState.LIVE),
]
OTHERS: dict[str, object] = {
    **{
        "title": "z",
        "series": "z",
        "name": "z",
        "section": "z",
        "value": 9.5,
        "iteration": 9,
        "file_name": "z",
    },
    **{"columns": ("z",), "epochs": (9,), "labels": {"x": 1}, "state": RunState.STOPPED},
}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_digest_is_of_everything_reported_but_the_time(event: Any) -> None:
    """Each field counts, ``at`` alone does not."""
    before = Report("k", (event,)).digest
    assert re.fullmatch("[0-9a-f]{16}", before)
    changed = []
    for name in type(event).__slots__:
        if name == "at":
            assert before == Report("k", (replace(event, at=99),)).digest
        elif name in OTHERS and name != "values":
            changed.append(Report("k", (replace(event, **{name: OTHERS[name]}),)).digest)
    assert before not in changed
    assert len(changed) == len(set(changed))
    assert before != Report("k", (event, event)).digest


def test_contents_of_sections_files_and_drawings_count() -> None:
    """A parameter's text and type, a property, a drawn value, a file's name, size and content."""
    pairs: list[tuple[Event, Event, bool]] = [
        (EVENTS[6], Hyperparameters("a", {"x": Parameter("1", "str")}), False),
        (EVENTS[6], Hyperparameters("a", {"x": Parameter("2", "int")}), False),
        (EVENTS[7], Properties({"release": "9", "trained_from": "x"}), False),
        (EVENTS[7], Properties({"release": "8", "trained_from": "y"}), True),  # a time
        (EVENTS[4], DrawnPlot("a", 1, "f", ("c",), (1,), ((0.5,),), 3), False),
        (EVENTS[3], Plot("a", 1, FileStamp("g", 1, 2, "c"), 3), False),
        (EVENTS[3], Plot("a", 1, FileStamp("f", 2, 2, "c"), 3), False),
        (EVENTS[3], Plot("a", 1, FileStamp("f", 1, 2, "d"), 3), False),
        (EVENTS[3], Plot("a", 1, FileStamp("f", 1, 9, "c"), 3), True),  # a time, where the content is known
        (Plot("a", 1, FileStamp("f", 1, 2), 3), Plot("a", 1, FileStamp("f", 1, 9), 3), False),
    ]
    assert [same for *_, same in pairs] == [
        Report("k", (one,)).digest == Report("k", (other,)).digest for one, other, _ in pairs
    ]


def test_text_that_is_no_unicode_has_a_digest() -> None:
    """A lone surrogate, as YAML can hold one, is no reason to fail."""
    assert 16 == len(Report("k", (SingleValue("\ud800", 1.0, 0),)).digest)


# -- curves


def test_what_is_not_finite_is_a_gap_and_is_named(tmp_path: Path) -> None:
    """ClearML would show 0.0; nothing is sent, and the column, the count and the iterations are said."""
    path = training(tmp_path / "train")
    rows = [f"{n},{n},{'nan' if n > 2 else n},{'inf' if n == 2 else 0.5},0.5,0.001" for n in range(1, 21)]
    put(path / "results.csv", rows_of(*rows), WROTE)
    got = planned(path)
    scalars = list(events_of(got, Scalar))
    assert all(math.isfinite(scalar.value) for scalar in scalars)
    assert [0, 1] == [scalar.iteration for scalar in scalars if scalar.series == "train/loss"]
    assert "metrics/mAP50(B): 1 value not finite (iteration 1)" in got.missing
    named = ", ".join(map(str, range(2, 12)))
    assert f"train/loss: 18 values not finite (iteration {named}, ...)" in got.missing
    assert len(rows) == len([report for report in got.reports if report.key.startswith("epoch/")])


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        (1, "1 value not finite (iteration 0)"),
        (2, "2 values not finite (iteration 0, 1)"),
        (10, "10 values not finite (iteration 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"),
        (11, "11 values not finite (iteration 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)"),
    ],
)
def test_gaps_are_counted_and_the_first_ten_named(tmp_path: Path, gaps: int, told: str) -> None:
    """In the words of one or of several, and without dots where none is left out."""
    path = training(tmp_path / "train")
    rows = [f"{n},{n},{'nan' if n <= gaps else 1},1,1,1" for n in range(1, 13)]
    put(path / "results.csv", rows_of(*rows), WROTE)
    assert f"train/loss: {told}" in planned(path).missing


def test_a_column_with_gaps_of_both_kinds_names_both(tmp_path: Path) -> None:
    """One value is too large and one is none; the largest that the server takes is reported."""
    path = training(tmp_path / "train")
    largest = (2 - 2**-23) * 2.0**127
    put(path / "results.csv", rows_of("1,9,nan,1,1,1", "2,18,1e300,1,1,1", f"3,27,{largest!r},1,1,1"), WROTE)
    got = planned(path)
    assert "train/loss: 2 values not finite or too large (iteration 0, 1)" in got.missing
    beyond = math.nextafter(largest, math.inf)
    put(path / "results.csv", rows_of(f"1,9,{beyond!r},1,1,1"), WROTE + 1)
    assert "train/loss: 1 value not finite or too large (iteration 0)" in planned(path).missing
    assert [largest] == [e.value for e in events_of(got, Scalar) if e.series == "train/loss"]


def test_what_is_too_large_for_the_server_is_a_gap_and_is_named(tmp_path: Path) -> None:
    """It stores 32-bit numbers and refuses a whole batch over one beyond them."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of("1,30,1,3.5e38,0.5,-1e300", "2,60,1,3.4e38,nan,-3.4e38"), WROTE)
    best = {"metrics/a": 1e39, "metrics/b": 3.4e38, "metrics/" + "c" * 300: 1.0, "fitness": -1e39}
    checkpoint(path / "weights" / "best.pt", train_metrics=best)
    got = planned(path)
    assert all(abs(event.value) <= 3.4e38 for kind in (Scalar, SingleValue) for event in events_of(got, kind))
    assert {"metrics/b": 3.4e38} == finals(got)
    assert {
        "metrics/mAP50(B): 1 value not finite or too large (iteration 0)",
        "lr/pg0: 1 value not finite or too large (iteration 0)",
        "metrics/mAP50-95(B): 1 value not finite (iteration 1)",
        "the final metrics/a: not finite or too large",
        "the final fitness: not finite or too large",
        "final metrics with names of more than 200 characters",
    } <= set(got.missing)


def test_a_time_that_is_too_large_for_the_server_is_a_gap(tmp_path: Path) -> None:
    """An epoch that took longer than a 32-bit number holds."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of("1,30,1,1,1,1", "2,1e300,1,1,1,1"), WROTE)
    assert all(scalar.value < 1e38 for scalar in events_of(planned(path), Scalar))


def test_an_epoch_without_any_finite_value_has_no_report(run: Run) -> None:
    """Its key is left out, and nothing empty is sent."""
    table = replace(run.table, rows=(replace(run.table.rows[0], values=(math.nan,) * 5),))
    times = replace(run.times, took={})
    got = plan(replace(run, table=table, times=times), Wishes())
    assert [] == [report.key for report in got.reports if report.key.startswith("epoch/")]
    assert all(report.events for report in got.reports)


@pytest.mark.parametrize("name", ["v8.4.190-detect-nan", "v8.4.190-detect"])
def test_no_event_of_a_real_run_holds_what_is_not_finite(make_run: MakeRun, name: str) -> None:
    """Also of one that diverged; a plan of it can be written as strict JSON."""
    got = planned(make_run(name), long_after())
    for event in (*events_of(got, Scalar), *events_of(got, SingleValue)):
        json.dumps(event.value, allow_nan=False)


@pytest.mark.parametrize(
    ("columns", "series"),
    [
        ("train/loss,metrics/accuracy_top1,val/loss", {"train/loss", "metrics/accuracy_top1", "val/loss"}),
        ("train/angle_loss,metrics/mAP50(B),lr/pg2", {"train/angle_loss", "metrics/mAP50(B)", "lr/pg2"}),
        ("train/kobj_loss,metrics/mAP50-95(P),x/y/z", {"train/kobj_loss", "metrics/mAP50-95(P)", "x/y/z"}),
        ("train/giou_loss,lr,train/", {"train/giou_loss", "train/"}),
    ],
)
def test_columns_of_every_task_are_curves(tmp_path: Path, columns: str, series: set[str]) -> None:
    """Classification, OBB, pose, RT-DETR and what is yet to come: whatever has a prefix is a curve."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of("1,9,1,2,3", columns=f"epoch,time,{columns}"), WROTE)
    scalars = {(e.title, e.series) for e in events_of(planned(path), Scalar)}
    assert {(one.partition("/")[0], one) for one in series} | {("Epoch Time", "Epoch Time")} == scalars


@pytest.mark.parametrize(("epochs", "iterations"), [((0, 1, 2), [0, 1, 2]), ((1, 2, 3), [0, 1, 2])])
def test_iterations_are_zero_based_whatever_is_printed(
    tmp_path: Path, epochs: tuple[int, ...], iterations: list[int]
) -> None:
    """Releases to 8.0.161 print the first epoch as 0, later ones as 1."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of(*(f"{n},9,1,1,1,1" for n in epochs)), WROTE)
    assert iterations == sorted({e.iteration for e in events_of(planned(path), Scalar)})


def test_a_doubled_epoch_is_reported_once(tmp_path: Path) -> None:
    """The later row wins, and each key occurs once."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of(*ROWS, "3,7,0.125,1,1,1"), WROTE)
    got = planned(path)
    assert ["epoch/0", "epoch/1", "epoch/2"] == [key for key in digests(got) if key.startswith("epoch")]
    assert 0.125 == next(
        e.value for e in events_of(got, Scalar) if (e.series, e.iteration) == ("train/loss", 2)
    )


def test_what_was_not_understood_is_named(tmp_path: Path) -> None:
    """Unreadable lines and rows of an earlier training are counted, the first lines by number."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of(*ROWS, "?", *ROWS, *["!"] * 20), WROTE)
    missing = planned(path).missing
    assert "3 rows of an earlier training at the top of the same results.csv" in missing
    lines = ", ".join(map(str, (5, *range(9, 18))))
    assert f"21 unreadable lines of results.csv (line {lines})" in missing


def test_the_main_metric(run: Run) -> None:
    """Its best and its latest finite value; none where no column is known."""
    assert ("mAP50-95(B)", 0.3, 0.3) == main_metric(run)
    columns = ("a",) * 5
    assert None is main_metric(replace(run, table=replace(run.table, columns=columns)))
    nan = tuple(replace(row, values=(math.nan,) * 5) for row in run.table.rows)
    assert None is main_metric(replace(run, table=replace(run.table, rows=nan)))


def test_the_main_metric_is_that_of_the_task(run: Run) -> None:
    """Masks go before poses, and these before boxes, which all have; classes and YOLOv5 have their own."""
    names = ["mAP50-95(M)", "mAP50-95(P)", "mAP50-95(B)", "accuracy_top1", "mIoU", "delta1", "mAP_0.5:0.95"]
    for first in range(len(names)):
        columns = tuple(f"metrics/{name}" for name in reversed(names[first:]))
        rows = tuple(
            replace(row, values=tuple(map(float, range(len(names) - first, 0, -1)))) for row in run.table.rows
        )
        table = replace(run.table, columns=columns, rows=rows)
        assert (names[first], 1.0, 1.0) == main_metric(replace(run, table=table))


@pytest.mark.parametrize("kind", ["(M)", "(P)"])
def test_masks_and_poses_count_beside_boxes(run: Run, kind: str) -> None:
    """The fitness is the sum of both; half a pair is none."""
    names = ("metrics/mAP50(B)", "metrics/mAP50-95(B)", f"metrics/mAP50{kind}", f"metrics/mAP50-95{kind}")
    rows = tuple(replace(row, values=(0.1, 0.2, 0.4, 0.5)) for row in run.table.rows[:1])
    whole = replace(run, table=replace(run.table, columns=names, rows=rows))
    assert pytest.approx([0.7]) == list(fitness_by_epoch(whole, Wishes()))
    assert pytest.approx([0.68]) == list(fitness_by_epoch(whole, Wishes(rules=(8, 1, 0))))
    half = replace(whole, table=replace(whole.table, columns=(*names[:2], "metrics/a", names[3])))
    assert pytest.approx([0.2]) == list(fitness_by_epoch(half, Wishes()))


@pytest.mark.parametrize(
    ("task", "columns", "picture"),
    [
        ("semantic", ("metrics/mIoU", "metrics/pixel_acc"), "iou_bar_chart.png"),
        ("depth", ("metrics/delta1", "metrics/rmse"), "results.png"),
    ],
)
def test_a_training_that_measures_pixels(
    tmp_path: Path, task: str, columns: tuple[str, str], picture: str
) -> None:
    """Its fitness is one metric, its final values are of the epoch where that was best; a chart is a plot."""
    path = training(tmp_path / "train", task=task)
    shutil.rmtree(path / "weights")
    cells = ((0.4, 0.9), (0.6, 0.8), (0.5, 0.7))
    rows = (f"{n},{n * 30},0.5,{good},{other},0.001" for n, (good, other) in enumerate(cells, 1))
    header = f"epoch,time,train/ce_loss,{','.join(columns)},lr/pg0"
    put(path / "results.csv", "\n".join((header, *rows, "")), WROTE)
    put(path / picture, PNG, ENDED)
    (path / "BoxF1_curve.png").unlink()
    (path / "val_batch0_labels.jpg").unlink()
    run = run_of(path)
    assert (columns[0].removeprefix("metrics/"), 0.6, 0.5) == main_metric(run)
    assert (0.4, 0.6, 0.5) == fitness_by_epoch(run, Wishes())
    assert (8, 4, 52) <= run.releases.first
    got = planned(path)
    values = {event.name: event.value for event in events_of(got, SingleValue)}
    assert values.items() >= {columns[0]: 0.6, columns[1]: 0.8, "fitness": 0.6}.items()
    assert Path(picture).stem in {event.title for event in events_of(got, Plot)}


def test_the_fitness_of_each_epoch(run: Run) -> None:
    """As the release reckons it, or the one that was asked for; epochs without one are left out."""
    cells = ((0.9, 0.3), (math.nan, 0.5), (0.2, 0.4))
    rows = tuple(
        replace(row, values=(0.0, 1.0, *pair, 0.0)) for row, pair in zip(run.table.rows, cells, strict=True)
    )
    run = replace(run, table=replace(run.table, rows=rows))
    assert (0.3, 0.4) == fitness_by_epoch(run, Wishes())
    assert pytest.approx((0.36, 0.38)) == fitness_by_epoch(run, Wishes(rules=(8, 1, 0)))


def test_a_yolov5_run_counts_from_zero_wherever_its_rows_begin(make_run: MakeRun) -> None:
    """Resumed without its results.csv it has no row of epoch 0, and its epochs are the same."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    later = replace(run, table=replace(run.table, rows=run.table.rows[2:]))
    assert {2, 3, 4} == {e.iteration for e in events_of(plan(later, Wishes()), Scalar)}


def test_the_fitness_of_a_yolov5_run(make_run: MakeRun) -> None:
    """Of the two precisions under the names it has for them."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    of_one, of_many = run.table.column("metrics/mAP_0.5"), run.table.column("metrics/mAP_0.5:0.95")
    assert of_one
    assert of_many
    reckoned = [0.1 * a + 0.9 * b for a, b in zip(of_one, of_many, strict=True)]
    assert pytest.approx(reckoned) == list(fitness_by_epoch(run, Wishes()))


def test_times_that_no_row_holds_are_a_lack(run: Run) -> None:
    """Before 8.3.9: neither how long an epoch took nor when it ended."""
    got = plan(replace(run, times=replace(run.times, took={}, exact=False)), Wishes())
    assert "Epoch Time" not in {e.title for e in events_of(got, Scalar)}
    assert {"Epoch Time", "the time of each epoch (spread evenly over the training)"} <= set(got.missing)


def test_a_yolov5_run_keeps_its_rules(make_run: MakeRun) -> None:
    """--rules says a release of Ultralytics, and it is of none."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    assert plan(run, Wishes()) == plan(run, Wishes(rules=(8, 4, 190)))


def test_a_yolov5_run_has_no_epoch_times_and_no_single_values(make_run: MakeRun) -> None:
    """Its callback reported none, so they are no lack; nor are times reported of a table that holds some."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    timed = replace(run, times=replace(run.times, took=dict.fromkeys(run.times.at, 1.0)))
    for one in (run, timed):
        got = plan(one, Wishes())
        assert "Epoch Time" not in {e.title for e in events_of(got, Scalar)}
        assert [] == list(events_of(got, SingleValue))
        assert ("Args/hyp", "the time of each epoch (spread evenly over the training)") == got.missing


# -- hyperparameters


def test_arguments_are_stored_as_connect_does(run: Run) -> None:
    """Text and type of each; None untyped, dictionaries taken apart, lists typed by what they hold."""
    args = {
        **{"i": 3, "f": 0.01, "t": "x", "b": False, "n": None, "l": [1, 2], "m": [1, "x"], "e": [], "d": {}},
        **{"deep": {"a": {"b": 1}, "c": None}},
    }
    (section,) = events_of(plan(replace(run, args=args), Wishes()), Hyperparameters)
    assert "General" == section.section
    assert {
        "i": Parameter("3", "int"),
        "f": Parameter("0.01", "float"),
        "t": Parameter("x", "str"),
        "b": Parameter("False", "bool"),
        "n": Parameter("", None),
        "l": Parameter("[1, 2]", "list/int"),
        "m": Parameter('[1, "x"]', "list"),
        "e": Parameter("[]", "list"),
        "d": Parameter("{}", "dict"),
        "deep/a/b": Parameter("1", "int"),
        "deep/c": Parameter("", None),
        "_ignore_remote_overrides_": Parameter("True", "bool"),
    } == section.values


def test_an_argument_without_a_name_is_left_out_and_named(run: Run) -> None:
    """ClearML refuses a parameter of that kind; the others are stored."""
    got = plan(replace(run, args={"": 1, "i": 3, "deep": {"": 2}}), Wishes())
    (section,) = events_of(got, Hyperparameters)
    assert {"i", "_ignore_remote_overrides_"} == set(section.values) - {"deep/"}
    assert "an argument without a name" in got.missing


def test_text_that_is_no_unicode_is_sent_with_a_question_mark(run: Run) -> None:
    """Arguments, the directory, a class of the model: half a surrogate pair has no UTF-8 form."""
    got = of_args(run, **{"a\ud800": "b\ud800", "save_dir": "/home/\udce4/train"})
    (section,) = events_of(got, Hyperparameters)
    assert Parameter("b?", "str") == section.values["a?"]
    (told,) = events_of(got, Properties)
    assert "/home/?/train" == told.values["run_directory"]
    assert got.comment.endswith(" /home/?/train.")
    assert run.best is not None
    named = replace(run, best=replace(run.best, names={3: "c\udcff"}))
    (model,) = events_of(plan(named, Wishes()), OutputModel)
    assert {"c?": 3} == model.labels


@pytest.mark.parametrize(
    ("best", "last", "told"), [(7, 8, 7.0), (None, 8, 8.0), (7, None, 7.0), (None, None, None)]
)
def test_parameters_are_those_a_checkpoint_counts(
    run: Run, best: int | None, last: int | None, told: float | None
) -> None:
    """Reported with the first epoch, as a number like the others; of best.pt, else of last.pt."""
    facts = run.best
    assert facts is not None
    run = replace(
        run,
        best=replace(facts, parameters=best) if best else None,
        last=replace(facts, parameters=last) if last else None,
    )
    got = plan(run, Wishes())
    keys = [report.key for report in got.reports]
    assert (told is None) is ("model/parameters" in got.missing)
    assert (told is None) is ("parameters" not in keys)
    if told is not None:
        assert keys.index("epoch/0") + 1 == keys.index("parameters")
        (report,) = (report for report in got.reports if report.key == "parameters")
        first = SingleValue("model/parameters", told, run.times.at[1])
        assert Report("parameters", (first,)).digest == report.digest
        assert (first,) == report.events


def test_a_checkpoint_that_counts_no_parameters_leaves_them_out(run: Run) -> None:
    """The other one is not asked: it is of the same network."""
    assert run.best is not None
    assert run.best.parameters is None
    assert "model/parameters" in plan(run, Wishes()).missing


# -- pictures


@pytest.mark.parametrize(
    ("name", "title", "series", "iteration"),
    [
        ("val_batch2_pred.jpg", "Validation", "val_pred.jpg", 2),
        ("val_batch10_labels.jpg", "Validation", "val_labels.jpg", 10),
        ("val_labels.jpg", "Validation", "val_labels.jpg", 0),
        ("val.jpg", "Validation", "val.jpg", 0),
        ("val_batch_pred.jpg", "Validation", "val_batch_pred.jpg", 0),
        ("val_batch9999999999_pred.jpg", "Validation", "val_batch9999999999_pred.jpg", 0),
        ("val_batch1_a_batch2_b.jpg", "Validation", "val_batch1_a_b.jpg", 2),
        ("val\nx_batch1.jpg", "Validation", "val\nx.jpg", 1),
    ],
)
def test_a_picture_is_filed_by_its_batch(
    tmp_path: Path, name: str, title: str, series: str, iteration: int
) -> None:
    """The batch number is the iteration, the rest the series; without one it is iteration 0."""
    path = training(tmp_path / "train")
    put(path / name, JPEG, WROTE + 1)
    image = next(e for e in events_of(planned(path), Image) if e.file.name == name)
    assert (title, series, iteration, round((WROTE + 1) * 1000)) == (
        image.title,
        image.series,
        image.iteration,
        image.at,
    )


@pytest.mark.parametrize(("rows", "mosaics"), [(ROWS[:1], []), (ROWS[:2], [0, 1, 2])])
def test_mosaics_come_with_the_second_epoch(
    tmp_path: Path, rows: tuple[str, ...], mosaics: list[int]
) -> None:
    """As live, a run of a single epoch has none, and that is no lack."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of(*rows), WROTE)
    got = planned(path)
    assert mosaics == [e.iteration for e in events_of(got, Image) if e.title == "Mosaic"]
    assert "train_batch*.jpg" not in got.missing


def test_a_picture_whose_name_is_no_unicode_has_a_title(run: Run) -> None:
    """With a question mark for each byte that is no text; the file itself keeps its name."""
    names = ("val\udcff_batch1.jpg", "a\udcff_curve.png")
    files = {name: FileStamp(name, 1, 1_000_000, "c") for name in names}
    got = plan(replace(run, files=files), Wishes())
    (image,), (plot,) = events_of(got, Image), events_of(got, Plot)
    assert ("val?.jpg", 1, names[0], 1) == (image.series, image.iteration, image.file.name, image.at)
    assert ("a?_curve", 0, names[1], 1) == (plot.title, plot.iteration, plot.file.name, plot.at)


def test_a_picture_has_the_time_it_was_drawn(run: Run) -> None:
    """Of a copy, whose file times are of the copying: when its kind is drawn."""
    files = {name: replace(stamp, mtime_ns=stamp.mtime_ns + 999_999) for name, stamp in run.files.items()}
    for copied in (False, True):
        got = plan(replace(run, copied=copied, files=files), Wishes())
        at = {e.file.name: e.at for kind in (Image, Plot) for e in events_of(got, kind)}
        mosaics = [name for name in at if name.startswith("train")]
        assert (3, 9) == (len(mosaics), len(at))
        for name, told in at.items():
            drawn = run.files[name].mtime_ns // 1_000_000  # whole ones
            usual = run.times.began if name in mosaics else run.times.ended
            assert drawn != usual
            assert told == (usual if copied else drawn)


def test_the_mosaics_of_yolov5_come_with_its_first_epoch(make_run: MakeRun) -> None:
    """Under another title, and where there are none that is a lack."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    run = replace(run, table=replace(run.table, rows=run.table.rows[:1]))
    got = plan(run, Wishes())
    assert {"Mosaics"} == {e.title for e in events_of(got, Image) if e.file.name.startswith("train")}
    files = {name: stamp for name, stamp in run.files.items() if not name.startswith("train")}
    assert "train_batch*.jpg" in plan(replace(run, files=files), Wishes()).missing
    live = replace(run, files=files, state=RunState.LIVE)
    assert "train_batch*.jpg" not in plan(live, Wishes()).missing


def test_a_run_of_one_epoch_lacks_no_mosaics(run: Run) -> None:
    """It was too short for the callback to report them."""
    files = {name: stamp for name, stamp in run.files.items() if not name.startswith("train")}
    assert "train_batch*.jpg" in plan(replace(run, files=files), Wishes()).missing
    one = replace(run, files=files, table=replace(run.table, rows=run.table.rows[:1]))
    assert "train_batch*.jpg" not in plan(one, Wishes()).missing


def test_batches_of_the_last_epochs_are_no_mosaics(tmp_path: Path) -> None:
    """close_mosaic draws more batches, which no callback reports."""
    path = training(tmp_path / "train")
    put(path / "train_batch9.jpg", JPEG, WROTE)
    put(path / "train_batch20.jpg", JPEG, WROTE)
    assert [0, 1, 2] == [e.iteration for e in events_of(planned(path), Image) if e.title == "Mosaic"]


def test_pictures_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A finished run without its pictures lacks them; with plots=False it does not."""
    path = training(tmp_path / "train")
    for picture in (*path.glob("*.png"), *path.glob("*.jpg")):
        picture.unlink()
    wanted = {"train_batch*.jpg", "results.png and the plots beside it"}
    assert wanted <= set(planned(path).missing)
    put(path / "args.yaml", (path / "args.yaml").read_text().replace("plots: true", "plots: false"), BEGAN)
    assert set() == wanted & set(planned(path).missing)


def test_a_live_run_has_neither_plots_nor_a_model(tmp_path: Path) -> None:
    """They are the end of a training, also where such files lie about."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "results.png", PNG, ENDED)
    put(path / "confusion_matrix.png", PNG, ENDED)
    got = planned(path, ENDED + 10)
    assert Status(RunState.LIVE) == got.reports[-1].events[0]
    for kind in (Plot, DrawnPlot, OutputModel):
        assert [] == list(events_of(got, kind))
    assert "final" not in digests(got)
    assert {"image/train_batch0.jpg"} < set(digests(got))


def test_a_dead_run_gets_its_results_drawn(tmp_path: Path) -> None:
    """Losses and metrics with every row, gaps included, as one plot."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "results.csv", rows_of(ROWS[0], "2,60,nan,0.2,0.2,0.001"), WROTE)
    (drawn,) = events_of(planned(path), DrawnPlot)
    assert ("results", 0, "results.png", (1, 2)) == (
        drawn.title,
        drawn.iteration,
        drawn.file_name,
        drawn.epochs,
    )
    assert ("train/loss", "metrics/mAP50(B)", "metrics/mAP50-95(B)") == drawn.columns
    assert (1.0, 0.1, 0.1) == drawn.values[0]
    assert math.isnan(drawn.values[1][0])
    assert drawn.values[1][1:] == (0.2, 0.2)
    assert round(WROTE * 1000) == drawn.at


def test_a_dead_yolov5_run_gets_its_results_drawn(make_run: MakeRun) -> None:
    """Under the title, and at the iteration, that its own picture would have had."""
    run = run_of(make_run("yolov5-7.0.14-detect"), long_after())
    dead = replace(run, state=RunState.STOPPED)
    assert [] == list(events_of(plan(dead, Wishes()), DrawnPlot))
    files = {name: stamp for name, stamp in run.files.items() if name != "results.png"}
    got = plan(replace(dead, files=files), Wishes())
    (report,) = (report for report in got.reports if report.key == "plot/results")
    (drawn,) = report.events
    assert isinstance(drawn, DrawnPlot)
    assert ("metrics/mAP_0.5:0.95", 4) == (drawn.title, drawn.iteration)
    assert {"train", "metrics", "val"} == {column.partition("/")[0] for column in drawn.columns}


def test_a_live_run_gets_none_drawn(tmp_path: Path) -> None:
    """Ultralytics will draw it."""
    path = training(tmp_path / "train", stripped=False)
    assert [] == list(events_of(planned(path, ENDED), DrawnPlot))


def test_without_plots_a_dead_run_gets_none_drawn(tmp_path: Path) -> None:
    """plots=False is what the user wanted."""
    path = training(tmp_path / "train", stripped=False, plots=False)
    assert [] == list(events_of(planned(path), DrawnPlot))


# -- the end of a training


def finals(of: Plan) -> dict[str, float]:
    return {e.name: e.value for e in events_of(of, SingleValue) if e.name != "model/parameters"}


def test_final_values_are_best_pts_own(tmp_path: Path) -> None:
    """Its record of its own epoch, whatever the rows say; val losses in it are no final values."""
    path = training(tmp_path / "train")
    metrics = {"metrics/mAP50(B)": 0.75, "metrics/mAP50-95(B)": 0.5, "val/box_loss": 9.0, "fitness": 0.625}
    checkpoint(path / "weights" / "best.pt", train_metrics=metrics)
    assert {"metrics/mAP50(B)": 0.75, "metrics/mAP50-95(B)": 0.5, "fitness": 0.625} == finals(planned(path))


def test_a_checkpoint_without_metrics_leaves_it_to_the_best_row(tmp_path: Path) -> None:
    """Before 8.0.220, and without best.pt: the row of the best fitness by the release's own measure."""
    path = training(tmp_path / "train")
    rows = ("1,1,1,0.9,0.3,1", "2,2,1,0.2,0.375,1", "3,3,1,0.1,0.1,1")
    put(path / "results.csv", rows_of(*rows), WROTE)
    new = {"metrics/mAP50(B)": 0.2, "metrics/mAP50-95(B)": 0.375, "fitness": 0.375}
    old = {"metrics/mAP50(B)": 0.9, "metrics/mAP50-95(B)": 0.3, "fitness": pytest.approx(0.36)}
    assert new == finals(planned(path))
    assert old == finals(planned(path, wishes=Wishes(rules=(8, 1, 0))))
    (path / "weights" / "best.pt").unlink()
    assert new == finals(planned(path))


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        (("0.5", "0.5", "0.25"), 1),  # on a tie the last tied epoch is best.pt
        (("0.5", "0.5", "0.5"), 2),
        (("nan", "0.5", "0.25"), 1),
        (("0.5", "nan", "0.25"), 0),
        (("0.25", "nan", "0.5"), 2),
        (("nan", "0.25", "nan"), 1),
        (("inf", "0.25", "0.5"), 2),
        (("0", "0", "nan"), 1),
    ],
)
@pytest.mark.parametrize("task", ["detect", "classify", "segment"])
def test_the_best_row_is_found_among_ties_and_gaps(
    tmp_path: Path, cells: tuple[str, ...], best: int, task: str
) -> None:
    """A row that is not finite is never the best, wherever it stands, and hides none after it."""
    columns = {
        "detect": ("metrics/mAP50(B)", "metrics/mAP50-95(B)"),
        "classify": ("metrics/accuracy_top1", "metrics/accuracy_top5"),
        "segment": ("metrics/mAP50(B)", "metrics/mAP50-95(B)", "metrics/mAP50(M)", "metrics/mAP50-95(M)"),
    }[task]
    path = training(tmp_path / "train")
    header = ",".join(("epoch", "time", "metrics/mark", *columns))
    rows = [f"{n},{n},{n}," + ",".join([cell] * len(columns)) for n, cell in enumerate(cells, start=1)]
    put(path / "results.csv", rows_of(*rows, columns=header), WROTE)
    values = finals(planned(path))
    parts = {"detect": 1, "classify": 1, "segment": 2}[task]
    assert (best + 1, float(cells[best]) * parts) == (values["metrics/mark"], values["fitness"])


def test_a_final_value_may_have_a_name_of_200_characters(tmp_path: Path) -> None:
    """That is no lack; one more character is."""
    path = training(tmp_path / "train")
    fits = "metrics/" + "c" * 192
    checkpoint(path / "weights" / "best.pt", train_metrics={fits: 0.5, "fitness": 0.25})
    got = planned(path)
    assert {fits: 0.5, "fitness": 0.25} == finals(got)
    assert not any("with names of more than" in lack for lack in got.missing)
    checkpoint(path / "weights" / "best.pt", train_metrics={fits: 0.5, fits + "c": 0.5, "fitness": 0.25})
    got = planned(path)
    assert {fits: 0.5, "fitness": 0.25} == finals(got)
    assert "final metrics with names of more than 200 characters" in got.missing


def test_final_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    """A run that diverged from its first epoch has a best.pt with nothing to say."""
    path = training(tmp_path / "train")
    checkpoint(path / "weights" / "best.pt", train_metrics={"metrics/mAP50(B)": math.nan, "metrics/x": 1.0})
    got = planned(path)
    assert {"metrics/x": 1.0} == finals(got)
    assert {"the final metrics/mAP50(B): not finite", "the final fitness: not finite"} <= set(got.missing)


def test_a_classifier_without_top5_has_no_fitness_and_no_fault(tmp_path: Path) -> None:
    """Columns nobody knows yet leave the last row as the best."""
    path = training(tmp_path / "train")
    put(path / "results.csv", rows_of("1,1,5", "2,2,4", columns="epoch,time,metrics/new"), WROTE)
    assert {"metrics/new": 4.0} == finals(planned(path))


def test_class_names_that_clearml_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    """Empty, doubled, or with a leading $: the others keep their numbers, the first of two wins."""
    path = training(tmp_path / "train")
    names = {0: "circle", 1: "", 2: "$usd", 3: "circle", 4: "a$b", 7: "square"}
    checkpoint(path / "weights" / "best.pt", names=names)
    got = planned(path)
    (model,) = events_of(got, OutputModel)
    assert {"circle": 0, "a$b": 4, "square": 7} == dict(model.labels)
    assert (2, "train", "weights/best.pt") == (model.iteration, model.name, model.file.name)
    assert "3 class names of the model (empty, doubled or with a leading $)" in got.missing


def test_a_finished_run_without_best_pt_has_no_model(tmp_path: Path) -> None:
    """Deleted or unreadable: it is named, and nothing is sent that could not be read."""
    for damage in (b"", None):
        path = training(tmp_path / str(damage))
        best = path / "weights" / "best.pt"
        best.unlink()
        if damage is not None:
            put(best, damage, WROTE)
        got = planned(path)
        assert [] == list(events_of(got, OutputModel))
        assert "the output model (weights/best.pt)" in got.missing
        # deleted on purpose, or damaged: then whoever runs the command should know
        said = (
            "The output model is not sent (weights/best.pt: empty)."
            " Restore it as Ultralytics wrote it, then run the same command again."
        )
        assert ([] if damage is None else [said]) == list(got.notes)


def test_properties_state_the_true_times(tmp_path: Path) -> None:
    """ClearML has no field for when a training really ran; of a live run that it goes on."""
    (told,) = events_of(planned(training(tmp_path / "train")), Properties)
    assert {
        "trained_from": "2026-01-01T00:00:10+00:00",
        "trained_until": "2026-01-01T00:01:40+00:00",
        "run_directory": "/home/somebody/runs/train",
        "release": "8.4.190",
        "epochs": "3 of 3",
        **{"dataset": "unknown", "model": "unknown", "task": "detect"},  # as its arguments state
    } == told.values
    live = planned(training(tmp_path / "live", stripped=False), ENDED)
    (told,) = events_of(live, Properties)
    assert ("still training", "of 3") == (told.values["trained_until"], told.values["epochs"])


def test_properties_state_what_is_not_known(run: Run) -> None:
    """A guessed release, no number of epochs, no directory of its own; times are stated to the second."""
    times = replace(run.times, began=run.times.began + 999, ended=run.times.ended + 1)
    args = {name: value for name, value in run.args.items() if name not in ("epochs", "save_dir")}
    guess = replace(run, times=times, args=args, releases=maybe("8.4.37", "8.4.76"))
    (told,) = events_of(plan(guess, Wishes()), Properties)
    assert {
        "trained_from": "2026-01-01T00:00:10+00:00",
        "trained_until": "2026-01-01T00:01:40+00:00",
        "run_directory": "train",
        "release": "8.4.37 to 8.4.76 (guessed)",
        "epochs": "3 of unknown",
        **{"dataset": "unknown", "model": "unknown", "task": "detect"},  # as its arguments state
    } == told.values
    (told,) = events_of(of_args(run, save_dir=7), Properties)
    assert "7" == told.values["run_directory"]


def test_times_that_cannot_be_are_no_fault(tmp_path: Path) -> None:
    """Rows that claim centuries, and files of 1970 or of the far future."""
    path = training(tmp_path / "train")
    rows = [f"{n},{999_999_999 - n},1,1,1,1" for n in range(1, 200)]
    put(path / "results.csv", rows_of(*rows), WROTE)
    assert all(e.at >= 0 for e in events_of(planned(path), Scalar))
    for at in (0, 1, 9_000_000_000):
        for file in (file for file in path.rglob("*") if file.is_file()):
            os.utime(file, (at, at))
        assert all(e.at >= 0 for e in events_of(planned(path), Scalar))


# -- as a whole


def test_notes_and_lacks_beside_the_reports(run: Run) -> None:
    """The names, the tag, where it came from, and every lack by name; none that there is not."""
    got = plan(run, Wishes())
    assert got == Plan(
        key=run_key(run),
        project="Ultralytics",
        name="train",
        tags=("Ultralytics",),
        folder=("Ultralytics", "train"),
        comment="Replayed by yolo-clearml from the run directory /home/somebody/runs/train.",
        reports=(*got.reports,),
        missing=(
            "model/parameters",
            "model/GFLOPs",
            "model/speed_PyTorch(ms)",
            "the final evaluation's extra point after the last iteration",
            "the exact final metrics (sent: those of the best row of results.csv)",
        ),
        notes=(),
    )


@pytest.mark.parametrize("now", [ENDED, ENDED + 1e6])
def test_a_run_that_did_not_end_lacks_nothing_of_an_end(tmp_path: Path, now: float) -> None:
    """Neither a model, nor final values, nor pictures that are drawn last; live or dead."""
    path = training(tmp_path / "train", stripped=False)
    assert ("model/parameters", "model/GFLOPs", "model/speed_PyTorch(ms)") == planned(path, now).missing


def test_a_guess_is_noted_where_the_releases_did_not_all_report_this_run_alike(run: Run) -> None:
    """Which it may be, what changed between them, the rules that were chosen and the way out."""
    run = replace(run, releases=maybe("8.3.196", "8.3.253"))
    note = (
        "No checkpoint names the release; it may be 8.3.196 to 8.3.253, of which 8.3.198 changed the final "
        "values, 8.3.235 changed the plots; reported by the rules of 8.3.198, --rules chooses others."
    )
    assert note in plan(run, Wishes()).notes
    assert () == plan(run, Wishes(rules=(8, 3, 235))).notes


@pytest.mark.parametrize(
    "place",
    [
        "weights/best.pt: It is empty",
        "weights/last.pt: It is cut short or still being written",
        "weights/best.pt: a git-LFS pointer, not the file",
        "weights: a link to /mnt/disk, not followed",
    ],
)
def test_what_is_in_the_place_of_weights_is_named_where_the_release_is_not_known(
    run: Run, place: str
) -> None:
    """In the words of the scan, and nothing of other files."""
    run = replace(run, best=None, unfit=("labels.jpg: empty", place), releases=maybe("8.3.0", "8.3.20"))
    (said,) = (note for note in plan(run, Wishes()).notes if "names the release" in note)
    assert said.startswith(f"No checkpoint names the release ({place}); it may be 8.3.0 to 8.3.20")


@pytest.mark.parametrize(
    ("first", "last", "changed"),
    [
        ("8.0.219", "8.0.227", None),
        ("8.3.0", "8.3.10", "8.3.9 changed the project and the tag"),
        ("8.3.162", "8.3.186", "8.3.173 changed the titles of curves"),
        ("8.4.8", "8.4.36", "8.4.22 changed the hyperparameters"),
        ("8.4.37", "8.4.76", None),  # 8.4.52 changed what is on no disk, 8.4.68 absolute projects
        ("8.4.0", "8.4.7", None),
    ],
)
def test_a_guess_within_the_same_rules_is_as_good_as_knowledge(
    run: Run, first: str, last: str, changed: str | None
) -> None:
    """Only what is reported of this very run counts."""
    notes = plan(replace(run, releases=maybe(first, last)), Wishes()).notes
    told = [note for note in notes if "names the release" in note]
    assert [changed is not None] == [bool(told)]
    assert changed is None or f"of which {changed};" in told[0]


def test_a_project_of_slashes_is_none(run: Run) -> None:
    """Since 8.4.68 the callback takes them off itself, so that nothing is done differently."""
    got = of_args(run, project="///")
    assert ("Ultralytics", ()) == (got.project, got.notes)
    older = plan(replace(run, args={**run.args, "project": "///"}), Wishes(rules=(8, 4, 67)))
    assert "Ultralytics" == older.project
    assert ["ClearML refuses the project '///'"] == [note.partition(";")[0] for note in older.notes]


def test_a_rule_that_touches_one_run_only_is_noted_for_that_run(run: Run) -> None:
    """A slash before the project: since 8.4.68 the callback itself takes it off."""
    run = replace(run, releases=maybe("8.4.37", "8.4.76"), args={**run.args, "project": "/data/runs"})
    assert "data/runs" == plan(run, Wishes()).project
    assert ["ClearML refuses the project '/data/runs'"] == [
        note.partition(";")[0] for note in plan(run, Wishes()).notes
    ]
    assert () == plan(run, Wishes(rules=(8, 4, 68))).notes


def test_what_fits_no_release_is_noted(run: Run) -> None:
    """A fork's directory: by the nearest rules, which are named."""
    nearest = maybe("8.1.34", "8.1.34").early
    run = replace(run, releases=Releases((8, 0, 100), (8, 4, 190), nearest, contradictory=True))
    (said,) = (note for note in plan(run, Wishes()).notes if "names the release" in note)
    assert (
        "No checkpoint names the release, and args.yaml, results.csv and the pictures fit no release "
        "together; reported by the rules of 8.1.34, --rules chooses others."
    ) == said
    (told,) = events_of(plan(run, Wishes()), Properties)
    assert "unknown (guessed)" == told.values["release"]


@pytest.mark.parametrize(
    ("release", "names", "unsent"),
    [
        ((8, 3, 234), ["labels.jpg"], "it: labels.jpg; --rules 8.3.235 reports"),
        ((8, 3, 235), ["labels.jpg", "BoxF1_curve.png", "MaskF1_curve.png", "confusion_matrix.png"], None),
        ((8, 3, 247), ["MaskF1_curve.png", "confusion_matrix.png"], None),  # forgotten live, reported
        ((8, 3, 253), ["MaskF1_curve.png", "confusion_matrix.png"], None),
        (
            (8, 1, 0),
            ["BoxF1_curve.png", "BoxPR_curve.png", "MaskF1_curve.png", "labels.jpg"],
            "them: BoxF1_curve.png, BoxPR_curve.png, MaskF1_curve.png, labels.jpg; --rules 8.3.235 reports",
        ),
        (
            (8, 1, 0),
            ["BoxF1_curve.png", "BoxPR_curve.png", "BoxR_curve.png", "MaskF1_curve.png", "labels.jpg"],
            "them: BoxF1_curve.png, BoxPR_curve.png, BoxR_curve.png and 2 more pictures; --rules 8.3.235",
        ),
        ((8, 1, 0), ["F1_curve.png", "labels_correlogram.jpg"], None),  # no release reports the latter
    ],
    ids=str,
)
def test_pictures_that_the_release_never_set_out_to_report_are_named(
    run: Run, release: Release, names: list[str], unsent: str | None
) -> None:
    """In one line, with the way to have them; what it set out to report and lost is sent."""
    files = {name: FileStamp(name, 9, 9) for name in names}
    files["results.png"] = run.files["results.png"]
    run = replace(run, releases=known_release(release), files=files)
    told = plan(run, Wishes())
    notes = [note for note in told.notes if note.startswith("Not sent, as this release did not report")]
    assert [unsent is not None] == [bool(notes)]
    assert unsent is None or unsent in notes[0]
    every = {"results.png", *names} - {"labels_correlogram.jpg"}
    assert {e.file.name for e in events_of(told, Plot)} == ({"results.png"} if unsent else every)
    chosen = plan(run, Wishes(rules=(8, 3, 235)))
    assert every == {e.file.name for e in events_of(chosen, Plot)}
    by_wish = (chosen, plan(run, Wishes(rules=(8, 3, 234))))
    assert not any("Not sent" in note for each in by_wish for note in each.notes)


def test_the_fitness_of_classes_is_as_the_release_reckoned_it(run: Run) -> None:
    """Of top5 alone to 8.0.136, then the mean of both."""
    table = parse(b"epoch,metrics/accuracy_top1,metrics/accuracy_top5\n1,0.5,0.75\n")
    run = replace(run, table=table)
    for release, fitness in (((8, 0, 136), 0.75), ((8, 0, 137), 0.625), ((8, 4, 190), 0.625)):
        assert (fitness,) == fitness_by_epoch(replace(run, releases=known_release(release)), Wishes())


def test_a_file_that_was_left_out_is_named(tmp_path: Path) -> None:
    """With why: it is a lack like any other."""
    path = training(tmp_path / "train")
    put(path / "labels.jpg", JPEG[:-2], WROTE)
    assert "labels.jpg: not a whole picture" in planned(path).missing


def test_the_rules_know_no_clock(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan depends on the disk alone: whenever and however often it is made, it is the same."""
    path = make_run("v8.4.190-detect")
    run = run_of(path, 0.0)
    first = plan(run, Wishes())
    for name in ("time", "time_ns", "monotonic", "localtime", "gmtime"):
        monkeypatch.setattr(time, name, lambda *_: pytest.fail("the rules looked at the clock"))
    assert first == plan(run, Wishes())
    monkeypatch.undo()
    assert first == planned(path, 4e9)


def test_reports_come_in_the_order_they_must_arrive(tmp_path: Path) -> None:
    """Arguments first, the status last, epochs in their order, and the final values with them."""
    keys = [report.key for report in planned(training(tmp_path / "train")).reports]
    assert ["args/General", "properties", "epoch/0", "epoch/1", "epoch/2", "final"] == keys[:6]
    assert {
        *(f"image/train_batch{n}.jpg" for n in range(3)),
        *("image/val_batch0_labels.jpg", "image/val_batch0_pred.jpg"),
        *(f"plot/{name}" for name in ("labels", "results", "BoxF1_curve", "confusion_matrix")),
    } == set(keys[6:-2])
    assert ["model", "status"] == keys[-2:]
    assert len(keys) == len(set(keys))
