"""Every endpoint with every fault: once at each request, and for ever at each endpoint.

What stands here of endpoints is held against the source, so that a new one does not go untested. Pauses
between two tries go by on a clock of the test's, so that nothing depends on how fast the machine is, and
every wait is counted. Replies that are late or endless are waited for in true time, a quarter of a second.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MakeRun, long_after, one_in, sampled
from double import (
    ClearMLDouble,
    Drip,
    DropAfter,
    DropBefore,
    Endless,
    Fault,
    Fewer,
    Hang,
    NotJson,
    Silent,
    Status,
    Truncate,
)
from endpoints import UNNAMED, endpoints_in_source
from live import expected, report_live
from timelines import Clock, Watch
from tunings import as_tuning
from uploading import end_state, fails, upload

from yolo_clearml.errors import Exit
from yolo_clearml.replay.rules import Wishes
from yolo_clearml.replay.wanted import Wanted
from yolo_clearml.rundir.choice import FileChoice
from yolo_clearml.server import exchange
from yolo_clearml.sync.outcomes import Delivered, Failed, Outcome, UpToDate
from yolo_clearml.sync.work import Aim

PATIENT, HASTY = 5.0, 0.25  # seconds: by the clock of the test, and where a fault takes true time
MOST_TRIES = 60  # of a request in that time; a loop that does not wait makes thousands
LATER = "Wed, 21 Oct 2099 07:28:00 GMT"


# -- waiting ----------------------------------------------------------------------------------------------


@dataclass
class Waits:
    """Pauses between two tries: none takes time, and each thread sees its own go by."""

    all: list[float] = field(default_factory=list)  # seconds
    _mine: threading.local = field(default_factory=threading.local)

    def monotonic(self) -> float:
        return time.monotonic() + getattr(self._mine, "gone", 0.0)

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= PATIENT, "endless"
        self.all.append(seconds)
        self._mine.gone = getattr(self._mine, "gone", 0.0) + seconds


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits()
    monkeypatch.setattr("tenacity.time", SimpleNamespace(monotonic=waits.monotonic))
    monkeypatch.setattr(exchange, "sleep_using_event", lambda stop: waits.sleep)
    return waits


# -- what is done -----------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A server and a run, as they are before the command."""

    server: ClearMLDouble
    run: Path
    options: dict[str, Any] = field(default_factory=dict)
    timeout: float = PATIENT

    def act(self) -> Outcome:
        """Give the command; the one outcome that says how it went."""
        (outcome,) = upload([self.run], timeout=self.timeout, **self.options)
        return outcome


Prepare = Callable[[Stage], None]


def nothing(stage: Stage) -> None:
    """A run that ClearML has never seen."""


def rewrite(file: Path, content: bytes) -> None:
    times = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def died(stage: Stage) -> None:
    """A run that nobody goes on with, and nothing is drawn of."""
    rows = (stage.run / "results.csv").read_bytes().splitlines(keepends=True)
    rewrite(stage.run / "results.csv", b"".join(rows[:2]))
    shutil.rmtree(stage.run / "weights")
    for picture in [*stage.run.glob("*.jpg"), *stage.run.glob("*.png")]:
        picture.unlink()
    args = stage.run / "args.yaml"
    rewrite(args, args.read_bytes().replace(b"plots: true", b"plots: false"))


def told(stage: Stage, links_only: bool = False) -> None:
    """A run that was reported live, but for an image, a plot, a point and the model."""
    live = expected("v8.4.190-detect.expected")
    live["output_model"] = live["output_model"] if links_only else []
    drawn = {path.stem for path in stage.run.glob("*.png")}
    live["plots"] = [plot for plot in live["plots"] if plot[0] in drawn]
    live["images"] = [image for image in live["images"] if image[1] == "val_pred.jpg" and image[2] == 0]
    task = report_live(stage.server, live, stage.run)
    if not links_only:
        stage.server.forget_event(task, "training_stats_scalar", ("train", "train/box_loss", 1))
    (image,) = stage.server.images(task).values()
    stage.server.replace_file(image["url"], None)


