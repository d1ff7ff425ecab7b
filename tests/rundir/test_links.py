"""Files of a run that are links: said without being asked, followed into named folders alone."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import Ended, Run, run_cli
from test_scan import training
from test_triggers import ByHand, Told

from yolo_clearml.errors import RunChanged
from yolo_clearml.events import Behind, FileStamp, Plan
from yolo_clearml.library import Options, plan_run, read_run
from yolo_clearml.rundir.files import open_stamped
from yolo_clearml.rundir.listing import listing
from yolo_clearml.rundir.places import Link
from yolo_clearml.rundir.run import Run as Scanned
from yolo_clearml.rundir.scan import scan

__all__ = ["run_cli"]  # a fixture

NAME = "v8.4.190-detect"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a folder outside all runs, as DVC's cache or another disk."""
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run(NAME)


def move(file: Path, store: Path, name: str | None = None) -> Path:
    """Put a file or folder into the store under a name of its own, and a link in its place."""
    target = store / (name or f"{file.name}-moved")
    shutil.move(file, target)
    file.symlink_to(target)
    return target


def planned(run: Path, *folders: Path) -> Plan:
    options = Options(follow_links=folders)
    found = read_run(run, options)
    assert isinstance(found, Scanned)
    return plan_run(found, options)


def stated(line: str) -> dict[str, object]:
    """Read a JSON object of the output."""
    return dict(json.loads(line))


# -- what is said ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["weights/best.pt", "weights"])
def test_a_link_is_named_by_upload_status_and_verify(
    run_cli: Run, server: ClearMLDouble, run: Path, store: Path, what: str
) -> None:
    """Without -v, with where it leads and what helps; ``missing`` lists it, and nothing reads as complete."""
    target = move(run / what, store)
    said = f"{what} is a link to {target}, not followed. --follow-links DIR follows it into DIR.\n"
    fact = f"{what}: a link to {target}, not followed; --follow-links DIR follows it"
    ended = run_cli("upload", run)
    assert (0, f"runs/{NAME}: {said}") == (ended.status, ended.err.splitlines(keepends=True)[0])
    assert "1 file not sent (-v names them)" in ended.out
    assert "up to date but for 1 file" in run_cli("status", run).out
    ended = run_cli("verify", run)
    assert (0, f"runs/{NAME}: {said}") == (ended.status, ended.err)
    assert ": verified but for 1 file, " in ended.out
    for command in ("status", "verify"):
        line = stated(run_cli(command, "--json", run).out)
        assert fact in line["missing"]  # type: ignore[operator]
    assert f"runs/{NAME}: not sent: {fact}\n" in run_cli("upload", "-v", run).err


def test_many_links_are_one_sentence(run: Path, store: Path) -> None:
    """As in a directory that DVC checked out: the weights first, and how many more."""
    for path in [*run.glob("*.png"), *run.glob("weights/*.pt")]:
        move(path, store)
    (note, *_) = planned(run).notes
    assert note.startswith(
        "weights/best.pt, weights/last.pt, BoxF1_curve.png and 6 more are links, not followed"
    )
    assert note.endswith("--follow-links DIR follows them into DIR.")


def test_a_link_that_leads_into_no_named_folder_is_named(run: Path, store: Path, tmp_path: Path) -> None:
    """Another folder, no file there, or a circle: the option is not what is missing."""
    (tmp_path / "other").mkdir()
    target = move(run / "results.png", store)
    for leads in (str(target), str(tmp_path / "other" / "none"), "results.png"):
        (run / "results.png").unlink()
        (run / "results.png").symlink_to(leads)
        got = planned(run, tmp_path / "other")
        link = f"results.png is a link to {leads}, not followed."
        assert f"{link} No folder that --follow-links names holds what is behind." in got.notes


@pytest.mark.parametrize("name", ["args.yaml", "results.csv"])
def test_what_no_run_can_do_without_is_named(run_cli: Run, run: Path, store: Path, name: str) -> None:
    """Status 3 and where it leads; followed on request, and the run is what it was."""
    before = planned(run)
    target = move(run / name, store)
    ended = run_cli("status", "--json", run)
    said = (
        f"{run / name} cannot be read: it is a link to {target}, not followed; --follow-links DIR follows it."
    )
    assert (3, said) == (ended.status, stated(ended.out)["reason"])
    assert before.reports == planned(run, store).reports


