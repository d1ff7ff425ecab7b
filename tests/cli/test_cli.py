"""The command line as scripts, cron jobs and people lean on it: streams, statuses, options, signals."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest
import typer.main
from conftest import MakeRun, one_in, sampled
from double import ClearMLDouble, Hang, Status
from typer.testing import CliRunner

from yolo_clearml import __version__
from yolo_clearml.cli import app as cli
from yolo_clearml.errors import Exit
from yolo_clearml.rundir.choice import Shard
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers

OPTIONS = {
    "--project",
    "--name",
    "--move",
    "--tags",
    "--output-uri",
    "--only",
    "--without",
    "--models",
    "--artifacts",
    "--val-of",
    "--rules",
    "--offline",
    "--dry-run",
    "--force",
    "--task-id",
    "--new",
    "--verify",
    "--metrics",
    "--follow-links",
    "--jobs",
    "--include",
    "--exclude",
    "--shard",
    "--stale-after",
    "--timeout",
    "--json",
    "--quiet",
    "--verbose",
}
COMMAND = [sys.executable, "-c", "import yolo_clearml.cli.app as c; c.main()"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


class Ended(NamedTuple):
    """How a call went."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Give a function that calls the program in this process, piped, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", *os.environ):
        if name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS") or name.startswith("YOLO_CLEARML_"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["yolo-clearml", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def small(make_run: MakeRun) -> Path:
    """Give a finished run with few files."""
    return make_run("v8.4.190-detect-noplots")


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- streams ---------------------------------------------------------------------------------------------


