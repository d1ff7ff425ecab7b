"""A small keep-alive HTTP server on loopback that can break off, and stop and start on one port."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Incoming:
    """One request as it came over the wire."""

    method: str
    target: str  # path and query, still quoted
    headers: dict[str, str]  # lower-case names
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One reply; `abort` resets the connection instead, `cut` sends half of the body and closes.

    `drip` sends the body byte by byte, `endless` goes on after it for as long as somebody listens.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    abort: bool = False
    cut: bool = False
    drip: float = 0.0  # seconds after each byte
    endless: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, respond: Callable[[Incoming], Reply]) -> None:
        self.respond = respond
        self.stopped = False
        self.connections: set[socket.socket] = set()
        self.connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of a host name, which may ask a slow resolver."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def serve(self) -> None:
        """Accept connections until `stop`; nothing is asked every so often, so nothing waits for that."""
        while True:
            try:
                connection, address = self.get_request()
            except OSError:  # a client that broke off, in the middle of TLS for one
                if self.stopped:
                    return
                continue
            if self.stopped:
                self.shutdown_request(connection)
                return
            self.process_request(connection, address)

    def stop(self, accepting: threading.Thread) -> None:
        """Refuse connections from now on."""
        self.stopped = True
        with contextlib.suppress(OSError):
            # wakes whoever accepts, on every system
            socket.create_connection(("127.0.0.1", self.server_port), 1.0).close()
        accepting.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: clients that go away in the middle are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server.connections_lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.connections_lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _any(self) -> None:
        expected = int(self.headers.get("Content-Length") or 0)
        body = self._body()
        if len(body) < expected:
            # the client died in the middle of its request: a genuine server never hands that on
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.respond(Incoming(self.command, self.path, headers, body))
        if reply.abort:
            self.close_connection = True
            # linger 0: the client sees a reset, not an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        try:
            phrase = HTTPStatus(reply.status).phrase
        except ValueError:
            phrase = ""
        lines = [
            f"HTTP/1.1 {reply.status} {phrase}",
            f"Content-Type: {reply.content_type}",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        if not reply.endless and "Content-Length" not in reply.headers:
            lines.append(f"Content-Length: {len(reply.body)}")
        if reply.cut or reply.endless or reply.drip:
            self.close_connection = True
            lines.append("Connection: close")
        content = b"" if self.command == "HEAD" else reply.body
        if reply.cut:
            content = content[: len(content) // 2]
        # one send: two would wait for each other's acknowledgement
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if not (reply.drip or reply.endless):
            self.wfile.write(head + content)
            return
        with contextlib.suppress(OSError):  # whoever asked has given up
            self.wfile.write(head)
            for byte in content if reply.drip else ():
                self.wfile.write(bytes([byte]))
                time.sleep(reply.drip)
            self.wfile.write(b"" if reply.drip else content)
            while reply.endless:
                self.wfile.write(b" " * 2**16)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = _any


class Endpoint:
    """A server that can be stopped and started again on the port it was first given."""

    def __init__(self, respond: Callable[[Incoming], Reply]) -> None:
        self._respond = respond
        self._server: _Server | None = None
        self._accepting = threading.Thread()
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients find it, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen; nothing happens if it listens already."""
        if self._server is None:
            self._server = _Server(self.port, self._respond)
            if tls is not None:
                self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.port = self._server.server_address[1]
            self._accepting = threading.Thread(target=self._server.serve, daemon=True)
            self._accepting.start()

    def stop(self) -> None:
        """Refuse connections from now on and break those that are open."""
        server, self._server = self._server, None
        if server is None:
            return
        server.stop(self._accepting)
        with server.connections_lock:
            open_connections = list(server.connections)
        for connection in open_connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
