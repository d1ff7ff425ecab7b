"""Trainings that begin with the same row are two tasks; one that goes on, moves or is copied stays one."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_AND_EVERY, Doubles, MakeRun, long_after, numbers, one_in, sampled
from double import ClearMLDouble
from killing import WHEN, killed_at_request
from test_ending import OLD_COLUMNS, OLD_ROWS, of_old
from test_rules import planned
from test_scan import WROTE, put, run_of, training
from test_two_at_once import beside
from uploading import fails, upload

from yolo_clearml.rundir.identity import NO_DIGEST, differ, first_rows, run_key
from yolo_clearml.server.destination import RUNTIME_DESTINATION
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Delivered, Outcome, UpToDate

DEFAULTS = {"name": "train", "save_dir": "runs/detect/train", "exist_ok": False}


def bare(path: Path, rows: int = 3, shift: float = 0.0, **more: object) -> Path:
    """Make an old run with nothing but its rows, the first of which is the same whatever ``shift`` is."""
    arguments: dict[str, Any] = {**DEFAULTS, **more}
    of_old(path, **arguments)
    for picture in (*path.glob("*.png"), *path.glob("*.jpg")):
        picture.unlink()
    write_rows(path, [OLD_ROWS[0], *(shifted(row, shift) for row in OLD_ROWS[1:rows])])
    return path


def shifted(row: str, shift: float) -> str:
    epoch, loss, *rest = row.split(",")
    return ",".join((epoch, f"{float(loss) + shift:.5g}", *rest))


def write_rows(path: Path, rows: list[str], at: float = WROTE) -> None:
    put(path / "results.csv", "\n".join((OLD_COLUMNS, *rows, "")), at)


def edit(path: Path, **changes: object) -> None:
    """Change what args.yaml says, at its own time."""
    text, at = (path / "args.yaml").read_text(), (path / "args.yaml").stat().st_mtime
    for name, value in changes.items():
        text = re.sub(rf"(?m)^{name}:.*\n", "", text) + f"{name}: {value}\n"
    put(path / "args.yaml", text, at)


def losses(server: ClearMLDouble) -> dict[str, list[float]]:
    """Give the losses each task holds, by its id."""
    return {
        task_id: [
            event["value"]
            for (_, series, _), event in sorted(server.scalars(task_id).items())
            if "loss" in series
        ]
        for task_id in server.tasks
    }


def wanted(*paths: Path) -> list[list[float]]:
    return sorted(
        [float(line.split(",")[1]) for line in (path / "results.csv").read_text().split("\n")[1:-1]]
        for path in paths
    )


def forget(*paths: Path) -> None:
    """Come from another machine."""
    for path in paths:
        (path / LEDGER_NAME).unlink(missing_ok=True)


# -- the key


def test_other_arguments_are_another_training_where_rows_have_no_time(tmp_path: Path) -> None:
    """The first row is the same, for all that follows from them comes later."""
    keys = [run_key(run_of(bare(tmp_path / "0")))]
    others: tuple[dict[str, Any], ...] = (
        {"epochs": 9},
        {"patience": 3},
        {"cos_lr": True},
        {"lrf": 0.1},
        {"optimizer": "Adam"},
        {"seed": 1},
    )
    for number, other in enumerate(others, 1):
        keys.append(run_key(run_of(bare(tmp_path / str(number), **other))))
    assert len(others) + 1 == len(set(keys))


@pytest.mark.parametrize(
    "name", [f"{kind}-{task}" for kind in ("v8.0.100", "v8.0.220") for task in ("detect",)]
)
def test_a_resume_of_an_old_release_keeps_the_key(make_run: MakeRun, name: str) -> None:
    """Whatever the command line and the checkpoint bring into args.yaml, as the releases' sources say."""
    path = make_run(name)
    key = run_key(run_of(path, long_after()))
    place = path / "weights" / "last.pt"
    edit(path, model=place, resume=place, batch=8, imgsz=96, device=1, close_mosaic=3, data="other.yaml")
    edit(path, workers=2, rect="true", warmup_bias_lr=0.0, mosaic=0.0, mixup=0.0, copy_paste=0.0, half="true")
    assert key == run_key(run_of(path, long_after()))
    edit(path, project="mine", exist_ok="true", plots="false", save_period=5)  # and a person
    assert key == run_key(run_of(path, long_after()))
    edit(path, epochs=500)
    assert key != run_key(run_of(path, long_after()))


