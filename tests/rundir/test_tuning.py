"""What a tuning's folder holds, whatever is in it; which trainings are its own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import GOLDEN, MakeRun, long_after
from tunings import BEGAN, ROWS, TRAINED, WHERE, Tuned, tuned

from yolo_clearml.errors import RunUnreadable
from yolo_clearml.events import RunState
from yolo_clearml.rundir.run import NotARun, Run
from yolo_clearml.rundir.scan import scan

SOON = BEGAN + 200.0  # seconds since the epoch


@pytest.fixture
def it(make_run: MakeRun) -> Tuned:
    return tuned(make_run, trainings=(1, 2))


def read(it: Tuned, now: float | None = None) -> Run:
    run = scan(it.folder, long_after() if now is None else now)
    assert isinstance(run, Run)
    assert run.tuning is not None
    return run


def trials(it: Tuned) -> list[str]:
    tuning = read(it).tuning
    assert tuning is not None
    return [trial.place for trial in tuning.trials]


def records(it: Tuned) -> list[dict[str, object]]:
    return [json.loads(line) for line in (it.folder / "tune_results.ndjson").read_text().splitlines()]


def write(it: Tuned, *lines: object) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (it.folder / "tune_results.ndjson").write_text("".join(f"{text}\n" for text in texts))


# -- what the releases write --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "width"), [("8.0.180", 23), ("8.3.100", 24), ("8.4.37", 27), ("8.4.190", 27)]
)
def test_what_each_form_of_the_tuner_writes(
    make_run: MakeRun, tmp_path: Path, release: str, width: int
) -> None:
    """Text files as the tuner's own source wrote them, run with a trainer that only made folders."""
    folder = tmp_path / "runs" / "tune"
    shutil.copytree(GOLDEN / "tunings" / f"v{release}", folder)
    named = {"8.4.37": "train3", "8.4.190": "multitrain3/coco8"}.get(release, "train2")
    training = make_run(TRAINED, named)
    args = training / "args.yaml"
    text = re.sub(r"^save_dir: .*$", f"save_dir: {WHERE}/{named}", args.read_text(), flags=re.MULTILINE)
    args.write_text(text)
    run = scan(folder, long_after())
    assert isinstance(run, Run)
    assert run.tuning is not None
    assert (RunState.FINISHED, 3, 2, width) == (
        *(run.state, run.tuning.asked, run.tuning.best_iteration),
        len(run.table.columns),
    )
    assert (0.41235, 0.52346, 0.5) == run.table.column("fitness")
    assert [named] == [trial.place for trial in run.tuning.trials]
    best = {n: v for n, v in zip(run.table.columns, run.table.rows[1].values, strict=True) if n != "fitness"}
    assert best == run.tuning.best
    assert () == run.unfit + run.table.malformed


# -- rows and states ----------------------------------------------------------------------------------------


def test_both_forms_hold_the_same(make_run: MakeRun, it: Tuned, tmp_path: Path) -> None:
    old = tuned(lambda *names: make_run(names[0], f"old/{names[1]}"), new=False, trainings=(2,))
    assert (read(it).table.columns, read(it).tuning.best) == (  # type: ignore[union-attr]
        read(old).table.columns,
        read(old).tuning.best,  # type: ignore[union-attr]
    )
    assert [row.values for row in read(it).table.rows] == [row.values for row in read(old).table.rows]
    assert [fitness for fitness, _ in ROWS] == [row.values[0] for row in read(old).table.rows]


@pytest.mark.parametrize(
    "line",
    [
        *("?", "null", "[]", "{}", "[" * 100_000, '{"fitness": 0.1}', '{"fitness": 1, "hyperparameters": 3}'),
        *('{"fitness": "0.1", "hyperparameters": {}}', '{"fitness": true, "hyperparameters": {}}'),
        '{"fitness": 0.1, "hyperparameters": {"a,b": 1}}',
        json.dumps({"fitness": 10**400, "hyperparameters": {"lr0": 1}}),
    ],
)
def test_a_line_that_is_no_iteration_is_counted(it: Tuned, line: str) -> None:
    """The others keep their numbers."""
    first, _, third = records(it)
    write(it, first, line, third)
    table = read(it).table
    assert ([1, 3], (3,)) == ([row.epoch for row in table.rows], table.malformed)


