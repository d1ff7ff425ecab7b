"""The command ``status``, as a user types it; and what a shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from double import ClearMLDouble
from test_cli import COMMAND, Ended, Run, converted, files_below, on_a_terminal, options_of, run_cli, small
from typer.main import get_command

from yolo_clearml.cli import app as cli
from yolo_clearml.cli.standings import SortKey, StateName
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers

__all__ = ["run_cli", "small"]  # fixtures

# runs the command line, and lets no socket be opened; what was imported goes to stderr
AUDITED = """
import sys
def forbid(event, given):
    if event.startswith("socket."):
        sys.stderr.write("a socket: " + event)
        sys.stderr.flush()
        __import__("os")._exit(99)
    if event == "open" and "runs" in str(given[0]):
        opened.append(str(given[0]).rpartition("/")[2])
opened = []
sys.addaudithook(forbid)
from yolo_clearml.cli.app import main
try:
    main()
finally:
    heavy = {"clearml", "requests", "urllib3", "matplotlib", "watchdog", "prometheus_client"}
    sys.stderr.write(f"{sorted(heavy & set(sys.modules))} {opened}")
"""


def audited(*arguments: object) -> Ended:
    """Call the program with an environment that names no ClearML, and with no socket."""
    environment = {"PATH": os.defpath, "HOME": "/nowhere", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", AUDITED, *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("form", [[], ["--json"], ["--sort", "fitness", "--pending"]])
def test_it_needs_no_network_and_nothing_of_clearml(make_run: MakeRun, form: list[str]) -> None:
    """Unconfigured, without a socket and without what is slow to import; it writes nothing."""
    run = make_run("v8.4.190-detect-killed")
    before = files_below(run.parent)
    ended = audited("status", run.parent, *form)
    assert (0, "[]") == (ended.status, ended.err.split("] ")[0] + "]")
    assert "v8.4.190-detect-killed" in ended.out
    assert before == files_below(run.parent)


def test_of_a_run_that_is_all_there_only_the_ledger_is_read(server: ClearMLDouble, small: Path) -> None:
    """So that a pile of thousands is quick to look at."""
    environment = {"PATH": os.defpath, "HOME": "/nowhere"} | server.environ
    subprocess.run([*COMMAND, "upload", "-q", small], env=environment, check=True, timeout=60)
    assert [LEDGER_NAME] == sorted({*_opened(environment, small)} - {small.name})


def _opened(environment: dict[str, str], run: Path) -> list[str]:
    command = [sys.executable, "-c", AUDITED, "status", str(run)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "up to date" in ended.stdout
    return [name.strip("'[] ") for name in ended.stderr.partition("] ")[2].split(",")]


def test_it_shows_what_is_there_and_what_is_not(
    run_cli: Run, server: ClearMLDouble, small: Path, make_run: MakeRun
) -> None:
    """Before the upload, after it, and when a row came; no request for any of it."""
    make_run("v8.4.190-val")
    assert Ended(0, "", "") == run_cli("status", "-q", "runs")
    ended = run_cli("status", "runs")
    skipped = "1 directory is skipped; -v or --state skipped names it.\n"
    assert (0, skipped, 2) == (ended.status, ended.err, ended.out.count("\n"))
    assert ended.out.splitlines()[1].endswith("  not there yet")
    assert [] == server.requests
    sent = json.loads(run_cli("upload", "--json", small).out)
    count = len(server.requests)
    assert run_cli("status", "runs").out.splitlines()[1].endswith(f"  up to date  {sent['url']}")
    rows = (small / "results.csv").read_text()
    (small / "results.csv").write_text(rows + "4" + rows.splitlines()[-1][1:] + "\n")
    line = json.loads(run_cli("status", "--json", small).out)
    assert ("pending", sent["task_id"], sent["url"]) == tuple(line[k] for k in ("outcome", "task_id", "url"))
    assert 0 < line["pending"] < sent["events"]
    assert f"  {line['pending']} pending" in run_cli("status", "runs").out
    assert count == len(server.requests)


def test_a_half_sent_run_has_the_rest_pending(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """What arrived and what waits make up the whole."""
    whole = json.loads(run_cli("status", "--json", small).out)["pending"]
    server.stop_files()
    failed = json.loads(run_cli("upload", "--json", "--timeout", "1", small).out)
    assert "failed" == failed["outcome"]
    line = json.loads(run_cli("status", "--json", small).out)
    assert ("pending", failed["task_id"]) == (line["outcome"], line["task_id"])
    assert whole == line["pending"] + failed["events"]


def test_other_wishes_of_the_upload_make_nothing_pending(
    run_cli: Run, server: ClearMLDouble, small: Path
) -> None:
    """status has no --project, --name and --tags; a run sent with them is up to date all the same."""
    run_cli("upload", "-p", "lab/shapes", "-n", "first", "--tags", "x", small)
    line = json.loads(run_cli("status", "--json", small).out)
    assert ("up-to-date", "first") == (line["outcome"], line["name"])


def test_what_another_server_has_is_not_known(
    run_cli: Run, server: ClearMLDouble, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run sent under another configuration is ``up to date?``, until ``upload`` has asked."""
    run_cli("upload", small)
    assert "?" not in run_cli("status", small).out
    monkeypatch.setenv("CLEARML_API_ACCESS_KEY", "another")
    looked = run_cli("status", small)
    assert "up to date?" in looked.out
    assert "1 run with a ? was sent under another configuration of ClearML" in looked.err
    assert looked == run_cli("status", "--pending", small)  # for this server may have nothing of it
    line = json.loads(run_cli("status", "--json", small).out)
    assert ("up-to-date", 0) == (line["outcome"], line["pending"])
    assert "another configuration" in line["reason"]


