"""A run directory is anybody's: only regular files below it are read, and what was read is vouched for."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLES

from yolo_clearml.errors import RunChanged, RunUnreadable
from yolo_clearml.events import FileStamp
from yolo_clearml.rundir.files import (
    content_digest,
    is_whole_picture,
    open_regular,
    open_stamped,
    read_bounded,
)

PNG = b"\x89PNG\r\n\x1a\n....IHDR....IDAT....IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0....\xff\xd9"


def stamp_of(root: Path, name: str) -> FileStamp:
    status = (root / name).stat()
    return FileStamp(name, status.st_size, status.st_mtime_ns)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def secret(root: Path) -> Path:
    """A file outside the run that a link may point at."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(JPEG)
    return outside


def link_to_a_file(root: Path) -> str:
    (root / "odd").symlink_to(secret(root) / "secret")
    return "odd"


def link_to_a_folder(root: Path) -> str:
    (root / "weights").symlink_to(secret(root), target_is_directory=True)
    return "weights/secret"


def link_to_nowhere(root: Path) -> str:
    (root / "odd").symlink_to(root / "nothing")
    return "odd"


def link_to_itself(root: Path) -> str:
    (root / "odd").symlink_to(root / "odd")
    return "odd"


def fifo(root: Path) -> str:
    os.mkfifo(root / "odd")
    return "odd"


def folder(root: Path) -> str:
    (root / "odd").mkdir()
    return "odd"


def device(root: Path) -> str:
    try:
        os.mknod(root / "odd", 0o600 | 0o020000, os.makedev(1, 5))  # as /dev/zero, which never ends
    except OSError:
        pytest.skip("only root makes devices")
    return "odd"


def listening_socket(root: Path) -> str:
    before = Path.cwd()
    os.chdir(root)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("odd")
    finally:
        os.chdir(before)
    return "odd"


def file_for_a_folder(root: Path) -> str:
    (root / "weights").write_bytes(b"")
    return "weights/best.pt"


@pytest.mark.parametrize(
    "make",
    [
        *(link_to_a_file, link_to_a_folder, link_to_nowhere, link_to_itself),
        *(fifo, folder, device, listening_socket, file_for_a_folder),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(make: Callable[[Path], str], tmp_path: Path) -> None:
    """Links, FIFOs, devices and folders are neither followed, waited for nor read; nothing stays open."""
    root = tmp_path / "run"
    root.mkdir()
    name = make(root)
    before = descriptors()
    with pytest.raises(OSError), open_regular(root, name):
        pass
    with pytest.raises(RunUnreadable) as unreadable:
        read_bounded(root, name, 100)
    assert str(root / name) in str(unreadable.value)
    with pytest.raises(RunChanged), open_stamped(root, FileStamp(name, 0, 0)):
        pass
    assert (False, "") == (is_whole_picture(root, name), content_digest(root, name))
    assert before == descriptors()


def test_a_regular_file_is_read_also_through_a_link_to_the_run_itself(tmp_path: Path) -> None:
    """What the user names may be a link; only what lies below may not."""
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "best.pt").write_bytes(b"abc")
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    with open_regular(tmp_path / "latest", "weights/best.pt") as file:
        assert b"abc" == file.read()


def test_a_missing_file_is_distinguished_from_an_unreadable_one(tmp_path: Path) -> None:
    """Absence is for the caller to judge: a run may have no results.csv yet."""
    for name in ("results.csv", "weights/best.pt"):
        with pytest.raises(FileNotFoundError):
            read_bounded(tmp_path, name, 100)


def test_a_read_file_is_stamped_as_it_was_read(tmp_path: Path) -> None:
    """Bytes, name, size and time belong together."""
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(0, 1_234_567_891))
    assert (b"abc", FileStamp("a", 3, 1_234_567_891)) == read_bounded(tmp_path, "a", 3)


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    """A byte too many, and it is no file Ultralytics writes; a sparse terabyte is not read."""
    (tmp_path / "a").write_bytes(b"x" * 2049)
    with pytest.raises(RunUnreadable, match="larger than 2 KiB"):
        read_bounded(tmp_path, "a", 2048)
    os.truncate(tmp_path / "a", 2**40)
    with pytest.raises(RunUnreadable, match="larger than 2 KiB"):
        read_bounded(tmp_path, "a", 2048)


# -- a file that is sent


def test_an_unchanged_file_is_vouched_for(tmp_path: Path) -> None:
    """It can be read to its end and is the one that was looked at."""
    (tmp_path / "a").write_bytes(b"abc")
    with open_stamped(tmp_path, stamp_of(tmp_path, "a")) as file:
        assert b"abc" == file.read()


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"d")


def rewrite(path: Path) -> None:
    """Other bytes, as many as before."""
    before = path.stat().st_mtime_ns
    path.write_bytes(b"xyz")
    os.utime(path, ns=(0, before + 1))


