"""Replay a YOLO training run directory into ClearML as if the callback had been on.

The names here are the library. Each is imported when it is first asked for, so that the command line need
not wait for what it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import YoloClearmlError
    from .events import Plan, Report, RunState
    from .library import Options, diagnose, plan_run, read_run, status, upload, verify, watch
    from .rundir.choice import Choice, Shard
    from .rundir.finding import find_runs
    from .rundir.run import NotARun, Run
    from .sync.checks import Check
    from .sync.outcomes import (
        Delivered,
        Facts,
        Failed,
        Gone,
        Outcome,
        Pending,
        Progress,
        Skipped,
        Started,
        UpToDate,
    )
    from .sync.verdict import Difference, Verdict

__version__ = "0.1.0"  # stated, for looking it up in the installation takes longer than --help
__all__ = [
    "Check",
    "Choice",
    "Delivered",
    "Difference",
    "Facts",
    "Failed",
    "Gone",
    "NotARun",
    "Options",
    "Outcome",
    "Pending",
    "Plan",
    "Progress",
    "Report",
    "Run",
    "RunState",
    "Shard",
    "Skipped",
    "Started",
    "UpToDate",
    "Verdict",
    "YoloClearmlError",
    "diagnose",
    "find_runs",
    "plan_run",
    "read_run",
    "status",
    "upload",
    "verify",
    "watch",
]
_HOMES = {
    "errors": ("YoloClearmlError",),
    "events": ("Plan", "Report", "RunState"),
    "library": ("Options", "diagnose", "plan_run", "read_run", "status", "upload", "verify", "watch"),
    "rundir.choice": ("Choice", "Shard"),
    "rundir.finding": ("find_runs",),
    "rundir.run": ("NotARun", "Run"),
    "sync.checks": ("Check",),
    "sync.outcomes": (
        *("Delivered", "Facts", "Failed", "Gone", "Outcome", "Pending"),
        *("Progress", "Skipped", "Started", "UpToDate"),
    ),
    "sync.verdict": ("Difference", "Verdict"),
}


def __getattr__(name: str) -> object:
    """Import a public name from the module it lives in."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
