"""The command ``verify`` and ``upload --verify``, as a user types them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import Ended, Run, run_cli, small

from yolo_clearml.errors import Exit
from yolo_clearml.sync.ledger import FileLedgers

__all__ = ["run_cli", "small"]  # fixtures


def lose_a_point(server: ClearMLDouble) -> None:
    """Change one value on the server and lose another."""
    (task,) = server.tasks
    server.alter_event(task, "training_stats_scalar", ("metrics", "metrics/mAP50(B)", 1), value=0.25)
    server.forget_event(task, "training_stats_scalar", ("lr", "lr/pg0", 2))


def test_a_delivered_run_is_verified(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """A line with what was compared, and 0."""
    run_cli("upload", small)
    ended = run_cli("verify", small)
    assert (0, "", 1) == (ended.status, ended.err, ended.out.count("\n"))
    assert ": verified, " in ended.out
    assert " values and files are the same: http" in ended.out


def test_each_difference_is_named(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Kind, title, series, iteration, here and there; then what mends it; 3."""
    run_cli("upload", small)
    lose_a_point(server)
    ended = run_cli("verify", small)
    assert 3 == ended.status
    first, *named = ended.out.splitlines()
    assert ": differs in 2 places, " in first
    assert {"scalar metrics / metrics/mAP50(B) at iteration 1", "scalar lr / lr/pg0 at iteration 2"} == {
        line.split(": ", 2)[1] for line in named
    }
    ends = sorted(line.split(", ")[-1].split(": ")[-1] for line in named)
    assert ["0.25 in ClearML", "not in ClearML"] == ends
    assert "upload --force" in ended.err
    assert 0 == run_cli("upload", "--force", small).status
    assert 0 == run_cli("verify", small).status


