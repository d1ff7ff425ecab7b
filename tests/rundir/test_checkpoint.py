"""A checkpoint gives its facts, and nothing in one can do more than be refused."""

import math
import os
import pickle
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from yolo_clearml.rundir.checkpoint import Checkpoint, CheckpointUnreadable, read_checkpoint

BEST = SAMPLES / "v8.4.190-detect" / "weights" / "best.pt"


# -- a checkpoint written by hand: torch is not at hand, and would not write the hostile ones


def plain(value: object) -> bytes:
    """The opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def call(name: str, *args: bytes) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode() + b"(" + b"".join(args) + b"tR"


def mapping(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def parameter(*size: object, by: str = "parameter", tensor: str = "tensor_v2") -> bytes:
    data = call(
        f"torch._utils._rebuild_{tensor}", plain("storage") + b"Q", plain(0), plain(size), plain((1,))
    )
    return call(f"torch._utils._rebuild_{by}", data, plain(True), call("collections.OrderedDict"))


def module(
    parameters: dict[str, bytes], modules: dict[str, bytes] | None = None, **attributes: bytes
) -> bytes:
    state = {"_parameters": mapping(parameters), "_modules": mapping(modules or {}), **attributes}
    return b"cultralytics.nn.tasks\nDetectionModel\n)\x81" + mapping(state) + b"b"


def root(**items: bytes) -> bytes:
    """data.pkl of the smallest checkpoint, with more items or others."""
    return b"\x80\x02" + mapping({"epoch": plain(-1), "model": b"N", **items}) + b"."


def write(folder: Path, data_pkl: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "best.pt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("best/data.pkl", data_pkl)
    return path


def reason(path: Path) -> str:
    with pytest.raises(CheckpointUnreadable) as caught:
        read_checkpoint(path)
    assert str(path) not in caught.value.reason
    return caught.value.reason


# -- facts of real checkpoints


def test_a_finished_training() -> None:
    """Release, date, class names and metrics of a stripped checkpoint, and what was reported live."""
    read = read_checkpoint(BEST)
    assert read.release == "8.4.190"
    assert read.date == "2026-11-22T10:05:37.909649+00:00"
    assert (read.epoch, read.stripped) == (-1, True)
    assert read.parameters == 97763  # the single value model/parameters of the live task
    assert read.names == {0: "circle", 1: "square", 2: "triangle"}
    assert read.train_metrics["fitness"] == 0.63642
    assert read.train_metrics["metrics/mAP50(B)"] == 0.995
    assert len(read.train_metrics) == 8


def test_a_killed_training() -> None:
    """Without a model, the network is counted under ema; the epoch is that of the file, zero-based."""
    read = read_checkpoint(SAMPLES / "v8.4.190-detect-killed" / "weights" / "best.pt")
    assert (read.epoch, read.stripped) == (1, False)
    assert read.parameters == 97763
    assert read.train_metrics["fitness"] == 0.49606
    assert read.names == {0: "circle", 1: "square", 2: "triangle"}


def test_an_older_release() -> None:
    """8.1.0 stored naive local times, and a loss beside the network."""
    read = read_checkpoint(SAMPLES / "v8.1.0-segment" / "weights" / "best.pt")
    assert (read.release, read.date) == ("8.1.0", "2026-11-22T10:09:19.994511")
    assert (read.parameters, read.train_metrics["fitness"]) == (113315, 1.11129)


def test_tensors_are_not_read(tmp_path: Path) -> None:
    """A file whose tensors are noise reads as the same: only the directory and data.pkl matter."""
    with zipfile.ZipFile(BEST) as archive:
        tensors = [each for each in archive.infolist() if "/data/" in each.filename]
    noisy = bytearray(BEST.read_bytes())
    for each in tensors:
        start = each.header_offset + 30
        noisy[start : start + each.file_size] = b"\xaa" * each.file_size
    (tmp_path / "best.pt").write_bytes(noisy)
    assert len(tensors) > 50
    assert read_checkpoint(tmp_path / "best.pt") == read_checkpoint(BEST)


# -- facts of checkpoints written by hand


def test_a_foreign_training_has_few_facts(tmp_path: Path) -> None:
    """What is absent is None or empty, as the release is in YOLOv5's files."""
    expected = Checkpoint(None, None, -1, True, None, {}, {})
    assert read_checkpoint(write(tmp_path, root())) == expected


