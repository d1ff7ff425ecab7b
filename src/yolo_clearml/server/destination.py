"""Where the model of a run goes, and who decides so: as ClearML's SDK decides, and never for good by mistake.

    --output-uri, else the task's own, else the project's, else clearml.conf's, else the files server

A task keeps the destination it was made with, so that it looks as the SDK makes it. But as long as no model
has arrived there, one that was written by us is nobody's wish: it is decided anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from ..errors import YoloClearmlError
from .api import Api
from .ownership import key_of, mark_of
from .payloads import Json

RUNTIME_DESTINATION = (
    "yolo_clearml_output"  # what we wrote as a task's destination; "" where a person may have
)
FILES_SERVER = "the files server (api.files_server in clearml.conf, or CLEARML_FILES_HOST)"
PLOTS_SERVER = "sdk.metrics.plot_upload_destination in clearml.conf"
_OPTION = "--output-uri"
_OPTION_VARIABLE = "YOLO_CLEARML_OUTPUT_URI"

_Error = TypeVar("_Error", bound=YoloClearmlError)


@dataclass(frozen=True, slots=True)
class Destination:
    """An address, and who names it."""

    address: str
    named_by: str


Decide = Callable[[], Destination]


def by_default(api: Api, option: str | None, of_project: str | None) -> Destination:
    """Decide for a task that is made; ``of_project`` is the project's default output destination."""
    if option:
        return _by_option(option)
    if of_project:
        return Destination(of_project, "the default output destination of the project in ClearML")
    if api.output_uri:
        return Destination(api.output_uri, api.output_uri_named_by)
    return Destination(api.files_host, FILES_SERVER)


def of_task(api: Api, task: Json, option: str | None) -> Destination:
    """Decide for a task that is there; raises as `Api.call` does."""
    if option:
        return _by_option(option)
    stated = (task.get("output") or {}).get("destination")
    if stated and not _is_ours(task, stated):
        hint = "the task's own output destination in ClearML; --output-uri goes before it"
        return Destination(str(stated), hint)
    project = task.get("project")
    query = {"id": [project], "only_fields": ["id", "default_output_destination"], "search_hidden": True}
    found = api.rows("projects.get_all_ex", query, "projects") if project else []
    return by_default(api, None, next((row.get("default_output_destination") for row in found), None))


def naming(error: _Error, named_by: str) -> _Error:
    """Give an error over an address with who named it, for that is where a typo is mended."""
    named = error.afresh()
    named.hint = f"{error.hint} The address comes from {named_by}."
    return named


def _by_option(option: str) -> Destination:
    named_by = _OPTION_VARIABLE if os.environ.get(_OPTION_VARIABLE) == option else _OPTION
    scheme = urlsplit(option).scheme
    # a path, as the SDK writes one (S/storage/helper.py, conform_url)
    address = option if len(scheme) > 1 else f"file://{Path(option).absolute()}"
    return Destination(address, named_by)


def _is_ours(task: Json, stated: str) -> bool:
    """Check whether nobody but us has named a task's destination, and no model has arrived there."""
    if key_of(task) is None or mark_of(task) is not None or (task.get("models") or {}).get("output"):
        return False
    # tasks that were made before this was written hold what we wrote as well
    return bool((task.get("runtime") or {}).get(RUNTIME_DESTINATION, stated) == stated)