def test_json_holds_the_differences(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """``verified`` or ``differs`` with a list, in the same object as an upload's."""
    run_cli("upload", small)
    line = json.loads(run_cli("verify", "--json", small).out)
    assert ("verified", [], None) == (line["outcome"], line["differences"], line["reason"])
    lose_a_point(server)
    ended = run_cli("verify", "--json", small)
    line = json.loads(ended.out)
    assert (3, "differs", 2) == (ended.status, line["outcome"], len(line["differences"]))
    assert list(server.tasks) == [line["task_id"]]


def test_what_was_never_sent_differs(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """And nothing is made for it."""
    ended = run_cli("verify", small)
    assert (3, 0) == (ended.status, len(server.tasks))
    assert "not in ClearML" in ended.out
    assert "'yolo-clearml upload' sends it." in ended.err


def test_what_was_sent_in_part_wants_the_rest(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """A plain upload sends it; --force would send all the rest again."""
    server.stop_files()
    run_cli("upload", "--timeout", "1", small)
    server.start_files()
    ended = run_cli("verify", small)
    assert 3 == ended.status
    assert "'yolo-clearml upload' with the same options sends the rest." in ended.err
    assert "--force" not in ended.err
    assert 0 == run_cli("upload", small).status
    assert 0 == run_cli("verify", small).status


def test_verbose_names_what_only_clearml_holds(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """It is no difference; who wants to know asks."""
    run_cli("upload", small)
    (task,) = server.tasks
    server.ask(
        "events.add", task=task, type="training_stats_scalar", metric="by hand", variant="x", iter=1, value=2
    )
    assert "by hand" not in "".join(map(str, run_cli("verify", small)))
    ended = run_cli("verify", "-v", small)
    assert 0 == ended.status
    assert "only in ClearML: scalar by hand / x\n" in ended.err


def test_verify_changes_nothing(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Neither on the server nor of the user's; the ledger may remember the proof."""
    run_cli("upload", small)
    there, here = server.snapshot(), {p: p.read_bytes() for p in small.rglob("*.*") if p.name[0] != "."}
    run_cli("verify", small)
    assert there == server.snapshot()
    assert here == {p: p.read_bytes() for p in small.rglob("*.*") if p.name[0] != "."}


def test_upload_can_verify_and_remembers_the_proof(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """The second time costs no request; a change costs the proof."""
    ended = run_cli("upload", "--verify", small)
    assert (0, "", 1) == (ended.status, ended.err, ended.out.count("\n"))
    assert ": sent 48 events, 1 file (241 kB); verified, " in ended.out
    ledger = FileLedgers().load(small)
    assert ledger.settled is not None
    assert ledger.settled == ledger.verified
    asked = len(server.requests)
    assert (0, "", "") == run_cli("upload", "--verify", small)
    assert asked == len(server.requests)
    assert "verified" in run_cli("status", small).out
    (small / "labels.jpg").write_bytes(b"\xff\xd8\xff another \xff\xd9")
    assert "verified" not in run_cli("status", small).out
    assert "; verified, " in run_cli("upload", "--verify", small).out


def test_a_proof_that_no_longer_holds_is_forgotten(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Status then says so no more, and the next ``upload --verify`` looks again."""
    run_cli("upload", "--verify", small)
    lose_a_point(server)
    assert 3 == run_cli("verify", small).status
    assert "verified" not in run_cli("status", small).out
    assert 3 == run_cli("upload", "--verify", small).status
    assert 0 == run_cli("upload", "--force", "--verify", small).status
    assert "verified" in run_cli("status", small).out


def test_a_proof_is_of_the_server_that_was_read(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another configuration may be of a backup: the task is read again before it is vouched for."""
    run_cli("upload", "--verify", small)
    monkeypatch.setenv("TRAINS_API_HOST", "http://elsewhere")  # is not used, but makes it another one
    (task,) = server.tasks
    server.forget_event(task, "training_stats_scalar", next(iter(server.scalars(task))))
    assert Ended(0, "", "") == run_cli("upload", small)
    assert "up to date" in run_cli("status", small).out
    assert 3 == run_cli("upload", "--verify", small).status


def test_a_proof_under_another_configuration_is_not_remembered(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read there says nothing of the server that the ledger is of."""
    run_cli("upload", small)
    with monkeypatch.context() as patch:
        patch.setenv("TRAINS_API_HOST", "http://elsewhere")
        assert 0 == run_cli("verify", small).status
    assert FileLedgers().load(small).verified is None


def test_a_proof_is_of_what_was_verified(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Another call that made another task meanwhile is not credited with it."""
    run_cli("upload", small)
    other = FileLedgers().load(small)

    def replace_ledger(endpoint: str, count: int) -> None:
        if endpoint.startswith("events.") and FileLedgers().load(small) == other:
            with FileLedgers().hold(small) as held:
                held.save(replace(other, task="another"))

    server.before_request = replace_ledger
    assert 0 == run_cli("verify", small).status
    server.before_request = None
    assert ("another", None) == (FileLedgers().load(small).task, FileLedgers().load(small).verified)


def test_upload_sends_again_what_a_deleted_task_had(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """Once ``verify`` has found that it is gone, as its hint says."""
    run_cli("upload", small)
    (task,) = server.tasks
    server.ask("tasks.delete", task=task, force=True)
    assert "'yolo-clearml upload' sends it." in run_cli("verify", small).err
    assert 0 == run_cli("upload", small).status
    assert 0 == run_cli("verify", small).status
    assert [task] != list(server.tasks)


def test_upload_names_what_differs(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """A delivery that was acknowledged, and lost since, is found when the proof is asked for."""
    run_cli("upload", small)
    lose_a_point(server)
    ended = run_cli("upload", "--verify", small)
    assert 3 == ended.status
    assert ": differs in 2 places, " in ended.out
    assert FileLedgers().load(small).verified is None


@pytest.mark.parametrize("other", [["--offline", "out"], ["--dry-run"]])
def test_where_there_is_no_server_nothing_can_be_verified(
    run_cli: Run, server: ClearMLDouble, small: Path, other: list[str]
) -> None:
    """2, and nothing is written."""
    ended = run_cli("upload", "--verify", *other, small)
    assert (2, "") == (ended.status, ended.out)
    assert f"--{'verify' if other[0] == '--offline' else 'dry-run'}" in ended.err


def test_one_run_that_differs_does_not_stop_the_others(
    run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun
) -> None:
    """Both are named, and the status is 3."""
    run_cli("upload", small)
    lose_a_point(server)
    make_run("v8.4.190-classify")
    run_cli("upload", "runs/v8.4.190-classify")
    ended = run_cli("verify", "runs")
    assert 3 == ended.status
    assert (1, 1) == (ended.out.count(": differs in "), ended.out.count(": verified, "))


@pytest.mark.parametrize("how", ["a deleted file", "a reset task", "a deleted task"])
def test_what_the_server_lost_is_found_and_mended(
    run_cli: Run, server: ClearMLDouble, make_run: MakeRun, how: str
) -> None:
    """By ``upload --force``, into the same task as long as there is one."""
    run = make_run("v8.4.190-detect")
    run_cli("upload", run)
    (task,) = server.tasks
    match how:
        case "a deleted file":
            (url,) = [e["url"] for k, e in server.images(task).items() if k[1] == "val_pred.jpg"]
            server.replace_file(url, None)
        case "a reset task":
            server.ask("tasks.reset", task=task, force=True)
        case _:
            server.ask("tasks.delete", task=task, force=True)
    assert 3 == run_cli("verify", run).status
    assert 0 == run_cli("upload", "--force", run).status
    assert 0 == run_cli("verify", run).status
    assert 1 == len(server.tasks)
    assert how == "a deleted task" or [task] == list(server.tasks)


def test_a_run_that_is_skipped_is_named(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:
    """Also below a folder: silence would be read as verified."""
    run = make_run("v8.4.190-detect-noplots")
    begun = run.with_name("begun")
    begun.mkdir()
    shutil.copy(run / "args.yaml", begun)
    ended = run_cli("verify", "runs")
    assert "runs/begun: skipped: it has not finished an epoch yet." in ended.err


def test_a_validation_by_itself_is_met_with_the_option(run_cli: Run, make_run: MakeRun) -> None:
    """Whoever gives its directory as a run learns what to type."""
    run = make_run("v8.4.190-detect")
    val = run.with_name("val")
    val.mkdir()
    shutil.copy(run / "confusion_matrix.png", val)
    for command in ("upload", "status", "verify"):
        ended = run_cli(command, val)
        assert Exit.USAGE == ended.status
        assert "upload DIRECTORY --val-of RUN" in ended.err
