"""A module imports only from those above it, and what is slow to import is imported when it is needed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import yolo_clearml

SAMPLE = Path(__file__).parent.parent / "sample_runs" / "v8.4.190-detect"
PACKAGE = Path(__file__).parent.parent / "src" / "yolo_clearml"

# The house, from the ground up: wing by wing, and room by room within each. A module imports only from what
# stands before it here. In README the same wings are a picture.
LONGEST = 450  # lines of a module
HOUSE: dict[str, tuple[str, ...]] = {
    "ground": ("errors", "events", "system", "held_file"),
    "rundir": (
        *("choice", "results_csv", "files", "places", "arguments", "checkpoint", "release", "times"),
        *("relatives", "fitness", "dating", "ending", "mixed", "run", "listing", "contents", "state"),
        *("identity", "tuning", "scan", "finding", "exports", "packing", "further"),
    ),
    "replay": (
        *("eras", "draft", "placeholders", "names", "parameters", "pictures", "guess", "models"),
        *("tuning", "rules", "validations", "wanted", "figures"),
    ),
    "sync": (
        *("ledger", "verdict", "sinks", "outcomes", "family", "work", "placing", "visit", "engine"),
        *("silence", "agenda", "triggers", "checks"),
    ),
    "server": (
        *("payloads", "task_log", "compare", "exchange", "storage_failures", "storage", "file_server"),
        *("session", "api", "ownership", "reader", "recognition", "adoption", "siblings", "destination"),
        *("tasks", "children", "moving", "batches", "uploads", "models", "artifacts", "delivery", "sink"),
        *("offline", "diagnosis"),
    ),
    "top": ("library",),
    "cli": (
        *("metrics", "requirements", "statuses", "wording", "checkup", "plan_text", "terminal", "console"),
        *("standings", "live_table", "news", "interruption", "running", "options", "app"),
    ),
    "door": ("__main__",),
}
_BARE = ("ground", "top", "door")  # which are no packages
ORDER = tuple(room if wing in _BARE else f"{wing}.{room}" for wing, rooms in HOUSE.items() for room in rooms)
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)
# the one place of what is slow, large or has a say in how the code around it looks
ONLY_IN = {
    "clearml": ("server.storage", "server.file_server", "server.session", "server.api"),
    **{"matplotlib": ("replay.figures",), "PIL": ("replay.figures",), "yaml": ("rundir.arguments",)},
    **{"watchdog": ("sync.triggers",), "filelock": ("system",), "platformdirs": ("sync.ledger",)},
    **{"pathspec": ("rundir.choice",), "prometheus_client": ("cli.metrics",)},
    **{"rich": ("cli.terminal", "cli.live_table"), "typer": ("cli.options", "cli.running", "cli.app")},
}


def imported(module: str) -> Iterator[str]:
    """Every name a module imports, wherever in it, absolute: ``yolo_clearml.rundir.run.Run``."""
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    package = ["yolo_clearml", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=source, level=level):
                base = package[: len(package) - level + 1] if level else []
                whole = ".".join([*base, *([source] if source else [])])
                yield from (f"{whole}.{alias.name}" for alias in node.names)
            case ast.Call(func=ast.Name("__import__") | ast.Attribute(attr="import_module")):
                pytest.fail(f"{module} hides an import")


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    names = [
        name.removeprefix("yolo_clearml.") for name in imported(module) if name.startswith("yolo_clearml")
    ]
    found = {next((m for m in MODULES if name == m or name.startswith(f"{m}.")), name) for name in names}
    return found - {"__version__"}


def test_every_module_has_its_place() -> None:
    """A new module is put into the house, where a reader meets it; and none is longer than one reads."""
    assert set(MODULES) == set(ORDER)
    lines = {
        module: len((PACKAGE / f"{module.replace('.', '/')}.py").read_text().splitlines())
        for module in MODULES
    }
    assert {} == {module: count for module, count in lines.items() if count >= LONGEST}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_before(module: str) -> None:
    """So that the package can be read from the ground up, and no wing knows the one above it."""
    before = set(ORDER[: ORDER.index(module)])
    assert set() == own_imports(module) - before


@pytest.mark.parametrize("wing", sorted(set(HOUSE) - set(_BARE)))
def test_every_wing_states_what_it_may_not_know(wing: str) -> None:
    """In the docstring of its package, which holds nothing else."""
    (docstring,) = ast.parse((PACKAGE / wing / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    assert "may not know" in str(docstring.value.value).replace("\n", " ")


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_have_one_place_each(module: str) -> None:
    """Whoever changes a dependency changes one file."""
    strangers = {name.split(".")[0] for name in imported(module)} & set(ONLY_IN)
    assert set() == {name for name in strangers if module not in ONLY_IN[name]}


# what only some systems have, or have in another way; and which one this is
OF_ONE_SYSTEM = re.compile(
    r"(O_(?!RDONLY|RDWR|WRONLY|CREAT|EXCL)|SIG(?!INT|TERM|NAT)|st_(dev|ino|uid|gid|file_|reparse)|F_)[A-Z_a-z]*"
    r"|fcntl|msvcrt|winreg|pwd|grp|resource|termios|get(e|)[ug]id|getgroups|[lf]?ch(mod|own|flags)|dir_fd"
    r"|samestat|fork|kill|mkfifo|mknod|sendfile|platform|winerror|is_dir_fd|is_junction|uname"
)


@pytest.mark.parametrize("module", MODULES)
def test_what_only_one_system_has_is_in_one_module(module: str) -> None:
    """So that it can be imported and run on every other one."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    words = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {str(node.arg) for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    words |= {part for name in imported(module) for part in name.split(".")}
    found = {word for word in words if OF_ONE_SYSTEM.fullmatch(word)}
    if module == "system":
        assert {"fcntl", "dir_fd", "O_NOFOLLOW", "O_DIRECTORY", "SIGBREAK", "platform", "st_ino"} <= found
    else:
        assert set() == found


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
    assert name not in {part for module in MODULES for part in module.split(".")}


# runs the command line, and writes down which top-level modules it imported on the way
REPORTING = """
import atexit, json, sys
told = sys.argv.pop()
def tell():
    with open(told, "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)
atexit.register(tell)
from yolo_clearml.cli.app import main
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