def test_facts_of_odd_types_are_absent(tmp_path: Path) -> None:
    """A release that is a number, a date that is a list, an epoch that is a bool: not facts."""
    data = root(version=plain(8), date=plain([]), epoch=b"\x88", names=plain(5), train_metrics=plain("x"))
    expected = Checkpoint(None, None, None, False, None, {}, {})
    assert read_checkpoint(write(tmp_path, data)) == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_protocol(tmp_path: Path, protocol: int) -> None:
    """torch.save takes any pickle_protocol; frames and memoizing are those of 4 and 5."""
    facts = {"epoch": 3, "model": None, "version": "8.3.0", "names": ["cat", "chien \xe9"]}
    others = {"train_metrics": {"a": 2.5, "b": 1}, "train_args": {"a": [1, 2.5, (None, True)]}}
    read = read_checkpoint(write(tmp_path, pickle.dumps({**facts, **others}, protocol)))
    assert (read.epoch, read.release) == (3, "8.3.0")
    assert (read.names, read.train_metrics) == ({0: "cat", 1: "chien \xe9"}, {"a": 2.5, "b": 1.0})


def test_an_optimizer_means_not_stripped(tmp_path: Path) -> None:
    """Epoch -1 alone does not finish a training."""
    assert not read_checkpoint(write(tmp_path, root(optimizer=plain({})))).stripped


def test_parameters_are_those_of_the_modules(tmp_path: Path) -> None:
    """Each distinct Parameter once, scalars as one, buffers and attributes such as a loss not at all."""
    tied = parameter(5, 5) + b"q\xf0"
    inner = module({"weight": b"h\xf0", "bias": parameter(7, by="parameter_with_state", tensor="tensor_v3")})
    network = module(
        {"weight": tied, "none": b"N", "scalar": parameter()},
        {"0": inner, "1": b"N"},
        loss=module({"weight": parameter(1000)}),
        _buffers=mapping({"mean": parameter(100)}),
    )
    assert read_checkpoint(write(tmp_path, root(model=network))).parameters == 25 + 7 + 1


def test_a_size_may_be_a_torch_size(tmp_path: Path) -> None:
    """torch.Size, a call in the pickle, counts as the tuple in it."""
    size = call("torch.Size", plain((2, 3)))
    data = call("torch._utils._rebuild_tensor_v2", b"N", plain(0), size)
    network = module({"weight": call("torch._utils._rebuild_parameter", data)})
    assert read_checkpoint(write(tmp_path, root(model=network))).parameters == 6


@pytest.mark.parametrize(
    "odd",
    [
        parameter(2, -1),
        parameter(2, True),
        parameter(2, "3"),
        parameter(2**62, 4),
        parameter(2**64),
        parameter(0, 2**64),
        parameter(*[1] * 65),
        parameter(2, by="parameter_v9"),
        parameter(2, tensor="qtensor"),
        plain(3),
    ],
)
def test_what_cannot_be_counted_has_no_count(tmp_path: Path, odd: bytes) -> None:
    """A size or a Parameter torch would not write gives None for all, never a partial sum."""
    network = module({"good": parameter(2), "odd": odd})
    assert read_checkpoint(write(tmp_path, root(model=network))).parameters is None


