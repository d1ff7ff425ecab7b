"""S3, Google's, Azure's and folders: stored is what the storage itself shows; all else fails, and why."""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import S3, Bucket, closing_host, dead_host, moto, odd_s3, self_signed, silent_host
from conftest import sampled

from yolo_clearml.errors import FileElsewhere, FileNotTaken, FileServerUnreachable, RunChanged
from yolo_clearml.server.compare import content_of
from yolo_clearml.server.exchange import Patience
from yolo_clearml.server.storage import Storages

CONTENT = bytes(range(256)) * 40
LONG = CONTENT * 900  # more than a part of S3's


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with moto() as server:
        yield server


def storages(seconds: float = 5.0, files_host: str = "http://127.0.0.1:8081") -> Storages:
    return Storages([files_host], Patience(seconds, threading.Event()))


def store(base: str, content: bytes = CONTENT, seconds: float = 5.0) -> str:
    address = f"{base}/a project/a run.1/models/best.pt"
    storages(seconds).store(base, address, io.BytesIO(content))
    return address


@pytest.mark.parametrize("content", [CONTENT, LONG, b""], ids=["short", "in parts", "empty"])
def test_what_is_stored_is_there_and_reads_back(s3: S3, content: bytes) -> None:
    """Byte for byte, at the address a person would type."""
    bucket = s3.bucket().configured()
    address = store(bucket.uri, content)
    assert {"a project/a run.1/models/best.pt": len(content)} == s3.keys(bucket)
    assert content_of([content], len(content)) == storages().fetch(address, len(content))


def test_below_a_folder_of_the_bucket(s3: S3) -> None:
    bucket = s3.bucket().configured()
    address = store(f"{bucket.uri}/vision/yolo")
    assert ["vision/yolo/a project/a run.1/models/best.pt"] == list(s3.keys(bucket))
    assert storages().fetch(address, len(CONTENT)) is not None


