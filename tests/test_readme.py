"""What README and the manual say is so; their form and their outputs are the matter of `test_docs`."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from conftest import MakeRun
from double import ClearMLDouble
from typer.main import get_command

from yolo_clearml.cli.app import app
from yolo_clearml.errors import Exit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / ".github" / "GUIDE.md").read_text()


COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    group = get_command(app)
    context = typer.Context(group)
    parameters = group.get_command(context, command).get_params(context)  # type: ignore[attr-defined]
    return {flag for parameter in parameters for flag in parameter.opts if flag.startswith("-")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_and_no_other(command: str) -> None:
    """The rows of the table that are of a command hold exactly the options of its ``--help``."""
    table = GUIDE.split("## Options\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", table, re.M)
    cells = "".join(options for options, commands in rows if command in commands.split(", "))
    explained = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cells))
    assert options_of(command) - {"-h", "--help"} == explained


def test_every_exit_status_is_explained() -> None:
    """The table of exit statuses holds exactly the promised ones."""
    table = README.split("## Exit status\n")[1].split("\n## ")[0]
    codes = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in cell.split(",")}
    closed_pipe = 141  # a shell's number, not a status of ours
    assert {int(status) for status in Exit} | {closed_pipe} == codes


def test_the_messages_are_real() -> None:
    """Each quoted message is one that the source can say."""
    source = "".join(path.read_text() for path in (ROOT / "src" / "yolo_clearml").rglob("*.py"))
    section = GUIDE.split("## Five messages")[1].split("\n## ")[0]
    messages = re.findall(r"```text\n(.*?)\n```", section, re.S)
    assert 5 == len(messages)
    for message in messages:
        fixed = re.sub(r"https?://\S+|5b1e0c\S+", "\0", message)
        fixed = fixed.replace("aborted", "\0").replace("ClearML's file server", "\0")
        for piece in (piece.strip(" .") for piece in fixed.split("\0")):
            assert piece in source, piece


def test_the_example_of_a_program_runs(
    server: ClearMLDouble,
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it stands, beside a folder of runs."""
    monkeypatch.chdir(make_run("v8.4.190-detect-noplots", "exp").parent.parent)
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    exec(compile(program, "GUIDE.md", "exec"), {})
    (task,) = server.tasks.values()
    assert ["archive"] == task["tags"]
    planned, delivered = capsys.readouterr().out.splitlines()
    assert planned.startswith("Ultralytics ")
    assert delivered.startswith("runs/exp ")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """The unit of the manual is one, with a program that exists."""
    unit = GUIDE.split("<!-- systemd unit -->\n```ini\n")[1].split("```")[0]
    program = Path(sys.executable)
    assert "%h/.local/bin/yolo-clearml" in unit
    (tmp_path / "yolo-clearml.service").write_text(unit.replace("%h/.local/bin/yolo-clearml", str(program)))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "yolo-clearml.service")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (0, "") == (ended.returncode, ended.stderr)


def test_launchd_takes_the_list() -> None:
    """The one of the manual is a property list, and what it runs is a command with a path."""
    text = GUIDE.split("<!-- launchd -->\n```xml\n")[1].split("```")[0]
    listed = plistlib.loads(text.encode())
    program, command, path = listed["ProgramArguments"]
    assert program.endswith("/yolo-clearml") and command in COMMANDS and path.startswith("/")
    assert listed["KeepAlive"] == {"SuccessfulExit": False}


def test_what_task_scheduler_runs_is_a_command() -> None:
    """Each of the manual's lines, without a quote that is left open."""
    lines = GUIDE.split("<!-- schtasks -->\n```bat\n")[1].split("```")[0].splitlines()
    for line in lines:
        assert line.startswith("schtasks /create /tn yolo-clearml") and 0 == line.count('"') % 2
        (run,) = re.findall(r'/tr "(.*?)"', line)
        program, command, *rest = run.split()
        assert program.endswith("yolo-clearml.exe") and command in COMMANDS and rest[-1].startswith("D:")
