"""What a person or a program reads: a terminal of 80 columns, plain lines, JSON lines, plans."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from yolo_clearml.cli.console import Console, PlainLines, Plans, choose
from yolo_clearml.cli.terminal import leave_terminal
from yolo_clearml.cli.wording import printable, size_text, write_text
from yolo_clearml.errors import RunUnreadable, ServerUnreachable
from yolo_clearml.events import DrawnPlot, Plan, Report, RunState
from yolo_clearml.sync.outcomes import Delivered, Facts, Failed, Outcome, Progress, Skipped, Started, UpToDate
from yolo_clearml.sync.sinks import RecordingSink

COLOUR = re.compile(r"\x1b\[[0-9;]*[349][0-9][0-9;]*m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")
LINK = "https://app.clear.ml/projects/0123456789abcdef0123456789abcdef/tasks/{}/output/scalars"
NASTY = "a\x1b[31mb\nc\x9bd\u202ee\x07"


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Screen:
    """Both streams as a terminal, or one of them not."""

    out: io.StringIO
    err: io.StringIO

    @contextmanager
    def on(self) -> Iterator[None]:
        """Be the terminal; pytest's own capture lies between a fixture and its test."""
        with redirect_stdout(self.out), redirect_stderr(self.err):
            yield

    @property
    def text(self) -> str:
        """What stays on stdout, without colours and links."""
        return ESCAPE.sub("", self.out.getvalue())

    @property
    def words(self) -> str:
        """The same for stderr."""
        return ESCAPE.sub("", self.err.getvalue())


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Screen:
    """Give a terminal of 80 columns in an empty folder."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.chdir(tmp_path)
    return Screen(FakeTerminal(), FakeTerminal())


def delivered(run: str, number: int = 1) -> Delivered:
    facts = Facts("train", RunState.FINISHED, 5, 5, ("mAP50-95(B)", 0.63599))
    link = LINK.format(f"{number:032x}")
    return Delivered(Path(run), facts, f"{number:032x}", link, 89, 14, 1_471_742, ())


def lacking(outcome: Delivered, *facts: str) -> Delivered:
    return replace(outcome, facts=replace(outcome.facts, missing=facts))


def up_to_date(run: str, number: int = 1) -> UpToDate:
    done = delivered(run, number)
    return UpToDate(done.run, done.facts, done.task_id, done.url)


def unreachable(run: str) -> Failed:
    error = ServerUnreachable("ClearML refuses the connection.", "Check that it is up; then run again.")
    return Failed(Path(run), delivered(run).facts, error)


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    with console as open_console:
        for outcome in outcomes:
            open_console.show(outcome)


def terminal(screen: Screen, outcomes: Sequence[Outcome], verbose: bool = False, **options: Any) -> None:
    with screen.on():
        show(choose(False, False, verbose, len(outcomes), **options), outcomes)


def plain_lines(outcomes: Sequence[Outcome], quiet: bool = False, verbose: bool = False) -> None:
    show(PlainLines(quiet, verbose, "sent"), outcomes)


# -- a terminal ------------------------------------------------------------------------------------------


def test_the_table_of_several_runs(screen: Screen) -> None:
    """Run, state, epochs, best metric, what was sent; then sums, links, what is missing, what failed."""
    stopped = Facts("train", RunState.STOPPED, 3, 100, ("accuracy_top1", 1.0))
    other = replace(delivered("runs/train10", 2), facts=stopped, events=47, files=0, size=0)
    other = lacking(other, "model/GFLOPs", "Epoch Time")
    first = lacking(delivered("runs/train2", 1), "model/GFLOPs")
    bad = RunUnreadable("runs/train1/args.yaml is missing.", "Restore it.")
    terminal(screen, [other, Failed(Path("runs/train1"), Facts(), bad), up_to_date("runs/train3", 3), first])
    expected = f"""\
Below runs:
run      state     epochs  best metric          sent
────────────────────────────────────────────────────────────────
train2   finished     5/5  0.636 mAP50-95(B)    89 events, 1.5 MB
train3   finished     5/5  0.636 mAP50-95(B)    up to date
train10  stopped    3/100  1.000 accuracy_top1  47 events
train1                                          failed

Sent 136 events and 14 files (1.5 MB) of 2 runs.

train2
{LINK.format(f"{1:032x}")}
train10
{LINK.format(f"{2:032x}")}

Not on disk, so not in ClearML:
  model/GFLOPs
  Epoch Time (train10)
