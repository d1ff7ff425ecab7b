"""Parts of a tree for many workers: disjoint, complete, and the same whatever is added or mounted where."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_choice import RUNS, tree

from yolo_clearml.errors import UsageError
from yolo_clearml.rundir.choice import Choice, Shard
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.rundir.run import NotARun

__all__ = ["tree"]  # a fixture


def of_part(shard: Shard, *roots: Path, include: tuple[str, ...] = ()) -> list[Path]:
    """Give what is found of a part, as it was found."""
    found = find_runs(roots, Choice(include=include, shard=shard))
    return [item.path if isinstance(item, NotARun) else item for item in found]


def parts(of: int, *roots: Path, include: tuple[str, ...] = ()) -> list[list[Path]]:
    return [of_part(Shard(part, of), *roots, include=include) for part in range(1, of + 1)]


def below(found: list[list[Path]], root: Path) -> list[list[str]]:
    return [[str(path.relative_to(root)) for path in part] for part in found]


# -- which part ------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)


@given(path=st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1), of=st.integers(1, 60))
def test_every_path_is_in_exactly_one_part(path: list[str], of: int) -> None:
    """Of any number of parts, whatever it is called."""
    place = Path("runs", *path)
    assert 1 == sum(Shard(part, of).holds(place, Path("runs")) for part in range(1, of + 1))


def test_a_part_is_for_ever() -> None:
    """Workers of two versions of this program, and of two days, must agree: never change this."""
    places = [Path("runs", name) for name in ("train", "train2", "detect/train", "läufe/exp", "a b/[c]")]
    found = [next(p for p in range(1, 5) if Shard(p, 4).holds(place, Path("runs"))) for place in places]
    assert [4, 3, 4, 1, 1] == found


def test_the_parts_are_of_about_the_same_size() -> None:
    """Of runs that are numbered, as Ultralytics does it, and that lie in folders of their own."""
    for name in ("train{}", "{}/exp", "project/run-{}/train"):
        places = [Path("r", name.format(number)) for number in range(2000)]
        sizes = [sum(Shard(part, 4).holds(place, Path("r")) for place in places) for part in range(1, 5)]
        assert all(430 < size < 570 for size in sizes), sizes


@pytest.mark.parametrize("mount", ["/mnt/nfs/runs", "runs/", "./runs", "../data/Runs", "/"])
def test_where_the_tree_is_mounted_has_no_say(mount: str) -> None:
    """A folder is given by each machine as it has it there."""
    root = Path(mount)
    held = [Shard(1, 2).holds(root / "detect" / f"train{n}", root) for n in range(50)]
    assert [Shard(1, 2).holds(Path("r/detect") / f"train{n}", Path("r")) for n in range(50)] == held


def test_case_and_accents_have_no_say() -> None:
    """One mount shows TRAIN, another train; a Mac's shows an umlaut as two characters."""
    for n in range(50):
        name = f"Läufe/Train{n}"
        written = {name, name.lower(), name.upper(), unicodedata.normalize("NFD", name)}
        assert 1 == len({Shard(1, 2).holds(Path("r", one), Path("r")) for one in written})


# -- what is found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 3, 4, 40])
def test_the_parts_of_a_tree_are_disjoint_and_together_everything(tree: Path, of: int) -> None:
    """Also what only looks like a run, so that it is named once; each part in order of name."""
    found = below(parts(of, tree), tree)
    assert {**dict.fromkeys(RUNS, 1), "detect/val": 1} == Counter(name for part in found for name in part)
    assert all(sorted(part) == part for part in found)


def test_what_is_added_and_removed_moves_no_other_run(tree: Path) -> None:
    before = below(parts(3, tree), tree)
    for n in range(20):
        (tree / "detect" / f"new{n}").mkdir()
        (tree / "detect" / f"new{n}" / "args.yaml").touch()
    (tree / "detect" / "train" / "args.yaml").unlink()
    after = below(parts(3, tree), tree)
    kept = [[name for name in part if "/new" not in name] for part in after]
    assert [[name for name in part if name != "detect/train"] for part in before] == kept
    assert all(any("/new" in name for name in part) for part in after)


def test_a_run_that_is_given_itself_goes_by_its_name(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As below the folder it lies in; also where it is written as a dot or through a link."""
    link = tmp_path / "latest"
    for name in ("train", "train2", "train10"):
        run = tree / "detect" / name
        there = [bool(of_part(Shard(part, 3), run)) for part in (1, 2, 3)]
        assert 1 == sum(there)
        in_folder = [run in part for part in parts(3, tree / "detect")]
        assert there == in_folder
        link.unlink(missing_ok=True)
        link.symlink_to(run)
        assert there == [bool(part) for part in parts(3, link)]
        monkeypatch.chdir(run)
        assert there == [bool(part) for part in parts(3, Path())]


def test_a_run_below_two_given_paths_is_in_one_part(tree: Path) -> None:
    """It has another path below each, and the first one decides, for all workers."""
    for roots in ((tree / "detect", tree), (tree, tree / "detect"), (tree / "detect" / "train2", tree)):
        found = Counter(os.path.realpath(path) for part in parts(5, *roots) for path in part)
        assert {str(tree / name): 1 for name in (*RUNS, "detect/val")} == found


def test_patterns_choose_before_parts_do(tree: Path) -> None:
    """The parts of what is included are those parts of everything."""
    included = parts(3, tree, include=("detect",))
    assert included == [[path for path in part if "detect" in path.parts] for part in parts(3, tree)]


def test_what_cannot_be_listed_is_in_every_part(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold runs of each: a worker that said nothing of it would claim that its part is done."""
    listed = os.scandir

    def scandir(path: Path) -> object:
        if Path(path) == tree / "lab":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert all(tree / "lab" in part for part in parts(3, tree))
    assert not any(of_part(Shard(part, 3), tree, include=("detect",)).count(tree / "lab") for part in (1, 2))


# -- what is written -------------------------------------------------------------------------------------


def test_how_a_part_is_written() -> None:
    """Counted from 1; with zeros in front, as ``seq -w`` counts."""
    assert (Shard(1, 1), Shard(4, 4), Shard(3, 12)) == tuple(map(Shard.parse, ("1/1", "4/4", "03/12")))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/",
            "1",
            "1/",
            "/4",
            "0/4",
            "5/4",
            "1/0",
            "-1/4",
            "1/-4",
            "1.0/4",
            " 1/4",
            "1/4\n",
            "1/4/2",
            "1 of 4",
        ),
        *("٣/4", "1/" + "9" * 5000, "$I/4"),
    ],
)
def test_what_names_no_part_is_a_wrong_usage(text: str) -> None:
    """A variable that is not set, an index from 0, more parts than digits; with the form it has."""
    with pytest.raises(UsageError, match="no part") as error:
        Shard.parse(text)
    assert "1/4 to 4/4" in error.value.hint


def test_a_part_of_a_program_is_checked_as_well() -> None:
    for part, of in ((0, 4), (5, 4), (1, 0), (-1, -1)):
        with pytest.raises(UsageError, match=f"no part {part} of {of}"):
            Shard(part, of)
