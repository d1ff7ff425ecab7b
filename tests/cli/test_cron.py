"""Cron: the lines of the README in its poor environment, two at once, locks of the dead, copies elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, MakeRun, one_in, sampled
from double import ClearMLDouble, Hook

from yolo_clearml.sync.ledger import LEDGER_NAME

PROGRAM = Path(sys.executable).with_name("yolo-clearml")
BLOCKS = re.findall(r"^```cron\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
LINES = [
    re.sub(r"^(@\w+|(\S+\s+){4}\S+)\s+", "", line)
    for block in BLOCKS
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
WORDS = {"gpu1": "detect"}  # a folder of a line in the README, and that of the test which stands for it


class Cron:
    """Calls command lines as cron does, for a user whose home holds a clearml.conf and the program."""

    def __init__(self, home: Path, server: ClearMLDouble) -> None:
        self.home = home
        self._begun: list[subprocess.Popen[str]] = []
        (home / ".local" / "bin").mkdir(parents=True)
        (home / ".local" / "bin" / "yolo-clearml").symlink_to(PROGRAM)
        (home / "clearml.conf").write_text(
            f'api {{\n  api_server: "{server.api_url}"\n  web_server: "{server.web_url}"\n'
            f'  files_server: "{server.files_url}"\n  credentials {{\n'
            f'    access_key: "{server.access_key}"\n    secret_key: "{server.secret_key}"\n  }}\n}}\n'
        )

    def begin(self, line: str) -> subprocess.Popen[str]:
        """Begin a line, with nothing in its environment but what cron puts there."""
        poor = [f"HOME={self.home}", "PATH=/usr/bin:/bin", "SHELL=/bin/sh"]
        command = ["env", "-i", *poor, "/bin/sh", "-c", line]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.home, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        self._begun.append(process)
        return process

    def close(self) -> None:
        """End what a failed test left, and what that began."""
        for process in self._begun:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def __call__(self, line: str) -> tuple[int, str, str]:
        """Give the status and what cron would mail."""
        process = self.begin(line)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def cron(server: ClearMLDouble, tmp_path: Path) -> Iterator[Cron]:
    user = Cron(tmp_path / "home", server)
    yield user
    user.close()


@pytest.fixture
def pile(make_run: MakeRun) -> Path:
    """Give a folder with two runs, the second one killed."""
    make_run("v8.4.190-detect-noplots", "detect/train")
    killed = make_run("v8.4.190-detect-killed", "detect/train2")
    args = killed / "args.yaml"
    times = args.stat()
    # in a process of its own, a figure takes a second to draw
    args.write_bytes(args.read_bytes().replace(b"plots: true", b"plots: false"))
    os.utime(args, ns=(times.st_atime_ns, times.st_mtime_ns))
    return killed.parent.parent


UPLOAD = "$HOME/.local/bin/yolo-clearml upload"


class Held:
    """A process that is kept at its first request to an endpoint."""

    def __init__(self, server: ClearMLDouble, endpoint: str) -> None:
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self._endpoint, self._server = endpoint, server
        server.before_request = self._hold

    def _hold(self, endpoint: str, number: int) -> None:
        if endpoint == self._endpoint and not self.arrived.is_set():
            self.arrived.set()
            self.go_on.wait(60)


@pytest.fixture
def held(server: ClearMLDouble) -> Iterator[Held]:
    """Hold the first that makes a task, for the time of a test."""
    hold = Held(server, "tasks.create")
    yield hold
    hold.go_on.set()


def test_there_are_lines_to_try() -> None:
    """And none has a percent sign, which cron takes for the end of the line."""
    assert len(LINES) >= 1
    assert [] == [line for line in LINES if "%" in line or "yolo-clearml" not in line]


@pytest.mark.parametrize("line", sampled(LINES, one_in(len(LINES))))
def test_a_line_of_the_readme_does_what_it_says(
    cron: Cron, server: ClearMLDouble, pile: Path, line: str
) -> None:
    """It sends what there is; from then on it is silent, wherever its output goes, and asks no server."""
    line = line.replace("/data/runs", str(pile))
    for word, stands_for in WORDS.items():
        line = line.replace(word, stands_for)
    status, _, err = cron(line)
    assert (0, "") == (status, err)
    assert ["completed", "stopped"] == sorted(task["status"] for task in server.tasks.values())
    logs = {path: path.read_text() for path in cron.home.rglob("*.log")}
    assert ">>" not in line or 2 == sum(text.count("\n") for text in logs.values())
    assert ("--metrics" in line) is bool(list(cron.home.rglob("*.prom")))
    count = len(server.requests)
    assert (0, "", "") == cron(line)
    assert logs == {path: path.read_text() for path in cron.home.rglob("*.log")}
    assert count == len(server.requests)


def test_a_failure_is_mailed_and_nothing_else(cron: Cron, server: ClearMLDouble, pile: Path) -> None:
    """A run that cannot be read: each time a line on stderr, with no colour, and its own status."""
    assert 0 == cron(f"{UPLOAD} {pile}")[0]
    (pile / "detect" / "bad").mkdir()
    (pile / "detect" / "bad" / "results.csv").touch()
    for _ in range(2):
        status, out, err = cron(f"{UPLOAD} {pile}")
        assert (3, "", 1, 0) == (status, out, err.count("\n"), err.count("\x1b"))
        assert "bad/args.yaml is missing" in err


def test_two_at_once_on_one_run(cron: Cron, server: ClearMLDouble, pile: Path, held: Held) -> None:
    """One works on it, the other says so and leaves it alone (75); there is one task."""
    line = f"{UPLOAD} {pile / 'detect' / 'train'}"
    first = cron.begin(line)
    assert held.arrived.wait(30)
    status, out, err = cron(line)
    assert (75, "", 1) == (status, out, err.count("\n"))
    assert "Another yolo-clearml is at work on " in err
    held.go_on.set()
    assert "" == first.communicate(timeout=60)[1]
    assert (0, 1) == (first.returncode, len(server.tasks))
    assert (0, "", "") == cron(line)


@pytest.mark.exhaustive
def test_two_at_once_on_a_pile(cron: Cron, server: ClearMLDouble, pile: Path, held: Held) -> None:
    """The other takes the other runs, and says which one it had to leave (75)."""
    line = f"{UPLOAD} -j 1 {pile}"
    first = cron.begin(line)
    assert held.arrived.wait(30)
    status, out, err = cron(line)
    assert (75, 1, 1) == (status, out.count("\n"), err.count("\n"))
    assert "detect/train2: sent " in out
    assert "detect/train: failed: Another yolo-clearml is at work on " in err
    assert ["stopped"] == [task["status"] for task in server.tasks.values()]
    held.go_on.set()
    out, err = first.communicate(timeout=60)
    assert (0, "", 1) == (first.returncode, err, out.count("\n"))
    assert 2 == len(server.tasks)
    assert (0, "", "") == cron(line)


def test_a_lock_of_the_dead_does_not_block(cron: Cron, server: ClearMLDouble, pile: Path, held: Held) -> None:
    """Killed in the middle of a run: the next call does that and the rest."""
    process = cron.begin(f"exec {UPLOAD} -j 1 {pile}")
    assert held.arrived.wait(30)
    assert (pile / "detect" / "train" / LEDGER_NAME).exists()
    process.kill()
    held.go_on.set()
    process.communicate(timeout=60)
    assert -signal.SIGKILL == process.returncode
    status, out, err = cron(f"{UPLOAD} {pile}")
    assert (0, "", 2) == (status, err, out.count("\n"))
    assert ["completed", "stopped"] == sorted(task["status"] for task in server.tasks.values())
    assert (0, "", "") == cron(f"{UPLOAD} {pile}")


@pytest.mark.exhaustive
def test_what_was_done_before_a_stop_is_remembered(cron: Cron, server: ClearMLDouble, pile: Path) -> None:
    """One run is there, the other is being sent: only that one is in the next call's mail."""
    made = 0
    arrived, go_on = threading.Event(), threading.Event()

    def hold(endpoint: str, number: int) -> None:
        nonlocal made
        made += endpoint == "tasks.create"
        if made == 2 and not arrived.is_set():
            arrived.set()
            go_on.wait(60)

    server.before_request = hold
    process = cron.begin(f"exec {UPLOAD} -j 1 {pile}")
    assert arrived.wait(30)
    process.send_signal(signal.SIGINT)
    go_on.set()
    out, err = process.communicate(timeout=60)
    assert (130, 1) == (process.returncode, out.count("detect/train: sent "))
    assert err.endswith("run the same command again for the rest.\n")
    out = cron(f"{UPLOAD} {pile}")[1]
    assert "detect/train2: sent " in out
    assert "detect/train: " not in out


