"""Directories made to do harm, or broken beyond what any training leaves; for tests.

Each is a training of three epochs with all its files and one thing wrong with it. `TREE` names them all, each
with what every command must say of it: that it is delivered, or a part of the sentence that refuses it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from test_checkpoint import bomb, call, mapping, plain, root
from test_scan import BEGAN, COLUMNS, JPEG, PNG, ROWS, WROTE, put, training

CANARY = b"outside-the-run-"  # begins what lies outside every run and must not be read
EXECUTED = "executed"  # a file that hostile code would make in the working directory
LONG_AGO = 1e8  # seconds by which all is older than test_scan makes it, so that no clock finds it alive
TERABYTE = 2**40

DELIVERED = "delivered"
# what may be in the place of a file that is no file of the run's
KINDS = ("link out", "link to itself", "link to nowhere", "fifo", "socket", "device", "folder")
EVIL_TEXTS = {
    "escapes": "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b2J",
    "newlines": "a\nb\r\nc\td\x0b\x0c\u2028\u2029\x85",
    "direction": "\u202egpj.\u202c\u2066x\u2069",
    "joined": "e\u0301\u200d\ufeff\u00ad",
    "scripts": "Δοκιμή_тест_試験_परीक्षण_اختبار_ทดสอบ_𝒳_🧪👩‍🔬",
    "shell": "$(touch executed);`touch executed`|&<>*?!'\"",
    "format": "%s%n{0}{x!r}\\x1b[31m",
    "markup": "[red]x[/red][link=http://x]y[/link]<script>alert(1)</script>",
    "long": "x" * 240,
    "parents": "..%2f..%2fetc",
    "dots": "... .",
}


@dataclass(frozen=True)
class Hostile:
    """What is wrong with a directory, and what is said of it."""

    make: Callable[[Path], object]
    said: str = DELIVERED


def _quoted(text: str) -> str:
    return json.dumps(text)


def _args(text: str) -> Callable[[Path], object]:
    """Replace args.yaml, but for what tells one run from another."""
    return lambda run: put(run / "args.yaml", f"save_dir: /runs/{_ascii(run)}\n{text}", BEGAN)


def _ascii(run: Path) -> str:
    return os.fsencode(run.name).hex()


def _csv(content: bytes) -> Callable[[Path], object]:
    return lambda run: put(run / "results.csv", content, WROTE)


def _text(text: str, encoding: str) -> Callable[[Path], object]:
    return _csv(text.encode(encoding))


def _pickled(**items: bytes) -> Callable[[Path], object]:
    return _pickle(root(optimizer=b"N", version=plain("8.4.190"), **items))


def _pickle(data: bytes, compression: int = zipfile.ZIP_STORED) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        for name in ("best.pt", "last.pt"):
            with zipfile.ZipFile(run / "weights" / name, "w", compression) as archive:
                archive.writestr("best/data.pkl", data)
            os.utime(run / "weights" / name, (WROTE, WROTE))

    return make


def _weights(content: bytes) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        for name in ("best.pt", "last.pt"):
            put(run / "weights" / name, content, WROTE)

    return make


def _sparse(
    name: str, size: int = TERABYTE, head: bytes = b"", tail: bytes = b""
) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        with (run / name).open("wb") as file:
            file.write(head)
            file.seek(size - len(tail))
            file.write(tail)
            file.truncate(size)
        os.utime(run / name, (WROTE, WROTE))

    return make


def _lying_bomb(run: Path) -> None:
    _pickle(bytes(64 << 20), zipfile.ZIP_DEFLATED)(run)
    for path in (run / "weights").iterdir():
        stated = struct.pack("<I", 64 << 20)
        put(path, path.read_bytes().replace(stated, struct.pack("<I", 1000)), WROTE)


def _vast_directory(run: Path) -> None:
    size = 1 << 30
    end = b"PK\5\6" + bytes(4) + b"\1\0\1\0" + size.to_bytes(4, "little") + bytes(6)
    _sparse("weights/best.pt", size + len(end), tail=end)(run)
    _sparse("weights/last.pt", size + len(end), tail=end)(run)


def _times(at: float) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        for path in run.rglob("*"):
            os.utime(path, (at + LONG_AGO, at + LONG_AGO))

    return make


def _pictures(run: Path) -> None:
    """Names of pictures as only a file system takes them, invalid UTF-8 among them."""
    names = [os.fsencode(f"val_{text.replace('/', '_')}.jpg") for text in EVIL_TEXTS.values()]
    for name in (
        *names,
        b"val_\xff\xfe\x80.jpg",
        b"val_batch\xd9\xa3_pred.jpg",
        b"val_batch0_" + b"y" * 240 + b".jpg",
    ):
        put(Path(os.fsdecode(os.fsencode(run) + b"/" + name[:255])), JPEG, WROTE)
    put(run / "..._curve.png", PNG, WROTE)


def replace(path: Path, kind: str) -> None:
    """Put something that is no regular file, or none of the run's, in the place of a file."""
    outside = path.parents[-2] / "outside"
    path.unlink(missing_ok=True)
    match kind:
        case "link out":
            path.symlink_to(_outside(path))
        case "link to itself":
            path.symlink_to(path.name)
        case "link to nowhere":
            path.symlink_to(outside / "nothing")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            before = Path.cwd()
            os.chdir(path.parent)  # a socket's path is short
            try:
                with socket.socket(socket.AF_UNIX) as listening:
                    listening.bind(path.name)
            finally:
                os.chdir(before)
        case "device":
            try:
                os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # as /dev/zero, which never ends
            except OSError:  # only root makes devices
                path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()


