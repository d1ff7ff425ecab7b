"""Read the facts a training left in its .pt checkpoint, without torch and without executing any of it.

    best.pt, a zip            data.pkl, a pickle (protocol 2)              Checkpoint
      best/data.pkl   ---->     {"version": "8.4.190", "epoch": -1,  --->    release, epoch, ...
      best/data/0 ...           "model": <objects of torch>, ...}
      (tensors: never read)

A pickle is a program, and unpickling one calls whatever it names. A `pickle.Unpickler` with a harmless
`find_class` would still be a machine made for calling things, so this module has its own: it knows the
opcodes of protocols 2 to 5, resolves no global, imports nothing, and where a pickle asks for a call it
notes the name and the arguments in an inert `_Opaque`. No value of the file is ever called, hashed
(except text and small integers), compared or printed, so none can recurse or collide on purpose.

Everything a file can make large has a bound: bytes read, opcodes, names, and what is copied into the
result. Nothing of a tensor but its size is read, so a file of 5 GB costs as little as a small one.
"""

import errno
import io
import math
import os
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from .files import open_regular

_MAX_DIRECTORY = 4 << 20  # bytes of the zip's directory; about 40,000 tensors
_MAX_PICKLE = 32 << 20  # bytes of data.pkl, uncompressed
_MAX_OPCODES = 2_000_000  # a network of 1,000 layers with its optimizer needs about 500,000
_MAX_GLOBAL = 1_000  # characters of a global's name
_MAX_COPIED = 1_000_000  # texts and characters copied into one Checkpoint
_MAX_DIMENSIONS = 64  # of a tensor, as in torch
_MAX_INTEGER = 2**63 - 1  # what torch can count


class CheckpointUnreadable(Exception):
    """Nothing can be read of the file; `reason` is a short sentence that does not name the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one .pt file states about its training. A fact that is absent or odd is None or empty."""

    release: str | None  # Ultralytics release that wrote it, such as "8.4.190"; None from YOLOv5
    date: str | None  # when its epoch was saved, ISO text as stored: naive local time before 8.4.190
    epoch: int | None  # zero-based epoch it was saved at, -1 once stripped
    stripped: bool  # epoch -1 and no optimizer: the training finished with this file
    parameters: int | None  # elements in all Parameters of the network, frozen ones too; see `_parameters`
    train_metrics: Mapping[str, float]  # of its epoch, five decimals, may be NaN; since 8.0.220
    names: Mapping[int, str]  # class names by class index


def read_checkpoint(path: Path, root: Path | None = None) -> Checkpoint:
    """Read a checkpoint of Ultralytics YOLO or YOLOv5 as torch 1.6 and later write it.

    Costs the zip's directory and data.pkl, whatever the size of the file. No link below ``root`` is followed,
    which is the file's own folder unless it is given. Raises CheckpointUnreadable, and nothing else, for
    whatever cannot be read: absent, half-written, damaged, foreign or hostile. Where the file system is at
    fault and not the content, the cause is its OSError.
    """
    try:
        return _checkpoint(_interpret(_data_pkl(path, root or path.parent)))
    except OSError as cause:
        raise CheckpointUnreadable(f"It cannot be read: {cause.strerror or 'invalid position'}.") from cause
    except (
        # what zipfile, struct and our own indexing raise over bytes that contradict each other: to check
        # for each of them beforehand would be a second parser
        *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
        *(struct.error, zipfile.BadZipFile, zlib.error),
    ) as cause:
        raise CheckpointUnreadable("It is damaged.") from cause


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise CheckpointUnreadable(reason)


# -- the zip ------------------------------------------------------------------------------------------


class _Metered(io.BufferedReader):
    """A file that gives `left` bytes and then refuses: zipfile believes any size a file claims."""

    left = _MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        most = self.left + 1
        try:
            data = super().read(most if size is None or size < 0 else min(size, most))
        except OSError as cause:  # zipfile would call it a damaged zip
            raise CheckpointUnreadable(f"It cannot be read: {cause.strerror}.") from cause
        self.left -= len(data)
        _require(self.left >= 0, "Its zip directory is too large.")
        return data

    def seek(self, target: int, whence: int = 0, /) -> int:
        try:
            return super().seek(target, whence)
        except OSError as cause:
            if cause.errno == errno.EINVAL:  # before its beginning, as zipfile tries with a short file
                raise
            raise CheckpointUnreadable(f"It cannot be read: {cause.strerror}.") from cause


