"""The SDK takes more than a second to import: when that begins, and when it never does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble

from yolo_clearml import library
from yolo_clearml.library import Options
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.sync.ledger import NoLedgers
from yolo_clearml.sync.sinks import RecordingSink
from yolo_clearml.sync.visit import standing, visit
from yolo_clearml.sync.work import Lazily, Work

SDK = "'clearml' in sys.modules"
AT_LAST = f"[t.join() for t in threading.enumerate() if t.name == 'load']; print({SDK})"


def python(code: str, *paths: Path) -> str:
    """Run a program with its paths as ``paths``; gives what it printed."""
    head = "import sys, threading, time\nfrom pathlib import Path\nfrom yolo_clearml import library\n"
    head += (
        "from yolo_clearml.rundir.finding import find_runs\npaths = [Path(path) for path in sys.argv[1:]]\n"
    )
    command = [sys.executable, "-c", head + code, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


# -- what is begun early ----------------------------------------------------------------------------------


def test_it_is_begun_once_and_only_who_makes_the_sink_waits() -> None:
    """In a thread of its own, which the process's end waits for; a sink that is there needs it no more."""
    loaded: list[threading.Thread] = []
    go_on = threading.Event()
    when_made: list[bool] = []

    def load() -> None:
        loaded.append(threading.current_thread())
        assert go_on.wait(10)

    def make() -> RecordingSink:
        when_made.append(go_on.is_set())
        return RecordingSink()

    lazily = Lazily(make, load)
    lazily.begin()
    lazily.begin()
    threading.Timer(0.1, go_on.set).start()
    lazily()
    (thread,) = loaded
    assert ([True], False) == (when_made, thread.daemon)
    assert thread is not threading.current_thread()
    made = Lazily(make, load)
    made()
    made.begin()
    assert 1 == len(loaded)


def test_what_goes_wrong_is_met_by_who_needs_it(capfd: pytest.CaptureFixture[str]) -> None:
    """A broken installation: nothing is said early, and the error is the one there always was."""

    def broken() -> RecordingSink:
        raise ImportError("No module named 'clearml'")

    lazily = Lazily(broken, broken)
    lazily.begin()
    for thread in threading.enumerate():
        if thread.name == "load":
            thread.join(5)
    assert ("", "") == capfd.readouterr()
    with pytest.raises(ImportError, match="clearml"):
        lazily()


def test_a_new_run_begins_it_and_a_look_does_not(make_run: MakeRun) -> None:
    """A run with rows and without a ledger has something to send; `status` sends nothing."""
    begun: list[str] = []
    run, died = make_run("v8.4.190-detect-noplots"), make_run("v8.0.220-detect-died-in-setup")

    def work() -> Work:
        return Work(Lazily(RecordingSink, lambda: begun.append("here")), NoLedgers(), "conf")

    standing(run, work())
    list(visit(died, work()))
    assert [] == begun
    list(visit(run, work()))
    assert ["here"] == begun


def test_a_watch_begins_it_before_there_is_a_run(server: ClearMLDouble, tmp_path: Path) -> None:
    """So that the first epoch of the first run is reported as soon as the others."""
    code = f"""
stop = threading.Event()
def wait():
    end = time.monotonic() + 30
    while not {SDK} and time.monotonic() < end: time.sleep(0.01)
    print({SDK}); stop.set()
threading.Thread(target=wait).start()
list(library.watch(paths, stop=stop))
"""
    assert "True" == python(code, tmp_path)
    assert [] == server.requests


# -- what never needs it ----------------------------------------------------------------------------------


def test_a_pass_with_nothing_to_send_never_imports_it(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Neither an upload of what is delivered or no run, nor a watch that is to end with that, nor a look."""
    pile = make_run("v8.4.190-detect-noplots", "detect/train").parent
    make_run("v8.0.220-detect-died-in-setup", "detect/died")
    list(library.upload(find_runs([pile]), Options(timeout=2.0)))
    before = len(server.requests)
    for does in ("upload(find_runs(paths))", "watch(paths, once=True)", "status(find_runs(paths))"):
        assert "False" == python(f"list(library.{does}); {AT_LAST}", pile)
    assert before == len(server.requests)


def test_a_live_run_with_nothing_new_never_imports_it(server: ClearMLDouble, make_run: MakeRun) -> None:
    """An upload by cron, ten minutes after the last."""
    run = make_run("v8.4.190-detect-killed")
    list(library.upload([run], Options(timeout=2.0, stale_after=1e9)))
    does = "upload(find_runs(paths), library.Options(stale_after=1e9))"
    assert "False" == python(f"list(library.{does}); {AT_LAST}", run)


def test_a_short_watch_ends_cleanly_in_the_middle_of_it(server: ClearMLDouble, tmp_path: Path) -> None:
    """Stopped while it is being imported, with status 0 and without a word."""
    began = time.monotonic()
    code = """
stop = threading.Event()
threading.Timer(0.25, stop.set).start()
list(library.watch(paths, stop=stop))
print("ended")
"""
    assert "ended" == python(code, tmp_path)
    assert time.monotonic() - began < 30
