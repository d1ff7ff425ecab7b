"""Record what the tool and a ClearML server say to each other, to hold the double against it.

    python tests/record_genuine.py RECORDS

The server is the one that CLEARML_* variables or clearml.conf name; what is made there has a project of its
own, and is deleted in the end. The tool runs as ever, with a proxy before the API server and one before the
file server that write down each exchange, without keys, tokens and addresses: a line of JSON with server,
method, path, request, status, reply and seconds, in a file for each course. `trim_genuine.py` then makes them
comparable.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import requests
import typer
from clearml.backend_api import Session
from clearml.backend_api.session.defs import ENV_ACCESS_KEY, ENV_SECRET_KEY
from clearml.config import config_obj
from double.wire import Endpoint, Incoming, Reply
from server_matrix import artifacts, console, deletions, matrix, moves

from yolo_clearml.sync.ledger import LEDGER_NAME

Json = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
# of a connection, not of what is asked for or answered
HOP = {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding"}


class Proxy:
    """Passes on what it is asked, and writes it down."""

    def __init__(self, name: str, upstream: str, told: Callable[[Json], object]) -> None:
        self._name = name
        self._upstream = upstream.rstrip("/")
        self._told = told
        self._http = threading.local()
        self.endpoint = Endpoint(self._respond)

    def _respond(self, incoming: Incoming) -> Reply:
        if not hasattr(self._http, "session"):
            self._http.session = requests.Session()
        began = time.monotonic()
        headers = {name: text for name, text in incoming.headers.items() if name not in HOP}
        answer = self._http.session.request(
            incoming.method,
            self._upstream + incoming.target,
            headers=headers | {"accept-encoding": "identity"},
            data=incoming.body,
            allow_redirects=False,
            timeout=120,
        )
        kind = answer.headers.get("Content-Type", "")
        self._told(
            {
                "server": self._name,
                "method": incoming.method,
                "path": re.sub(r"^/v[\d.]+", "", incoming.target),
                "request": self._request(incoming),
                "status": answer.status_code,
                "reply": self._reply(incoming, answer, kind),
                "seconds": round(time.monotonic() - began, 4),
            }
        )
        kept = {name: text for name, text in answer.headers.items() if name.lower() not in HOP}
        kept.pop("Content-Type", None)
        return Reply(answer.status_code, answer.content, kind, kept)

    @staticmethod
    def _request(incoming: Incoming) -> Any:
        kind = incoming.headers.get("content-type", "")
        if not incoming.body:
            return None
        if "json-lines" in kind:
            return {"lines": [json.loads(line) for line in incoming.body.splitlines()]}
        if "multipart" in kind:
            return {"bytes": len(incoming.body), "type": "multipart/form-data"}
        return json.loads(incoming.body)

    @staticmethod
    def _reply(incoming: Incoming, answer: requests.Response, kind: str) -> Any:
        if incoming.method == "GET" and "json" not in kind:
            return {"bytes": len(answer.content), "type": kind}
        try:
            return answer.json()
        except ValueError:
            return {"bytes": len(answer.content), "type": kind}


class Recording:
    """The two proxies, a project of our own behind them, and what was exchanged since `take`."""

    def __init__(self, work: Path) -> None:
        own = uuid.uuid4().hex[:8]
        self.work = work
        self.failed = False
        self.project = f"yolo_clearml records {own}"
        self.place = f"records-{own}"  # in what a run says of itself: its key is no other's
        self._exchanges: list[Json] = []
        self._lock = threading.Lock()
        self._uploaded: set[str] = set()
        self._token = ""
        api, files = Session.get_api_server_host(), Session.get_files_server_host()
        self._proxies = (Proxy("api", api, self._tell), Proxy("files", files, self._tell))
        self.api, self.files = (proxy.endpoint for proxy in self._proxies)

    def _tell(self, exchange: Json) -> None:
        with self._lock:
            self._exchanges.append(exchange)
            if exchange["server"] == "files" and exchange["method"] == "POST":
                self._uploaded.update(path for path in exchange["reply"] if isinstance(path, str))

    def login(self) -> None:
        """Log in, for requests without the tool."""
        key = ENV_ACCESS_KEY.get() or config_obj.get("api.credentials.access_key", None)
        secret = ENV_SECRET_KEY.get() or config_obj.get("api.credentials.secret_key", None)
        answer = requests.post(f"{self.api.url}/auth.login", auth=(key, secret), timeout=60)
        answer.raise_for_status()
        self._token = answer.json()["data"]["token"]

    def ask(self, endpoint: str, body: Any, token: str | None = None) -> Json:
        """Send one request as it is; gives the reply's data, of whatever status."""
        headers = {"Authorization": f"Bearer {token or self._token}"}
        url = f"{self.api.url}/v2.34/{endpoint}"
        if endpoint == "events.add_batch":
            lines = "\n".join(json.dumps(line) for line in body)
            headers["Content-Type"] = "application/json-lines"
            answer = requests.post(url, data=lines, headers=headers, timeout=60)
        else:
            answer = requests.post(url, json=body, headers=headers, timeout=60)
        data: Json = answer.json().get("data") or {}
        return data

    def tool(self, *arguments: str | Path) -> None:
        """Run the tool, with the proxies as its servers."""
        environ = os.environ | {"CLEARML_API_HOST": self.api.url, "CLEARML_FILES_HOST": self.files.url}
        environ |= {"YOLO_CLEARML_STATE_DIR": str(self.work / "state")}
        command = [sys.executable, "-m", "yolo_clearml", *map(str, arguments)]
        ended = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, timeout=600)
        if ended.returncode:  # what was said up to there is the truth all the same
            self.failed = True
            typer.echo(f"yolo-clearml {arguments[0]} ended with status {ended.returncode}.", err=True)

    def run(self, name: str) -> Path:
        """Unpack a run, once, with file times kept; it says of itself that it lay in a place of its own."""
        target = self.work / name
        if target.exists():
            return target
        with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
            archive.extraction_filter = lambda member, path: member  # our own files, times and all
            for member in archive.getmembers():
                member.name = str(Path(member.name).relative_to("run"))
                archive.extract(member, target)
        args = target / "args.yaml"
        times = args.stat()
        text = re.sub(r"(?m)^save_dir:.*\n?", "", args.read_text())
        args.write_text(f"{text.rstrip()}\nsave_dir: /{self.place}/{name}\n")
        os.utime(args, ns=(times.st_atime_ns, times.st_mtime_ns))
        return target

    def take(self) -> list[Json]:
        """Give what was recorded since the last time, with nothing in it of this machine, and no token."""
        with self._lock:
            exchanges, self._exchanges = self._exchanges, []
        instead = {self.project: "records", self.place: "records", str(self.work): "/runs"}
        for proxy, name in zip(self._proxies, ("api", "files"), strict=True):
            url = proxy.endpoint.url
            instead |= {url: f"http://{name}.example", quote(url, safe=""): f"http%3A%2F%2F{name}.example"}
        for exchange in exchanges:
            if exchange["path"] == "/auth.login" and exchange["status"] == 200:
                exchange["reply"]["data"]["token"] = "TOKEN"
        text = json.dumps(exchanges)
        for was, becomes in instead.items():
            text = text.replace(was, becomes)
        taken: list[Json] = json.loads(text)
        return taken

    def clean_up(self) -> None:
        """Delete what was made: the project with its tasks and models, and the files."""
        self.login()
        for project in self.ask("projects.get_all", {"name": f"^{self.project}", "search_hidden": True})[
            "projects"
        ]:
            inside = {"project": [project["id"]], "only_fields": ["id"], "search_hidden": True}
            for task in self.ask("tasks.get_all", inside)["tasks"]:
                self.ask("tasks.delete", {"task": task["id"], "force": True})
            for model in self.ask("models.get_all", inside)["models"]:
                self.ask("models.delete", {"model": model["id"], "force": True})
            self.ask("projects.delete", {"project": project["id"], "force": True})
        for path in self._uploaded:  # those of models are the server's to delete, sooner or later
            headers = {"Authorization": f"Bearer {self._token}"}
            requests.delete(f"{self.files.url}/{quote(path)}", headers=headers, timeout=60)

    @contextmanager
    def open(self) -> Iterator[None]:
        for proxy in self._proxies:
            proxy.endpoint.start()
        try:
            yield
        finally:
            for proxy in self._proxies:
                proxy.endpoint.stop()


