"""Make what a recording holds comparable: ids, times and addresses get stand-ins, and the rest is left out.

    python tests/trim_genuine.py --into tests/golden/genuine --instead /home/me/runs=/runs RECORDS...

The recordings (`record_genuine.py` writes such) are taken to be of one server, in the order they are given.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import typer
from genuine import ANEW, Json, endpoint, load

MADE_BY = {"tasks.create": "task", "projects.create": "project", "models.create": "model"}
WHO = {"user": "{user}", "last_changed_by": "{user}", "company": "{company}", "token": "{token}"}
KEPT = ("result_code", "result_subcode", "result_msg")
PARAMETERS = 8  # of a section; a hundred of them say nothing more
SEARCH = re.compile(r"hyperparams\.[^.]+\.([^.]+)\.value")
COMPANY = re.compile(r"company=\w+")
ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


class Trimmer:
    """Trims exchange after exchange; what was met stays known."""

    def __init__(self, instead: dict[str, str], searched: set[str]) -> None:
        self._instead = instead
        self._searched = searched  # parameters that stay, since tasks are looked up by them
        self._ids: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self._parameters: dict[str, set[str]] = {}  # that stay, by section

    def trim(self, recorded: Json, sizes: dict[str, int]) -> list[Json]:
        """Give what is kept of an exchange, behind the making of a project that was there before it.

        ``sizes`` are the bytes of the files that are uploaded, where they are known, by path.
        """
        before = []
        name = endpoint(recorded)
        recorded = self._with_fewer_parameters(recorded)
        data = recorded["reply"].get("data") if isinstance(recorded["reply"], dict) else None
        if name in MADE_BY and data:
            self._name(data["id"], MADE_BY[name])
        for project in (data or {}).get("projects") or []:
            if project["id"] not in self._ids:
                self._name(project["id"], "project")
                before.append(self._setup(project))
        kept = {key: recorded[key] for key in ("server", "method")}
        kept |= {"path": self._neutral(recorded["path"]), "request": self._neutral(recorded["request"])}
        if recorded["status"] == 401:
            kept["headers"] = {"Authorization": "Bearer malformed"}  # no recording holds a token
        kept["status"] = recorded["status"]
        if name == "files:POST":
            kept["request"] = {"files": {self._neutral(p): sizes.get(p, 1) for p in recorded["reply"]}}
        if isinstance(recorded["reply"], dict) and "meta" in recorded["reply"]:
            meta = {key: self._neutral(recorded["reply"]["meta"][key]) for key in KEPT}
            kept["reply"] = {"meta": meta, "data": self._answer(data)}
        else:
            kept["reply"] = self._answer(recorded["reply"])
        return [*before, kept]

    def _with_fewer_parameters(self, recorded: Json) -> Json:
        """Leave out the same parameters of a section wherever they are written or read."""
        request, reply = recorded["request"], recorded["reply"]
        match request:
            case {"hyperparams": list(items)}:
                kept = [item for item in items if self._stays(item["section"], item["name"])]
                request = request | {"hyperparams": kept}
        match reply:
            case {"data": {"tasks": list(tasks)}}:
                fewer = [
                    task | self._fewer(task["hyperparams"]) if "hyperparams" in task else task
                    for task in tasks
                ]
                reply = reply | {"data": reply["data"] | {"tasks": fewer}}
        return recorded | {"request": request, "reply": reply}

    def _fewer(self, sections: Json) -> Json:
        return {
            "hyperparams": {
                section: {name: item for name, item in items.items() if self._stays(section, name)}
                for section, items in sections.items()
            }
        }

    def _stays(self, section: str, name: str) -> bool:
        stay = self._parameters.setdefault(section, set())
        if len(stay) < PARAMETERS:
            stay.add(name)
        return name in stay | self._searched

    def _setup(self, project: Json) -> Json:
        body = {"name": project["name"]}
        reply = {"meta": {"result_code": 200, "result_subcode": 0}, "data": {"id": self._ids[project["id"]]}}
        exchange = {"server": "setup", "method": "POST", "path": "/projects.create", "request": body}
        return exchange | {"status": 200, "reply": reply}

    def _name(self, identity: str, kind: str) -> str:
        if identity not in self._ids:
            self._numbers[kind] += 1
            self._ids[identity] = f"{{{kind}-{self._numbers[kind]}}}"
        return self._ids[identity]

    def _neutral(self, value: Any) -> Any:
        if isinstance(value, str):
            value = ID.sub(lambda match: self._ids.get(match.group(), match.group()), value)
            value = COMPANY.sub("company={company}", value)
            for text, other in self._instead.items():
                value = value.replace(text, other)
            # a request carries on where a reply ended
            return self._ids.get(value, value)
        if isinstance(value, dict):
            return {self._neutral(key): self._neutral(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._neutral(inner) for inner in value]
        return value

    def _answer(self, value: Any) -> Any:
        """Make a reply neutral: in it, and only in it, stand the server's times."""
        if isinstance(value, dict):
            return {self._neutral(key): self._field(key, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._answer(inner) for inner in value]
        if isinstance(value, str):
            for standin, pattern in ANEW.items():
                if re.fullmatch(pattern, value):
                    return standin
        return self._neutral(value)

    def _field(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return self._answer(value)
        return self._name(value, "scroll") if name == "scroll_id" else WHO.get(name) or self._answer(value)


def sizes_after(recording: Sequence[Json]) -> list[dict[str, int]]:
    """Give, for each exchange, the bytes of the files as they are read after it, by path."""
    known: dict[str, int] = {}
    after = []
    for recorded in reversed(recording):
        after.append(dict(known))
        if endpoint(recorded) == "files:GET" and recorded["status"] == 200:
            known[unquote(recorded["path"].lstrip("/"))] = recorded["reply"]["bytes"]
    return after[::-1]


def main(
    records: Annotated[list[Path], typer.Argument(help="Recordings, in order.")],
    into: Annotated[Path, typer.Option(help="Where the trimmed ones are written.")],
    instead: Annotated[list[str] | None, typer.Option(help="TEXT=OTHER, such as a path.")] = None,
) -> None:
    """Trim recordings."""
    recordings = {path: load(path) for path in records}
    everything = [exchange for recording in recordings.values() for exchange in recording]
    names = {SEARCH.fullmatch(field) for exchange in everything for field in exchange["request"] or ()}
    searched = {unquote(match[1]) for match in names if match}
    trimmer = Trimmer(dict(text.split("=", 1) for text in instead or []), searched)
    sizes = iter(sizes_after(everything))
    into.mkdir(parents=True, exist_ok=True)
    for number, (path, recording) in enumerate(recordings.items(), 1):
        kept = [new for exchange in recording for new in trimmer.trim(exchange, next(sizes))]
        lines = "".join(json.dumps(exchange, separators=(",", ":")) + "\n" for exchange in kept)
        (into / f"{number:02}-{path.name}").write_text(lines)


if __name__ == "__main__":
    typer.run(main)