def test_a_state_dict_has_no_count(tmp_path: Path) -> None:
    """Only a network can be walked; bare weights cannot be told from buffers."""
    assert read_checkpoint(write(tmp_path, root(model=plain({"w": 1})))).parameters is None


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    """Where validation gives no fitness, Ultralytics takes a loss, which NumPy holds."""
    metrics = {"a": plain(numpy.float64(0.25)), "fitness": plain(numpy.float32(-0.5))}
    read = read_checkpoint(write(tmp_path, root(train_metrics=mapping(metrics))))
    assert read.train_metrics == {"a": 0.25, "fitness": -0.5}


def test_what_is_no_number_is_no_metric(tmp_path: Path) -> None:
    """Objects, texts, integers torch cannot hold and whatever holds others are left out, key by key."""
    metrics = {
        "kept": plain(1),
        "\ud800!": plain(0.5),
        "none": b"N",
        "bool": b"\x88",
        "text": plain("1"),
        "huge": plain(2**63),
        "list": plain([1.0]),
        "dict": plain({"a": 1.0}),
        "path": call("pathlib.PosixPath", plain("/")),
        "odd scalar": call("numpy._core.multiarray.scalar", plain("f8"), plain(0.5)),
    }
    read = read_checkpoint(write(tmp_path, root(train_metrics=mapping(metrics))))
    assert read.train_metrics == {"kept": 1.0, "?!": 0.5}


def test_a_metric_that_is_not_finite_stays_as_stored(tmp_path: Path) -> None:
    """As in a diverged training."""
    for odd in (math.nan, math.inf):
        read = read_checkpoint(write(tmp_path, root(train_metrics=plain({"fitness": odd}))))
        assert str(read.train_metrics["fitness"]) == str(odd)


def test_names_may_be_a_list_and_lie_at_the_top(tmp_path: Path) -> None:
    """YOLOv5 had a list; what is no text, or no index, is left out; surrogates become printable."""
    assert read_checkpoint(write(tmp_path, root(names=plain(["cat", "dog"])))).names == {0: "cat", 1: "dog"}
    mixed = module({}, names=plain({0: "cat", "x": "dog", 2: None, 3: "\ud800!"}))
    assert read_checkpoint(write(tmp_path, root(model=mixed))).names == {0: "cat", 3: "?!"}


# -- files that are no checkpoint


def test_no_file(tmp_path: Path) -> None:
    """The system's own words, without the path."""
    assert reason(tmp_path / "absent.pt") == "It cannot be read: No such file or directory."


def test_an_empty_file(tmp_path: Path) -> None:
    """Seen when a training has just opened the file."""
    (tmp_path / "best.pt").touch()
    assert reason(tmp_path / "best.pt") == "It is empty."


def test_a_directory(tmp_path: Path) -> None:
    """Some exports are directories."""
    assert reason(tmp_path) == "It is not a regular file."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """Nobody writes into this pipe: to open it would wait for ever."""
    os.mkfifo(tmp_path / "best.pt")
    assert reason(tmp_path / "best.pt") == "It is not a regular file."


def test_other_formats_are_named(tmp_path: Path) -> None:
    """Text, the two formats of old torch, and a zip of something else."""
    path = tmp_path / "best.pt"
    path.write_text("not a checkpoint")
    assert reason(path) == "It is not a zip, so not a checkpoint."
    old = "It is in a format of torch before 1.6 (a bare pickle or a tar)."
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    assert reason(path) == old
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "pickle")
    assert reason(path) == old
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    assert reason(path) == "It is a zip, but not one written by torch."


def test_two_data_pkl(tmp_path: Path) -> None:
    """Which of the two torch would take is not for this reader to guess."""
    with zipfile.ZipFile(tmp_path / "best.pt", "w") as archive:
        archive.writestr("a/data.pkl", root())
        archive.writestr("b/data.pkl", root())
    assert reason(tmp_path / "best.pt") == "It is a zip, but not one written by torch."


