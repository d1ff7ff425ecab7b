"""What was acknowledged is remembered through every fault, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import pwd
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_clearml.errors import LedgerUnwritable, RunBusy
from yolo_clearml.events import Plan, Report, SingleValue
from yolo_clearml.sync import ledger as ledger_module
from yolo_clearml.sync.ledger import (
    LEDGER_NAME,
    FileLedgers,
    Ledger,
    NoLedgers,
    ReadOnlyLedgers,
    configuration_stamp,
    settled_stamp,
)

FULL = Ledger(
    server="http://localhost:8008",
    run="2f25f2b0",
    copy="1a2b",
    task="5b1e",
    url="http://localhost:8080/x",
    sent={"epoch/0": "9c1d", "epoch/1": "77aa"},
    settled="c0ffee",
    configured="c0f1",
    facts={"name": "train", "epochs": 3, "best": ["mAP50", 0.5]},
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory, which is not made before something is written there."""
    folder = tmp_path / "home" / "state"
    monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(folder))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory; the ledger does not care what else is in it."""
    path = tmp_path / "run"
    path.mkdir()
    return path


def save(run: Path, ledger: Ledger) -> None:
    with FileLedgers().hold(run) as held:
        held.save(ledger)


def load(run: Path) -> Ledger:
    return FileLedgers().load(run)


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def report(key: str, value: float = 0.0) -> Report:
    return Report(key, (SingleValue("a", value, 0),))


def plan_of(*reports: Report, key: str = "k") -> Plan:
    return Plan(key, "project", "name", (), ("project", "name"), "", reports, (), ())


# -- what is pending


def test_all_is_pending_at_first_and_nothing_once_acknowledged() -> None:
    """Reports come in their order, and those that were acknowledged do not come again."""
    plan = plan_of(report("a"), report("b"), report("c"))
    ledger = Ledger(run="k")
    assert plan.reports == ledger.pending(plan)
    ledger = ledger.acknowledge(plan.reports[1:2])
    assert (plan.reports[0], plan.reports[2]) == ledger.pending(plan)
    ledger = ledger.acknowledge([plan.reports[0]]).acknowledge([plan.reports[2]])
    assert () == ledger.pending(plan)
    assert {"a", "b", "c"} == set(ledger.sent)


def test_what_changed_is_pending_again() -> None:
    """The same key with other words, and no other."""
    ledger = Ledger(run="k").acknowledge([report("a"), report("b")])
    changed = plan_of(report("a"), report("b", 1.0))
    assert (report("b", 1.0),) == ledger.pending(changed)
    assert () == ledger.acknowledge(changed.reports).pending(changed)


def test_of_another_training_everything_is_pending() -> None:
    """Acknowledgements of the training that was here before say nothing of this one."""
    plan = plan_of(report("a"), key="another")
    assert plan.reports == Ledger(run="k").acknowledge(plan.reports).pending(plan)
    assert plan.reports == Ledger().acknowledge(plan.reports).pending(plan)


def test_where_anything_is_pending_so_is_the_status() -> None:
    """To report to a task is to open it again, so its end must be reported again, after everything else."""
    plan = plan_of(report("a"), report("status"))
    ledger = Ledger(run="k").acknowledge(plan.reports)
    assert () == ledger.pending(plan)
    assert ["b", "status"] == [
        r.key for r in ledger.pending(plan_of(report("a"), report("b"), report("status")))
    ]


def test_an_empty_ledger_holds_nothing() -> None:
    """Neither of a server nor of a training; and it is a value, which nobody changes."""
    said = {name: value for name in Ledger.__slots__ if (value := getattr(Ledger(), name)) is not None}
    assert {"copy": "", "anew": False, "sent": {}, "facts": {}, "wanted": {}} == said
    with pytest.raises(AttributeError):
        Ledger().task = "5b1e"  # type: ignore[misc]


def test_what_is_about_to_be_sent_is_forgotten_first() -> None:
    """Until it is acknowledged nobody knows what the server has of it, so it is pending."""
    plan = plan_of(report("a"), report("b"))
    ledger = Ledger(run="k").acknowledge(plan.reports).forget([report("a", 5.0), report("unknown")])
    assert (report("a"),) == ledger.pending(plan)
    assert {"b"} == set(ledger.sent)


def test_what_is_to_go_over_the_servers_own_is_remembered(run: Path) -> None:
    """Of what is about to be sent, and of nothing else; until it is there it is pending."""
    plan = plan_of(report("a"), report("b"), report("c"))
    ledger = Ledger(run="k").acknowledge(plan.reports).forget(plan.reports[:2], over=("c", "b", "unknown"))
    assert {"b": "", "c": report("c").digest} == ledger.sent
    save(run, ledger)
    assert plan.reports[:2] == load(run).pending(plan)
    assert () == ledger.acknowledge(plan.reports[:2]).pending(plan)


def test_acknowledging_changes_no_ledger_that_is_already_written() -> None:
    """A ledger is a value: the older one stays as it was."""
    before = replace(FULL)
    FULL.acknowledge([report("epoch/0")])
    assert before == FULL


# -- on disk


def test_what_was_saved_is_read(run: Path) -> None:
    """By whoever looks, while it is held and afterwards, in one file in the run directory."""
    with FileLedgers().hold(run) as held:
        assert Ledger() == held.ledger
        held.save(FULL)
        assert (FULL, FULL) == (held.ledger, load(run))
    assert [LEDGER_NAME] == left_in(run)
    with FileLedgers().hold(run) as held:
        assert FULL == held.ledger
    assert FULL == load(run)


@given(text=st.text(), sent=st.dictionaries(st.text(), st.text()))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str, sent: dict[str, str]) -> None:
    """Keys are made of file names, which hold anything."""
    ledger = Ledger(run=text, task=text, sent=sent, facts={"name": text})
    run = tmp_path_factory.getbasetemp() / "any text"
    run.mkdir(exist_ok=True)
    save(run, ledger)
    assert ledger == load(run)


def test_file_names_that_are_no_unicode_survive(run: Path) -> None:
    """As Python reads such names of a directory."""
    ledger = Ledger(run="k", sent={"image/val\udcff.jpg": "ab"})
    save(run, ledger)
    assert ledger == load(run)


def test_a_ledger_that_nobody_wrote_leaves_no_file(run: Path, state: Path) -> None:
    """Looking is not writing: the lock's own file goes with it, also after a fault."""
    with FileLedgers().hold(run):
        assert [LEDGER_NAME] == left_in(run)
    assert ([], []) == (left_in(run), left_in(state))
    with pytest.raises(KeyError), FileLedgers().hold(run):
        raise KeyError
    assert [] == left_in(run)


