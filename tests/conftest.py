"""Real runs to work on, and a server double to send them to."""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from double import ClearMLDouble

GOLDEN = Path(__file__).parent / "golden"
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Give a function that unpacks a real run, file times kept, and gives its directory."""

    def make(name: str = "v8.4.190-detect", directory: str | None = None) -> Path:
        target = tmp_path / "runs" / (directory or name)
        target.mkdir(parents=True)
        with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
            archive.extraction_filter = lambda member, path: member  # our own files, times and all
            for member in archive.getmembers():
                member.name = str(Path(member.name).relative_to("run"))
                archive.extract(member, target)
        return target

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ClearMLDouble]:
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


def long_after() -> float:
    """Give a time at which every sample run that is unfinished has long died; seconds since the epoch."""
    return time.time() + 10 * 365 * 86400
