"""The server's errors: an HTTP code, a subcode, and a message as the genuine server words it."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal that the server puts into its envelope."""

    def __init__(self, code: int, subcode: int, message: str, /, **details: Any) -> None:
        words = ", ".join(f"{key}={value}" for key, value in details.items())
        self.code = code
        self.subcode = subcode
        self.message = f"{message}: {words}" if words else message
        super().__init__(self.message)


COMPANY = "d1bd92a3b039400cbafc60a7a5b1e52b"


def validation_error(extra: str, **details: Any) -> ApiError:
    """400/12."""
    return ApiError(400, 12, f"Validation error ({extra})", **details)


def invalid_task(task_id: Any) -> ApiError:
    """400/101."""
    return ApiError(400, 101, "Invalid task id", id=task_id, company=COMPANY)


def too_short(what: str) -> ApiError:
    """400/800: a task's or a model's name of less than three characters."""
    return ApiError(400, 800, "Data validation error", **{what: "String value is too short"})


def invalid_model(model_id: Any) -> ApiError:
    """400/201."""
    return ApiError(400, 201, "Invalid model id", company=COMPANY, id=model_id)


def invalid_project(project_id: Any) -> ApiError:
    """400/401."""
    return ApiError(400, 401, "Invalid project id", id=project_id)


def wrong_status(extra: str = "", **details: Any) -> ApiError:
    """400/110."""
    return ApiError(400, 110, f"Invalid task status ({extra})" if extra else "Invalid task status", **details)


def data_error(err: str, **details: Any) -> ApiError:
    """500/100: what Elasticsearch or Mongo refuse."""
    return ApiError(500, 100, "General data error", err=err, **details)


def server_error(message: str) -> ApiError:
    """500/0: an exception nobody in the server expected, in its own words."""
    return ApiError(500, 0, message)