"""
    lines = [line.rstrip() for line in screen.text.splitlines()]
    assert expected.splitlines()[3:] == lines[3 : 3 + len(expected.splitlines()[3:])]
    assert expected.splitlines()[:2] == lines[:2]
    assert {"─"} == set(lines[2])
    assert "train1 failed: runs/train1/args.yaml is missing.\n  Restore it.\n" in screen.words


def test_copies_of_one_training_are_named(screen: Screen) -> None:
    """They have a task together, which their sum does not show."""
    terminal(screen, [delivered("r/copy", 1), delivered("r/other", 2), delivered("r/a", 1)])
    assert "One training, so one task: a, copy (" in screen.text
    assert 1 == screen.text.count("One training")


def test_a_figure_that_is_drawn_has_no_size_on_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """A file is counted, and no 0 B are shown."""
    drawn = replace(delivered("r/a", 1), files=1, size=0)
    plain_lines([drawn])
    assert "89 events, 1 file: " in capsys.readouterr().out


def test_nothing_is_wider_than_the_terminal_but_a_link(screen: Screen) -> None:
    """Long paths fold where their parts meet, and lose no character."""
    long = "experiments/2026-11-22_shapes-detection/baseline.with.a.long.name/yolo11x_imgsz1280_cosine"
    outcomes = [delivered(long), delivered("experiments/" + "x" * 90, 2)]
    terminal(screen, [lacking(outcome, "the " + "word " * 30) for outcome in outcomes])
    lines = screen.text.splitlines()
    assert [] == [line for line in lines if len(line) > 80 and not line.startswith(("https://", "x" * 90))]
    column = lines[1].index("state")
    cells = "".join(line[:column].strip() for line in lines[3 : lines.index("")])
    assert long.removeprefix("experiments/") in cells
    assert "x" * 90 in cells
    assert any(line.startswith("2026-11-22_shapes-") for line in lines)


def test_a_narrow_terminal_keeps_every_word(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut off at 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")
    terminal(screen, [delivered("runs/detect/train-of-a-long-name")])
    table = screen.text.split("\n\n")[0]
    assert [] == [line for line in table.splitlines() if len(line) > 60]
    assert "…" not in table
    for word in ("finished", "5/5", "mAP50-95(B)", "events", "MB"):
        assert word in table


def test_links_can_be_copied_and_clicked(screen: Screen) -> None:
    """The whole address stands on a line of its own, and the run's name leads there, too."""
    terminal(screen, [delivered("train")])
    assert LINK.format(f"{1:032x}") in screen.text.splitlines()
    assert re.search(r"\x1b\]8;[^;]*;" + re.escape(LINK.format(f"{1:032x}")), screen.out.getvalue())


def test_one_run_that_is_up_to_date_still_shows_where_it_is(screen: Screen) -> None:
    """A person who looks again wants the address; of many runs only with -v."""
    terminal(screen, [up_to_date("train")])
    assert LINK.format(f"{1:032x}") in screen.text.splitlines()


def test_many_runs_that_are_up_to_date_are_counted(screen: Screen) -> None:
    """500 unchanged runs do not bury the one that changed; -v lists them all the same."""
    outcomes = [up_to_date(f"runs/train{n}", n) for n in range(2, 502)] + [delivered("runs/train1")]
    terminal(screen, outcomes)
    assert "500 runs up to date (-v lists them).\n" in screen.text
    assert len(screen.text.splitlines()) < 15
    terminal(screen, outcomes, verbose=True)
    assert screen.text.count("up to date") == 501


def test_what_was_skipped_is_named_with_its_reason(screen: Screen) -> None:
    """Once for each reason; -v names all of them."""
    val = [Skipped(Path(f"runs/val{n}"), "is a validation, not a training", "") for n in (10, 2)]
    outcomes = [*val, Skipped(Path("runs/train"), "has no checkpoint yet", "")]
    terminal(screen, outcomes)
    assert (
        "Skipped, because it\n"
        "  is a validation, not a training (2 times)\n"
        "  has no checkpoint yet (runs/train)\n" == screen.text
    )
    terminal(screen, outcomes, verbose=True)
    assert "  is a validation, not a training (runs/val2, runs/val10)\n" in screen.text


def test_a_failure_that_all_runs_meet_is_printed_once(screen: Screen) -> None:
    """On stderr, with what to do."""
    terminal(screen, [unreachable(f"runs/train{n}") for n in range(4)])
    assert 1 == screen.words.count("refuses the connection")
    assert "4 runs failed: ClearML refuses the connection.\n  Check that it is up" in screen.words
    assert "connection" not in screen.text


