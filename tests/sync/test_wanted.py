"""What a person leaves out is not sent, is remembered as left out, and comes when it is wanted again."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import ROOT, MakeRun, long_after, sampled
from double import ClearMLDouble
from test_cli import Run, run_cli
from uploading import end_state, fails
from uploading import upload as upload_soon

from yolo_clearml import events
from yolo_clearml.errors import UsageError
from yolo_clearml.events import Part
from yolo_clearml.library import Options, status
from yolo_clearml.library import upload as upload_as_asked
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.replay.wanted import Wanted
from yolo_clearml.rundir.run import Run as RunRead
from yolo_clearml.rundir.scan import scan
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers
from yolo_clearml.sync.outcomes import Delivered, Pending, UpToDate
from yolo_clearml.sync.work import Aim

__all__ = ["run_cli"]  # a fixture

pytestmark = pytest.mark.usefixtures("told_at_once")
upload = functools.partial(upload_soon, timeout=20.0)  # a machine may be busy
A_FEW = (Part.ARGS, Part.MODEL)
EVERY_PART = pytest.mark.parametrize("part", sampled(Part, A_FEW.__contains__), ids=lambda part: part.value)


def without(*parts: Part) -> Wanted:
    return Wanted(frozenset(parts))


def held(server: ClearMLDouble) -> set[Part]:
    """Give of which kinds the one task on the server holds something."""
    ((name, task),) = server.tasks.items()
    kinds = {
        Part.ARGS: set(task["hyperparams"]) - {"properties"},
        Part.SCALARS: server.scalars(name),
        Part.VALUES: server.single_values(name),
        Part.IMAGES: server.images(name),
        Part.PLOTS: server.plots(name),
        Part.MODEL: task["models"]["output"],
    }
    assert kinds.keys() == set(Part)
    assert task["hyperparams"]["properties"]
    assert "completed" == task["status"]
    return {part for part, there in kinds.items() if there}


def but_console(state: dict[str, Any]) -> dict[str, Any]:
    """An end state without the console, which holds a line for each course that brought something."""
    for task in state["tasks"].values():
        del task["log"]
    return state


# -- one list ---------------------------------------------------------------------------------------------


def test_every_event_has_its_part() -> None:
    """Or states the run and its end, which are always reported, or has an option of its own."""
    always = {events.Properties, events.Status, events.Child, events.Artifact}
    assert set(get_args(events.Event)) - always == set(events._PARTS)
    assert set(events._PARTS.values()) == set(Part)


def test_a_finished_run_has_every_part(small_run: Path) -> None:
    run = scan(small_run, long_after())
    assert isinstance(run, RunRead)
    assert {*Part, None} == {report.part for report in plan(run, Wishes()).reports}


# -- what is sent -----------------------------------------------------------------------------------------


@EVERY_PART
def test_what_is_left_out_is_sent_when_it_is_wanted(
    server: ClearMLDouble, small_run: Path, part: Part
) -> None:
    """It is not pending meanwhile; then exactly that is sent, and the end is that of a plain upload."""
    (outcome,) = upload([small_run], wanted=without(part))
    assert isinstance(outcome, Delivered)
    assert (part.value,) == outcome.facts.without
    assert set(Part) - {part} == held(server)
    (standing,) = status([small_run])
    assert isinstance(standing, UpToDate)
    assert (part.value,) == standing.facts.without
    count = len(server.requests)
    (looked_at,) = status([small_run], Options(stale_after=1e6))  # anew, for another question
    assert isinstance(looked_at, UpToDate)
    (outcome,) = upload([small_run], wanted=without(part))
    assert isinstance(outcome, UpToDate)
    assert (count, (part.value,)) == (len(server.requests), outcome.facts.without)
    planned = {r.key: r for r in _planned(small_run).reports}
    (outcome,) = upload([small_run])
    assert isinstance(outcome, Delivered)
    assert () == outcome.facts.without
    sent = sum(len(r.events) for r in planned.values() if r.part is part)
    assert outcome.events == (0 if part in (Part.ARGS, Part.MODEL) else sent)
    assert set(Part) == held(server)
    later = but_console(end_state(server))
    with ClearMLDouble() as other, pytest.MonkeyPatch.context() as patch:
        for name, value in other.environ.items():
            patch.setenv(name, value)
        (small_run / LEDGER_NAME).unlink()
        assert [] == fails(upload([small_run]))
        assert but_console(end_state(other)) == later


def _planned(path: Path) -> events.Plan:
    run = scan(path, long_after())
    assert isinstance(run, RunRead)
    return plan(run, Wishes())


@EVERY_PART
def test_verify_does_not_miss_what_was_left_out(server: ClearMLDouble, small_run: Path, part: Part) -> None:
    """It is named instead; and it is missed once the ledger, that alone remembers it, is lost."""
    upload([small_run], wanted=without(part))
    (outcome,) = upload([small_run], aim=Aim.VERIFY, wanted=None)
    assert isinstance(outcome, UpToDate)
    assert outcome.proof is not None
    assert ((), (), (part.value,)) == (
        outcome.proof.differences,
        outcome.proof.extra,
        outcome.facts.without,
    )
    assert FileLedgers().load(small_run).verified
    (small_run / LEDGER_NAME).unlink()
    (outcome,) = upload([small_run], aim=Aim.VERIFY, wanted=None)
    assert isinstance(outcome, UpToDate)
    assert outcome.proof is not None
    assert outcome.proof.differences


def test_what_was_sent_before_is_not_called_left_out(server: ClearMLDouble, small_run: Path) -> None:
    """The model is there, whatever a later call leaves out, and it is compared; until it changes on disk."""
    upload([small_run])
    count, state = len(server.requests), end_state(server)
    (outcome,) = upload([small_run], wanted=without(Part.MODEL))
    assert isinstance(outcome, UpToDate)
    assert (count, state, ()) == (len(server.requests), end_state(server), outcome.facts.without)
    (key,) = (key for key in server.files if "/models/" in key)
    server.files[key] = b"x"
    (outcome,) = upload([small_run], wanted=without(Part.MODEL), aim=Aim.DELIVER_AND_VERIFY)
    assert isinstance(outcome, UpToDate)
    assert outcome.proof is not None
    assert ["model"] == [difference.kind.value for difference in outcome.proof.differences]


def test_force_sends_again_what_is_wanted_alone(server: ClearMLDouble, small_run: Path) -> None:
    upload([small_run])
    server.files.clear()
    upload([small_run], wanted=without(Part.MODEL), force=True)
    assert server.files
    assert not any("/models/" in key for key in server.files)


def test_a_lost_ledger_finds_the_task_by_what_was_sent(server: ClearMLDouble, small_run: Path) -> None:
    """Without parameters and curves too: it is the run's key that it is found by."""
    few = without(*set(Part) - {Part.IMAGES})
    upload([small_run], wanted=few)
    (small_run / LEDGER_NAME).unlink()
    upload([small_run], wanted=few)
    assert {Part.IMAGES} == held(server)
    (line,) = {event["msg"] for event in end_state(server)["tasks"].popitem()[1]["log"]}
    assert "5 of 5 epochs. 2 debug images." in line
    upload([small_run])
    assert set(Part) == held(server)


