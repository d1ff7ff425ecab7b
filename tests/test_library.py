"""What a program does with the library: upload, watch and status against a server, and no command line."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble, Status
from uploading import end_state

import yolo_clearml
from yolo_clearml import Difference, Verdict, library
from yolo_clearml.errors import UsageError
from yolo_clearml.events import RunState
from yolo_clearml.library import Options
from yolo_clearml.rundir.choice import Choice
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.rundir.run import NotARun
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers
from yolo_clearml.sync.outcomes import (
    Delivered,
    Failed,
    Outcome,
    Pending,
    Progress,
    Skipped,
    Started,
    UpToDate,
)
from yolo_clearml.sync.sinks import RecordingSink

QUICK = Options(timeout=2.0)


@pytest.fixture
def pile(make_run: MakeRun) -> Path:
    """Give a folder with four different small runs and a validation."""
    make_run("v8.4.190-detect-noplots", "detect/train")
    make_run("v8.4.190-detect-killed", "detect/train2")
    make_run("v8.4.190-classify", "lab/shapes/exp")
    make_run("v8.0.220-detect-died-in-setup", "lab/died")
    return make_run("v8.4.190-val", "detect/val").parent.parent


def last(outcomes: Iterator[Outcome]) -> dict[str, Outcome]:
    """Give each run's last outcome, by the name of its directory."""
    got = {outcome.run.name: outcome for outcome in outcomes}
    assert not any(isinstance(outcome, (Started, Progress)) for outcome in got.values())
    return got


def kinds(outcomes: Iterator[Outcome]) -> dict[str, str]:
    return {name: type(outcome).__name__ for name, outcome in last(outcomes).items()}


def test_a_program_uploads_a_pile_and_asks_how_it_stands(server: ClearMLDouble, pile: Path) -> None:
    """Before, while and after, in values; the second time there is not one request."""
    runs = list(find_runs([pile]))
    before = {standing.run.name: standing for standing in library.status(runs)}
    waiting = {"train": Pending, "train2": Pending, "exp": Pending, "died": Skipped, "val": Skipped}
    assert waiting == {name: type(standing) for name, standing in before.items()}
    assert [] == server.requests
    sent = last(library.upload(runs, QUICK))
    for name in ("train", "train2", "exp"):
        outcome, standing = sent[name], before[name]
        assert isinstance(outcome, Delivered)
        assert isinstance(standing, Pending)
        assert (standing.pending, standing.facts.state) == (outcome.events, outcome.facts.state)
        assert outcome.task_id in server.tasks
        assert outcome.url is not None
        assert outcome.url.startswith(server.web_url)
    count = len(server.requests)
    after = {s.run.name: s for s in library.status(runs)}
    for name in ("train", "train2", "exp"):
        standing = after[name]
        assert isinstance(standing, UpToDate)
        assert getattr(sent[name], "task_id", None) == standing.task_id
        assert standing.facts.fitness is not None
    told = {"train": "UpToDate", "train2": "UpToDate", "exp": "UpToDate", "died": "Skipped", "val": "Skipped"}
    assert told == kinds(library.upload(runs, QUICK))
    assert count == len(server.requests)


def test_what_only_looks_like_a_run_comes_with_its_reason(server: ClearMLDouble, pile: Path) -> None:
    """Of upload and of status the same; a program counts them."""
    runs = list(find_runs([pile]))
    uploaded, standings = last(library.upload(runs, QUICK)), {s.run.name: s for s in library.status(runs)}
    for name, reason in (("val", "is a validation, not a training"), ("died", "")):
        outcome = uploaded[name]
        assert isinstance(outcome, Skipped)
        assert outcome.reason.startswith(reason)
        assert outcome.reason
        assert outcome == standings[name]