def test_what_was_done_differently_is_printed(screen: Screen) -> None:
    """Notes stand below the table."""
    note = "ClearML refuses the name 'ab'; the task is called 'ab_', --name chooses."
    terminal(screen, [replace(delivered("train"), notes=(note,))])
    assert "ClearML refuses the name 'ab'; the task is called 'ab_', --name chooses." in " ".join(
        screen.text.split()
    )


def test_offline_prints_what_to_do_next(screen: Screen) -> None:
    """The word for what was done heads the column; what comes next only where something was done."""
    terminal(screen, [replace(delivered("train"), url=None)], sent="wrote", afterwards="Import it.")
    assert "best metric        wrote" in screen.text
    assert "Import it.\n" in screen.text
    length = len(screen.text)
    terminal(screen, [up_to_date("train")], sent="wrote", afterwards="Import it.")
    assert "Import it." not in screen.text[length:]


def test_bars_move_by_bytes_and_vanish(screen: Screen) -> None:
    """A bar per run under way, one for all runs; all on stderr, none once the run is done."""
    run = Path("runs/train")
    with screen.on(), choose(False, False, False, runs=3) as console:
        console.show(up_to_date("runs/train0"))
        console.show(Skipped(Path("runs/val"), "is a validation, not a training", ""))
        console.show(Started(run, Facts(), 2_000_000))
        console.show(Progress(run, 500_000))
        wait_for(screen, "500 kB of 2.0 MB")
        assert "2 of 3 runs" in screen.words
        assert "" == screen.out.getvalue()
        console.show(delivered("runs/train"))
        wait_for(screen, "3 of 3 runs")
        assert "runs/train " not in screen.words.rpartition("3 of 3 runs")[2]
    rest = screen.err.getvalue().rpartition("3 of 3 runs")[2]
    assert "\x1b[?25h" in rest
    assert "\x1b[2K" in rest


def wait_for(screen: Screen, text: str) -> None:
    deadline = time.monotonic() + 5
    while text not in screen.words:
        assert time.monotonic() < deadline, screen.words
        time.sleep(0.02)


def test_no_bars_where_stderr_is_no_terminal(screen: Screen) -> None:
    """``2>log`` with the table on the terminal: the log holds words and no escape code."""
    screen.err = log = io.StringIO()
    terminal(screen, [Started(Path("train"), Facts(), 10), Progress(Path("train"), 10), unreachable("train")])
    assert "train failed: ClearML refuses the connection.\n" in log.getvalue()
    assert "\x1b" not in log.getvalue()
    assert "best metric" in screen.text


def test_messages_meanwhile_stand_above_the_bars(screen: Screen) -> None:
    """A message while bars are drawn is a whole line."""
    with screen.on(), choose(False, False, False, runs=2) as console:
        console.say("Stopping.")
    assert "Stopping.\n" in screen.words


def test_a_hard_end_gives_the_cursor_back() -> None:
    """Bars hide it, and an end that skips everything else must not leave the shell without one."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stderr, redirect_stderr(stderr):
        leave_terminal("Stopped.")
    assert b"\r\n\x1b[?25hStopped.\r\n" == os.read(ours, 100)
    os.close(ours)


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_only_where_they_are_wanted(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    """NO_COLOR is honoured on a terminal."""
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal(screen, [delivered("runs/a"), unreachable("runs/b")])
    told = screen.out.getvalue() + screen.err.getvalue()
    assert (not no_color) == bool(COLOUR.search(told))


# -- plain lines -----------------------------------------------------------------------------------------


def test_a_plain_line_per_run_that_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing about the others, and no escape code."""
    plain_lines(
        [
            Started(Path("runs/a"), Facts(), 5),
            Progress(Path("runs/a"), 5),
            up_to_date("runs/b"),
            Skipped(Path("runs/c"), "has no checkpoint yet", "Wait."),
            lacking(delivered("runs/a"), "model/GFLOPs"),
            replace(delivered("runs/d"), events=1, files=0, size=0, url=None),
        ]
    )
    link = LINK.format(f"{1:032x}")
    expected = (
        f"runs/a: sent 89 events, 14 files (1.5 MB); 1 fact not on disk (-v names them): {link}\n"
        "runs/d: sent 1 event\n"
    )
    assert (expected, "") == capsys.readouterr()


def test_plain_and_nothing_new_is_silence(capsys: pytest.CaptureFixture[str]) -> None:
    """Cron sends a mail for each byte."""
    plain_lines([up_to_date("a"), Skipped(Path("b"), "has no checkpoint yet", "Wait.")])
    assert ("", "") == capsys.readouterr()


