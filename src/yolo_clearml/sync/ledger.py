"""What ClearML has acknowledged of a run: one small file, and the lock that it is as well.

    <run>/.yolo-clearml.json           in the run directory, or, where that takes no file,
    <state>/<digest of path>.json      below the user's state directory (YOLO_CLEARML_STATE_DIR)

    {"version": 1,
     "server":  "http://localhost:8008",    whose acknowledgements these are
     "run":     "2f25f2b0...",              the training's own key; another one begins a fresh ledger
     "copy":    "", "anew": false,          kept apart by --new; that it is yet to be delivered
     "task":    "5b1e...", "url": "...",    written before the first event is sent
     "sent":    {"epoch/0": "9c1d...", ...},  report key: digest, written after the acknowledgement
     "settled": "...",                      stamp of the files when nothing was left to do
     "verified": "...",                     the same stamp, once all was read back and found the same
     "configured": "...",                   stamp of the ClearML configuration that named the server
     "wanted":  {"without": ["model"]},     what a person has left out; {}: nothing
     "facts":   {...}}                      for a line of output without looking at the run again

Losing it loses nothing: the task is found again by the run's key, and every event has a fixed id.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from platformdirs import user_state_path

from .. import system
from ..errors import LedgerUnwritable
from ..events import STATUS, Part, Plan, Report
from ..held_file import HeldFile, hold

LEDGER_NAME = ".yolo-clearml.json"
STATE_DIR_VARIABLE = "YOLO_CLEARML_STATE_DIR"
_VERSION = 1
_MOST = 2**23  # bytes; a run of 100,000 epochs, the most there can be, stays below
_NO_PLACE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK),  # a file system without locks
)
HOMELESS = Path(os.devnull) / "yolo-clearml"  # a folder that takes no file; it is said once one is needed
_KEYS = re.compile(r"(CLEARML|TRAINS|ALG)_.*(ACCESS_KEY|SECRET_KEY|TOKEN)")  # variables


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one server has acknowledged of one training."""

    server: str | None = None  # address of the API server
    run: str | None = None  # the run's own key
    copy: str = ""  # keeps it apart from the run's other tasks; "" for the first
    task: str | None = None
    url: str | None = None
    sent: Mapping[str, str] = field(default_factory=dict)  # report key: digest
    settled: str | None = None  # see settled_stamp
    verified: str | None = None  # the value of settled when all was read back and found the same
    configured: str | None = None  # see configuration_stamp
    facts: Mapping[str, Any] = field(default_factory=dict)  # name, state, epochs: for output only
    anew: bool = False  # --new has begun this copy, and it is not delivered yet
    wanted: Mapping[str, Any] = field(default_factory=dict)  # see replay.wanted

    def pending(self, plan: Plan) -> tuple[Report, ...]:
        """Give the wanted reports of ``plan`` that this ledger does not know as sent, in their order.

        Where there is any, the status is among them: to report to a task is to open it again.
        """
        if self.run != plan.key:
            return plan.wanted
        changed = {r.key for r in plan.wanted if self.sent.get(r.key) != r.digest}
        if changed:
            changed.add(STATUS)
        return tuple(report for report in plan.reports if report.key in changed)

    def left_out(self, plan: Plan) -> frozenset[Part]:
        """Give what of ``plan`` is not wanted and was not sent before either."""
        sent = self.sent if self.run == plan.key else {}
        unwanted = (report for report in plan.reports if report.part in plan.unwanted)
        return frozenset(r.part for r in unwanted if r.part and sent.get(r.key) != r.digest)

    def forget(self, reports: Sequence[Report], over: Collection[str] = ()) -> Ledger:
        """Note that these reports are about to be sent, so that what the server has of them is unknown.

        Those with keys in ``over`` keep an empty digest: they are to go over whatever the server has.
        """
        keys = {report.key for report in reports}
        kept = {key: digest for key, digest in self.sent.items() if key not in keys}
        return replace(self, sent={**kept, **dict.fromkeys(sorted(keys & set(over)), "")})

    def acknowledge(self, reports: Sequence[Report]) -> Ledger:
        """Note that the server has these reports."""
        return replace(self, sent={**self.sent, **{report.key: report.digest for report in reports}})


class Held(Protocol):
    """A ledger held by this process alone."""

    ledger: Ledger

    def save(self, ledger: Ledger) -> None:
        """Replace the ledger, durably, before this returns."""


