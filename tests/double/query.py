"""The filters, order and pages of the `get_all` and `get_all_ex` calls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ApiError, validation_error

Json = dict[str, Any]

PAGE_SIZE = 500
DEEPEST_FIELD = 3  # dots in a filter of hyperparameters
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


def _names(path: str) -> list[str]:
    """Return the parts of a path of a request; a dot inside one of them is sent as %2E."""
    return [part.replace("%2E", ".") for part in path.split(".")]


def lookup(document: Json, path: str) -> Any:
    """Return what stands at a dotted path, or None."""
    value: Any = document
    for part in _names(path):
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


def project_fields(document: Json, only_fields: Any, *, with_id: bool = True) -> Json:
    """Return the asked-for fields of a document, all when none is named; one that is None is not there."""
    names = asked_fields(only_fields)
    if not names:
        return {name: value for name, value in document.items() if value is not None}
    result: Json = {"id": document["id"]} if with_id else {}
    for name in names:
        _copy(document, result, _names(name))
    return result


def asked_fields(only_fields: Any) -> list[str]:
    """Return a request's `only_fields` as the list it may be given as."""
    return [only_fields] if isinstance(only_fields, str) else list(only_fields or [])


def _copy(source: Json, target: Json, path: list[str]) -> None:
    """Copy what stands at a path, and as much of the way to it as there is."""
    name, *rest = path
    value = source.get(name)
    if not rest:
        if value is not None:
            target[name] = value
    elif isinstance(value, dict):
        # a copy: what was asked for beside it stays whole
        target[name] = dict(target.get(name) or {})
        _copy(value, target[name], rest)
    elif isinstance(value, list):
        items = target.setdefault(name, [{} for _ in value])
        for item, copied in zip(value, items, strict=True):
            _copy(item, copied, rest)


def joined_fields(document: Json, only_fields: Any, references: Mapping[str, Mapping[str, Json]]) -> Json:
    """Return the fields as the `_ex` calls do: what a document refers to comes as an object with an id.

    ``references`` names the fields that refer to something, with the documents that they may refer to, by id.
    """
    names = asked_fields(only_fields)
    expanded = dict(document)
    for reference, known in references.items():
        target = document.get(reference)
        if isinstance(target, str):
            inner = [name.partition(".")[2] for name in names if name.startswith(f"{reference}.")]
            whole = target in known and inner
            expanded[reference] = project_fields(known[target], inner) if whole else {"id": target}
    if isinstance(models := document.get("models"), dict):
        expanded["models"] = {
            kind: [{**item, "model": {"id": item["model"]}} for item in items or []]
            for kind, items in models.items()
        }
    heads = [name.partition(".")[0] for name in names]
    wanted = [head if head in references else name for head, name in zip(heads, names, strict=True)]
    return project_fields(expanded, wanted)


def get_all(documents: Iterable[Json], body: Json) -> list[Json]:
    """Filter, order and cut out a page; fields are left to `project_fields`."""
    for name in body:
        # a dot in a parameter's name is to be sent as %2E
        if name.startswith(("hyperparams.", "configuration.")) and name.count(".") > DEEPEST_FIELD:
            raise validation_error("invalid task field", path=name)
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
