"""A plugin of pytest, by ``-p as_windows``: every test runs on what plays Windows; see windows_like.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from windows_like import windows_like


@pytest.fixture(autouse=True)
def on_windows(tmp_path: Path) -> Iterator[None]:
    """Play Windows; after pytest has made its folder, for which it asks who the user is."""
    with windows_like():
        yield
