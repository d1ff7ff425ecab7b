"""The one status that a command ends with, whatever number of things went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Exit
from ..sync.checks import Check, Finding
from ..sync.outcomes import Failed


def status_of_failures(failed: Sequence[Failed]) -> Exit:
    """One status for all failures: their own where they agree, the server's where it is at fault.

    What does not pass by itself comes before an outage: it is what ended a watch.
    """
    statuses = {failure.error.status for failure in failed}
    fatal = {failure.error.status for failure in failed if failure.error.fatal}
    lasting = {failure.error.status for failure in failed if failure.error.fatal and not failure.error.outage}
    if not statuses:
        return Exit.OK
    if len(statuses) == 1:
        return statuses.pop()
    return min(lasting or fatal, default=Exit.SOME_FAILED)


def status_of_checks(checks: Sequence[Check]) -> Exit:
    """Give the status of the first that has failed and is not about runs alone: others rest on it."""
    statuses = [check.status for check in checks if check.finding is Finding.FAILED]
    of_all = [status for status in statuses if status is not Exit.SOME_FAILED]
    return next(iter(of_all or statuses), Exit.OK)
