"""How a watch notices that something happened below its roots: the system's own events, and looking.

Events come at once and can be lost, on network mounts altogether, and with watchdog 6 (Python 3.10) from
folders that are moved in from elsewhere; looking misses nothing and costs a stat a run, so both go on
together. What they notice goes to an `Agenda`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
import warnings
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

from .. import system
from ..errors import RunUnreadable
from ..rundir.choice import EVERY_RUN, Choice
from ..rundir.finding import require_folder, run_around, walk
from ..rundir.further import NOTHING, Further
from ..rundir.listing import TUNING_RESULTS, Listed, is_of_a_run, listing
from ..rundir.tuning import is_tuning
from .agenda import Agenda

# of a watch placed twice, or a queue that overflowed: looking makes up for it
warnings.filterwarnings("ignore", module=r"watchdog\.")
logging.getLogger("watchdog").setLevel(logging.CRITICAL)

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
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what inotify answers when it is full


@dataclass(slots=True)
class _Seen:
    """A run as it was when it was last looked at."""

    rows: tuple[int, int] | None  # size and mtime in nanoseconds of results.csv
    files: tuple[Listed, ...]
    quiet: bool = False  # nothing had changed between the last two looks at its files


class Lookout(FileSystemEventHandler):
    """Notifies an agenda of runs that appear and change below some roots; a context manager.

    With ``poll`` it only looks, every so many seconds; otherwise it listens to the system's events and looks
    now and then as well. ``notify`` is called with what a person should know, a sentence. Entering it looks
    for the first time, and raises UsageError where a root does not exist. Should it break, it sets ``stop``,
    and leaving it raises what broke it.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        agenda: Agenda,
        notify: Callable[[str], None],
        stop: threading.Event,
        poll: float | None = None,
        choice: Choice = EVERY_RUN,
        observe: Callable[[], BaseObserver] = Observer,
        follow: Sequence[Path] = (),
        further: Further = NOTHING,
    ) -> None:
        self._choice, self._follow, self._further = choice, follow, further
        self._roots, self._agenda, self._notify, self._poll = _outermost(roots), agenda, notify, poll
        self._stop, self._observe = stop, observe
        self._observer: BaseObserver | None = None
        self._runs: dict[Path, _Seen] = {}
        self._folders: dict[Path, int | None] = {}  # mtime in nanoseconds; None: to be listed again
        self._unlisted: set[Path] = set()  # those of them that could not be, and so may be runs
        self._homes: dict[Path, system.Identity | None] = {}  # what the roots are; None: gone
        self._true = {root: system.true_path(root) for root in self._roots}
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
            self._homes[root] = _identity(root)
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
        self._thread.join(_JOIN)
        self._silence()
        if self._fault is not None and error is None:
            raise self._fault

    # -- listening --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            self._observer = observer = self._observe()
            for root in [root for root, home in self._homes.items() if home is not None]:
                observer.schedule(self, _entered(root), recursive=True, event_filter=_KINDS)
            observer.start()
            require_room(self._observe)
        except OSError as error:
            self._poll_instead(error)

    def _listen_anew(self) -> None:
        if self._observer is not None:
            self._silence()
            self._listen()

    def _poll_instead(self, error: OSError) -> None:
        self._silence()
        self._poll = POLL_EVERY
        full = system.INOTIFY and error.errno in _LIMITS
        why = "the limits of inotify are reached" if full else str(error.strerror or error)
        mend = " Raise fs.inotify.max_user_watches, or _instances, and start again." if system.INOTIFY else ""
        self._notify(
            f"The system does not announce every change ({why}), so they are looked for every"
            f" {POLL_EVERY:.0f} seconds.{mend}"
        )

    def _silence(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            with contextlib.suppress(
                KeyError
            ):  # as in `_reads`; it sleeps then, and what it reports does no harm
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
        path = self._as_given(Path(os.fsdecode(named)))
        if not named or not (folder or self._concerns(path.name)):
            return  # also our own ledger
        with self._lock:
            self._touched[path] = folder or self._touched.get(path, False)
        self._wake.set()

    def _as_given(self, path: Path) -> Path:
        """Write a path below the root that was given: FSEvents announces the true one."""
        if self._root_of(path) is None:
            for root, true in self._true.items():
                if path == true or true in path.parents:
                    return root / path.relative_to(true)
        return path

    def _concerns(self, name: str) -> bool:
        places = (name, f"weights/{name}")
        return any(is_of_a_run(place) or self._further.concerns(place) for place in places)

    # -- looking ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        look_at = time.monotonic()
        try:
            while not self._closing.is_set():
                pause = self._poll or _LOOK_EVERY
                left = look_at + pause - time.monotonic()
                # events without end must not keep it from looking
                if left > 0 and self._wake.wait(left):
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
        gone = {
            path for path, folder in touched.items() if folder and not os.path.lexists(system.reach(path))
        }
        if gone:
            self._drop(gone)
        for place in self._roots:
            if touched.get(place):  # it was deleted, and our watch with it; there may be another one
                if place in gone:
                    self._lose(place)  # one that is back by now may have its very inode
                self._homes[place] = None
                self._look_at_root(place)
                for run, seen in list(self._runs.items()):
                    self._look_at(run, seen, at_files=True)  # what was written while nothing listened
        for path, folder in touched.items():
            root = self._root_of(path)
            if root is None or path in gone:
                continue
            around = run_around(path, root)
            if around is not None:
                if self._choice.takes(around, root):
                    self._found(around, changed=True)
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
                require_room(self._observe)
            except OSError as error:
                if error.errno in _LIMITS:
                    self._poll_instead(error)
        for root in self._roots:
            self._look_at_root(root)
        if self._observer is not None and not _reads(self._observer):
            self._listen_anew()
        for folder, before in list(self._folders.items()):
            if self._closing.is_set():
                return
            if folder not in self._folders:
                continue
            if before is None or every_file or _mtime(folder) != before:
                self._explore(folder)
        open_runs = set(self._agenda.open_runs)
        for run, seen in list(self._runs.items()):
            if self._closing.is_set():
                return
            self._look_at(run, seen, run in open_runs or not seen.quiet or every_file)

    def _look_at_root(self, root: Path) -> None:
        before, home = self._homes[root], _identity(root)
        if home is None:
            self._lose(root)
        elif home != before:
            self._homes[root] = home
            self._listen_anew()
            self._explore(root)

    def _lose(self, root: Path) -> None:
        if self._homes[root] is not None:
            self._homes[root] = None
            self._notify(f"{root} is not there any more; it will be followed again when it is back.")

    def _look_at(self, run: Path, seen: _Seen, at_files: bool) -> None:
        if run not in self._runs:
            return  # since the look began
        rows = _rows_stamp(run)
        if rows is None and run_around(run, run) is None:
            self._drop({run})
            if os.path.lexists(system.reach(run)):
                self._explore(run)  # it is something else now
            return
        files = self._files(run) if at_files or rows != seen.rows else seen.files
        changed = (rows, files) != (seen.rows, seen.files)
        self._runs[run] = _Seen(rows, files, quiet=not changed)
        if changed:
            self._agenda.notice(run, changed=True)

    def _explore(self, place: Path) -> None:
        """Look for runs in a folder and below it, but in those that are known."""
        root = self._root_of(place)
        known = self._runs.keys() - {place}
        for path, folder in walk(place, root or place, self._choice, set(), known):
            if path == folder.found and run_around(path, path) is not None:
                self._found(path, changed=False)
                continue
            if folder.elsewhere:
                self._agenda.notice_elsewhere()
            unlisted = path == folder.found
            if path in self._runs or (path in self._unlisted and not unlisted):
                self._runs.pop(path, None)
                self._unlisted.discard(path)
                self._agenda.forget(path)  # it is no run, or not any more
            self._folders[path] = None if unlisted else _mtime(path)
            if folder.found is not None and path not in self._unlisted:
                self._agenda.notice(folder.found)
            if unlisted:  # for now; whether it stays so is seen again and again
                self._unlisted.add(path)
        if not os.path.lexists(system.reach(place)):
            self._drop({place})

    def _found(self, run: Path, changed: bool) -> None:
        if run not in self._runs:
            if run in self._folders:  # until now
                inside = [folder for folder in self._folders if folder == run or run in folder.parents]
                for folder in inside:
                    del self._folders[folder]
                if not is_tuning(run):  # whose trainings may lie in it; a run in a run is none
                    for known in [known for known in self._runs if run in known.parents]:
                        del self._runs[known]
                        self._agenda.forget(known)
            self._unlisted.discard(run)
            # before the visit: what changes later is then seen to have changed
            self._runs[run] = _Seen(_rows_stamp(run), self._files(run))
        self._agenda.notice(run, changed)

    def _files(self, run: Path) -> tuple[Listed, ...]:
        try:
            return (*listing(run, self._follow), *self._further.listed(run))
        except RunUnreadable:
            return ()  # the visit reports it

    def _root_of(self, path: Path) -> Path | None:
        return next((root for root in self._roots if path == root or root in path.parents), None)

    def _drop(self, gone: set[Path]) -> None:
        """Forget paths that are gone, and everything below them."""
        for known in (self._folders, self._runs):
            for path in [path for path in known if path in gone or not gone.isdisjoint(path.parents)]:
                if path not in self._roots:
                    del known[path]
                self._unlisted.discard(path)
                self._agenda.forget(path)


def require_room(observe: Callable[[], BaseObserver] = Observer) -> None:
    """Raise OSError where inotify takes no more watches: it then lacks some of ours, without a word."""
    if not system.INOTIFY:
        return
    observer = observe()
    try:
        # of what is always there: watchdog 6 keeps files open each time it does not find what to watch
        observer.schedule(FileSystemEventHandler(), os.sep)
        observer.start()
    finally:
        observer.stop()
        if observer.is_alive():
            observer.join()


def _outermost(roots: Sequence[Path]) -> list[Path]:
    """Leave out what lies below another root, or is the same by another name."""
    kept: dict[Path, Path] = {}
    for root in sorted(roots, key=lambda root: len(system.true_path(root).parts)):
        real = system.true_path(root)
        if real not in kept and kept.keys().isdisjoint(real.parents):
            kept[real] = root
    return list(kept.values())


def _entered(root: Path) -> str:
    """Write a root such that inotify follows it if it is a link."""
    return os.path.join(root, "")  # noqa: PTH118  a Path never ends in a slash


def _reads(observer: BaseObserver) -> bool:
    """Check whether an observer still reads what the system announces.

    watchdog can lose count of directories that are moved and deleted at the same time; a KeyError then ends
    its thread that reads inotify, and nothing else would ever notice. From 7 on an observer has one such
    thread, before that each of its emitters has.
    """
    places = [(observer, "_inotify_fd"), *((emitter, "_inotify") for emitter in observer.emitters)]
    readers = [getattr(owner, name, None) for owner, name in places]
    return all(reader.is_alive() for reader in readers if isinstance(reader, threading.Thread))


def _tells_of_rows(path: str) -> bool:
    """Rows are appended; of other files the end of the writing counts, where the system announces it."""
    return not system.INOTIFY or path.endswith(("results.csv", *TUNING_RESULTS))


def _rows_stamp(run: Path) -> tuple[int, int] | None:
    for name in ("results.csv", *TUNING_RESULTS):
        with contextlib.suppress(OSError):
            status = system.reach(run / name).lstat()
            return status.st_size, status.st_mtime_ns
    return None


def _identity(folder: Path) -> system.Identity | None:
    try:
        return system.identity(folder)
    except OSError:
        return None


def _mtime(folder: Path) -> int | None:
    """Nanoseconds since the epoch; None where another change now would not be seen by it."""
    try:
        changed = system.reach(folder).stat().st_mtime_ns
    except OSError:
        return None
    return changed if time.time_ns() - changed > _YOUNG else None
