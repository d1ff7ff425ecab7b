"""How long the task of a live run may go without report or ping, before ClearML's server takes it for dead.

The server stops a task in progress that nothing was reported to for two hours
(apiserver/bll/task/non_responsive_tasks_watchdog.py), or for whatever its tasks.conf has instead
(``non_responsive_tasks_watchdog.threshold_sec``), and no endpoint gives how long that is. So the silence
grows with the time that went well; by then a server that is quick to stop has had a chance to show it:

    seconds since the first ping      0   120    600    3600    60,000
    seconds of silence                3     3     15      90     1,500, and no more
    of 20 live runs                  60    60     60      90     1,500
"""

from __future__ import annotations

LONGEST = 1500.0  # seconds; a ping or two may get lost within the two hours
_SHORTEST = 3.0  # seconds
_DARED = 1 / 40  # of the time since the first ping
_APART = 3.0  # seconds between two pings, on the average of all live runs
_WITHIN = 1 / 3  # of a silence that was too long


class Silence:
    """What one server has borne so far; times are of a clock that nobody sets, in seconds."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._most = LONGEST

    def after(self, now: float, live: int) -> float:
        """Give the seconds until a task that gets a report or a ping ``now`` needs another.

        ``live`` is the number of live runs, which all want that.
        """
        if self._first is None:
            self._first = now
        return min(self._most, max(_SHORTEST, _APART * live, _DARED * (now - self._first)))

    def was_too_long(self, seconds: float) -> None:
        """Note that the server has stopped a task at some time within a silence of so many seconds."""
        self._most = min(self._most, max(_SHORTEST, seconds * _WITHIN))
