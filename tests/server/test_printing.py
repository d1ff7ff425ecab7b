"""What the SDK prints goes to stderr, and what others print meanwhile stays where they print it."""

from __future__ import annotations

import pytest
from double import ClearMLDouble

from yolo_clearml.server.api import Api


def test_what_others_print_during_the_login_stays_on_stdout(
    server: ClearMLDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that has failed has its line while another waits for the server."""
    server.before_request = lambda endpoint, number: print(f"a line, {endpoint}")
    Api(5.0)
    assert ("a line, auth.login\n", "") == capsys.readouterr()


def test_what_the_sdk_prints_during_the_login_is_no_output_of_ours(
    server: ClearMLDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A JSON line a run is all that is on stdout."""
    monkeypatch.setenv("CLEARML_API_EXTRA_RETRY_CODES", "599,many")
    Api(5.0)
    out, err = capsys.readouterr()
    assert ("", True) == (out, "invalid extra HTTP retry code detected: many" in err)