# -- courses ----------------------------------------------------------------------------------------------

FINISHED, OTHER, STOPPED = "v8.4.190-segment", "v8.4.190-classify", "v8.4.190-detect-killed"
THREE = ("v8.4.190-detect", "v8.3.100-detect", "v8.1.0-segment")


def _ledger_lost(recording: Recording) -> None:
    (recording.run(FINISHED) / LEDGER_NAME).unlink()
    recording.tool("upload", recording.run(FINISHED), "--project", recording.project)


def _three(recording: Recording) -> None:
    runs = [recording.run(name) for name in THREE]
    recording.tool("upload", *runs, "--project", f"{recording.project}/three", "-j", "3")


def _task_id(recording: Recording) -> None:
    recording.login()
    body = {"name": "mine", "type": "training"}
    task = recording.ask("tasks.create", body | {"project": _project(recording)})["id"]
    recording.tool("upload", recording.run("v8.4.190-detect-noplots"), "--task-id", task)


def _project(recording: Recording) -> str:
    found = recording.ask("projects.get_all", {"name": f"^{recording.project}$"})["projects"]
    made: str = (found or [recording.ask("projects.create", {"name": recording.project})])[0]["id"]
    return made


def _by_hand(course: Callable[..., None], name: str) -> Callable[[Recording], None]:
    def record(recording: Recording) -> None:
        recording.login()
        course(recording.ask, f"{recording.project} {name}")

    return record


