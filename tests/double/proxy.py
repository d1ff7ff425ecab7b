"""What people put before a server: nginx's locations and refusals, worded as nginx 1.22 answered this tool.

A proxy is a list of locations; the first that has an answer gives it. They are recorded from the genuine one
with real requests: statuses, headers and pages, but for dates.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias
from urllib.parse import urlsplit

from .wire import Endpoint, Incoming, Reply

Location: TypeAlias = Callable[[Incoming], "Reply | None"]

_HOP = ("connection", "content-length", "host", "transfer-encoding")  # headers of one connection


def _page(status: int, title: str, **headers: str) -> Reply:
    lines = [
        *("<html>", f"<head><title>{status} {title}</title></head>", "<body>"),
        f"<center><h1>{status} {title}</h1></center>",
        *("<hr><center>nginx/1.22.1</center>", "</body>", "</html>", ""),
    ]
    return Reply(status, "\r\n".join(lines).encode(), "text/html", headers)


def _forward(incoming: Incoming, upstream: str, target: str) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=30)
    headers = {name: value for name, value in incoming.headers.items() if name not in _HOP}
    connection.request(incoming.method, target, incoming.body, headers)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return Reply(reply.status, body, reply.headers.get("Content-Type", "text/plain"))


def passes(upstream: str, below: str = "", seconds: float = 0.0) -> Location:
    """Pass on what is below a path, as ``location /below/ { proxy_pass upstream/; }`` does.

    The path itself is answered by a 301 to the one with a slash. A request is taken whole before it is passed
    on, and its answer comes ``seconds`` later.
    """

    def answer(incoming: Incoming) -> Reply | None:
        if incoming.target == below != "":
            return _page(301, "Moved Permanently", Location=f"http://{incoming.headers['host']}{below}/")
        if not incoming.target.startswith(f"{below}/"):
            return None
        reply = _forward(incoming, upstream, incoming.target.removeprefix(below))
        time.sleep(seconds)
        return reply

    return answer


def moves(to: str, status: int = 301) -> Location:
    """``return 301 to$request_uri``."""
    return lambda incoming: _page(status, "Moved Permanently", Location=f"{to}{incoming.target}")


def asks_to_log_in(page: str) -> Location:
    """Send everything to a page to log in, as a gateway before a whole host does."""
    return lambda incoming: _page(302, "Moved Temporarily", Location=f"{page}?redirect_uri={incoming.target}")


def shows_a_login(incoming: Incoming) -> Reply:
    """Answer with that page itself."""
    return Reply(200, b"<html><title>Sign in to your account</title></html>", "text/html")


def refuses(method: str, status: int) -> Location:
    """``if ($request_method = POST) { return 405; }``."""
    return lambda incoming: _page(status, "Not Allowed") if incoming.method == method else None


def wants_a_login(incoming: Incoming) -> Reply:
    """Answer as a forward proxy that does not know who asks."""
    headers = {"Proxy-Authenticate": 'Basic realm="proxy"'}
    return Reply(407, b"<html><h1>Proxy Authentication Required</h1></html>", "text/html", headers)


class Proxy:
    """The proxy; use it as a context manager. ``incoming`` are the requests it was sent."""

    def __init__(self, *locations: Location, tls: ssl.SSLContext | None = None) -> None:
        self._locations = locations
        self._tls = tls
        self._endpoint = Endpoint(self._respond)
        self.incoming: list[Incoming] = []

    @property
    def url(self) -> str:
        """Where clients find it, without a slash at the end."""
        return self._endpoint.url if self._tls is None else self._endpoint.url.replace("http:", "https:")

    def __enter__(self) -> Proxy:
        self._endpoint.start(self._tls)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._endpoint.stop()

    def _respond(self, incoming: Incoming) -> Reply:
        self.incoming.append(incoming)
        answers = (location(incoming) for location in self._locations)
        return next((reply for reply in answers if reply is not None), _page(404, "Not Found"))


class Dawdler:
    """A storage that takes a while before it reads what it is sent, and then passes all of it on."""

    def __init__(self, upstream: str, seconds: float) -> None:
        self._upstream = urlsplit(upstream)
        self._seconds = seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Dawdler:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection((self._upstream.hostname or "", self._upstream.port or 0))
        time.sleep(self._seconds)
        threading.Thread(target=_pour, args=(server, client), daemon=True).start()
        _pour(client, server)


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(2**16):
            target.sendall(piece)
    except OSError:
        return  # one of the two has gone