def dead_link(stage: Stage) -> None:
    """A run that was reported live, and whole but for the file of an image."""
    told(stage, links_only=True)


def reported_by_a_stranger(stage: Stage) -> None:
    """A task of another name, reported by a person, asked for with --task-id."""
    told(stage)
    (task,) = stage.server.tasks.values()
    task["name"] = "something else"
    stage.options["task_id"] = task["id"]


def reset(stage: Stage) -> None:
    """A run whose task a person has reset, and that has something new."""
    assert isinstance(stage.act(), Delivered)
    picture = stage.run / "val_batch0_pred.jpg"
    rewrite(picture, picture.read_bytes()[:-2] + b"\x00\xff\xd9")
    (task,) = stage.server.tasks
    stage.server.ask("tasks.reset", task=task, force=True, delete_external_artifacts=False)


def renamed(stage: Stage) -> None:
    """A run whose model a person has renamed, sent again with --force."""
    assert isinstance(stage.act(), Delivered)
    (model,) = stage.server.models.values()
    model["name"] = "something else"
    stage.options["force"] = True


def raced(stage: Stage) -> None:
    """Another uploader makes the task and the model between our look and our making."""
    server, done = stage.server, set()

    def make(endpoint: str, number: int) -> None:
        payload = server.requests[number - 1].payload
        if endpoint in ("tasks.create", "models.create") and endpoint not in done:
            done.add(endpoint)
            server.clock = lambda: time.time() - 1.0  # the other one's is the older
            server.ask(endpoint, **payload)
            server.clock = time.time

    server.before_request = make


def uploaded(stage: Stage) -> None:
    """A run that is all there, to be read back."""
    assert isinstance(stage.act(), Delivered)
    stage.options["aim"] = Aim.VERIFY


def moved(stage: Stage) -> None:
    """A run that is all there, to be put into another project under another name."""
    assert isinstance(stage.act(), Delivered)
    stage.options |= {"move": True, "wishes": Wishes("Lab/Moved", "shapes")}


def grown(stage: Stage) -> None:
    """A run without times of which a row was reported while it trained, and that has ended since."""
    table = stage.run / "results.csv"
    rows = [line.split(b",") for line in table.read_bytes().splitlines()]
    rewrite(table, b"".join(b",".join((row[0], *row[2:])) + b"\n" for row in rows))
    whole = stage.run.with_name("whole")
    shutil.copytree(stage.run, whole, dirs_exist_ok=True)
    died(stage)
    assert isinstance(stage.act(), Delivered)
    (task,) = stage.server.tasks
    stage.server.ask("tasks.started", task=task, force=True)
    shutil.copytree(whole, stage.run, dirs_exist_ok=True)


def noted(stage: Stage) -> None:
    """A run with a further file, that is asked for."""
    notes = stage.run / "notes.txt"
    notes.write_text("it converges")
    os.utime(notes, (1.6e9, 1.6e9))
    stage.options["wanted"] = Wanted(artifacts=FileChoice(("notes.txt",)))


def tuned(stage: Stage) -> None:
    """A tuning whose one training was uploaded before."""
    assert [] == fails(upload([as_tuning(stage.run)], timeout=PATIENT))