def _outside(path: Path) -> Path:
    """Give a file outside every run that would do in the place of ``path``."""
    place = next(parent for parent in path.parents if (parent / "outside").is_dir()) / "outside"
    return place / path.name


def outside(folder: Path) -> None:
    """Make what must not be read: as good as the files of a run, and none of it."""
    (folder / "outside").mkdir()
    said = CANARY.decode()
    for name in ("val_batch0_pred.jpg", "labels.jpg"):
        put(folder / "outside" / name, JPEG[:4] + CANARY + JPEG[-2:], WROTE)
    put(folder / "outside" / "results.png", PNG[:8] + CANARY + PNG[-8:], WROTE)
    put(folder / "outside" / "args.yaml", f"name: {said}\nepochs: 3\n", BEGAN)
    put(folder / "outside" / "results.csv", COLUMNS.replace("loss", said) + f"\n{ROWS[0]}\n", WROTE)
    (folder / "outside" / "weights").mkdir()
    _pickled(names=plain({0: said}))(folder / "outside")
    for name in ("best.pt", "last.pt"):
        (folder / "outside" / "weights" / name).rename(folder / "outside" / name)
    put(folder / "outside" / ".yolo-clearml.json", f'{{"version":1,"task":"{said}","url":"{said}"}}', WROTE)


def _replaced(name: str, kind: str) -> Callable[[Path], object]:
    return lambda run: replace(run / name, kind)


def _weights_out(run: Path) -> None:
    for path in (run / "weights").iterdir():
        path.unlink()
    (run / "weights").rmdir()
    (run / "weights").symlink_to(_outside(run / "best.pt").parent)


def _no_weights(run: Path) -> None:
    for file in (run / "weights").iterdir():
        file.unlink()
    _csv(b"")(run)


def _circle(run: Path) -> None:
    (run / "weights" / "up").symlink_to(run)
    (run / "again").symlink_to(run.parent)


