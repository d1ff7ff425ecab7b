"""The filters, order and pages of the `get_all` and `get_all_ex` calls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .errors import ApiError, validation_error

Json = dict[str, Any]

PAGE_SIZE = 500
LIST_FIELDS = ("id", "user", "type", "status", "project", "parent", "task", "framework", "uri", "last_worker")
TAG_FIELDS = ("tags", "system_tags")
PATTERN_FIELDS = ("name", "basename", "comment", "description", "report")

# What Mongo or its mapper take for an operation when it ends a key of a query.
OPERATORS = frozenset(
    (
        "ne",
        "lt",
        "lte",
        "gt",
        "gte",
        "not",
        "in",
        "nin",
        "mod",
        "all",
        "size",
        "exists",
        "type",
        "match",
        "exact",
        "iexact",
        "contains",
        "icontains",
        "startswith",
        "istartswith",
        "endswith",
        "iendswith",
        "regex",
        "iregex",
        "wholeword",
        "iwholeword",
        "elemMatch",
    )
)


def lookup(document: Json, path: str) -> Any:
    """Return what stands at a dotted path, or None."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def same_value(stored: Any, wanted: Any) -> bool:
    """Compare the way Mongo does: numbers by value, everything else by type and value."""
    numbers = (int, float)
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    if isinstance(stored, numbers) and isinstance(wanted, numbers):
        return stored == wanted
    if isinstance(stored, list) and not isinstance(wanted, list):
        return any(same_value(item, wanted) for item in stored)
    return type(stored) is type(wanted) and bool(stored == wanted)


def _runtime_matches(document: Json, key: str, wanted: Any) -> bool:
    parts = re.split(r"\.|__", key)
    if len(parts) > 1:
        # Mongo looks below a field, where a key that holds the dots itself is never found
        if parts[-1] in OPERATORS:
            return False
        stored = lookup({"runtime": document.get("runtime") or {}}, ".".join(["runtime", *parts]))
        return stored is not None and same_value(stored, wanted)
    if key in OPERATORS:
        return False
    stored = (document.get("runtime") or {}).get(key)
    return stored is not None and same_value(stored, wanted)


def _tags_match(tags: list[str], wanted: Any) -> bool:
    """Any of the plain tags (after `__$all`: all of them), and none of those with a minus."""
    conjunction = False
    exclude_next = False
    plain: list[str] = []
    for tag in [wanted] if isinstance(wanted, str) else list(wanted):
        if tag in ("__$all", "__$and"):
            conjunction = True
        elif tag in ("__$any", "__$or"):
            conjunction = False
        elif tag == "__$not":
            exclude_next = True
        elif exclude_next or (isinstance(tag, str) and tag.startswith("-")):
            if (tag if exclude_next else tag[1:]) in tags:
                return False
            exclude_next = False
        else:
            plain.append(tag)
    if not plain:
        return True
    return all(tag in tags for tag in plain) if conjunction else any(tag in tags for tag in plain)


def _pattern_matches(text: Any, pattern: Any) -> bool:
    try:
        return isinstance(text, str) and re.search(str(pattern), text, re.IGNORECASE) is not None
    except re.error:
        raise ApiError(400, 21, "Malformed regular expression", pattern=pattern) from None


def matches(document: Json, body: Json) -> bool:
    """Say whether a document passes every filter that the server knows; others and nulls are ignored."""
    for name, wanted in body.items():
        if wanted is None:
            continue
        if name.startswith("runtime."):
            if not _runtime_matches(document, name[len("runtime.") :], wanted):
                return False
        elif name.startswith("hyperparams."):  # as for columns of the web interface
            values = wanted if isinstance(wanted, list) else [wanted]
            if values and lookup(document, name) not in values:
                return False
        elif name in TAG_FIELDS:
            if wanted and not _tags_match(document.get(name) or [], wanted):
                return False
        elif name in LIST_FIELDS:
            values = wanted if isinstance(wanted, list) else [wanted]
            if values and document.get(name) not in values:
                return False
        elif name in PATTERN_FIELDS:
            if not _pattern_matches(document.get(name), wanted):
                return False
        elif name in ("ready", "public"):
            if document.get(name) is not wanted:
                return False
        elif (
            name == "_any_"
            and isinstance(wanted, dict)
            and not any(
                _pattern_matches(lookup(document, field), wanted.get("pattern", ""))
                for field in wanted.get("fields") or []
            )
        ):
            return False
    return True


def _order(documents: list[Json], order_by: Any) -> list[Json]:
    keys = [order_by] if isinstance(order_by, str) else list(order_by or [])
    for key in reversed(keys):
        field = key.lstrip("-+@")

        def rank(document: Json, field: str = field) -> tuple[int, str, Any]:
            value = lookup(document, field)
            # Mongo orders by type first: nothing, numbers, texts
            if value is None or isinstance(value, (dict, list)):
                return (0, "", 0)
            return (1, "", value) if isinstance(value, (int, float)) else (2, str(value), 0)

        documents = sorted(documents, key=rank, reverse=key.startswith("-"))
    return documents


def project_fields(document: Json, only_fields: Any) -> Json:
    """Return the asked-for fields of a document (all when none is named); the id always comes along."""
    names = [only_fields] if isinstance(only_fields, str) else list(only_fields or [])
    if not names:
        return document
    result: Json = {"id": document["id"]}
    for name in names:
        value = lookup(document, name)
        if value is None:
            continue
        target = result
        *parents, last = name.split(".")
        for parent in parents:
            inner = target.get(parent)
            if not isinstance(inner, dict):
                inner = target[parent] = {}
            target = inner
        target[last] = value
    return result


def get_all(documents: Iterable[Json], body: Json) -> list[Json]:
    """Filter, order and cut out a page; fields are left to `project_fields`."""
    found = _order([document for document in documents if matches(document, body)], body.get("order_by"))
    page, size = body.get("page"), body.get("page_size")
    if page is not None and page < 0:
        raise validation_error("page must be >=0", page=page)
    if size is not None and size < 1:
        raise validation_error("page_size must be >0", page_size=size)
    if page is not None and size is None:
        raise validation_error("page_size is required when page is requested", page_size=size)
    size = min(size or PAGE_SIZE, PAGE_SIZE)
    start = (page or 0) * size
    return found[start : start + size]