LOGIN = {"auth.login", "tasks.get_all_ex"}
SEND = {"tasks.started", "tasks.edit_hyper_params", "events.add_batch", "files:POST", "tasks.completed"}
SEND |= {"events.get_task_log"}
MODEL = {"models.get_all", "models.create", "tasks.add_or_update_model"}
MAKE = {"projects.get_all_ex", "projects.create", "tasks.create"}
READ = {
    "projects.get_all_ex",
    "events.get_scalar_metrics_and_variants",
    "events.scalar_metrics_iter_raw",
    "events.get_task_single_value_metrics",
    "events.get_task_events",
    "models.get_all",
    "files:GET",
}
SCENARIOS: dict[str, tuple[Prepare, set[str]]] = {
    "upload": (nothing, LOGIN | MAKE | SEND | MODEL),
    "died": (died, LOGIN | MAKE | SEND - {"files:POST", "tasks.completed"} | {"tasks.stopped"}),
    "adopt": (told, LOGIN | READ | SEND | MODEL),
    "dead-link": (dead_link, LOGIN | READ | SEND),
    "task-id": (reported_by_a_stranger, LOGIN | READ | SEND | MODEL),
    "reset": (reset, LOGIN | SEND | MODEL | {"tasks.edit"}),
    "renamed": (renamed, LOGIN | SEND | (MODEL - {"models.create"}) | {"models.edit"}),
    "raced": (raced, LOGIN | MAKE | SEND | MODEL | {"tasks.delete", "models.delete"}),
    "verify": (uploaded, LOGIN | READ),
    "moved": (moved, LOGIN | MAKE - {"tasks.create"} | {"tasks.update"}),
    "artifacts": (noted, LOGIN | MAKE | SEND | MODEL | {"tasks.add_or_update_artifacts"}),
    "tuning": (
        tuned,
        LOGIN | MAKE - {"projects.create"} | SEND | MODEL | {"tasks.edit"},
    ),
    "grown": (
        grown,
        LOGIN | SEND - {"tasks.started"} | MODEL | {"projects.get_all_ex", "tasks.edit_runtime"},
    ),
}
# where the rest is asked for as in another scenario, and struck there
STRUCK = {
    "died": {"tasks.stopped"},
    "dead-link": {"files:GET"},
    "reset": {"tasks.edit"},
    "renamed": {"models.edit"},
    "raced": {"tasks.delete", "models.delete"},
    "task-id": {"tasks.get_all_ex", "tasks.edit_hyper_params", "tasks.started"},
    "grown": {"tasks.edit_runtime"},
    "moved": {"tasks.update", "projects.create"},
    "artifacts": {"tasks.add_or_update_artifacts"},
    "tuning": {"tasks.edit"},
}


@pytest.fixture
def original(make_run: MakeRun) -> Path:
    """Give a small finished run with an image, a plot and a model."""
    run = make_run("v8.4.190-detect-noplots", "original")
    donor = make_run("v8.4.190-detect")
    shutil.copy2(donor / "args.yaml", run)
    shutil.copy2(donor / "results.csv", run)
    for name in ("val_batch0_pred.jpg", "results.png"):
        shutil.copy2(donor / name, run)
    (run / "weights" / "last.pt").unlink()
    return run


Begin = Callable[[str], Any]


@pytest.fixture
def begin(original: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: Waits) -> Begin:
    """Give a function that sets a stage for a scenario."""
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "no-clearml.conf"))
    monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))

    @contextmanager
    def begin(scenario: str) -> Iterator[Stage]:
        run = original.parent / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(original, run)
        with ClearMLDouble() as server, monkeypatch.context() as patch:
            for name, value in server.environ.items():
                patch.setenv(name, value)
            stage = Stage(server, run)
            SCENARIOS[scenario][0](stage)
            server.requests.clear()
            yield stage

    return begin


_undisturbed: dict[str, tuple[dict[str, Any], list[str]]] = {}


def undisturbed(begin: Begin, scenario: str) -> tuple[dict[str, Any], list[str]]:
    """What is there in the end when nothing fails, and the endpoints in the order of their first use."""
    if scenario not in _undisturbed:
        with begin(scenario) as stage:
            assert is_done(stage.act())
            asked = list(dict.fromkeys(request.endpoint for request in stage.server.requests))
            _undisturbed[scenario] = end_state(stage.server), asked
    return _undisturbed[scenario]