def test_a_dry_run_reads_and_never_writes(run: Path, state: Path) -> None:
    """What is saved is known to the one who holds it and forgotten with it; an export remembers nothing."""
    save(run, FULL)
    before = (run / LEDGER_NAME).read_bytes()
    with ReadOnlyLedgers().hold(run) as held:
        assert FULL == held.ledger
        held.save(Ledger(run="other"))
        assert Ledger(run="other") == held.ledger
    with NoLedgers().hold(run) as held:
        assert (Ledger(), Ledger()) == (held.ledger, NoLedgers().load(run))
        held.save(Ledger(run="other"))
    assert (before, [LEDGER_NAME], []) == ((run / LEDGER_NAME).read_bytes(), left_in(run), left_in(state))


def test_a_ledger_cut_anywhere_counts_as_lost(run: Path) -> None:
    """Whatever a crash or an editor left of it: whole or nothing, and it can be written again."""
    save(run, FULL)
    whole = (run / LEDGER_NAME).read_bytes()
    for cut in range(len(whole)):
        (run / LEDGER_NAME).write_bytes(whole[:cut])
        # the last byte is a newline, which says nothing
        assert (FULL if cut == len(whole) - 1 else Ledger()) == load(run)
    save(run, FULL)
    assert whole == (run / LEDGER_NAME).read_bytes()


FIELDS = {"version": 1, **{name: getattr(FULL, name) for name in Ledger.__slots__}}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 100, b"\xff\xfe", b"null", b"[]", b"1", b'"x"', b"{}", b"[" * 100_000, b"9" * 10_000),
        json.dumps({**FIELDS, "version": 2}).encode(),
        json.dumps({**FIELDS, "version": None}).encode(),
        json.dumps({name: value for name, value in FIELDS.items() if name != "version"}).encode(),
        json.dumps({**FIELDS, "more": 1}).encode(),
        *(
            json.dumps({**FIELDS, name: odd}).encode()
            for name in ("server", "run", "task", "url", "settled", "configured", "copy", "sent", "facts")
            for odd in (1, True, ["x"])
        ),
        json.dumps({**FIELDS, "sent": {"a": 1}}).encode(),
        json.dumps({**FIELDS, "sent": {"a": None}}).encode(),
        json.dumps({**FIELDS, "sent": None}).encode(),
        json.dumps({**FIELDS, "copy": None}).encode(),
        *(json.dumps({**FIELDS, "anew": odd}).encode() for odd in (None, 1, "x")),
    ],
    ids=lambda content: repr(content)[:40],
)
def test_a_ledger_that_is_not_understood_counts_as_lost(run: Path, content: bytes) -> None:
    """Damaged, of a newer version, or of other types: nothing of it is believed, and it is replaced."""
    (run / LEDGER_NAME).write_bytes(content)
    assert Ledger() == load(run)
    with FileLedgers().hold(run) as held:
        assert Ledger() == held.ledger
        held.save(FULL)
    assert FULL == load(run)