def test_rules_are_those_of_the_upload(run_cli: Run, server: ClearMLDouble, small: Path) -> None:
    """A run reported by the rules of another release is up to date, and verified, by these."""
    rules = "--rules", "8.2.0"
    run_cli("upload", *rules, small)
    assert "pending" in run_cli("status", small).out
    assert "up to date" in run_cli("status", *rules, small).out
    assert 3 == run_cli("verify", small).status
    assert 0 == run_cli("verify", *rules, small).status


def test_failures_are_printed_with_what_to_do(run_cli: Run, small: Path, make_run: MakeRun) -> None:
    """3; in the table what is wrong, on stderr what to do; with --json all of it in the line; -q: both."""
    (make_run("v8.3.100-detect") / "args.yaml").unlink()
    what, hint = "runs/v8.3.100-detect/args.yaml is missing.", "Restore it as Ultralytics wrote it"
    ended = run_cli("status", "runs")
    assert (3, 1, 1) == (ended.status, ended.out.count(what), ended.err.count(hint))
    assert "v8.4.190-detect-noplots" in ended.out
    quiet = run_cli("status", "-q", "runs")
    assert (3, "", 1) == (quiet.status, quiet.out, quiet.err.count("\n"))
    assert what in quiet.err
    assert hint in quiet.err
    ended = run_cli("status", "--json", "-q", "runs")
    (line,) = map(json.loads, ended.out.splitlines())
    assert (3, "", "failed", what) == (ended.status, ended.err, line["outcome"], line["reason"])


def test_verbose_names_what_is_skipped(run_cli: Run, small: Path, make_run: MakeRun) -> None:
    """As the help and the README say of -v; without it, it is left out."""
    make_run("v8.4.190-val")
    assert "validation" not in "".join(map(str, run_cli("status", "runs")))
    ended = run_cli("status", "-v", "runs")
    assert "is a validation, not a training" in ended.out + ended.err


def test_a_run_that_is_skipped_for_now_is_not_forgotten(run_cli: Run, make_run: MakeRun) -> None:
    """A training in its first epoch is no line of the table; how to see it is said."""
    run = make_run("v8.4.190-detect-killed")
    for path in (*run.glob("weights/*"), run / "results.csv"):
        path.unlink()
    (run / "args.yaml").touch()
    told = "1 directory is skipped; -v or --state skipped names it.\n"
    assert Ended(0, "", told) == run_cli("status", "runs")
    for named in (["-v"], ["--state", "skipped"]):
        assert "has not finished an epoch yet" in run_cli("status", *named, "runs").out
    assert Ended(0, "", "") == run_cli("status", "--json", "runs")
    assert Ended(0, "", "No run has anything to send.\n") == run_cli("status", "--pending", "runs")
    assert Ended(0, "", "No run is live.\n") == run_cli("status", "--state", "live", "runs")