class Ledgers(Protocol):
    """Where ledgers are kept."""

    def load(self, run: Path) -> Ledger:
        """Read the ledger of a run directory; an empty one where there is none or it is damaged."""

    def written(self, run: Path) -> float | None:
        """Give when it was last written, in seconds since the epoch; None where there is none."""

    def hold(self, run: Path) -> contextlib.AbstractContextManager[Held]:
        """Hold the ledger of a run directory; raises RunBusy where another process does."""


def settled_stamp(listing: Sequence[tuple[object, ...]], wishes: str) -> str:
    """Digest all of a run that could give a pass something to do, from its listing alone."""
    return hashlib.sha256(repr((listing, wishes)).encode()).hexdigest()[:32]


def configuration_stamp() -> str:
    """Stamp the ClearML configuration in force, without reading it as the SDK would, which takes a second.

    Equal stamps mean the same server and the same keys, for on one server other keys may be of another
    workspace; different ones that it must be asked for. It reveals no key.
    """
    parts = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.endswith("_API_HOST")]
    for name, value in sorted(os.environ.items()):
        if _KEYS.fullmatch(name):
            parts.append(f"{name}={hashlib.sha256(os.fsencode(value)).hexdigest()}")
    chosen = os.environ.get("CLEARML_CONFIG_FILE") or os.environ.get("TRAINS_CONFIG_FILE")
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        path = Path(chosen or "~/clearml.conf").expanduser()
        status = path.stat()
        parts.append(f"{path}:{status.st_size}:{status.st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class FileLedgers:
    """Ledgers in the run directories, or below the state directory where they take no file."""

    def load(self, run: Path) -> Ledger:
        """Read the newest ledger of a run; reading takes no lock, for a ledger is replaced whole."""
        places = [run / LEDGER_NAME]
        if os.access(state_folder(), os.X_OK):  # it may be in the home of another user
            places.append(_state_path(run))
        found = [read for place in places if (read := _read(place)) is not None]
        return max(found, key=lambda read: read[0])[1] if found else Ledger()

    def written(self, run: Path) -> float | None:
        """Give when the newest ledger of a run was written."""
        newest = max(_written_at(run / LEDGER_NAME), _written_at(_state_path(run)))
        return newest / 1e9 if newest else None

    @contextlib.contextmanager
    def hold(self, run: Path) -> Iterator[Held]:
        """Lock and read; on leaving, a ledger that was never written leaves no file behind."""
        held = _HeldSomewhere(run)
        try:
            held.ledger = self.load(run)  # the run directory may have been unwritable for a while
            yield held
        finally:
            held.close()


class ReadOnlyLedgers(FileLedgers):
    """Ledgers that are read and never written: for a dry run, which touches nothing."""

    @contextlib.contextmanager
    def hold(self, run: Path) -> Iterator[Held]:
        """Give the ledger without a lock; what is saved is forgotten."""
        yield _HeldInMemory(self.load(run))


class NoLedgers:
    """No memory at all: for an export, which is always whole."""

    def load(self, run: Path) -> Ledger:
        """Give an empty ledger."""
        return Ledger()

    def written(self, run: Path) -> float | None:
        """There is none."""
        return None

    @contextlib.contextmanager
    def hold(self, run: Path) -> Iterator[Held]:
        """Give an empty ledger; what is saved is forgotten."""
        yield _HeldInMemory(Ledger())


@dataclass(slots=True)
class _HeldInMemory:
    ledger: Ledger

    def save(self, ledger: Ledger) -> None:
        self.ledger = ledger


class _HeldSomewhere:
    """A ledger in the run directory, or in the state directory from when the run directory takes none.

    That can be in the middle of the work, when its disk is full. The lock in the run directory is then kept,
    for it is what others try first.
    """

    def __init__(self, run: Path) -> None:
        self.ledger = Ledger()
        self._run = run
        self._at_run: HeldFile | None = None
        self._elsewhere: HeldFile | None = None
        try:
            self._at_run = hold(run / LEDGER_NAME)
        except OSError as error:
            self._elsewhere = self._hold_elsewhere(error)

    @cached_property
    def _beside(self) -> Path:
        """Where it is if not in the run directory."""
        return _state_path(self._run)

    def save(self, ledger: Ledger) -> None:
        """Replace the ledger, durably, before this returns."""
        if self._elsewhere is None and self._at_run is not None:
            try:
                self._at_run.save(_written(ledger), _written_at(self._beside))
            except OSError as error:
                self._elsewhere = self._hold_elsewhere(error)
        if self._elsewhere is not None:
            try:
                self._elsewhere.save(_written(ledger), _written_at(self._run / LEDGER_NAME))
            except OSError as error:
                raise _unwritable(self._elsewhere.path, error) from error
            if self._at_run is not None:
                self._at_run.superseded = True
        self.ledger = ledger

    def close(self) -> None:
        """Let go of the locks, and of the files that hold nothing."""
        for held in (self._at_run, self._elsewhere):
            if held is not None:
                held.close()

    def _hold_elsewhere(self, error: OSError) -> HeldFile:
        if error.errno not in _NO_PLACE:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and not self._run.is_dir():
                raise LedgerUnwritable(
                    f"{self._run} is not there any more.", "Run the command again with the path it has now."
                ) from error
            raise _unwritable(self._run / LEDGER_NAME, error) from error
        path = self._beside
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return hold(path)
        except OSError as fault:
            raise _unwritable(path, fault) from fault


_IN_THE_WAY = {errno.EISDIR: "a directory", errno.ELOOP: "a link"}


def _unwritable(path: Path, error: OSError) -> LedgerUnwritable:
    if HOMELESS in path.parents:
        return LedgerUnwritable(
            f"The run directory takes no {LEDGER_NAME}, and this user has no home folder to keep it in.",
            f"Set {STATE_DIR_VARIABLE} to a folder that can be written.",
        )
    if error.errno in _IN_THE_WAY:
        there = error.filename or path
        return LedgerUnwritable(
            f"{there} cannot be written: it is {_IN_THE_WAY[error.errno]}.",
            "Remove it, then run the same command again.",
        )
    return LedgerUnwritable(
        f"{path} cannot be written: {error.strerror}.",
        f"Free some space, or set {STATE_DIR_VARIABLE} to a folder that can be written.",
    )


def state_folder() -> Path:
    """Give the folder of the ledgers that run directories do not take; `HOMELESS` where there is none."""
    return _folder_named(os.environ.get(STATE_DIR_VARIABLE))


@lru_cache
def _folder_named(chosen: str | None) -> Path:
    if chosen:
        return Path(chosen)
    try:
        folder = user_state_path("yolo-clearml")
    except RuntimeError:  # a user without a home, as a bare number has none
        return HOMELESS
    # platformdirs before 4.14 takes a relative HOME, which is another folder from each one that it is run in
    return folder if folder.is_absolute() else HOMELESS


def _state_path(run: Path) -> Path:
    name = hashlib.sha256(os.fsencode(system.true_path(run))).hexdigest()[:32]
    return state_folder() / f"{name}.json"


def _written_at(path: Path) -> int:
    """Give when a file was written, in nanoseconds since the epoch; 0 where there is none."""
    try:
        return system.reach(path).stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def _written(ledger: Ledger) -> bytes:
    fields = {name: getattr(ledger, name) for name in Ledger.__slots__}
    return (json.dumps({"version": _VERSION, **fields}, separators=(",", ":")) + "\n").encode()


def _read(path: Path) -> tuple[int, Ledger] | None:
    """Read a ledger and when it was written, in nanoseconds since the epoch.

    None where there is none; one that is damaged, or of another version, counts as lost.
    """
    try:
        descriptor = system.open_unfollowed(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        with open(descriptor, "rb", closefd=False) as file:
            found = json.loads(file.read(min(status.st_size, _MOST)))
        if not isinstance(found, dict) or found.pop("version", None) != _VERSION:
            return None
        ledger = Ledger(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    finally:
        os.close(descriptor)  # open() leaves it to us where it is that of a directory
    texts = [ledger.server, ledger.run, ledger.task, ledger.url]
    texts += [ledger.settled, ledger.verified, ledger.configured]
    sound = all(text is None or isinstance(text, str) for text in texts) and isinstance(ledger.copy, str)
    sound = sound and isinstance(ledger.anew, bool)
    maps = all(isinstance(held, dict) for held in (ledger.sent, ledger.facts, ledger.wanted))
    if not sound or not maps or not set(map(type, ledger.sent.values())) <= {str}:
        return None
    return status.st_mtime_ns, ledger
