"""What is found when the surroundings are looked into: the releases, the folders, the system's limits.

A check is a line: what was looked at, how it stands, and what to do about it. Those of the server's side are
made in `server.diagnosis`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .. import system
from ..errors import Exit, LedgerUnwritable, OurFault, RunBusy, UsageError, YoloClearmlError, public
from ..rundir.finding import find_runs
from ..rundir.places import unreadable
from ..rundir.run import NotARun
from ..rundir.scan import scan
from .ledger import HOMELESS, LEDGER_NAME, STATE_DIR_VARIABLE, FileLedgers, state_folder

_OLDEST_SDK = (2, 1, 5)  # clearml that pyproject.toml takes
_MOST_NAMED = 3  # runs in a sentence
_LIMITS = Path("/proc/sys/fs/inotify")


class Finding(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked into; neither sentence holds a key, a token or a password."""

    name: str  # "API server"
    finding: Finding
    text: str
    hint: str = ""  # what to do next; "" where there is nothing to do
    status: Exit = Exit.OK  # of the command line, if nothing else is wrong


def fine(name: str, text: str) -> Check:
    """Give a check of something that is as it should be."""
    return Check(name, Finding.OK, public(text))


def warning(name: str, text: str, hint: str) -> Check:
    """Give a check of something that works, but not as a person may expect."""
    return Check(name, Finding.WARNING, public(text), public(hint))


def failed(name: str, error: YoloClearmlError) -> Check:
    """Give a check of something that runs would fail over, with the status that they would end with."""
    return Check(name, Finding.FAILED, str(error), error.hint, error.status)


def not_checked(name: str, reason: str) -> Check:
    """Give a check that was not made, with the sentence why."""
    return Check(name, Finding.NOT_CHECKED, reason)


def releases(ours: str) -> Check:
    """Name the releases of what is at work."""
    from importlib import metadata

    python = system.described()
    try:
        sdk = metadata.version("clearml")
    except metadata.PackageNotFoundError:
        text = f"yolo-clearml {ours}, {python}, and a clearml that pip knows nothing of."
        return warning("releases", text, "Install it with pip: pip install clearml")
    text = f"yolo-clearml {ours}, clearml {sdk}, {python}."
    if tuple(int(part) for part in sdk.split(".")[:3] if part.isdigit()) < _OLDEST_SDK:
        oldest = ".".join(map(str, _OLDEST_SDK))
        return warning("releases", text, f"Update clearml to {oldest} or later: pip install -U clearml")
    return fine("releases", text)


def surroundings(paths: Sequence[Path], follow: Sequence[Path]) -> Iterator[Check]:
    """Check what is on this machine: where ledgers go, the runs at or below ``paths``, inotify's limits.

    ``follow`` are the real paths of folders that links in a run may lead into.
    """
    yield _state_directory()
    for path in paths:
        yield _runs(path, follow)
    if system.INOTIFY and _LIMITS.is_dir():
        yield _inotify(paths)


def _state_directory() -> Check:
    import tempfile

    name, folder = "state directory", state_folder()
    mend = f"Set {STATE_DIR_VARIABLE} to a folder that can be written, for runs whose directory cannot."
    if folder == HOMELESS:
        return warning(name, "This user has no home folder, so there is none.", mend)
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    try:
        with tempfile.TemporaryFile(dir=there):  # without a name, where the system can
            pass
    except OSError as error:
        return warning(name, f"{folder} cannot be written: {error.strerror}.", mend)
    return fine(name, f"{folder} takes the ledgers of runs whose directory does not.")


def _runs(path: Path, follow: Sequence[Path]) -> Check:
    name = "runs"
    try:
        runs = [found for found in find_runs([path]) if not isinstance(found, NotARun)]
    except UsageError as error:
        return failed(name, error)
    if not runs:
        hint = "A run directory holds args.yaml and results.csv; a watch waits for the first."
        return warning(name, f"There is no run in or below {path}.", hint)
    elsewhere, errors = 0, list[tuple[Path, YoloClearmlError]]()
    for run in runs:
        try:
            elsewhere += _place(run, follow) != run
        except RunBusy:
            continue  # its ledger can be written: somebody does
        except YoloClearmlError as error:
            errors.append((run, error))
        except Exception as fault:  # noqa: BLE001  reported, and the other runs are not to blame
            errors.append((run, OurFault.over(fault)))
    if errors:
        named = " ".join(str(error) for _, error in errors[:_MOST_NAMED])
        more = f" And {len(errors) - _MOST_NAMED} more." if len(errors) > _MOST_NAMED else ""
        text = f"{len(errors)} of {len(runs)} below {path} cannot be read or written: {named}{more}"
        return Check(name, Finding.FAILED, public(text), errors[0][1].hint, Exit.SOME_FAILED)
    where = f"the ledgers of {elsewhere} go to {state_folder()}" if elsewhere else "they take their ledgers"
    return fine(name, f"{len(runs)} in or below {path} can be read; {where}.")


def _place(run: Path, follow: Sequence[Path]) -> Path:
    """Read a run, and give the folder that its ledger goes to; raises YoloClearmlError."""
    found = scan(run, time.time(), None, follow)
    if not isinstance(found, NotARun) and (error := unreadable(run, found.places)) is not None:
        raise error
    with FileLedgers().hold(run):  # of which nothing is left
        at_run = os.access(run / LEDGER_NAME, os.W_OK)
    if at_run and os.access(run, os.W_OK | os.X_OK):  # a ledger is replaced, not written into
        return run
    state = _state_directory()
    if state.finding is not Finding.OK:
        raise LedgerUnwritable(f"{run} takes no {LEDGER_NAME}. {state.text}", state.hint)
    return state_folder()


def _inotify(paths: Sequence[Path]) -> Check:
    name = "inotify"
    try:
        watches, instances = (
            int((_LIMITS / limit).read_text()) for limit in ("max_user_watches", "max_user_instances")
        )
    except (OSError, ValueError) as error:
        return not_checked(name, f"Its limits cannot be read: {error}.")
    limits = f"max_user_watches is {watches}, max_user_instances {instances}"
    folders = sum(1 for path in paths for _ in os.walk(path))
    if folders > watches:
        return warning(
            name,
            f"A watch of these {folders} folders needs as many watches, but {limits}.",
            f"Raise it: sysctl fs.inotify.max_user_watches={2 * folders}; without that a watch polls.",
        )
    from .triggers import require_room  # here: watchdog is not for what only names a Check

    try:
        require_room()
    except OSError as error:
        return warning(
            name,
            f"It takes no more watches of this user ({error.strerror}): {limits}.",
            "Raise fs.inotify.max_user_watches, or _instances; without that a watch polls.",
        )
    needed = f"; a watch needs {folders} for the folders given" if paths else ""
    return fine(name, f"Changes are announced: {limits}{needed}.")