def is_done(outcome: Outcome) -> bool:
    """Whether a command says that all is well."""
    if isinstance(outcome, Delivered) or (isinstance(outcome, UpToDate) and outcome.proof is not None):
        return outcome.proof is None or not outcome.proof.differences
    return isinstance(outcome, UpToDate)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_a_scenario_asks_for(begin: Begin, scenario: str) -> None:
    """The endpoints that are struck below are those that are asked for."""
    assert SCENARIOS[scenario][1] == set(undisturbed(begin, scenario)[1])


def test_no_endpoint_goes_untested() -> None:
    """Whatever the source names is asked for in a scenario, by a watch, or by trainings that begin alike."""
    in_scenarios = set().union(*(endpoints for _, endpoints in SCENARIOS.values()))
    assert endpoints_in_source() | UNNAMED == in_scenarios | {"tasks.ping", "tasks.edit_runtime"}


# -- what goes wrong --------------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "429": Status(429),
    "429-in-2-seconds": Status(429, headers={"Retry-After": "2"}),
    "429-at-a-date": Status(429, headers={"Retry-After": LATER}),
    "429-at-nonsense": Status(429, headers={"Retry-After": "soon"}),
    "429-never": Status(429, headers={"Retry-After": "nan"}),
    "500": Status(500),
    "502": Status(502),
    "503": Status(503),
    "504": Status(504),
    "502-of-a-proxy": Status(502, body="<html>Bad Gateway</html>"),
    "reset-before": DropBefore(),
    "reset-after": DropAfter(),
    "cut-off": Truncate(),
    "empty": Status(200, body=b"", headers={"Content-Type": "application/json"}),
}
LASTING: dict[str, Fault] = {
    "400": Status(400),
    "401": Status(401),
    "403": Status(403),
    "404": Status(404),
    "413": Status(413),
    "413-of-a-proxy": Status(413, body="<html>Request Entity Too Large</html>"),
    "307": Status(307, headers={"Location": "/elsewhere"}),
    "429-in-30-years": Status(429, headers={"Retry-After": "1000000000"}),
    "429-in-eternity": Status(429, headers={"Retry-After": "1e999"}),
    "not-json": NotJson(),
    "other-json": Status(200, body=b'{"a": 1}', headers={"Content-Type": "application/json"}),
}
SLOW: dict[str, Fault] = {
    "silent": Silent(),
    "late": Hang(60.0),
    "drip": Drip(0.05),
    "endless": Endless(),
}


# what a file server may answer that is no file of its, and nobody can see that
LIES = ("empty", "not-json", "other-json", "endless")
CASES = [
    (scenario, fault)
    for scenario in SCENARIOS
    for fault in [*PASSING, *LASTING, *SLOW]
    if scenario == "upload" or not fault.startswith("429-")  # read at one place, for all
]


def believed(scenario: str, endpoint: str, fault: str) -> bool:
    """Whether a task that is completed is taken to hold another file than it does."""
    return (
        endpoint == "files:GET" and fault in (*LIES, "404") and scenario in ("adopt", "dead-link", "task-id")
    )


def check_reported(outcome: Outcome, what: str) -> None:
    """A failure is stated as one of ClearML's, with what to do; of files read back, that they differ."""
    if isinstance(outcome, UpToDate) and outcome.proof is not None and outcome.proof.differences:
        assert what.startswith("files:GET") and what.endswith((*LIES, "404")), what
        return
    assert isinstance(outcome, Failed), (what, outcome)
    assert outcome.error.status in (Exit.SOME_FAILED, Exit.UNREACHABLE, Exit.REFUSED), (what, outcome.error)
    assert outcome.error.hint


def check_idle(stage: Stage, waits: Waits, what: str) -> None:
    """Nothing was asked again and again without a pause, and nothing was waited for endlessly."""
    tries = Counter(f"{r.endpoint} {r.payload}" for r in stage.server.requests)
    assert max(tries.values()) <= MOST_TRIES, what
    assert len(waits.all) <= MOST_TRIES * 8, what
    waits.all.clear()
    stage.server.requests.clear()


