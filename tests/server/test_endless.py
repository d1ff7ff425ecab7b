"""A reply has an end, or is given up: by its length, not only by the time it takes."""

from __future__ import annotations

import pytest
from double import ClearMLDouble, Endless

from yolo_clearml.errors import ServerUnreachable
from yolo_clearml.server import exchange
from yolo_clearml.server.api import Api


def test_a_reply_without_end_is_given_up_by_its_length(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the time is over, in which it would fill the memory."""
    monkeypatch.setattr(exchange, "_LONGEST_REPLY", 2**20)
    api = Api(30.0)
    api._patiently.stop.set()  # one try
    server.fault("tasks.get_all_ex", Endless(), times=None)
    with pytest.raises(ServerUnreachable, match="broke the connection off"):
        api.rows("tasks.get_all_ex", {"id": ["x"]}, "tasks")
