"""Which runs --include and --exclude mean: patterns as in .gitignore, by path below the folder given."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from yolo_clearml.errors import UsageError
from yolo_clearml.rundir.choice import EVERY_RUN, Choice
from yolo_clearml.rundir.finding import find_runs
from yolo_clearml.rundir.run import NotARun

RUNS = (
    *("detect/train", "detect/train2", "detect/train10", "segment/train", "lab/shapes/v1/exp"),
    *("multitrain/train", "multitrain/tune/train"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a folder with empty runs as people have them, and a validation."""
    for name in RUNS:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "args.yaml").touch()
    (tmp_path / "runs" / "detect" / "val").mkdir()
    (tmp_path / "runs" / "detect" / "val" / "confusion_matrix.png").touch()
    return tmp_path / "runs"


def chosen(root: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> set[str]:
    """Give what is found, by path below ``root``; what is no run with a question mark."""
    return {
        f"{item.path.relative_to(root)}?" if isinstance(item, NotARun) else str(item.relative_to(root))
        for item in find_runs([root], Choice(include, exclude))
    }


@pytest.mark.parametrize(
    ("expected", "include", "exclude"),
    [
        ({*RUNS, "detect/val?"}, (), ()),
        ({"detect/train", "detect/train2", "detect/train10", "detect/val?"}, ("detect",), ()),
        ({"detect/train", "detect/train2", "detect/train10", "detect/val?"}, ("/detect/",), ()),
        ({"detect/train", "segment/train", "multitrain/train", "multitrain/tune/train"}, ("train",), ()),
        ({"detect/train2", "detect/train10"}, ("train[0-9]*",), ()),
        ({"detect/train2"}, ("train?",), ()),
        ({"detect/train", "detect/train2", "detect/train10"}, ("detect/train*",), ()),
        ({"lab/shapes/v1/exp"}, ("lab/**/exp",), ()),
        ({"lab/shapes/v1/exp"}, ("shapes",), ()),
        (set(), ("/train",), ()),
        ({"segment/train", "lab/shapes/v1/exp"}, ("exp", "segment"), ()),
        ({"lab/shapes/v1/exp", "multitrain/train", "multitrain/tune/train"}, (), ("detect", "segment")),
        ({"multitrain/train"}, ("multitrain",), ("tune",)),
        ({"segment/train"}, (), ("*", "!segment")),
        ({"detect/train", "detect/train10", "detect/val?"}, ("detect", "!train2"), ()),
        (set(), ("detect",), ("detect",)),
        ({"lab/shapes/v1/exp"}, ("lab/*",), ()),
        ({"multitrain/train", "multitrain/tune/train"}, ("multitrain/*",), ()),
        ({*RUNS, "detect/val?"} - {"multitrain/train", "multitrain/tune/train"}, (), ("multitrain/*",)),
        ({"multitrain/train"}, ("multitrain/*", "!multitrain/tune"), ()),
        ({"multitrain/train"}, ("multitrain/*", "!tune"), ()),
        (set(), ("multitrain/tune", "!multitrain/*"), ()),
        ({"multitrain/tune/train"}, ("!tune", "/*/tune"), ()),
        ({"lab/shapes/v1/exp"}, ("/*/shapes/*",), ()),
        (set(), ("nowhere",), ()),
    ],
)
def test_patterns_choose(
    tree: Path, expected: set[str], include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """A name at any depth, a path with a slash from the root, a folder and all below; exclude wins."""
    assert expected == chosen(tree, include, exclude)


def test_a_path_that_is_given_itself_goes_by_its_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is written as a dot or through a link; a folder above runs is entered all the same."""
    run = tree / "detect" / "train2"
    link = tree.parent / "latest"
    link.symlink_to(run)
    assert {"."} == chosen(run, include=("train2",))
    assert set() == chosen(run, exclude=("train2",))
    assert set() == chosen(link, exclude=("train2",))
    assert set() == chosen(run, include=("other",))
    monkeypatch.chdir(run)
    assert [Path()] == list(find_runs([Path()], Choice(include=("train2",))))
    assert {"train", "train2", "train10"} == chosen(tree / "detect", ("train*",), ("detect",))


def test_names_that_are_no_patterns_are_held_against_them(tmp_path: Path) -> None:
    """Brackets, blanks, umlauts and bytes that are no text in a folder's name."""
    names = {"[a]", "a b", "läufe", "x\udcff"}
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "args.yaml").touch()
    assert {"[a]"} == chosen(tmp_path, (r"\[a]",))
    assert {"a b"} == chosen(tmp_path, ("a b",))
    assert {"läufe", "x\udcff"} == chosen(tmp_path, ("l?ufe", "x\udcff"))
    assert names == chosen(tmp_path, ("*",))


@pytest.mark.parametrize("pattern", ["!", "\\", "train\\", "[z-a]"])
@pytest.mark.parametrize("which", ["include", "exclude"])
def test_what_is_no_pattern_is_a_wrong_usage(which: str, pattern: str) -> None:
    """With the pattern and what to write, before any folder is looked at."""
    patterns = ("good", pattern)
    with pytest.raises(UsageError, match=r"^good, .* is no pattern") as error:
        Choice(patterns) if which == "include" else Choice(exclude=patterns)
    assert ".gitignore" in error.value.hint
    assert pattern in str(error.value)


def test_an_odd_pattern_makes_no_noise() -> None:
    """A warning of Python's about '[[' would come with every call of cron's."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Choice(include=("[[a]",)).takes(Path("r/x"), Path("r"))


def test_without_patterns_everything_is_meant() -> None:
    """A folder and a run, the root itself too."""
    for path in (Path("r"), Path("r/a"), Path("r/a/b")):
        assert (True, True) == (EVERY_RUN.enters(path, Path("r")), EVERY_RUN.takes(path, Path("r")))


AUDITED = """
import json, sys
from pathlib import Path
from yolo_clearml.rundir.choice import Choice
from yolo_clearml.rundir.finding import find_runs
root, include, exclude = sys.argv[1], *map(tuple, json.loads(sys.argv[2]))
choice = Choice(include, exclude)
seen = []
sys.addaudithook(lambda event, given: event in ("open", "os.scandir", "os.listdir") and seen.append(
    [event, str(given[0])]) if isinstance(given[:1] and given[0], (str, Path)) else None)
list(find_runs([Path(root)], choice))
print(json.dumps(seen))
"""


def touched(root: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[list[str]]:
    """Give every file that a search opens and every folder it lists, below ``root``."""
    command = [sys.executable, "-c", AUDITED, str(root), json.dumps([include, exclude])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [
        [event, str(Path(path).relative_to(root))]
        for event, path in json.loads(ended.stdout)
        if Path(path).is_relative_to(root)
    ]


def test_a_search_lists_each_folder_once_and_opens_no_file(tree: Path) -> None:
    """It needs names only; a run's own folders are not listed."""
    (tree / "segment" / "train" / "weights").mkdir()
    (tree / "detect" / "again").symlink_to(tree / "segment")
    folders = {".", "detect", "segment", "lab", "lab/shapes", "lab/shapes/v1", "multitrain"}
    expected = sorted(folders | {"multitrain/tune", "detect/val"} | set(RUNS))
    assert [["os.scandir", name] for name in expected] == sorted(touched(tree))


def test_what_is_excluded_is_not_looked_into(tree: Path) -> None:
    """A folder of a million pictures can be left out for good."""
    listed = {name for _, name in touched(tree, exclude=("detect", "multitrain/tune", "shapes"))}
    assert {".", "segment", "segment/train", "lab", "multitrain", "multitrain/train"} == listed


def test_a_choice_is_made_by_each_path_that_is_given(tree: Path) -> None:
    """What one path's patterns leave out, another path's take: it is the same directory."""
    choice = Choice(include=("detect/train2",))
    assert [tree / "detect" / "train2"] == list(find_runs([tree], choice))
    assert [tree / "detect" / "train2"] == list(find_runs([tree / "detect", tree], choice))