FAST = {  # of the server, of a proxy, and none; that passes, and that lasts
    *(("upload", "503"), ("upload", "reset-after"), ("adopt", "empty"), ("verify", "502-of-a-proxy")),
    ("reset", "400"),
}

# what lasts costs an upload for each request, so not each of its kinds in each scenario
ONCE = [
    (scenario, fault)
    for scenario, fault in CASES
    if fault in PASSING or (fault in LASTING and (scenario == "upload" or fault in ("400", "401")))
]


@pytest.mark.parametrize(("scenario", "fault"), sampled(ONCE, one_in(19)))
def test_each_request_fails_once(begin: Begin, waits: Waits, scenario: str, fault: str) -> None:
    """What passes is waited for; what does not is printed, and the same command goes on from there."""
    wanted, asked = undisturbed(begin, scenario)
    with begin(scenario) as stage:
        spared = believed(scenario, "files:GET", fault)
        stage.server.fault("[!f]*" if spared else "*", (PASSING | LASTING)[fault], each=True)
        for _ in range(60):
            before = stage.server.struck
            outcome = stage.act()
            check_idle(stage, waits, fault)
            if is_done(outcome):
                break
            check_reported(outcome, f"files:GET {fault}")
            assert stage.server.struck > before, outcome
        assert is_done(outcome), outcome
        assert wanted == end_state(stage.server)
        assert stage.server.struck >= len(asked) - 2 * spared  # and nothing of files
        stage.server.clear_faults()
        assert is_done(stage.act())
        assert wanted == end_state(stage.server)


@pytest.mark.parametrize(("scenario", "fault"), sampled(CASES, FAST.__contains__))
def test_each_endpoint_fails_for_ever(begin: Begin, waits: Waits, scenario: str, fault: str) -> None:
    """One endpoint after the other, never taken for success; when it is over, the same command goes on."""
    wanted, asked = undisturbed(begin, scenario)
    left = [
        endpoint
        for endpoint in asked
        if endpoint in STRUCK.get(scenario, set(asked)) and not believed(scenario, endpoint, fault)
    ]
    kind = (PASSING | LASTING | SLOW)[fault]
    while left:
        with begin(scenario) as stage:
            fresh = True
            while left:
                what = f"{left[0]} {fault}"
                stage.timeout = HASTY if fault in SLOW else PATIENT
                stage.server.fault(left[0], kind, times=None)
                outcome = stage.act()
                struck, done = stage.server.struck, is_done(outcome)
                if done:  # it can be done without a reply
                    assert wanted == end_state(stage.server), what
                else:
                    check_reported(outcome, what)
                stage.server.clear_faults()
                check_idle(stage, waits, what)
                if struck:
                    left.pop(0)
                else:  # what came before has seen to that
                    assert not fresh, what
                fresh = False
                if done or not struck:
                    break
            stage.timeout = PATIENT
            outcome = stage.act()
            assert is_done(outcome), (what, outcome)
            assert wanted == end_state(stage.server), what


@pytest.mark.parametrize("fault", ["empty", "not-json", "other-json"])
def test_a_file_that_is_another_is_named(begin: Begin, waits: Waits, fault: str) -> None:
    """A file server that gives something else for a picture: nothing is overwritten; a message says so."""
    with begin("dead-link") as stage:
        stage.timeout = HASTY if fault in SLOW else PATIENT
        stage.server.fault("files:GET", (PASSING | LASTING | SLOW)[fault], times=None)
        outcome = stage.act()
        assert isinstance(outcome, Delivered), outcome
        assert "ClearML holds another image" in " ".join(outcome.notes)


# -- one bad event ----------------------------------------------------------------------------------------

BAD = ("train", "train/box_loss", 4)