def test_lines_are_chosen_and_sorted(run_cli: Run, make_run: MakeRun) -> None:
    """By path, state and number, from options and from variables; --json has the same lines."""
    for name in ("v8.4.190-detect-noplots", "v8.4.190-detect-killed", "v8.4.190-val", "v8.4.190-classify"):
        make_run(name, f"lab/{name.removeprefix('v8.4.190-')}")

    def names(*options: str) -> list[str]:
        lines = run_cli("status", "--json", *options, "runs").out.splitlines()
        got = [Path(json.loads(line)["run"]).name for line in lines]
        rows = run_cli("status", *options, "runs").out.splitlines()
        rows = rows[[*(row.startswith("run ") for row in rows), True].index(True) + 1 :]
        assert got == [Path(row.split()[0]).name for row in rows]
        return got

    assert ["classify", "detect-killed", "detect-noplots"] == names()
    assert ["classify", "detect-noplots", "detect-killed"] == names("--sort", "fitness")
    assert ["detect-killed"] == names("--state", "stopped")
    assert ["detect-killed", "val"] == names("--state", "stopped", "--state", "skipped")
    assert ["detect-killed", "detect-noplots"] == names("--include", "detect*")
    assert ["classify"] == names("--exclude", "detect-*")
    assert [] == names("--state", "failed")
    assert ["detect-killed"] == names("--state", "live", "--stale-after", str(10**9))


VALUES: dict[str, tuple[str, object]] = {
    "--sort": ("fitness", SortKey.FITNESS),
    "--state": ("live stopped", [StateName.LIVE, StateName.STOPPED]),
    "--pending": ("1", True),
    "--include": ("a* b", ["a*", "b"]),
    "--exclude": ("a* b", ["a*", "b"]),
    "--follow-links": ("/usr:/dev", [Path("/usr"), Path("/dev")]),
    "--stale-after": ("60", 60.0),
    "--json": ("1", True),
    "--quiet": ("1", True),
    "--verbose": ("1", True),
    "--poll": ("7", 7.0),
    "--once": ("1", True),
}


def command_of(name: str) -> Any:
    group: Any = get_command(cli.app)
    return group.commands[name]


def test_every_option_of_every_command_has_a_variable() -> None:
    """YOLO_CLEARML_ and its name, and no two options have the same."""
    for name in get_command(cli.app).commands:  # type: ignore[attr-defined]
        variables = {option: p.envvar for option, p in options_of(command_of(name)).items()}
        variables.pop("--help", None)
        expected = {o: "YOLO_CLEARML_" + o[2:].replace("-", "_").upper() for o in variables}
        assert expected == variables


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (command, option)
        for command in ("status", "watch")
        for option in sorted(VALUES)
        if option in options_of(command_of(command))
    ],
)
def test_a_variable_is_as_good_as_its_option(
    monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    """Those of status and watch; several values with blanks between."""
    text, value = VALUES[option]
    monkeypatch.setenv("YOLO_CLEARML_" + option[2:].replace("-", "_").upper(), text)
    context = command_of(command).make_context(command, ["run"])
    parsed = context.params[options_of(command_of(command))[option].name]
    assert value == converted(parsed, value)


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("nowhere does not exist", ["nowhere"]),
        ("There is no run in or below empty. A run directory holds args.yaml", ["empty"]),
        ("--sort", ["--sort", "size", "runs"]),
        ("Invalid value for '--state': 'alive' is not one of", ["--state", "alive", "runs"]),
        ("--stale-after", ["--stale-after", "nan", "runs"]),
        ("that --include and --exclude leave in or below runs. Patterns are", ["--include", "x", "runs"]),
        ("[z-a] is no pattern", ["--exclude", "[z-a]", "runs"]),
    ],
)
def test_wrong_usage(run_cli: Run, small: Path, said: str, arguments: list[str]) -> None:
    """2, with what is wrong, on stderr."""
    Path("empty").mkdir()
    ended = run_cli("status", *arguments)
    assert (2, "") == (ended.status, ended.out)
    assert said in " ".join(ended.err.replace("│", " ").split())