@EVERY_PART
def test_a_task_of_others_gets_what_is_wanted_alone(
    server: ClearMLDouble, small_run: Path, part: Part
) -> None:
    """With --task-id: nothing else is compared or added."""
    project = server.ask("projects.create", name="elsewhere", description="")["id"]
    task = server.ask("tasks.create", name="by hand", project=project, type="training")["id"]
    (outcome,) = upload([small_run], task_id=task, wanted=without(*set(Part) - {part}))
    assert isinstance(outcome, Delivered)
    assert {part} == held(server)
    (outcome,) = upload([small_run], aim=Aim.VERIFY, wanted=None)
    assert isinstance(outcome, UpToDate)
    assert outcome.proof is not None
    assert () == outcome.proof.differences


def test_another_training_in_the_same_directory_has_no_wish_of_its_own(
    server: ClearMLDouble, small_run: Path, make_run: MakeRun
) -> None:
    upload([small_run], wanted=without(Part.MODEL))
    other = make_run("v8.3.100-detect")
    (other / LEDGER_NAME).write_bytes((small_run / LEDGER_NAME).read_bytes())
    (standing,) = status([other])
    assert isinstance(standing, Pending)
    assert () == standing.facts.without


@EVERY_PART
def test_a_session_lacks_it_too(server: ClearMLDouble, small_run: Path, tmp_path: Path, part: Part) -> None:
    """And states so."""
    list(upload_as_asked([small_run], Options(offline=tmp_path / "out", without=(part.value,))))
    (session,) = (tmp_path / "out").glob("*.zip")
    with zipfile.ZipFile(session) as archive:
        task = json.loads(archive.read("task.json"))
        lines = archive.read("metrics.jsonl").splitlines()
        log = archive.read("log.jsonl").decode()
    told = [event for line in lines for event in json.loads(line)]
    kinds = {
        Part.ARGS: "General" in task["hyperparams"],
        Part.SCALARS: any("value" in event and event["metric"] != "Summary" for event in told),
        Part.VALUES: any(event["metric"] == "Summary" for event in told),
        Part.IMAGES: any(event["type"] == "training_debug_image" for event in told),
        Part.PLOTS: any(event["type"] == "plot" for event in told),
        Part.MODEL: bool(task["offline_output_models"]),
    }
    assert [part] == [kind for kind, there in kinds.items() if not there]
    assert f"Left out, as asked: {part.value}." in log


