"""Checks as lines and as JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable

from ..errors import Exit
from ..sync.checks import Check, Finding
from .statuses import status_of_checks
from .wording import printable, write_line, write_text

_WIDTH = max(len(finding.value) for finding in Finding) + 2  # of the first column


def write_checks(checks: Iterable[Check], as_json: bool, quiet: bool, stop: threading.Event) -> Exit:
    """Write checks as they are made, until ``stop``, and give the status that they end with."""
    made = []
    for check in checks:
        made.append(check)
        if not (quiet and check.finding is Finding.OK):
            _write(check, as_json)
        if stop.is_set():
            break
    return status_of_checks(made)


def _write(check: Check, as_json: bool) -> None:
    """Write how a check ended and, below it, what to do about it, to stdout."""
    if as_json:
        line = {"check": check.name, "outcome": check.finding.value, "text": check.text}
        write_line(sys.stdout, json.dumps(line | {"hint": check.hint or None}, ensure_ascii=True))
        return
    write_text(sys.stdout, f"{check.finding.value:<{_WIDTH}}{check.name}: {printable(check.text)}", _WIDTH)
    if check.hint:
        write_text(sys.stdout, f"{'':<{_WIDTH}}{printable(check.hint)}", _WIDTH)