@pytest.mark.parametrize(
    ("how", "bad"),
    sampled(
        itertools.product(
            ("batch", "document", "line"),
            (BAD, ("Validation", "val_pred.jpg", 0), ("Summary", "fitness", -(2**31))),
        ),
        one_in(4),
    ),
    ids=str,
)
def test_a_bad_event_keeps_no_other_back(
    begin: Begin, waits: Waits, how: str, bad: tuple[str, str, int]
) -> None:
    """It is named and counted, all others arrive, the task ends and says that it lacks it; nothing spins."""
    wanted, _ = undisturbed(begin, "upload")
    with begin("upload") as stage:
        server = stage.server
        server.poison(
            how, lambda event: (event.get("metric"), event.get("variant"), event.get("iter")) == bad
        )
        for count in (r"\d+", r"\d+"):  # again, with what is left
            outcome = stage.act()
            assert isinstance(outcome, Failed)
            assert Exit.SOME_FAILED == outcome.error.status
            assert re.search(
                rf"refuses 1 of {count} events, and has the others: .*{re.escape(bad[1])}", str(outcome.error)
            )
            assert len(server.requests) <= 60
            check_idle(stage, waits, how)
            (task,) = server.tasks.values()
            assert ("completed", 1) == (task["status"], len(server.models))
            assert "lacks 1 events" == task["status_message"]
            said = [event["msg"] for event in server.logs(task["id"])]
            assert [True] == [bad[1] in text for text in said if "refused" in text]
            there = places(server)
        server.cure()
        assert isinstance(stage.act(), Delivered)
        assert "" == task["status_message"]
        ended = end_state(server)
        for told in ended["tasks"].values():  # what the console said remains
            told["log"] = [event for event in told["log"] if "refused" not in event["msg"]]
        assert wanted == ended
        assert {bad} == places(server) - there


def places(server: ClearMLDouble) -> set[tuple[str, str, int]]:
    """Everything that events have reported."""
    (task,) = server.tasks
    single = {("Summary", name, -(2**31)) for name in server.single_values(task)}
    images = {key[:3] for key in server.images(task)}
    return {*server.scalars(task), *server.plots(task), *images, *single}


@pytest.mark.parametrize("fault", [Status(400), Status(500), Status(413), Fewer()], ids=str)
def test_a_batch_that_is_refused_whatever_is_in_it(begin: Begin, waits: Waits, fault: Fault) -> None:
    """It is taken apart so far and no further."""
    wanted, _ = undisturbed(begin, "upload")
    with begin("upload") as stage:
        stage.server.fault("events.add_batch", fault, times=None)
        check_reported(stage.act(), str(fault))
        assert sum(r.endpoint == "events.add_batch" for r in stage.server.requests) <= 100
        stage.server.clear_faults()
        assert is_done(stage.act())
        assert wanted == end_state(stage.server)


@pytest.mark.parametrize("most", [1, 5, 20])
def test_a_proxy_that_takes_small_requests_only(begin: Begin, waits: Waits, most: int) -> None:
    """413 for what has more than so many events: in smaller parts, everything arrives."""
    wanted, _ = undisturbed(begin, "upload")
    with begin("upload") as stage:
        page = Status(413, body="<html>Request Entity Too Large</html>")
        stage.server.fault("events.add_batch", page, times=None, only=lambda lines: len(lines) > most)
        assert is_done(stage.act())
        assert wanted == end_state(stage.server)


# -- tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "scenario"),
    sampled(itertools.product(["none", *PASSING, *LASTING], ["upload", "adopt", "verify"]), one_in(19)),
)
def test_a_token_that_expires_at_any_moment(begin: Begin, waits: Waits, scenario: str, fault: str) -> None:
    """Before each request in turn, of the file server too; and the new login fails as well."""
    wanted, _ = undisturbed(begin, scenario)
    with begin(scenario) as stage:
        server, over = stage.server, False
        server.files_auth = True

        def expire(endpoint: str, number: int) -> None:
            if endpoint != "auth.login" and not over:
                server.expire_tokens()
                if fault != "none" and number % 2:
                    server.fault("auth.login", (PASSING | LASTING)[fault])

        server.before_request = expire
        outcome = stage.act()
        check_idle(stage, waits, fault)
        if not is_done(outcome):
            check_reported(outcome, fault)
        over = True
        server.clear_faults()
        assert is_done(stage.act())
        assert wanted == end_state(server)


