"""For maintainers: read published Ultralytics releases as text and say what changed that the rules rest on.

    python tests/releases.py                    # has the newest release changed anything?
    python tests/releases.py 8.4.150 8.4.190    # what changed between these, and in which release?
    python tests/releases.py --write            # the same as the first, and keep what is found

Wheels come from the package index that pip is set up for, and are opened as zips: nothing of a release is
installed, imported or executed. Between two releases that agree nothing is looked at; where they differ the
range is halved until the first release with the change is found. What is known is in two files:

    tests/golden/releases.json        every fact, with the first release that has it, for the tests
    src/yolo_clearml/rundir/releases.json  published releases, and those of each name in default.yaml
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

OLDEST = "8.0.100"  # the first release that is promised
FOUND = Path(__file__).parent / "golden" / "releases.json"
PACKAGED = Path(__file__).parents[1] / "src" / "yolo_clearml" / "rundir" / "releases.json"
STRIDE = 12  # releases; a change that was taken back within fewer may be overlooked
_LARGEST = 2**22  # bytes of one source file
_LONGEST = 200  # characters of a fact that is kept as text; of a longer one its fingerprint is kept

Facts = Mapping[str, str]
History = dict[str, dict[str, str]]  # fact, first release with it, what it is


def order(release: str) -> tuple[int, ...]:
    """Sort releases as numbers."""
    return tuple(map(int, release.split(".")))


# -- what is read of one release -------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """The text of the files of one release that the rules rest on."""

    callback: ast.Module
    trainer: ast.Module
    validator: ast.Module
    metrics: ast.Module
    plotting: ast.Module
    configuration: ast.Module
    defaults: str


def read_sources(wheel: Path) -> Sources:
    """Read the few files of a wheel; raises LookupError where one of them is not there."""
    with zipfile.ZipFile(wheel) as archive:

        def text(end: str) -> str:
            # "yolo/" went with 8.0.137, which left some empty names behind in it
            there = {info.filename: info for info in archive.infolist()}
            found = there.get(f"ultralytics/{end}", there.get(f"ultralytics/yolo/{end}"))
            if found is None or found.file_size > _LARGEST:
                raise LookupError(f"{wheel.name} has no {end}: see where it went, then mend read_sources.")
            return archive.read(found).decode()

        return Sources(
            callback=ast.parse(text("utils/callbacks/clearml.py")),
            trainer=ast.parse(text("engine/trainer.py")),
            validator=ast.parse(text("engine/validator.py")),
            metrics=ast.parse(text("utils/metrics.py")),
            plotting=ast.parse(text("utils/plotting.py")),
            configuration=ast.parse(text("cfg/__init__.py")),
            defaults=text("cfg/default.yaml"),
        )


def function(module: ast.Module, name: str) -> ast.FunctionDef | None:
    """Find a function, or a method as ``Class.name``."""
    body: Iterable[ast.stmt] = module.body
    *classes, name = name.split(".")
    for each in classes:
        body = next((n.body for n in body if isinstance(n, ast.ClassDef) and n.name == each), ())
    return next((n for n in body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def normal(node: ast.AST | None) -> str:
    """Give source without docstrings, annotations, comments and layout."""
    if node is None:
        return ""
    copy = ast.parse(ast.unparse(node))
    for each in ast.walk(copy):
        if isinstance(each, ast.FunctionDef):
            each.returns = None
            if ast.get_docstring(each, clean=False) is not None:
                each.body = each.body[1:] or [ast.Pass()]
        elif isinstance(each, ast.arg):
            each.annotation = None
    return ast.unparse(ast.fix_missing_locations(copy))


def calls(node: ast.AST | None, name: str) -> Iterator[ast.Call]:
    """Find calls of a function or method of this name."""
    for each in ast.walk(node) if node is not None else ():
        if isinstance(each, ast.Call) and getattr(each.func, "attr", getattr(each.func, "id", None)) == name:
            yield each


def argument(node: ast.AST | None, called: str, name: str) -> str:
    """Give a keyword argument of the first call of ``called``, as source."""
    call = next(calls(node, called), None)
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), "") if call else ""


def texts(node: ast.AST | None) -> list[str]:
    """Give the string constants of a piece of source, its docstrings apart."""
    if node is None:
        return []
    tree = ast.walk(ast.parse(normal(node)))
    return [n.value for n in tree if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def scalars(node: ast.AST | None) -> str:
    """Give what loops of ``report_scalar`` go over, and the titles they report under."""
    told = []
    for loop in (n for n in ast.walk(node) if isinstance(n, ast.For)) if node is not None else ():
        named = {
            ast.unparse(n.targets[0]): ast.unparse(n.value) for n in loop.body if isinstance(n, ast.Assign)
        }
        for call in calls(loop, "report_scalar"):
            title = ast.unparse(call.args[0]) if call.args else argument(loop, "report_scalar", "title")
            told.append(f"{ast.unparse(loop.iter)} as {named.get(title, title)}")
    return "; ".join(told)


def names(defaults: str) -> list[str]:
    """Give the names that stand in default.yaml, which are those in the args.yaml of every training."""
    return re.findall(r"^([A-Za-z_]\w*):", defaults, re.MULTILINE)


def on_train_end(s: Sources) -> ast.FunctionDef | None:
    return function(s.callback, "on_train_end")


def method(name: str) -> Callable[[Sources], str]:
    return lambda s: normal(function(s.trainer, name))


FACTS: Mapping[str, Callable[[Sources], str]] = {
    "project": lambda s: argument(s.callback, "init", "project_name"),
    "tags": lambda s: argument(s.callback, "init", "tags"),
    "arguments": lambda s: "; ".join(map(ast.unparse, calls(s.callback, "connect"))),
    "train scalars": lambda s: scalars(function(s.callback, "on_train_epoch_end")),
    "validation scalars": lambda s: scalars(function(s.callback, "on_fit_epoch_end")),
    "mosaics": lambda s: "; ".join(
        normal(n).replace("\n   ", "")
        for n in ast.walk(function(s.callback, "on_train_epoch_end") or s.callback)
        if isinstance(n, ast.If) and "trainer.epoch" in ast.unparse(n.test)
    ),
    "debug images": lambda s: "; ".join(map(ast.unparse, calls(s.callback, "report_image"))),
    "plots": lambda s: ", ".join(texts(on_train_end(s))),
    "output model": lambda s: "; ".join(map(ast.unparse, calls(s.callback, "update_output_model"))),
    "final values": lambda s: "; ".join(map(ast.unparse, calls(on_train_end(s), "report_single_value"))),
    "epoch": lambda s: (
        "one-based" if "self.epoch + 1" in method("BaseTrainer.save_metrics")(s) else "zero-based"
    ),
    "csv": lambda s: " ".join(
        t
        for t in texts(function(s.trainer, "BaseTrainer.save_metrics"))
        if "%" in t or t in ("epoch", "time")
    ),
    "resumed run": lambda s: (
        "resume: its last.pt, model: its last.pt"
        if "self.args.model = self.args.resume = str(last)" in method("BaseTrainer.check_resume")(s)
        else "model: its last.pt"
    ),
    "save_dir": lambda s: (
        "absolute" if ".resolve()" in normal(function(s.configuration, "get_save_dir")) else "as it was made"
    ),
    "old results.csv": lambda s: "deleted" if "self.csv.unlink(" in normal(s.trainer) else "continued",
    "final evaluation": lambda s: (
        "after the last iteration"
        if "self.epoch += 1" in method("BaseTrainer.final_eval")(s)
        else "at the last iteration"
    ),
    "fitness": lambda s: next(
        (
            ast.unparse(n.value)
            for n in ast.walk(function(s.metrics, "Metric.fitness") or s.metrics)
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "w"
        ),
        normal(function(s.metrics, "Metric.fitness")),
    ),
    "fitness of classes": lambda s: normal(function(s.metrics, "ClassifyMetrics.fitness")),
    "fitness of pixels": lambda s: normal(function(s.metrics, "SemanticMetrics.fitness")),
    "fitness of depths": lambda s: normal(function(s.metrics, "DepthMetrics.fitness")),
    "picture of pixels": lambda s: ", ".join(
        t for t in texts(function(s.metrics, "SemanticMetrics._plot_iou_bars")) if t.endswith(".png")
    ),
    "curves of boxes": lambda s: (
        f"{argument(function(s.metrics, 'DetMetrics.process'), 'ap_per_class', 'prefix')}*"
    ),
    "pictures of labels": lambda s: ", ".join(
        sorted({t for t in texts(function(s.plotting, "plot_labels")) if t.endswith((".jpg", ".png"))})
    ),
    "picture of results": lambda s: ", ".join(
        sorted({t for t in texts(function(s.plotting, "plot_results")) if t.endswith((".jpg", ".png"))})
    ),
    "plots kept by the trainer": method("BaseTrainer.on_plot"),
    "plots kept by the validator": lambda s: normal(function(s.validator, "BaseValidator.on_plot")),
    # whatever else of these may matter: a person has to look
    "source of the callback": lambda s: "\n".join(
        normal(n) for n in s.callback.body if isinstance(n, ast.FunctionDef)
    ),
    "source of save_metrics": method("BaseTrainer.save_metrics"),
    "source of final_eval": method("BaseTrainer.final_eval"),
}


def facts_of(wheel: Path) -> dict[str, str]:
    """Read every fact of one release; the names of its arguments are under ``names``."""
    sources = read_sources(wheel)
    found = {name: read(sources) for name, read in FACTS.items()}
    short = {
        name: text if len(text) <= _LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]
        for name, text in found.items()
    }
    return {**short, "names": " ".join(sorted(set(names(sources.defaults))))}


# -- the package index -----------------------------------------------------------------------------------


def pip(*arguments: str) -> str:
    """Run pip; raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def published() -> list[str]:
    """Give the releases of Ultralytics that the index has, in order."""
    found = re.search(r"^Available versions: (.*)$", pip("index", "versions", "ultralytics"), re.MULTILINE)
    listed = found[1].split(", ") if found else []
    return sorted((each for each in listed if re.fullmatch(r"\d+\.\d+\.\d+", each)), key=order)