@pytest.mark.parametrize("other", [plain([1]), plain({"epoch": 1}), b"N", call("os.getcwd")])
def test_a_pickle_of_something_else(tmp_path: Path, other: bytes) -> None:
    """A checkpoint is a dict with an epoch and a model."""
    assert reason(write(tmp_path, b"\x80\x02" + other + b".")) == "It is not a checkpoint of a YOLO training."


def test_any_truncation(tmp_path: Path) -> None:
    """Cut anywhere, as when it is still being written, a real file says so."""
    data = BEST.read_bytes()
    path = tmp_path / "best.pt"
    for size in range(500, len(data), 500):
        path.write_bytes(data[:size])
        assert reason(path) == "It is cut short or still being written."


def test_a_damaged_pickle_fails_its_checksum(tmp_path: Path) -> None:
    """One flipped bit in a digit of a metric would else be believed."""
    data = bytearray(BEST.read_bytes())
    data[data.index(b"8.4.190")] ^= 1
    (tmp_path / "best.pt").write_bytes(data)
    assert reason(tmp_path / "best.pt") == "It is damaged."


# -- hostile files


@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.eval", "builtins.getattr"])
def test_nothing_is_executed(tmp_path: Path, name: str) -> None:
    """What unpickling would run is only noted, in whatever way it is spelled, and the facts are read."""
    witness = tmp_path / "witness"
    command = f"touch {witness}" if "system" in name else f"__import__('os').mkdir({str(witness)!r})"
    calls = {
        "reduce": call(name, plain(command)),
        "new": b"c" + name.replace(".", "\n").encode() + b"\n(" + plain(command) + b"t\x81",
        "new_ex": b"c" + name.replace(".", "\n").encode() + b"\n(" + plain(command) + b"t}\x92",
        "stack": plain(name.split(".")[0]) + plain(name.split(".")[1]) + b"\x93(" + plain(command) + b"tR",
        "build": call(name, plain(command)) + plain({"__setstate__": 1}) + b"b",
    }
    assert read_checkpoint(write(tmp_path, root(**calls))).epoch == -1
    assert not witness.exists()
    if name in ("os.system", "builtins.eval"):  # the payload is a real one
        pickle.loads(b"\x80\x02" + calls["reduce"] + b".")
        assert witness.exists()