@pytest.mark.exhaustive
def test_copies_on_two_machines_at_once_are_one_task(
    server: ClearMLDouble, pile: Path, tmp_path: Path
) -> None:
    """No lock is shared, and each looks before the other has made its task: still one, from both sides."""
    run = pile / "detect" / "train"
    machines = [Cron(tmp_path / name, server) for name in ("one", "two")]
    for machine in machines:
        shutil.copytree(run, machine.home / "runs" / "train")  # file times are kept
    together = threading.Barrier(2, timeout=60)
    met: list[int] = []

    def meet(endpoint: str, number: int) -> None:
        if endpoint == "tasks.create" and len(met) < 2:
            met.append(number)
            together.wait()

    hook: Hook = meet
    server.before_request = hook
    processes = [machine.begin(f"{UPLOAD} $HOME/runs") for machine in machines]
    ended = [process.communicate(timeout=60) for process in processes]
    assert [(0, ""), (0, "")] == [(p.returncode, e[1]) for p, e in zip(processes, ended, strict=True)]
    (task,) = server.tasks
    assert 2 == len(met)
    assert [True, True] == [f"/tasks/{task}/" in out for out, _ in ended]
    assert "completed" == server.tasks[task]["status"]
    assert 1 == len(server.models)
    assert [(0, "", "")] * 2 == [machine(f"{UPLOAD} $HOME/runs") for machine in machines]


def test_without_a_configuration_cron_gets_a_hint(cron: Cron, pile: Path) -> None:
    """78, the reason once, and what to do."""
    (cron.home / "clearml.conf").unlink()
    status, out, err = cron(f"{UPLOAD} {pile}")
    assert (78, "", 1) == (status, out, err.count("clearml-init"))


def test_status_needs_no_more_than_cron_has(cron: Cron, server: ClearMLDouble, pile: Path) -> None:
    """Letters that this environment has no locale for are written all the same."""
    (pile / "detect" / "train").rename(pile / "detect" / "läufe")
    status, out, err = cron(f"$HOME/.local/bin/yolo-clearml status {pile}")
    assert (0, "", 0) == (status, err, out.count("\x1b"))
    assert 2 == out.count("not there yet")
    assert [] == server.requests
