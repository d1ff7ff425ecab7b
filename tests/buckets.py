"""Real S3 end points for tests: moto's server over HTTP and TLS, and servers that do not do their work."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
from clearml.backend_config.bucket_config import S3BucketConfig
from clearml.storage.helper import StorageHelper
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY, SECRET = "a-key-that-works", "its-secret"


@dataclass(frozen=True)
class Bucket:
    """A bucket at an end point, as an address of it is written; each has a name of its own."""

    host: str  # with its port
    name: str = field(default_factory=lambda: f"models-{uuid.uuid4().hex[:8]}")

    @property
    def uri(self) -> str:
        return f"s3://{self.host}/{self.name}"

    def configured(self, key: str = KEY, secret: str = SECRET, **more: Any) -> Bucket:
        """Give the SDK of this process its keys, as clearml.conf would."""
        more = {"secure": False, **more}
        config = S3BucketConfig(bucket=self.name, host=self.host, key=key, secret=secret, **more)
        StorageHelper._s3_configurations.add_config(config)  # the public way tries it first
        return self


class Quietly(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Say nothing of requests."""


@dataclass(frozen=True)
class S3:
    """A running S3 of moto's."""

    host: str
    scheme: str = "http"
    verify: str | bool = True

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def client(self, service: str = "s3") -> Any:
        where = {"endpoint_url": self.url, "verify": self.verify, "region_name": "us-east-1"}
        return boto3.client(service, aws_access_key_id=KEY, aws_secret_access_key=SECRET, **where)

    def bucket(self) -> Bucket:
        """Make a bucket."""
        bucket = Bucket(self.host)
        self.client().create_bucket(Bucket=bucket.name)
        return bucket

    def keys(self, bucket: Bucket) -> dict[str, int]:
        """Give the sizes of a bucket's objects."""
        objects = self.client().list_objects_v2(Bucket=bucket.name).get("Contents", [])
        return {each["Key"]: each["Size"] for each in objects}

    def content(self, bucket: Bucket, key: str) -> bytes:
        return bytes(self.client().get_object(Bucket=bucket.name, Key=key)["Body"].read())

    @contextmanager
    def guarded(self, *actions: str) -> Iterator[tuple[str, str]]:
        """Look at keys from now on; gives one that is allowed these actions."""
        iam, user = self.client("iam"), uuid.uuid4().hex
        iam.create_user(UserName=user)
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=user, PolicyName="some", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        self._let_anybody_do("0")
        try:
            yield key["AccessKeyId"], key["SecretAccessKey"]
        finally:
            self._let_anybody_do("inf")

    def _let_anybody_do(self, number: str) -> None:
        requests.post(f"{self.url}/moto-api/reset-auth", data=number, verify=self.verify, timeout=10)


@contextmanager
def moto(certificate: tuple[str, str] | None = None) -> Iterator[S3]:
    """Run moto's server, over TLS with the files of a certificate and its key."""
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quietly, ssl_context=certificate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    try:
        yield S3(host) if certificate is None else S3(host, "https", certificate[0])
    finally:
        server.shutdown()


def self_signed(folder: Path) -> tuple[str, str]:
    """Make a certificate for 127.0.0.1 that nobody trusts; gives its file and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's storage")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return str(files[0]), str(files[1])


def dead_host() -> str:
    """Give an address where nobody listens."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{here.getsockname()[1]}"


@contextmanager
def silent_host() -> Iterator[str]:
    """Give an address where connections are taken, and nothing is said."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        here.listen(50)
        yield f"127.0.0.1:{here.getsockname()[1]}"


@contextmanager
def closing_host() -> Iterator[tuple[str, list[float]]]:
    """Give an address where each connection is closed again, and when there was one."""
    times: list[float] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            times.append(time.monotonic())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", times
        server.shutdown()


@contextmanager
def odd_s3(size: int | None, put: int = 200, silent_put: bool = False) -> Iterator[str]:
    """Run an S3 that answers uploads with a status, or never, and shows objects of a size, or none."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(404 if size is None else 200)
            self.send_header("Content-Length", str(size or 0))
            self.end_headers()

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            if silent_put:
                ended.wait()
            self.send_response(put)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
