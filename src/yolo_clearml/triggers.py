"""What tells a watch that something happened below its roots: the system's own events, and looking.

Events come at once and can be lost, on network mounts altogether; looking misses nothing and costs a stat a
run, so both go on together. What they notice goes to an `Agenda`.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from .agenda import Agenda
from .errors import RunUnreadable
from .events import FileStamp
from .finding import require_folder, run_around, walk
from .scan import is_of_a_run, stamps

POLL_EVERY = 5.0  # seconds, without events
_LOOK_EVERY = 30.0  # seconds, beside them
_LIST_EVERY = 300.0  # seconds; then the files of every run are looked at, not its results.csv alone
_BATCH = 0.05  # seconds; one save makes dozens of events
_JOIN = 2.0  # seconds; a look can hang on a dead network mount
_YOUNG = 2_000_000_000  # nanoseconds; a folder changed so lately may change again within its mtime's grain
_KINDS: list[type[FileSystemEvent]] = [
    *(DirCreatedEvent, DirDeletedEvent, DirMovedEvent),
    *(FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent),
]
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what inotify says when it is full


@dataclass(slots=True)
class _Seen:
    """A run as it was when it was last looked at."""

    rows: tuple[int, int] | None  # size and mtime in nanoseconds of results.csv
    files: tuple[FileStamp, ...]
    quiet: bool = False  # nothing had changed between the last two looks at its files


class Lookout(FileSystemEventHandler):
    """Tells an agenda of runs that appear and change below some roots; a context manager.

    With ``poll`` it only looks, every so many seconds; otherwise it listens to the system's events and looks
    now and then as well. ``say`` is told, in a sentence, what a person should know. Entering it looks for the
    first time, and raises UsageError where a root does not exist. Should it break, it sets ``stop``, and
    leaving it raises what broke it.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        agenda: Agenda,
        say: Callable[[str], None],
        stop: threading.Event,
        poll: float | None = None,
        observe: Callable[[], BaseObserver] = Observer,
    ) -> None:
        self._roots, self._agenda, self._say, self._poll = _outermost(roots), agenda, say, poll
        self._stop, self._observe = stop, observe
        self._observer: BaseObserver | None = None
        self._runs: dict[Path, _Seen] = {}
        self._folders: dict[Path, int | None] = {}  # mtime in nanoseconds; None: to be listed again
        self._gone: set[Path] = set()  # roots
        self._touched: dict[Path, bool] = {}  # path: a folder whose inside is unknown
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lookout", daemon=True)
        self._list_in = _LIST_EVERY  # seconds until the next look at all files
        self._fault: Exception | None = None

    def __enter__(self) -> Lookout:
        for root in self._roots:
            require_folder(root)
        if self._poll is None:
            self._listen()  # before the first look: what happens in between is then announced
        for root in self._roots:
            self._explore(root)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._wake.set()
        self._silence()
        self._thread.join(_JOIN)
        if self._fault is not None and error is None:
            raise self._fault

    # -- listening --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            self._observer = observer = self._observe()
            for root in self._roots:
                observer.schedule(self, str(root), recursive=True, event_filter=_KINDS)
            observer.start()
            self._require_room()
        except OSError as error:
            self._poll_instead(error)

    def _require_room(self) -> None:
        """Raise OSError where inotify takes no more watches: it then lacks some of ours, without a word."""
        if sys.platform != "linux":
            return
        observer = self._observe()
        observer.schedule(FileSystemEventHandler(), str(self._roots[0]))
        observer.start()
        observer.stop()
        observer.join()

    def _poll_instead(self, error: OSError) -> None:
        self._silence()
        self._poll = POLL_EVERY
        why = "the limits of inotify are reached" if error.errno in _LIMITS else str(error.strerror or error)
        self._say(
            f"The system does not announce every change ({why}), so they are looked for every"
            f" {POLL_EVERY:.0f} seconds. Raise fs.inotify.max_user_watches, or _instances, and start again."
        )

    def _silence(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join(_JOIN)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note which paths an event is about; called by watchdog's thread."""
        if event.is_directory:
            self._touch(event.src_path, True)
            self._touch(event.dest_path, True)
        elif not isinstance(event, FileModifiedEvent) or _tells_of_rows(os.fsdecode(event.src_path)):
            self._touch(event.src_path, False)
            self._touch(event.dest_path, False)

    def _touch(self, named: bytes | str, folder: bool) -> None:
        path = Path(os.fsdecode(named))
        if not named or not (folder or is_of_a_run(path.name) or is_of_a_run(f"weights/{path.name}")):
            return  # also our own ledger
        with self._lock:
            self._touched[path] = folder or self._touched.get(path, False)
        self._wake.set()

    # -- looking ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        look_at = time.monotonic()
        try:
            while not self._closing.is_set():
                pause = self._poll or _LOOK_EVERY
                if self._wake.wait(max(0.0, look_at + pause - time.monotonic())):
                    self._closing.wait(_BATCH)
                    self._wake.clear()
                    self.heed()
                else:
                    self.look(pause)
                    look_at = time.monotonic()
        except Exception as fault:  # noqa: BLE001  raised where the watch ends, which is now
            self._fault = fault
            self._stop.set()

    def heed(self) -> None:
        """Work through what events have touched."""
        with self._lock:
            touched, self._touched = self._touched, {}
        gone = {path for path, folder in touched.items() if folder and not os.path.lexists(path)}
        if gone:
            self._drop(gone)
        for path, folder in touched.items():
            root = next((root for root in self._roots if path == root or root in path.parents), None)
            if root is None or path in gone:
                continue
            run = run_around(path, root)
            if run is not None:
                self._found(run, changed=True)
            elif folder:
                self._explore(path)

    def look(self, waited: float) -> None:
        """Look for what changed since the last look, ``waited`` seconds ago."""
        self._list_in -= waited
        every_file = self._list_in <= 0
        if every_file:
            self._list_in = _LIST_EVERY
        if self._observer is not None:
            try:
                self._require_room()
            except OSError as error:
                self._poll_instead(error)
        for root in self._roots:
            self._look_at_root(root)
        for folder, before in list(self._folders.items()):
            if self._closing.is_set():
                return
            if before is None or every_file or _mtime(folder) != before:
                self._explore(folder)
        open_runs = set(self._agenda.open_runs)
        for run, seen in list(self._runs.items()):
            if self._closing.is_set():
                return
            self._look_at(run, seen, run in open_runs or not seen.quiet or every_file)

    def _look_at_root(self, root: Path) -> None:
        there = os.path.lexists(root)
        if not there and root not in self._gone:
            self._gone.add(root)
            self._say(f"{root} is not there any more; it will be followed again when it is back.")
        elif there and root in self._gone:
            self._gone.discard(root)
            self._explore(root)

    def _look_at(self, run: Path, seen: _Seen, at_files: bool) -> None:
        rows = _rows_stamp(run)
        if rows is None and not os.path.lexists(run):
            self._drop({run})
            return
        files = _stamps(run) if at_files or rows != seen.rows else seen.files
        changed = (rows, files) != (seen.rows, seen.files)
        self._runs[run] = _Seen(rows, files, quiet=not changed)
        if changed:
            self._agenda.notice(run, changed=True)

    def _explore(self, place: Path) -> None:
        """Look for runs in a folder and below it, but in those that are known."""
        for path, folder in walk(place, set(), known=self._runs.keys() - {place}):
            if isinstance(folder.found, Path):
                self._folders.pop(path, None)
                self._found(path, changed=False)
            else:
                self._folders[path] = _mtime(path)
                if folder.found is not None:
                    self._agenda.notice(folder.found)
        if not os.path.lexists(place):
            self._drop({place})

    def _found(self, run: Path, changed: bool) -> None:
        if run not in self._runs:
            # before the visit: what changes later is then seen to have changed
            self._runs[run] = _Seen(_rows_stamp(run), _stamps(run))
        self._agenda.notice(run, changed)

    def _drop(self, gone: set[Path]) -> None:
        """Forget paths that are gone, and everything below them."""
        for known in (self._folders, self._runs):
            for path in [path for path in known if path in gone or not gone.isdisjoint(path.parents)]:
                if path not in self._roots:
                    del known[path]
                self._agenda.forget(path)


def _outermost(roots: Sequence[Path]) -> list[Path]:
    """Leave out what lies below another root, or is the same by another name."""
    kept: dict[Path, Path] = {}
    for root in sorted(roots, key=lambda root: len(root.resolve().parts)):
        real = root.resolve()
        if real not in kept and kept.keys().isdisjoint(real.parents):
            kept[real] = root
    return list(kept.values())


def _tells_of_rows(path: str) -> bool:
    """Rows are appended; of other files the end of the writing counts, where the system announces it."""
    return sys.platform != "linux" or path.endswith("results.csv")


def _rows_stamp(run: Path) -> tuple[int, int] | None:
    try:
        status = (run / "results.csv").lstat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _stamps(run: Path) -> tuple[FileStamp, ...]:
    try:
        return stamps(run)
    except RunUnreadable:
        return ()  # the visit tells


def _mtime(folder: Path) -> int | None:
    """Nanoseconds since the epoch; None where another change now would not be seen by it."""
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return None
    return changed if time.time_ns() - changed > _YOUNG else None