def test_a_zip_bomb(tmp_path: Path) -> None:
    """64 MiB of zeros in 64 KiB are refused by the size they state."""
    path = write(tmp_path, bytes(64 << 20), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert reason(path) == "Its data.pkl is too large."


def test_a_zip_bomb_that_lies(tmp_path: Path) -> None:
    """A bomb that states a small size is read only that far, and then fails its checksum."""
    path = write(tmp_path, bytes(64 << 20), zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    path.write_bytes(data.replace((64 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert reason(path) == "It is damaged."


def test_a_compression_without_bounds(tmp_path: Path) -> None:
    """What bzip2 unpacks at a time has no limit in zipfile; torch does not use it."""
    path = write(tmp_path, root(), zipfile.ZIP_BZIP2)
    assert reason(path) == "It is compressed in a way torch does not use."


def test_a_vast_zip_directory(tmp_path: Path) -> None:
    """zipfile would read the whole directory, whatever size it states, into memory."""
    path = tmp_path / "best.pt"
    size = 1 << 30
    with path.open("wb") as file:
        file.truncate(size)  # sparse: it takes no space
        file.seek(size)
        file.write(b"PK\5\6" + bytes(4) + b"\1\0\1\0" + size.to_bytes(4, "little") + bytes(6))
    assert reason(path) == "Its zip directory is too large."


def test_too_many_opcodes(tmp_path: Path) -> None:
    """Two million steps are the limit."""
    assert (
        reason(write(tmp_path, b"\x80\x02" + b"]0" * 1_000_001 + b".")) == "It takes too many steps to read."
    )


@pytest.mark.parametrize(
    ("start", "step"),
    [
        pytest.param(b"]" * 100_000, b"a", id="lists"),
        pytest.param(b"N", b"\x85", id="tuples"),
        pytest.param((b"}" + plain("x")) * 100_000 + b"N", b"s", id="dicts"),
        pytest.param(b"cos\nsystem\n" * 100_000 + b")", b"R\x85", id="calls"),
        pytest.param(b"cos\nsystem\n)R" * 100_000 + b"N", b"b", id="states"),
    ],
)
def test_deep_nesting(tmp_path: Path, start: bytes, step: bytes) -> None:
    """100,000 levels of anything neither overflow the stack nor hinder reading; nor does freeing them."""
    levels = 99_999 if start.startswith(b"]") else 100_000
    nested = start + step * levels
    again = b"h\xf4"  # the same value in the place of every fact
    odd = {"epoch": nested + b"q\xf4", **dict.fromkeys(("model", "version", "date", "optimizer"), again)}
    metrics, names = mapping({"kept": plain(1), "x": again}), b"](" + plain("cat") + again + b"e"
    read = read_checkpoint(write(tmp_path, root(**odd, train_metrics=metrics, names=names)))
    assert read == Checkpoint(None, None, None, False, None, {"kept": 1.0}, {0: "cat"})


def test_a_deeply_nested_key(tmp_path: Path) -> None:
    """Hashing 500,000 nested tuples would end the process; such a key is left out."""
    nested = b"}" + b"N" + b"\x85" * 500_000 + plain("value") + b"s"
    assert read_checkpoint(write(tmp_path, root(train_metrics=nested))).train_metrics == {}
    assert read_checkpoint(write(tmp_path, root(names=nested))).names == {}


def test_keys_that_collide(tmp_path: Path) -> None:
    """100,000 integers of one hash would take minutes to put into a dict; they are left out."""
    colliding = b"".join(plain(key * (2**61 - 1)) + b"N" for key in range(1, 100_000))
    assert read_checkpoint(write(tmp_path, root(other=b"}(" + colliding + b"u"))).epoch == -1


def test_a_key_that_cannot_be_hashed(tmp_path: Path) -> None:
    """A list for a key is what no pickler writes."""
    data = root(other=b"}" + b"]" + b"N" + b"s")
    assert reason(write(tmp_path, data)) == "It holds a key that no dictionary can have."


def test_a_cycle(tmp_path: Path) -> None:
    """A list in itself is no metric and no name; a module in itself is counted once."""
    metrics = mapping({"cycle": b"]q\xf1h\xf1a", "kept": plain(1)})
    names = b"]q\xf2h\xf2a" + plain("cat") + b"a"
    read = read_checkpoint(write(tmp_path, root(train_metrics=metrics, names=names)))
    assert (read.train_metrics, read.names) == ({"kept": 1.0}, {1: "cat"})
    modules = b"}q\xf2" + plain("self") + b"h\xf3s"
    state = b"}(" + plain("_modules") + modules + plain("_parameters") + mapping({"w": parameter(3)}) + b"u"
    network = b"cx\ny\n)\x81q\xf3" + state + b"b"
    assert read_checkpoint(write(tmp_path, root(model=network))).parameters == 3


def bomb(levels: int) -> bytes:
    """Lists of ten times the same list: 10 ** levels values in a few bytes."""
    return b"N" + (b"q\xf40](" + b"h\xf4" * 10 + b"e") * levels


def test_a_memo_bomb(tmp_path: Path) -> None:
    """Shared values are cheap as long as nobody walks or copies them, and nothing here does."""
    assert read_checkpoint(write(tmp_path, root(other=bomb(1000)))).epoch == -1
    metrics = mapping({"kept": plain(1), "x": bomb(1000)})
    read = read_checkpoint(write(tmp_path, root(train_metrics=metrics, names=bomb(1000), model=bomb(1000))))
    assert (read.train_metrics, read.names, read.parameters) == ({"kept": 1.0}, {}, None)
    odd = dict.fromkeys(("version", "date", "epoch"), bomb(1000))
    read = read_checkpoint(write(tmp_path, root(**odd)))
    assert (read.release, read.date, read.epoch) == (None, None, None)


def test_shared_texts(tmp_path: Path) -> None:
    """A text of 10,000 characters in a thousand names is in the file once: copying stops at a million."""
    text = plain("x" * 10_000) + b"q\xf4"
    pairs = text + b"0}(" + b"".join(plain(key) + b"h\xf4" for key in range(1000)) + b"u"
    for names in (pairs, b"](" + text + b"h\xf4" * 1000 + b"e"):
        assert reason(write(tmp_path, root(names=names))) == "Its values are too large."
        assert reason(write(tmp_path, root(model=module({}, names=names)))) == "Its values are too large."


def test_long_texts(tmp_path: Path) -> None:
    """No text needs a million characters, whichever fact it is, nor do all of them together."""
    long, half = "x" * 1_000_000, "x" * 500_000
    for facts in (
        {"version": plain(long)},
        {"date": plain(long)},
        {"names": plain({0: long})},
        {"train_metrics": plain({long: 0.5})},
        {"version": plain(half), "train_metrics": plain({half: 0.5})},
    ):
        assert reason(write(tmp_path, root(**facts))) == "Its values are too large."


def test_modules_that_share_their_parts(tmp_path: Path) -> None:
    """50,000 modules that share one dict of 100,000 entries take a second, not half a minute."""
    shared = mapping({"w": parameter(3), **dict.fromkeys(map(str, range(100_000)), b"N")})
    state = b"}(" + plain("_parameters") + shared + b"q\xf4" + plain("_modules") + b"}u"
    first = b"cx\ny\n)\x81" + state + b"b"
    another = b"cx\ny\n)\x81" + mapping({"_parameters": b"h\xf4", "_modules": b"}"}) + b"b"
    network = module({}, {"first": first, **dict.fromkeys(map(str, range(50_000)), another)})
    path = write(tmp_path, root(model=network))
    start = time.process_time()
    assert read_checkpoint(path).parameters == 3
    assert time.process_time() - start < 10


def test_a_giant_integer(tmp_path: Path) -> None:
    """No integer of a million bytes is an epoch, a metric, an index or a size; printing it takes minutes."""
    giant = int.from_bytes(b"\x7f" * 1_000_000, "little")
    facts = {"epoch": giant, "train_metrics": {"fitness": giant, "kept": 1}, "names": {giant: "x", 0: "cat"}}
    odd = {name: plain(value) for name, value in facts.items()}
    expected = Checkpoint(None, None, None, False, None, {"kept": 1.0}, {0: "cat"})
    network = module({"w": parameter(giant)})
    assert read_checkpoint(write(tmp_path, root(model=network, **odd))) == expected


@pytest.mark.parametrize("decimal", [b"I%s\n", b"L%sL\n", b"F%s\n"])
def test_giant_decimals(tmp_path: Path, decimal: bytes) -> None:
    """Integers in decimal digits, slow to read when long, are not read at all."""
    data = root(epoch=decimal % (b"9" * 1_000_000))
    assert reason(write(tmp_path, data)) == "It holds an opcode that torch does not write."


@pytest.mark.parametrize(
    "opcode",
    [
        b"\x82\x01",
        b"\x83\x01\x00",
        b"\x84\x01\x00\x00\x00",
        b"\x97",
        b"N\x98",
        b"(ios\nsystem\n",
        b"P1\n",
        b"\xff",
    ],
    ids=["EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "INST", "PERSID", "unknown"],
)
def test_opcodes_torch_does_not_write(tmp_path: Path, opcode: bytes) -> None:
    """Registries, buffers from elsewhere and unknown bytes are refused."""
    data = root(other=opcode)
    assert reason(write(tmp_path, data)) == "It holds an opcode that torch does not write."


def test_two_long_texts_for_a_name(tmp_path: Path) -> None:
    """Joined a million times, texts that are in the file once would fill the memory."""
    data = root(other=plain("x" * 900) + plain("y" * 900) + b"\x93")
    assert reason(write(tmp_path, data)) == "It holds a name that is too long."


EMPTY_STACK = [b".", b"0.", b"2.", b"a.", b"\x85.", b"\x94.", b"q\0.", b"Nb.", b"NNs.", b"}(Nu.", b"NN\x93."]
NO_MARK = [b"u.", b"t.", b"e.", b"1.", b"\x90.", b"\x91."]
NO_STOP = [b"", b"\x80\x02}", b"N)R", b"(t"]
TOO_LARGE = [
    b"\x95" + b"\xff" * 8 + b".",
    b"r" + b"\xff" * 4 + b".",
    b"\x8d" + b"\xff" * 8,
    b"X\xff\xff\xff\x7fabc.",
]
NEGATIVE = [b"\x8b\xff\xff\xff\xff."]
NO_TEXT = [b"X\1\0\0\0\xff.", b"c\xff\n\xff\n."]
WRONG_TYPE = [b"NNa.", b"NNR.", b"NNNs.", b"NNb.", b"h\0.", b"]]\x93."]


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        (b"]r\xff\xff\xff\xff", "Its memo is too large."),
        (b"]\x95" + b"\xff" * 8, "It is cut short."),
        (b"(]\x86t", "It takes values that are not there."),
        (b"N]b", "It holds a malformed object."),
        (b"N]a", "It holds a malformed list."),
        (b"]NNs", "It holds a malformed dictionary."),
        (b"N]R", "It holds a call without arguments."),
    ],
)
def test_what_a_whole_pickle_cannot_hold(tmp_path: Path, hostile: bytes, expected: str) -> None:
    """A memo index no pickler reaches, a frame beyond the end, too few values, or the wrong ones."""
    assert reason(write(tmp_path, root(other=hostile))) == expected


@pytest.mark.parametrize(
    "data", EMPTY_STACK + NO_MARK + NO_STOP + TOO_LARGE + NEGATIVE + NO_TEXT + WRONG_TYPE
)
def test_malformed_pickles(tmp_path: Path, data: bytes) -> None:
    """An empty stack, a missing STOP, sizes beyond the file, text that is none: refused, with a reason."""
    assert reason(write(tmp_path, data)).endswith(".")


def readable_or_refused(path: Path) -> None:
    try:
        assert isinstance(read_checkpoint(path), Checkpoint)
    except CheckpointUnreadable as refusal:
        assert refusal.reason


SMALL = root(
    version=plain("8.4.190"),
    train_args=plain({"lr0": 0.01, "imgsz": 64, "path": [1, (2, None)]}),
    train_metrics=mapping({"fitness": plain(0.5), "old": plain(numpy.float64(0.25))}),
    model=module({"w": parameter(3, 4)}, {"0": module({"b": parameter(4)})}, names=plain({0: "cat"})),
)


@given(flips=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_to_the_pickle(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    """Whatever bytes change, the answer is a Checkpoint or CheckpointUnreadable."""
    data = bytearray(SMALL)
    for position, value in flips:
        data[position] = value
    folder = tmp_path_factory.mktemp("flips")
    readable_or_refused(write(folder, bytes(data)))
    shutil.rmtree(folder)


@given(data=st.data())
def test_any_damage_to_the_zip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """The same for the bytes of the zip around it."""
    folder = tmp_path_factory.mktemp("zip")
    path = write(folder, SMALL)
    whole = bytearray(path.read_bytes())
    around = [*range(60), *range(len(whole) - 120, len(whole))]
    for position in data.draw(st.lists(st.sampled_from(around), min_size=1, max_size=4)):
        whole[position] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    readable_or_refused(path)
    shutil.rmtree(folder)
