"""The table of a watch: what stands on the screen, above it, and when all is over."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len

from yolo_clearml.cli.live_table import LiveTable
from yolo_clearml.cli.wording import OutputUnwritable, ReaderGone, write_line
from yolo_clearml.errors import RunUnreadable, ServerUnreachable
from yolo_clearml.events import RunState
from yolo_clearml.sync.outcomes import Delivered, Facts, Failed, Outcome, Progress, Skipped, Started, UpToDate

COLOUR = re.compile(r"\x1b\[[0-9;]*[349][0-9][0-9;]*m")
LINK = "https://app.clear.ml/projects/0123456789abcdef0123456789abcdef/tasks/{:032x}/output/scalars"
NASTY = "a\x1b[31mb\nc\x9bd\u202ee\x07"
HIDE, REVEAL = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it, and knows what then stands on an endless screen."""

    def isatty(self) -> bool:
        return True

    @property
    def told(self) -> str:
        return self.getvalue()

    @property
    def screen(self) -> str:
        """Every line, as it stands by now."""
        lines, row, column = [""], 0, 0
        for code, links, char in re.findall(
            r"(\x1b\[[0-9;?]*[A-Za-z])|(\x1b\]8;[^\x1b]*\x1b\\)|(.)", self.told, re.DOTALL
        ):
            if code.endswith("K"):
                lines[row] = ""
            elif code.endswith("A"):
                row -= int(code[2:-1])
            elif char == "\r":
                column = 0
            elif char == "\n":
                row, column = row + 1, 0
                lines += [""] * (row == len(lines))
            elif char:
                assert not links
                assert char.isprintable()
                lines[row] = lines[row][:column].ljust(column) + char + lines[row][column + 1 :]
                column += 1
        while len(lines) > row + 1 and not lines[-1]:
            lines.pop()
        return "\n".join(line.rstrip() for line in lines)

    @property
    def table(self) -> str:
        """What stands below the last empty line before the head."""
        above, head, rest = f"\n{self.screen}".rpartition("\nrun ")
        return f"{above}\n".rpartition("\n\n")[2] + head[1:] + rest


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Terminal:
    """Give a terminal of 80 columns and 24 lines in an empty folder."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.chdir(tmp_path)
    return Terminal()


@contextmanager
def live_table(terminal: Terminal) -> Iterator[LiveTable]:
    """Be on the terminal, with both streams, and open a table."""
    with redirect_stdout(terminal), redirect_stderr(terminal), LiveTable() as table:
        yield table


def wait_for(seen: Callable[[], bool], terminal: Terminal) -> None:
    deadline = time.monotonic() + 5
    while not seen():
        assert time.monotonic() < deadline, terminal.screen
        time.sleep(0.02)


def facts(state: RunState = RunState.LIVE, epochs: int = 3, metric: str = "mAP50-95(B)") -> Facts:
    return Facts("train", state, epochs, 100, (metric, 0.5), latest=0.4123)


ENDED = facts(RunState.FINISHED, 100)


def delivered(run: str, what: Facts | None = None, number: int = 1) -> Delivered:
    return Delivered(Path(run), what or facts(), "id", LINK.format(number), 89, 14, 1_471_742, ())


def up_to_date(run: str, what: Facts = ENDED) -> UpToDate:
    return UpToDate(Path(run), what, "id", LINK.format(1))


def away(run: str, pending: int | None = None, what: Facts | None = None) -> Failed:
    error = ServerUnreachable("ClearML refuses the connection.", "Check that it is up.")
    return Failed(Path(run), what or facts(), error, pending=pending)


def bad(run: str) -> Failed:
    return Failed(Path(run), Facts(), RunUnreadable(f"{run}/args.yaml is missing.", "Restore it."))


def skipped(run: str) -> Skipped:
    return Skipped(Path(run), "is a validation, not a training", "")


def everything() -> list[Outcome]:
    return [
        *(up_to_date(f"runs/train{number}") for number in range(100, 1100)),
        skipped("runs/val"),
        delivered("runs/train10"),
        delivered("runs/train2", facts(epochs=12), 2),
        delivered("runs/train3", facts(RunState.STOPPED, 7), 3),
        delivered("runs/train4", ENDED, 4),
        Started(Path("runs/train10"), facts(epochs=4), 6_100_000),
        Progress(Path("runs/train10"), 1_200_000),
        away("runs/train5", 14),
        bad("runs/train6"),
    ]


# -- the table -------------------------------------------------------------------------------------------

ABOVE = """\
Below runs:
run      state       epoch  last mAP50-95(B)  pending
───
train2   live       12/100             0.412  up to date
train5   live        3/100             0.412  14 events wait
train6                                        failed
train10  live        4/100             0.412  sending 1.2 of 6.1 MB
train4   finished  100/100             0.412  up to date
train3   stopped     7/100             0.412  up to date
"""


def ruled(table: str) -> str:
    """Shorten the line below the head, which ends here or there by Rich's release."""
    return re.sub("─+", "───", table)


