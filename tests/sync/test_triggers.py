"""How a watch notices that something happened: the system's events, and looking; on real folders."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from test_finding import make
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from yolo_clearml.errors import RunUnreadable, UsageError
from yolo_clearml.events import RunState
from yolo_clearml.rundir.finding import Found, find_runs
from yolo_clearml.rundir.listing import Listed, listing
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync import triggers
from yolo_clearml.sync.agenda import Agenda
from yolo_clearml.sync.ledger import LEDGER_NAME
from yolo_clearml.sync.outcomes import Facts, UpToDate
from yolo_clearml.sync.triggers import Lookout
from yolo_clearml.sync.work import Visit

SOON = 2.0  # seconds, which the issue allows from a row to ClearML
NEW_WATCHDOG = int(version("watchdog").split(".")[0]) >= 7
AT_LAST = 10.0  # seconds; a test that waits longer has failed
RUN = ("args.yaml", "results.csv")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:watchdog.*")  # of watches placed twice
linux = pytest.mark.skipif(sys.platform != "linux", reason="events differ from system to system")


class Told(Agenda):
    """An agenda that remembers what it was notified of, and what a visit would have seen then."""

    def __init__(self) -> None:
        super().__init__(lambda: None, threading.Event())
        self.news = threading.Condition()
        self.told: list[tuple[str, bool]] = []  # name, changed
        self.no_runs: list[tuple[Path, str]] = []
        self.seen: dict[Path, tuple[Listed, ...]] = {}  # runs that are known, as they were when noticed

    def notice(self, found: Found, changed: bool = False) -> None:
        super().notice(found, changed)
        with self.news:
            if isinstance(found, NotARun):
                self.no_runs.append((found.path, found.reason))
            else:
                self.told.append((found.name, changed))
                self.seen[found] = stamps_of(found)
            self.news.notify_all()

    def forget(self, path: Path) -> None:
        super().forget(path)
        with self.news:
            self.seen.pop(path, None)
            self.news.notify_all()

    def comes(self, condition: Callable[[], bool], within: float = AT_LAST) -> bool:
        """Wait until a notice makes it true."""
        with self.news:
            return self.news.wait_for(condition, within)

    def hears_of(self, run: Path, within: float = AT_LAST) -> bool:
        """Wait until a notice of this run was given while its files were as they are now."""
        return self.comes(lambda: run in self.seen and self.seen[run] == stamps_of(run), within)

    def settle_all(self) -> None:
        """Let every run be visited, and have ended."""
        while (item := self.due()) is not None:
            if isinstance(item, Visit):
                self.settle(UpToDate(item.run, Facts(state=RunState.FINISHED), None, None))

    def heard(self) -> list[tuple[str, bool]]:
        """What was noticed since this was asked last."""
        with self.news:
            told, self.told = self.told, []
        return told


def stamps_of(run: Path) -> tuple[Listed, ...]:
    try:
        return listing(run)
    except RunUnreadable:
        return ()


class Silent:
    """An observer of a file system that announces nothing."""

    emitters: Sequence[object] = ()

    def schedule(self, handler: FileSystemEventHandler, path: str, **_: object) -> None:
        if not Path(path).is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def is_alive(self) -> bool:
        return False


class ByHand(Lookout):
    """Looks and heeds when the test says so."""

    def _work(self) -> None:
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@contextmanager
def watching(told: Told, *roots: Path, kind: type[Lookout] = Lookout, **options: Any) -> Iterator[Lookout]:
    """Listen to the real system, unless asked otherwise; a word that is said is a failure."""
    said: list[str] = []
    with kind(list(roots), told, said.append, threading.Event(), **options) as lookout:
        yield lookout
    assert [] == said


@contextmanager
def looking(told: Told, *roots: Path, said: list[str] | None = None, **options: Any) -> Iterator[Lookout]:
    """Look by hand, with a system that announces nothing, unless asked otherwise."""
    options = {"observe": cast(Any, Silent), **options}
    words: list[str] = [] if said is None else said
    with ByHand(list(roots), told, words.append, threading.Event(), **options) as lookout:
        yield lookout
    if said is None:
        assert [] == words


def append(run: Path, text: str = "1,2,3\n") -> None:
    with (run / "results.csv").open("a") as file:
        file.write(text)


def replace_file(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.tmp")
    new.write_text(text)
    new.replace(path)


# -- the system's own events ------------------------------------------------------------------------------


def test_runs_that_are_there_are_found_at_first(tmp_path: Path, told: Told) -> None:
    """At any depth, and what only looks like one is named."""
    make(tmp_path / "a" / "b" / "train", *RUN)
    make(tmp_path / "train2", "args.yaml")
    make(tmp_path / "val", "confusion_matrix.png")
    with watching(told, tmp_path):
        assert [("train", False), ("train2", False)] == sorted(told.heard())
        assert [(tmp_path / "val", "is a validation, not a training")] == told.no_runs


def test_a_new_row_is_noticed_at_once(tmp_path: Path, told: Told) -> None:
    """Each of them, well within the two seconds there are to bring it to ClearML."""
    run = make(tmp_path / "deep" / "down" / "train", *RUN)
    with watching(told, tmp_path):
        for _ in range(5):
            append(run)
            assert told.hears_of(run, SOON / 2)


def test_a_row_is_noticed_though_the_file_stays_open(tmp_path: Path, told: Told) -> None:
    """A training may write all its rows through one handle."""
    run = make(tmp_path / "train", *RUN)
    with watching(told, tmp_path), (run / "results.csv").open("a") as file:
        for _ in range(3):
            file.write("1,2,3\n")
            file.flush()
            assert told.hears_of(run, SOON / 2)


@pytest.mark.parametrize("name", ["results.csv", "args.yaml", "results.png", "weights/last.pt", "val_x.jpg"])
@pytest.mark.parametrize("how", ["write", "replace"])
def test_a_file_written_or_put_in_place_is_noticed(tmp_path: Path, told: Told, name: str, how: str) -> None:
    """Every file with a say in what is reported."""
    run = make(tmp_path / "train", *RUN)
    (run / "weights").mkdir()
    with watching(told, tmp_path):
        if how == "write":
            (run / name).write_text("something new")
        else:
            replace_file(run / name, "something new")
        assert told.hears_of(run)
        (run / name).unlink()
        assert told.hears_of(run) or name == "args.yaml"


def test_a_run_made_deep_and_filled_at_once_is_found(tmp_path: Path, told: Told) -> None:
    """Faster than watches can be placed, again and again; the last of its files counts as well."""
    with watching(told, tmp_path):
        for number in range(20):
            run = tmp_path / f"project{number}" / "a" / "b" / "c" / "train"
            (run / "weights").mkdir(parents=True)
            for name in ("args.yaml", "labels.jpg", "weights/last.pt", "weights/best.pt", "results.csv"):
                (run / name).write_text("x")
            for picture in range(20):
                (run / f"val_batch{picture}.jpg").write_text("x")
        runs = [item for item in find_runs([tmp_path]) if isinstance(item, Path)]
        assert 20 == len(runs)
        for run in runs:
            assert told.hears_of(run)


def test_a_run_that_is_moved_is_followed(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """In from elsewhere, within, and out; rows after each move are noticed at the new place."""
    if not NEW_WATCHDOG:  # it does not listen to what is moved in from elsewhere: the next look notices
        monkeypatch.setattr(triggers, "_LOOK_EVERY", 0.2)
    root = make(tmp_path / "runs")
    run = make(tmp_path / "elsewhere" / "train", *RUN)
    with watching(told, root):
        inside = run.rename(root / "train")
        assert told.hears_of(inside)
        append(inside)
        assert told.hears_of(inside)
        (root / "kept").mkdir()
        within = inside.rename(root / "kept" / "other")
        assert told.hears_of(within)
        append(within)
        assert told.comes(lambda: told.seen == {within: listing(within)})
        within.rename(tmp_path / "out")
        assert told.comes(lambda: told.seen == {})


def test_a_tree_of_runs_that_is_moved_is_followed(tmp_path: Path, told: Told) -> None:
    """All of them at once, and a new one below the new name."""
    for number in range(5):
        make(tmp_path / "old" / "deep" / f"train{number}", *RUN)
    with watching(told, tmp_path):
        (tmp_path / "old").rename(tmp_path / "new")
        runs = [tmp_path / "new" / "deep" / f"train{number}" for number in range(5)]
        assert told.comes(lambda: set(told.seen) == set(runs))
        runs.append(make(tmp_path / "new" / "deep" / "train5", *RUN))
        assert told.hears_of(runs[-1])
        for run in runs:
            append(run)
            assert told.hears_of(run)
        assert set(runs) == set(told.seen)


def test_a_run_that_is_deleted_is_forgotten(tmp_path: Path, told: Told) -> None:
    """Alone or with its folder, and found again when it is back."""
    for name in ("a/train", "a/train2", "b/train3"):
        make(tmp_path / name, *RUN)
    with watching(told, tmp_path):
        shutil.rmtree(tmp_path / "b" / "train3")
        shutil.rmtree(tmp_path / "a")
        assert told.comes(lambda: told.seen == {})
        back = make(tmp_path / "a" / "train", *RUN)
        assert told.hears_of(back)


@linux
def test_what_is_none_of_our_business_is_not_noticed(tmp_path: Path, told: Told) -> None:
    """Our own ledger, other files, reading: a visit for each of them would be a visit for ever."""
    run, last = make(tmp_path / "train", *RUN), make(tmp_path / "train2", *RUN)
    with watching(told, tmp_path):
        told.heard()
        replace_file(run / LEDGER_NAME, "{}")
        (run / "events.out.tfevents.1").write_text("x")
        (run / "notes.txt").write_text("x")
        (tmp_path / "readme.md").write_text("x")
        (tmp_path / "results.png").write_text("x")
        for name in RUN:
            (run / name).read_bytes()
        list(run.iterdir())
        append(last)
        assert told.hears_of(last)
        assert {"train2"} == {name for name, _ in told.heard()}


def test_events_without_end_do_not_keep_it_from_looking(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are lost just when there are many; the look that makes up for it must come."""
    event = FileModifiedEvent(str(make(tmp_path / "train", *RUN) / "results.csv"))
    looked = threading.Event()
    monkeypatch.setattr(triggers, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(triggers, "_BATCH", 0.001)

    class Busy(Lookout):
        def heed(self) -> None:
            super().heed()
            self.on_any_event(event)

        def look(self, waited: float) -> None:
            super().look(waited)
            looked.set()

    with watching(told, tmp_path, kind=Busy, observe=cast(Any, Silent)) as lookout:
        lookout.on_any_event(event)
        assert looked.wait(AT_LAST)


@linux
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_of_events_that_died_is_replaced(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watchdog stumbles over a deleted folder; the next look makes it listen again."""

    def stumble(*_: object) -> None:
        raise KeyError

    make(tmp_path / "a", *RUN), make(tmp_path / "b", *RUN)
    with watching(told, tmp_path, kind=ByHand) as lookout, monkeypatch.context() as patch:
        (emitter,) = vars(lookout._observer)["_emitters"]
        reader: threading.Thread
        if NEW_WATCHDOG:
            reader = vars(lookout._observer)["_inotify_fd"]
            patch.setattr("watchdog.observers.inotify.InotifyWatchGroup.on_watch_deleted", stumble)
            patch.setattr(emitter._inotify, "deactivate", stumble)
        else:
            reader = emitter._inotify
            patch.setattr(reader, "_group_events", stumble)
        shutil.rmtree(tmp_path / "a")
        reader.join(AT_LAST)
        assert not reader.is_alive()
        lookout.look(0.0)
        patch.undo()
        lookout.heed()
        lookout._wake.clear()
        append(tmp_path / "b")
        assert lookout._wake.wait(AT_LAST)
        assert tmp_path / "b" / "results.csv" in lookout._touched


def test_more_events_than_the_queue_holds(tmp_path: Path, told: Told) -> None:
    """What is lost of them, the next looks find."""
    runs = [make(tmp_path / f"train{number}", *RUN, "labels.jpg") for number in range(20)]
    with watching(told, tmp_path, kind=ByHand) as lookout:
        for turn in range(1500):
            for run in runs:
                os.utime(run / "results.csv", ns=(turn, turn))
        for run in runs:
            append(run)
        late = make(tmp_path / "late" / "train", *RUN)
        lookout.heed()
        lookout.look(30)
        assert {run: listing(run) for run in [*runs, late]} == told.seen


# -- looking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poll", [None, 5.0])
def test_a_system_that_announces_nothing(tmp_path: Path, told: Told, poll: float | None) -> None:
    """Looking finds rows, files, new runs at any depth, moves and deletions all the same."""
    run = make(tmp_path / "a" / "train", *RUN)
    with looking(told, tmp_path, poll=poll) as lookout:
        changes: Sequence[Callable[[], object]] = (
            lambda: append(run),
            lambda: replace_file(run / "results.csv", "another"),
            lambda: (run / "labels.jpg").write_text("x"),
            lambda: make(run / "weights", "last.pt"),
            lambda: make(tmp_path / "b" / "c" / "d" / "train2", *RUN),
            lambda: (tmp_path / "b").rename(tmp_path / "e"),
            lambda: shutil.rmtree(tmp_path / "a"),
        )
        for change in changes:
            change()
            lookout.look(5)
            there = [item for item in find_runs([tmp_path]) if isinstance(item, Path)]
            assert {path: listing(path) for path in there} == told.seen


def test_what_did_not_change_is_not_noticed_again(tmp_path: Path, told: Told) -> None:
    """However often it is looked at."""
    make(tmp_path / "a" / "train", *RUN)
    with looking(told, tmp_path) as lookout:
        told.heard()
        for _ in range(30):
            lookout.look(30)
        assert [] == told.heard()


def test_pictures_of_ended_runs_are_looked_at_now_and_then(tmp_path: Path, told: Told) -> None:
    """Within five minutes, though nothing announced them."""
    run = make(tmp_path / "train", *RUN, "results.png")
    with looking(told, tmp_path) as lookout:
        told.settle_all()
        lookout.look(30)
        (run / "results.png").write_text("drawn anew")
        waited = 0
        while told.seen[run] != listing(run):
            lookout.look(30)
            waited += 30
            assert waited <= 300


def test_a_run_that_appears_file_by_file_is_found(tmp_path: Path, told: Told) -> None:
    """Folders first, at another look the arguments, then the rows; then it is a run and nothing else."""
    run = tmp_path / "runs" / "train"
    with looking(told, tmp_path) as lookout:
        (run / "weights").mkdir(parents=True)
        lookout.look(5)
        assert {} == told.seen
        for name in ("args.yaml", "results.csv", "weights/last.pt"):
            (run / name).write_text("x")
            lookout.look(5)
            assert {run: listing(run)} == told.seen
        assert {tmp_path, tmp_path / "runs"} == set(lookout._folders)


def test_a_file_system_whose_times_are_coarse(tmp_path: Path, told: Told) -> None:
    """A folder that changed twice within a second or two may bear the same time after both."""
    now = time.time_ns()
    os.utime(tmp_path, ns=(now, now))
    with looking(told, tmp_path, poll=5.0) as lookout:
        run = make(tmp_path / "train", *RUN)
        os.utime(tmp_path, ns=(now, now))
        lookout.look(5)
        assert {run} == set(told.seen)


class Counted:
    """Calls that go to the disk, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listings = self.stats = 0
        scandir, stat = os.scandir, os.stat

        def counted_scandir(*args: Any) -> Any:
            self.listings += 1
            return scandir(*args)

        monkeypatch.setattr(os, "scandir", counted_scandir)
        for name in ("stat", "lstat"):
            monkeypatch.setattr(os, name, self._counting(getattr(os, name)))
        if sys.version_info < (3, 11):  # there a Path keeps its own
            accessor: Any = vars(pathlib)["_NormalAccessor"]
            monkeypatch.setattr(accessor, "stat", staticmethod(self._counting(stat)))

    def _counting(self, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def stat(*args: Any, **options: Any) -> Any:
            self.stats += 1
            return genuine(*args, **options)

        return stat


def test_polling_costs_a_stat_a_run(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 runs that have ended, with all their files: no folder is listed, nothing but rows looked at."""
    runs = [make(tmp_path / "runs" / f"train{number}", *RUN, "a.jpg", "labels.jpg") for number in range(200)]
    for folder in (tmp_path / "runs", tmp_path):
        os.utime(folder, (1e9, 1e9))
    with looking(told, tmp_path, poll=5.0) as lookout:
        told.settle_all()
        lookout.look(5)
        told.heard()
        counted = Counted(monkeypatch)
        lookout.look(5)
        monkeypatch.undo()
        assert (0, []) == (counted.listings, told.heard())
        assert len(runs) <= counted.stats <= len(runs) + 5
        append(runs[7])
        counted = Counted(monkeypatch)
        lookout.look(5)
        monkeypatch.undo()
        assert ([("train7", True)], 2) == (told.heard(), counted.listings)  # one of them is the test's own


def test_polling_in_its_thread(tmp_path: Path, told: Told) -> None:
    """As --poll does it; nothing is listened to."""

    def observe() -> Any:
        raise AssertionError("it is only to look")

    run = make(tmp_path / "train", *RUN)
    with watching(told, tmp_path, poll=0.01, observe=observe):
        append(run)
        assert told.hears_of(run)
        late = make(tmp_path / "a" / "b" / "train", *RUN)
        assert told.hears_of(late)


# -- limits -----------------------------------------------------------------------------------------------


class Limited:
    """Observers the system grants until the nth, which fails when it is made or when it starts."""

    def __init__(self, good: int, where: str, number: int) -> None:
        self.good, self.where, self.number = good, where, number
        self.running = 0

    def __call__(self) -> Any:
        limited, self.good = self, self.good - 1
        fails = self.good < 0

        def check(where: str) -> None:
            if fails and where == limited.where:
                raise OSError(limited.number, os.strerror(limited.number))

        class Observer(Silent):
            alive = False

            def start(self) -> None:
                check("start")
                self.alive, limited.running = True, limited.running + 1

            def stop(self) -> None:
                limited.running -= self.alive
                self.alive = False

        check("made")
        return Observer()


@linux
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("where", ["made", "start"])
@pytest.mark.parametrize("good", [0, 1, 2, 3])
def test_the_limits_of_inotify_are_named_once_and_polling_goes_on(
    tmp_path: Path, told: Told, number: int, where: str, good: int
) -> None:
    """At the start, or when it turns out later that a watch is lacking; with what to do about it."""
    run, said = make(tmp_path / "train", *RUN), list[str]()
    limited = Limited(good, where, number)
    with looking(told, tmp_path, said=said, observe=limited) as lookout:
        for turn in range(4):
            append(run)
            late = make(tmp_path / f"new{turn}" / "train", *RUN)
            lookout.look(5)
            assert {run, late} <= {path for path in told.seen if told.seen[path] == listing(path)}
        assert 0 == limited.running
    assert ["The system does not announce every change (the limits of inotify are reached)"] == [
        text.split(",")[0] for text in said
    ]
    assert "fs.inotify.max_user_watches" in said[0]


@linux
def test_after_the_limits_its_thread_polls(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, every few seconds instead of every half minute."""
    monkeypatch.setattr(triggers, "POLL_EVERY", 0.01)
    run, said = make(tmp_path / "train", *RUN), list[str]()
    observe = Limited(0, "start", errno.ENOSPC)
    with Lookout([tmp_path], told, said.append, threading.Event(), observe=cast(Any, observe)):
        append(run)
        assert told.hears_of(run)
    assert 1 == len(said)


# -- events that are odd ----------------------------------------------------------------------------------


def test_a_system_that_announces_twice_and_in_odd_order(tmp_path: Path, told: Told) -> None:
    """Deletions before creations, moves from nowhere, files before their folders: the disk decides."""
    run = make(tmp_path / "a" / "train", *RUN)
    with looking(told, tmp_path) as lookout:
        append(run)
        for _ in range(2):
            lookout.on_any_event(DirDeletedEvent(str(run)))
            lookout.on_any_event(FileModifiedEvent(str(run / "results.csv")))
            lookout.on_any_event(DirMovedEvent(str(tmp_path / "never"), str(run)))
            lookout.on_any_event(DirCreatedEvent(str(tmp_path / "a")))
            lookout.on_any_event(DirMovedEvent(str(tmp_path / "elsewhere"), ""))
            lookout.on_any_event(FileCreatedEvent(str(tmp_path.parent / "outside" / "results.csv")))
            lookout.heed()
        assert {run: listing(run)} == told.seen
        lookout.on_any_event(DirCreatedEvent(str(run)))
        lookout.on_any_event(DirDeletedEvent(str(run)))
        shutil.rmtree(run)
        lookout.heed()
        assert {} == told.seen


def test_names_that_are_no_text(tmp_path: Path, told: Told) -> None:
    """Bytes that no encoding has, which inotify hands on as they are."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    run = make(Path(folder) / "tr\nain", *RUN)
    with watching(told, tmp_path):
        append(run)
        assert told.hears_of(run)


# -- roots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_cannot_be_meant_is_a_wrong_usage(tmp_path: Path, told: Told, kind: str) -> None:
    """Before anything is begun."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=str(tmp_path / kind)), looking(told, tmp_path / kind):
        pass


def test_a_root_that_is_a_run(tmp_path: Path, told: Told) -> None:
    """It is followed, deleted, and followed again when it is back."""
    run, said = make(tmp_path / "train", *RUN), list[str]()
    with Lookout([run], told, said.append, threading.Event()):
        append(run)
        assert told.hears_of(run)
        shutil.rmtree(run)
        assert told.comes(lambda: told.seen == {})
    make(run, *RUN)
    with looking(told, run, said=said) as by_hand:
        shutil.rmtree(run)
        by_hand.look(5)
        make(run, "args.yaml")
        by_hand.look(5)
        assert {run: listing(run)} == told.seen


def test_a_root_given_through_a_link(tmp_path: Path, told: Told) -> None:
    """The link is followed, and runs are called by it; also those that are new in it."""
    make(tmp_path / "disk" / "train", *RUN)
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    with watching(told, tmp_path / "runs"):
        for name in ("train", "train2", "a/train3"):
            run = tmp_path / "runs" / name
            if not run.exists():
                make(run, *RUN)
            append(run)
            assert told.hears_of(run)


def test_a_root_given_as_one_types_it(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to where one is, or simply here."""
    monkeypatch.chdir(make(tmp_path / "here"))
    for root in (Path(), Path("."), Path("../here")):
        run = make(root / f"train{len(told.seen)}", *RUN)
        with watching(told, root):
            append(run)
            assert told.hears_of(run)


def test_links_inside_lead_nowhere(tmp_path: Path, told: Told) -> None:
    """Neither by listening nor by looking, whenever they appear."""
    root, run = make(tmp_path / "root"), make(tmp_path / "elsewhere" / "train", *RUN)
    (root / "before").symlink_to(tmp_path / "elsewhere")
    with watching(told, root):
        (root / "circle").symlink_to(root)
        (root / "after").symlink_to(tmp_path / "elsewhere")
        append(run)
        last = make(root / "train", *RUN)
        assert told.hears_of(last)
    with looking(told, root) as lookout:
        lookout.look(300)
    assert {last} == set(told.seen)


def test_roots_that_overlap_are_one(tmp_path: Path, told: Told) -> None:
    """A root in another, or twice, or by a link: every run is known by one name."""
    run = make(tmp_path / "runs" / "detect" / "train", *RUN)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    roots = [tmp_path / "runs" / "detect", tmp_path / "runs", tmp_path / "link", tmp_path / "runs"]
    with looking(told, *roots) as lookout:
        assert [("train", False)] == told.heard()
        append(run)
        lookout.look(5)
        assert [("train", True)] == told.heard()
        assert {run} == set(told.seen)


def test_a_root_that_vanishes_and_comes_back(tmp_path: Path, told: Told) -> None:
    """It is said once, its runs are forgotten, and all is found when it is back; with another beside it."""
    first, other, said = tmp_path / "a", make(tmp_path / "b"), list[str]()
    for _ in range(2):
        make(first / "deep" / "train", *RUN)
        with looking(told, first, other, said=said) as lookout:
            shutil.rmtree(first)
            for _ in range(3):
                lookout.look(30)
            beside = make(other / f"train{len(said)}", *RUN)
            lookout.look(30)
            assert beside in told.seen
            assert first / "deep" / "train" not in told.seen
            run = make(first / "new" / "train", *RUN)
            lookout.look(30)
            assert {run: listing(run)}.items() <= told.seen.items()
            shutil.rmtree(first)
    gone = f"{first} is not there any more; it will be followed again when it is back."
    assert [gone] * 2 == said


@linux
@pytest.mark.parametrize("how", ["deleted", "moved", "deleted and made at once"])
def test_a_root_that_is_back_is_listened_to_again(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The watch on the old one is lost with it; the limits of inotify are not to blame."""
    root, said = tmp_path / "root", list[str]()
    make(root / "train", *RUN)
    monkeypatch.setattr(triggers, "_LOOK_EVERY", 0.05)
    with Lookout([root], told, said.append, threading.Event()):
        if how == "moved":
            root.rename(tmp_path / "away")
        else:
            shutil.rmtree(root)
        if how != "deleted and made at once":
            assert told.comes(lambda: told.seen == {})
        make(root / "train2", *RUN)
        assert told.hears_of(root / "train2")
        monkeypatch.setattr(triggers, "_LOOK_EVERY", 1e6)
        for name in ("train3", "a/train4", "b/train5"):
            run = make(root / name, *RUN)
            assert told.hears_of(run)
            append(run)
            assert told.hears_of(run)
    assert [] == [text for text in said if "inotify" in text]


# -- what goes wrong --------------------------------------------------------------------------------------


class Unlisted:
    """A folder that cannot be listed for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.folders: set[Path] = set()
        genuine = os.scandir

        def scandir(folder: Any) -> Any:
            if Path(folder) in self.folders:
                raise OSError(number, os.strerror(number))
            return genuine(folder)

        monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_for_a_while(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is named, once, as what may be a run, and then it is a folder again in which runs are found."""
    folder = make(tmp_path / "folder")
    run = make(folder / "train", *RUN)
    unlisted = Unlisted(monkeypatch, number)
    with looking(told, tmp_path, poll=5.0) as lookout:
        unlisted.folders |= {folder}
        make(folder / "new", *RUN)
        told.heard()
        for _ in range(3):
            lookout.look(300)
        assert [("folder", False)] == told.heard()
        append(run)
        lookout.look(5)
        assert [("train", True)] == told.heard()
        unlisted.folders.clear()
        lookout.look(5)
        assert {run, folder / "new"} == set(told.seen)
        late = make(folder / "late", *RUN)
        lookout.look(5)
        assert late in told.seen


def test_a_run_that_turns_into_something_else(tmp_path: Path, told: Told) -> None:
    """Emptied, it is no run any more; a folder in its place is searched."""
    run = make(tmp_path / "train", *RUN)
    os.utime(tmp_path, (1e9, 1e9))
    with looking(told, tmp_path) as lookout:
        for name in RUN:
            (run / name).unlink()
        lookout.look(5)
        assert {} == told.seen
        inner = make(run / "inner", *RUN)
        lookout.look(5)
        assert {inner} == set(told.seen)


def test_a_fault_of_its_own_ends_the_watch(tmp_path: Path) -> None:
    """It is raised where the watch ends, which is at once; nobody waits for what will never be noticed."""

    class Broken(Told):
        @property
        def open_runs(self) -> list[Path]:
            raise ZeroDivisionError("a fault")

    stop = threading.Event()
    with (
        pytest.raises(ZeroDivisionError, match="a fault"),
        Lookout([tmp_path], Broken(), lambda _: None, stop, poll=0.01),
    ):
        assert stop.wait(AT_LAST)


def test_a_fault_of_the_watch_is_not_hidden_by_one_of_its_own(tmp_path: Path) -> None:
    """What was raised inside stays what is raised."""

    class Broken(Told):
        @property
        def open_runs(self) -> list[Path]:
            raise ZeroDivisionError("a fault")

    stop = threading.Event()
    with pytest.raises(KeyError), Lookout([tmp_path], Broken(), lambda _: None, stop, poll=0.01):
        assert stop.wait(AT_LAST)
        raise KeyError("another")


@linux
def test_nothing_is_left_behind(tmp_path: Path, told: Told) -> None:
    """No thread and no open file, also after looks that found a root gone."""
    root = make(tmp_path / "root")
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    said: list[str] = []
    with Lookout([root], told, said.append, threading.Event()):
        pass
    with ByHand([root], told, said.append, threading.Event()) as lookout:
        root.rmdir()
        for _ in range(5):
            lookout.look(30)
    assert (threads, files) == (threading.active_count(), len(os.listdir("/proc/self/fd")))


# -- anything in any order --------------------------------------------------------------------------------

FOLDERS = ["", "x", "x/y", "z"]
NAMES = ["train", "train2"]
ANNOUNCED = st.sampled_from(["not at all", "once", "in part", "twice and backwards"])


class AnyActions(RuleBasedStateMachine):
    """A watch on a real folder, with events that come, or come not, or twice, against a fresh search."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.told, self.at = Told(), 1_000_000_000
        self.lookout = ByHand(
            [self.root], self.told, pytest.fail, threading.Event(), observe=cast(Any, Silent)
        )
        self.lookout.__enter__()

    def runs(self) -> list[Path]:
        return [item for item in find_runs([self.root]) if isinstance(item, Path)]

    def write(self, path: Path, text: str) -> None:
        """Write a file at a time of its own, whatever the grain of the clock."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.at += 1
        os.utime(path, ns=(self.at, self.at))

    def announce(self, how: str, *events: FileSystemEvent) -> None:
        chosen: Sequence[FileSystemEvent] = events
        if how == "not at all":
            chosen = ()
        elif how == "in part":
            chosen = events[1:]
        elif how == "twice and backwards":
            chosen = [*events[::-1], *events[::-1]]
        for event in chosen:
            self.lookout.on_any_event(event)

    @rule(folder=st.sampled_from(FOLDERS), name=st.sampled_from(NAMES), how=ANNOUNCED, whole=st.booleans())
    def create(self, folder: str, name: str, how: str, whole: bool) -> None:
        run = self.root / folder / name
        for file in ("weights/last.pt", *(RUN if whole else ())):
            self.write(run / file, "x")
        self.announce(
            how,
            DirCreatedEvent(str(run)),
            FileCreatedEvent(str(run / "args.yaml")),
            FileClosedEvent(str(run / "results.csv")),
        )

    @precondition(lambda self: self.runs())
    @rule(
        data=st.data(),
        how=ANNOUNCED,
        name=st.sampled_from(["results.csv", "labels.jpg", "weights/last.pt", "results.png"]),
    )
    def rewrite(self, data: st.DataObject, how: str, name: str) -> None:
        run = data.draw(st.sampled_from(self.runs()))
        self.write(run / name, "another")
        path = str(run / name)
        self.announce(how, FileModifiedEvent(path), FileClosedEvent(path))

    @precondition(lambda self: self.runs())
    @rule(data=st.data(), how=ANNOUNCED)
    def append(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from(self.runs()))
        append(run)
        self.announce(how, FileModifiedEvent(str(run / "results.csv")))

    @precondition(lambda self: self.runs())
    @rule(data=st.data(), how=ANNOUNCED)
    def put_in_place(self, data: st.DataObject, how: str) -> None:
        path = data.draw(st.sampled_from(self.runs())) / "results.csv"
        self.write(path.with_suffix(".tmp"), "a whole new table")
        path.with_suffix(".tmp").replace(path)
        self.announce(how, FileMovedEvent(str(path.with_suffix(".tmp")), str(path)))

    @precondition(lambda self: self.runs())
    @rule(data=st.data(), how=ANNOUNCED, name=st.sampled_from(RUN))
    def lose_a_file(self, data: st.DataObject, how: str, name: str) -> None:
        path = data.draw(st.sampled_from(self.runs())) / name
        path.unlink(missing_ok=True)
        self.announce(how, FileModifiedEvent(str(path)))

    @rule(data=st.data(), to=st.sampled_from(["x", "w", "z/v", "train9"]), how=ANNOUNCED)
    def move(self, data: st.DataObject, to: str, how: str) -> None:
        """Move a run, or a folder with all that is in it."""
        places = sorted(p for p in self.root.rglob("*") if p.is_dir() and p.name != "weights")
        target = self.root / to
        if not places or target.exists():
            return
        source = data.draw(st.sampled_from(places))
        if source == target or source in target.parents or any(run in target.parents for run in self.runs()):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        self.announce(how, DirMovedEvent(str(source), str(target)))

    @rule(data=st.data(), how=ANNOUNCED)
    def delete(self, data: st.DataObject, how: str) -> None:
        places = sorted(p for p in self.root.rglob("*") if p.is_dir())
        if places:
            place = data.draw(st.sampled_from(places))
            shutil.rmtree(place)
            self.announce(how, DirDeletedEvent(str(place)))

    @rule()
    def heed(self) -> None:
        self.lookout.heed()

    @rule(waited=st.sampled_from([5.0, 300.0]))
    def look(self, waited: float) -> None:
        self.lookout.look(waited)
        self.told.settle_all()

    @rule()
    def all_quiet(self) -> None:
        """Every run is known as it is now, and no other."""
        self.lookout.heed()
        self.lookout.look(300)
        assert {run: listing(run) for run in self.runs()} == self.told.seen
        assert set(self.runs()) == set(self.told.open_runs) | set(self.told._runs)

    def teardown(self) -> None:
        self.all_quiet()
        self.lookout.__exit__(None, None, None)
        self.folder.cleanup()


def test_a_folder_of_runs_that_becomes_a_run_itself() -> None:
    """A run in a run is none: what was known below it is forgotten, though nobody announced a thing."""
    state = AnyActions()
    try:
        state.create("x", "train", "not at all", True)
        state.all_quiet()
        (state.root / "x").rename(state.root / "w")
        (state.root / "w" / "train").rename(state.root / "x")
        state.create("x", "train", "not at all", True)
        state.all_quiet()
    finally:
        state.lookout.__exit__(None, None, None)
        state.folder.cleanup()


AnyActions.TestCase.settings = settings(stateful_step_count=25)
TestAnyActions = AnyActions.TestCase
