"""Logs: for machines one JSON object a line, with the id of the request that it is about, or words."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)

REQUESTS = "outrider.requests"
"""The logger that has a line for each request."""
MOST_LINES = 10
"""Warnings and errors that one place in the code may log in PERIOD."""
PERIOD = 60.0  # seconds


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


class TextFormatter(logging.Formatter):
    """time (local), level unless it is info, message, `extra={"fields": ...}`; of a request what matters."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        message = record.getMessage()
        if record.name == REQUESTS and "status" in fields:
            message = self._request(**fields)
        elif fields:
            message = f"{message}: {', '.join(f'{name} {value}' for name, value in fields.items())}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        told = datetime.fromtimestamp(record.created).strftime("%H:%M:%S") + f" {level}{message}"
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)  # nothing steers a terminal
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _request(
        self, method: str, path: str, status: int, seconds: float, complete: bool, **more: Any
    ) -> str:
        words = [f"{method} {path} {status}, {seconds:.2f} s"]
        if "completion_tokens" in more:
            words.append(f"{more['prompt_tokens']} + {more['completion_tokens']} tokens")
        if not complete:
            words.append("the client left")
        return ", ".join(words)


class LimitLines(logging.Filter):
    """Lets through at most MOST_LINES warnings or errors of one place in the code in PERIOD; the next that
    passes says how many were `left_out`. So what a client can cause again and again does not fill a disk.

    The line that each request has is none of them. clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._periods: dict[tuple[str, int], tuple[float, int]] = {}
        """By place: when its period began, and how many lines there were since."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), self._clock()
        with self._lock:
            began, lines = self._periods.get(place, (now, 0))
            if now - began >= PERIOD:
                if lines > MOST_LINES:
                    record.fields = {**getattr(record, "fields", {}), "left_out": lines - MOST_LINES}
                began, lines = now, 0
            self._periods[place] = began, lines + 1
        return lines < MOST_LINES


def log_to(handler: logging.Handler, level: str) -> None:
    """Have everything that is logged written by this handler. level: as in 'info'."""
    handler.addFilter(LimitLines())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # What it says of a start and a stop is said here in fewer lines, and of requests with more fields.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