@pytest.mark.parametrize("command", sorted(get_command(cli.app).commands))  # type: ignore[attr-defined]
@pytest.mark.parametrize("paths", [[""], ["runs", ""]])
def test_an_empty_path_is_not_the_current_folder(
    run_cli: Run, small: Path, command: str, paths: list[str]
) -> None:
    """It comes of a shell's variable that is not set, and all below would be sent."""
    ended = run_cli(command, *paths)
    assert (2, "") == (ended.status, ended.out)
    what = "ROOT" if command == "watch" else "PATH"
    assert f"Invalid value for '{what}': It is empty." in ended.err


@pytest.mark.parametrize("command", sorted(get_command(cli.app).commands))  # type: ignore[attr-defined]
def test_a_wrong_value_is_named_where_it_stands(
    run_cli: Run, small: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """In a variable that nobody sees, or on the command line."""
    assert "for '--stale-after'" in run_cli(command, "--stale-after", "soon", "runs").err
    monkeypatch.setenv("YOLO_CLEARML_STALE_AFTER", "soon")
    ended = run_cli(command, "runs")
    assert (2, "") == (ended.status, ended.out)
    assert "Invalid value for YOLO_CLEARML_STALE_AFTER: " in ended.err
    assert "--stale-after" not in ended.err


def test_a_run_that_another_one_works_on_can_be_looked_at(run_cli: Run, small: Path) -> None:
    """To look takes no lock and waits for none."""
    with FileLedgers().hold(small):
        assert 0 == run_cli("status", small).status


def test_on_a_terminal_there_are_links_and_a_sum(server: ClearMLDouble, small: Path) -> None:
    """The table within 80 columns; the sum is no part of what was asked for."""
    subprocess.run([*COMMAND, "upload", "-q", small], check=True, timeout=60)
    status, shown = on_a_terminal(["status", str(small.parent)], small.parent)
    (task,) = server.tasks
    assert 0 == status
    assert f"tasks/{task}/output/scalars\x1b\\v8.4.190-detect-noplots" in shown
    assert "\n1 run, " in shown


# -- completion ------------------------------------------------------------------------------------------


Complete = Callable[..., str]


def asked_for(words: str, shell: str) -> dict[str, str]:
    """Give the variables in which a shell asks for what there is for the last of these words."""
    return {
        "_YOLO_CLEARML_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": f"yolo-clearml {words}",
        "COMP_WORDS": f"yolo-clearml {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """Give a function that returns what a shell offers for the last of these words, which may be empty."""

    def complete(words: str, shell: str = "bash") -> str:
        for name, value in asked_for(words, shell).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            cli.app(prog_name="yolo-clearml")  # not by how the tests were called
        out, err = capsys.readouterr()
        assert "" == err
        return out

    return complete


def test_the_program_completes_by_itself() -> None:
    """As the shell calls it, with nothing but its questions in the environment."""
    program = Path(sys.executable).with_name("yolo-clearml")
    environment = {"PATH": os.defpath, **asked_for("st", "bash")}
    ended = subprocess.run(
        [program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ("", ["status"]) == (ended.stderr, ended.stdout.split())


def test_a_shell_completes_commands_options_and_values(completed: Complete) -> None:
    """As typer's script for bash asks."""
    assert {"upload", "watch", "status"} <= set(completed("").split())
    assert ["status"] == completed("st").split()
    assert ["--include"] == completed("upload --inc").split()
    assert [key.value for key in SortKey] == completed("status --sort ").split()
    assert ["fitness"] == completed("status --sort fi").split()
    assert {"stopped", "skipped"} == set(completed("status --state s").split())
    assert {"--poll", "--project"} == set(completed("watch --p").split())
    assert ["--poll"] == completed("watch --once --po").split()


def test_other_shells_complete_as_well(completed: Complete) -> None:
    """With the help of an option beside it."""
    assert '"--sort"' in completed("status --so", "zsh")
    assert "Sort the lines by" in completed("status --so", "zsh")
