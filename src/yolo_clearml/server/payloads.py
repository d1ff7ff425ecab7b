"""Events to ClearML's own words: event dictionaries, storage keys, URLs. Pure.

The shapes are those the SDK sends for the callback's calls, so a task looks the same in the web UI; the
one difference is that file names come from the run's own facts instead of a counter of the process:

    <files>/<project>/<task name>.<task id>/metrics/<title>/<series>/<title>_<series>_<iteration>.<ext>
    <output>/<project>/<task name>.<task id>/models/best.pt
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit, urlunsplit

from ..events import (
    Artifact,
    FileStamp,
    Hyperparameters,
    Image,
    OutputModel,
    Points,
    Properties,
    Scalar,
    SingleValue,
)
from ..rundir.exports import framework_of, stored_name

Json: TypeAlias = dict[str, Any]

PLOT_VARIANT = "plot image"  # what report_image_plot names its series in the callback
RUNTIME_KEY = (
    "yolo_clearml"  # what a run's key is stored under; a plain key: the server's lookup understands no other
)
SINGLE_VALUES = ("Summary", -(2**31))  # the metric and iteration where the server keeps single values
_SCALAR = "training_stats_scalar"  # type of an event
PROPERTIES = "properties"  # the section of user properties
_TYPES = mimetypes.MimeTypes()  # of Python alone: the same on every machine
_REFERENCES = ("project", "parent", "task", "user", "company")  # fields that hold another row's id
_PLOT_WIDTH = 640  # pixels, as the SDK lays out an image plot
_LONGEST_PART = 200  # bytes; the file server refuses a path part over 255
_UNSAFE = "#\"';?:@&=+$,%!\r\n"  # characters the SDK replaces in a storage key


def with_ids(row: Json) -> Json:
    """Make the references in a row ids again: an ``_ex`` call answers ``{"id": ...}`` in their place.

    apiserver/database/model/base.py, get_many_with_join; only calls without ``_ex`` give ids alone.
    """
    flat = row | {name: _id_of(row[name]) for name in _REFERENCES if name in row}
    if isinstance(models := row.get("models"), dict):
        flat["models"] = {kind: _links(links) for kind, links in models.items()}
    return flat


def _links(links: Any) -> Any:
    if not isinstance(links, list):
        return links
    return [link | {"model": _id_of(link.get("model"))} if isinstance(link, dict) else link for link in links]


def _id_of(reference: Any) -> Any:
    return reference.get("id") if isinstance(reference, dict) else reference


def scalar(task_id: str, event: Scalar) -> Json:
    """One point of a curve."""
    return _event(_SCALAR, task_id, event.title, event.series, event.iteration, event.at) | {
        "value": event.value
    }


text = json.JSONEncoder(allow_nan=False).encode  # of an event, as it is sent: one line


def texts(task_id: str, points: Points) -> list[str]:
    """The points of an epoch, each as the text of its `scalar`.

    They are nearly all of a run, and what they share is written once.
    """
    shared = f', "iter": {points.iteration}, "timestamp": {points.at}, "value": '
    begun = _begun(task_id, points.curves)
    return [f"{begin}{shared}{value!r}}}" for begin, value in zip(begun, points.values, strict=True)]


@lru_cache(maxsize=64)  # of several runs at a time
def _begun(task_id: str, curves: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(
        text({"type": _SCALAR, "task": task_id, "metric": title, "variant": series})[:-1]
        for title, series in curves
    )


def place(line: str) -> str:
    """Name an event as a person finds it in ClearML, by its text."""
    event = json.loads(line)
    if (event["metric"], event["iter"]) == SINGLE_VALUES:
        return f"single value {event['variant']}"
    return f"{event['metric']} / {event['variant']} at iteration {event['iter']}"


def single_value(task_id: str, event: SingleValue) -> Json:
    """One single value."""
    metric, iteration = SINGLE_VALUES
    return _event(_SCALAR, task_id, metric, event.name, iteration, event.at) | {"value": event.value}


def debug_image(task_id: str, event: Image, key: str, url: str) -> Json:
    """One debug image whose file is at ``url``; ``key`` is the same place, unquoted, without the host."""
    return _event("training_debug_image", task_id, event.title, event.series, event.iteration, event.at) | {
        "key": key,
        "url": url,
    }


def image_plot(task_id: str, title: str, iteration: int, at: int, url: str, size: tuple[int, int]) -> Json:
    """A picture in the Plots tab: a plotly layout without data that shows ``url``; size is width, height."""
    height = int(_PLOT_WIDTH * size[1] / size[0])
    layout = {
        "xaxis": {"visible": False, "range": [0, _PLOT_WIDTH]},
        "yaxis": {"visible": False, "range": [0, height], "scaleanchor": "x"},
        "margin": {"l": 0, "r": 0, "t": 64, "b": 0},
        "images": [
            {
                "sizex": _PLOT_WIDTH,
                "sizey": height,
                "xref": "x",
                "yref": "y",
                "opacity": 1.0,
                "x": 0,
                "y": height,
                "sizing": "contain",
                "layer": "below",
                "source": url,
            }
        ],
        "showlegend": False,
        "title": f"{title}/{PLOT_VARIANT}",
        "name": None,
    }
    plot = json.dumps({"data": [], "layout": layout})
    return _event("plot", task_id, title, PLOT_VARIANT, iteration, at) | {"plot_str": plot}


def shows_in_plots(url: str) -> bool:
    """Check whether the Plots tab can show a picture: not one in a bucket or folder (S/.../reporter.py)."""
    return url.startswith("http")


def plot_as_image(task_id: str, title: str, iteration: int, at: int, key: str, url: str) -> Json:
    """A picture that the Plots tab cannot show, as the SDK reports it then: a debug image."""
    event = _event("training_debug_image", task_id, title, PLOT_VARIANT, iteration, at)
    return event | {"key": key, "url": url}


def _event(kind: str, task_id: str, metric: str, variant: str, iteration: int, at: int) -> Json:
    return {
        "type": kind,
        "task": task_id,
        "metric": metric,
        "variant": variant,
        "iter": iteration,
        "timestamp": at,
    }


def parameters(event: Hyperparameters | Properties) -> list[Json]:
    """A section of hyperparameters, or the user properties, as a list of the server's items."""
    if isinstance(event, Properties):
        return [
            {"section": PROPERTIES, "name": name, "value": value, "type": "str"}
            for name, value in event.values.items()
        ]
    return [
        {"section": event.section, "name": name, "value": parameter.value}
        | ({"type": parameter.type} if parameter.type else {})
        for name, parameter in event.values.items()
    ]


