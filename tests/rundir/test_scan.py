"""A run directory, in every state it can be found in, is understood or refused with a reason."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import MakeRun, long_after
from test_files import refuse

from yolo_clearml.errors import RunUnreadable
from yolo_clearml.events import RunState
from yolo_clearml.replay.eras import ERAS, YOLOV5
from yolo_clearml.rundir.listing import listing
from yolo_clearml.rundir.places import Unreadable
from yolo_clearml.rundir.release import known_release
from yolo_clearml.rundir.run import NotARun, Run
from yolo_clearml.rundir.scan import scan

PNG = b"\x89PNG\r\n\x1a\n....IHDR....IDAT....IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0....\xff\xd9"

BEGAN = 1_767_225_600.0  # when a training below wrote its args.yaml; seconds since the epoch
WROTE = BEGAN + 100  # when it wrote its last row
SAVED = "2026-01-01T00:01:40+00:00"  # WROTE, as its last checkpoint says
ENDED = BEGAN + 110  # when it drew results.png
COLUMNS = "epoch,time,train/loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0"
ROWS = tuple(f"{n},{n * 30},{1 / n:.6g},0.{n},0.{n},0.001" for n in (1, 2, 3))
ARGS = {"task": "detect", "epochs": 3, "project": None, "name": "train", "save": True, "plots": True}
DRAWN = ("labels.jpg", "train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg")


def put(path: Path, content: bytes | str, at: float) -> None:
    """Write a file as if ``at``, seconds since the epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (at, at))


def checkpoint(path: Path, at: float = WROTE, **facts: object) -> None:
    """Write a checkpoint without a network: stripped and of 8.4.190 unless ``facts`` say otherwise."""
    said = {"epoch": -1, "model": None, "optimizer": None, "version": "8.4.190", "date": SAVED, **facts}
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", pickle.dumps(said, 2))
    os.utime(path, (at, at))


def training(path: Path, stripped: bool = True, **more: object) -> Path:
    """Make a training of three epochs with all its files; ``more`` goes into its args.yaml."""
    arguments = {**ARGS, "save_dir": "/home/somebody/runs/train", **more}
    put(path / "args.yaml", "".join(f"{k}: {_yaml(v)}\n" for k, v in arguments.items()), BEGAN)
    for name in DRAWN:
        put(path / name, JPEG, BEGAN + 8)
    put(path / "results.csv", "\n".join((COLUMNS, *ROWS, "")), WROTE)
    for name in ("last.pt", "best.pt"):
        if stripped:
            checkpoint(path / "weights" / name)
        else:
            checkpoint(path / "weights" / name, epoch=2, optimizer={"lr": 0.1})
    if stripped:
        for name in ("val_batch0_pred.jpg", "val_batch0_labels.jpg"):
            put(path / name, JPEG, WROTE + 5)
        for name in ("BoxF1_curve.png", "confusion_matrix.png", "results.png"):
            put(path / name, PNG, ENDED)
    return path


