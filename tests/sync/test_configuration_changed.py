"""A ClearML configuration that was changed is noticed, however like the old one it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yolo_clearml.sync.ledger import configuration_stamp


def test_another_key_of_the_same_length_is_another_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of another workspace; only the time of the file shows it."""
    conf = tmp_path / "clearml.conf"
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(conf))
    seen = []
    for number, key in enumerate(("ONE", "TWO")):
        conf.write_text(f'api {{ credentials {{ access_key: "{key}" }} }}')
        os.utime(conf, ns=(0, 1_700_000_000 * 10**9 + number))
        seen.append(configuration_stamp())
    assert seen[0] != seen[1]