_COMMAND = f"touch {EXECUTED}"
_EVAL = f"open({EXECUTED!r}, 'w')"
_LAUGHS = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
_NO_TABLE = "is not a table that begins with the column 'epoch'"
_NO_ROW = "results.csv holds no row that can be read"
_NO_YAML = "args.yaml is not plain YAML"
_LARGE = "is larger than"
_NO_EPOCH = "although the training has finished"
_MANY = "holds more than"
_TABLE = "\n".join((COLUMNS, *ROWS, ""))

TREE: dict[str, Hostile] = {
    # -- checkpoints: what is in them is never run, and what cannot be read is left out
    **{
        f"pt executes {name}": Hostile(
            _pickled(
                reduce=call(name, plain(_EVAL if "eval" in name or "exec" in name else _COMMAND)),
                nested=mapping({"x": call(name, call(name, plain(_COMMAND)))}),
                new=b"c" + name.replace(".", "\n").encode() + b"\n(" + plain(_COMMAND) + b"t\x81",
                built=call(name, plain(_COMMAND)) + plain({"__setstate__": _COMMAND}) + b"b",
            )
        )
        for name in ("os.system", "posix.system", "builtins.eval", "builtins.exec", "subprocess.call")
    },
    "pt executes in place of facts": Hostile(
        _pickled(
            train_metrics=call("builtins.eval", plain(_EVAL)),
            names=call("os.system", plain(_COMMAND)),
            date=call("os.system", plain(_COMMAND)),
        )
    ),
    "pt cycle": Hostile(
        _pickled(train_metrics=mapping({"x": b"]q\xf1h\xf1a"}), names=b"}q\xf2" + plain(0) + b"h\xf2s")
    ),
    "pt memo bomb": Hostile(_pickled(train_metrics=mapping({"x": bomb(9)}), names=bomb(9))),
    "pt nested": Hostile(_pickled(train_metrics=mapping({"x": b"N" + b"\x85" * 200_000}))),
    "pt zip bomb": Hostile(_pickle(bytes(64 << 20), zipfile.ZIP_DEFLATED)),
    "pt zip bomb that lies": Hostile(_lying_bomb),
    "pt vast directory": Hostile(_vast_directory),
    "pt terabyte of nothing": Hostile(
        lambda run: [_sparse(f"weights/{n}")(run) for n in ("best.pt", "last.pt")]
    ),
    "pt terabyte with a head": Hostile(_sparse("weights/best.pt", head=b"PK\3\4")),
    "pt empty": Hostile(_weights(b"")),
    "pt noise": Hostile(_weights(bytes(range(256)) * 100)),
    "pt texts": Hostile(
        _pickled(
            names=plain(dict(enumerate((*EVIL_TEXTS.values(), "", "$x", "\ud800", "a.b")))),
            train_metrics=plain({f"metrics/{text}": 0.5 for text in EVIL_TEXTS.values()}),
            date=plain("\x1b[31m"),
        )
    ),
    "pt release": Hostile(_pickle(root(optimizer=b"N", version=plain("8.4.\x1b[31m" + "9" * 5000)))),
    "pt numbers": Hostile(
        _pickled(
            train_metrics=plain({"metrics/a": 1e308, "metrics/b": float("inf"), "fitness": float("nan")})
        )
    ),
    "pt far future": Hostile(_pickled(date=plain("9999-12-31T23:59:59.999999+00:00"))),
    "pt long past": Hostile(_pickled(date=plain("0001-01-01T00:00:00"))),
    # -- arguments
    "yaml executes": Hostile(_args(f"name: !!python/object/apply:os.system ['{_COMMAND}']\n"), _NO_YAML),
    "yaml makes an object": Hostile(_args("name: !!python/object:os.Random {}\n"), _NO_YAML),
    "yaml laughs": Hostile(_args(_LAUGHS), _MANY),
    "yaml cycle": Hostile(_args("a: &a [*a]\n"), "is nested more than"),
    "yaml 100 MB": Hostile(_args("a: " + "x" * 100_000_000 + "\n"), _LARGE),
    "yaml terabyte": Hostile(_sparse("args.yaml"), _LARGE),
    "yaml deep": Hostile(_args("a: " + "[" * 1500 + "]" * 1500 + "\n"), _NO_YAML),
    "yaml binary": Hostile(lambda run: put(run / "args.yaml", bytes(range(256)) * 40, BEGAN), _NO_YAML),
    "yaml NUL": Hostile(_args('name: "a\\0b"\n')),
    "yaml half a pair": Hostile(_args('name: "\\ud800x"\n"\\udfff": "\\udc80"\n')),
    "yaml utf-16": Hostile(lambda run: put(run / "args.yaml", "name: train\n".encode("utf-16"), BEGAN)),
    "yaml latin-1": Hostile(
        lambda run: put(run / "args.yaml", "name: caf\xe9\n".encode("latin-1"), BEGAN), _NO_YAML
    ),
    "yaml CR": Hostile(_args("name: train\repochs: 3\r")),
    "yaml odd types": Hostile(
        _args("name: [1]\nproject: {a: 1}\nepochs: x\nplots: []\nresume: {}\nsave: 7\n'': 1\n1: a\n'1': b\n")
    ),
    "yaml numbers": Hostile(_args(f"epochs: {'9' * 90}\na: .inf\nb: -.inf\nc: .nan\nd: 1e400\n")),
    "yaml long": Hostile(_args(f"name: {'x' * 100_000}\nproject: {'/'.join(['y' * 300] * 300)}\n")),
    "yaml parents": Hostile(_args("name: ../../../etc/passwd\nproject: /etc/../..\n")),
    **{
        f"yaml {label}": Hostile(
            _args(f"name: {_quoted(text)}\nproject: {_quoted(text)}\n{_quoted(text)}: {_quoted(text)}\n")
        )
        for label, text in EVIL_TEXTS.items()
    },
    # -- rows
    "csv a million columns": Hostile(_csv(b"epoch" + b",a" * 900_000 + b"\n"), _NO_TABLE),
    "csv a million rows": Hostile(_csv(b"epoch,a/b\n" + b"1,1\n" * 1_000_000), _MANY),
    "csv millions of empty lines": Hostile(_csv(b"epoch,a/b\n" + b"\n" * 8_000_000), _MANY),
    "csv millions of cells": Hostile(
        _csv(
            b"epoch,"
            + b",".join(b"a/%d" % n for n in range(900))
            + b"\n"
            + (b"1" + b",1" * 900 + b"\n") * 4000
        ),
        _MANY,
    ),
    "csv thousand columns": Hostile(
        _csv(b"epoch," + b",".join(b"a/%d" % n for n in range(999)) + b"\n" + b"1" + b",1" * 999 + b"\n")
    ),
    "csv terabyte": Hostile(_sparse("results.csv", head=_TABLE.encode()), _LARGE),
    "csv binary": Hostile(_csv(bytes(range(256)) * 40), _NO_TABLE),
    "csv NUL bytes": Hostile(_csv(_TABLE.encode() + b"\0" * 1000 + b"\n" + b"4,\0,1,1,1,1\n")),
    "csv utf-16-le": Hostile(_text("\ufeff" + _TABLE, "utf-16-le"), _NO_TABLE),
    "csv utf-16-be": Hostile(_text("\ufeff" + _TABLE, "utf-16-be"), _NO_TABLE),
    "csv utf-32": Hostile(_text(_TABLE, "utf-32"), _NO_TABLE),
    "csv latin-1": Hostile(_text(_TABLE.replace("loss", "p\xe9rdida"), "latin-1"), _NO_TABLE),
    "csv BOM": Hostile(_text(_TABLE, "utf-8-sig")),
    "csv CRLF": Hostile(_text(_TABLE.replace("\n", "\r\n"), "ascii")),
    "csv CR": Hostile(_text(_TABLE.replace("\n", "\r"), "ascii"), _NO_EPOCH),
    "csv quoted": Hostile(_text(_TABLE.replace("train/loss", '"train/\nloss"'), "ascii"), _NO_ROW),
    "csv semicolons": Hostile(_text(_TABLE.replace(",", ";").replace(".", ","), "ascii"), _NO_TABLE),
    "csv decimal commas": Hostile(_text(_TABLE + '4,120,"0,5",0.4,0.4,0.001\n', "ascii")),
    "csv not finite": Hostile(_text(_TABLE + "4,nan,inf,-inf,1e999,-1e999\n", "ascii")),
    "csv largest": Hostile(
        _text(f"{COLUMNS}\n1,1,1e308,1.7e308,1.7e308,-1e308\n2,2,-1e308,-1.7e308,-1.7e308,1e308\n", "ascii")
    ),
    "csv digits": Hostile(_text(_TABLE + f"4,120,{'9' * 100_000},0.4,0.4,0.001\n", "ascii")),
    "csv epochs": Hostile(_text(f"{_TABLE}1e7,1,1,1,1,1\n-1,1,1,1,1,1\n0.5,1,1,1,1,1\n", "ascii")),
    "csv times": Hostile(_text(f"{COLUMNS}\n1,-5,1,1,1,1\n2,1e300,1,1,1,1\n", "ascii")),
    "csv empty": Hostile(_csv(b""), _NO_EPOCH),
    "csv empty of no weights": Hostile(_no_weights, _NO_EPOCH),
    "csv header alone": Hostile(_csv(COLUMNS.encode() + b"\n"), _NO_EPOCH),
    **{
        f"csv {label}": Hostile(_text(_TABLE.replace("loss", text).replace("pg0", text), "utf-8"), said)
        for label, text in EVIL_TEXTS.items()
        for said in [{"newlines": _NO_ROW, "long": _NO_TABLE}.get(label, DELIVERED)]
    },
    # -- pictures and times
    "pictures of every name": Hostile(_pictures),
    "picture of a terabyte": Hostile(_sparse("val_batch0_pred.jpg", head=JPEG[:4], tail=JPEG[-2:])),
    "times before 1970": Hostile(_times(-1e9)),
    "times of long ago": Hostile(_times(-(2.0**40))),
    "times in a far future": Hostile(_times(2.0**38)),
    # -- what is no file, or no file of the run's
    **{
        f"{name.replace('/', ' ')} {kind}": Hostile(
            _replaced(name, kind), f"{name} cannot be read" if judged else DELIVERED
        )
        for name, judged in (
            *(("args.yaml", True), ("results.csv", True)),
            *(("weights/best.pt", False), ("weights/last.pt", False)),
            *(("results.png", False), ("labels.jpg", False), ("val_batch0_pred.jpg", False)),
        )
        for kind in KINDS
    },
    "weights out": Hostile(_weights_out),
    "links in circles": Hostile(_circle),
    # -- names of directories
    **{f"dir {text.replace('/', '_')}": Hostile(lambda run: None) for text in EVIL_TEXTS.values()},
    **{
        name: Hostile(lambda run: None)
        for name in ("--json", "-rf", " ", "...", "~", "9" * 250, os.fsdecode(b"\xff\xfe x"))
    },
}


def make_tree(folder: Path, labels: Iterable[str]) -> dict[Path, Hostile]:
    """Make those of `TREE` below ``folder``, and a sound run; beside it, what none may reach."""
    outside(folder)
    runs: dict[Path, Hostile] = {}
    for label, hostile in {
        **{label: TREE[label] for label in labels},
        "sound": Hostile(lambda run: None),
    }.items():
        run = folder / "runs" / label
        training(run, name=_ascii(run)[:20], save_dir=f"/runs/{_ascii(run)}")
        hostile.make(run)
        for path in [run, *run.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                at = path.stat().st_mtime - LONG_AGO
                os.utime(path, (at, at))
        runs[run] = hostile
    return runs