# -- the command line -------------------------------------------------------------------------------------


def test_each_command_names_what_is_left_out(run_cli: Run, server: ClearMLDouble, small_run: Path) -> None:
    dry = run_cli("upload", "--dry-run", "--without", "model,plots", small_run)
    assert " without plots and model" in dry.out.splitlines()[0]
    assert "Left out, as asked: plots, model." in dry.out
    assert not [line for line in dry.out.splitlines() if line.startswith(("  plot ", "  model "))]
    assert " without plots and model" in run_cli("upload", "--without", "model,plots", small_run).out
    assert "up to date without plots and model" in run_cli("status", small_run).out
    line = json.loads(run_cli("status", small_run, "--json").out)
    assert ("up-to-date", 0, ["plots", "model"]) == (line["outcome"], line["pending"], line["without"])
    proof = run_cli("verify", small_run)
    assert (0, True) == (proof.status, "verified without plots and model, " in proof.out)
    assert "without" not in run_cli("upload", "--only", "model", "--only", "plots", small_run).out
    assert json.loads(run_cli("verify", small_run, "--json").out)["without"] == []


def test_a_kind_that_there_is_not_is_an_error_with_the_list(
    run_cli: Run, server: ClearMLDouble, small_run: Path
) -> None:
    ended = run_cli("upload", "--only", "scalars,weights", small_run)
    assert 2 == ended.status
    assert "--only does not know 'weights'" in ended.err
    assert ", ".join(part.value for part in Part) in ended.err
    ended = run_cli("watch", "--only", "scalars", "--without", "model", small_run)
    assert (2, True) == (ended.status, "--only and --without cannot be had together" in ended.err)


def test_options_are_checked_for_programs_too() -> None:
    with pytest.raises(UsageError):
        Options(without=("",))
    assert Options(only=("scalars,images", "plots")).wanted() == without(Part.ARGS, Part.VALUES, Part.MODEL)


def test_the_manual_lists_the_kinds() -> None:
    """In the row of the options, and explained one by one."""
    text = (ROOT / ".github" / "GUIDE.md").read_text()
    listed = ", ".join(f"`{part.value}`" for part in Part)
    (row,) = (line for line in text.splitlines() if line.startswith("| `--only KIND`"))
    assert listed in row
    section = text.split("\n## Choosing what is sent\n")[1].split("\n## ")[0]
    assert not [part for part in Part if f"`{part.value}`" not in section]
