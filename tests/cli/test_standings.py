"""How runs stand, a line for each: which are kept, in which order, and how they are written."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from pathlib import Path

import pytest

from yolo_clearml.cli.standings import (
    SortKey,
    Standing,
    StateName,
    chosen,
    left_out,
    sparkline,
    write_json,
    write_table,
)
from yolo_clearml.errors import RunUnreadable
from yolo_clearml.events import RunState
from yolo_clearml.sync.outcomes import Facts, Failed, Pending, Skipped, UpToDate

URL = "http://localhost:8080/projects/p/tasks/t/output/scalars"


def facts(state: RunState, epochs: int = 5, fitness: float | None = 0.5) -> Facts:
    return Facts("train", state, epochs, 10, fitness=fitness, curve=(0.1, 0.3, 0.5))


LIVE = Pending(Path("r/train10"), facts(RunState.LIVE, 3, 0.9), "t1", URL, 12)
DONE = UpToDate(Path("r/train2"), facts(RunState.FINISHED, 10, 0.7), "t2", URL)
NEW = Pending(Path("r/train1"), facts(RunState.FINISHED, 7, None), None, None, 89)
DEAD = Pending(Path("r/a"), facts(RunState.STOPPED, 3, math.nan), "t4", URL, 0)
VAL = Skipped(Path("r/val"), "is a validation, not a training", "Nothing to do.")
BAD = Failed(Path("r/bad"), Facts(), RunUnreadable("r/bad/args.yaml is missing.", "Restore it."))
ALL: list[Standing] = [VAL, LIVE, BAD, DONE, NEW, DEAD]


def names(by: SortKey = SortKey.PATH, *states: StateName, pending: bool = False) -> list[str]:
    return [standing.run.name for standing in chosen(ALL, states, pending, by)]


@pytest.mark.parametrize(
    ("expected", "by"),
    [
        (["a", "bad", "train1", "train2", "train10"], SortKey.PATH),
        (["train10", "train1", "train2", "a", "bad"], SortKey.STATE),
        (["train2", "train1", "a", "train10", "bad"], SortKey.EPOCHS),
        (["train10", "train2", "a", "bad", "train1"], SortKey.FITNESS),
        (["train1", "train10", "a", "bad", "train2"], SortKey.PENDING),
    ],
)
def test_lines_are_sorted(expected: list[str], by: SortKey) -> None:
    """Numbers with the highest first and none last, what is alike by path, and train2 before train10."""
    assert expected == names(by)


@pytest.mark.parametrize(
    ("expected", "states", "pending"),
    [
        (["val"], (StateName.SKIPPED,), False),
        (["bad"], (StateName.FAILED,), False),
        (["train1", "train2"], (StateName.FINISHED,), False),
        (["a", "train10", "val"], (StateName.LIVE, StateName.STOPPED, StateName.SKIPPED), False),
        (["a", "bad", "train1", "train10"], (), True),
        (["train1"], (StateName.FINISHED,), True),
        ([], (StateName.SKIPPED,), True),
    ],
)
def test_lines_are_filtered(expected: list[str], states: tuple[StateName, ...], pending: bool) -> None:
    """By state, which is the only way to see what is skipped, and by whether there is something to send."""
    assert expected == names(SortKey.PATH, *states, pending=pending)


@pytest.mark.parametrize(
    ("expected", "among", "states", "pending"),
    [
        (None, [DONE], (), False),
        ("1 directory is skipped; -v or --state skipped names it.", [VAL], (), False),
        ("1 directory is skipped; -v or --state skipped names it.", ALL, (), False),
        ("2 directories are skipped; -v or --state skipped names them.", [VAL, DONE, VAL], (), False),
        (None, ALL, tuple(StateName), False),
        (None, ALL, (StateName.LIVE,), False),
        ("No run is live or failed.", [VAL, DONE], (StateName.LIVE, StateName.FAILED), False),
        ("No run is skipped.", [DONE], (StateName.SKIPPED,), False),
        (None, ALL, (), True),
        ("No run has anything to send.", [VAL, DONE], (), True),
        ("No run that is live has anything to send.", [VAL, DONE], (StateName.LIVE,), True),
    ],
)
def test_what_is_not_shown_is_counted(
    expected: str | None, among: list[Standing], states: tuple[StateName, ...], pending: bool
) -> None:
    """A run that is skipped for now is not forgotten, and why a table is empty is said."""
    kept = chosen(among, states, pending, SortKey.PATH)
    assert expected == left_out(among, kept, states, pending)


def table(capsys: pytest.CaptureFixture[str], *standings: Standing, width: int | None = None) -> list[str]:
    capsys.readouterr()
    write_table(standings, width, addresses=False)
    return capsys.readouterr().out.splitlines()


def test_the_table_is_aligned_and_shows_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    """Every column begins at one place; the address of a task is the last one; no escape code."""
    got = table(capsys, *ALL)
    assert [
        "Below r:",
        "run      state     epochs  fitness       ClearML",
        "val      skipped                         none: it is a validation, not a training",
        f"train10  live      3/10    0.900    ▁▄█  12 pending                                {URL}",
        "bad      failed                          failed: r/bad/args.yaml is missing.",
        f"train2   finished  10/10   0.700    ▁▄█  up to date                                {URL}",
        "train1   finished  7/10             ▁▄█  not there yet",
        f"a        stopped   3/10    nan      ▁▄█  to be completed                           {URL}",
    ] == got


@pytest.mark.parametrize("width", [60, 80, 126])
def test_a_long_reason_is_folded(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one run; the lines of all keep within the terminal, and the names of the others whole."""
    reason = "args.yaml cannot be read: " + "Permission denied, " * 12 + "and so on."
    bad = Failed(Path("r/bad"), Facts(), RunUnreadable(reason, "Restore it."))
    shown = [
        re.sub("\x1b\\]8;;.*?\x1b\\\\", "", line) for line in table(capsys, LIVE, bad, DONE, width=width)
    ]
    assert width >= max(map(len, shown))
    assert "train10" in " ".join(shown) and "train2" in " ".join(shown)
    text = " ".join(" ".join(shown).split())
    assert all(word in text for word in ("Permission denied,", "and so on."))


