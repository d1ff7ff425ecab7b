"""Real runs to work on, and a server double to send them to."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import struct
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from double import ClearMLDouble
from hypothesis import is_hypothesis_test, settings

from yolo_clearml.events import DrawnPlot

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
SAMPLES = ROOT / "sample_runs"
MakeRun = Callable[..., Path]
Doubles = Callable[[], ClearMLDouble]
T = TypeVar("T")

# Hundreds of tests start a process. Where a machine keeps no bytecode, each would compile the program anew,
# and each run all of the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# -- two speeds -------------------------------------------------------------------------------------------

# how many examples hypothesis makes where a test does not say; no deadline, for a machine may be busy
settings.register_profile("few", max_examples=50, deadline=None)
settings.register_profile("every", max_examples=500, deadline=None)


def _exhaustive(config: pytest.Config) -> bool:
    return str(config.option.markexpr) == "exhaustive"


def pytest_configure(config: pytest.Config) -> None:
    """Make more examples where all of an enumeration is asked for."""
    settings.load_profile("every" if _exhaustive(config) else "few")


def pytest_xdist_auto_num_workers() -> int:
    """Have half as many workers again as cores: a third of the time is waiting, for limits and processes."""
    return math.ceil(1.5 * (os.cpu_count() or 1))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count tests of any input as enumerations too, where those are asked for."""
    if _exhaustive(config):
        for item in items:
            if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
                item.add_marker(pytest.mark.exhaustive)


# of a test that goes through an enumeration by itself: once through a few, and once through every one
FEW_AND_EVERY = pytest.mark.parametrize(
    "every", [pytest.param(False, id="few"), pytest.param(True, id="every", marks=pytest.mark.exhaustive)]
)


def chosen(cases: Sequence[T], every: bool, few: int = 3) -> Sequence[T]:
    """Give all of an enumeration, or a few of it: the first, the last, and those evenly between."""
    if every or len(cases) <= few:
        return cases
    return [cases[round(at * (len(cases) - 1) / (few - 1))] for at in range(few)]


def numbers(every: bool, *few: int) -> Iterable[int]:
    """Count from 1 without end, for a test that sees when nothing is left; or give the few."""
    return itertools.count(1) if every else few


def sampled(cases: Iterable[Any], sample: Callable[[Any], bool]) -> list[Any]:
    """Give parameters of which only some belong to the fast tests; a tuple is of several parameters."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if sample(case) else pytest.mark.exhaustive,
        )
        for case in cases
    ]


def one_in(step: int) -> Callable[[Any], bool]:
    """Take one case of ``step``, beginning with the first; a prime takes of each column of a product."""
    count = itertools.count()
    return lambda case: next(count) % step == 0


# -- runs and servers -------------------------------------------------------------------------------------


@lru_cache
def _golden(name: str) -> list[tuple[Path, bytes | None, float]]:
    """Give the path, content (None: a folder) and time of what a real run holds, decompressed once."""
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
        return [
            (Path(member.name).relative_to("run"), content.read() if content else None, member.mtime)
            for member in archive.getmembers()
            for content in [archive.extractfile(member)]
        ]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Give a function that writes a real run, file times kept, and gives its directory."""

    def make(name: str = "v8.4.190-detect", directory: str | None = None) -> Path:
        target = tmp_path / "runs" / (directory or name)
        target.mkdir(parents=True)
        for place, content, changed in _golden(name):
            path = target / place
            if content is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(content)
            os.utime(path, (changed, changed))
        return target

    return make


@lru_cache
def _figure(columns: tuple[str, ...]) -> bytes:
    from yolo_clearml.replay.figures import draw_results

    values = tuple(float(number) for number in range(len(columns)))
    return draw_results(DrawnPlot("results", 0, "results.png", columns, (1,), (values,), 0))


def _drawn(plot: DrawnPlot) -> bytes:
    """Give a figure of these panels, in which a text chunk stands for the values."""
    figure = _figure(plot.columns)
    end = len(figure) - 12  # where the chunk begins that ends every PNG
    text = b"tEXtvalues\0" + hashlib.sha256(repr(plot).encode()).hexdigest().encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return figure[:end] + chunk + figure[end:]


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw once in this process what takes a second; the same values give the same bytes, others others."""
    monkeypatch.setattr("yolo_clearml.server.uploads.draw_results", _drawn)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawn_once: None) -> Iterator[ClearMLDouble]:
    """Give a ClearML server that the environment of this process names, and nothing of the user's."""
    for name in list(os.environ):
        if name.startswith(("CLEARML_", "TRAINS_", "YOLO_CLEARML_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "no-clearml.conf"))
    monkeypatch.setenv("YOLO_CLEARML_STATE_DIR", str(tmp_path / "state"))
    with ClearMLDouble() as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be waited for who is about to report: in these tests the other has reported, or is held."""
    monkeypatch.setattr("yolo_clearml.server.recognition._FLUSH", 0.01)


@pytest.fixture
def small_run(make_run: MakeRun) -> Path:
    """Give a finished run with one of each kind of report, so that every step occurs and few twice."""
    run = make_run("v8.4.190-detect")
    for name in ("labels", "Box", "confusion_matrix"):
        for path in run.glob(f"{name}*"):
            path.unlink()
    for name in ("train_batch1.jpg", "train_batch2.jpg", "val_batch0_labels.jpg"):
        (run / name).unlink()
    return run


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of this process for temporary files, which is its own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Callable[[], ClearMLDouble]:
    """Give a function that makes a server and leads this process to it."""

    def make() -> ClearMLDouble:
        double = ClearMLDouble()
        double.start_api()
        double.start_files()
        for name, value in double.environ.items():
            monkeypatch.setenv(name, value)
        return double

    return make


def long_after() -> float:
    """Give a time at which every sample run that is unfinished has long died; seconds since the epoch."""
    return time.time() + 10 * 365 * 86400
