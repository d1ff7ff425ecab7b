"""The request schemas of the ClearML SDK, read from its source without importing the SDK."""

from __future__ import annotations

import ast
import importlib.util
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema  # type: ignore[import-untyped, unused-ignore]
from jsonschema import Draft7Validator  # type: ignore[import-untyped, unused-ignore]

Json = dict[str, Any]

SERVICES = "backend_api/services/v2_23"

# How the SDK names the class behind an action when it does not follow from the action's own name.
CLASSES = {"tasks.get_all_ex": "GetAllRequest", "models.get_all_ex": "GetAllRequest"}

# The server takes back the null that it handed out itself.
UNCHECKED_FIELDS = {"scroll_id"}

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}

_lock = threading.Lock()
_sources: dict[str, str] = {}
_validators: dict[str, tuple[Callable[[Json], object], Draft7Validator] | None] = {}
_events: dict[str, dict[str, tuple[type, ...]]] = {}
_fitting: set[tuple[object, ...]] = set()  # kinds of events, with their fields and types, that fit


def _source(service: str) -> str:
    if service not in _sources:
        # find_spec does not run the package: importing clearml costs a second and patches argparse
        spec = importlib.util.find_spec("clearml")
        text = ""
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / SERVICES / f"{service}.py"
            if path.exists():
                text = path.read_text(encoding="utf-8")
        _sources[service] = text
    return _sources[service]


def schema_of(service: str, class_name: str) -> Json | None:
    """Return the literal `_schema` of one request class, or None when the SDK has none."""
    text = _source(service)
    begin = text.find(f"\nclass {class_name}(")
    if begin < 0:
        return None
    end = text.find("\nclass ", begin + 1)
    match = re.search(
        r"^    _schema = (\{.*?^    \})", text[begin : end if end > 0 else None], re.DOTALL | re.MULTILINE
    )
    if match is None:
        return None
    schema: Json = ast.literal_eval(match.group(1))
    return schema


def _validator(endpoint: str) -> tuple[Callable[[Json], object], Draft7Validator] | None:
    """Give what is quick to see that a body fits, and what has words for it where it does not."""
    with _lock:
        if endpoint not in _validators:
            service, _, action = endpoint.partition(".")
            name = (
                CLASSES.get(endpoint) or "".join(word.capitalize() for word in action.split("_")) + "Request"
            )
            schema = schema_of(service, name)
            if schema is not None:
                properties = schema.get("properties", {})
                for field in UNCHECKED_FIELDS:
                    properties.pop(field, None)
            if schema is None:
                _validators[endpoint] = None
            else:
                quick = fastjsonschema.compile(schema, use_default=False, use_formats=False)
                _validators[endpoint] = quick, Draft7Validator(schema)
        return _validators[endpoint]


def mismatch(endpoint: str, body: Json) -> str | None:
    """Return what is wrong with a request's body by the SDK's schema, or None when it fits."""
    validator = _validator(endpoint)
    if validator is None:
        return None
    quick, wordy = validator
    try:
        quick(body)
    except fastjsonschema.JsonSchemaValueException:
        error = next(iter(wordy.iter_errors(body)))
    else:
        return None
    path = ".".join(str(part) for part in error.absolute_path)
    return f"error for field '{path}'. {error.message[:300]}" if path else error.message[:300]


def event_mismatch(event: Json) -> str | None:
    """Return what is wrong with the types of an event's fields, or None.

    Done by hand: a thousand lines against `anyOf` of five definitions would cost a second.
    """
    shape = (str(event.get("type")), *event, *map(type, event.values()))
    if shape in _fitting:
        return None
    with _lock:
        if not _events:
            schema = schema_of("events", "AddRequest") or {"definitions": {}}
            for definition in schema["definitions"].values():
                properties = definition.get("properties", {})
                constant = properties.get("type", {}).get("const")
                if constant is None:
                    continue
                _events[constant] = {}
                for field, rule in properties.items():
                    # value and timestamp: Elasticsearch has its own say about those, and it is a 500
                    if field in ("type", "task", "timestamp", "value") or "type" not in rule:
                        continue
                    names = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
                    _events[constant][field] = tuple(kind for name in names for kind in TYPES[name])
        rules = _events.get(str(event.get("type")).replace(" ", "_"), {})
    for field, kinds in rules.items():
        if field in event and (
            not isinstance(event[field], kinds) or (isinstance(event[field], bool) and bool not in kinds)
        ):
            return f"error for field '{field}'. {event[field]!r:.80} is not of the type the schema names"
    _fitting.add(shape)
    return None