def test_a_long_reason_takes_no_room_from_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    """It has lines of its own, below."""
    name = "yolo11m-imgsz1280-lr0.01-seed3"
    named = UpToDate(Path("r") / name, facts(RunState.FINISHED), "t", None)
    bad = Failed(Path("r/bad"), Facts(), RunUnreadable("Permission denied, " * 12, "Restore it."))
    assert name in "\n".join(table(capsys, named, bad, width=80))


def test_a_terminal_shows_links_and_stays_within_its_width(capsys: pytest.CaptureFixture[str]) -> None:
    """The end of a long name is shown, for that tells runs apart; the name leads to the task."""
    long = UpToDate(Path("r") / ("lab-" * 30 + "train7"), facts(RunState.FINISHED), "t", URL)
    write_table([long, NEW], 80, addresses=False)
    out, err = capsys.readouterr()
    link = f"\x1b]8;;{URL}\x1b\\"
    (line,) = (line for line in out.splitlines() if "train7" in line)
    assert line.startswith(link + "…")
    shown = line.replace(link, "").replace("\x1b]8;;\x1b\\", "")
    assert "train7  finished" in shown
    assert 80 >= max(len(text) for text in (shown, *table(capsys, NEW, width=80)))
    assert "2 runs, 1 with something to send.\n" == err
    write_table([NEW, BAD], 80, addresses=False)
    assert "2 runs, 1 with something to send, 1 failed.\n" == capsys.readouterr().err
    write_table([long], 80, addresses=True)
    assert URL == capsys.readouterr().out.splitlines()[-1]


def test_nothing_from_a_directory_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a name, a reason or an address are replaced, so a run is one line."""
    evil = "x\x1b[2J\n\x07"
    write_table(
        [
            UpToDate(Path("r") / evil, facts(RunState.LIVE), "t", URL + evil),
            Skipped(Path("r/b"), evil, evil),
            Failed(Path("r/c"), Facts(), RunUnreadable(evil, evil)),
        ],
        None,
        addresses=True,
    )
    out = capsys.readouterr().out
    assert (5, 0, 0) == (out.count("\n"), out.count("\x1b"), out.count("\x07"))


def test_json_is_one_object_per_run_with_what_more_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """The promised keys of an upload and four more; what is unknown is null."""
    write_json(ALL)
    lines = {Path(line["run"]).name: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    keys = "run name state outcome task_id url epochs events files bytes reason hint missing without"
    assert {f"{keys} pending of_epochs fitness curve"} == {" ".join(line) for line in lines.values()}
    expected = {
        "val": ("skipped", None, 0, None, None),
        "train10": ("pending", "live", 12, 10, 0.9),
        "bad": ("failed", None, None, None, None),
        "train2": ("up-to-date", "finished", 0, 10, 0.7),
        "train1": ("pending", "finished", 89, 10, None),
    }
    got = {
        name: tuple(line[key] for key in ("outcome", "state", "pending", "of_epochs", "fitness"))
        for name, line in lines.items()
        if name != "a"
    }
    assert expected == got
    assert ("r/bad/args.yaml is missing.", "Restore it.") == (lines["bad"]["reason"], lines["bad"]["hint"])
    assert ("t1", URL, [0.1, 0.3, 0.5]) == tuple(lines["train10"][k] for k in ("task_id", "url", "curve"))


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_json_is_json_whatever_a_ledger_holds(capsys: pytest.CaptureFixture[str], odd: float) -> None:
    """A ledger is a file that anybody can write; NaN is no JSON, and jq refuses the line."""
    known = Facts.restored({"state": "finished", "fitness": odd, "curve": [0.1, odd]})
    write_json([UpToDate(Path("r/a"), known, "t", None)])
    line = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert None is line["fitness"]
    assert [0.1] == line["curve"]


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ("", ()),
        ("▁", (0.5,)),
        ("▁▁▁", (0.0, 0.0, 0.0)),
        ("▁█", (-3.0, 1e9)),
        ("▁▂▃▄▅▆▇█", tuple(map(float, range(8)))),
        ("█▁", (2.0, math.nan, 1.0, math.inf)),
        ("", (math.nan,)),
    ],
)
def test_a_curve_in_a_few_characters(
    monkeypatch: pytest.MonkeyPatch, expected: str, values: tuple[float, ...]
) -> None:
    """From the lowest to the highest; what is not finite is a gap, a flat curve is low."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert expected == sparkline(values)


def test_a_curve_where_the_output_has_no_such_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in LC_ALL=C: the same shape in plain letters."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert ".#." == sparkline((0.0, 1.0, 0.0))