# -- several runs -----------------------------------------------------------------------------------------


@dataclass
class Two:
    """A run whose requests fail, for as long as nobody mends that, and one that is well."""

    server: ClearMLDouble
    bad: Path
    good: Path

    def concerns_bad(self, payload: Any) -> bool:
        tasks = {task_id for task_id, task in self.server.tasks.items() if task["name"] == "bad-run"}
        projects = {key for key, project in self.server.projects.items() if project["name"] == "bad-project"}
        text = repr(payload)
        return any(word in text for word in {"bad-run", r"bad\\-project", "bad-project", *tasks, *projects})

    @property
    def statuses(self) -> dict[str, str]:
        return {task["name"]: task["status"] for task in self.server.tasks.values()}


@pytest.fixture
def two(begin: Begin, original: Path) -> Iterator[Two]:
    with begin("upload") as stage:
        runs = []
        for name in ("bad", "good"):
            run = original.parent / f"{name}-run"
            shutil.copytree(original, run)
            args = (run / "args.yaml").read_bytes()
            args = re.sub(rb"(?m)^name: .*$", b"name: %s-run" % name.encode(), args)
            args = re.sub(rb"(?m)^project: .*$", b"project: %s-project" % name.encode(), args)
            rewrite(run / "args.yaml", args)
            runs.append(run)
        yield Two(stage.server, *runs)


ONE_RUN = sorted(SCENARIOS["upload"][1] - {"auth.login", "tasks.get_all_ex"})
TARGETS = [(endpoint, "503") for endpoint in ONE_RUN]
TARGETS += [("events.add_batch", fault) for fault in [*PASSING, *LASTING] if fault not in ("503", "401")]
TARGETS += [("files:POST", fault) for fault in ("reset-before", "504", "413", "not-json")]


@pytest.mark.parametrize(("endpoint", "fault"), sampled(TARGETS, one_in(13)))
def test_a_run_that_fails_for_ever_stops_no_other(two: Two, waits: Waits, endpoint: str, fault: str) -> None:
    """Whatever the server does to one run, in each upload of both the other one is delivered."""
    two.server.fault(endpoint, (PASSING | LASTING)[fault], times=None, only=two.concerns_bad)
    waited = (
        endpoint == "files:POST" and fault in PASSING
    )  # the file server, once for all: pictures come later
    outcomes = {o.run: o for o in upload([two.bad, two.good], timeout=PATIENT)}
    assert two.server.struck
    assert is_done(outcomes[two.good]) or waited, outcomes
    if not is_done(outcomes[two.bad]):
        check_reported(outcomes[two.bad], fault)
    two.server.clear_faults()
    assert all(is_done(outcome) for outcome in upload([two.bad, two.good], timeout=PATIENT))
    assert {"bad-run": "completed", "good-run": "completed"} == two.statuses


@pytest.mark.parametrize(("endpoint", "fault"), sampled(TARGETS, one_in(13)))
def test_a_watch_goes_on_while_one_run_fails(two: Two, waits: Waits, endpoint: str, fault: str) -> None:
    """The other run is reported within two minutes; the bad one is tried ever more rarely, then by itself."""
    two.server.fault(endpoint, (PASSING | LASTING)[fault], times=None, only=two.concerns_bad)
    watch = Watch(Clock(long_after()), timeout=PATIENT)
    watch.notice(two.bad, two.good)
    outcomes = list(watch.outcomes(120))
    assert two.server.struck
    assert any(outcome.run == two.good and is_done(outcome) for outcome in outcomes)
    later = list(watch.outcomes(1200))
    assert len(later) <= 50
    two.server.clear_faults()
    last = [outcome for outcome in watch.outcomes(700) if outcome.run == two.bad]
    assert {"bad-run": "completed", "good-run": "completed"} == two.statuses
    assert all(map(is_done, last))
