"""The double answers as the genuine server did, exchange by exchange."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from double import ClearMLDouble
from genuine import GENUINE, Replay, load

RECORDS = sorted(GENUINE.glob("*.jsonl"))


@pytest.fixture(scope="module")
def differences() -> Iterator[dict[Path, list[str]]]:
    with ClearMLDouble() as server:
        replay = Replay(server)
        yield {
            path: [
                f"line {number}: {text}"
                for number, exchange in enumerate(load(path), 1)
                for text in replay.differences(exchange)
            ]
            for path in RECORDS
        }


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_double_answers_as_the_genuine_server_did(differences: dict[Path, list[str]], path: Path) -> None:
    """Status, codes and every field of each reply, but for those that `genuine.NOT_COMPARED` names."""
    assert not differences[path], "\n".join(differences[path])
