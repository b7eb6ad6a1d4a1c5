"""How the chunks of a stream are told apart on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Form = dict[str, Any]
"""A JSON object that a client reads."""


@dataclass(frozen=True)
class Framing:
    """frame: the bytes of one chunk; end: what follows the last one."""

    media_type: str
    frame: Callable[[Form], bytes]
    end: bytes = b""


def _json(form: Form) -> bytes:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()


def _data(form: Form) -> bytes:
    return b"data: " + _json(form) + b"\n\n"


def _named(form: Form) -> bytes:
    return b"event: " + str(form["type"]).encode() + b"\n" + _data(form)


DATA = Framing("text/event-stream", _data, b"data: [DONE]\n\n")
"""Server-sent events without names, as OpenAI's completions have them."""
NAMED = Framing("text/event-stream", _named)
"""Server-sent events, each named by the `type` of its chunk."""
LINES = Framing("application/x-ndjson", lambda form: _json(form) + b"\n")
"""A line of JSON each."""