def _yaml(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def run_of(path: Path, now: float = ENDED + 1e6, stale_after: float | None = None) -> Run:
    found = scan(path, now, stale_after)
    assert isinstance(found, Run), found
    return found


def reason_of(path: Path, now: float = ENDED + 1e6, stale_after: float | None = None) -> str:
    found = scan(path, now, stale_after)
    assert isinstance(found, NotARun)
    return found.reason


def states(path: Path, *after: float, stale_after: float | None = None) -> list[RunState]:
    return [run_of(path, WROTE + seconds, stale_after).state for seconds in after]


# -- states


def test_a_finished_run(tmp_path: Path) -> None:
    """Stripped checkpoints and results.png last: finished at once, and for ever, with all its files."""
    path = training(tmp_path / "train")
    assert [RunState.FINISHED] * 3 == states(path, 10, 1800, 1e9)
    run = run_of(path)
    assert (3, known_release((8, 4, 190)), 0, ()) == (
        len(run.table.rows),
        run.releases,
        run.earlier_rows,
        run.unfit,
    )
    assert {path.relative_to(tmp_path / "train").as_posix() for path in path.rglob("*.*")} - {
        "args.yaml",
        "results.csv",
    } == set(run.files)


def test_an_early_stop_is_finished(tmp_path: Path) -> None:
    """Fewer rows than epochs, and yet stripped: patience had run out."""
    assert [RunState.FINISHED] == states(training(tmp_path / "train", epochs=100), 10)


@pytest.mark.parametrize("epochs", [3, 100])
def test_an_unstripped_run_lives_until_nothing_was_written_for_long(tmp_path: Path, epochs: int) -> None:
    """Dead and alive look alike; half an hour without a write decides, or what the user asks for."""
    path = training(tmp_path / "train", stripped=False, epochs=epochs)
    live, stopped = RunState.LIVE, RunState.STOPPED
    assert [live, live, stopped] == states(path, 1, 1799, 1801)
    assert [live, stopped, stopped] == states(path, 1, 10, 1799, stale_after=5)
    assert [live, live, stopped] == states(path, 1799, 9_999, 10_001, stale_after=10_000)


def test_any_file_that_is_written_keeps_a_run_alive(tmp_path: Path) -> None:
    """A checkpoint or a picture newer than the last row counts as well."""
    path = training(tmp_path / "train", stripped=False)
    os.utime(path / "weights" / "last.pt", (WROTE + 1000, WROTE + 1000))
    assert [RunState.LIVE, RunState.STOPPED] == states(path, 2799, 2801)


def test_patience_grows_with_the_length_of_an_epoch(tmp_path: Path) -> None:
    """A run with epochs of an hour is not dead after half of one; three of its longest are allowed."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "results.csv", "epoch,time,train/loss\n1,3600,1\n2,4000,1\n", WROTE)
    assert [RunState.LIVE, RunState.STOPPED] == states(path, 3 * 3600 - 1, 3 * 3600 + 1)
    assert [RunState.STOPPED] == states(path, 1801, stale_after=1800)


def test_stripped_but_still_drawing_is_not_the_end(tmp_path: Path) -> None:
    """Checkpoints are stripped before the final validation draws; plots are waited for, not for ever."""
    path = training(tmp_path / "train")
    (path / "results.png").unlink()
    assert [RunState.LIVE, RunState.FINISHED] == states(path, 1000, 2000)
    put(path / "results.png", PNG, WROTE - 1)  # of before a resume
    assert [RunState.LIVE, RunState.FINISHED] == states(path, 1000, 2000)
    put(path / "results.png", PNG, WROTE + 20)
    assert [RunState.FINISHED] == states(path, 1000)


def test_while_checkpoints_are_stripped_the_run_lives(tmp_path: Path) -> None:
    """One is stripped before the other; between the two nothing has ended."""
    path = training(tmp_path / "train")
    checkpoint(path / "weights" / "best.pt", epoch=2, optimizer={})
    assert [RunState.LIVE, RunState.STOPPED] == states(path, 100, 2000)


def test_without_plots_stripped_is_finished(tmp_path: Path) -> None:
    """With plots=False there is no results.png to wait for."""
    path = training(tmp_path / "train", plots=False)
    for picture in (*path.glob("*.png"), *path.glob("*.jpg")):
        picture.unlink()
    assert [RunState.FINISHED] == states(path, 10)


def test_without_weights_the_last_picture_decides(tmp_path: Path) -> None:
    """save=False leaves no checkpoint: results.png, drawn last, says that the run has finished."""
    path = training(tmp_path / "train", save=False, epochs=9)
    shutil.rmtree(path / "weights")
    assert [RunState.FINISHED] == states(path, 10)
    run = run_of(path)
    assert (None, None, False) == (run.best, run.last, run.releases.known)
    (path / "results.png").unlink()
    assert [RunState.LIVE, RunState.STOPPED] == states(path, 10, 2000)


def test_before_the_first_checkpoint_a_live_run_waits(tmp_path: Path) -> None:
    """The checkpoint that names the release follows the first row at once; until then nothing is said."""
    path = training(tmp_path / "train", stripped=False, epochs=9)
    shutil.rmtree(path / "weights")
    assert "has no checkpoint yet" == reason_of(path, WROTE + 10)
    assert [RunState.STOPPED] == states(path, 2000)


def test_only_the_last_checkpoint(tmp_path: Path) -> None:
    """last.pt alone gives state and release; there is no best one."""
    path = training(tmp_path / "train")
    (path / "weights" / "best.pt").unlink()
    run = run_of(path, WROTE + 20)
    assert (RunState.FINISHED, None, known_release((8, 4, 190))) == (run.state, run.best, run.releases)


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_truncated_checkpoint_is_named_and_does_not_count(tmp_path: Path, cut: int) -> None:
    """Whether stripped or not, the other one decides; the one that is cut is named with why."""
    for stripped, expected in ((True, RunState.FINISHED), (False, RunState.STOPPED)):
        path = training(tmp_path / str(stripped), stripped=stripped)
        best = path / "weights" / "best.pt"
        put(best, best.read_bytes()[:cut], WROTE)
        run = run_of(path)
        assert (expected, None) == (run.state, run.best)
        assert ["weights/best.pt: It is" if cut else "weights/best.pt: empty"] == [s[:22] for s in run.unfit]


def test_nothing_but_unreadable_checkpoints(tmp_path: Path) -> None:
    """The run is judged by its pictures, the release guessed."""
    path = training(tmp_path / "train")
    for name in ("best.pt", "last.pt"):
        put(path / "weights" / name, b"\x80\x02}", WROTE)
    run = run_of(path)
    assert (RunState.FINISHED, False, 2) == (run.state, run.releases.known, len(run.unfit))


def test_killed_in_setup(tmp_path: Path) -> None:
    """args.yaml and nothing more: waited for while it is fresh, then there is nothing to report."""
    put(tmp_path / "args.yaml", "name: train\n", BEGAN)
    (tmp_path / "weights").mkdir()
    assert "has not finished an epoch yet" == reason_of(tmp_path, BEGAN + 1799)
    assert "died before its first epoch ended" == reason_of(tmp_path, BEGAN + 1801)
    assert "died before its first epoch ended" == reason_of(tmp_path, BEGAN + 10, stale_after=5)


@pytest.mark.parametrize(
    "csv", [b"", b"epoch,train/loss\n", b"epoch,train/loss\n1,0.", b"epoch,tra", b"\0" * 50]
)
def test_a_results_file_without_a_whole_row_has_nothing_to_report(tmp_path: Path, csv: bytes) -> None:
    """Empty, a header only, or torn in its first row: as if it were not there."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "results.csv", csv, WROTE)
    assert "has not finished an epoch yet" == reason_of(path, WROTE + 10)


@pytest.mark.parametrize(
    ("csv", "said"),
    [(None, "is missing"), (b"", "is empty"), (COLUMNS.encode() + b"\n", "holds no epoch")],
)
@pytest.mark.parametrize("lacking", [(), ("best.pt",), ("last.pt",)])
@pytest.mark.parametrize("now", [WROTE + 10, WROTE + 1e6])
def test_a_training_that_finished_does_not_lack_its_rows(
    tmp_path: Path, csv: bytes | None, said: str, lacking: tuple[str, ...], now: float
) -> None:
    """Its checkpoint is stripped, so results.csv was there: to wait for it would be for ever."""
    path = training(tmp_path / "train")
    (path / "results.csv").unlink()
    if csv is not None:
        put(path / "results.csv", csv, WROTE)
    for name in lacking:
        (path / "weights" / name).unlink()
    with pytest.raises(
        RunUnreadable, match=f"results.csv {said} although the training has finished"
    ) as error:
        scan(path, now)
    assert "Restore it" in error.value.hint


def test_checkpoints_of_an_earlier_training_do_not_end_one_without_rows(tmp_path: Path) -> None:
    """exist_ok: results.csv is removed first, the weights stay for an epoch more; nor do unreadable ones."""
    path = training(tmp_path / "train")
    (path / "results.csv").unlink()
    os.utime(path / "args.yaml", (WROTE + 5000, WROTE + 5000))
    assert "has not finished an epoch yet" == reason_of(path, WROTE + 5010)
    for name in ("best.pt", "last.pt"):
        put(path / "weights" / name, b"no checkpoint", WROTE + 5005)
    assert "has not finished an epoch yet" == reason_of(path, WROTE + 5010)


def test_a_torn_last_row_is_left_for_later(tmp_path: Path) -> None:
    """Rows before it count, and it is no fault."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "results.csv", "\n".join((COLUMNS, *ROWS, ROWS[0][:9])), WROTE)
    run = run_of(path)
    assert ([1, 2, 3], ()) == ([row.epoch for row in run.table.rows], run.table.malformed)


# -- a directory used twice


def test_a_training_begun_in_place_of_an_old_one_waits_for_its_first_row(tmp_path: Path) -> None:
    """While the new args.yaml stands beside the old rows, nothing is said of either."""
    path = training(tmp_path / "train")
    os.utime(path / "args.yaml", (WROTE + 5000, WROTE + 5000))
    assert "has not finished an epoch yet" == reason_of(path, WROTE + 5010)


def test_what_is_older_than_the_training_is_not_its_own(tmp_path: Path) -> None:
    """exist_ok: pictures and stripped weights of the run before neither count nor end the new one."""
    path = training(tmp_path / "train", save=False)
    for old in [*path.glob("*.png"), *path.glob("*.jpg"), *path.glob("weights/*.pt")]:
        os.utime(old, (BEGAN - 1000, BEGAN - 1000))
    put(path / "labels.jpg", JPEG, BEGAN + 8)
    run = run_of(path, WROTE + 10)
    assert (RunState.LIVE, ["labels.jpg"], None, None) == (run.state, [*run.files], run.best, run.last)
    assert 10 == len(run.unfit)
    assert "results.png: older than args.yaml, so of an earlier training" in run.unfit


def test_old_weights_do_not_end_a_new_training(tmp_path: Path) -> None:
    """Stripped checkpoints of the run before: the new one has none of its own yet."""
    path = training(tmp_path / "train", stripped=False)
    for name in ("best.pt", "last.pt"):
        checkpoint(path / "weights" / name, at=BEGAN - 1000)
    assert "has no checkpoint yet" == reason_of(path, WROTE + 10)
    checkpoint(path / "weights" / "last.pt", at=WROTE, epoch=0, optimizer={})
    assert [RunState.LIVE] == states(path, 10)


def test_a_second_training_appended_to_the_rows_of_the_first(tmp_path: Path) -> None:
    """Old releases append: the newest rows are the run's, the earlier ones are counted."""
    path = training(tmp_path / "train")
    put(
        path / "results.csv", "\n".join((COLUMNS, ROWS[0].replace(",1,", ",9,"), *ROWS[1:], *ROWS, "")), WROTE
    )
    run = run_of(path)
    assert (3, 3, ROWS[0].encode()) == (run.earlier_rows, len(run.table.rows), run.first_row)


def test_a_resume_in_place_keeps_the_older_pictures(tmp_path: Path) -> None:
    """A resume writes args.yaml again: the batches drawn before it are this training's all the same."""
    path = training(tmp_path / "train", stripped=False, resume="runs/train/weights/last.pt")
    put(path / "args.yaml", (path / "args.yaml").read_bytes(), WROTE - 20)
    rows = (*ROWS, "3,9,1,1,1,1", "4,18,1,1,1,1")
    put(path / "results.csv", "\n".join((COLUMNS, *rows, "")), WROTE)
    run = run_of(path, WROTE + 10)
    assert RunState.LIVE is run.state
    assert set(DRAWN) <= set(run.files)
    assert ([1, 2, 3, 4], ROWS[0].encode()) == ([row.epoch for row in run.table.rows], run.first_row)
    assert {1: 30.0, 2: 30.0, 3: 9.0, 4: 9.0} == run.times.took


def test_a_resume_that_has_no_row_yet_is_the_run_it_resumes(tmp_path: Path) -> None:
    """A day later, args.yaml is written again, and all there was before is still this run's."""
    path = training(tmp_path / "train", stripped=False, resume="runs/train/weights/last.pt")
    os.utime(path / "args.yaml", (WROTE + 86400, WROTE + 86400))
    run = run_of(path, WROTE + 86400 + 10)
    assert (RunState.LIVE, 3, ()) == (run.state, len(run.table.rows), run.unfit)


def test_a_real_resume(make_run: MakeRun) -> None:
    """All its epochs are one run, finished, with the pictures of its first process."""
    run = run_of(make_run("v8.4.190-detect-resumed"), long_after())
    assert RunState.FINISHED is run.state
    assert [*range(1, len(run.table.rows) + 1)] == [row.epoch for row in run.table.rows]
    assert {"train_batch0.jpg", "weights/best.pt", "results.png"} <= set(run.files)
    assert () == run.unfit


# -- copies


def renew(path: Path, at: float, apart: float = 0.001) -> None:
    """Give every file the time of a copy, so many seconds one after the other."""
    for n, file in enumerate(sorted(file for file in path.rglob("*") if file.is_file())):
        os.utime(file, (at + n * apart, at + n * apart))


@pytest.mark.parametrize(("date", "hours"), [(SAVED, 2), (SAVED[:19], 50)])
def test_a_copied_dead_run_is_not_alive_although_its_files_are_new(
    tmp_path: Path, date: str, hours: int
) -> None:
    """The date in the checkpoint survives copying, with or without a time zone."""
    path = training(tmp_path / "train", stripped=False)
    for name in ("best.pt", "last.pt"):
        checkpoint(path / "weights" / name, epoch=2, optimizer={}, date=date)
    assert [RunState.LIVE] == states(path, 10)
    renew(path, WROTE + hours * 3600)
    run = run_of(path, WROTE + hours * 3600 + 10)
    assert (RunState.STOPPED, True) == (run.state, run.copied)
    assert {*DRAWN, "weights/best.pt", "weights/last.pt"} == set(run.files)
    assert abs(run.times.ended / 1000 - WROTE) < 15 * 3600


@pytest.mark.parametrize("apart", [0.001, 2.0])
def test_a_copied_finished_run_keeps_its_files_and_its_end(tmp_path: Path, apart: float) -> None:
    """A copy is made file by file; what came before args.yaml is not taken for an older training's."""
    path = training(tmp_path / "train")
    before = run_of(path)
    assert all(len(stamp.content) == 16 for stamp in before.files.values())
    renew(path, WROTE + 1e6, apart)
    after = run_of(path, WROTE + 1e6 + 100)
    assert (RunState.FINISHED, set(before.files), ()) == (after.state, set(after.files), after.unfit)
    assert {name: s.content for name, s in before.files.items()} == {
        n: s.content for n, s in after.files.items()
    }
    assert (before.times.at, before.times.ended) == (after.times.at, after.times.ended)


# -- pictures


@pytest.mark.parametrize(("content", "word"), [(b"", "empty"), (JPEG[:-1], "not a whole picture")])
def test_half_written_pictures_are_held_back_and_of_a_dead_run_named(
    tmp_path: Path, content: bytes, word: str
) -> None:
    """A live run will finish them, so nothing is said; of a dead one they stay as they are."""
    path = training(tmp_path / "train", stripped=False)
    put(path / "train_batch2.jpg", content, BEGAN + 8)
    for now, said in ((WROTE + 10, ()), (WROTE + 9999, (f"train_batch2.jpg: {word}",))):
        run = run_of(path, now)
        assert said == run.unfit
        assert {*DRAWN, "weights/best.pt", "weights/last.pt"} - {"train_batch2.jpg"} == set(run.files)


def test_pictures_and_weights_behind_links_are_left_out(tmp_path: Path) -> None:
    """A link may point at anything of the user's; what it points at is not sent."""
    path = training(tmp_path / "train")
    put(tmp_path / "private.jpg", JPEG, WROTE)
    for name in ("val_batch0_pred.jpg", "weights/best.pt"):
        (path / name).unlink()
        (path / name).symlink_to(tmp_path / "private.jpg")
    os.mkfifo(path / "val_batch1_pred.jpg")
    (path / "val_batch2_pred.jpg").mkdir()
    assert {"val_batch0_labels.jpg"} == {name for name in run_of(path).files if name.startswith("val")}
    assert "weights/best.pt" not in run_of(path).files
    moved = path.rename(tmp_path / "elsewhere")
    (moved / "weights").rename(tmp_path / "weights")
    (moved / "weights").symlink_to(tmp_path / "weights")
    assert not any(name.startswith("weights") for name in run_of(moved).files)


def test_thousands_of_pictures_are_bounded_and_always_the_same(tmp_path: Path) -> None:
    """Somebody's own pictures are not looked at, and of those that fit the pattern the first by name are."""
    path = training(tmp_path / "train")
    for number in range(600):
        put(path / f"frame_{number}.png", PNG, ENDED)
        put(path / f"val_frame_{number:04}.jpg", JPEG, ENDED)
    names = [name for name, *_ in listing(path)]
    assert sorted(names) == names
    assert not any(name.startswith("frame") for name in names)
    pictures = [name for name in names if not name.startswith(("weights/", "args", "results.csv"))]
    assert (500, "val_batch0_labels.jpg") == (len(pictures), pictures[7])
    assert {f"val_frame_{number:04}.jpg" for number in range(491)} < set(pictures)


@pytest.mark.parametrize("era", [*ERAS, YOLOV5], ids=lambda era: str(era.since))
def test_whatever_a_release_plots_is_looked_at(tmp_path: Path, era: object) -> None:
    """No rule asks for a picture that the scan leaves out."""
    wanted = {r.pattern.replace("*", "MaskPR") for each in (*ERAS, YOLOV5) if each is era for r in each.plots}
    for name in wanted:
        put(tmp_path / name, PNG, ENDED)
    assert wanted == {name for name, *_ in listing(tmp_path)}


def test_a_file_that_vanishes_while_it_is_listed_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live run replaces its files, and that is no reason to give up on it."""
    path = training(tmp_path / "train")
    genuine = os.scandir

    def scandir(folder: Path) -> object:
        entries = list(genuine(folder))
        (path / "labels.jpg").unlink(missing_ok=True)
        return _Listing(entries)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "labels.jpg" not in {name for name, *_ in listing(path)}
    assert "train_batch0.jpg" in {name for name, *_ in listing(path)}


class _Listing(list["os.DirEntry[str]"]):
    """Directory entries as os.scandir gives them."""

    def __enter__(self) -> _Listing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


# -- input that is bad or bad on purpose


def refused(path: Path, now: float = ENDED) -> str:
    with pytest.raises(RunUnreadable) as caught:
        scan(path, now)
    assert caught.value.hint.endswith(".")
    return str(caught.value)


EXECUTED = "executed"
BOMB = ", ".join(["*{0}"] * 9)
ARGUMENT_BOMBS: Mapping[str, bytes | str] = {
    "empty": "",
    "comment": "# nothing\n",
    "text": "train\n",
    "list": "- 1\n- 2\n",
    "binary": bytes(range(256)) * 40,
    "nul": "name: a\0b\n",
    "broken": "name: [train\nepochs: 3\n",
    "tabs": "name:\n\t- train\n",
    "two-documents": "name: a\n---\nname: b\n",
    "unhashable-key": "? [1, 2]\n: 3\n",
    "python-object": f"name: !!python/object/apply:os.system ['touch {EXECUTED}']\n",
    "python-name": "name: !!python/name:os.system\n",
    "python-tuple": "name: !!python/tuple [1, 2]\n",
    "python-import": "name: !!python/module:antigravity\n",
    "own-tag": "name: !thing {a: 1}\n",
    "binary-tag": "name: !!binary aGVsbG8=\n",
    "set": "name: !!set {a, b}\n",
    "omap": "name: !!omap [a: 1]\n",
    "int-that-is-none": "name: !!int ''\n",
    "bool-that-is-none": "name: !!bool maybe\n",
    "date-that-is-list": "name: !!timestamp [1]\n",
    "text-that-is-dictionary": "name: !!map abc\n",
    "huge-file": "a: " + "x" * 3_000_000 + "\n",
    "huge-number": "a: " + "9" * 5000 + "\n",
    "huge-base-60": "a: 1" + ":1" * 100_000 + "\n",
    "huge-base-60-float": "a: 1" + ":1" * 400 + ".5\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep-dictionaries": "a: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n",
    "deep-block": "".join(" " * n + "a:\n" for n in range(400)),
    "deeper-than-used": "a: " + "[" * 12 + "]" * 12 + "\n",
    "deep-by-aliases": "x: &x0 [1]\n" + "".join(f"x: &x{n} [*x{n - 1}]\n" for n in range(1, 5000)),
    "itself": "a: &a [*a]\n",
    "itself-dictionary": "&a a: &b {b: *b}\n",
    "many-values": "a: [" + "1, " * 30_000 + "1]\n",
    "laughs": "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{BOMB.format(f'a{n - 1}')}]\n" for n in range(1, 9)),
    "merged-laughs": "a0: &a0 {k: v}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{BOMB.format(f'a{n - 1}')}]}}\n" for n in range(1, 9)),
    "long-text-often": f"t: &t {'x' * 100_000}\nl: [{'*t, ' * 10_000}]\n",
    "long-key": f"? {'k' * 300}\n: {{a: 1}}\n",
}


@pytest.mark.parametrize("label", ARGUMENT_BOMBS)
def test_arguments_that_are_not_plain_are_refused(
    label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in args.yaml is executed, multiplied or waited for; the message names the file."""
    monkeypatch.chdir(tmp_path)
    path = training(tmp_path / "train")
    put(path / "args.yaml", ARGUMENT_BOMBS[label], BEGAN)
    began = time.process_time()
    assert refused(path).startswith(str(path / "args.yaml"))
    assert time.process_time() - began < 2
    assert not (tmp_path / EXECUTED).exists()


def test_arguments_of_plain_values_are_read_as_ultralytics_meant_them(tmp_path: Path) -> None:
    """Numbers, text over several lines, lists, aliases; a date is text."""
    text = "a: 1\nb: [1, 2.5, x]\nc: long\n  text\nd: &d {e: null}\nf: *d\ng: 2024-05-01\n1: true\nh: .inf\n"
    path = training(tmp_path / "train")
    put(path / "args.yaml", text, BEGAN)
    plain = {"a": 1, "b": [1, 2.5, "x"], "c": "long text", "d": {"e": None}, "f": {"e": None}}
    assert {**plain, "g": "2024-05-01", "1": True, "h": float("inf")} == run_of(path).args


def test_missing_arguments(tmp_path: Path) -> None:
    """A results.csv alone is a run that has lost its arguments."""
    path = training(tmp_path / "train")
    (path / "args.yaml").unlink()
    assert f"{path / 'args.yaml'} is missing." == refused(path)


@pytest.mark.parametrize("name", ["args.yaml", "results.csv"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    """A link in place of the rows or arguments could point anywhere, and a FIFO would never end."""
    path = training(tmp_path / "train")
    (path / name).rename(tmp_path / "elsewhere")
    match kind:
        case "link":
            (path / name).symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(path / name)
        case "folder":
            (path / name).mkdir()
    assert refused(path).startswith(f"{path / name} cannot be read")


@pytest.mark.parametrize(
    "csv", [b"garbage\n", b"\x89PNG\r\n\x1a\n", b"step,loss\n1,2\n", b"epoch,a,a\n1,2,3\n", b"\n" * 9]
)
def test_results_that_are_no_table_are_refused(tmp_path: Path, csv: bytes) -> None:
    """Whole lines and no header of Ultralytics': somebody must look at it."""
    path = training(tmp_path / "train")
    put(path / "results.csv", csv, WROTE)
    assert refused(path).startswith(f"{path / 'results.csv'} is not a table")


def test_results_beyond_any_training_are_refused(tmp_path: Path) -> None:
    """A sparse terabyte is not read."""
    path = training(tmp_path / "train")
    os.truncate(path / "results.csv", 2**40)
    assert "is larger than" in refused(path)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_directory_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    """It may have been deleted since it was found, or replaced."""
    if kind == "file":
        put(tmp_path / "train", b"", WROTE)
    assert {"missing": "is not there any more", "file": "cannot be listed"}[kind] in refused(
        tmp_path / "train"
    )


@pytest.mark.parametrize("name", ["labels.jpg", "results.png", "weights/best.pt"])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is not half-written, for then it would never be sent, and it keeps nothing else back."""
    path = training(tmp_path / "train")
    whole = run_of(path)
    refuse(monkeypatch, Path(name).name, errno.EACCES)
    run = run_of(path)
    assert ({name: Unreadable("Permission denied")}, whole.state) == (run.places, run.state)
    assert (f"{name}: cannot be read: Permission denied",) == run.unfit
    assert {name} == whole.files.keys() - run.files.keys()
    monkeypatch.undo()
    assert whole.files == run_of(path).files


class _Closed(io.FileIO):
    """A checkpoint that may not be opened."""

    def __init__(self, path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class _Broken(io.FileIO):
    """A checkpoint on a disk that gives its first bytes only."""

    def readinto(self, buffer: object) -> int:
        if self.tell():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(memoryview(buffer)[:512])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "reason"), [(_Closed, "Permission denied"), (_Broken, "Input/output error")]
)
def test_a_checkpoint_that_cannot_be_read_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[io.FileIO], reason: str
) -> None:
    """Of a dead run it is named; of a live one it is needed, for it names the release."""
    path = training(tmp_path / "train", stripped=False)
    monkeypatch.setattr("yolo_clearml.rundir.checkpoint.io.FileIO", kind)
    assert dict.fromkeys(("weights/best.pt", "weights/last.pt"), Unreadable(reason)) == run_of(path).places
    assert f"{path / 'weights/best.pt'} cannot be read: {reason}." == refused(path, WROTE + 10)


def test_a_file_in_place_of_the_weights_is_no_fault(tmp_path: Path) -> None:
    """Then there are no weights."""
    path = training(tmp_path / "train")
    shutil.rmtree(path / "weights")
    put(path / "weights", b"", WROTE)
    assert (None, RunState.FINISHED) == (run_of(path).best, run_of(path).state)