@pytest.mark.exhaustive
def test_a_ledger_larger_than_any_runs_counts_as_lost(run: Path) -> None:
    """Lists of lists take twenty times their size in memory; the longest training has 4 MB to remember."""
    sent = {f"epoch/{n}": "0123456789abcdef" for n in range(100_000)}
    save(run, Ledger(run="of 100,000 epochs", sent=sent))
    assert sent == load(run).sent
    (run / LEDGER_NAME).write_bytes(b'{"version":1,"facts":{"a":[' + b"[]," * 2**22 + b"1]}}")
    assert Ledger() == load(run)


@pytest.mark.parametrize("name", Ledger.__slots__)
def test_a_ledger_with_a_field_of_another_kind_counts_as_lost(run: Path, name: str) -> None:
    """Whichever it is: what would be sent to a server is what was written, or nothing."""
    save(run, FULL)
    written = json.loads((run / LEDGER_NAME).read_bytes())
    for wrong in (5, ["a"]):
        (run / LEDGER_NAME).write_text(json.dumps({**written, name: wrong}))
        assert Ledger() == load(run)
    (run / LEDGER_NAME).write_text(json.dumps({**written, "sent": {"a": "b", "c": 5}}))
    assert Ledger() == load(run)


def test_of_a_ledger_that_is_far_too_large_no_more_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as lost; one that is just as large as is allowed does not."""
    save(run, FULL)
    size = (run / LEDGER_NAME).stat().st_size
    monkeypatch.setattr(ledger_module, "_MOST", size)
    assert FULL == load(run)
    monkeypatch.setattr(ledger_module, "_MOST", size - 10)
    assert Ledger() == load(run)


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_in_the_ledgers_place_is_not_followed(run: Path, tmp_path: Path, dangling: bool) -> None:
    """What it points at is neither read, written nor made; neither for the ledger nor for its successor."""
    target = tmp_path / "precious"
    if not dangling:
        save(run, FULL)
        (run / LEDGER_NAME).rename(target)
    (run / LEDGER_NAME).symlink_to(target)
    assert Ledger() == load(run)
    with pytest.raises(LedgerUnwritable, match="cannot be written"), FileLedgers().hold(run):
        pass
    assert dangling is not target.exists()
    (run / LEDGER_NAME).unlink()
    before = None if dangling else target.read_bytes()
    (run / f"{LEDGER_NAME}.tmp").symlink_to(target)
    save(run, Ledger(run="other"))
    assert "other" == load(run).run
    assert before == (None if dangling else target.read_bytes())
    assert dangling is not target.exists()


@pytest.mark.parametrize("kind", ["a link", "a directory"])
def test_what_stands_in_the_ledgers_place_is_named(run: Path, kind: str) -> None:
    """To free some space would not help."""
    path = run / LEDGER_NAME
    path.mkdir() if kind == "a directory" else path.symlink_to(run / "nowhere")
    with pytest.raises(LedgerUnwritable) as caught, FileLedgers().hold(run):
        pass
    assert f"{path} cannot be written: it is {kind}." == str(caught.value)
    assert caught.value.hint.startswith("Remove it")


@pytest.mark.parametrize("kind", ["hard link", "fifo", "directory"])
def test_a_leftover_in_the_successors_place_is_not_written_into(run: Path, tmp_path: Path, kind: str) -> None:
    """A file with another name keeps its content, nothing is waited for, and a directory is named."""
    precious, leftover = tmp_path / "precious", run / f"{LEDGER_NAME}.tmp"
    precious.write_bytes(b"precious")
    if kind == "hard link":
        os.link(precious, leftover)
    elif kind == "fifo":
        os.mkfifo(leftover)
    else:
        leftover.mkdir()
        with pytest.raises(LedgerUnwritable) as caught:
            save(run, FULL)
        assert f"{leftover} cannot be written: it is a directory." == str(caught.value)
        assert caught.value.hint.startswith("Remove it")
        leftover.rmdir()
    save(run, FULL)
    assert (FULL, b"precious", [LEDGER_NAME]) == (load(run), precious.read_bytes(), left_in(run))


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_in_the_ledgers_place_is_no_ledger(run: Path, kind: str) -> None:
    """It is not waited for, and nothing stays open."""
    (run / LEDGER_NAME).mkdir() if kind == "folder" else os.mkfifo(run / LEDGER_NAME)
    before = descriptors()
    assert Ledger() == load(run)
    with contextlib.suppress(LedgerUnwritable), FileLedgers().hold(run) as held:
        held.save(FULL)
    assert (FULL if kind == "fifo" else Ledger()) == load(run)
    assert before == descriptors()


# -- faults while writing


class Faulty:
    """os.open, os.fsync and os.replace that fail at the n-th call of all of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: int = errno.ENOSPC) -> None:
        self.at, self.calls, self.error = at, 0, error
        for name in ("open", "fsync", "replace"):
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))

    def _failing(self, genuine: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            self.calls += 1
            if self.calls == self.at:
                raise OSError(self.error, os.strerror(self.error))
            return genuine(*args, **options)

        return call


@pytest.mark.parametrize(
    ("at", "replaced"), [(1, False), (2, False), (3, False), (4, True), (5, True), (6, True)]
)
def test_a_save_that_fails_anywhere_leaves_the_old_ledger_or_the_new(
    run: Path, monkeypatch: pytest.MonkeyPatch, at: int, replaced: bool
) -> None:
    """Never half of one and no second file; it is still held, can be saved again, and nothing stays open."""
    save(run, FULL)
    new, newer = replace(FULL, sent={"epoch/2": "ffff"}), replace(FULL, sent={})
    before = descriptors()
    with FileLedgers().hold(run) as held:
        with monkeypatch.context() as patch:
            faulty = Faulty(patch, at, errno.EIO)
            if at == 6:
                held.save(new)
                assert 5 == faulty.calls  # open, sync, replace; open and sync the folder
            else:
                with pytest.raises(LedgerUnwritable, match="Input/output") as caught:
                    held.save(new)
                assert "YOLO_CLEARML_STATE_DIR" in caught.value.hint
        assert (new if replaced else FULL) == load(run)
        assert [LEDGER_NAME] == left_in(run)
        with pytest.raises(RunBusy), FileLedgers().hold(run):
            pass
        held.save(newer)
    assert before == descriptors()
    with FileLedgers().hold(run) as held:
        assert newer == held.ledger


def test_a_successor_that_somebody_takes_away_is_a_fault_of_the_disk(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is still there, and so nobody hears that it is not."""
    replace_ = os.replace

    def replaced(old: Path, new: Path) -> None:
        os.unlink(old)
        replace_(old, new)

    save(run, FULL)
    before = descriptors()
    with monkeypatch.context() as patch, pytest.raises(LedgerUnwritable, match="cannot be written: No such"):
        patch.setattr(os, "replace", replaced)
        save(run, Ledger(run="other"))
    assert (FULL, before) == (load(run), descriptors())


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_successor_that_appears_late_is_not_written_into(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As on a network file system: between the look and the making there is one, which is removed as well."""
    precious, leftover = tmp_path / "precious", run / f"{LEDGER_NAME}.tmp"
    precious.write_bytes(b"precious")
    open_ = os.open
    late: list[Path] = []

    def opened(path: Path, flags: int, *mode: int) -> int:
        if path == leftover and not late:
            late.append(path)
            os.link(precious, path) if kind == "file" else os.symlink(precious, path)
        return open_(path, flags, *mode)

    monkeypatch.setattr(os, "open", opened)
    save(run, FULL)
    assert ([leftover], FULL, b"precious") == (late, load(run), precious.read_bytes())
    assert [LEDGER_NAME] == left_in(run)


def test_a_ledger_is_for_the_group_as_far_as_the_user_says(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares the runs shares what is known of them: the umask alone takes rights away."""
    before = os.umask(0)
    try:
        for late in (False, True):
            with monkeypatch.context() as patch, FileLedgers().hold(run) as held:
                assert 0o666 == (run / LEDGER_NAME).stat().st_mode & 0o777
                if late:
                    seen_late(patch, run)
                held.save(FULL)
            assert 0o666 == (run / LEDGER_NAME).stat().st_mode & 0o777
            (run / LEDGER_NAME).unlink()
    finally:
        os.umask(before)


def seen_late(patch: pytest.MonkeyPatch, run: Path) -> None:
    """A leftover successor that one look does not see."""
    open_ = os.open
    asked: list[Path] = []

    def opened(path: Path, flags: int, *mode: int) -> int:
        if path == run / f"{LEDGER_NAME}.tmp" and not asked:
            asked.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return open_(path, flags, *mode)

    patch.setattr(os, "open", opened)


def test_a_disk_that_is_full_in_the_middle_of_a_write_leaves_the_old_ledger(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new content is complete and durable before it takes the old one's place."""
    save(run, FULL)
    order: list[str] = []
    fsync, replace_ = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        order.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        if order[-1] == "file":
            assert FULL == load(run)
            assert os.fstat(descriptor).st_size > 100
        fsync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        order.append("replace")
        assert {"epoch/2": "ffff"} == json.loads(Path(old).read_bytes())["sent"]
        replace_(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    save(run, replace(FULL, sent={"epoch/2": "ffff"}))
    assert ["file", "replace", "folder"] == order


def test_what_a_killed_process_left_is_cleared_away(run: Path) -> None:
    """A half-written successor is no ledger, and the next save takes its place."""
    save(run, FULL)
    (run / f"{LEDGER_NAME}.tmp").write_bytes(b'{"version": 1, "run": "half' + b"-" * 9999)
    assert FULL == load(run)
    save(run, replace(FULL, task="other"))
    assert ("other", [LEDGER_NAME]) == (load(run).task, left_in(run))


# -- one at a time


def test_a_second_hold_is_refused_and_the_next_is_not(run: Path) -> None:
    """In the same thread already, before and after a save replaced the file; free once it is let go."""
    for _ in range(2):
        with FileLedgers().hold(run) as held:
            for _ in range(2):
                with pytest.raises(RunBusy, match="at work") as busy, FileLedgers().hold(run):
                    pass
                assert 75 == busy.value.status
                held.save(FULL)
    with FileLedgers().hold(run):
        pass
    assert FULL == load(run)


def test_a_file_that_goes_before_it_is_locked_is_not_held(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever let go just then took the empty file away; a lock on what nobody else finds would be none."""
    genuine = filelock.lock_descriptor
    gone: list[int] = []

    def locked(descriptor: int, *, blocking: bool) -> bool:
        if not gone:
            gone.append(descriptor)
            (run / LEDGER_NAME).unlink()
        return genuine(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", locked)
    before = descriptors()
    with FileLedgers().hold(run):
        assert [LEDGER_NAME] == left_in(run)
        with pytest.raises(RunBusy), FileLedgers().hold(run):
            pass
    assert ([], before) == (left_in(run), descriptors())


def test_a_refused_hold_takes_nothing_away(run: Path) -> None:
    """Neither the lock nor the still empty file of the one who has it."""
    with FileLedgers().hold(run) as held:
        with pytest.raises(RunBusy), FileLedgers().hold(run):
            pass
        assert [LEDGER_NAME] == left_in(run)
        held.save(FULL)
    assert FULL == load(run)


def test_another_thread_is_refused(run: Path) -> None:
    """Jobs of one process are as separate as processes."""
    results: list[str] = []

    def attempt() -> None:
        try:
            with FileLedgers().hold(run):
                results.append("held")
        except RunBusy:
            results.append("busy")

    def in_thread() -> None:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(10)

    with FileLedgers().hold(run):
        in_thread()
    in_thread()
    assert ["busy", "held"] == results


def test_threads_that_save_at_once_lose_nothing(run: Path) -> None:
    """Each adds its own acknowledgement to what it finds; in the end all are there."""

    def add(number: int) -> None:
        for _ in range(100_000):
            with contextlib.suppress(RunBusy), FileLedgers().hold(run) as held:
                held.save(held.ledger.acknowledge([report(f"epoch/{number}")]))
                return

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {f"epoch/{number}" for number in range(8)} == set(load(run).sent)
    assert [LEDGER_NAME] == left_in(run)


def _hold_and_wait(run: Path, ready: Callable[[], None]) -> None:
    with FileLedgers().hold(run) as held:
        held.save(FULL)
        ready()
        signal.pause()


def test_another_process_is_refused_until_it_dies(run: Path) -> None:
    """The lock of a killed process is gone with it, and what it had saved is there."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_hold_and_wait, args=(run, ready.set))
    child.start()
    try:
        assert ready.wait(10)
        assert FULL == load(run)
        with pytest.raises(RunBusy), FileLedgers().hold(run):
            pass
    finally:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(10)
    assert -signal.SIGKILL == child.exitcode
    with FileLedgers().hold(run) as held:
        assert FULL == held.ledger


def test_a_file_that_is_replaced_each_time_is_given_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system whose files never seem the same ones, the run is busy, and nobody waits for ever."""
    monkeypatch.setattr("yolo_clearml.system.is_at", lambda *_: False)
    before = descriptors()
    with pytest.raises(RunBusy), FileLedgers().hold(run):
        pass
    assert before == descriptors()


# -- where the run directory takes no file


class ReadOnly:
    """os.open that refuses to write below one folder, as a read-only mount does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, error: int) -> None:
        genuine = os.open

        def call(path: Path | str, flags: int, *args: int, **options: int) -> int:
            if Path(path).is_relative_to(folder) and flags & (os.O_RDWR | os.O_WRONLY):
                raise OSError(error, os.strerror(error))
            return genuine(path, flags, *args, **options)

        monkeypatch.setattr(os, "open", call)


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT])
def test_a_read_only_run_has_its_ledger_in_the_state_directory(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """It is found there again, is that of this run alone, and is locked like any other."""
    ReadOnly(monkeypatch, run, error)
    with FileLedgers().hold(run) as held:
        held.save(FULL)
        with pytest.raises(RunBusy), FileLedgers().hold(run):
            pass
    assert ([], FULL) == (left_in(run), load(run))
    (file,) = left_in(state)
    assert file.endswith(".json")
    other = run.with_name("other")
    other.mkdir()
    assert Ledger() == load(other)


class Full:
    """os.fsync that finds no space on the file system of one folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *folders: Path, error: int = errno.ENOSPC) -> None:
        genuine = os.fsync

        def call(descriptor: int) -> None:
            if any(Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(f) for f in folders):
                raise OSError(error, os.strerror(error))
            genuine(descriptor)

        monkeypatch.setattr(os, "fsync", call)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("before", [None, Ledger(run="old")])
def test_a_disk_that_is_full_leaves_the_ledger_to_the_state_directory(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch, error: int, before: Ledger | None
) -> None:
    """An empty file can still be made there, and a lock; not what is to be written."""
    if before:
        save(run, before)
    open_before = descriptors()
    with monkeypatch.context() as patch:
        Full(patch, run, error=error)
        with FileLedgers().hold(run) as held:
            for ledger in (replace(FULL, sent={}), FULL):
                held.save(ledger)
                assert (ledger, ledger) == (held.ledger, load(run))
                with pytest.raises(RunBusy), FileLedgers().hold(run):
                    pass
    assert (FULL, [], 1) == (load(run), left_in(run), len(left_in(state)))
    assert open_before == descriptors()
    save(run, replace(FULL, task="other"))
    assert ("other", [LEDGER_NAME]) == (load(run).task, left_in(run))


def test_a_disk_that_is_full_everywhere_is_named_with_a_way_out(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old ledger is still there."""
    save(run, FULL)
    Full(monkeypatch, run, state)
    with pytest.raises(LedgerUnwritable, match="No space left") as caught:
        save(run, Ledger(run="other"))
    assert str(state) in str(caught.value)
    assert "YOLO_CLEARML_STATE_DIR" in caught.value.hint
    assert FULL == load(run)


def test_a_run_directory_that_vanished_is_named(run: Path) -> None:
    """Before it is held, or while it is."""
    sentence = f"{run} is not there any more."
    with pytest.raises(LedgerUnwritable) as caught, FileLedgers().hold(run) as held:
        os.rename(run, run.with_name("elsewhere"))
        held.save(FULL)
    assert sentence == str(caught.value)
    with pytest.raises(LedgerUnwritable) as caught, FileLedgers().hold(run):
        pass
    assert sentence == str(caught.value)


def test_a_file_where_the_run_directory_was_is_named(run: Path) -> None:
    """Then it is not there any more either."""
    run.rmdir()
    run.write_bytes(b"")
    with pytest.raises(LedgerUnwritable, match="is not there any more"), FileLedgers().hold(run):
        pass


def test_letting_go_never_fails_and_takes_nothing_of_others(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk became read-only meanwhile, or another file stands in the place of the empty one."""
    before = descriptors()
    with monkeypatch.context() as patch:

        def refused(path: Path, missing_ok: bool = False) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        with FileLedgers().hold(run):
            patch.setattr(Path, "unlink", refused)
    assert (Ledger(), before, [LEDGER_NAME]) == (load(run), descriptors(), left_in(run))
    with FileLedgers().hold(run):
        (run / LEDGER_NAME).unlink()
        (run / LEDGER_NAME).write_bytes(b"of somebody else")
    assert (b"of somebody else", before) == ((run / LEDGER_NAME).read_bytes(), descriptors())


def test_of_two_ledgers_of_the_same_time_that_of_the_run_counts(
    run: Path, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    """A file system may know whole seconds only; neither is compared with the other."""
    with monkeypatch.context() as patch:
        ReadOnly(patch, run, errno.EROFS)
        save(run, Ledger(run="other"))
    (run / LEDGER_NAME).write_text(json.dumps({"version": 1, "run": "k"}))
    for file in (run / LEDGER_NAME, state / left_in(state)[0]):
        os.utime(file, (1, 1))
    assert Ledger(run="k") == load(run)


@pytest.mark.parametrize("error", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_has_its_ledgers_in_the_state_directory(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """What cannot be held alone is not written to; nothing stays open."""

    genuine, before = filelock.lock_descriptor, descriptors()

    def locked(descriptor: int, *, blocking: bool) -> bool:
        there = run / LEDGER_NAME
        if there.exists() and os.path.samestat(there.stat(), os.fstat(descriptor)):
            raise OSError(error, os.strerror(error))
        return genuine(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", locked)
    save(run, FULL)
    assert (FULL, 1, before) == (load(run), len(left_in(state)), descriptors())


def test_a_run_that_becomes_writable_again_goes_on_where_it_was(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two ledgers the newer one counts, for reading and for holding."""
    save(run, FULL)
    os.utime(run / LEDGER_NAME, (1, 1))
    newer = replace(FULL, sent={**FULL.sent, "epoch/2": "bb"})
    with monkeypatch.context() as patch:
        ReadOnly(patch, run, errno.EROFS)
        with FileLedgers().hold(run) as held:
            assert FULL == held.ledger
            held.save(newer)
    assert newer == load(run)
    with FileLedgers().hold(run) as held:
        assert newer == held.ledger
    for file in left_in(state):
        os.utime(state / file, (2, 2))
    save(run, FULL)
    assert FULL == load(run)


def test_a_link_to_the_run_has_the_same_ledger_in_the_state_directory(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept by what the path resolves to."""
    link = run.with_name("link")
    link.symlink_to(run)
    ReadOnly(monkeypatch, run, errno.EROFS)
    ReadOnly(monkeypatch, link, errno.EROFS)
    save(link, FULL)
    assert FULL == load(run)


def test_without_a_word_of_the_user_it_is_in_their_own_state_directory(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system has it, in a folder of this program's name."""
    monkeypatch.delenv("YOLO_CLEARML_STATE_DIR")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    ledger_module._folder_named.cache_clear()
    try:
        ReadOnly(monkeypatch, run, errno.EROFS)
        save(run, FULL)
        (file,) = (tmp_path / "user").rglob("*.json")
    finally:
        ledger_module._folder_named.cache_clear()
    assert ("yolo-clearml", FULL) == (file.parent.name, load(run))


def test_a_user_without_a_home_keeps_the_ledger_at_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No HOME, and a number that the system has no name for, as under ``docker run --user``."""

    def nobody(uid: int) -> NoReturn:
        raise KeyError(uid)

    for name in ("YOLO_CLEARML_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    ledger_module._folder_named.cache_clear()
    try:
        save(run, FULL)
        assert FULL == load(run)
        ReadOnly(monkeypatch, run, errno.EROFS)
        with pytest.raises(LedgerUnwritable) as caught, FileLedgers().hold(run):
            pass
    finally:
        ledger_module._folder_named.cache_clear()
    assert "YOLO_CLEARML_STATE_DIR" in caught.value.hint


def test_nowhere_to_write_is_named_with_a_way_out(
    run: Path, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state directory cannot be made either, or the run directory is none."""
    state.parent.write_bytes(b"a file where a folder should be")
    ReadOnly(monkeypatch, run, errno.EROFS)
    with pytest.raises(LedgerUnwritable) as caught, FileLedgers().hold(run):
        pass
    assert str(state) in str(caught.value)
    assert "YOLO_CLEARML_STATE_DIR" in caught.value.hint
    with pytest.raises(LedgerUnwritable), FileLedgers().hold(tmp_path / "vanished"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_read_only(run: Path, state: Path) -> None:
    """As a shared folder of somebody else's trainings is."""
    run.chmod(0o500)
    try:
        save(run, FULL)
        assert (1, FULL) == (len(left_in(state)), load(run))
    finally:
        run.chmod(0o700)


# -- stamps


def test_whatever_could_give_work_changes_the_stamp() -> None:
    """A file more, another size, time, name or wish; and nothing else."""
    listing = (("a", 1, 2), ("b", 3, 4))
    settled = settled_stamp(listing, "wishes")
    others = [
        settled_stamp(listing[:1], "wishes"),
        settled_stamp((("a", 9, 2), listing[1]), "wishes"),
        settled_stamp((("a", 1, 9), listing[1]), "wishes"),
        settled_stamp((("\udcff", 1, 2), listing[1]), "wishes"),
        settled_stamp(listing, "other"),
    ]
    assert 6 == len({settled, *others})


def test_another_configuration_has_another_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server in the environment, which file is read, what was written into it, and the keys."""
    for name in [name for name in os.environ if name.startswith(("CLEARML", "TRAINS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = [configuration_stamp()]
    (tmp_path / "clearml.conf").write_text("api {}")
    seen.append(configuration_stamp())
    (tmp_path / "clearml.conf").write_text("api {more}")
    seen.append(configuration_stamp())
    (tmp_path / "other.conf").write_text("api {}")
    monkeypatch.setenv("CLEARML_CONFIG_FILE", "~/other.conf")
    seen.append(configuration_stamp())
    monkeypatch.setenv("CLEARML_API_HOST", "http://localhost:8008")
    seen.append(configuration_stamp())
    for name in (
        "CLEARML_API_ACCESS_KEY",
        "CLEARML_API_SECRET_KEY",
        "TRAINS_API_ACCESS_KEY",
        "CLEARML_AUTH_TOKEN",
    ):
        for value in ("one", "another"):
            monkeypatch.setenv(name, value)
            seen.append(configuration_stamp())
    assert 13 == len(set(seen))
    monkeypatch.setenv("AWS_SECRET_KEY", "of something else")
    assert seen[-1] == configuration_stamp()


def test_the_stamp_knows_no_order_and_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same variables set in another order, as by another shell, are the same configuration."""
    for name in [name for name in os.environ if name.startswith(("CLEARML", "TRAINS"))]:
        monkeypatch.delenv(name)
    chosen = tmp_path / "a.conf"
    chosen.write_text("api {}")
    values = {
        "CLEARML_API_HOST": "http://a",
        "TRAINS_API_HOST": "http://\udcff",
        "CLEARML_API_ACCESS_KEY": "a",
        "CLEARML_API_SECRET_KEY": "\udcff",
    }
    seen = set()
    for names in (sorted(values), sorted(values, reverse=True)):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name in names:
            monkeypatch.setenv(name, values[name])
        seen.add(configuration_stamp())
    assert 1 == len(seen)
    monkeypatch.setenv("TRAINS_CONFIG_FILE", str(chosen))
    seen.add(configuration_stamp())
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "none.conf"))  # goes before the other
    assert configuration_stamp() in seen
    assert 2 == len(seen)


def test_a_user_without_a_home_has_a_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number."""
    monkeypatch.setenv("CLEARML_CONFIG_FILE", "~nobody-of-that-name/clearml.conf")
    assert 16 == len(configuration_stamp())


# -- a clock that is set


@pytest.mark.parametrize("ahead", [0, 3600 * 10**9])
def test_the_ledger_saved_last_counts_whatever_the_clock_says(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Of two, after the clock was set back or within one tick of it, in either place, again and again."""
    save(run, FULL)
    for number in range(6):
        place = run / LEDGER_NAME if number % 2 == 0 else state / left_in(state)[0]
        newest = place.stat().st_mtime_ns + ahead
        os.utime(place, ns=(newest, newest))
        with monkeypatch.context() as patch:
            if number % 2 == 0:
                ReadOnly(patch, run, errno.EROFS)
            with FileLedgers().hold(run) as held:
                for part in ("begun", "done"):
                    held.save(replace(FULL, task=f"{number} {part}"))
                    assert f"{number} {part}" == load(run).task
        assert f"{number} done" == load(run).task