def test_over_tls_with_its_authority_named(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with moto(certificate) as s3:
        bucket = s3.bucket().configured(secure=True, verify=certificate[0])
        store(bucket.uri)
        assert [len(CONTENT)] == list(s3.keys(bucket).values())


def refusal(bucket: Bucket, seconds: float = 5.0, content: bytes = CONTENT) -> FileServerUnreachable:
    """Give the message about a storage that takes nothing; in time."""
    began = time.monotonic()
    with pytest.raises(FileServerUnreachable) as raised:
        store(bucket.uri, content, seconds)
    assert time.monotonic() - began < 3 * seconds + 2
    assert str(raised.value).startswith(f"{bucket.uri} ")
    assert "\n" not in str(raised.value)
    return raised.value


def test_a_key_that_nobody_knows(s3: S3) -> None:
    bucket = s3.bucket().configured(key="no-such-key")
    with s3.guarded("s3:*"):
        error = refusal(bucket)
    assert isinstance(error, FileNotTaken)
    assert "(InvalidAccessKeyId, 403)" in str(error)
    assert "sdk.aws.s3" in error.hint


def test_a_key_with_another_secret(s3: S3) -> None:
    bucket = s3.bucket()
    with s3.guarded("s3:*") as (key, _):
        error = refusal(bucket.configured(key=key, secret="another"))
    assert isinstance(error, FileNotTaken)
    assert "(SignatureDoesNotMatch, 403)" in str(error)


def test_a_key_that_may_not_write(s3: S3) -> None:
    bucket = s3.bucket()
    with s3.guarded("s3:GetObject") as (key, secret):
        error = refusal(bucket.configured(key=key, secret=secret))
    assert "(AccessDenied, 403)" in str(error)
    assert "allowed to write" in error.hint


def test_a_key_that_may_write_but_not_look(s3: S3) -> None:
    """What was not seen is not believed, and the message names which right is lacking."""
    bucket = s3.bucket()
    with s3.guarded("s3:PutObject") as (key, secret):
        error = refusal(bucket.configured(key=key, secret=secret))
    assert "took best.pt, but does not show that it is there: Forbidden (403)." in str(error)
    assert "to read there" in error.hint


def test_a_bucket_that_is_not_there(s3: S3) -> None:
    error = refusal(Bucket(s3.host).configured())
    assert isinstance(error, FileNotTaken)
    assert "(NoSuchBucket, 404)" in str(error)
    assert "make it" in error.hint


def test_an_end_point_where_nobody_listens() -> None:
    error = refusal(Bucket(dead_host()).configured(), 2.0)
    assert error.outage
    assert "Could not connect to the endpoint URL" in str(error)


@pytest.mark.parametrize("wish", sampled([None, "4"], lambda wish: wish is None))  # four take seconds
def test_the_client_of_s3_tries_twice(wish: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own five tries would outlast the time limit, and keep the reason back; a person's wish counts."""
    monkeypatch.setenv("AWS_RETRY_MODE", "legacy")  # the default of older releases of botocore
    if wish:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", wish)
    stopping = threading.Event()
    stopping.set()  # no further try of our own
    with closing_host() as (host, times):
        base = Bucket(host).configured().uri
        with pytest.raises(FileServerUnreachable, match="Connection was closed"):
            Storages([], Patience(30.0, stopping)).store(base, f"{base}/x", io.BytesIO(CONTENT))
    assert int(wish or 2) == len(times)
    assert wish == os.environ.get("AWS_MAX_ATTEMPTS")


def test_an_end_point_that_answers_nothing() -> None:
    with silent_host() as host:
        error = refusal(Bucket(host).configured(), 1.0)
    assert error.outage
    assert "Read timeout on endpoint URL" in str(error) or "no answer within 1 seconds" in str(error)


def test_an_end_point_that_takes_the_file_and_answers_nothing() -> None:
    with odd_s3(size=None, silent_put=True) as host:
        error = refusal(Bucket(host).configured(), 1.0)
    assert error.outage


def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    with moto(self_signed(tmp_path)) as s3:
        error = refusal(s3.bucket().configured(secure=True), 3.0)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert "verify" in error.hint
    assert "AWS_CA_BUNDLE" in error.hint


def test_an_end_point_without_tls(s3: S3) -> None:
    error = refusal(s3.bucket().configured(secure=True), 3.0)
    assert "secure: false" in error.hint


def test_an_end_point_that_keeps_failing() -> None:
    with odd_s3(size=None, put=503) as host:
        error = refusal(Bucket(host).configured(), 1.0)
    assert error.outage
    assert "503" in str(error)


@pytest.mark.parametrize("size", [None, 7])
def test_a_storage_that_confirms_and_has_something_else(size: int | None) -> None:
    """An answer of 200 is not yet a file."""
    with odd_s3(size) as host:
        error = refusal(Bucket(host).configured())
    assert isinstance(error, FileNotTaken)
    told = "does not show that it is there" if size is None else f"holds 7 of the {len(CONTENT)} bytes"
    assert told in str(error)


def test_who_does_not_answer_is_asked_once() -> None:
    """The next thousand files do not wait as well; who refuses one may take the next."""
    bucket = Bucket(dead_host()).configured()
    ours = storages(1.0)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(FileServerUnreachable):
            ours.store(bucket.uri, f"{bucket.uri}/x", io.BytesIO(CONTENT))
    assert time.monotonic() - began < 0.1
    with pytest.raises(FileElsewhere):
        storages(1.0).fetch(f"{bucket.uri}/x", 1)


class Shrinking(io.BytesIO):
    """A file that is cut while it is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)[:10]
        self.truncate(10)
        return piece


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("file", [Shrinking(CONTENT), Unreadable(CONTENT)], ids=["cut", "unreadable"])
def test_a_file_that_goes_bad_on_its_way(s3: S3, file: io.BytesIO) -> None:
    bucket = s3.bucket().configured()
    with pytest.raises(RunChanged):
        storages().store(bucket.uri, f"{bucket.uri}/x", file)


def test_nothing_of_it_is_logged_twice(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """The driver's log line and our sentence would be two; other threads' lines stay."""
    logger = logging.getLogger("clearml.storage")
    logger.addHandler(caplog.handler)
    try:
        refusal(Bucket(s3.host).configured())
        assert [] == caplog.records
        logger.error("of somebody else")
        assert {"of somebody else"} == set(caplog.messages)
    finally:
        logger.removeHandler(caplog.handler)


def test_what_is_gone_is_known_to_be_gone(s3: S3) -> None:
    """A 404 of the storage's own says so; a refusal does not."""
    bucket = s3.bucket()
    assert storages().fetch(f"{bucket.configured().uri}/nothing", 10) is None
    bucket = s3.bucket()
    with s3.guarded("s3:*"):
        bucket.configured(key="no-such-key")
        with pytest.raises(FileElsewhere, match=r"/nothing cannot be read: Forbidden \(403\)\.$"):
            storages().fetch(f"{bucket.uri}/nothing", 10)


def test_where_clearml_keeps_its_own_files_nothing_is_elsewhere(s3: S3) -> None:
    """Every machine that reports reaches it, so what cannot be read there is looked at again."""
    bucket = s3.bucket()
    with s3.guarded("s3:*"):
        bucket.configured(key="no-such-key")
        with pytest.raises(FileNotTaken) as raised:
            storages(files_host=bucket.uri).fetch(f"{bucket.uri}/x", 10)
    assert not isinstance(raised.value, FileElsewhere)


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_a_folder(tmp_path: Path, form: str) -> None:
    base = form.format(tmp_path)
    address = store(base)
    assert CONTENT == Path(address.removeprefix("file://")).read_bytes()
    assert content_of([CONTENT], 10**9) == storages().fetch(address, 10**9)
    assert storages().fetch(f"{base}/nothing", 10) is None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It may be a mount that is missing: nothing is made below it."""
    with pytest.raises(FileNotTaken, match="there is no such folder") as raised:
        store(f"file://{tmp_path}/mnt")
    assert "mounted" in raised.value.hint
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotTaken) as raised:
        store(f"file://{tmp_path}/file")
    assert f"file://{tmp_path}/file does not take best.pt: " in str(raised.value)


@pytest.mark.parametrize("action", ["store", "fetch"])
def test_a_storage_of_no_known_kind(action: str) -> None:
    """The SDK would take it for a folder of this name."""
    with pytest.raises(FileNotTaken, match="no storage of the kind ftp://"):
        store("ftp://host/x") if action == "store" else storages().fetch("ftp://host/x", 1)


def test_an_address_without_a_bucket(s3: S3) -> None:
    with pytest.raises(FileNotTaken) as raised:
        bucket = Bucket(s3.host, "").configured()
        store(bucket.uri)
    assert "Parameter validation failed: Invalid bucket name" in str(raised.value)
    assert "Check the address" in raised.value.hint