def test_ten_failures_do_not_stop_the_others(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Unreadable, forged and damaged runs between two good ones: each is named, the good ones are sent."""
    for number in range(10):
        bad = make_run("v8.4.190-detect-killed", f"bad{number}")
        (bad / "args.yaml").write_bytes((b"- no\n", b"!!python/name:os.system\n", b"\xff\xfe\0")[number % 3])
    make_run("v8.4.190-detect-noplots", "a"), make_run("v8.4.190-classify", "z")
    runs = find_runs([make_run("v8.4.190-val").parent])
    outcomes = last(library.upload(runs, QUICK))
    assert {"Failed": 10, "Delivered": 2, "Skipped": 1} == Counter(
        type(o).__name__ for o in outcomes.values()
    )
    for outcome in outcomes.values():
        if isinstance(outcome, Failed):
            assert str(outcome.run) in str(outcome.error)
            assert outcome.error.hint
    assert {"completed"} == {task["status"] for task in server.tasks.values()}
    assert 2 == len(server.tasks)


def test_a_run_the_server_refuses_does_not_stop_the_others(server: ClearMLDouble, pile: Path) -> None:
    """One task cannot be made; the next call makes it, and sends nothing else."""
    server.fault("tasks.create", Status(400), times=1)
    runs = list(find_runs([pile]))
    first = Counter(kinds(library.upload(runs, QUICK)).values())
    assert {"Failed": 1, "Delivered": 2, "Skipped": 2} == first
    assert {"Delivered": 1, "UpToDate": 2, "Skipped": 2} == Counter(
        kinds(library.upload(runs, QUICK)).values()
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_so_many_runs_are_under_way_at_a_time(server: ClearMLDouble, make_run: MakeRun, jobs: int) -> None:
    """Never more, and as many as that: all make their tasks at the same moment; over one login."""
    names = ("v8.4.190-detect-killed", "v8.4.190-classify", "v8.4.190-detect-noplots")
    folder = [make_run(name) for name in names].pop().parent
    together = threading.Barrier(jobs, timeout=20)
    server.before_request = lambda endpoint, number: together.wait() if endpoint == "tasks.create" else None
    begun: set[Path] = set()
    most = 0
    for outcome in library.upload(find_runs([folder]), Options(jobs=jobs, timeout=20.0)):
        assert not isinstance(outcome, Failed)
        if isinstance(outcome, Started):
            begun.add(outcome.run)
            most = max(most, len(begun))
        if isinstance(outcome, Delivered):
            begun.discard(outcome.run)
    assert jobs == most
    assert 3 == len(server.tasks)
    assert 1 == sum(request.endpoint == "auth.login" for request in server.requests)


def test_the_same_directory_by_several_ways_is_one_run(server: ClearMLDouble, pile: Path) -> None:
    """Its path, a link to it, the folders above: one outcome and one task."""
    link = pile.parent / "latest"
    link.symlink_to(pile / "detect" / "train")
    ways = [link, pile / "detect" / "train", pile / "detect" / ".." / "detect", pile / "detect"]
    outcomes = last(library.upload(find_runs(ways, Choice(exclude=("train2",))), QUICK))
    assert {"latest": Delivered, "val": Skipped} == {name: type(o) for name, o in outcomes.items()}
    assert 1 == len(server.tasks)


def test_a_program_can_stop_and_go_on(server: ClearMLDouble, pile: Path) -> None:
    """After ``stop`` nothing is begun; what was done is remembered, and the next call does the rest."""
    stop = threading.Event()
    runs = list(find_runs([pile]))
    done = 0
    for outcome in library.upload(runs, Options(jobs=1, timeout=2.0), stop):
        if isinstance(outcome, Delivered):
            done += 1
            stop.set()
    remembered = [run for run in runs if isinstance(run, Path) and FileLedgers().load(run).settled]
    assert 1 <= done < 3
    assert done == len(remembered)
    told = Counter(kinds(library.upload(runs, QUICK)).values())
    assert {"UpToDate": done, "Delivered": 3 - done, "Skipped": 2} == told
    assert 3 == len(server.tasks)
    assert [] == list(library.upload(runs, Options(force=True), stop))


def test_a_program_that_loses_interest_leaves_true_ledgers(server: ClearMLDouble, pile: Path) -> None:
    """The iterator is closed at the first outcome: no thread is left, and the rest is sent next time."""
    outcomes = library.upload(find_runs([pile]), QUICK)
    while not isinstance(next(outcomes), Started):
        pass
    outcomes.close()  # type: ignore[attr-defined]
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith("run_")]
    assert "Failed" not in kinds(library.upload(find_runs([pile]), QUICK)).values()
    assert {"completed", "stopped"} == {task["status"] for task in server.tasks.values()}
    assert 3 == len(server.tasks)


def test_a_rehearsal_records_and_touches_nothing(server: ClearMLDouble, pile: Path) -> None:
    """The plan of each run, as a value; no request and no file."""
    files = sorted(pile.rglob("*"))
    recording = RecordingSink()
    outcomes = last(library.upload(find_runs([pile]), rehearsal=recording))
    assert {"train", "train2", "exp"} == {run.name for run in recording.recorded}
    assert {run.name for run in recording.recorded} == {
        n for n, o in outcomes.items() if isinstance(o, Delivered)
    }
    assert ([], files) == (server.requests, sorted(pile.rglob("*")))


def test_options_reach_the_server(server: ClearMLDouble, pile: Path, tmp_path: Path) -> None:
    """Project, name, tags, --new and --force as on the command line; offline asks no server."""
    run = pile / "detect" / "train"
    got = last(library.upload([run], Options(offline=tmp_path / "sessions")))
    assert isinstance(got["train"], Delivered)
    assert (1, []) == (len(list((tmp_path / "sessions").glob("*.zip"))), server.requests)
    named = Options("lab/shapes", " first ", ("a", "b"), timeout=2.0)
    got = last(library.upload([run], named))
    (task,) = server.tasks.values()
    told = (server.projects[task["project"]]["name"], task["name"], task["tags"])
    assert ("lab/shapes", "first", ["a", "b"]) == told
    state = end_state(server)
    assert {"train": "Delivered"} == kinds(library.upload([run], Options(force=True)))
    assert state == end_state(server)
    assert {"train": "Delivered"} == kinds(library.upload([run], Options(new=True)))
    assert 2 == len(server.tasks)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("--jobs", {"jobs": 0}),
        ("--jobs", {"jobs": 65}),
        ("--timeout", {"timeout": 0.0}),
        ("--timeout", {"timeout": float("nan")}),
        ("--stale-after", {"stale_after": float("inf")}),
        ("--force and --new", {"force": True, "new": True}),
        ("--project 'ab'", {"project": "ab"}),
        ("--name ' a '", {"name": " a "}),
        ("--tags is empty", {"tags": ("x", " ")}),
        ("--rules 'new'", {"rules": "new"}),
    ],
)
def test_options_that_cannot_be_meant(said: str, wrong: dict[str, object]) -> None:
    """An error where they are made, not where they are used."""
    with pytest.raises(UsageError, match=said):
        Options(**wrong)  # type: ignore[arg-type]


def test_a_server_that_is_down_fails_each_run_once_and_soon(server: ClearMLDouble, pile: Path) -> None:
    """No exception comes out of the iterator; each failure says that all runs meet it."""
    server.stop_api()
    begun = time.monotonic()
    outcomes = last(library.upload(find_runs([pile]), Options(timeout=1.0)))
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Failed)]
    assert (3, {True}) == (len(failed), {failure.error.outage for failure in failed})
    assert time.monotonic() - begun < 10
    server.start_api()
    assert 3 == Counter(kinds(library.upload(find_runs([pile]), QUICK)).values())["Delivered"]


def test_status_of_what_cannot_be_read(make_run: MakeRun, tmp_path: Path) -> None:
    """A value, not an exception; gone, damaged, and a live run that is not there yet."""
    bad = make_run("v8.4.190-detect")
    (bad / "args.yaml").unlink()
    damaged, gone, live = library.status(
        [bad, tmp_path / "gone", make_run("v8.4.190-detect-killed")], Options(stale_after=1e9)
    )
    assert isinstance(damaged, Failed)
    assert isinstance(gone, Failed)
    assert "is not there any more" in str(gone.error)
    assert isinstance(live, Pending)
    assert (RunState.LIVE, 3, 8) == (live.facts.state, live.facts.epochs, live.facts.of_epochs)
    assert not (live.run / LEDGER_NAME).exists()


def test_a_program_watches_until_it_has_seen_enough(server: ClearMLDouble, pile: Path) -> None:
    """A run that appears meanwhile is delivered, one that is excluded is not; a skipped one is named."""
    stop = threading.Event()
    said: list[str] = []
    seen: list[tuple[str, str]] = []
    hidden = pile.parent / "hidden"
    (pile / "lab" / "shapes" / "exp").rename(hidden)
    choice = Choice(exclude=("train2",))
    late = threading.Timer(20.0, stop.set)  # so that a watch that misses something fails, and does not hang
    late.start()
    for outcome in library.watch([pile], QUICK, stop, poll=1.0, choice=choice, say=said.append):
        seen.append((outcome.run.name, type(outcome).__name__))
        match outcome:
            case Delivered(run=Path(name="train")):
                hidden.rename(pile / "lab" / "new")
            case Delivered(run=Path(name="new")):
                stop.set()
    late.cancel()
    assert {("train", "Delivered"), ("new", "Delivered"), ("val", "Skipped")} <= set(seen)
    assert "train2" not in {name for name, _ in seen}
    assert 2 == len(server.tasks)


def test_a_watch_that_is_to_end_ends(server: ClearMLDouble, pile: Path) -> None:
    """``once``: when everything has ended and is delivered, with the very state that an upload leaves."""
    assert {"train", "train2", "exp"} == {
        name for name, kind in kinds(library.watch([pile], QUICK, once=True)).items() if kind == "Delivered"
    }
    state = end_state(server)
    assert {"UpToDate", "Skipped"} == set(kinds(library.upload(find_runs([pile]), QUICK)).values())
    assert state == end_state(server)
    with pytest.raises(UsageError, match="does not exist"):
        list(library.watch([pile / "nowhere"], QUICK))
    with pytest.raises(UsageError, match="--poll"):
        list(library.watch([pile], QUICK, poll=0.0))


def test_two_copies_of_a_run_in_one_call_are_one_task(server: ClearMLDouble, make_run: MakeRun) -> None:
    """Sent at the same time, by two threads, in two directories."""
    folder = make_run("v8.4.190-detect-killed", "one").parent
    make_run("v8.4.190-detect-killed", "two")
    together = threading.Barrier(2, timeout=20)
    looked: list[str] = []

    def meet(endpoint: str, number: int) -> None:
        if endpoint == "tasks.create" and len(looked) < 2:
            looked.append(endpoint)
            together.wait()

    server.before_request = meet
    outcomes = last(library.upload(find_runs([folder]), Options(jobs=2)))
    assert {"Delivered"} == {type(outcome).__name__ for outcome in outcomes.values()}
    assert 2 == len(looked)
    (task,) = server.tasks
    assert {task} == {getattr(outcome, "task_id", None) for outcome in outcomes.values()}
    assert "stopped" == server.tasks[task]["status"]


def test_the_library_prints_nothing_and_knows_no_terminal(pile: Path) -> None:
    """A program that asks how runs stand gets no command line, no colours and no ClearML with it."""
    code = (
        "import sys; from pathlib import Path\n"
        "from yolo_clearml import library; from yolo_clearml.rundir.finding import find_runs\n"
        "assert len(list(library.status(find_runs([Path(sys.argv[1])])))) == 5\n"
        "sys.exit(str(sorted({'clearml', 'requests', 'typer', 'rich', 'watchdog'} & set(sys.modules))))"
    )
    command = [sys.executable, "-c", code, str(pile)]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert ("", "[]\n") == (ended.stdout, ended.stderr)


def test_what_is_no_run_may_be_given_as_well(server: ClearMLDouble, tmp_path: Path) -> None:
    """A program passes on what it found, or made up, without a look at it."""
    made_up = NotARun(tmp_path, "is a place of mine", "Leave it.")
    expected = [Skipped(tmp_path, "is a place of mine", "Leave it.")]
    assert expected == list(library.upload([made_up]))
    assert expected == list(library.status([made_up]))
    assert [] == [*library.upload([]), *library.status([])]


@pytest.mark.parametrize("command", [library.upload, library.verify])
def test_the_outcomes_that_are_named_are_public(command: Callable[..., object]) -> None:
    """What the documentation says to expect can be imported and matched."""
    named = re.findall(r"last outcome of a run is ([\w, ]+)", command.__doc__ or "")
    outcomes = {name for names in named for name in re.split(", | or ", names)}
    assert {"UpToDate", "Skipped", "Failed"} == outcomes - {"Delivered"}
    assert outcomes <= set(yolo_clearml.__all__)


def test_a_program_reads_what_differs(server: ClearMLDouble, make_run: MakeRun) -> None:
    """The outcome is UpToDate either way; its proof says in what the task differs, if it does."""
    run = make_run("v8.4.190-detect-noplots")
    list(library.upload([run], QUICK))
    for differing in (0, 1):
        outcome = list(library.verify([run], QUICK))[-1]
        assert isinstance(outcome, UpToDate)
        assert isinstance(outcome.proof, Verdict)
        assert [Difference] * differing == [type(difference) for difference in outcome.proof.differences]
        (task,) = server.tasks.values()
        task["status"] = "stopped"