def _opened(path: Path, root: Path) -> int:
    try:
        with open_regular(root, path.relative_to(root).as_posix()) as file:
            return os.dup(file.fileno())
    except OSError as cause:
        if cause.errno is not None:
            raise
        raise CheckpointUnreadable("It is not a regular file.") from cause


def _data_pkl(path: Path, root: Path) -> bytes:
    """The bytes of the only data.pkl in the zip at `path`; its checksum holds."""
    descriptor = _opened(path, root)
    try:
        raw = io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    with _Metered(raw) as file:
        head = file.read(512)
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as cause:
            raise CheckpointUnreadable(_why_no_zip(head)) from cause
        found = [each for each in archive.infolist() if ("/" + each.filename).endswith("/data.pkl")]
        _require(len(found) == 1, "It is a zip, but not one written by torch.")
        # zipfile bounds what it inflates at a time, but not what it gets out of bzip2 and LZMA
        known = found[0].compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        _require(known, "It is compressed in a way torch does not use.")
        _require(found[0].file_size <= _MAX_PICKLE, "Its data.pkl is too large.")
        file.left = 2 * _MAX_PICKLE
        with archive.open(found[0]) as member:
            # zipfile gives no more than the size it claims, and compares the checksum
            return member.read(_MAX_PICKLE)


def _why_no_zip(head: bytes) -> str:
    if not head:
        return "It is empty."
    if head.startswith(b"PK\3\4"):
        return "It is cut short or still being written."
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        return "It is in a format of torch before 1.6 (a bare pickle or a tar)."
    return "It is not a zip, so not a checkpoint."


# -- the pickle ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Global:
    """A name the pickle mentions; nothing looks it up."""

    name: str  # dotted


@dataclass(slots=True, eq=False, repr=False)
class _Opaque:
    """An object the pickle would have made: the name it would have called, and with what."""

    name: str  # of the global, "" for anything else
    args: tuple[object, ...] = ()
    state: object = None  # what BUILD attached: an object's __dict__, mostly


def _read_global(source: IO[bytes]) -> str:
    return b".".join(source.readline().rstrip(b"\n") for _ in ("module", "name")).decode()


_Reader: TypeAlias = Callable[[IO[bytes]], Any]
_TO_MARK = -1  # takes everything above the last MARK
# What an opcode does here, by its name: one of the cases of `_interpret`, and how many values it takes.
_STEPS = {
    **dict.fromkeys(("BINGET", "LONG_BINGET"), ("get", 0)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), ("put", 0)),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), ("value", 0)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"), ("value", 0)),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), ("value", 0)),
    **{"NEWFALSE": ("false", 0), "NEWTRUE": ("true", 0), "NONE": ("none", 0)},
    **{"REDUCE": ("call", 2), "NEWOBJ": ("call", 2), "NEWOBJ_EX": ("call", 3)},
    **{"EMPTY_TUPLE": ("no tuple", 0), "TUPLE": ("tuple", _TO_MARK)},
    **{"TUPLE1": ("tuple", 1), "TUPLE2": ("tuple", 2), "TUPLE3": ("tuple", 3)},
    **{"BINPERSID": ("opaque", 1), "EMPTY_SET": ("opaque", 0), "FROZENSET": ("opaque", _TO_MARK)},
    **{"MARK": ("mark", 0), "EMPTY_LIST": ("list", 0), "EMPTY_DICT": ("dict", 0)},
    **{"SETITEM": ("set", 2), "SETITEMS": ("set", _TO_MARK)},
    **{"APPEND": ("append", 1), "APPENDS": ("append", _TO_MARK), "ADDITEMS": ("append", _TO_MARK)},
    **{"BUILD": ("build", 1), "GLOBAL": ("global", 0), "STACK_GLOBAL": ("stack global", 2)},
    **{"MEMOIZE": ("memoize", 0), "DUP": ("dup", 0), "FRAME": ("frame", 0), "PROTO": ("nothing", 0)},
    **{"POP": ("nothing", 1), "POP_MARK": ("nothing", _TO_MARK), "STOP": ("stop", 0)},
}
# By code: what it does, how many values it takes, and the reader of its argument. Of the opcodes with a text
# argument (protocols 0 and 1) only GLOBAL is among them: torch writes no other, and their decimal integers
# take quadratic time.
_OPCODES: dict[bytes, tuple[str, int, _Reader | None]] = {
    **{
        each.code.encode("latin-1"): (*_STEPS[each.name], each.arg.reader if each.arg else None)
        for each in pickletools.opcodes
        if each.name in _STEPS
    },
    b"c": ("global", 0, _read_global),
    b"": ("end", 0, None),
}
# Any other code, such as EXT, which names a registry of callables, and buffers from elsewhere.
_FOREIGN = ("foreign", 0, None)


