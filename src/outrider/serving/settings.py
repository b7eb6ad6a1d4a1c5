"""How a server is run: its own options, besides those of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, SecretStr

from outrider.adapting.settings import AdaptConfig
from outrider.models.hub_cache import cached_repository
from outrider.option_types import Bytes
from outrider.validation import Strict

Seconds = Annotated[float, Field(gt=0, le=86400)]


def _not_empty(key: SecretStr) -> SecretStr:
    if not key.get_secret_value():
        raise ValueError("an empty key keeps nobody out; give another, or none")
    return key


def _origin(text: str) -> str:
    scheme, _, place = text.partition("://")
    if text != "*" and (not scheme or not place or "/" in place):
        raise ValueError("give an origin as a browser does, such as 'https://chat.example', or '*'")
    return text.lower()


class ServerConfig(Strict):
    """Options of `outrider serve`. The defaults are for one machine's own use."""

    host: str = "127.0.0.1"
    """Address to listen at; the default is reached from this machine alone."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: one that is free."""
    model_name: Annotated[str, Field(min_length=1)]
    """What clients call the model."""
    api_keys: tuple[Annotated[SecretStr, AfterValidator(_not_empty)], ...] = ()
    """Any of them is asked of a client; none: nothing is asked."""
    tool_call_parser: str | None = None
    """The form in which the model calls tools, by a name of `serving.parsing.registry`; None: its chat
    template shows."""
    reasoning_parser: str | None = None
    """The same for its reasoning."""
    max_queue: NonNegativeInt = 256
    """Sequences that may wait, beyond `max_num_seqs` that may run; then clients are told to come back."""
    max_output_tokens: PositiveInt | None = None
    """Of one sequence; None: as many as the context holds."""
    max_body_size: Bytes = 2**22
    """Bytes of one HTTP request."""
    max_connections: PositiveInt = 512
    """At a time; one more is told to come back."""
    allowed_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names, without a port, that clients may call the server by, besides those of the machine itself."""
    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """The origins of pages that may use the server, as in 'https://chat.example'; '*': of all."""
    strict: bool = False
    """Refuse the fields of a request that are not read although they cannot change an answer."""
    header_timeout: Seconds = 10.0
    """Seconds from the opening of a connection, or its last answer, to the end of a request's header."""
    body_timeout: Seconds = 60.0
    """Seconds from the end of a request's header to the end of its body."""
    request_timeout: Seconds = 600.0
    """Seconds from the end of a request's header to its last token."""
    write_timeout: Seconds = 30.0
    """Seconds in which a client has to take what was written for it."""
    learning: AdaptConfig | None = None
    """How the head learns while it serves; None: it does not."""
    shutdown_timeout: Seconds = 60.0
    """Seconds that requests have to end in, once the server has been told to stop."""


def public_name(model: str) -> str:
    """What clients see of a model's location: the hub's repository that it is from, or the name of a file or
    folder, without where it lies."""
    path = Path(model)
    if not path.exists():
        return model
    return cached_repository(path) or path.resolve().name
