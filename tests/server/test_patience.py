"""What fails in passing is done again within a time, and no sooner than the server asks for."""

from __future__ import annotations

import threading

import pytest

from yolo_clearml.errors import ServerFailing
from yolo_clearml.server.exchange import PassingError, Patience


class Waited(threading.Event):
    """An event that lets nobody wait, and keeps how long each wanted to, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


@pytest.mark.parametrize(("asked", "least", "most"), [(0.0, 0.0, 8.0), (20.0, 20.0, 20.0)])
def test_a_server_is_asked_again_no_sooner_than_it_wants(asked: float, least: float, most: float) -> None:
    """Retry-After, where it is longer than the pause would be."""
    stop, tries = Waited(), iter([True, True, False])

    def action() -> str:
        if next(tries):
            raise PassingError(ServerFailing("It is busy.", "Wait."), asked)
        return "done"

    assert "done" == Patience(60.0, stop)(action)
    assert 2 == len(stop.seconds)
    assert all(least <= seconds <= most for seconds in stop.seconds), stop.seconds
