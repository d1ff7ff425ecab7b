"""A module imports only from those above it, and what is slow to import is imported when it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import yolo_clearml

SAMPLE = Path(__file__).parent.parent / "sample_runs" / "v8.4.190-detect"
PACKAGE = Path(__file__).parent.parent / "src" / "yolo_clearml"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

ORDER = (
    *("errors", "choice", "events", "results_csv", "files", "places"),
    *("arguments", "checkpoint", "release", "times", "relatives"),
    *("fitness", "dating", "ending", "mixed", "scan", "finding", "identity", "eras", "rules", "ledger"),
    *("payloads", "task_log", "compare", "sinks", "figures", "exchange", "storage_failures", "storage"),
    *("file_server", "clearml_api", "clearml_reader", "adoption", "siblings", "clearml_destination"),
    *("clearml_tasks", "clearml_delivery", "clearml_sink", "offline_sink", "engine", "silence", "agenda"),
    *("triggers", "library", "metrics", "wording", "plan_text", "terminal", "console", "standings"),
    *("live_table", "news", "interruption", "options", "cli", "__main__"),
)
# the one place of what is slow, large or has a say in how the code around it looks
ONLY_IN = {
    **{"clearml": ("storage", "file_server", "clearml_api"), "matplotlib": ("figures",), "PIL": ("figures",)},
    **{"watchdog": ("triggers",), "yaml": ("arguments",), "filelock": ("ledger",)},
    **{"platformdirs": ("ledger",), "pathspec": ("choice",), "prometheus_client": ("metrics",)},
    **{"rich": ("terminal", "live_table"), "typer": ("options", "cli")},
}


def imported(module: str) -> Iterator[str]:
    """Every name a module imports, wherever in it, absolute: ``yolo_clearml.scan``, ``os.path``."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=None):
                yield from (f"yolo_clearml.{alias.name}" for alias in node.names)
            case ast.ImportFrom(module=str(source), level=level):
                yield f"yolo_clearml.{source}" if level else source
            case ast.Call(func=ast.Name("__import__") | ast.Attribute(attr="import_module")):
                pytest.fail(f"{module} hides an import")


def test_every_module_has_its_place() -> None:
    """A new module is put into the order, where a reader meets it."""
    assert set() == set(MODULES) - set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_above(module: str) -> None:
    """So that the package can be read from top to bottom."""
    own = {name.split(".")[1] for name in imported(module) if name.startswith("yolo_clearml.")}
    above = {*ORDER[: ORDER.index(module)], "__version__"} if module in ORDER else set()
    assert set() == own - above
    assert "yolo_clearml" not in set(imported(module))


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_have_one_place_each(module: str) -> None:
    """Whoever changes a dependency changes one file."""
    strangers = {name.split(".")[0] for name in imported(module)} & set(ONLY_IN)
    assert set() == {name for name in strangers if module not in ONLY_IN[name]}


def test_the_package_itself_imports_none_of_its_modules() -> None:
    """Its version costs no more than its name."""
    told = "import json, sys, yolo_clearml; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    found = set(json.loads(ended.stdout))
    assert ["yolo_clearml"] == [name for name in found if name.startswith("yolo_clearml")]
    assert set() == found & {*ONLY_IN, "requests"}


@pytest.mark.parametrize("name", yolo_clearml.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Whichever module it lives in; no module of the package has the same name, which would hide it."""
    assert name in yolo_clearml.__all__
    assert getattr(yolo_clearml, name) is not None
    assert name not in MODULES


# runs the command line, and writes down which top-level modules it imported on the way
REPORTING = """
import atexit, json, sys
told = sys.argv.pop()
def tell():
    with open(told, "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)
atexit.register(tell)
from yolo_clearml.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["--version"], ["upload", "--help"], ["watch", "--help"]),
        ["upload", "--dry-run", str(SAMPLE)],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_is_slow_is_not_imported_in_vain(arguments: list[str], tmp_path: Path) -> None:
    """Help, version and a dry run need neither clearml nor matplotlib, which take seconds."""
    before = {path: path.stat().st_mtime_ns for path in SAMPLE.rglob("*")}
    told = tmp_path / "modules.json"
    ended = subprocess.run(
        [sys.executable, "-c", REPORTING, *arguments, str(told)], capture_output=True, text=True, timeout=60
    )
    assert (0, "") == (ended.returncode, ended.stderr)
    assert ended.stdout
    modules = set(json.loads(told.read_text()))
    assert "yolo_clearml" in modules
    assert set() == modules & {
        "clearml",
        "matplotlib",
        "PIL",
        "numpy",
        "torch",
        "watchdog",
        "prometheus_client",
        "pathspec",
    }
    assert before == {path: path.stat().st_mtime_ns for path in SAMPLE.rglob("*")}
