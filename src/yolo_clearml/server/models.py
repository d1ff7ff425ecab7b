"""The output model of a task: its weights uploaded, then registered once, whoever else uploads the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from ..events import OutputModel
from ..rundir.exports import link_of
from ..sync.sinks import Step
from . import payloads
from .api import Api
from .payloads import Json
from .tasks import change, delete, project_of
from .uploads import Uploads


@dataclass(slots=True)
class OutputModels:
    """The output models of one task."""

    _api: Api
    _uploads: Uploads
    _task_id: str
    _made: bool  # the task, a moment ago, so that it has no model
    _others: bool  # reported by somebody else: its destination and its models stay
    _models_made: set[str] = field(default_factory=set)  # ids

    def send(self, event: OutputModel, task: Json) -> Iterator[Step]:
        """Upload the weights, then register them; a model of the same address is the same model.

        ``task`` is the task as it was read last.
        """
        yield from self._uploads.upload([event])
        destination = self._uploads.destination(event).address
        stated = (task.get("output") or {}).get("destination")
        if not self._others and destination != stated:  # nothing of it is there, or it is a person's wish
            edit = {"task": self._task_id, "output_dest": destination, "force": True}
            self._change("tasks.edit", edit)
        uri = payloads.url_of(destination, self._uploads.key(event))
        entry = payloads.model(event, uri, self._task_id, project_of(task))
        there = [] if self._made else self._models_at(uri)
        if not there:
            made = self._api.create(
                "models.create", entry, lambda: next((m["id"] for m in self._models_at(uri)), None)
            )
            self._models_made.add(made)
            there = self._models_at(uri) or [{**entry, "id": made}]
        model = there[0]
        wanted = {"name": entry["name"], "labels": entry["labels"]}
        if wanted != {"name": model.get("name"), "labels": model.get("labels") or {}}:
            self._change("models.edit", {"model": model["id"], **wanted})
        name = link_of(event.file.name)
        link = {"model": model["id"], "type": "output", "name": name, "iteration": event.iteration}
        self._change("tasks.add_or_update_model", {"task": self._task_id, **link})
        for twin in there[1:]:  # of another uploader: both keep the older
            if not self._others or twin["id"] in self._models_made:
                still = partial(self._has_model, uri, twin["id"])
                delete(self._api, "models.delete", {"model": twin["id"]}, still)

    def _change(self, endpoint: str, payload: Json) -> None:
        change(self._api, self._task_id, endpoint, payload)

    def _has_model(self, uri: str, model_id: str) -> bool:
        return any(model["id"] == model_id for model in self._models_at(uri))

    def _models_at(self, uri: str) -> list[Json]:
        """Find the task's models of this address, oldest first."""
        fields = ["id", "uri", "created", "name", "labels"]
        query = {"task": [self._task_id], "uri": [uri], "only_fields": fields}
        there = [m for m in self._api.rows("models.get_all", query, "models") if m.get("uri") == uri]
        return sorted(there, key=lambda m: (str(m.get("created")), m["id"]))