def test_the_table_while_watching_and_after(terminal: Terminal) -> None:
    """Those that something is expected of, in their order; the last that ended; the rest in numbers."""
    with live_table(terminal) as table:
        for outcome in everything():
            table.show(outcome)
        wait_for(lambda: "1,001 more" in terminal.screen, terminal)
        assert ABOVE + "1,001 more: 1,000 up to date, 1 skipped" == ruled(terminal.table)
        assert (1, 0) == (terminal.told.count(HIDE), terminal.told.count(REVEAL))
    total = "1,007 runs: 1 live, 1 not all sent, 1 waiting, 1 failed, 1,002 up to date, 1\n  skipped\n"
    assert ABOVE.replace("sending 1.2 of 6.1 MB", "not all sent") + total == ruled(terminal.table)
    assert (1, 1) == (terminal.told.count(HIDE), terminal.told.count(REVEAL))


def test_a_narrow_terminal_has_every_number(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long path the end is shown, which tells runs apart; one line for each run."""
    monkeypatch.setenv("COLUMNS", "60")
    with live_table(terminal) as table:
        table.show(Started(Path("runs/segment/a_long_name_of_a_run_12"), facts(), 6_100_000))
        table.show(away("runs/detect/a_long_name_of_a_run_7", 1))
        wait_for(lambda: "1 event" in terminal.screen, terminal)
        expected = """\
Below runs:
run                 state  epoch  mAP50-95(B)  pending
───
…g_name_of_a_run_7  live   3/100        0.412  1 event waits
…_name_of_a_run_12  live   3/100        0.412  0 B of 6.1 MB"""
        assert expected == ruled(terminal.table)


def test_a_hostile_metric_is_made_safe_in_the_head(terminal: Terminal) -> None:
    """Where it is the only one, it stands there."""
    with live_table(terminal) as table:
        table.show(delivered("train", facts(metric=NASTY)))
    assert "last a\N{REPLACEMENT CHARACTER}[31mb" in terminal.table
    assert [] == re.findall(r"\x1b\[31m|\x07|\x9b|\u202e", terminal.told)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_row_is_wider_than_the_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Whatever the names, also where a character takes two columns: a row that wraps tears the table."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    wide = "訓練" * 60
    hostile = Facts(NASTY, RunState.LIVE, 1, NASTY, (NASTY, 0.5))  # type: ignore[arg-type]  # as a ledger may
    hostile = replace(hostile, latest=NASTY)  # type: ignore[arg-type]
    with live_table(terminal) as table:
        table.show(Delivered(Path(NASTY), hostile, NASTY, NASTY, 1, 1, 1, (NASTY,)))
        table.show(away(f"runs/{wide}", 123_456_789, facts(metric=wide)))
        table.show(Started(Path("runs") / NASTY / ("x" * 300), facts(metric="accuracy_top1"), 10**12))
        wait_for(lambda: "───" in terminal.screen, terminal)
    assert [] == [line for line in terminal.table.splitlines() if cell_len(line) > width]
    assert [] == re.findall(r"\x1b\[31m|\x07|\x9b|\u202e", terminal.told)
    assert ("accuracy_top1" in terminal.table) == (width > 70)
    assert ("訓練" in terminal.table) == (width > 40)


def test_a_low_terminal_shows_what_matters_most(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as fit: what is sent and what lives before what failed, and that before what ended."""
    monkeypatch.setenv("LINES", "12")
    with live_table(terminal) as table:
        for number in range(50):
            table.show(bad(f"runs/a{number}"))
            table.show(delivered(f"runs/b{number}", ENDED, number))
        for run in ("z1", "z2"):
            table.show(up_to_date(f"runs/{run}", facts()))
        table.show(Started(Path("runs/z3"), facts(), 0))
        wait_for(lambda: "98 more: 48 failed, 50 up to date" in terminal.screen, terminal)
        lines = terminal.table.splitlines()
    assert ["a0", "a1", "z1", "z2", "z3"] == [line.split()[0] for line in lines[3:-1]]
    assert "sending" == lines[-2].split()[-1]
    assert len(lines) < 12


def test_of_those_that_wait_the_live_come_first(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """ClearML is away when a watch of many runs begins."""
    monkeypatch.setenv("LINES", "9")
    with live_table(terminal) as table:
        for number in range(30):
            table.show(away(f"runs/train{number}", 5, facts() if number in (8, 20) else ENDED))
    assert ["train8", "train20"] == [line.split()[0] for line in terminal.table.splitlines()[3:-1]]


def test_of_a_wide_name_the_end_is_shown(terminal: Terminal) -> None:
    """A character that takes two columns counts as two."""
    with live_table(terminal) as table:
        table.show(away("訓練" * 60 + "7"))
    assert re.match("…練?(訓練){4,5}7 {2,3}live", terminal.table.splitlines()[2])


def test_the_folder_is_that_of_the_runs_there_are(terminal: Terminal) -> None:
    """It changes with them."""
    with live_table(terminal) as table:
        for runs, folder in ((("a/b/1", "a/b/2"), "a/b"), (("a/c/1",), "a"), (("d/1",), "")):
            for run in runs:
                table.show(up_to_date(run, facts()))
            wait_for(
                partial(
                    lambda text: terminal.table.startswith(text), f"Below {folder}:" if folder else "run"
                ),
                terminal,
            )
        table.show(skipped("d/1"))
        wait_for(lambda: terminal.table.startswith("Below a:"), terminal)


def test_a_burst_is_drawn_a_few_times_and_its_end_soon(terminal: Terminal) -> None:
    """2,000 runs that are looked at when a watch begins."""
    with live_table(terminal) as table:
        began = time.monotonic()
        for number in range(2000):
            table.show(up_to_date(f"runs/train{number}"))
        table.show(delivered("runs/live"))
        lasted = time.monotonic() - began
        wait_for(lambda: "2,000 more: 2,000 up to date" in terminal.table, terminal)
        assert terminal.told.count(" up to date") <= 2 * (2 + lasted / 0.25)
        drawn = len(terminal.told)
        time.sleep(0.6)
        assert drawn == len(terminal.told)  # nothing happens, so nothing is drawn


def test_runs_that_ended_before_are_numbers_only(terminal: Terminal) -> None:
    """With nothing else to show there is a line; and nothing at all before the first run."""
    with live_table(terminal) as table:
        table.say("There is no run yet.")
        wait_for(lambda: "no run yet" in terminal.screen, terminal)
        assert "There is no run yet." == terminal.screen.strip()
        for number in range(2):
            table.show(up_to_date(f"runs/train{number}"))
        table.show(skipped("runs/val"))
        wait_for(lambda: terminal.screen.endswith("\n3 runs: 2 up to date, 1 skipped"), terminal)
    assert ["There is no run yet.", "3 runs: 2 up to date, 1 skipped"] == terminal.screen.splitlines()


def test_one_run_needs_no_sums(terminal: Terminal) -> None:
    """Its row says it all."""
    with live_table(terminal) as table:
        table.show(delivered("train"))
    assert "train  live      3/100             0.412  up to date" == terminal.table.splitlines()[-1]
    assert "1 run" not in terminal.screen


# -- how it changes --------------------------------------------------------------------------------------


def test_bytes_go_out(terminal: Terminal) -> None:
    """In the unit of the whole where they have the same; never more than the whole."""
    run = Path("train")
    with live_table(terminal) as table:
        for outcome, expected in (
            (Started(run, facts(), 6_100_000), "sending 0 B of 6.1 MB"),
            (Progress(run, 950_000), "sending 950 kB of 6.1 MB"),
            (Progress(run, 1_000_000), "sending 1.9 of 6.1 MB"),
            (Progress(run, 9_000_000), "sending 6.1 of 6.1 MB"),
            (delivered("train"), "up to date"),
        ):
            table.show(outcome)
            wait_for(partial(lambda text: terminal.table.endswith(text), f"  {expected}"), terminal)


def test_failure_outage_and_recovery(terminal: Terminal) -> None:
    """A run that could not be read keeps the facts that were known; one that is well is up to date again."""
    row = "train  live      3/100             0.412  "
    with live_table(terminal) as table:
        table.show(delivered("train"))
        for outcome, expected in (
            (bad("train"), row + "failed"),
            (away("train"), row + "waiting"),
            (away("train", 14), row + "14 events wait"),
            (up_to_date("train", facts()), row + "up to date"),
            (up_to_date("train", replace(ENDED, state=RunState.STOPPED)), "stopped   100/100  "),
        ):
            table.show(outcome)
            wait_for(partial(lambda text: text in terminal.table, expected), terminal)
        table.show(skipped("train"))
        wait_for(lambda: terminal.screen.endswith("\n1 run: 1 skipped"), terminal)
        table.show(up_to_date("train", facts()))
        wait_for(lambda: terminal.table.endswith(row + "up to date"), terminal)


def test_what_ended_last_comes_first(terminal: Terminal) -> None:
    """Looked at again, it stays where it was."""
    with live_table(terminal) as table:
        table.show(delivered("runs/a", ENDED))
        table.show(delivered("runs/b"))
        table.show(delivered("runs/c", ENDED))
        table.show(up_to_date("runs/b"))
        table.show(up_to_date("runs/a"))
    assert ["b", "c", "a"] == [line[0] for line in terminal.table.splitlines()[3:-1]]


def widest(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


def test_another_size_of_the_terminal_is_used(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next drawing on."""
    size = [80, 24]
    for name in ("COLUMNS", "LINES"):  # which would settle it
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size(size))
    with live_table(terminal) as table:
        table.show(delivered("runs/" + "x" * 90))
        for width, widths in ((80, range(78, 81)), (200, range(150, 156)), (60, range(58, 61))):
            size[0] = width
            table.show(delivered("runs/" + "x" * 90))
            wait_for(partial(lambda widths: widest(terminal.table) in widths, widths), terminal)
        assert 1 == terminal.screen.count("pending")


# -- what stands above it --------------------------------------------------------------------------------


def test_an_address_is_printed_once_and_whole(terminal: Terminal) -> None:
    """On a line of its own when a run is first delivered, to be copied; the run's name leads there, too."""
    note = "the task is called 'ab_'."
    link = f";{LINK.format(1)}\x1b\\"
    with live_table(terminal) as table:
        for epochs in (3, 4):
            table.show(replace(delivered("runs/train", facts(epochs=epochs)), notes=(note,)))
        table.show(replace(delivered("runs/other"), url=None))
        wait_for(lambda: "4/100" in terminal.screen, terminal)
        drawn = len(terminal.told)
        table.show(away("runs/train"))
        wait_for(lambda: "waiting" in terminal.screen, terminal)
        assert link in terminal.told[drawn:]
    lines = terminal.screen.splitlines()
    expected = [f"runs/train: {note}", "runs/train is in ClearML:", LINK.format(1), "", "Below runs:"]
    assert expected == lines[: len(expected)]


def test_messages_stand_above_from_any_thread(terminal: Terminal) -> None:
    """Each text whole and once, folded between words, in the order of its thread."""

    def talk(thread: int) -> None:
        for number in range(20):
            table.say(f"{thread} says {number}.")
            table.show(delivered(f"runs/train{thread}", facts(epochs=number)))

    with live_table(terminal) as table:
        table.say("word " * 30 + NASTY)
        threads = [threading.Thread(target=talk, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    above = terminal.screen.partition("\n\n")[0].splitlines()
    assert ["word " * 15 + "word", "  " + "word " * 13 + "word"] == [above[0], above[1][:71]]
    assert max(map(len, above[:2])) <= 80
    for number in range(6):
        said = [line for line in above if line.startswith(f"{number} says")]
        assert [f"{number} says {count}." for count in range(20)] == said
    assert 1 == terminal.screen.count("pending")


def test_what_others_write_to_stderr_does_not_tear_the_table(terminal: Terminal) -> None:
    """A library's warning stands above; and stderr is what it was when all is over."""
    with redirect_stderr(terminal):
        with live_table(terminal) as table:
            table.show(delivered("train"))
            wait_for(lambda: "up to date" in terminal.screen, terminal)
            write_line(sys.stderr, "A warning.")
            table.show(delivered("train", facts(epochs=4)))
            wait_for(lambda: "4/100" in terminal.screen, terminal)
        assert sys.stderr is terminal
    assert "A warning." in terminal.screen.splitlines()
    assert 1 == terminal.screen.count("pending")


# -- ends, and terminals that are none -------------------------------------------------------------------


def test_an_error_leaves_the_table_and_the_cursor(terminal: Terminal) -> None:
    """What was said last is there, too; the error goes on its way."""
    with pytest.raises(ZeroDivisionError), live_table(terminal) as table:
        table.show(delivered("train"))
        table.say("Stopping.")
        raise ZeroDivisionError
    assert terminal.told.rindex(HIDE) < terminal.told.rindex(REVEAL)
    assert "Stopping." in terminal.screen
    assert terminal.table.endswith("  up to date\n")
    assert not [thread for thread in threading.enumerate() if thread.name == "table"]


class Descriptor(io.TextIOWrapper):
    """A stream that is closed at its other end, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("ends", "error"), [(os.pipe, ReaderGone), (pty.openpty, OutputUnwritable)])
def test_a_closed_output_is_raised_once(
    terminal: Terminal, ends: Callable[[], tuple[int, int]], error: type[Exception]
) -> None:
    """As `write_line` does: to who shows, not to the thread that draws; what follows is thrown away."""
    other, ours = ends()
    stream = Descriptor(os.fdopen(ours, "wb"), encoding="utf-8")
    faults = []
    with redirect_stdout(stream), redirect_stderr(terminal), LiveTable() as table:
        os.close(other)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            try:
                table.show(delivered("train"))
            except (ReaderGone, OutputUnwritable) as fault:
                faults.append(fault)
            time.sleep(0.02)
    assert [error] == [type(fault) for fault in faults]
    stream.close()


def test_a_closed_output_is_raised_at_the_end(terminal: Terminal) -> None:
    """If nothing was shown since; but not instead of another error."""
    for expected in (ReaderGone, KeyError):
        other, ours = os.pipe()
        stream = Descriptor(os.fdopen(ours, "wb"), encoding="utf-8")
        with redirect_stdout(stream), redirect_stderr(terminal), pytest.raises(expected), LiveTable():
            os.close(other)
            if expected is KeyError:
                raise KeyError
        stream.close()


def test_a_terminal_that_is_stopped_does_not_stop_the_work(terminal: Terminal) -> None:
    """Ctrl-S halts what is written; runs are sent all the same."""
    go_on = threading.Event()

    class Stopped(Terminal):
        def flush(self) -> None:
            if threading.current_thread() is not threading.main_thread():
                go_on.wait(10)

    stopped = Stopped()
    with live_table(stopped) as table:
        began = time.monotonic()
        for number in range(100):
            table.show(delivered(f"runs/train{number}"))
            table.say("Word.")
        assert time.monotonic() - began < 5
        go_on.set()
    assert "100 runs: 100 live" in stopped.screen


@pytest.mark.parametrize("variable", ["", "NO_COLOR"])
def test_colours_only_where_they_are_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """No word is lost without them."""
    if variable:
        monkeypatch.setenv(variable, "1")
    with live_table(terminal) as table:
        for outcome in everything():
            table.show(outcome)
    assert (not variable) == bool(COLOUR.search(terminal.told))
    assert ABOVE.splitlines()[:5] == ruled(terminal.table).splitlines()[:5]


def test_a_dumb_terminal_gets_words_and_a_table_at_the_end(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot go back to draw anew; no escape code."""
    monkeypatch.setenv("TERM", "dumb")
    with live_table(terminal) as table:
        for outcome in everything():
            table.show(outcome)
        wait_for(lambda: LINK.format(4) in terminal.told, terminal)
        assert "pending" not in terminal.told
    assert "\x1b[" not in terminal.told
    assert 1 == terminal.told.count("pending")
    assert ABOVE.splitlines()[:5] == ruled(terminal.table).splitlines()[:5]
