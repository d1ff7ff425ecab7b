"""What a watch prints: each thing when it is new, and a server that is away once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from yolo_clearml.cli.news import Watching, how_far
from yolo_clearml.errors import (
    FileServerUnreachable,
    RunBusy,
    RunChanged,
    RunUnreadable,
    ServerFailing,
    ServerRefused,
    ServerUnreachable,
    YoloClearmlError,
)
from yolo_clearml.events import RunState
from yolo_clearml.sync.outcomes import Delivered, Facts, Failed, Outcome, Progress, Skipped, Started, UpToDate

LINK = "https://app.clear.ml/projects/1/tasks/2/output/scalars"
NASTY = "a\x1b[31mb\nc\x9bd\u202ee\x07"
TOLD_AWAY = "yolo-clearml: ClearML does not answer. It is asked again until it answers; nothing is lost."
BACK = "ClearML answers again."


def facts(epochs: int = 3, state: RunState = RunState.LIVE) -> Facts:
    metric = ("mAP50-95(B)", 0.5)
    return Facts(name="train", state=state, epochs=epochs, of_epochs=8, best=metric, latest=0.4123)


def delivered(
    run: str, epochs: int = 3, url: str | None = LINK, state: RunState = RunState.LIVE
) -> Delivered:
    return Delivered(Path(run), facts(epochs, state), "1" * 32, url, 12, 2, 263_000, ())


def up_to_date(run: str) -> UpToDate:
    return UpToDate(Path(run), facts(), "1" * 32, LINK)


def failed(run: str, error: YoloClearmlError) -> Failed:
    return Failed(Path(run), facts(), error)


def away(run: str, kind: type[YoloClearmlError] = ServerUnreachable) -> Failed:
    return failed(run, kind("ClearML does not answer.", "Check that it is up; then run again."))


def refused(run: str, why: str = "The project is read-only.") -> Failed:
    return failed(run, ServerRefused(why, "Ask its owner."))


class Reader:
    """A person or a program that reads what a watch prints, as it comes."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.console = Watching(as_json=False, quiet=False, verbose=False)

    def watches(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.console = Watching(as_json, quiet, verbose)

    def reads(self, *outcomes: Outcome) -> tuple[list[str], list[str]]:
        """Lines on stdout and on stderr for these outcomes."""
        for outcome in outcomes:
            self.console.show(outcome)
        out, err = self._capsys.readouterr()
        return out.splitlines(), err.splitlines()


@pytest.fixture
def reader(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Give a reader in a folder with runs a, b and c."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
    return Reader(capsys)


# -- lines ------------------------------------------------------------------------------------------------


def test_a_line_for_each_delivery_and_the_address_once(reader: Reader) -> None:
    """Run, how far it is, what was sent; of each run where it is seen, at its first line."""
    line = "a: epoch {} of 8, mAP50-95(B) 0.412: sent 12 events, 2 files (263 kB)"
    assert ([f"{line.format(3)}: {LINK}"], []) == reader.reads(delivered("a"))
    assert ([line.format(4)], []) == reader.reads(delivered("a", 4))
    assert ([f"b{line.format(4)[1:]}: {LINK}"], []) == reader.reads(delivered("b", 4))
    assert ([line.format(5)], []) == reader.reads(delivered("a", 5))
    (end,) = reader.reads(delivered("a", 8, state=RunState.FINISHED))[0]
    assert end.startswith("a: finished, epoch 8 of 8")


def test_an_address_that_comes_late_is_printed_when_it_comes(reader: Reader) -> None:
    """And only then counts as printed."""
    assert not reader.reads(delivered("a", url=None))[0][0].endswith(LINK)
    assert reader.reads(delivered("a"))[0][0].endswith(LINK)


def test_the_address_of_another_task_is_printed_as_well(reader: Reader) -> None:
    """Of a run whose task somebody deleted, or that was trained anew in the same place."""
    other = LINK.replace("/2/", "/3/")
    told = [reader.reads(delivered("a", url=url))[0][0] for url in (LINK, other, other)]
    assert [True, True, False] == [
        line.endswith(f": {url}") for line, url in zip(told, (LINK, other, other), strict=True)
    ]


def test_notes_of_a_delivery_are_printed_beside_it(reader: Reader) -> None:
    """On stderr, each once for a run."""
    noted = replace(delivered("a"), notes=("Two rows are gaps.",))
    assert ["a: Two rows are gaps."] == reader.reads(noted)[1]
    assert [] == reader.reads(noted)[1]
    other = replace(noted, notes=("Two rows are gaps.", "Three are."))
    assert ["a: Three are."] == reader.reads(other)[1]


def test_what_is_as_it_was_is_silence(reader: Reader) -> None:
    """Up to date, skipped, and the steps of a delivery."""
    silent = (
        up_to_date("a"),
        Skipped(Path("b"), "is a validation, not a training", "Nothing to do."),
        Started(Path("a"), facts(), 100),
        Progress(Path("a"), 50),
    )
    assert ([], []) == reader.reads(*silent, *silent)


def test_verbose_names_what_is_not_on_disk_once(reader: Reader) -> None:
    """As --help promises: a trainer's clock that is off matters most while a run is followed."""
    lacking = replace(facts(), missing=("the clock", "a.png: torn"), left_out=("a.png: torn",))
    outcomes = [replace(delivered("runs/a", epochs), facts=lacking) for epochs in (3, 4)]
    assert [] == reader.reads(*outcomes)[1]
    reader.watches(verbose=True)
    assert ["runs/a: not on disk: the clock", "runs/a: not sent: a.png: torn"] == reader.reads(*outcomes)[1]


def test_verbose_prints_more_but_nothing_twice(reader: Reader) -> None:
    """What is up to date and what is skipped, each when it becomes so."""
    reader.watches(verbose=True)
    skipped = Skipped(Path("b"), "has not finished an epoch yet", "Nothing to report yet.")
    out, err = reader.reads(up_to_date("a"), up_to_date("a"), skipped, skipped, up_to_date("a"))
    assert [f"a: epoch 3 of 8, mAP50-95(B) 0.412: up to date: {LINK}"] == out
    assert ["b: skipped: it has not finished an epoch yet. Nothing to report yet."] == err
    assert ([], []) == reader.reads(replace(skipped, again=5.0))
    _, err = reader.reads(replace(skipped, reason="died before its first epoch ended"))
    assert ["b: skipped: it died before its first epoch ended. Nothing to report yet."] == err
    out, _ = reader.reads(delivered("a"), up_to_date("a"))
    assert 1 == len(out)


def test_a_failure_is_repeated_only_when_it_reads_otherwise(reader: Reader) -> None:
    """A run that is tried again every ten minutes for a week fails once, until it was well in between."""
    line = "a: failed: The project is read-only. Ask its owner."
    assert ([], [line]) == reader.reads(refused("a"), refused("a"), refused("a"))
    assert ([], ["a: failed: It is closed. Ask its owner."]) == reader.reads(refused("a", "It is closed."))
    assert ([], [line]) == reader.reads(refused("a"))
    assert ([], ["b" + line[1:]]) == reader.reads(refused("b"), refused("a"))
    reader.reads(delivered("a"))
    assert ([], [line]) == reader.reads(refused("a"))
    reader.reads(up_to_date("a"))
    assert ([], [line]) == reader.reads(refused("a"))


def test_a_server_that_fails_again_and_again_is_named_once(reader: Reader) -> None:
    """Of each run, though every reply holds another id or address."""
    why = "ClearML keeps failing (500: {}: no connection, <HTTPConnection object at 0x7f{}>)."
    replies = [ServerFailing(why.format(n * 8, n * 10), "Run again.") for n in ("a", "b", "7")]
    told = reader.reads(*(failed("a", error) for error in replies))[1]
    assert [f"a: failed: {replies[0]} Run again."] == told
    other = failed("a", ServerFailing("ClearML keeps failing (500: no disk).", "Run again."))
    assert ["a: failed: ClearML keeps failing (500: no disk). Run again."] == reader.reads(other)[1]


def test_quiet_prints_errors_only(reader: Reader) -> None:
    """Failures, and that the server is away; not what goes well."""
    reader.watches(quiet=True)
    noted = replace(delivered("a"), notes=("Two rows are gaps.",))
    assert ([], [TOLD_AWAY]) == reader.reads(noted, away("a"), away("b"), delivered("a"), up_to_date("b"))
    assert ([], ["b: failed: The project is read-only. Ask its owner."]) == reader.reads(refused("b"))
    reader.console.say("a word")
    assert ([], []) == reader.reads()


# -- a server that is away --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ServerUnreachable, FileServerUnreachable])
def test_an_outage_is_printed_once_and_so_is_its_end(reader: Reader, kind: type[YoloClearmlError]) -> None:
    """However many runs wait and however often it is asked; and the next one is printed again."""
    for _ in range(2):
        assert ([], [TOLD_AWAY]) == reader.reads(*(away(run, kind) for run in "abcaaaabc"))
        out, err = reader.reads(delivered("b"), delivered("a"), delivered("c"))
        assert (3, [BACK]) == (len(out), err)


def test_a_server_is_back_when_a_run_that_waited_is_up_to_date(reader: Reader) -> None:
    """It was asked, and there was nothing left to report."""
    reader.reads(away("a"))
    assert ([], [BACK]) == reader.reads(up_to_date("a"))


def test_what_needs_no_server_prints_nothing_of_it(reader: Reader) -> None:
    """A run that is up to date by its ledger, one that fails, one that is skipped: it may be away still."""
    reader.reads(away("a"), away("b"))
    skipped = Skipped(Path("c"), "has not finished an epoch yet", "Nothing to report yet.")
    assert [] == [line for line in reader.reads(up_to_date("c"), skipped)[1] if BACK in line]
    _, err = reader.reads(failed("b", RunUnreadable("It is damaged.", "Restore it.")))
    assert ["b: failed: It is damaged. Restore it."] == err
    assert ([], []) == reader.reads(away("a"), away("b"))
    assert [BACK] == reader.reads(delivered("a"))[1]


def test_a_delivery_without_files_does_not_end_an_outage_of_the_file_server(reader: Reader) -> None:
    """Or every row that arrives would be printed as its return, and every asking as its loss."""
    reader.reads(away("a", FileServerUnreachable))
    for _ in range(3):
        assert [] == reader.reads(delivered("b"), away("a", FileServerUnreachable))[1]


@pytest.mark.parametrize("other", [RunBusy, ServerRefused])
def test_a_run_that_fails_otherwise_after_an_outage_keeps_no_secret(
    reader: Reader, other: type[YoloClearmlError]
) -> None:
    """The outage has an end that is printed, and so the next one is printed as well."""
    reader.reads(away("a"), failed("a", other("Something else.", "Wait.")))
    assert [BACK] == reader.reads(delivered("b"))[1]
    assert [TOLD_AWAY] == reader.reads(away("b"))[1]


def test_a_run_deleted_during_an_outage_keeps_no_secret(reader: Reader) -> None:
    """It waits for nothing any more; the next outage is printed all the same."""
    reader.reads(away("a"))
    shutil.rmtree("a")  # no outcome says so where it was seen by a look
    assert [BACK] == reader.reads(delivered("b"))[1]
    assert [TOLD_AWAY] == reader.reads(away("b"))[1]


def test_a_failure_printed_before_an_outage_is_printed_again_after_it(reader: Reader) -> None:
    """What came in between was printed, so this is news."""
    reader.reads(refused("a"), away("a"))
    assert ["a: failed: The project is read-only. Ask its owner."] == reader.reads(refused("a"))[1]


# -- JSON -------------------------------------------------------------------------------------------------


def outcomes_of(lines: list[str]) -> list[tuple[str, str]]:
    told = [json.loads(line) for line in lines]
    return [(line["run"], line["outcome"]) for line in told]


def test_json_has_a_line_for_each_outcome_that_is_new(reader: Reader) -> None:
    """A program reads what a person does, and every run that waits for a server."""
    reader.watches(as_json=True)
    skipped = Skipped(Path("c"), "has not finished an epoch yet", "Nothing to report yet.")
    out, err = reader.reads(
        *(Started(Path("a"), facts(), 5), Progress(Path("a"), 5), delivered("a"), up_to_date("a")),
        *(delivered("a", 4), skipped, skipped, up_to_date("b"), up_to_date("b")),
        *(refused("b"), refused("b"), up_to_date("b")),
    )
    expected = [
        *(("a", "delivered"), ("a", "delivered"), ("c", "skipped")),
        *(("b", "up-to-date"), ("b", "failed"), ("b", "up-to-date")),
    ]
    assert (expected, []) == (outcomes_of(out), err)
    out, err = reader.reads(away("a"), away("a"), away("b"), away("a"), delivered("a"), delivered("b"))
    expected = [("a", "failed"), ("b", "failed"), ("a", "delivered"), ("b", "delivered")]
    assert (expected, [TOLD_AWAY, BACK]) == (outcomes_of(out), err)
    assert (LINK, 3, 12, 2, 263_000) == tuple(
        json.loads(out[-1])[key] for key in ("url", "epochs", "events", "files", "bytes")
    )


def test_quiet_json_is_of_failures_only(reader: Reader) -> None:
    """-q leaves the lines that need somebody."""
    reader.watches(as_json=True, quiet=True)
    out, err = reader.reads(delivered("a"), up_to_date("b"), refused("c"))
    assert ([("c", "failed")], []) == (outcomes_of(out), err)


# -- hostile names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [False, True])
def test_no_name_gets_at_the_terminal(reader: Reader, verbose: bool) -> None:
    """Whatever is in a path, a reason, a metric, an address or a word: a line each, without controls."""
    reader.watches(verbose=verbose)
    nasty = replace(facts(), name=NASTY, best=(NASTY, 0.5))
    done = replace(delivered(NASTY, url=f"https://{NASTY}"), facts=nasty, notes=(NASTY,))
    out, err = reader.reads(
        *(done, Skipped(Path(NASTY), NASTY, NASTY), replace(up_to_date(NASTY), url=NASTY, facts=nasty)),
        failed(NASTY, RunUnreadable(NASTY, NASTY)),
        *(failed(NASTY, ServerUnreachable(NASTY, NASTY)), done),
    )
    reader.console.say(f"{NASTY} is not there any more.")
    err += reader.reads()[1]
    assert (2 + verbose, 5 + verbose) == (len(out), len(err))
    assert [] == [line for line in [*out, *err] if not line.isprintable()]
    assert [] == [line for line in [*out, *err] if "\x1b" in line or "\u202e" in line]


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("epoch 3 of 8, mAP50-95(B) 0.412", facts()),
        ("finished, epoch 8 of 8, mAP50-95(B) 0.412", facts(8, RunState.FINISHED)),
        ("stopped, epoch 2 of 8, mAP50-95(B) 0.412", facts(2, RunState.STOPPED)),
        ("epoch 0", Facts()),
        ("epoch 5", Facts(epochs=5, best=("mAP", 0.1))),
    ],
)
def test_how_far_a_training_has_come(told: str, known: Facts) -> None:
    """State where it has ended, epochs, the metric as it is now."""
    assert told == how_far(known)


@pytest.mark.parametrize("kind", [RunBusy, RunChanged])
def test_what_passes_by_itself_is_printed_when_it_does_not(
    capsys: pytest.CaptureFixture[str], kind: type[YoloClearmlError]
) -> None:
    """The first time says nothing, the second once, with what a watch does about it."""
    failed = Failed(Path("a"), Facts(), kind("Another is at work on a.", "Run the same command again."))
    with Watching(False, False, False) as console:
        console.show(failed)
        assert ("", "") == capsys.readouterr()
        for _ in range(3):
            console.show(failed)
    assert ("", "a: failed: Another is at work on a. It is tried again by itself.\n") == capsys.readouterr()
