"""The artifacts of a task: further files of its run, uploaded and then registered by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..events import Artifact
from ..sync.sinks import Step
from . import payloads
from .api import Api
from .tasks import change
from .uploads import Uploads


@dataclass(slots=True)
class Artifacts:
    """The artifacts of one task; they go where its models go, as the SDK has it."""

    _api: Api
    _uploads: Uploads
    _task_id: str

    def send(self, events: Sequence[Artifact]) -> Iterator[Step]:
        """Upload the files, then register them; one of the same name is replaced."""
        yield from self._uploads.upload(events)
        registered = [
            payloads.artifact(
                event, payloads.url_of(self._uploads.destination(event).address, self._uploads.key(event))
            )
            for event in events
        ]
        payload = {"task": self._task_id, "artifacts": registered, "force": True}
        change(self._api, self._task_id, "tasks.add_or_update_artifacts", payload)
