"""Whose a task is: made for a run by us, reported by somebody else, or put away by a person. Pure.

A task of ours carries its run's key in its runtime. One that the live callback (or whoever else) reported
carries no key, until it is completed by us and marked with it in a user property.
"""

from __future__ import annotations

from .payloads import PROPERTIES, RUNTIME_KEY, Json

REASON = "yolo-clearml"  # how the reasons of our own status changes begin
WATCHDOG = "non-responsive"  # in the reason the server gives when it stops a silent task
ARCHIVED = "archived"  # system tag


def key_of(task: Json) -> str | None:
    """Give the key of the run that a task was made for or that it was marked with; None where it has none."""
    runtime = task.get("runtime")
    key = runtime.get(RUNTIME_KEY) if isinstance(runtime, dict) else None
    return key if isinstance(key, str) else mark_of(task)


def mark_of(task: Json) -> str | None:
    """Give the key that a task reported by somebody else was marked with."""
    try:
        key = task["hyperparams"][PROPERTIES][RUNTIME_KEY]["value"]
    except (KeyError, TypeError):
        return None
    return key if isinstance(key, str) else None


def reported_live(task: Json) -> bool:
    """Whether somebody else reports to a task now, and so ends it: another end would kill that training."""
    return task["status"] == "in_progress" and not str(task.get("status_reason") or "").startswith(REASON)


def stopped_by_hand(status: str, reason: str) -> bool:
    """Whether a task was stopped by a person or their training: not by us, nor because it was silent."""
    return status == "stopped" and not reason.startswith(REASON) and WATCHDOG not in reason


def is_archived(task: Json) -> bool:
    """Whether a person has put a task away."""
    return ARCHIVED in (task.get("system_tags") or ())