@dataclass(frozen=True)
class Shelf:
    """Wheels, fetched once, and what they say."""

    path: Path
    read: dict[str, Facts]

    def facts(self, release: str) -> Facts:
        """Give the facts of one release; raises CalledProcessError where the index does not give it."""
        if release not in self.read:
            name = f"ultralytics-{release}-*.whl"
            if not list(self.path.glob(name)):
                print(f"  fetching {release}", file=sys.stderr)
                wanted = (
                    "--no-deps",
                    "--only-binary=:all:",
                    f"--dest={self.path}",
                    f"ultralytics=={release}",
                )
                pip("download", "--quiet", *wanted)
            self.read[release] = facts_of(next(self.path.glob(name)))
        return self.read[release]


def changes(releases: Sequence[str], facts: Callable[[str], Facts]) -> Iterator[str]:
    """Give each release that differs from the one before it, halving ranges whose ends differ; in order."""
    if len(releases) < 2 or facts(releases[0]) == facts(releases[-1]):
        return
    if len(releases) == 2:
        yield releases[1]
        return
    middle = len(releases) // 2
    yield from changes(releases[: middle + 1], facts)
    yield from changes(releases[middle:], facts)


def history(releases: Sequence[str], shelf: Shelf) -> History:
    """Give every fact with the first release that has it; looks at every twelfth, and where two differ."""
    marks = sorted({*range(0, len(releases), STRIDE), len(releases) - 1})
    found: History = {name: {releases[0]: text} for name, text in shelf.facts(releases[0]).items()}
    for start, end in pairwise(marks):
        for release in changes(releases[start : end + 1], shelf.facts):
            for name, text in shelf.facts(release).items():
                told = found.setdefault(name, {})
                if not told or list(told.values())[-1] != text:
                    told[release] = text
    return found