def grow_unseen(path: Path) -> None:
    """More bytes within one tick of the file system's clock."""
    before = path.stat().st_mtime_ns
    grow(path)
    os.utime(path, ns=(0, before))


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("change", [grow, rewrite, grow_unseen, empty])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changes_is_not_vouched_for(
    change: Callable[[Path], None], when: str, tmp_path: Path
) -> None:
    """Before it is opened or while it is read: either way it is another file than the plan's."""
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    stamp = stamp_of(tmp_path, "a")
    reached = False
    if when == "before":
        change(path)
    with pytest.raises(RunChanged, match="changed while"), open_stamped(tmp_path, stamp) as file:
        reached = True
        file.read()
        change(path)
    assert (when == "while") is reached


def test_a_file_that_vanished_or_became_something_else_has_changed(tmp_path: Path) -> None:
    """Deleted, or replaced by a link or a folder, between the look and the sending."""
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    stamp = stamp_of(tmp_path, "a")
    path.unlink()
    for what in ("nothing", "link", "folder"):
        if what == "link":
            path.symlink_to("/dev/zero")
        if what == "folder":
            path.unlink()
            path.mkdir()
        with pytest.raises(RunChanged, match="cannot be read any more"), open_stamped(tmp_path, stamp):
            pass


@pytest.mark.parametrize("fault", [FileNotFoundError("elsewhere"), ConnectionError("gone"), KeyError("ours")])
def test_a_fault_of_the_one_who_sends_is_not_the_files(fault: Exception, tmp_path: Path) -> None:
    """Whatever goes wrong while sending comes out as it is, also where it is an OSError like a network's."""
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(type(fault)) as caught, open_stamped(tmp_path, stamp_of(tmp_path, "a")):
        raise fault
    assert fault is caught.value


# -- pictures


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("a.png", PNG, True),
        ("a.png", b"", False),
        ("a.png", PNG[:4], False),
        ("a.png", PNG[:8], False),
        ("a.png", PNG[:-1], False),
        ("a.png", PNG + b"\0", False),
        ("a.png", PNG[-8:], False),
        ("a.png", JPEG, False),
        ("a.jpg", JPEG, True),
        ("a.jpg", b"", False),
        ("a.jpg", b"\xff", False),
        ("a.jpg", JPEG[:-1], False),
        ("a.jpg", JPEG[:-2] + b"\0\0", False),
        ("a.jpg", PNG, False),
        ("a.jpg", b"<html>no picture</html>", False),
    ],
)
def test_a_picture_is_whole_when_it_begins_and_ends_as_one(
    name: str, content: bytes, whole: bool, tmp_path: Path
) -> None:
    """Empty, half-written and other content is distinguished, whatever a name says."""
    (tmp_path / name).write_bytes(content)
    assert whole is is_whole_picture(tmp_path, name)


def test_every_picture_of_a_real_run_is_whole_and_no_part_of_it_is(tmp_path: Path) -> None:
    """Ultralytics' pictures end as their formats demand; one that is still being written does not."""
    sample = SAMPLES / "v8.3.100-detect"
    pictures = [path for path in sample.iterdir() if path.suffix in (".png", ".jpg")]
    assert 14 == len(pictures)
    assert all(is_whole_picture(sample, path.name) for path in pictures)
    for path in pictures:
        data = path.read_bytes()
        for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
            (tmp_path / path.name).write_bytes(data[:cut])
            assert not is_whole_picture(tmp_path, path.name)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: int) -> None:
    """Let os.open fail over one name; tests may run as root, who may read everything."""
    genuine = os.open

    def call(path: str | Path, flags: int, *args: int, **options: int) -> int:
        if Path(path).name == name:
            raise OSError(error, os.strerror(error))
        return genuine(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", call)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("look", [is_whole_picture, content_digest])
def test_a_file_that_cannot_be_read_is_not_judged(
    look: Callable[[Path, str], object], error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it is not known, so nothing of it may be remembered."""
    (tmp_path / "a.jpg").write_bytes(JPEG)
    refuse(monkeypatch, "a.jpg", error)
    with pytest.raises(RunUnreadable, match=os.strerror(error)) as caught:
        look(tmp_path, "a.jpg")
    assert str(tmp_path / "a.jpg") in str(caught.value)
    assert "readable" in caught.value.hint


def test_a_file_that_is_gone_is_no_whole_picture(tmp_path: Path) -> None:
    """A live run replaces its files; the next listing shows it."""
    assert (False, "") == (is_whole_picture(tmp_path, "a.jpg"), content_digest(tmp_path, "a.jpg"))


# -- contents


def test_contents_are_distinguished_by_their_bytes_alone(tmp_path: Path) -> None:
    """The same bytes under another name and time are the same; other bytes of the same size are not."""
    for name, content in (("a", b"abc"), ("b", b"abc"), ("c", b"abd")):
        (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / "b", (0, 0))
    one, same, other = (content_digest(tmp_path, name) for name in "abc")
    assert (16, one) == (len(same), same)
    assert one != other


def test_of_a_large_file_the_end_is_read(tmp_path: Path) -> None:
    """A checkpoint of gigabytes costs a MiB: its end, which holds the checksums of all of it."""
    (tmp_path / "best.pt").write_bytes(b"")
    os.truncate(tmp_path / "best.pt", 2**36)
    before = content_digest(tmp_path, "best.pt")
    with (tmp_path / "best.pt").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"checksum")
    assert 2**36 == (tmp_path / "best.pt").stat().st_size
    assert before != content_digest(tmp_path, "best.pt")
