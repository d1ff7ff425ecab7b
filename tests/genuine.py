"""Exchanges with the genuine server, and how the double is held against them.

A file of exchanges has one JSON object a line: ``server`` ("api", "files", "setup" for what was there
before, "emulator" for the API of one that is not genuine), ``method``, ``path``, ``request``, ``status`` and
``reply``. What no two servers share has a stand-in, such as ``{task-1}`` or ``{time}``; one with a number
stands for the same text wherever it occurs.
`trim_genuine.py` makes such files from recordings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from double import ClearMLDouble

GENUINE = Path(__file__).parent / "golden" / "genuine"

Json = dict[str, Any]

STANDIN = re.compile(r"\{[a-z]+(?:-\d+)?\}")
FILES = "http://files.example"  # stands for the file server's address
ANEW = {  # stand for another text each time
    "{time}": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00",
    "{instant}": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "{token}": r"[\w-]+\.[\w-]+\.[\w-]+",
}

# The fields of a reply that are not compared, by endpoint, with why. All others are, and they are what the
# tool reads, and more.
NOT_COMPARED: dict[str, dict[str, str]] = {
    "tasks.get_by_id": {
        "unique_metrics": "statistics nobody reads",
        "metric_stats": "statistics nobody reads",
        "report_assets": "of reports, which the double has none of",
    },
    "events.get_task_events": {"plot_len": "of the text with the addresses it had"},
    "events.get_task_log": {"timestamp": "when it came, where nobody said when it was"},
    "files:GET": {"type": "what the system takes a name's ending for"},
}
OF_AN_EMULATOR = {"tasks.publish": {"output": "the genuine server has it"}}
# The refusals whose words are not compared: the codes are.
REWORDED = {
    ("models.create", 400, 12): "a wrong type in the words of jsonschema",
}


def load(path: Path) -> list[Json]:
    """Read a file of exchanges."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def endpoint(exchange: Mapping[str, Any]) -> str:
    """Name what was asked for as the double does."""
    if exchange["server"] == "files":
        return f"files:{exchange['method']}"
    return str(exchange["path"].removeprefix("/"))


class Replay:
    """Sends what was sent then to the double, in order, and gives where it answers otherwise."""

    def __init__(self, server: ClearMLDouble) -> None:
        self._server = server
        self._here: dict[str, str] = {}  # what a stand-in stands for on this server
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {server.token()}"

    def differences(self, exchange: Json) -> list[str]:
        """Repeat one exchange; give each difference of the reply, as a sentence."""
        name = endpoint(exchange)
        reply = self._files(exchange) if exchange["server"] == "files" else self._api(exchange)
        told: Any = exchange["reply"]
        if name == "files:GET":
            answer: Any = {"bytes": len(reply.content), "type": reply.headers["Content-Type"]}
        elif name == "files:POST":
            answer = reply.json()
        else:
            envelope = reply.json()
            answer = {key: envelope["meta"][key] for key in told["meta"]}
            answer = {"meta": answer, "data": envelope["data"]}
            if (name, exchange["status"], told["meta"]["result_subcode"]) in REWORDED:
                told = {**told, "meta": {**told["meta"], "result_msg": answer["meta"]["result_msg"]}}
        if exchange["status"] != reply.status_code:
            told = {"status": exchange["status"], **told} if isinstance(told, dict) else told
            answer = {"status": reply.status_code, **answer} if isinstance(answer, dict) else answer
        left_out = NOT_COMPARED.get(name, {})
        if exchange["server"] == "emulator":
            left_out = left_out | OF_AN_EMULATOR.get(name, {})
        return [f"{name} {text}" for text in self._differences("", told, answer, left_out)]

    def _api(self, exchange: Json) -> requests.Response:
        url = f"{self._server.api_url}/v2.34{exchange['path']}"
        request = self._filled(exchange["request"])
        headers = {name: str(value) for name, value in exchange.get("headers", {}).items()}
        if endpoint(exchange) == "auth.login":
            keys = (self._server.access_key, self._server.secret_key)
            return self._http.post(url, json=request, auth=keys, timeout=30)
        if endpoint(exchange) == "events.add_batch":
            headers["Content-Type"] = "application/json-lines"
            lines = (request or {}).get("lines", [])
            body = "\n".join(json.dumps(line) for line in lines)
            return self._http.post(url, data=body, headers=headers, timeout=30)
        return self._http.post(url, data=json.dumps(request), headers=headers, timeout=30)

    def _files(self, exchange: Json) -> requests.Response:
        if exchange["method"] == "GET":
            return self._http.get(self._server.files_url + self._filled(exchange["path"]), timeout=30)
        sizes: dict[str, int] = self._filled(exchange["request"]["files"])
        files = {path: (path, b"\0" * size) for path, size in sizes.items()}
        return self._http.post(self._server.files_url, files=files, timeout=30)

    def _filled(self, value: Any) -> Any:
        """Put this server's ids and addresses in the place of the stand-ins."""
        if isinstance(value, str):
            # one that was never met stays, and is refused as the unknown id that it is
            text = STANDIN.sub(lambda match: self._here.get(match.group(), match.group()), value)
            return text.replace(FILES, self._server.files_url)
        if isinstance(value, dict):
            return {self._filled(key): self._filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner) for inner in value]
        return value

    def _differences(
        self, place: str, told: Any, answer: Any, not_compared: Mapping[str, str]
    ) -> Iterator[str]:
        match told, answer:
            case dict(), dict():
                told = {self._filled(key): value for key, value in told.items() if key not in not_compared}
                answer = {key: value for key, value in answer.items() if key not in not_compared}
                for key in told.keys() | answer.keys():
                    inner = f"{place}.{key}"
                    if key not in answer:
                        yield f"{inner}: {_short(told[key])} is missing"
                    elif key not in told:
                        yield f"{inner}: {_short(answer[key])} is too much"
                    else:
                        yield from self._differences(inner, told[key], answer[key], not_compared)
            case list(), list() if len(told) == len(answer):
                for number, (one, other) in enumerate(zip(told, answer, strict=True)):
                    yield from self._differences(f"{place}[{number}]", one, other, not_compared)
            case str(), str():
                if not self._same(told, answer):
                    yield f"{place}: {_short(self._filled(told))} was expected, not {_short(answer)}"
            case _:
                if type(told) is not type(answer) or told != answer:
                    yield f"{place}: {_short(told)} was expected, not {_short(answer)}"

    def _same(self, told: str, answer: str) -> bool:
        """Compare texts; a stand-in that is met for the first time stands for what is there, from now on."""
        fresh: list[str] = []
        pattern = ""
        position = 0
        for match in STANDIN.finditer(told):
            standin = match.group()
            pattern += re.escape(self._filled(told[position : match.start()]))
            position = match.end()
            if standin in ANEW:
                pattern += ANEW[standin]
            elif standin in self._here:
                pattern += re.escape(self._here[standin])
            elif standin in fresh:
                pattern += f"(?P=p{fresh.index(standin)})"
            else:
                pattern += f"(?P<p{len(fresh)}>.+)"
                fresh.append(standin)
        pattern += re.escape(self._filled(told[position:]))
        found = re.fullmatch(pattern, answer, re.DOTALL)
        if found is None:
            return False
        self._here |= {standin: found[f"p{number}"] for number, standin in enumerate(fresh)}
        return True


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
