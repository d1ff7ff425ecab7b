"""Google's and Azure's storage, by objects with the interface that the SDK's drivers call."""

from __future__ import annotations

import io
import itertools
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from clearml.backend_config.bucket_config import AzureContainerConfig
from clearml.storage import helper
from clearml.storage.helper import StorageHelper

from yolo_clearml.errors import FileElsewhere, FileNotTaken, FileServerUnreachable
from yolo_clearml.server.compare import content_of
from yolo_clearml.server.exchange import Patience
from yolo_clearml.server.storage import Storages

CONTENT = bytes(range(256)) * 40


class HttpResponseError(Exception):
    """azure.core.exceptions' own, as far as its fields are known to be there."""

    def __init__(self, status_code: int, error_code: str, message: str) -> None:
        super().__init__(f"{message}\nRequestId:1-2-3\nTime:2026-01-01\nErrorCode:{error_code}")
        self.status_code = status_code
        self.error_code = error_code


class ServiceRequestError(Exception):
    """azure.core.exceptions' own, for an end point that is not reached."""


class GoogleAPICallError(Exception):
    """google.api_core.exceptions' own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f'{code} POST https://host/upload: {{"error": {{"message": "{message}"}}}}: (...)')
        self.code = code


@dataclass
class Cloud:
    """What is stored, and what goes wrong at which step."""

    base: str
    stored: dict[str, bytes] = field(default_factory=dict)
    fails: dict[str, Callable[[], Exception]] = field(default_factory=dict)
    loses: int = 0  # bytes of each file
    slow: float = 0.0  # seconds before anything

    def step(self, name: str) -> None:
        time.sleep(self.slow)
        if name in self.fails:
            raise self.fails[name]()

    def take(self, name: str, content: bytes) -> None:
        self.step("send")
        self.stored[name] = content[: len(content) - self.loses]

    def size(self, name: str, missing: Callable[[], Exception]) -> int:
        self.step("look")
        if name not in self.stored:
            raise missing()
        return len(self.stored[name])


@dataclass
class Blob:
    """google.cloud.storage's own: its size is known when it was asked for."""

    cloud: Cloud
    name: str
    size: int | None = None

    def upload_from_file(self, file: BinaryIO) -> None:
        pieces = iter(lambda: file.read(1000), b"")
        assert 0 == file.tell()
        self.cloud.take(self.name, b"".join(pieces))

    def reload(self) -> None:
        self.size = self.cloud.size(self.name, lambda: GoogleAPICallError(404, "No such object"))

    def download_to_filename(self, name: str) -> None:
        self.cloud.step("load")
        Path(name).write_bytes(self.cloud.stored[self.name])


