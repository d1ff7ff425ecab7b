"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.main import get_command

from yolo_clearml.cli import app
from yolo_clearml.errors import Exit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def options_of(command: str) -> set[str]:
    group = get_command(app)
    context = typer.Context(group)
    parameters = group.get_command(context, command).get_params(context)  # type: ignore[attr-defined]
    return {flag for parameter in parameters for flag in parameter.opts if flag.startswith("-")}


def test_every_option_is_explained_and_no_other() -> None:
    """The table of options holds exactly those of ``upload --help``."""
    table = README.split("### Options of `upload`")[1].split("###")[0]
    explained = set(
        re.findall(r"(?<![\w-])--?[a-z][a-z-]*", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    )
    assert options_of("upload") - {"-h", "--help"} == explained


def test_every_exit_status_is_explained() -> None:
    """The table of exit statuses holds exactly the promised ones."""
    table = README.split("### Exit status")[1].split("##")[0]
    codes = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in cell.split(",")}
    closed_pipe = 141  # a shell's number, not a status of ours
    assert {int(status) for status in Exit} | {closed_pipe} == codes


def test_every_module_is_explained() -> None:
    """The table of modules holds every module of the package."""
    modules = {path.name for path in (ROOT / "src" / "yolo_clearml").glob("[a-z]*.py")}
    table = README.split("each importing only from those above it")[1].split("### Tests")[0]
    assert modules == set(re.findall(r"^\| `(\w+\.py)` \|", table, re.M))


def test_the_messages_are_real() -> None:
    """Each quoted message is one that the source can say."""
    source = "".join(path.read_text() for path in (ROOT / "src" / "yolo_clearml").glob("*.py"))
    section = README.split("## Five messages")[1].split("\n## ")[0]
    messages = re.findall(r"```text\n(.*?)\n```", section, re.S)
    assert 5 == len(messages)
    for message in messages:
        fixed = re.sub(r"https?://\S+|5b1e0c\S+", "\0", message)
        fixed = fixed.replace("aborted", "\0").replace("ClearML's file server", "\0")
        for piece in (piece.strip(" .") for piece in fixed.split("\0")):
            assert piece in source, piece