def test_what_lacks_a_value_has_a_gap(it: Tuned) -> None:
    """As where the search space was another after a resume."""
    first, second, _ = records(it)
    del second["hyperparameters"]["lr0"]  # type: ignore[attr-defined]
    write(it, first, second)
    assert [True, False] == [row.values[1] == row.values[1] for row in read(it).table.rows]


def test_a_last_line_without_its_end_waits(it: Tuned) -> None:
    path = it.folder / "tune_results.ndjson"
    path.write_bytes(path.read_bytes()[:-20])
    it.date(2)
    assert [1, 2] == [row.epoch for row in read(it).table.rows]
    assert read(it).table.unfinished
    assert RunState.LIVE is read(it, SOON).state


def test_what_is_no_table_is_an_error_that_names_it(make_run: MakeRun) -> None:
    it = tuned(make_run, new=False, trainings=())
    (it.folder / "tune_results.csv").write_text("epoch,time\n1,2\n")
    with pytest.raises(RunUnreadable, match=r"tune_results\.csv is not a table that begins with the column"):
        scan(it.folder, SOON)


def test_a_link_is_not_read(make_run: MakeRun, tmp_path: Path) -> None:
    it = tuned(make_run, trainings=())
    (it.folder / "tune_results.ndjson").rename(tmp_path / "elsewhere")
    (it.folder / "tune_results.ndjson").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunUnreadable, match=r"tune_results\.ndjson cannot be read: it is a link"):
        scan(it.folder, SOON)


def test_before_its_first_iteration(it: Tuned) -> None:
    (it.folder / "best_hyperparameters.yaml").unlink()
    write(it)
    it.date(0)
    looked = scan(it.folder, SOON)
    assert isinstance(looked, NotARun)
    assert looked.again == BEGAN + 1800
    looked = scan(it.folder, long_after())
    assert isinstance(looked, NotARun)
    assert "died before its first iteration ended" == looked.reason


def test_live_finished_and_stopped(it: Tuned) -> None:
    """Finished by the number that was asked for; a resume that asks for more goes on."""
    assert RunState.FINISHED is read(it, SOON).state
    it.write(3, asked=5)
    assert (RunState.LIVE, BEGAN + 180 + 1800) == (read(it, SOON).state, read(it, SOON).again)
    assert RunState.STOPPED is read(it).state
    text = (it.folder / "best_hyperparameters.yaml").read_text().replace("(180.00s)", "(10800.00s)")
    (it.folder / "best_hyperparameters.yaml").write_text(text)
    it.date(3)
    assert BEGAN + 180 + 3 * 3600 == read(it, SOON).again  # three average iterations of an hour


def test_a_best_that_is_no_yaml_is_named(it: Tuned) -> None:
    (it.folder / "best_hyperparameters.yaml").write_text("!!python/object:os.system [")
    run = read(it)
    assert run.tuning is not None
    assert ({}, None) == (run.tuning.best, run.tuning.asked)
    assert ("best_hyperparameters.yaml: not what Ultralytics writes",) == run.unfit


# -- its trainings ------------------------------------------------------------------------------------------


def test_a_training_is_known_by_the_save_dir_that_both_state(it: Tuned) -> None:
    assert ["multitrain/coco8", "multitrain2/coco8"] == trials(it)
    args = it.trainings[0] / "args.yaml"
    args.write_text(args.read_text().replace("/multitrain/coco8", "/multitrain/coco9"))
    assert ["multitrain2/coco8"] == trials(it)
    (it.trainings[1] / "results.csv").write_text("")
    assert [] == trials(it)


@pytest.mark.parametrize("folder", ["", "/", "..", "../..", "/etc", "../../etc", "tune", 3, None, ["a"]])
def test_a_folder_that_is_none_of_its_own_leads_nowhere(it: Tuned, folder: object) -> None:
    first, *_ = records(it)
    write(it, {**first, "save_dirs": {"coco8": folder}})
    assert [] == trials(it)
    write(it, {**first, "save_dirs": folder})
    assert [] == trials(it)


def test_an_old_one_is_known_by_all_hyperparameters_of_a_mutated_row(make_run: MakeRun) -> None:
    """And by the best model's folder, also where that is the first."""
    it = tuned(make_run, new=False, trainings=(1, 2, 3))
    assert ["train2", "train3"] == trials(it)
    args = it.trainings[2] / "args.yaml"
    args.write_text(args.read_text().replace("momentum: 0.93211", "momentum: 0.9321"))
    assert ["train2"] == trials(it)
    it.write(1)
    assert ["train"] == trials(it)