# -- what is kept ------------------------------------------------------------------------------------------


def intervals(kept: Mapping[str, str]) -> dict[str, list[list[str | None]]]:
    """Turn the names by release into the releases that brought and dropped each; None: it is still there."""
    found: dict[str, list[list[str | None]]] = {}
    before: set[str] = set()
    for release, text in kept.items():
        now = set(text.split())
        for name in sorted(now - before):
            found.setdefault(name, []).append([release, None])
        for name in sorted(before - now):
            found[name][-1][1] = release
        before = now
    return dict(sorted(found.items()))


def by_release(spans: Mapping[str, Sequence[Sequence[str | None]]]) -> dict[str, str]:
    """Turn intervals back into the names by release."""
    turns = {release for each in spans.values() for span in each for release in span if release is not None}

    def has(each: Sequence[Sequence[str | None]], release: str) -> bool:
        return any(
            first and order(first) <= order(release) and (end is None or order(release) < order(end))
            for first, end in each
        )

    return {
        release: " ".join(name for name, each in sorted(spans.items()) if has(each, release))
        for release in sorted(turns, key=order)
    }


def known() -> dict[str, Any]:
    """Read what was kept: the first and the last release of it, and every fact but the names."""
    return dict(json.loads(FOUND.read_text(encoding="utf-8")))