def mark(key: str) -> Json:
    """The user property that names the run a task holds: it can be written and looked for in any status."""
    return {"section": PROPERTIES, "name": RUNTIME_KEY, "value": key, "type": "str"}


def task_folder(project: str, name: str, task_id: str) -> str:
    """The folder of a task's files in its storage, quoted as the SDK quotes it.

    But for quotation marks: the file server takes ``%22`` for one, and the links would be dead.
    """
    parts = [*project.split("/"), *f"{name[:90]}.{task_id}".split("/")]
    safe = [quote("_" if part in ("", ".", "..") else part, safe="'[]{}()$^,.; -_+=") for part in parts]
    return "/".join(_short(part.replace("%22", "_")) for part in safe)


def image_key(folder: str, event: Image) -> str:
    """The storage key of a debug image: where it lies below the host, unquoted."""
    return _metric_key(folder, event.title, event.series, event.iteration, event.file.name)


def plot_key(folder: str, title: str, iteration: int, file_name: str) -> str:
    """The storage key of a picture in the Plots tab."""
    return _metric_key(folder, title, PLOT_VARIANT, iteration, file_name)


def model_key(folder: str, stamp: FileStamp) -> str:
    """The storage key of a model's weights."""
    return f"{folder}/models/{_short(_storable(stored_name(stamp)))}"


def artifact_key(folder: str, name: str) -> str:
    """The storage key of an artifact."""
    parts = (name, PurePosixPath(name).name)
    return "/".join([folder, "artifacts", *(_short(_storable(part)) for part in parts)])


def _metric_key(folder: str, title: str, series: str, iteration: int, file_name: str) -> str:
    ending = PurePosixPath(file_name.encode("utf-8", "replace").decode()).suffix
    name = f"{title}_{series}_{iteration:08d}{ending}"
    return "/".join([folder, "metrics", *(_short(_storable(part)) for part in (title, series, name))])


def _storable(part: str) -> str:
    """Replace what a storage key cannot hold, as the SDK does, and what an address loses: such as a tab."""
    part = part.replace("\\", "/").strip("/").replace("/", ".slash.")
    return "".join(f"0x{ord(c):02x}" if c in _UNSAFE or c < " " else c for c in part)


def _short(part: str) -> str:
    """Replace a part too long for the file server by its digest, with the same ending."""
    if len(part.encode("utf-8", "surrogatepass")) <= _LONGEST_PART:
        return part
    suffix = PurePosixPath(part).suffix[-40:]
    return hashlib.md5(part.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest() + suffix


def url_of(base: str, key: str) -> str:
    """The address of a storage key below ``base``; quoted where it is one of the web's."""
    url = f"{base.rstrip('/')}/{key}"
    if urlsplit(url).scheme not in ("http", "https"):
        return url
    scheme, host, path, _, _ = urlsplit(url.replace("?", "%3F").replace("#", "%23"))
    return urlunsplit((scheme, host, quote(path), "", ""))


def model(event: OutputModel, uri: str, task_id: str, project_id: str | None) -> Json:
    """A model entry; not ready, as the SDK makes it, so that it is not published by the way."""
    entry = {
        "name": event.name,
        "uri": uri,
        "framework": framework_of(event.file.name),
        "labels": dict(event.labels),
        "task": task_id,
        "comment": f"Created by task id: {task_id}",
        "ready": False,
    }
    return entry | ({"project": project_id} if project_id is not None else {})


def artifact(event: Artifact, uri: str) -> Json:
    """An artifact of a file, as the SDK's ``upload_artifact`` registers one (S/binding/artifacts.py)."""
    file = event.file
    return {
        "key": event.name,
        "type": "custom",
        "mode": "output",
        "uri": uri,
        "content_size": file.size,
        "hash": file.content,
        "timestamp": event.at // 1000,  # seconds
        "type_data": {
            "preview": f"{PurePosixPath(event.name).name} - {file.size:,} bytes\n",
            "content_type": _TYPES.guess_type(event.name)[0] or "",
        },
    }