def _interpret(data: bytes) -> object:
    """The value a pickle describes, made of plain values, `_Global` and `_Opaque`.

    Sets, storages and all objects are `_Opaque`, which keeps the arguments of the making and the state,
    but no items. A value may be shared or contain itself: walk it with care.
    """
    source = io.BytesIO(data)
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under each MARK
    memo: dict[int, Any] = {}
    items: list[Any] = []
    for _ in range(_MAX_OPCODES):
        step, takes, reader = _OPCODES.get(source.read(1), _FOREIGN)
        arg: Any = reader(source) if reader else None
        if takes > 0:
            _require(len(stack) >= takes, "It takes values that are not there.")
            items = stack[-takes:]
            del stack[-takes:]
        elif takes == _TO_MARK:
            items, stack = stack, below.pop()
        match step:  # in the order of how often they come, for they are compared one by one
            case "get":
                stack.append(memo[arg])
            case "put":
                # picklers count up from 0; integers far apart could be made to collide
                _require(arg < _MAX_OPCODES, "Its memo is too large.")
                memo[arg] = stack[-1]
            case "value":
                stack.append(arg)
            case "call":
                stack.append(_made(items[0], items[1]))
            case "no tuple":
                stack.append(())
            case "tuple":
                stack.append(tuple(items))
            case "mark":
                below.append(stack)
                stack = []
            case "false":
                stack.append(False)
            case "none":
                stack.append(None)
            case "set":
                _set_items(stack[-1], items)
            case "opaque":
                stack.append(_Opaque(""))
            case "list":
                stack.append([])
            case "dict":
                stack.append({})
            case "build":
                _require(isinstance(stack[-1], dict | _Opaque), "It holds a malformed object.")
                if isinstance(stack[-1], _Opaque):  # an OrderedDict can have a state too: its _metadata
                    stack[-1].state = items[0]
            case "true":
                stack.append(True)
            case "append":
                _require(isinstance(stack[-1], list | _Opaque), "It holds a malformed list.")
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "global":
                stack.append(_Global(arg))
            case "stack global":
                # two long texts, each in the file once, could be joined a million times
                _require(len(items[0]) + len(items[1]) <= _MAX_GLOBAL, "It holds a name that is too long.")
                stack.append(_Global(items[0] + "." + items[1]))
            case "memoize":
                memo[len(memo)] = stack[-1]
            case "dup":
                stack.append(stack[-1])
            case "frame":
                _require(arg <= len(data) - source.tell(), "It is cut short.")
            case "nothing":
                pass
            case "stop":
                return stack[-1]
            case "end":
                raise CheckpointUnreadable("It is cut short.")
            case _:
                raise CheckpointUnreadable("It holds an opcode that torch does not write.")
    raise CheckpointUnreadable("It takes too many steps to read.")


def _made(made_by: object, args: object) -> object:
    """The result of the call `made_by(*args)`, not made: of all, an empty OrderedDict alone is known."""
    if not isinstance(args, tuple):
        raise CheckpointUnreadable("It holds a call without arguments.")
    name = made_by.name if isinstance(made_by, _Global) else ""
    return {} if name == "collections.OrderedDict" and not args else _Opaque(name, args)


