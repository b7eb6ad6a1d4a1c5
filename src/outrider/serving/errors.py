"""Errors: a status, and a body that says what was wrong, in the form of the API that was asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from outrider.engine.generation import EngineFailed, EngineStopped, QueueFull
from outrider.errors import INTERNAL_ERROR, ConfigError, RequestError
from outrider.outputs import RequestOutput
from outrider.serving.bodies import NO_FIELDS, UNSUPPORTED

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 1000  # characters: what a client sent is quoted, and may be long
VALUE_LIMIT = 60
INVALID = "invalid_request_error"


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """OpenAI's form of an error."""

    error: ErrorDetail


class AnthropicDetail(TypedDict):
    type: str
    message: str


class AnthropicErrorBody(TypedDict):
    """Anthropic's form of an error."""

    type: Literal["error"]
    error: AnthropicDetail


class OllamaErrorBody(TypedDict):
    """Ollama's form of an error."""

    error: str


@dataclass(eq=False)
class ApiError(Exception):
    """What a client is told. param: the field that is to blame; code: for programs to tell errors apart."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> ErrorBody:
        """OpenAI's form."""
        param = None if self.param is None else _told(self.param)
        return {
            "error": {"message": _told(self.message), "type": self.type, "param": param, "code": self.code}
        }

    def response(self, path: str = "") -> JSONResponse:
        """path: what was asked for, whose API has its own form of errors."""
        form = next((form for prefix, form in FORMS.items() if path.startswith(prefix)), ApiError.body)
        return JSONResponse(form(self), self.status, headers=dict(self.headers))


def anthropic_form(error: ApiError) -> AnthropicErrorBody:
    kind = ANTHROPIC_TYPES.get(error.status, INVALID if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": _told(error.message)}}


def ollama_form(error: ApiError) -> OllamaErrorBody:
    return {"error": _told(error.message)}


ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
FORMS: dict[str, Callable[[ApiError], Any]] = {"/v1/messages": anthropic_form, "/api/": ollama_form}
"""By what a path begins with; all others have OpenAI's."""


STATUSES = {
    400: "The request cannot be served as it is.",
    401: "An API key is needed.",
    403: "A page of another site asks.",
    404: "There is no such model.",
    408: "The body did not come.",
    413: "The body is too large.",
    415: "The body is compressed.",
    421: "The server has another name.",
    429: "The queue is full.",
    500: "A fault of the server.",
    503: "The server is shutting down, or full.",
    504: "The request took too long.",
}


def refusals(form: Any) -> dict[int | str, dict[str, Any]]:
    """What a generating route may answer besides 200, for the OpenAPI description. form: of its errors."""
    return {status: {"model": form, "description": text} for status, text in STATUSES.items()}


def generated(form: Any, stream: str) -> dict[int | str, dict[str, Any]]:
    """All that a generating route may answer. stream: the media type of what is streamed."""
    whole = {"application/json": {"schema": {"type": "object"}}, stream: {"schema": {"type": "string"}}}
    return {200: {"description": "The answer, whole or streamed.", "content": whole}, **refusals(form)}


def _told(text: str) -> str:
    """What a client may have sent, cut, and without halves of surrogate pairs, which UTF-8 does not have."""
    cut = text if len(text) <= MESSAGE_LIMIT else text[:MESSAGE_LIMIT] + " ..."
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")


FORESEEN: tuple[type[Exception], ...] = (
    ApiError,
    RequestValidationError,
    HTTPException,
    ConfigError,
    RequestError,
    QueueFull,
    EngineStopped,
    EngineFailed,
)


def as_api_error(error: Exception) -> ApiError:
    """What a client may know of an error. What is not its fault and not foreseen is only logged."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error.errors()[0])
        case ConfigError():
            return ApiError(400, str(error), param=error.field)
        case RequestError():
            return ApiError(400, str(error))
        case QueueFull():
            wait = {"Retry-After": str(min(60, max(1, math.ceil(error.retry_after))))}
            return ApiError(429, str(error), "rate_limit_error", code="queue_full", headers=wait)
        case EngineStopped():
            return ApiError(
                503, str(error), "server_error", code="unavailable", headers={"Retry-After": "10"}
            )
        case EngineFailed():
            return ApiError(500, str(error), "server_error", code="internal_error")
        case HTTPException():
            kind = INVALID if error.status_code < 500 else "server_error"
            return ApiError(error.status_code, error.detail, kind, headers=error.headers or {})
        case _:
            logger.error("an error that nobody foresaw", exc_info=error)
            return ApiError(500, INTERNAL_ERROR, "server_error", code="internal_error")


def check_output(output: RequestOutput) -> None:
    """Raise what an output says went wrong."""
    if output.error == INTERNAL_ERROR:
        raise EngineFailed(output.error)
    if output.error is not None:
        raise RequestError(output.error)


def install(app: FastAPI) -> None:
    """Have every foreseen error of the app told; `RequestLog` answers for the others."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response(request.url.path)

    for kind in FORESEEN:
        app.add_exception_handler(kind, handle)


def _invalid(detail: Any) -> ApiError:
    """The first of what pydantic found wrong."""
    where = [str(part) for part in detail["loc"][1:] if part not in NO_FIELDS]  # the first is "body"
    refused = detail["type"] == UNSUPPORTED
    if refused:
        where.append(detail["ctx"]["field"])
    name = ".".join(where)
    if detail["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {detail['ctx']['error']}")
    if not where:
        return ApiError(
            400, f"the body has to be a JSON object of content type application/json: {detail['msg']}"
        )
    if detail["type"] == "missing":
        return ApiError(400, f"{name} is missing", param=name)
    if refused:
        return ApiError(400, f"{name} is not supported; {detail['msg']}", param=name, code=UNSUPPORTED)
    value = repr(detail["input"])
    shown = value if len(value) <= VALUE_LIMIT else value[:VALUE_LIMIT] + "..."
    message = str(detail["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{name} = {shown}: {message[:1].lower()}{message[1:]}", param=name)