def kept() -> tuple[History, list[str]]:
    """Read everything that was kept: the facts with the names, and the releases that there were."""
    packaged = json.loads(PACKAGED.read_text(encoding="utf-8"))
    return {**known()["facts"], "names": by_release(packaged["arguments"])}, packaged["releases"]


def value(told: Mapping[str, str], release: str) -> str | None:
    """Give what a fact is in a release: what it has been since the last change before it."""
    before = [each for each in told if order(each) <= order(release)]
    return told[max(before, key=order)] if before else None


def extended(before: History, found: History) -> History:
    """Put what was found in later releases behind what was known."""
    after = {
        name: {r: text for r, text in told.items() if text != value(before[name], r)}
        for name, told in found.items()
    }
    return {name: {**before[name], **told} for name, told in after.items()}


def write(found: History, releases: Sequence[str]) -> None:
    """Keep what was found: facts for the tests, names and releases for the package."""
    told = {name: each for name, each in found.items() if name != "names"}
    looked = {"first": releases[0], "last": releases[-1]}
    FOUND.write_text(json.dumps({**looked, "facts": told}, indent=1) + "\n", encoding="utf-8")
    lines = [f"  {json.dumps(n)}: {json.dumps(spans)}" for n, spans in intervals(found["names"]).items()]
    published = ",\n".join(
        "  " + ", ".join(json.dumps(each) for each in releases[i : i + 12])
        for i in range(0, len(releases), 12)
    )
    PACKAGED.write_text(
        f'{{\n "releases": [\n{published}\n ],\n "arguments": {{\n' + ",\n".join(lines) + "\n }\n}\n",
        encoding="utf-8",
    )


def described(found: History) -> Iterator[str]:
    """Say every change in a line, in the order of releases."""
    turns = [(order(r), r, name) for name, told in found.items() for r in list(told)[1:]]
    for _, release, name in sorted(turns):
        now = found[name][release]
        if name == "names":
            *_, before = (text for r, text in found[name].items() if order(r) < order(release))
            new, old = set(now.split()), set(before.split())
            now = " ".join(
                [*(f"+{each}" for each in sorted(new - old)), *(f"-{e}" for e in sorted(old - new))]
            )
        yield f"{release}  {name}: {now}"


def main() -> None:
    """Say what changed; status 1 where something did, or is otherwise than it was kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", nargs="?", help="default: the last release that is known")
    parser.add_argument("last", nargs="?", help="default: the newest of the index")
    parser.add_argument("--wheels", type=Path, help="keep fetched wheels in this folder")
    parser.add_argument("--write", action="store_true", help="keep what is found behind what is known")
    parser.add_argument("--anew", action="store_true", help=f"with --write: read all again, from {OLDEST} on")
    asked = parser.parse_args()
    everything = published()
    before, releases = ({}, []) if asked.anew else kept()
    last = asked.last or everything[-1]
    first = OLDEST if asked.anew else asked.first
    if first is None:  # which the index may have lost since
        first = max((r for r in everything if order(r) <= order(releases[-1])), key=order, default=last)
    wanted = [each for each in everything if order(first) <= order(each) <= order(last)]
    if not wanted:
        sys.exit(f"The index has no release from {first} to {last}.")
    with tempfile.TemporaryDirectory() as scratch:
        shelf = Shelf(asked.wheels or Path(scratch), {})
        shelf.path.mkdir(parents=True, exist_ok=True)
        found = history(wanted, shelf)
    print(f"{len(shelf.read)} of {len(wanted)} releases were read.", file=sys.stderr)
    changed = [*described(found)]
    for line in changed:
        print(line)
    otherwise = [
        f"{release}  {name}: is kept otherwise; --write --anew reads all again"
        for name, told in found.items()
        for release, text in told.items()
        if before and order(release) <= order(releases[-1]) and value(before.get(name, {}), release) != text
    ]
    for line in otherwise:
        print(line)
    if not changed and not otherwise:
        print(f"{wanted[0]} to {wanted[-1]}: nothing that the rules rest on has changed.")
    if asked.write and not otherwise:
        later = [each for each in wanted if not releases or order(each) > order(releases[-1])]
        write(extended(before, found) if before else found, [*releases, *later])
        sys.exit(0)
    sys.exit(bool(changed or otherwise))


if __name__ == "__main__":
    main()
