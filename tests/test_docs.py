"""README, CONTRIBUTING and the manual: short, linked, complete, and what they quote is what is printed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import COMMAND, Run, run_cli
from timelines import put, timeline

__all__ = ["run_cli"]  # a fixture

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
README, CONTRIBUTING, GUIDE = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", ".github/GUIDE.md"))
DOCUMENTS = (README, CONTRIBUTING, GUIDE)
_LONG = 60  # seconds until a program that prints nothing is given up


def prose(document: Path) -> str:
    """Give a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)


def section(document: Path, title: str) -> str:
    """Give the text below a heading, to the next of any level."""
    return document.read_text().split(f"\n{title}\n")[1].split("\n#")[0]


def rows(text: str) -> list[list[str]]:
    """Give the cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def anchors(document: Path) -> set[str]:
    """Give the names by which GitHub links the headings of a document."""
    titles = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# -- form -------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    """It invites; what is long is elsewhere."""
    assert len(README.read_text().splitlines()) <= 200


def test_the_glossary_is_short() -> None:
    assert 1 <= len(rows(section(CONTRIBUTING, "## Glossary"))) <= 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Each is relative, to a file that is there and, in a document of ours, to a heading that it has."""
    links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_manual_is_listed_in_its_beginning() -> None:
    """Every section, in order."""
    text = prose(GUIDE)
    listed = re.findall(r"\[([^\]]+)\]\(#", text.split("\n## ")[0])
    assert re.findall(r"^## (.*)$", text, re.M) == listed


# -- what is named is there -------------------------------------------------------------------------------


def test_the_picture_of_the_wings_is_complete() -> None:
    """Each wing with each of its modules, and no other."""
    package = ROOT / "src" / "yolo_clearml"
    text = (
        section(CONTRIBUTING, "## The five wings")
        .split("    src/yolo_clearml/\n")[1]
        .split("\n    cli -->")[0]
    )
    drawn: dict[str, set[str]] = {}
    for wing, modules in re.findall(r"^ {6}(\w+)/ .*\n((?: {20,}.*\n)+)", text + "\n", re.M):
        drawn[wing] = set(modules.split())
    found = {
        folder.parent.name: {path.stem for path in folder.parent.glob("*.py")} - {"__init__"}
        for folder in package.glob("*/__init__.py")
    }
    assert found == drawn
    above = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    bare = re.findall(r"^ {6}(\w+(?:  \w+)?) {2,}\S", text, re.M)
    assert above == {name for line in bare for name in line.split()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_are_there(document: Path) -> None:
    """Modules, tests and scripts, wherever they are named."""
    text = document.read_text()
    assert [] == [
        path for path in re.findall(r"\btests/[\w/]+\.py|\.ci/\w+", text) if not (ROOT / path).exists()
    ]
    modules = re.findall(r"`((?:rundir|replay|sync|server|cli)/\w+\.py)`", text)
    assert [] == [path for path in modules if not (ROOT / "src" / "yolo_clearml" / path).exists()]
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set() == set(re.findall(r"`(test_\w+)`", text)) - tests


def test_every_check_has_a_line() -> None:
    """Those of .ci/check, and no other."""
    known = set(re.findall(r"^  (\w+)\)", (ROOT / ".ci" / "check").read_text(), re.M))
    assert known == set(re.findall(r"\.ci/check (\w+)", CONTRIBUTING.read_text()))


def test_ci_finds_the_test_command() -> None:
    """By the mark that .ci/check looks for; both commands begin with an environment of their own."""
    for mark in ("sample", "test"):
        (command,) = re.findall(rf"<!-- {mark} command -->\n```bash\n(.*)\n```\n", README.read_text())
        assert command.startswith("python3 -m venv .venv && ")


# -- real outputs -----------------------------------------------------------------------------------------


def quoted(document: Path, name: str) -> list[str]:
    """Give the lines of an output that is quoted; ids and addresses neutral."""
    (block,) = re.findall(rf"<!-- real output: {name} -->\n```text\n(.*?)```", document.read_text(), re.S)
    return list(neutral(block))


def neutral(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield re.sub(r"[0-9a-f]{32}", "ID", re.sub(r"http://[^/]+/", "http://WEB/", line))


def test_the_output_of_cron_is_real(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:
    """A line, and then none."""
    make_run("v8.4.190-detect", "exp")
    command, line, again = quoted(README, "cron")
    assert command == again == "$ yolo-clearml upload runs | cat"
    ended = run_cli("upload", "runs")
    assert (0, [line], "") == (ended.status, list(neutral(ended.out)), ended.err)
    assert (0, "", "") == run_cli("upload", "runs")


def test_the_output_of_verify_is_real(run_cli: Run, server: ClearMLDouble, make_run: MakeRun) -> None:
    """A value that was changed and a picture that was lost."""
    make_run("v8.4.190-detect", "exp")
    run_cli("upload", "runs")
    (task,) = server.tasks
    server.alter_event(task, "training_stats_scalar", ("metrics", "metrics/mAP50(B)", 3), value=0.6)
    server.forget_event(task, "training_debug_image", ("Validation", "val_pred.jpg", 0))
    ended = run_cli("verify", "runs")
    assert 3 == ended.status
    assert quoted(README, "verify") == ["$ yolo-clearml verify runs", *neutral(ended.out + ended.err)]


def test_the_output_of_watch_is_real(server: ClearMLDouble, tmp_path: Path) -> None:
    """A training that grows: its lines but for how much went with which, which is a matter of moments."""
    (tmp_path / "runs").mkdir()
    command = [*COMMAND, "watch", "runs", "--stale-after", "1000000000"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    lines: list[str] = []
    seen = 0
    try:
        for step in timeline("v8.4.190-detect"):
            if step.rows > 3:
                break
            put(step, tmp_path / "runs" / "exp")
            if step.rows > seen and "weights/best.pt" in {change.name for change in step.changes}:
                seen = step.rows
                while not lines or f"epoch {seen} of" not in lines[-1]:
                    lines.append(process.stdout.readline())
                    assert lines[-1], lines
    finally:
        process.terminate()
        process.communicate(timeout=_LONG)
    shown = [line for line in neutral("".join(lines)) if ": epoch " in line]
    firsts = {text.split(",")[0]: text for text in map(without_amounts, reversed(shown))}
    expected = {text.split(",")[0]: text for text in map(without_amounts, quoted(GUIDE, "watch"))}
    assert expected == firsts


def without_amounts(line: str) -> str:
    return re.sub(r"sent \d+ events(, \d+ files? \([\d.]+ kB\))?", "sent", line)