def test_what_is_left_as_it_is_is_named(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that was wished for, of a run that ClearML has under another one: on paper and on a terminal."""
    outcome = replace(up_to_date("a"), notes=("Kept as it is.",))
    plain_lines([outcome])
    assert (f"a: up to date: {LINK.format(f'{1:032x}')}\n", "a: Kept as it is.\n") == capsys.readouterr()
    terminal(screen, [outcome, up_to_date("b", 2)])
    assert "Done differently:\n  Kept as it is." in screen.text


def test_plain_and_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """-v: what is skipped and missing on stderr, what is up to date on stdout."""
    plain_lines(
        [
            replace(up_to_date("a"), url=None),
            Skipped(Path("b"), "has no checkpoint yet", "Wait."),
            replace(lacking(delivered("c"), "model/GFLOPs"), notes=("A note.",), files=0, url=None),
        ],
        verbose=True,
    )
    out, err = capsys.readouterr()
    assert "a: up to date\nc: sent 89 events\n" == out
    assert "b: skipped: it has no checkpoint yet. Wait.\nc: A note.\nc: not on disk: model/GFLOPs\n" == err


def test_plain_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """-q: errors only; the same error in full the first time only, and a line for each run."""
    done = replace(lacking(delivered("c"), "x"), notes=("y",))
    plain_lines([done, unreachable("a"), unreachable("b")], quiet=True)
    assert (
        "",
        "a: failed: ClearML refuses the connection. Check that it is up; then run again."
        " 'yolo-clearml doctor' shows where it fails.\n"
        "b: failed for the same reason\n",
    ) == capsys.readouterr()


# -- JSON ------------------------------------------------------------------------------------------------

KEYS = "run,name,state,outcome,task_id,url,epochs,events,files,bytes,reason,hint,missing,without"


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The promised keys and no other, whatever the outcome; one line per run, when it is done."""
    skipped = Skipped(Path("b"), "has no checkpoint yet", "Wait.")
    done = replace(lacking(delivered("c"), "model/GFLOPs"), notes=("A note.",))
    live = replace(up_to_date("d"), facts=Facts("name", RunState.LIVE, 7, 100))
    outcomes: list[Outcome] = [
        Started(Path("c"), Facts(), 5),
        Progress(Path("c"), 5),
        skipped,
        done,
        live,
        unreachable("e"),
    ]
    show(choose(True, False, False, 4), outcomes)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert "" == err
    assert [KEYS] * 4 == [",".join(line) for line in lines]
    assert ["skipped", "delivered", "up-to-date", "failed"] == [line["outcome"] for line in lines]
    assert {
        "run": "c",
        "name": "train",
        "state": "finished",
        "outcome": "delivered",
        "task_id": f"{1:032x}",
        "url": LINK.format(f"{1:032x}"),
        "epochs": 5,
        "events": 89,
        "files": 14,
        "bytes": 1_471_742,
        "reason": "A note.",
        "hint": None,
        "missing": ["model/GFLOPs"],
        "without": [],
    } == lines[1]
    assert ("has no checkpoint yet", "Wait.") == (lines[0]["reason"], lines[0]["hint"])
    assert ("live", 7, "name", 0) == tuple(lines[2][key] for key in ("state", "epochs", "name", "events"))
    assert "ClearML refuses the connection." == lines[3]["reason"]
    doctor = "'yolo-clearml doctor' shows where it fails."
    assert f"Check that it is up; then run again. {doctor}" == lines[3]["hint"]


def test_json_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """-q leaves the failures."""
    show(choose(True, True, False, 2), [delivered("a"), unreachable("b")])
    (line,) = capsys.readouterr().out.splitlines()
    assert "failed" == json.loads(line)["outcome"]


# -- what comes from outside -----------------------------------------------------------------------------


def nasty_outcomes() -> list[Outcome]:
    facts = Facts(NASTY, RunState.LIVE, 1, NASTY, (NASTY, 0.5), (NASTY,))  # type: ignore[arg-type]  # as a ledger may
    error = RunUnreadable(NASTY, NASTY)
    done = Delivered(Path(NASTY) / "a", facts, NASTY, NASTY, 1, 1, 1, (NASTY,))
    return [
        Started(done.run, facts, 10),
        done,
        UpToDate(Path(NASTY) / "b", facts, NASTY, NASTY),
        Skipped(Path(NASTY) / "c", NASTY, NASTY),
        Failed(Path(NASTY) / "d", facts, error),
    ]


def test_nothing_from_a_directory_steers_a_terminal(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, notes, addresses, errors: no control character of theirs gets through."""
    monkeypatch.setenv("NO_COLOR", "1")
    terminal(screen, nasty_outcomes(), verbose=True)
    for told in (screen.out.getvalue(), screen.err.getvalue()):
        assert [] == re.findall(r"\x1b\[31m|\x07|\x9b|\u202e", told)
        assert "" == "".join(c for c in ESCAPE.sub("", told) if not c.isprintable() and c not in "\n\r")
    assert "a\N{REPLACEMENT CHARACTER}[31mb" in screen.text


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_from_a_directory_breaks_a_line(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """Plain lines and JSON lines hold printable characters and one line for each thing printed."""
    show(choose(as_json, False, True, 3), nasty_outcomes())
    out, err = capsys.readouterr()
    assert "" == "".join(c for c in out + err if not c.isprintable() and c != "\n")
    assert (4, 0) if as_json else (2, 5) == (out.count("\n"), err.count("\n"))


def test_bytes_that_are_no_text_can_be_shown() -> None:
    """A name that is not UTF-8 arrives as lone surrogates."""
    assert "a\N{REPLACEMENT CHARACTER}" == printable(b"a\xff".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0 B", 0),
        ("999 B", 999),
        ("1.0 kB", 1000),
        ("99.9 kB", 99_900),
        ("100 kB", 99_960),
        ("1.0 MB", 999_900),
        ("1.5 MB", 1_471_742),
        ("23.4 GB", 23_400_000_000),
        ("5000 TB", 5 * 10**15),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Three digits and a unit."""
    assert text == size_text(size)


# -- plans -----------------------------------------------------------------------------------------------


def plans(outcomes: Sequence[Outcome], *, as_json: bool = False, quiet: bool = False) -> None:
    plot = DrawnPlot("results", 0, "results.png", ("loss",), (1, 2), ((math.nan,), (math.inf,)), 0)
    plan = Plan(
        "k",
        NASTY,
        NASTY,
        (NASTY,),
        (NASTY, NASTY),
        NASTY,
        (Report("plot/results", (plot,)),),
        (NASTY,),
        (NASTY,),
    )
    recording = RecordingSink(recorded={Path("a"): (plan, plan.reports)})
    show(Plans(recording, as_json, quiet, verbose=False), outcomes)


def test_a_plan_shows_what_would_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """Never that something was sent; runs without a plan as ever."""
    plans([Started(Path("a"), Facts(), 0), delivered("a"), up_to_date("b"), unreachable("c")])
    out, err = capsys.readouterr()
    assert out.startswith("a: would send 89 events, 14 files (1.5 MB)\n")
    assert "  plot     results [0] <- drawn from results.csv\n" in out
    assert "sent" not in out
    assert "b" not in [line.partition(":")[0] for line in out.splitlines()]
    assert err.startswith("c: failed: ")
    assert "" == "".join(c for c in out if not c.isprintable() and c != "\n")


def test_a_plan_as_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not finite is null, not NaN or Infinity, which no other parser takes."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    plans([delivered("a"), up_to_date("b")], as_json=True)
    plan, other = (json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines())
    (report,) = plan["reports"]
    assert ("DrawnPlot", [[None], [None]]) == (report["events"][0]["event"], report["events"][0]["values"])
    assert ("b", "up-to-date") == (other["run"], other["outcome"])


def test_a_plan_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """-q: errors only."""
    plans([delivered("a"), up_to_date("b")], quiet=True)
    assert ("", "") == capsys.readouterr()


def test_a_dry_run_states_that_nothing_is_planned(screen: Screen) -> None:
    """Somebody asked, so silence would be a riddle."""
    with screen.on():
        plans([up_to_date("b")])
    assert ("", "There is nothing to send.\n") == (screen.text, screen.words)
    with screen.on():
        plans([up_to_date("b"), unreachable("c")])
    assert 1 == screen.words.count("nothing to send")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sentence_is_folded_between_words_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """With what is folded moved in; an address stays whole, and a pipe gets one line."""

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setenv("COLUMNS", "30")
    stream, address = Stream(), "http://localhost:8080/projects/*/tasks/0/output"
    line = f"failed  server: It cannot be reached from here; look at {address} and run-it-again."
    write_text(stream, line, 8)
    folded = [
        "failed  server: It cannot be",
        "        reached from here;",
        "        look at",
        f"        {address}",
    ]
    assert ([*folded, "        and run-it-again."] if terminal else [line]) == stream.getvalue().splitlines()