def test_epochs_that_follow_from_a_time_are_no_part_of_it(tmp_path: Path) -> None:
    """Each process of such a training reckons them anew."""
    path = bare(tmp_path / "train", time=0.5)
    key = run_key(run_of(path))
    edit(path, epochs=77)
    assert key == run_key(run_of(path))


def test_a_number_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    """Tools that save args.yaml again do: 1e-3 is text to YAML, and 0 a whole number."""
    path = bare(tmp_path / "train", lr0=0.001, dropout=0.0)
    key = run_key(run_of(path))
    edit(path, lr0="1e-3", dropout=0)
    assert key == run_key(run_of(path))


@pytest.mark.parametrize("timed", [True, False])
def test_a_table_that_was_saved_again_keeps_the_key(tmp_path: Path, timed: bool) -> None:
    """With padding or without, with CRLF, another way to write a number, and a byte order mark."""
    path = training(tmp_path / "train") if timed else of_old(tmp_path / "train")
    key = run_key(run_of(path))
    plain = (path / "results.csv").read_text().replace(" ", "")
    padded = "\n".join(",".join(f"{cell:>23}" for cell in line.split(",")) for line in plain.split("\n"))
    for text in (
        plain,
        padded[:-23],
        plain.replace("\n", "\r\n"),
        "\ufeff" + plain,
        plain.replace(",0.1,", ",0.10,").replace(",0.001", ",1.0E-03"),
    ):
        assert text != (path / "results.csv").read_text() or text == plain
        put(path / "results.csv", text, WROTE)
        assert key == run_key(run_of(path))


def test_arguments_do_not_count_where_rows_have_a_time(tmp_path: Path) -> None:
    """The first row distinguishes more than they do, and newer releases let a resume change more of them."""
    path = training(tmp_path / "train", patience=50)
    key = run_key(run_of(path))
    edit(path, patience=7, epochs=8)
    assert key == run_key(run_of(path))
    assert () == first_rows(run_of(path))


def test_digests_of_rows(tmp_path: Path) -> None:
    """Of the first four; a growing run adds to them, an epoch that stands there twice proves nothing."""
    path = bare(tmp_path / "train", rows=1)
    known = [first_rows(run_of(path))]
    for rows in (2, 3, 4, 5):
        write_rows(path, list(OLD_ROWS[:rows]))
        known.append(first_rows(run_of(path)))
    assert [1, 2, 3, 4, 4] == list(map(len, known))
    assert all(not differ(a, b) for a, b in itertools.combinations(known, 2))
    write_rows(path, [*OLD_ROWS[:2], shifted(OLD_ROWS[1], 0.5), OLD_ROWS[2]])
    run = run_of(path)
    assert (NO_DIGEST, frozenset({2}), frozenset({1})) == (
        first_rows(run)[1],
        run.repeated,
        planned(path).unsure,
    )
    assert not differ(first_rows(run), known[-1])
    write_rows(path, [OLD_ROWS[0], shifted(OLD_ROWS[1], 0.5)])
    assert differ(first_rows(run_of(path)), known[-1])


# -- their tasks