def _tool(*arguments: str, run: str = FINISHED) -> Callable[[Recording], None]:
    command, *options = arguments

    def record(recording: Recording) -> None:
        where = ["--project", recording.project] if command == "upload" else []
        recording.tool(command, recording.run(run), *where, *options)

    return record


# in this order: the later ones build on the first
COURSES: dict[str, Callable[[Recording], None]] = {
    "upload-finished": _tool("upload"),
    "verify": _tool("verify"),
    "upload-force": _tool("upload", "--force"),
    "upload-ledger-lost": _ledger_lost,
    "upload-new": _tool("upload", "--new"),
    "upload-and-verify": _tool("upload", "--verify", run=OTHER),
    "upload-stopped": _tool("upload", run=STOPPED),
    "upload-three": _three,
    "upload-task-id": _task_id,
    "matrix": _by_hand(matrix, "matrix"),
    "deletions": _by_hand(deletions, "deletions"),
    "console": _by_hand(console, "console"),
    "moves": _by_hand(moves, "moves"),
    "artifacts": _by_hand(artifacts, "artifacts"),
}


def main(
    records: Annotated[Path, typer.Argument(help="A new folder for the recordings.")],
    only: Annotated[list[str] | None, typer.Option(help="A course; default: all.")] = None,
    emulator: Annotated[bool, typer.Option(help="Mark them as not of a genuine server.")] = False,
) -> None:
    """Record the courses against the server that is configured."""
    unknown = set(only or ()) - set(COURSES)
    if unknown:
        raise typer.BadParameter(f"no such course: {', '.join(unknown)}; there are {', '.join(COURSES)}")
    records.mkdir(parents=True)
    work = Path(tempfile.mkdtemp(prefix="records-"))
    recording = Recording(work)
    try:
        with recording.open():
            try:
                for name in only or COURSES:
                    COURSES[name](recording)
                    exchanges = recording.take()
                    if emulator:
                        exchanges = [
                            e | {"server": "emulator"} if e["server"] == "api" else e for e in exchanges
                        ]
                    lines = "".join(json.dumps(e, separators=(",", ":")) + "\n" for e in exchanges)
                    (records / f"{name}.jsonl").write_text(lines)
                    typer.echo(f"{records / name}.jsonl: {len(exchanges)} exchanges")
            finally:
                recording.clean_up()
    finally:
        shutil.rmtree(work)
    raise typer.Exit(recording.failed)


if __name__ == "__main__":
    typer.run(main)
