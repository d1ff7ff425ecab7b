"""The file server: uploads by multipart POST, files by GET, HEAD and DELETE."""

from __future__ import annotations

import json
import mimetypes
import posixpath
import re
import threading
from urllib.parse import unquote, urlsplit

from .wire import Incoming, Reply

HTML = "text/html; charset=utf-8"


def _page(status: int, title: str) -> Reply:
    return Reply(
        status, f"<!doctype html>\n<title>{status} {title}</title>\n<h1>{title}</h1>\n".encode(), HTML
    )


def normal_path(path: str) -> str | None:
    """Return the path as the server stores it, or None when it leads out of the store."""
    normal = posixpath.normpath(path.lstrip("/"))
    return None if normal in (".", "..") or normal.startswith("../") else normal


def _parameter(header: str, name: str) -> str | None:
    """Return a parameter of a Content-Disposition header as werkzeug reads it."""
    match = re.search(rf";\s*{name}\*=([\w-]+)''([^;]*)", header, re.IGNORECASE)
    if match:
        return unquote(match.group(2).strip(), encoding=match.group(1))
    match = re.search(rf';\s*{name}="((?:[^"\\]|\\.)*)"', header, re.IGNORECASE)
    if match:
        # a backslash quotes what follows it, and so a literal one is dropped
        return re.sub(r"\\(.)", r"\1", match.group(1)).replace("%22", '"')
    match = re.search(rf";\s*{name}=([^;\s]+)", header, re.IGNORECASE)
    return match.group(1) if match else None


def uploads(incoming: Incoming) -> list[tuple[str, bytes]]:
    """Return the field name and the content of each file in a multipart body."""
    match = re.search(r'boundary="?([^";]+)"?', incoming.headers.get("content-type", ""))
    if match is None:
        return []
    found = []
    delimiter = b"\r\n--" + match.group(1).encode("latin-1")
    for part in (b"\r\n" + incoming.body).split(delimiter)[1:]:
        if part.startswith(b"--"):
            break
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        for line in head.decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() != "content-disposition":
                continue
            field = _parameter(value, "name")
            if field and _parameter(value, "filename") is not None:
                found.append((field, content))
    return found


class FileStore:
    """The files, by path."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.most_parts: int | None = None  # of a request that are stored, as a lesser server might
        self.most_bytes: int | None = None  # of a request, as a proxy limits them
        self.files: dict[str, bytes] = {}

    def handle(self, incoming: Incoming) -> Reply:
        """Answer one request."""
        if incoming.method == "POST":
            return self._upload(incoming)
        path = normal_path(unquote(urlsplit(incoming.target).path))
        with self.lock:
            content = self.files.get(path) if path else None
            if content is None or path is None:
                return _page(404, "Not Found")
            if incoming.method == "DELETE":
                del self.files[path]
                return Reply(200, path.encode(), HTML)
        return Reply(200, content, mimetypes.guess_type(path)[0] or "application/octet-stream")

    def _upload(self, incoming: Incoming) -> Reply:
        stored = []
        if self.most_bytes is not None and len(incoming.body) > self.most_bytes:
            return _page(413, "Request Entity Too Large")
        for field, content in uploads(incoming)[: self.most_parts]:
            path = normal_path(field)
            if path is None:
                return _page(404, "Not Found")
            if any(len(part.encode()) > 255 for part in path.split("/")):
                return _page(500, "Internal Server Error")
            with self.lock:
                self.files[path] = content
            # the genuine server names the path it was given, not the one it normalised
            stored.append(field.lstrip("/"))
        return Reply(200, json.dumps(stored).encode(), HTML)

    def remove(self, url: str) -> None:
        """Delete the file behind one of this server's URLs, if there is one."""
        path = normal_path(unquote(urlsplit(url).path))
        with self.lock:
            self.files.pop(path or "", None)
