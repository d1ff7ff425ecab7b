"""args.yaml of an untrusted run directory: plain values and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import yaml

from ..errors import RunUnreadable
from ..events import FileStamp
from .files import read_bounded
from .places import lfs_pointer

_MOST_ARGS = 2**18  # bytes; the largest seen has 3,000, and this takes a second or two
_MOST_NODES = 20_000  # values in args.yaml, counted through aliases, a long text as several
_TEXT_NODE = 100  # characters that count as one more value
_DEEPEST_NODE = 10  # levels of lists and dictionaries in args.yaml
_LONGEST_KEY = 250  # characters; nested keys are joined
_LONGEST_NUMBER = 100  # characters; base 60, which YAML has, takes quadratic time
_SHALLOW = 500  # levels at the most of what the C library is given: each takes from a stack that has no guard
# by libyaml and by PyYAML's reader in Python: tabs, tags, byte order marks of UTF-8 and UTF-16
_READ_DIFFERENTLY = (b"\t", b"!", "\ufeff".encode(), b"\xfe\xff", b"\xff\xfe")


class _Plain(yaml.constructor.SafeConstructor):
    """Makes dictionaries, lists, text, numbers and nothing else.

    The safe loader is safe from execution, not from a file that asks for more than it has: merged
    dictionaries multiply, and its dates and tagged values are of types nobody here expects.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        number = kind in ("int", "float")
        if (
            kind not in ("map", "seq", "str", "null", "bool", "int", "float", "timestamp")
            or isinstance(node, yaml.ScalarNode) is (kind in ("map", "seq"))
            or (number and len(str(node.value)) > _LONGEST_NUMBER)
        ):
            raise yaml.constructor.ConstructorError(None, None, "not a plain value", node.start_mark)
        return node.value if kind == "timestamp" else super().construct_object(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge nothing: "<<" is then a key of no plain type."""


class _PlainLoader(_Plain, yaml.SafeLoader):
    """As PyYAML reads in Python."""


class _QuickLoader(_Plain, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """As libyaml reads, nine times as fast; not everywhere is PyYAML built with it."""


def _loaded(data: bytes) -> object:
    """Read YAML; what libyaml does not take, or might not survive, is for the reader in Python to judge.

    So is what the two read differently, which is a tab, a tag or a byte order mark somewhere. Nothing is
    nested deeper than it has brackets, and beyond them than its longest line has columns.
    """
    deepest = data.count(b"[") + data.count(b"{") + max(map(len, data.splitlines()), default=0)
    if deepest < _SHALLOW and not any(odd in data for odd in _READ_DIFFERENTLY):
        with contextlib.suppress(yaml.YAMLError):
            return yaml.load(data, Loader=_QuickLoader)  # noqa: S506  a safe loader, made safer
    return yaml.load(data, Loader=_PlainLoader)  # noqa: S506


def read_arguments(path: Path, name: str) -> tuple[dict[str, object], FileStamp]:
    """Read a YAML file of plain values: one dictionary, no tags, bounded also through its aliases.

    ``name`` is that of the file in the run directory ``path``. Raises RunUnreadable.
    """
    hint = "Restore it as Ultralytics wrote it, then run the same command again."
    try:
        data, stamp = read_bounded(path, name, _MOST_ARGS)
        if lfs_pointer(data) is not None:
            raise RunUnreadable(
                f"{path / name} is a git-LFS pointer, not the arguments.",
                "'git lfs pull' fetches it; then run the same command again.",
            )
        loaded = _loaded(data)
    except FileNotFoundError as cause:
        raise RunUnreadable(
            f"{path / name} is missing.", f"{hint} What is no run can be left out with --exclude."
        ) from cause
    except (
        # what the YAML library raises over values that are not what their tags state
        *(yaml.YAMLError, ValueError, AttributeError, LookupError, TypeError, ArithmeticError),
        RecursionError,
    ) as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise RunUnreadable(f"{path / name} is not plain YAML{where}.", hint) from cause
    if not isinstance(loaded, dict):
        raise RunUnreadable(f"{path / name} holds no arguments.", hint)
    waiting: list[tuple[int, object]] = [(0, loaded)]
    left = _MOST_NODES
    while waiting:
        depth, node = waiting.pop()
        left -= 1 + (len(node) // _TEXT_NODE if isinstance(node, str) else 0)
        if left < 0:
            raise RunUnreadable(f"{path / name} holds more than {_MOST_NODES:,} values.", hint)
        if depth > _DEEPEST_NODE:
            raise RunUnreadable(f"{path / name} is nested more than {_DEEPEST_NODE} levels deep.", hint)
        if isinstance(node, dict) and any(len(str(key)) > _LONGEST_KEY for key in node):
            raise RunUnreadable(f"{path / name} holds a name of more than {_LONGEST_KEY} characters.", hint)
        if isinstance(node, (dict, list)):
            waiting += [(depth + 1, inner) for inner in (node.values() if isinstance(node, dict) else node)]
    return {str(key): value for key, value in loaded.items()}, stamp
