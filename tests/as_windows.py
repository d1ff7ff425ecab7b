"""A plugin of pytest, by ``-p as_windows``: every test runs on what plays Windows; see windows_like.py.

Left out are tests that are about POSIX themselves, by what their names or sources ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from windows_like import windows_like

# what a test needs that Windows has not: FIFOs, devices, sockets with a name; or what it counts or refuses:
# calls of os.open, which are others there
_POSIX = re.compile(r"fifo|device|listening_socket|_saves_that_fails_anywhere|resource|descriptors\(\)")


@pytest.fixture(autouse=True)
def on_windows(tmp_path: Path) -> Iterator[None]:
    """Play Windows; after pytest has made its folder, for which it asks who the user is."""
    with windows_like():
        yield