def test_a_live_run_whose_weights_are_links_names_what_it_waits_for(tmp_path: Path, store: Path) -> None:
    """Nobody would find out otherwise, for as long as it trains."""
    path = training(tmp_path / "train", stripped=False)
    move(path / "weights", store)
    found = scan(path, (path / "results.csv").stat().st_mtime + 10)
    assert not isinstance(found, Scanned)
    assert "has no checkpoint that can be read yet" == found.reason
    assert "--follow-links DIR" in found.hint


# -- followed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["weights/best.pt", "weights", "results.png"])
def test_a_followed_run_is_the_run_without_links(
    run_cli: Run, server: ClearMLDouble, run: Path, store: Path, what: str
) -> None:
    """The very plan; so a second upload, after the link was made, has nothing to send."""
    before = planned(run)
    assert 0 == run_cli("upload", run).status
    move(run / what, store)
    after = planned(run, store)
    assert {r.key: r.digest for r in before.reports} == {r.key: r.digest for r in after.reports}
    assert (before.key, before.missing, before.notes) == (after.key, after.missing, after.notes)
    assert Ended(0, "", "") == run_cli("upload", "--follow-links", store, run)
    assert ": verified, " in run_cli("verify", "--follow-links", store, run).out


def test_what_is_behind_links_is_sent(
    run_cli: Run, server: ClearMLDouble, run: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file a link, to a name without an ending, as in DVC's cache; the folder given by the variable."""
    for number, path in enumerate([*run.glob("*.*"), *run.glob("weights/*.pt")]):
        move(path, store, f"{number:032x}")
    monkeypatch.setenv("YOLO_CLEARML_FOLLOW_LINKS", f"{store}:/dev")
    ended = run_cli("upload", "--verify", run)
    assert (0, "") == (ended.status, ended.err)
    assert "sent 89 events, 14 files (1.5 MB); verified, " in ended.out


def test_a_watch_sees_what_changes_behind_a_link(run: Path, store: Path) -> None:
    """Nothing announces it, so it is looked for, the rows of a run that grows among it."""
    target = move(run / "results.csv", store)
    told = Told()
    with ByHand(
        [run], told, lambda text: None, threading.Event(), 60.0, follow=(store.resolve(),)
    ) as looking:
        told.settle_all()
        told.heard()
        looking.look(60.0)
        looking.look(60.0)
        assert [] == told.heard()
        os.utime(target)
        looking.look(300.0)
        assert [(NAME, True)] == told.heard()


def test_links_to_links_are_followed_to_the_end(run: Path, store: Path, tmp_path: Path) -> None:
    """What counts is where the last of them leads, whatever lies on the way."""
    target = move(run / "weights" / "best.pt", store)
    (tmp_path / "way").symlink_to(target)
    (run / "weights" / "best.pt").unlink()
    (run / "weights" / "best.pt").symlink_to(tmp_path / "way")
    assert [] == [note for note in planned(run, store).notes if "link" in note]
    (tmp_path / "way").unlink()
    (tmp_path / "way").symlink_to("/etc/hostname")
    assert [] != [note for note in planned(run, store).notes if "link" in note]


def test_another_target_is_another_file(run_cli: Run, server: ClearMLDouble, run: Path, store: Path) -> None:
    """Also one of the same size and time; and the same bytes elsewhere are nothing new."""
    picture = run / "results.png"
    target = move(picture, store)
    times = (target.stat().st_atime_ns, target.stat().st_mtime_ns)
    assert 0 == run_cli("upload", "--follow-links", store, run).status
    other = bytearray(target.read_bytes())
    other[len(other) // 2] ^= 1
    for name, sent in (("other", True), ("the-same", False)):
        (store / name).write_bytes(other)
        os.utime(store / name, ns=times)
        picture.unlink()
        picture.symlink_to(store / name)
        ended = run_cli("upload", "--follow-links", store, run)
        assert (0, sent) == (ended.status, " 1 file (" in ended.out)


def test_what_was_not_followed_is_sent_when_it_is(
    run_cli: Run, server: ClearMLDouble, run: Path, store: Path
) -> None:
    """Just that, into the same task."""
    move(run / "weights" / "best.pt", store)
    run_cli("upload", run)
    ended = run_cli("upload", "--follow-links", store, run)
    assert ": sent 1 file (" in ended.out
    assert 1 == len(server.tasks)
    assert ": verified, " in run_cli("verify", "--follow-links", store, run).out


# -- hostile -----------------------------------------------------------------------------------------------


def test_a_folder_is_named_by_its_real_place(run: Path, store: Path, tmp_path: Path) -> None:
    """What the user names may be a link; a folder of a longer name is another one."""
    (tmp_path / "short").symlink_to(store)
    (tmp_path / "store-of-others").mkdir()
    move(run / "results.png", tmp_path / "store-of-others")
    assert [] != [note for note in planned(run, tmp_path / "short").notes if "link" in note]
    (run / "results.png").unlink()
    (tmp_path / "store-of-others" / "results.png-moved").rename(store / "a")
    (run / "results.png").symlink_to(store / "a")
    assert [] == [note for note in planned(run, tmp_path / "short").notes if "link" in note]


@pytest.mark.parametrize("part", ["file", "folder"])
def test_what_is_swapped_for_a_link_after_the_look_is_not_followed(
    run: Path, store: Path, tmp_path: Path, part: str
) -> None:
    """Resolved at one moment, opened at another: from the named folder on nothing is followed."""
    (store / "deep").mkdir()
    target = move(run / "results.png", store / "deep")
    (entry,) = [entry for entry in listing(run, (store.resolve(),)) if entry[0] == "results.png"]
    name, size, mtime_ns, behind = entry
    assert Behind(str(store.resolve()), "deep/results.png-moved") == behind
    assert isinstance(behind, Behind)
    stamp = FileStamp(name, size, mtime_ns, behind=behind)
    with open_stamped(run, stamp) as file:
        assert size == len(file.read())
    (tmp_path / "outside").mkdir()
    swapped = target if part == "file" else store / "deep"
    swapped.rename(tmp_path / "outside" / swapped.name)
    swapped.symlink_to(tmp_path / "outside" / swapped.name)
    assert size == target.stat().st_size  # by its name it would be found
    with pytest.raises(RunChanged), open_stamped(run, stamp):
        pass


def test_without_the_option_no_target_is_touched(
    run: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To resolve a path can hang on a mount, and a link says which."""
    move(run / "results.png", store)

    def resolve(path: object, **_: object) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(os.path, "realpath", resolve)
    links = {name: link for name, _, _, link in listing(run) if link is not None}
    assert {"results.png": Link(str(store / "results.png-moved"))} == links


def test_a_fifo_behind_a_link_is_not_waited_for(run: Path, store: Path) -> None:
    """Nor is a folder read."""
    for name in ("results.png", "labels.jpg"):
        (run / name).unlink()
        (run / name).symlink_to(store / name)
    os.mkfifo(store / "results.png")
    (store / "labels.jpg").mkdir()
    assert {"results.png", "labels.jpg"}.isdisjoint(name for name, *_ in listing(run, (store.resolve(),)))


@pytest.mark.parametrize("given", ["", "nothing", "file"])
def test_what_is_no_folder_is_wrong_usage(run_cli: Run, run: Path, tmp_path: Path, given: str) -> None:
    """An empty one comes of a variable that is not set, and is not the current folder."""
    (tmp_path / "file").write_bytes(b"")
    for command in ("upload", "status", "verify", "watch"):
        ended = run_cli(command, "--follow-links", given, run)
        assert (2, "") == (ended.status, ended.out)
        assert "--follow-links" in ended.err


def test_a_link_that_is_not_followed_any_more_is_why_it_holds_less(
    run_cli: Run, server: ClearMLDouble, run: Path, store: Path
) -> None:
    """And not a reason to make a twin with --new."""
    move(run / "weights", store)
    assert 0 == run_cli("upload", "--follow-links", store, run).status
    ended = run_cli("upload", run)
    assert "--follow-links DIR follows it" in ended.err
    assert "--new" not in ended.err
    assert 1 == len(server.tasks)
