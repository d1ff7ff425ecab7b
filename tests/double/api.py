"""The API server: credentials, the envelope, and one small function per endpoint."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from . import query, schemas
from .errors import COMPANY, ApiError, server_error, validation_error, wrong_status
from .events import VECTOR
from .state import (
    ARCHIVED,
    USER,
    Json,
    State,
    check_name,
    escape_key,
    metadata,
    parameter_value,
)
from .wire import Incoming, Reply

API_VERSION = "2.31"
SERVER_VERSION = "2.3.0"
LARGEST_BODY = 15 * 1024 * 1024  # bytes
TOKEN_LIFETIME = 30 * 24 * 3600.0  # seconds

INVALID_CREDENTIALS = "Unauthorized (invalid credentials) (failed to locate provided credentials)"
# What a 2.3.0 server has and the stock SDK asks for, of no consequence here.
STUBS: dict[str, Json] = {
    "workers.register": {},
    "workers.unregister": {},
    "workers.status_report": {},
    "workers.get_all": {"workers": []},
    "tasks.validate": {},
}

_PATH = re.compile(r"^/(?:v(?P<version>\d+(?:\.\d+)?)/)?(?P<name>\w+\.\w+)/?$")


class RefusedError(Exception):
    """A body that is no request at all: 400/0 before any endpoint sees it; 404 when there is none."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def endpoint_of(target: str) -> str:
    """Return `service.action` for a request's target, or the bare path when it has none."""
    path = urlsplit(target).path
    match = _PATH.match(path)
    return match["name"] if match else path


def envelope(
    endpoint: str, version: str, code: int, subcode: int, message: str, data: Any, details: Any = None
) -> bytes:
    """Return a reply's body."""
    call = uuid.uuid4().hex
    meta = {
        "id": call,
        "trx": call,
        "endpoint": {"name": endpoint, "requested_version": version, "actual_version": "1.0"},
        "result_code": code,
        "result_subcode": subcode,
        "result_msg": message,
        "error_stack": None,
        "error_data": details or {},
    }
    return json.dumps({"meta": meta, "data": data}).encode()


def _strict_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        # `Infinity` passes the server's parser, a literal that overflows does not
        raise RefusedError("Number too big to be stored in double")
    return value


_decoded = json.JSONDecoder(parse_float=_strict_float).decode


def _loads(text: bytes) -> Any:
    return _decoded(text.decode("utf-8", "surrogatepass"))


def parse_lines(body: bytes) -> list[Json]:
    """Return the objects of a body of JSON lines, or refuse it whole."""
    lines = []
    for number, line in enumerate(body.splitlines()):
        try:
            value = _loads(line)
        except (ValueError, RefusedError) as error:
            raise RefusedError(f"Failed to decode JSON object: {error} in batch item #{number}") from None
        if not isinstance(value, dict):
            raise RefusedError(f"json lines must contain objects, found: {type(value).__name__}")
        lines.append(value)
    return lines


def parse_body(incoming: Incoming) -> Json:
    """Return the request's data: its JSON body, else what stands in the address."""
    if incoming.body:
        try:
            value = _loads(incoming.body)
        except (ValueError, RefusedError) as error:
            raise RefusedError(f"Failed to decode JSON object: {error}") from None
        if not isinstance(value, dict):
            raise RefusedError("The request body must be a JSON object")
        return value
    data: Json = {}
    for name, text in parse_qsl(urlsplit(incoming.target).query):
        number = float(text) if "." in text else int(text) if text.isdigit() else None
        data[name] = text if number is None else number
        if text.lower() in ("true", "false"):
            data[name] = text.lower() == "true"
    return data