def google(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the cloud where the driver imports Google's package from."""

    class Client:
        def __init__(self, **_: object) -> None:
            cloud.step("enter")
            self._http = types.SimpleNamespace(adapters={})

        def bucket(self, name: str) -> Any:
            return types.SimpleNamespace(blob=lambda name: Blob(cloud, name))

    storage = types.SimpleNamespace(Client=Client)
    oauth2 = types.SimpleNamespace(service_account=types.SimpleNamespace())
    modules: dict[str, Any] = {
        "google.cloud": types.SimpleNamespace(storage=storage),
        "google.cloud.storage": storage,
        "google.oauth2": oauth2,
        "google.oauth2.service_account": oauth2.service_account,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@dataclass
class BlobClient:
    """azure.storage.blob's own."""

    cloud: Cloud
    blob: str

    def upload_blob(self, data: bytes, overwrite: bool, **_: object) -> None:
        assert overwrite
        self.cloud.take(self.blob, data)

    def get_blob_properties(self) -> Any:
        def missing() -> Exception:
            return HttpResponseError(404, "BlobNotFound", "The specified blob does not exist.")

        return types.SimpleNamespace(name=self.blob, size=self.cloud.size(self.blob, missing))

    def download_blob(self, **_: object) -> Any:
        self.cloud.step("load")
        content = self.cloud.stored[self.blob]
        return types.SimpleNamespace(download_to_stream=lambda file: file.write(content))


def azure(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the cloud where the SDK has imported Azure's package to."""

    class BlobServiceClient:
        def __init__(self, **_: object) -> None:
            cloud.step("enter")

        def get_blob_client(self, container: str, blob: str) -> BlobClient:
            return BlobClient(cloud, blob)

    exceptions = types.SimpleNamespace(HttpResponseError=HttpResponseError)
    modules = sys.modules
    monkeypatch.setitem(modules, "azure.core", types.SimpleNamespace(exceptions=exceptions))
    monkeypatch.setitem(modules, "azure.core.exceptions", exceptions)
    monkeypatch.setattr(helper, "BlobServiceClient", BlobServiceClient, raising=False)
    monkeypatch.setattr(helper, "is_blob_service_client_installed", True)
    container = cloud.base.rpartition("/")[2]
    key = AzureContainerConfig("account", "a2V5", container)
    StorageHelper._azure_configurations.add_config(key)


_NAMES = itertools.count()  # the SDK keeps a bucket that it has entered once


@pytest.fixture(params=["google", "azure"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    if request.param == "google":
        made = Cloud(f"gs://bucket{next(_NAMES)}")
        google(made, monkeypatch)
    else:
        made = Cloud(f"azure://account.blob.core.windows.net/container{next(_NAMES)}")
        azure(made, monkeypatch)
    yield made


def storages(seconds: float = 5.0) -> Storages:
    return Storages([], Patience(seconds, threading.Event()))


def store(cloud: Cloud, seconds: float = 5.0) -> str:
    address = f"{cloud.base}/a project/a run.1/models/best.pt"
    storages(seconds).store(cloud.base, address, io.BytesIO(CONTENT))
    return address


def refusal(cloud: Cloud, seconds: float = 5.0) -> FileServerUnreachable:
    began = time.monotonic()
    with pytest.raises(FileServerUnreachable) as raised:
        store(cloud, seconds)
    assert time.monotonic() - began < 3 * seconds + 2
    assert str(raised.value).startswith(f"{cloud.base} ")
    return raised.value


def test_what_is_stored_is_there_and_reads_back(cloud: Cloud) -> None:
    address = store(cloud)
    assert {"a project/a run.1/models/best.pt": CONTENT} == cloud.stored
    assert content_of([CONTENT], 10**9) == storages().fetch(address, 10**9)
    assert storages().fetch(f"{cloud.base}/nothing", 10) is None


def denied(cloud: Cloud) -> Exception:
    if cloud.base.startswith("gs"):
        return GoogleAPICallError(403, "x does not have storage.objects.create access")
    return HttpResponseError(403, "AuthenticationFailed", "Server failed to authenticate the request.")


def no_bucket(cloud: Cloud) -> Exception:
    if cloud.base.startswith("gs"):
        return GoogleAPICallError(404, "The specified bucket does not exist.")
    return HttpResponseError(404, "ContainerNotFound", "The specified container does not exist.")


def no_answer(cloud: Cloud) -> Exception:
    if cloud.base.startswith("gs"):
        return ConnectionError("Connection refused")
    return ServiceRequestError("Cannot connect to host")


@pytest.mark.parametrize(
    ("error", "reason", "hint"),
    [
        (denied, "403)", "allowed to write"),
        (no_bucket, "does not exist (", "or make it"),
    ],
)
def test_what_is_refused(cloud: Cloud, error: Callable[[Cloud], Exception], reason: str, hint: str) -> None:
    """The driver answers False and logs; the storage's own sentence is printed."""
    cloud.fails["send"] = lambda: error(cloud)
    refused = refusal(cloud)
    assert isinstance(refused, FileNotTaken)
    assert "does not take best.pt" in str(refused)
    assert reason in str(refused)
    assert "RequestId" not in str(refused)
    assert hint in refused.hint


@pytest.mark.parametrize("step", ["look", "send"])
def test_who_is_not_reached(cloud: Cloud, step: str) -> None:
    """Before a whole file is sent, or while."""
    cloud.fails[step] = lambda: no_answer(cloud)
    error = refusal(cloud, 1.0)
    assert error.outage
    assert ": Conn" in str(error) or ": Cannot connect" in str(error)
    assert {} == cloud.stored


def test_who_takes_too_long(cloud: Cloud) -> None:
    cloud.slow = 3.0
    error = refusal(cloud, 0.5)
    assert error.outage
    assert "no answer within" in str(error)


def test_credentials_that_cannot_be_used(cloud: Cloud) -> None:
    cloud.fails["enter"] = lambda: ValueError("Your default credentials were not found.")
    error = refusal(cloud)
    assert isinstance(error, FileNotTaken)
    assert "default credentials were not found." in str(error)
    assert "sdk." in error.hint


@pytest.mark.parametrize("loses", [1, len(CONTENT)])
def test_a_file_that_did_not_arrive_whole(cloud: Cloud, loses: int) -> None:
    cloud.loses = loses
    assert f"holds {len(CONTENT) - loses} of the {len(CONTENT)} bytes of best.pt" in str(refusal(cloud))


def test_what_is_there_but_cannot_be_read(cloud: Cloud) -> None:
    address = store(cloud)
    cloud.fails["load"] = lambda: denied(cloud)
    with pytest.raises(FileElsewhere, match=r"best\.pt cannot be read: .*403\)\.$"):
        storages().fetch(address, 10**9)


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [
        ("s3://127.0.0.1:9/bucket-without-boto3", "boto3", "boto3"),
        ("gs://bucket-without-google", "google.cloud", "google-cloud-storage"),
        ("azure://account.blob.core.windows.net/without", "azure.storage.blob", "azure-storage-blob"),
    ],
)
def test_a_package_that_is_not_installed(
    address: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command to type is said; for reading as for writing."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(helper, "is_blob_service_client_installed", False)
    StorageHelper._azure_configurations.add_config(AzureContainerConfig("account", "a2V5", "without"))
    monkeypatch.setattr(StorageHelper._s3_configurations, "_default_key", "key")
    monkeypatch.setattr(StorageHelper._s3_configurations, "_default_secret", "secret")
    refused = refusal(Cloud(address))
    assert f"needs the Python package {package}, which is not installed." in str(refused)
    assert refused.hint.endswith(f"pip install {package}")
    with pytest.raises(FileElsewhere, match=f"needs the Python package {package}"):
        storages().fetch(f"{address}/x", 1)