def _set_items(target: object, items: list[Any]) -> None:
    """Fill a dict. Only keys of text or small integers are kept, the only ones anybody looks up here:
    hashing a deeply nested tuple overflows the C stack, and large integers can be made to collide."""
    malformed = len(items) % 2 or not isinstance(target, dict | _Opaque)
    _require(not malformed, "It holds a malformed dictionary.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _require(not isinstance(key, list | dict), "It holds a key that no dictionary can have.")
        kept = type(key) is str or (type(key) is int and 0 <= key < _MAX_OPCODES)
        if kept and isinstance(target, dict):
            target[key] = value


# -- the facts ----------------------------------------------------------------------------------------


def _checkpoint(root: object) -> Checkpoint:
    if not isinstance(root, dict) or not ("model" in root and "epoch" in root):
        raise CheckpointUnreadable("It is not a checkpoint of a YOLO training.")
    network = root["model"] if root["model"] is not None else root.get("ema")
    epoch = root["epoch"] if type(root["epoch"]) is int and abs(root["epoch"]) <= _MAX_INTEGER else None
    copy = _Copier()
    metrics = {
        copy.text(key): number
        for key, value in _attributes(root.get("train_metrics")).items()
        if isinstance(key, str) and (number := _number(value)) is not None
    }
    return Checkpoint(
        release=copy.text(root["version"]) if isinstance(root.get("version"), str) else None,
        date=copy.text(root["date"]) if isinstance(root.get("date"), str) else None,
        epoch=epoch,
        stripped=epoch == -1 and root.get("optimizer") is None,
        parameters=_parameters(network),
        train_metrics=metrics,
        names=copy.names(_attributes(network).get("names") or root.get("names")),
    )


def _attributes(value: object) -> dict[Any, Any]:
    """A dict itself, or the `__dict__` of an object (a network); else nothing."""
    state = value.state if isinstance(value, _Opaque) else value
    return state if isinstance(state, dict) else {}


def _parameters(network: object) -> int | None:
    """What `sum(p.numel() for p in network.parameters())` gives, the value reported as model/parameters.

    As torch does, walk `_modules` and count each Parameter in `_parameters` once; what else an object
    holds, such as a loss, does not count. None if anything there is not what torch would have written.
    """
    total = 0
    seen: set[int] = set()  # ids, of dicts too: a hostile file can share one among a million modules
    waiting = [network]
    while waiting:
        own = _attributes(waiting.pop())
        modules, parameters = own.get("_modules"), own.get("_parameters")
        if not isinstance(modules, dict) or not isinstance(parameters, dict):
            return None
        for each in _unseen(parameters, seen):
            elements = _elements(each)
            if elements is None:
                return None
            total += elements
        waiting += _unseen(modules, seen)
    return total if total <= _MAX_INTEGER else None


def _unseen(of: dict[Any, Any], seen: set[int]) -> Iterator[object]:
    """The values of a dict that are not None and not seen before; and remember them, and the dict."""
    if id(of) not in seen:
        seen.add(id(of))
        for each in of.values():
            if each is not None and id(each) not in seen:
                seen.add(id(each))
                yield each


def _elements(parameter: object) -> int | None:
    """The number of elements of a Parameter, from the size in its tensor's third argument."""
    prefix = "torch._utils._rebuild_"
    match parameter:
        case _Opaque(made_by, (_Opaque(rebuilt_by, (_, _, size, *_)), *_)):
            if made_by not in (prefix + "parameter", prefix + "parameter_with_state"):
                return None
            if rebuilt_by not in (prefix + "tensor_v2", prefix + "tensor_v3"):
                return None
            if isinstance(size, _Opaque) and size.name == "torch.Size" and len(size.args) == 1:
                size = size.args[0]
            if not isinstance(size, tuple) or len(size) > _MAX_DIMENSIONS:
                return None
            if not all(type(each) is int and 0 <= each <= _MAX_INTEGER for each in size):
                return None
            return math.prod(size)
    return None


_NUMPY_SCALAR = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}  # before, since NumPy 2
_NUMPY_FORMATS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}  # NumPy's name, struct's


def _number(value: object) -> float | None:
    """A number as a float: a plain one, or a NumPy scalar: fitness is one where a loss stands in for it."""
    match value:
        case float():
            return value
        case int() if not isinstance(value, bool) and abs(value) <= _MAX_INTEGER:
            return float(value)
        case _Opaque(name, (_Opaque("numpy.dtype", (kind, *_), (_, order, *_)), raw)) if (
            name in _NUMPY_SCALAR and isinstance(kind, str) and kind in _NUMPY_FORMATS and order in ("<", ">")
        ):
            match raw:
                case _Opaque("_codecs.encode", (str(text), *_)) if len(text) <= 8:  # bytes, in protocol 2
                    raw = text.encode("latin-1")
            layout = struct.Struct(f"{order}{_NUMPY_FORMATS[kind]}")
            if isinstance(raw, bytes) and len(raw) == layout.size:
                return float(layout.unpack(raw)[0])
    return None


class _Copier:
    """Copies texts into the result, at most _MAX_COPIED in all: a shared text multiplies when copied."""

    def __init__(self) -> None:
        self.left = _MAX_COPIED

    def text(self, text: str) -> str:
        """The text; a pickle's lone surrogates, which no UTF-8 output can print, become "?"."""
        self.left -= 1 + len(text)
        _require(self.left >= 0, "Its values are too large.")
        return text.encode("utf-8", "replace").decode("utf-8")

    def names(self, names: object) -> dict[int, str]:
        """Class names by index, from a dict or (YOLOv5 before 7.0) a list."""
        pairs = enumerate(names) if isinstance(names, list) else _attributes(names).items()
        return {key: self.text(name) for key, name in pairs if type(key) is int and isinstance(name, str)}