class Credentials:
    """Who may talk to the server: one pair of keys, and tokens signed with a secret that can be replaced."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.access_key = uuid.uuid4().hex[:20].upper()
        self.secret_key = uuid.uuid4().hex
        self.refuse = False
        self._signing = uuid.uuid4().bytes

    def expire_tokens(self) -> None:
        """Make every token handed out so far worthless."""
        self._signing = uuid.uuid4().bytes

    def token(self, lifetime: float) -> str:
        """Return a new token, as a JWT."""
        now = self._state.clock()
        claims = {
            "iat": int(now),
            "exp": int(now + lifetime),
            "auth_type": "Bearer",
            "identity": {"user": USER, "company": COMPANY, "role": "admin", "user_name": "user"},
            "env": "",
            "api_version": API_VERSION,
            "server_version": SERVER_VERSION,
            "server_build": "0",
            "feature_set": "basic",
        }
        signed = f"{_base64({'alg': 'HS256', 'typ': 'JWT'})}.{_base64(claims)}"
        return f"{signed}.{self._signature(signed)}"

    def _signature(self, signed: str) -> str:
        digest = hmac.new(self._signing, signed.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def check(self, header: str | None, basic_is_fine: bool) -> None:
        """Refuse a request whose Authorization header is missing or wrong."""
        if self.refuse:
            raise ApiError(401, 22, INVALID_CREDENTIALS)
        kind, _, value = (header or "").partition(" ")
        if not header:
            raise ApiError(401, 20, "Unauthorized (missing credentials)")
        if kind == "Basic" and basic_is_fine:
            self._check_keys(value)
        elif kind == "Bearer":
            self._check_token(value)
        else:
            raise ApiError(401, 10, "Unauthorized (bad authentication header type)", type=kind)

    def _check_keys(self, value: str) -> None:
        try:
            given = base64.b64decode(value).decode()
        except ValueError:
            raise ApiError(401, 21, "Unauthorized (malformed credentials)") from None
        if given != f"{self.access_key}:{self.secret_key}":
            raise ApiError(401, 22, INVALID_CREDENTIALS)

    def _check_token(self, token: str) -> None:
        signed, _, signature = token.rpartition(".")
        if "." not in signed:
            raise _invalid_token("Not enough segments")
        if not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            raise _invalid_token("Signature verification failed")
        payload = signed.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if claims["exp"] <= self._state.clock():
            raise _invalid_token("Signature has expired")


def _invalid_token(reason: str) -> ApiError:
    return ApiError(401, 30, "Invalid token (invalid jwt token)", reason=reason)


def _stub(data: Json, body: Json) -> Json:
    return dict(data)


def _base64(value: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class Api:
    """Answers requests out of a State."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.credentials = Credentials(state)
        self.token_lifetime = TOKEN_LIFETIME
        events = state.events
        self.endpoints: dict[str, Callable[[Json], Any]] = {
            "auth.login": self._login,
            "debug.ping": lambda body: {"msg": "ClearML server"},
            "users.get_current_user": self._current_user,
            "projects.create": lambda body: {"id": state.create_project(body)},
            "projects.get_all": partial(self._listed, "projects", join=False),
            "projects.get_all_ex": partial(self._listed, "projects", join=True),
            "projects.get_by_id": lambda body: {
                "project": query.project_fields(state.project(body["project"]), None)
            },
            "projects.update": self._update_project,
            "projects.delete": self._delete_project,
            "tasks.create": lambda body: {"id": state.create_task(body)},
            "tasks.get_all": partial(self._listed, "tasks", join=False),
            "tasks.get_all_ex": partial(self._listed, "tasks", join=True),
            "tasks.get_by_id": self._task_by_id,
            "tasks.edit": state.edit_task,
            "tasks.update": state.update_task,
            "tasks.edit_hyper_params": self._edit_hyper_params,
            "tasks.delete_hyper_params": self._delete_hyper_params,
            "tasks.get_hyper_params": self._get_hyper_params,
            "tasks.edit_configuration": self._edit_configuration,
            "tasks.delete_configuration": self._delete_configuration,
            "tasks.edit_runtime": self._edit_runtime,
            "tasks.started": state.start,
            "tasks.stop": state.stop,
            "tasks.stopped": lambda body: state.finish(body, "stopped"),
            "tasks.completed": self._completed,
            "tasks.failed": lambda body: state.finish(body, "failed"),
            "tasks.publish": state.publish,
            "tasks.reset": state.reset,
            "tasks.delete": state.delete_task,
            "tasks.ping": self._ping,
            "tasks.add_or_update_model": state.link_model,
            "tasks.delete_models": self._delete_models,
            "tasks.add_or_update_artifacts": self._add_artifacts,
            "tasks.delete_artifacts": self._delete_artifacts,
            "tasks.archive": lambda body: self._archive(body, True),
            "tasks.unarchive": lambda body: self._archive(body, False),
            "tasks.set_requirements": self._set_requirements,
            "models.create": lambda body: {"id": state.create_model(body), "created": True},
            "models.edit": state.edit_model,
            "models.update": state.edit_model,
            "models.get_all": partial(self._listed, "models", join=False),
            "models.get_all_ex": partial(self._listed, "models", join=True),
            "models.get_by_id": lambda body: {
                "model": query.project_fields(state.model(body["model"]), None)
            },
            "models.set_ready": self._set_ready,
            "models.delete": state.delete_model,
            "models.add_or_update_metadata": self._model_metadata,
            "events.add": self._add_event,
            "events.scalar_metrics_iter_raw": events.scalar_metrics_iter_raw,
            "events.scalar_metrics_iter_histogram": events.histogram,
            "events.get_task_single_value_metrics": events.single_value_metrics,
            "events.get_task_plots": events.task_plots,
            "events.get_task_events": events.task_events,
            "events.get_task_log": events.task_log,
            "events.get_task_metrics": events.task_metrics,
            "events.get_scalar_metrics_and_variants": events.metrics_and_variants,
            "events.get_vector_metrics_and_variants": lambda body: events.metrics_and_variants(body, VECTOR),
            "queues.get_all": lambda body: {"queues": query.get_all(state.queues.values(), body)},
        }
        for name, data in STUBS.items():
            self.endpoints[name] = partial(_stub, data)
        self._worker = ""

    def handle(
        self, incoming: Incoming, endpoint: str, *, lines: list[Json] | None = None, fewer: bool = False
    ) -> Reply:
        """Answer one request; `fewer` leaves out the last event of a batch and says so.

        ``lines`` are those of its body, where somebody has read them.
        """
        match = _PATH.match(urlsplit(incoming.target).path)
        version = (match and match["version"]) or "1.0"
        try:
            data = self._process(incoming, endpoint, version, lines, fewer)
        except RefusedError as error:
            body = envelope(endpoint, version, error.status, 0, str(error), {})
            return Reply(error.status, body)
        except ApiError as error:
            return Reply(
                error.code, envelope(endpoint, version, error.code, error.subcode, error.message, {})
            )
        except Exception as error:  # noqa: BLE001  a request nobody expected is a 500, not a lost reply
            return Reply(500, envelope(endpoint, version, 500, 0, f"General server error ({error!r})", {}))
        return Reply(200, data)

    def _process(
        self, incoming: Incoming, endpoint: str, version: str, lines: list[Json] | None, fewer: bool
    ) -> bytes:
        if len(incoming.body) > LARGEST_BODY:
            raise ApiError(413, 0, "Request entity too large")
        batch = endpoint == "events.add_batch"
        call = self.endpoints.get(endpoint)
        if "." not in endpoint:
            raise RefusedError(f"Invalid request path {endpoint}")
        if call is None and not batch:
            raise RefusedError(f"Unable to find endpoint for name {endpoint} and version {version}", 404)
        if endpoint != "debug.ping":
            self.credentials.check(
                incoming.headers.get("authorization"), basic_is_fine=endpoint == "auth.login"
            )
        with self.state.lock:
            self._worker = incoming.headers.get("x-clearml-worker", "")
            if batch:
                data: Any = self._add_batch(self._lines(incoming) if lines is None else lines[:], fewer)
            else:
                assert call is not None
                request = parse_body(incoming)
                wrong = schemas.mismatch(endpoint, request)
                if wrong:
                    raise validation_error(wrong)
                data = call(request)
            # inside the lock: the data are the live objects
            return envelope(endpoint, version, 200, 0, "OK", data)

    # -- users, projects -----------------------------------------------------------------------

    def _login(self, body: Json) -> Json:
        return {"token": self.credentials.token(float(body.get("expiration_sec") or self.token_lifetime))}

    def _current_user(self, body: Json) -> Json:
        user = {"id": USER, "name": "user", "company": {"id": COMPANY, "name": "clearml"}, "role": "admin"}
        return {"user": user, "getting_started": None, "settings": {}}

    def _listed(self, kind: str, body: Json, *, join: bool) -> Json:
        """Answer a `get_all`, or a `get_all_ex`, which ``join``s what a document refers to."""
        collections: dict[str, dict[str, Json]] = {
            "projects": self.state.projects,
            "tasks": self.state.tasks,
            "models": self.state.models,
        }
        references = {
            "project": self.state.projects,
            "parent": collections[kind],
            "task": self.state.tasks,
            "user": {USER: {"id": USER, "name": "user"}},
            "company": {COMPANY: {"id": COMPANY, "name": "clearml"}},
        }
        only = body.get("only_fields")
        found = query.get_all(collections[kind].values(), body)
        if join:
            return {kind: [query.joined_fields(document, only, references) for document in found]}
        asked = "id" in query.asked_fields(only)
        return {kind: [query.project_fields(document, only, with_id=asked) for document in found]}

    def _update_project(self, body: Json) -> Json:
        project = self.state.project(body["project"])
        names = ("description", "tags", "system_tags", "default_output_destination")
        fields = {name: body[name] for name in names if body.get(name) is not None}
        project.update(fields)
        return {"updated": int(bool(fields)), "fields": fields}

    def _delete_project(self, body: Json) -> Json:
        project = self.state.project(body["project"])
        inside = [task for task in self.state.tasks.values() if task["project"] == project["id"]]
        if inside and not body.get("force"):
            raise ApiError(400, 402, "Project has associated tasks (use force=true to delete)")
        for task in inside:
            task["project"] = None
        del self.state.projects[project["id"]]
        return {"deleted": 1, "disassociated_tasks": len(inside)}

    # -- tasks ---------------------------------------------------------------------------------

    def _task_by_id(self, body: Json) -> Json:
        task = self.state.tasks.get(body["task"])
        if task is None:
            raise ApiError(400, 101, "Invalid task id", ids=f"({body['task']})")
        return {"task": query.project_fields(task, None)}

    def _edit_hyper_params(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        items = body["hyperparams"]
        for item in items:
            parameter_value(item.get("value"))
            if not item.get("section") or not item.get("name"):
                raise validation_error("Hyper parameter section and name cannot be empty")
        sections = {item["section"] for item in items}
        self.state.require_editable_parameters(task, sections, bool(body.get("force")))
        replace = body.get("replace_hyperparams")
        if replace == "all":
            task["hyperparams"] = {}
        elif replace == "section":
            for section in sections:
                task["hyperparams"].pop(section, None)
        for item in items:
            task["hyperparams"].setdefault(item["section"], {})[item["name"]] = dict(item)
        self._edited(task, sections)
        return {"updated": 1}

    def _edited(self, task: Json, sections: set[str]) -> None:
        # a user property is no sign of life: the watchdog does not see it
        if sections == {"properties"}:
            task["last_change"] = self.state.now()
        else:
            self.state.touch(task)

    def _delete_hyper_params(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        sections = {key["section"] for key in body["hyperparams"]}
        self.state.require_editable_parameters(task, sections, bool(body.get("force")))
        for key in body["hyperparams"]:
            if key.get("name"):
                task["hyperparams"].get(key["section"], {}).pop(key["name"], None)
            else:
                task["hyperparams"].pop(key["section"], None)
        self._edited(task, sections)
        return {"deleted": 1}

    def _get_hyper_params(self, body: Json) -> Json:
        params = []
        for task_id in body["tasks"]:
            sections = self.state.task(task_id)["hyperparams"].values()
            params.append(
                {"task": task_id, "hyperparams": [item for items in sections for item in items.values()]}
            )
        return {"params": params}

    def _edit_configuration(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        self.state.require_editable_parameters(task, ["configuration"], bool(body.get("force")))
        if body.get("replace_configuration"):
            task["configuration"] = {}
        for item in body["configuration"]:
            task["configuration"][item["name"]] = dict(item)
        self.state.touch(task)
        return {"updated": 1}

    def _delete_configuration(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        self.state.require_editable_parameters(task, ["configuration"], bool(body.get("force")))
        for name in body["configuration"]:
            task["configuration"].pop(name, None)
        self.state.touch(task)
        return {"deleted": 1}

    def _edit_runtime(self, body: Json) -> Json:
        if body.get("task") is None:
            raise validation_error("error for field 'task'. field is required!")
        task = self.state.task(body["task"])
        self.state.require_unfinished(task)
        added, removed = body.get("add_or_update") or {}, body.get("remove") or []
        if not added and not removed:
            return {"updated": 0}
        task["runtime"].update({escape_key(key): value for key, value in added.items()})
        for key in removed:
            task["runtime"].pop(escape_key(key), None)
        self.state.touch(task)
        return {"updated": 1}

    def _completed(self, body: Json) -> Json:
        result = self.state.finish(body, "completed")
        if not body.get("publish"):
            return {**result, "published": 0}
        published = self.state.publish({"task": body["task"], "force": body.get("force")})
        return {**published, "published": 1}

    def _ping(self, body: Json) -> Json:
        self.state.touch(self.state.task(body["task"]), active=True)
        return {}

    def _delete_models(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        self.state.require_unfinished(task)
        for gone in body["models"]:
            items = task["models"].get(gone["type"]) or []
            task["models"][gone["type"]] = [item for item in items if item["name"] != gone["name"]]
        self.state.touch(task)
        return {"updated": 1}

    def _add_artifacts(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        self.state.require_unfinished(task)
        artifacts = task["execution"].setdefault("artifacts", [])
        for artifact in body["artifacts"]:
            artifact = {"mode": "output", "display_data": [], **artifact}
            identity = (artifact["key"], artifact["mode"])
            artifacts[:] = [item for item in artifacts if (item["key"], item["mode"]) != identity]
            artifacts.append(artifact)
        artifacts.sort(key=lambda artifact: artifact["key"])
        self.state.touch(task)
        return {"updated": 1}

    def _delete_artifacts(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        self.state.require_unfinished(task)
        gone = {(key["key"], key.get("mode", "output")) for key in body["artifacts"]}
        artifacts = task["execution"].get("artifacts") or []
        task["execution"]["artifacts"] = [
            item for item in artifacts if (item["key"], item.get("mode", "output")) not in gone
        ]
        self.state.touch(task)
        return {"deleted": 1}

    def _archive(self, body: Json, archived: bool) -> Json:
        ids = body.get("tasks") or [body.get("task")]
        for task in [self.state.task(task_id) for task_id in ids]:
            tags = [tag for tag in task["system_tags"] if tag != ARCHIVED]
            task["system_tags"] = [*tags, ARCHIVED] if archived else tags
            task["last_change"] = self.state.now()
        return {"archived" if archived else "unarchived": len(ids)}

    def _set_requirements(self, body: Json) -> Json:
        task = self.state.task(body["task"])
        if task["status"] not in ("created", "in_progress"):
            raise wrong_status(expected="created,in_progress", status=task["status"])
        task["script"] = {**task["script"], "requirements": body["requirements"]}
        return {"updated": 1}

    # -- models --------------------------------------------------------------------------------

    def _set_ready(self, body: Json) -> Json:
        model = self.state.model(body["model"])
        if model["ready"]:
            raise ApiError(400, 203, "Model is ready", id=model["id"], company=COMPANY)
        model["ready"] = True
        result: Json = {"updated": 1}
        task = self.state.tasks.get(str(model.get("task")))
        if task is not None and body.get("publish_task") and task["status"] != "published":
            self.state.publish(
                {"task": task["id"], "force": body.get("force_publish_task"), "publish_model": False}
            )
            result["published_task"] = {"id": task["id"]}
        return result

    def _model_metadata(self, body: Json) -> Json:
        model = self.state.model(body["model"])
        known = {} if body.get("replace_metadata") else model["metadata"]
        model["metadata"] = {**known, **metadata(body["metadata"])}
        model["last_update"] = self.state.now()
        return {"updated": 1}

    # -- events --------------------------------------------------------------------------------

    @staticmethod
    def _lines(incoming: Incoming) -> list[Json]:
        if "json-lines" in incoming.headers.get("content-type", ""):
            return parse_lines(incoming.body)
        # a single line sent as plain JSON is a batch of none to the server
        parse_body(incoming)
        return []

    def _add_batch(self, lines: list[Json], fewer: bool) -> Json:
        if not lines:
            raise ApiError(400, 17, "Batch request contains no items")
        for number, line in enumerate(lines):
            wrong = schemas.event_mismatch(line)
            if wrong:
                raise ApiError(400, 18, "Batch request validation error", index=number, error=wrong)
        if fewer:
            refused = lines.pop()
            if not lines:
                raise ApiError(400, 131, "Events not added", **{f"Invalid task id {refused.get('task')}": 1})
        result = self._checked(lines)
        if fewer:
            result["errors"] += 1
            result["errors_info"]["Error when indexing events batch"] = 1
        return result

    def _checked(self, lines: list[Json]) -> Json:
        try:
            return self.state.events.add(lines, self._worker)
        except (TypeError, ValueError) as error:
            raise server_error(str(error)) from error

    def _add_event(self, body: Json) -> Json:
        return self._checked([body])


__all__ = ["Api", "RefusedError", "check_name", "endpoint_of", "envelope", "parse_body", "parse_lines"]