@pytest.fixture(params=["arguments", "rows alone"])
def three(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Give three trainings of one name, place and first row."""
    same: dict[str, Any] = {"epochs": 9} if request.param == "rows alone" else {}
    return [
        bare(tmp_path / "runs" / name, rows, shift, **{"epochs": rows, **same})
        for name, rows, shift in (("a", 3, 0.0), ("b", 5, 0.1), ("c", 4, 0.2))
    ]


@pytest.mark.parametrize("jobs", [1, 4])
def test_three_trainings_are_three_tasks(server: ClearMLDouble, three: list[Path], jobs: int) -> None:
    """One after the other or at the same time; once more changes nothing."""
    outcomes = upload(three, jobs=jobs)
    assert 3 == sum(isinstance(outcome, Delivered) for outcome in outcomes)
    assert wanted(*three) == sorted(losses(server).values())
    before = server.snapshot()
    assert 3 == sum(isinstance(outcome, UpToDate) for outcome in upload(three))
    assert before == server.snapshot()


@pytest.mark.parametrize("order", sampled(map(list, itertools.permutations(range(3))), one_in(5)))
def test_three_trainings_on_three_machines(
    server: ClearMLDouble, three: list[Path], order: list[int]
) -> None:
    """Each without a ledger, in any order, and all of them twice."""
    tasks: list[set[str]] = []
    for _ in range(2):
        for number in order:
            (outcome,) = upload([three[number]])
            assert isinstance(outcome, Delivered)
            forget(*three)
        assert wanted(*three) == sorted(losses(server).values())
        tasks.append(set(server.tasks))
    assert 3 == len(tasks[0]) == len(tasks[0] & tasks[1])


def test_a_run_with_a_task_of_its_own_states_why(server: ClearMLDouble, tmp_path: Path) -> None:
    """Once, when the task is made."""
    one, other = bare(tmp_path / "1" / "r"), bare(tmp_path / "2" / "r", shift=0.1)
    upload([one])
    (task,) = server.tasks
    (outcome,) = upload([other])
    assert isinstance(outcome, Delivered)
    assert [f"first row, as {task}: its other rows are different" in n for n in outcome.notes].count(
        True
    ) == 1
    forget(other)
    (outcome,) = upload([other])
    assert isinstance(outcome, Delivered)
    assert not any("first row" in note for note in outcome.notes)


def test_a_copy_costs_few_requests_more(server: ClearMLDouble, make_run: MakeRun, tmp_path: Path) -> None:
    """Without a ledger, ClearML's curves are read before they are written over: a request for a title."""
    path = make_run("v8.4.190-detect")
    assert [] == fails(upload([path]))
    first = Counter(request.endpoint for request in server.requests)
    before = len(server.requests)
    forget(path)
    assert [] == fails(upload([path]))
    again = Counter(request.endpoint for request in server.requests[before:])
    assert 1 == len(server.tasks)
    assert 3 == again["events.scalar_metrics_iter_raw"]  # train, metrics, val
    assert sum(again.values()) <= sum(first.values()) + 4
    old = bare(tmp_path / "old")
    assert [] == fails(upload([old]))
    before = len(server.requests)
    forget(old)
    assert [] == fails(upload([old]))
    read = [request for request in server.requests[before:] if "scalar_metrics" in request.endpoint]
    assert [] == read  # its task carries what distinguishes it


def test_another_training_in_place_of_one_that_was_uploaded(server: ClearMLDouble, tmp_path: Path) -> None:
    """exist_ok, the same arguments, the same first row: the ledger there names the other's task."""
    path = bare(tmp_path / "train", rows=4, exist_ok=True)
    upload([path])
    first = wanted(path)
    write_rows(path, [OLD_ROWS[0], *(shifted(row, 0.3) for row in OLD_ROWS[1:4])], WROTE + 50)
    (outcome,) = upload([path])
    assert isinstance(outcome, Delivered)
    assert sorted([*first, *wanted(path)]) == sorted(losses(server).values())
    assert isinstance(upload([path])[0], UpToDate)


def alive() -> float:
    return WROTE + 10


def test_one_that_is_reported_row_by_row_stays_one(server: ClearMLDouble, tmp_path: Path) -> None:
    """Its task carries each of the first rows as it comes; a training that goes on otherwise is another."""
    path = bare(tmp_path / "live" / "r", rows=1, epochs=9, save=False)
    other = bare(tmp_path / "other" / "r", rows=5, shift=0.4, epochs=9, save=False)
    for rows in range(1, 7):
        write_rows(path, list(OLD_ROWS[:rows]))
        assert [] == fails(upload([path], now=alive))
        (task,) = server.tasks.values()
        assert min(rows, 4) == len(task["runtime"]["yolo_clearml_rows"].split())
    forget(path)
    for _ in range(2):
        assert [] == fails(upload([other, path], now=alive))
        assert wanted(path, other) == sorted(losses(server).values())
        forget(path, other)


def test_a_resume_that_repeats_an_epoch_stays_one(server: ClearMLDouble, tmp_path: Path) -> None:
    """Killed between a row and its checkpoint: the row that ClearML has is in the file as well."""
    for folder, (one, repeated) in enumerate(((bare, OLD_ROWS[1]), (bare, OLD_ROWS[5]))):
        path = one(tmp_path / str(folder), rows=int(repeated[0]), epochs=20 + folder)
        upload([path])
        rows = [*OLD_ROWS[: int(repeated[0])], shifted(repeated, 0.7), OLD_ROWS[6]]
        write_rows(path, rows)
        forget(path)
        assert [] == fails(upload([path]))
        assert folder + 1 == len(server.tasks)


def test_a_branch_of_a_training_with_times_is_another(server: ClearMLDouble, tmp_path: Path) -> None:
    """A copy that was resumed by itself: what ClearML has of the first one's later epochs is not lost."""
    path, copy = training(tmp_path / "runs" / "r"), tmp_path / "copy" / "r"
    shutil.copytree(path, copy)
    upload([path])
    table = (copy / "results.csv").read_text()
    put(copy / "results.csv", table.replace("3,90,0.333333", "3,91,0.444444"), WROTE)
    assert table != (copy / "results.csv").read_text()
    assert [] == fails(upload([copy]))
    assert 2 == len(server.tasks)


def test_exact_repetitions_stay_one(server: ClearMLDouble, tmp_path: Path) -> None:
    """Nothing distinguishes them."""
    upload([bare(tmp_path / name / "r") for name in ("1", "2", "3")])
    assert 1 == len(server.tasks)


def test_a_task_that_was_reset_gets_all_of_it_again(server: ClearMLDouble, tmp_path: Path) -> None:
    """A reset wipes what a task carries; it is written again, so that others are distinguished from it."""
    path = bare(tmp_path / "1" / "r")
    upload([path])
    (task,) = server.tasks
    told = server.tasks[task]["runtime"]
    server.ask("tasks.reset", task=task, force=True)
    assert {} == server.tasks[task]["runtime"]
    assert [] == fails(upload([path], force=True))
    # but where the model goes: a person may have chosen another place for the draft
    assert {**told, RUNTIME_DESTINATION: ""} == server.tasks[task]["runtime"]


# -- anywhere, at any time


def pair(folder: Path) -> tuple[Path, Path]:
    shutil.rmtree(folder, ignore_errors=True)
    return bare(folder / "1" / "r", 2), bare(folder / "2" / "r", 3, 0.1)


@FEW_AND_EVERY
def test_two_trainings_of_one_key_at_once(doubles: Doubles, tmp_path: Path, every: bool) -> None:
    """One is held at each of its requests while the other is reported whole: two tasks, neither mixed."""
    for number in numbers(every, 2, 5, 8):
        one, other = pair(tmp_path / "runs")
        with doubles() as double:
            both = beside(double, number, lambda: upload([one]), lambda: upload([other]))  # noqa: B023
            assert number == 1 or [] == fails([*_both(both)])
            upload([one, other])
            if both is not None:
                assert wanted(one, other) == sorted(losses(double).values())
        if both is None:
            break
    assert number > (8 if every else 7)


def _both(both: tuple[list[Outcome], list[Outcome]] | None) -> Iterator[Outcome]:
    for outcomes in both or ():
        yield from outcomes


@pytest.mark.exhaustive
@pytest.mark.parametrize("when", WHEN)
def test_killed_at_any_request_two_trainings_are_two_tasks(
    doubles: Doubles, tmp_path: Path, when: str
) -> None:
    """The second is killed while the first is there; run again without its ledger, it ends the same."""
    for number in itertools.count(1):
        one, other = pair(tmp_path / "runs")
        with doubles() as double:
            upload([one])
            killed = killed_at_request(double, number, when, lambda: upload([other]))  # noqa: B023
            forget(other)
            assert [] == fails(upload([other]))
            assert wanted(one, other) == sorted(losses(double).values())
        if not killed:
            break
    assert number > 8


def test_what_these_tests_lean_on(tmp_path: Path) -> None:
    """The two have one key, and nothing but rows to distinguish them."""
    one, other = pair(tmp_path)
    assert run_key(run_of(one)) == run_key(run_of(other))
    assert os.listdir(one) == os.listdir(other)
