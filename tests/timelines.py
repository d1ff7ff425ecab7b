"""Recorded trainings, put on disk step by step as a watcher would have seen them grow, and a watch of them.

    golden/timelines/<id>.tar.gz    timeline.json: per step, which files changed, with size and time;
                                   NNN-<event>/: their bytes, where the finished run in golden/<id>.tar.gz
                                   does not hold the very same

**What is substituted.** The recorder kept no checkpoint of the middle of a training but one. The others are
made from the last.pt that the run left: the epoch and the date inside are set to those of the step, and
zeros in a file of their own pad the zip to the size that was recorded. Those that were kept are a little
smaller than what was recorded. Everything else is as it was, byte for byte, with its times.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from conftest import GOLDEN
from uploading import clearml_sink

from yolo_clearml.rundir.finding import Found
from yolo_clearml.sync.agenda import Agenda, follow
from yolo_clearml.sync.ledger import FileLedgers, configuration_stamp
from yolo_clearml.sync.outcomes import Outcome, Progress, Started
from yolo_clearml.sync.work import Lazily, Visit, Work

_SETTLING = 0.31  # seconds; a watch lets a change settle before it looks
_MOST_OUTCOMES = 200  # at a time
_CHECKPOINTS = ("weights/last.pt", "weights/best.pt")


@dataclass(frozen=True, slots=True)
class Change:
    """A file as it was after a step."""

    name: str  # relative to the run
    data: bytes
    at: float  # its modification time, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Step:
    """A moment of a training at which the recorder looked."""

    at: float  # seconds since the epoch
    event: str  # the callback that it looked in
    part: int  # 0; 1 after a resume
    changes: tuple[Change, ...]
    rows: int  # of results.csv, by now
    files: frozenset[str]  # that are there, by now


def _members(name: str) -> dict[str, tuple[bytes, float]]:
    """Read an archive: bytes and modification time by path."""
    with tarfile.open(GOLDEN / name) as archive:
        files = {m: archive.extractfile(m) for m in archive.getmembers()}
        return {m.name: (file.read(), m.mtime) for m, file in files.items() if file is not None}


@functools.cache
def timeline(name: str, gap: float = 0.0) -> tuple[Step, ...]:
    """Give the steps of a recorded training; a resume happens ``gap`` seconds later than it did."""
    stored = _members(f"timelines/{name}.tar.gz")
    run = {path.removeprefix("run/"): file for path, file in _members(f"{name}.tar.gz").items()}
    parts = sorted((path for path in stored if path.endswith("timeline.json")), key=len)
    recorded = [json.loads(stored[path][0]) for path in parts]
    # the run's own file times say when the clock of the last part began
    begins = [run["weights/last.pt"][1] - _last(recorded[-1], "weights/last.pt")["mtime"]]
    for part, later in zip(reversed(recorded[:-1]), reversed(recorded[1:]), strict=True):
        before = next(c for c in later[0]["changed"] if c["file"] == "results.csv")
        begins.insert(0, begins[0] + before["mtime"] - _last(part, "results.csv")["mtime"])
    newest = {c["file"]: id(c) for part in recorded for step in part for c in step["changed"]}
    steps: list[Step] = []
    rows, files = 0, frozenset[str]()
    for number, (path, part, began) in enumerate(zip(parts, recorded, begins, strict=True)):
        shift = began + (gap if number else 0.0)
        for step in part:
            folder = f"{path.removesuffix('timeline.json')}{step['n']:03d}-{step['event']}"
            changes = []
            for change in step["changed"]:
                if change["mtime"] < 0:
                    continue  # it was there before this part
                file, at = change["file"], shift + change["mtime"]
                kept = stored.get(f"{folder}/{file}", run.get(file, (b"",)))[0]
                if file in _CHECKPOINTS and f"{folder}/{file}" not in stored and newest[file] != id(change):
                    kept = _checkpoint(run["weights/last.pt"][0], step["epoch"], at, change["size"])
                assert len(kept) == change["size"] or file in _CHECKPOINTS, (name, step["n"], file)
                changes.append(Change(file, kept, at))
                if file == "results.csv":
                    rows = kept.count(b"\n") - 1
            files |= {change.name for change in changes if change.data}
            steps.append(Step(shift + step["t"], step["event"], number, tuple(changes), rows, files))
    return tuple(steps)


def _last(part: list[Any], file: str) -> Any:
    return [change for step in part for change in step["changed"] if change["file"] == file][-1]


def _checkpoint(of: bytes, epoch: int, at: float, size: int) -> bytes:
    """Make a checkpoint of the middle of a training from one of its end; see the top."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(of)) as there, zipfile.ZipFile(made, "w") as new:
        for name in there.namelist():
            data = there.read(name)
            if name.endswith("/data.pkl"):
                stated = re.search(rb"(?s)(?<=X\x05\x00\x00\x00epochq.)(?:K.|J....)", data)
                assert stated
                data = data[: stated.start()] + b"J" + struct.pack("<i", epoch) + data[stated.end() :]
                date = datetime.fromtimestamp(at - 0.03, timezone.utc).isoformat(timespec="microseconds")
                text = date.removesuffix("+00:00").encode()
                data, dated = re.subn(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", text, data, count=1)
                assert 1 == dated
                padding = name.removesuffix("data.pkl") + "padding"
            new.writestr(zipfile.ZipInfo(name), data)
    with zipfile.ZipFile(made, "a") as new:
        lacking = size - len(made.getvalue()) - 30 - 46 - 2 * len(padding)
        new.writestr(zipfile.ZipInfo(padding), bytes(lacking))
    return made.getvalue()


def looks(name: str) -> tuple[tuple[Step, ...], ...]:
    """Give a recorded training in four parts, for where there is much to do at each of them.

    The first row; the second, with mosaics; the last with its checkpoints, stripped; the end. Of the pictures
    drawn at the end only two are there.
    """
    parts: list[tuple[Step, ...]] = []
    part: list[Step] = []
    ends = ("weights/best.pt", "results.png")
    for step in timeline(name):
        kept = tuple(c for c in step.changes if not c.name.startswith(("labels", "Box", "confusion")))
        part.append(replace(step, changes=kept))
        names = {change.name for change in kept}
        if names.intersection(ends) and (step.rows <= 2 or "results.csv" not in names):
            parts.append(tuple(part))
            part = []
    assert 4 == len(parts)
    return tuple(parts)


def renamed(steps: Sequence[Step], name: str) -> tuple[Step, ...]:
    """Give the same training as another one, of another name in another place."""
    new = []
    for step in steps:
        changes = []
        for change in step.changes:
            data = change.data
            if change.name == "args.yaml":
                data = re.sub(rb"(?m)^(save_dir: .*/|name: )\w+$", rb"\1" + name.encode(), data)
                assert data != change.data
            changes.append(replace(change, data=data))
        new.append(replace(step, changes=tuple(changes)))
    return tuple(new)


def put(step: Step, run: Path) -> None:
    """Put what a step changed on disk, whole and with its times."""
    for change in step.changes:
        file = run / change.name
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name("new.tmp")
        new.write_bytes(change.data)
        os.utime(new, (change.at, change.at))
        new.replace(file)


@dataclass(slots=True)
class Clock:
    """A clock that goes when it is asked to."""

    at: float  # seconds since the epoch
    wrong: float = 0.0  # seconds that somebody has set it forward by; the one that nobody sets goes on

    def __call__(self) -> float:
        return self.at + self.wrong

    def reach(self, at: float) -> None:
        """Go on to a time; never back."""
        self.at = max(self.at, at)


class _Counted(Agenda):
    """An agenda that knows how many visits are under way."""

    under_way = 0

    def due(self) -> Any:
        item = super().due()
        self.under_way += isinstance(item, Visit)
        return item

    def settle(self, outcome: Outcome) -> None:
        super().settle(outcome)
        self.under_way -= not isinstance(outcome, (Started, Progress))

    def forget(self, path: Path) -> None:
        super().forget(path)
        self.under_way -= 1


@dataclass(slots=True)
class Watch:
    """A watch as the command line wires it, but that a test says what happened and what time it is."""

    clock: Clock
    jobs: int = 1
    stale_after: float | None = None
    once: bool = False
    timeout: float = 20.0  # seconds, for the server's answers: a machine may be busy
    asked: list[float] = field(default_factory=list)  # when it tried a server that was away
    ended: bool = False  # by itself
    _stop: threading.Event = field(default_factory=threading.Event)
    _until: float = 0.0
    _agenda: _Counted = field(init=False)
    _work: Work = field(init=False)

    def __post_init__(self) -> None:
        sink = Lazily(lambda: clearml_sink(self.timeout)())  # as it is when a sink is made

        def retry() -> None:
            self.asked.append(self.clock.at)
            sink.renew()

        self._work = Work(
            sink, FileLedgers(), configuration_stamp(), stale_after=self.stale_after, now=self.clock
        )
        # the clock that nobody sets shows another time than the one of files
        self._agenda = _Counted(
            retry, self._stop, self.once, self.clock, lambda: self.clock.at - 1e9, self._rest
        )

    def _rest(self, seconds: float) -> None:
        if self._agenda.under_way:
            threading.Event().wait(0.001)  # real answers to real requests are on their way
        elif self.clock.at + seconds <= self._until:
            self.clock.at += seconds + 1e-6  # or rounding could make it stand still
        else:
            self.clock.reach(self._until)
            self._stop.set()

    def outcomes(self, seconds: float = _SETTLING) -> Iterator[Outcome]:
        """Let so many seconds go by; gives what happens."""
        self._until = self.clock.at + seconds
        count = 0
        for outcome in follow(self._agenda, self._work, self.jobs, self._stop):
            if not isinstance(outcome, (Started, Progress)):
                count += 1
                assert count <= _MOST_OUTCOMES, "it spins"
                yield outcome
        self.ended = not self._stop.is_set()
        self._stop.clear()

    def notice(self, *runs: Found, changed: bool = True) -> None:
        """Let it know that something in a run changed, or that it is there."""
        for run in runs:
            self._agenda.notice(run, changed)

    def see(self, *runs: Path, seconds: float = _SETTLING, changed: bool = True) -> list[Outcome]:
        """Notice runs, and let time go by until they are visited."""
        self.notice(*runs, changed=changed)
        return list(self.outcomes(seconds))


def replayed(
    steps: Sequence[Step], run: Path, clock: Clock, watch: Callable[[int], Watch | None]
) -> Iterator[tuple[int, Step, list[Outcome]]]:
    """Put steps on disk, one by one, each seen by the watch there is then; None: nobody looks."""
    for number, step in enumerate(steps):
        put(step, run)
        clock.reach(step.at)
        there = watch(number)
        yield number, step, there.see(run) if there is not None else []


def digests(folder: Path) -> dict[str, str]:
    """Give the contents of a folder, but for what begins with a dot."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
