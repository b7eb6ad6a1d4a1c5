"""Logs for machines: one JSON object a line, with the id of the request that it is about."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)


class JsonFormatter(logging.Formatter):
    """time (UTC), level, logger, message, request_id, what `extra={"fields": ...}` holds, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = current_request.get()
        if request_id is not None:
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: what a client sent can neither break a line nor steer a terminal


def log_to_stderr(level: str) -> None:
    """Have everything that is logged written to stderr in this form. level: as in 'info'."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # What it says of a start and a stop is said here in fewer lines, and of requests with more fields.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