def test_piped_it_prints_a_line_per_run_and_then_nothing(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The line names the run, what was sent and the task; the second call is silent on both streams."""
    make_run("v8.4.190-detect"), make_run("v8.4.190-predict")
    ended = run_cli("upload", "runs")
    (task,) = server.tasks
    assert (0, "") == (ended.status, ended.err)
    assert ended.out.startswith("runs/v8.4.190-detect: sent 89 events, 14 files (1.5 MB); ")
    assert ended.out.endswith(f"/tasks/{task}/output/scalars\n")
    assert (1, 0) == (ended.out.count("\n"), ended.out.count("\x1b"))
    assert Ended(0, "", "") == run_cli("upload", "runs")


def test_verbose_names_what_is_skipped_and_missing(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun
) -> None:
    """Both on stderr, so that stdout stays a line per run."""
    make_run("v8.4.190-detect-killed"), make_run("v8.4.190-val")
    ended = run_cli("upload", "-v", "runs")
    assert (0, 1) == (ended.status, ended.out.count("\n"))
    assert "runs/v8.4.190-val: skipped: it is a validation, not a training" in ended.err
    assert "runs/v8.4.190-detect-killed: not on disk: model/GFLOPs\n" in ended.err


def test_quiet_prints_errors_only(
    run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun
) -> None:
    """One run fails, one is sent: one line, on stderr, with what to do next."""
    (make_run("v8.3.100-detect") / "args.yaml").unlink()
    ended = run_cli("upload", "-q", "runs")
    assert (3, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert ended.err.startswith("runs/v8.3.100-detect: failed: runs/v8.3.100-detect/args.yaml is missing. ")
    assert 1 == len(server.tasks)


def test_json_has_one_promised_object_per_run(
    run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun
) -> None:
    """Also for what is skipped and what was up to date; and it is all that stdout holds."""
    make_run("v8.4.190-val")
    keys = "run name state outcome task_id url epochs events files bytes reason hint missing without"
    for outcome in ("delivered", "up-to-date"):
        ended = run_cli("upload", "--json", "runs")
        lines = {line["outcome"]: line for line in map(json.loads, ended.out.splitlines())}
        assert (0, "") == (ended.status, ended.err)
        assert {outcome, "skipped"} == set(lines)
        assert {keys} == {" ".join(line) for line in lines.values()}
        line = lines[outcome]
        assert ("runs/v8.4.190-detect-noplots", "finished") == (line["run"], line["state"])
        assert [line["task_id"]] == list(server.tasks)
        assert outcome == "up-to-date" or line["events"] > 0


def test_a_terminal_shows_bars_and_then_one_table(server: ClearMLDouble, make_run: MakeRun) -> None:
    """80 columns: bars that leave no trace, then the table, the links and what is missing."""
    make_run("v8.4.190-detect"), make_run("v8.4.190-detect-killed")
    folder = make_run("v8.4.190-val").parent.parent
    server.files_latency = 0.03
    status, shown = on_a_terminal(["upload", "runs"], folder)
    bars, _, rest = shown.rpartition("\x1b[?25h")
    lines = [line.rstrip() for line in ESCAPE.sub("", rest).splitlines()]
    assert 0 == status
    assert re.search(r"\S+ of 1\.5 MB", ESCAPE.sub("", bars))
    table = [
        "v8.4.190-detect         finished     5/5  0.636 mAP50-95(B)  89 events, 1.5 MB",
        "v8.4.190-detect-killed  stopped      3/8  0.496 mAP50-95(B)  47 events, 16.5 kB",
        "",
        "Sent 136 events and 18 files (1.5 MB) of 2 runs.",
    ]
    assert table == lines[lines.index(table[0]) :][:4]
    assert 2 == sum(line.startswith(f"{server.web_url}/projects/") for line in lines)
    assert "  model/GFLOPs" in lines
    assert "  is a validation, not a training (runs/v8.4.190-val)" in lines
    assert [] == [line for line in lines if len(line) > 80 and "://" not in line]


def on_a_terminal(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Call the program on a terminal of 80 columns; gives its status and all it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    unwanted = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment["TERM"] = "xterm-256color"
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    return process.wait(), written.decode()


def test_letters_that_a_figure_has_no_font_for_are_no_news(server: ClearMLDouble, make_run: MakeRun) -> None:
    """matplotlib warns of each; what nobody can do anything about is not for cron to mail."""
    run = make_run("v8.4.190-detect-killed")
    table = run / "results.csv"
    text, written = table.read_text(encoding="utf-8"), table.stat().st_mtime
    table.write_text(text.replace("metrics/recall(B)", "metrics/\u7cbe\u5ea6"), encoding="utf-8")
    os.utime(table, (written, written))
    ended = subprocess.run([*COMMAND, "upload", run], capture_output=True, text=True, check=False)
    assert (0, "") == (ended.returncode, ended.stderr)


def test_a_reader_that_goes_away_ends_it_without_a_word(server: ClearMLDouble, small: Path) -> None:
    """``| head -1``: no traceback, and not the status of success."""
    read, write = os.pipe()
    os.close(read)
    command = [*COMMAND, "upload", "--dry-run", str(small)]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (141, b"") == (ended.returncode, ended.stderr)


def test_a_locale_without_the_letters_of_a_name(server: ClearMLDouble, small: Path) -> None:
    """LC_ALL=C with a run called läufe: the name is spelled out, the run is not given up."""
    small.rename(small.with_name("läufe"))
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    command = [*COMMAND, "upload", "--dry-run", "."]
    ended = subprocess.run(command, cwd=small.parent, env=environment, capture_output=True, check=False)
    assert (0, b"") == (ended.returncode, ended.stderr)
    assert ended.stdout.startswith(rb"l\xe4ufe: would send ")


@pytest.mark.parametrize(
    ("options", "closed"),
    sampled(
        itertools.product([["--json"], [], ["--json", "--dry-run"]], [">&-", "2>&-", ">&- 2>&-"]), one_in(5)
    ),
)
def test_a_closed_stream_is_as_good_as_devnull(
    server: ClearMLDouble, small: Path, options: list[str], closed: str
) -> None:
    """As under some daemons; the work is done."""
    command = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "upload", *options, str(small)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (ended.returncode, ended.stderr)
    assert ("--dry-run" in options) is (len(server.tasks) == 0)


@pytest.mark.parametrize(
    "arguments",
    sampled([["upload"], ["upload", "--json"], ["upload", "--dry-run"], ["--version"]], one_in(3)),
)
def test_output_that_cannot_be_written_is_reported_and_the_work_is_done(
    server: ClearMLDouble, small: Path, make_run: MakeRun, arguments: list[str]
) -> None:
    """A full disk at the other end of stdout: 1, in words, when all runs were gone through."""
    make_run("v8.4.190-detect-noplots", "second")
    paths = [str(small.parent)] if "upload" in arguments else []
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, *arguments, *paths], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    said = ended.stderr.splitlines()
    assert "yolo-clearml: The output cannot be written: No space left on device." == said[0]
    assert (1, 2) == (ended.returncode, len(said))
    if paths and "--dry-run" not in arguments:
        assert 2 == len(list(small.parent.glob(f"*/{LEDGER_NAME}")))


# -- a dry run -------------------------------------------------------------------------------------------


def test_a_dry_run_is_stable_and_touches_nothing(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun
) -> None:
    """The same text twice, for several runs in order; no request, no file; skipped only with -v."""
    for name in ("v8.4.190-detect", "v8.1.0-segment", "v8.4.190-classify", "v8.4.190-val"):
        make_run(name)
    before = files_below(Path("runs"))
    ended = run_cli("upload", "--dry-run", "runs")
    assert ended == run_cli("upload", "--dry-run", "runs")
    assert (0, "") == (ended.status, ended.err)
    heads = [line.partition(":")[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert ["runs/v8.1.0-segment", "runs/v8.4.190-classify", "runs/v8.4.190-detect"] == heads
    for line in (
        "runs/v8.4.190-detect: would send 89 events, 14 files (1.5 MB)",
        "  task     Ultralytics / train  tags Ultralytics",
        "  scalar   train / train/box_loss [0] = 2.73134",
        "  param    General/epochs = '5' (int)",
        "  image    Mosaic / train.jpg [0] <- train_batch0.jpg",
        "  status   completed",
        "  missing  model/GFLOPs",
    ):
        assert line in ended.out.splitlines()
    assert "v8.4.190-val: skipped" in run_cli("upload", "--dry-run", "-v", "runs").err
    assert [] == server.requests
    assert before == files_below(Path("runs"))


def test_a_dry_run_as_json_is_stable(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:
    """The whole plan, a line per run, the same twice."""
    make_run("v8.4.190-detect"), make_run("v8.1.0-segment")
    ended = run_cli("upload", "--dry-run", "--json", "runs")
    assert ended == run_cli("upload", "--dry-run", "--json", "runs")
    first, second = map(json.loads, ended.out.splitlines())
    assert ("runs/v8.1.0-segment", "runs/v8.4.190-detect") == (first["run"], second["run"])
    assert ("Ultralytics", "train", ["Ultralytics"]) == tuple(second[k] for k in ("project", "name", "tags"))
    scalars = [e for r in second["reports"] for e in r["events"] if e["event"] == "Scalar"]
    assert ["title", "series", "value", "iteration", "at"] == list(scalars[0])[1:]
    told = ("outcome", "state", "epochs", "events", "files", "task_id", "hint")
    assert ("pending", "finished", 5, 89, 14, None, None) == tuple(second[key] for key in told)
    assert 0 < second["bytes"]
    assert [] == server.requests


def test_what_sends_nothing_imports_nothing_heavy(server: ClearMLDouble, small: Path) -> None:
    """--version, a dry run and a search that finds an error stay without clearml and matplotlib."""
    code = (
        "import sys, yolo_clearml.cli.app as c\n"
        f"for argv in (['--version'], ['upload', '--dry-run', {str(small)!r}], ['upload', 'nowhere']):\n"
        "    sys.argv[1:] = argv\n"
        "    try: c.main()\n"
        "    except SystemExit: pass\n"
        "sys.exit(str(sorted({'clearml', 'matplotlib', 'requests', 'numpy'} & set(sys.modules))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "[]" == ended.stderr.splitlines()[-1]


def test_offline_writes_sessions_and_asks_no_server(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """A zip in DIR, which --output-uri reaches; no request, nothing new in the run directory."""
    before = files_below(small)
    ended = run_cli("upload", "--offline", "sessions", "--output-uri", "s3://bucket/models", small)
    (session,) = Path("sessions").glob("*.zip")
    assert (0, "") == (ended.status, ended.err)
    assert ended.out.startswith("runs/v8.4.190-detect-noplots: wrote ")
    with ZipFile(session) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("task.json"))
        assert b"s3://bucket/models" in archive.read(name)
    assert [] == server.requests
    assert before == files_below(small)


# -- exit statuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("'file' is a file", ["upload", "--offline", "file", "runs"]),
        ("nowhere does not exist", ["upload", "nowhere"]),
        ("file is not a directory", ["upload", "file"]),
        ("There is no run in or below empty", ["upload", "empty"]),
        ("runs/v8.4.190-val is a validation, not a training", ["upload", "runs/v8.4.190-val"]),
        ("--name is for one run, and there are 2", ["upload", "-n", "three", "runs", "more"]),
        ("--name 'ab'", ["upload", "-n", "ab", "runs"]),
        ("--name ''", ["upload", "--name", "", "runs"]),
        ("--project 'lab/v8'", ["upload", "-p", "lab/v8", "runs"]),
        ("--name 'train\\udcff'", ["upload", "-n", "train\udcff", "runs"]),
        ("--project 'lab\\udcff/abc'", ["upload", "-p", "lab\udcff/abc", "runs"]),
        ("--tags 'x\\udcff'", ["upload", "--tags", "x\udcff", "runs"]),
        ("--tags is empty", ["upload", "--tags", "", "runs"]),
        ("--rules 'newest' is no release", ["upload", "--rules", "newest", "runs"]),
        ("--rules '9.1' is no release", ["upload", "--rules", "9.1", "runs"]),
        ("--force and --new", ["upload", "--force", "--new", "runs"]),
        ("--task-id and --new", ["upload", "--task-id", "0123", "--new", "runs"]),
        ("--task-id and --offline", ["upload", "--task-id", "0123", "--offline", "out", "runs"]),
        ("--dry-run and --task-id", ["upload", "--task-id", "0123", "--dry-run", "runs"]),
        ("--task-id is empty", ["upload", "--task-id", " ", "runs"]),
        ("--task-id is for one run, and there are 2", ["upload", "--task-id", "0123", "runs", "more"]),
        ("--dry-run and --offline", ["upload", "--dry-run", "--offline", "out", "runs"]),
        ("--jobs", ["upload", "--jobs", "-1", "runs"]),
        ("--jobs", ["upload", "-j", "many", "runs"]),
        ("--timeout", ["upload", "--timeout", "0", "runs"]),
        ("--timeout", ["upload", "--timeout", "nan", "runs"]),
        ("--timeout", ["upload", "--timeout", "inf", "runs"]),
        ("--stale-after", ["upload", "--stale-after", "nan", "runs"]),
        ("--nmae", ["upload", "--nmae", "x", "runs"]),
        ("PATH", ["upload"]),
        ("uplaod", ["uplaod", "runs"]),
    ],
)
def test_wrong_usage(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, said: str, arguments: list[str]
) -> None:
    """2, with what is wrong and where to look, on stderr; nothing is sent and nothing written."""
    shutil.copytree(make_run("v8.4.190-detect-noplots"), Path("more") / "run")
    make_run("v8.4.190-val")
    Path("empty").mkdir()
    Path("file").touch()
    before = files_below(Path.cwd())
    ended = run_cli(*arguments)
    assert (2, "") == (ended.status, ended.out)
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert len(ended.err.strip().splitlines()) >= 2
    assert ([], before) == (server.requests, files_below(Path.cwd()))


def test_some_failed(run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun) -> None:
    """3; the others are done."""
    (make_run("v8.3.100-detect") / "args.yaml").write_text("- no\n- arguments\n")
    ended = run_cli("upload", "runs")
    assert (3, 1) == (ended.status, len(server.tasks))
    assert "args.yaml holds no arguments. Restore it" in ended.err


def test_a_folder_that_cannot_be_listed_has_failed(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3; it may hold runs, and the others are done."""
    closed = small.parent / "closed"
    closed.mkdir()
    genuine = os.scandir

    def scandir(folder: Path) -> object:
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    ended = run_cli("upload", small.parent)
    assert 3 == ended.status
    assert "closed cannot be listed: Permission denied." in ended.err
    assert (small / LEDGER_NAME).exists()


def test_unreachable(run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun) -> None:
    """69 after --timeout, also where a run is bad besides; and the address is named."""
    begun = time.monotonic()
    server.stop_api()
    (make_run("v8.3.100-detect") / "args.yaml").unlink()
    ended = run_cli("upload", "--timeout", 1, "runs")
    assert time.monotonic() - begun < 15
    assert (69, "") == (ended.status, ended.out)
    assert f"{server.api_url} refuses the connection. Check that the address is right" in ended.err


def test_busy(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """75 while another one holds the run's ledger; afterwards it is sent."""
    with FileLedgers().hold(small):
        ended = run_cli("upload", small)
    assert (75, "", []) == (ended.status, ended.out, server.requests)
    assert "Another yolo-clearml is at work on " in ended.err
    assert "Try again" in ended.err
    assert 0 == run_cli("upload", small).status


def test_refused(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """77, and where new credentials come from."""
    server.refuse_credentials = True
    ended = run_cli("upload", small)
    assert (77, "") == (ended.status, ended.out)
    assert "Create new ones in ClearML" in ended.err


def test_not_configured(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """78, and how to configure."""
    for name in server.environ:
        monkeypatch.delenv(name)
    ended = run_cli("upload", small)
    assert (78, "") == (ended.status, ended.out)
    assert "clearml-init" in ended.err


@pytest.mark.parametrize("where", ["cli.requirements.find_runs", "library.upload"])
@pytest.mark.parametrize("kind", [KeyError, BrokenPipeError, EOFError])
def test_a_fault_of_ours(
    run_cli: Run,
    server: ClearMLDouble,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    kind: type[Exception],
) -> None:
    """1, with the whole traceback on stderr; also for errors that a command line may end with in silence."""

    def broken(*_: object, **__: object) -> None:
        raise kind("out of order")

    monkeypatch.setattr(f"yolo_clearml.{where}", broken)
    ended = run_cli("upload", small)
    assert (1, "") == (ended.status, ended.out)
    assert "Traceback (most recent call last)" in ended.err
    assert ", in broken\n" in ended.err
    assert re.search(rf"{kind.__name__}: .?out of order", ended.err)
    assert "report" in ended.err.splitlines()[-1]


# -- signals ---------------------------------------------------------------------------------------------


class Stopped(NamedTuple):
    """How a process ended that got a signal while its first file was on its way."""

    status: int
    took: float  # seconds after the first signal
    out: str
    err: str


def stopped(
    server: ClearMLDouble,
    run: Path,
    *numbers: signal.Signals,
    at: str = "events.add_batch",
) -> Stopped:
    """Send signals to an upload when it makes its first request to ``at``."""
    begun = threading.Event()

    def note(endpoint: str, count: int) -> None:
        if endpoint == at:
            begun.set()

    server.before_request = note
    process = subprocess.Popen(
        [*COMMAND, "upload", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert begun.wait(60)
    first = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.3)
    out, err = process.communicate(timeout=20)
    server.before_request = None
    return Stopped(process.returncode, time.monotonic() - first, out, err)


@pytest.mark.parametrize(
    ("status", "number"), sampled([(130, signal.SIGINT), (143, signal.SIGTERM)], one_in(2))
)
def test_a_signal_stops_after_what_is_on_its_way(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, status: int, number: signal.Signals
) -> None:
    """What arrived is remembered, the next call sends the rest, and nothing is there twice."""
    run = make_run("v8.4.190-detect")
    server.latency = 0.05
    ended = stopped(server, run, number, at="files:POST")
    assert status == ended.status
    assert ended.took < 5
    assert "" == ended.out
    assert ended.err.startswith("Stopping ")
    assert ended.err.endswith("run the same command again for the rest.\n")
    (task,) = server.tasks.values()
    assert "in_progress" == task["status"]
    assert task["id"] == json.loads((run / LEDGER_NAME).read_bytes())["task"]
    server.latency = 0
    assert 0 == run_cli("upload", run).status
    assert ["completed"] == [task["status"] for task in server.tasks.values()]
    assert 14 == len(server.files)
    assert Ended(0, "", "") == run_cli("upload", run)


def test_a_signal_ends_even_a_request_that_hangs(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Within 5 seconds; the next call completes."""
    server.fault("events.add_batch", Hang(30.0), times=1)
    ended = stopped(server, small, signal.SIGTERM)
    assert 143 == ended.status
    assert 1 < ended.took < 5
    assert "run the same command again" in ended.err
    assert 0 == run_cli("upload", small).status
    assert ["completed"] == [task["status"] for task in server.tasks.values()]


def test_a_signal_ends_the_wait_for_a_server_that_fails(server: ClearMLDouble, small: Path) -> None:
    """No further try: the run is reported as failed, and the call as stopped."""
    server.fault("events.add_batch", Status(503), times=None)
    ended = stopped(server, small, signal.SIGTERM)
    assert (143, "") == (ended.status, ended.out)
    assert "keeps failing (503: " in ended.err
    assert ended.err.endswith("run the same command again for the rest.\n")


def test_a_second_signal_ends_at_once(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Without waiting for anything; the next call completes all the same."""
    server.fault("events.add_batch", Hang(30.0), times=1)
    ended = stopped(server, small, signal.SIGINT, signal.SIGINT)
    assert 130 == ended.status
    assert ended.took < 3
    assert 0 == run_cli("upload", small).status
    assert ["completed"] == [task["status"] for task in server.tasks.values()]


# -- options, variables, help ----------------------------------------------------------------------------


def upload_command() -> Any:
    """Give the command as typer hands it to its parser."""
    group: Any = typer.main.get_command(cli.app)
    return group.commands["upload"]


def options_of(command: Any) -> dict[str, Any]:
    """Give each option's long name and what typer knows of it."""
    return {max(p.opts, key=len): p for p in command.params if p.param_type_name == "option"}


_INTERRUPTED = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "yolo_clearml.library":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from yolo_clearml.__main__ import main
main()
"""


def test_an_interrupt_in_the_first_moment_leaves_no_traceback() -> None:
    """While the program is still being imported nobody else heeds it."""
    call = [sys.executable, "-c", _INTERRUPTED, "upload", "runs"]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (Exit.INTERRUPTED, "", "") == (ended.returncode, ended.stdout, ended.stderr)


def test_the_options_are_those_we_promised() -> None:
    """No more and no fewer, and each with its short form."""
    options = options_of(upload_command())
    options.pop("--help", None)
    assert OPTIONS == set(options)
    short = {"--project": "-p", "--name": "-n", "--jobs": "-j", "--quiet": "-q", "--verbose": "-v"}
    assert short == {name: p.opts[0] for name, p in options.items() if len(p.opts) > 1}


VALUES: dict[str, tuple[str, object]] = {
    "--project": ("lab/shapes", "lab/shapes"),
    "--name": ("baseline", "baseline"),
    "--move": ("1", True),
    "--only": ("scalars plots", ["scalars", "plots"]),
    "--without": ("model images", ["model", "images"]),
    "--models": ("best last", ["best", "last"]),
    "--artifacts": ("*.json a/", ["*.json", "a/"]),
    "--val-of": ("train", Path("train")),
    "--tags": ("one two", ["one", "two"]),
    "--output-uri": ("s3://bucket", "s3://bucket"),
    "--rules": ("8.3.100", "8.3.100"),
    "--offline": ("out", Path("out")),
    "--dry-run": ("1", True),
    "--force": ("true", True),
    "--new": ("yes", True),
    "--verify": ("1", True),
    "--task-id": ("0123", "0123"),
    "--metrics": ("file.prom", Path("file.prom")),
    "--include": ("a* b", ["a*", "b"]),
    "--exclude": ("a* b", ["a*", "b"]),
    "--shard": ("2/4", Shard(2, 4)),
    "--jobs": ("7", 7),
    "--follow-links": ("/usr:/dev", [Path("/usr"), Path("/dev")]),
    "--stale-after": ("60", 60.0),
    "--timeout": ("5", 5.0),
    "--json": ("1", True),
    "--quiet": ("1", True),
    "--verbose": ("1", True),
}


def converted(parsed: Any, like: object) -> object:
    """Give what was parsed as the command gets it: before that, Typer's versions differ in its types."""
    if isinstance(like, list):
        return [converted(one, other) for one, other in zip(parsed, like, strict=True)]
    return Path(parsed) if isinstance(like, Path) else parsed


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_each_option_has_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str) -> None:
    """YOLO_CLEARML_ and its name; the option itself goes before it."""
    monkeypatch.chdir(tmp_path)
    text, value = VALUES[option]
    monkeypatch.setenv("YOLO_CLEARML_" + option[2:].replace("-", "_").upper(), text)
    command = upload_command()
    context = command.make_context("upload", ["run"])
    parsed = context.params[options_of(command)[option].name]
    assert value == converted(parsed, value)
    if option == "--jobs":
        assert 2 == command.make_context("upload", ["--jobs", "2", "run"]).params["jobs"]


def test_variables_reach_the_server(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Project, name, tags and output as cron would set them."""
    for name, value in {"PROJECT": "lab/shapes", "NAME": "baseline", "TAGS": "a b", "JSON": "1"}.items():
        monkeypatch.setenv(f"YOLO_CLEARML_{name}", value)
    ended = run_cli("upload", small)
    (task,) = server.tasks.values()
    told = (server.projects[task["project"]]["name"], task["name"], task["tags"])
    assert ("lab/shapes", "baseline", ["a", "b"]) == told
    assert ("baseline", "delivered") == tuple(json.loads(ended.out)[key] for key in ("name", "outcome"))
    monkeypatch.setenv("YOLO_CLEARML_DRY_RUN", "1")
    monkeypatch.setenv("YOLO_CLEARML_FORCE", "1")
    count = len(server.requests)
    assert "reports" in json.loads(run_cli("upload", small).out)
    assert count == len(server.requests)
    monkeypatch.setenv("YOLO_CLEARML_QUIET", "1")
    assert Ended(0, "", "") == run_cli("upload", small)
    monkeypatch.setenv("YOLO_CLEARML_JOBS", "0")
    assert 2 == run_cli("upload", small).status


def test_blanks_around_names_are_not_part_of_them(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """As ClearML would see another project, which looks the same."""
    ended = run_cli("upload", "--dry-run", "--json", "-p", " lab one/ abc ", "-n", " first ", small)
    line = json.loads(ended.out)
    assert ("lab one/abc", "first") == (line["project"], line["name"])


def test_force_and_new_reach_the_server(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """--force: everything again into the same task; --new: another one."""
    first = json.loads(run_cli("upload", "--json", small).out)
    again = json.loads(run_cli("upload", "--json", "--force", small).out)
    assert (first, 1) == (again, len(server.tasks))
    other = json.loads(run_cli("upload", "--json", "--new", small).out)
    assert first["task_id"] != other["task_id"]
    assert {first["task_id"], other["task_id"]} == set(server.tasks)


def test_task_id_reaches_the_server(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """--task-id: into that task, by option or variable; an id that is none is refused, with what to do."""
    task = server.ask("tasks.create", name="by hand", type="training")["id"]
    project = server.ask("projects.create", name="Group", description="")["id"]
    server.tasks[task]["project"] = project
    assert task == json.loads(run_cli("upload", "--json", "--task-id", task, small).out)["task_id"]
    assert [task] == list(server.tasks)
    ended = run_cli("upload", "--task-id", "0" * 32, small)
    assert (3, 1) == (ended.status, len(server.tasks))
    assert "There is no task 0000" in ended.err and "Copy the id" in ended.err


def test_stale_after_and_output_uri_reach_the_run(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, tmp_path: Path
) -> None:
    """An unfinished run may be silent for so long; a model goes where it is said."""
    run = make_run("v8.4.190-detect-killed")
    assert "live" == json.loads(run_cli("upload", "--json", "--stale-after", 10**9, run).out)["state"]
    assert "stopped" == json.loads(run_cli("upload", "--json", "--stale-after", 1, run).out)["state"]
    (tmp_path / "models").mkdir()
    uri = f"file://{tmp_path / 'models'}"
    assert 0 == run_cli("upload", "--output-uri", uri, make_run("v8.4.190-detect-noplots")).status
    assert [uri] == [model["uri"][: len(uri)] for model in server.models.values()]


def test_a_proof_hides_no_note(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """What is read back is what was sent; that the model was not is said as without --verify."""
    best = small / "weights" / "best.pt"
    times = (best.stat().st_atime_ns, best.stat().st_mtime_ns)
    best.write_bytes(b"")
    os.utime(best, ns=times)
    ended = run_cli("upload", "--verify", small)
    assert "are the same" in ended.out
    assert "The output model is not sent (weights/best.pt: empty)." in ended.err


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_documents_every_option(run_cli: Run, asked: str) -> None:
    """80 columns, no escape code in a pipe, and a sentence for each option."""
    ended = run_cli("upload", asked)
    assert (0, "") == (ended.status, ended.err)
    assert [] == [name for name in OPTIONS if not re.search(rf"{name}\b", ended.out)]
    assert [] == [name for name, option in options_of(upload_command()).items() if not option.help]
    assert 80 >= max(map(len, ended.out.splitlines()))
    assert "\x1b" not in ended.out
    assert "YOLO_CLEARML_" in ended.out


@pytest.mark.parametrize("command", ["upload", "watch", "status", "verify"])
def test_help_is_in_groups_and_ends_with_an_example(run_cli: Run, command: str) -> None:
    """No type of Python's, every option in a group, what excludes what, a command to copy."""
    help_text = run_cli(command, "--help").out
    assert [] == re.findall(r"<\w+.*?>", help_text)
    groups = re.findall(r"^╭─ (.*?) ─", help_text, re.M)
    order = ["Which runs", "Where it goes", "What is sent", "How it runs", "Output"]
    assert [group for group in order if group in groups] == groups
    assert {"Which runs", "What is sent", "Output"} <= set(groups)
    assert f"Example: yolo-clearml {command} " in help_text
    told = " ".join(help_text.replace("│", " ").split())
    assert command != "upload" or "Not with --offline, --verify or --task-id." in told


def test_the_program_explains_itself(run_cli: Run) -> None:
    """--version, --help and completion; without a command the help."""
    assert Ended(0, f"yolo-clearml {__version__}\n", "") == run_cli("--version")
    ended = run_cli("--help")
    for word in ("upload", "--version", "--install-completion", "--show-completion", "YOLO_CLEARML_"):
        assert word in ended.out
    assert (0, "") == (ended.status, ended.err)
    assert "\x1b" not in ended.out
    assert 80 >= max(map(len, ended.out.splitlines()))
    as_module = [sys.executable, "-m", "yolo_clearml", "--version"]
    assert f"yolo-clearml {__version__}\n" == subprocess.run(as_module, capture_output=True, text=True).stdout
    bare = run_cli()  # click before 8.2 says it on stdout and takes it for success
    assert ended.out.strip() == (bare.out + bare.err).strip()
    assert bare.status in (0, 2)


def test_completion_can_be_shown(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a shell that is named, as no shell can be told from a pipe."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    ended = run_cli("--show-completion", "bash")
    assert 0 == ended.status
    assert "complete " in ended.out
    assert "yolo-clearml" in ended.out


def test_a_fault_of_ours_over_one_run_keeps_its_traceback(
    server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 1, the traceback on stderr for a report, and a sentence that names the run."""

    def unforeseen(run: object, wishes: object) -> None:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr("yolo_clearml.sync.visit.plan", unforeseen)
    ended = CliRunner().invoke(cli.app, ["upload", str(make_run("v8.4.190-detect-noplots"))])
    assert Exit.OURS == ended.exit_code
    assert "Traceback" in ended.stderr
    assert "nobody thought of this" in ended.stderr
    assert "v8.4.190-detect-noplots: failed: Unforeseen KeyError" in ended.stderr


def test_a_fault_of_ours_over_one_run_leaves_the_others_in_status_and_doctor(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each other one has its line; the status is 1."""
    runs = [make_run("v8.4.190-detect-noplots", name) for name in ("a", "b")]

    def unforeseen(path: Path, *arguments: object) -> object:
        if path.name == "a":
            raise KeyError("nobody thought of this")
        return genuine(path, *arguments)

    for module in ("visit", "checks"):
        genuine = sys.modules[f"yolo_clearml.sync.{module}"].scan
        monkeypatch.setattr(f"yolo_clearml.sync.{module}.scan", unforeseen)
    ended = run_cli("status", runs[0].parent)
    assert Exit.OURS == ended.status
    assert any("b " in line and "not there yet" in line for line in ended.out.splitlines())
    assert "Unforeseen KeyError" in ended.out
    assert "Unforeseen KeyError" in run_cli("doctor", "--timeout", 1, runs[0].parent).out


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_dry_run_shows_no_token(run_cli: Run, make_run: MakeRun, form: list[str]) -> None:
    """YOLOv5 keeps tokens among its arguments; ClearML gets them as ever, a terminal does not."""
    run = make_run("yolov5-7.0.14-detect")
    options = run / "opt.yaml"
    written = options.stat().st_mtime
    options.write_text(options.read_text().replace("hf_token: null", "hf_token: hf_abcdef"))
    os.utime(options, (written, written))
    ended = run_cli("upload", str(run), "--dry-run", *form)
    assert "hf_token" in ended.out
    assert "***" in ended.out
    assert "hf_abcdef" not in ended.out + ended.err
