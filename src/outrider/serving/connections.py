"""One connection of a client: what of it has to come by when, and how many there may be.

uvicorn bounds the size of a header and how long a connection may be idle between two requests. It waits
without end for the rest of a header, for a body that nobody reads, and for a client that does not take its
answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from outrider.serving.errors import ApiError

logger = logging.getLogger(__name__)

MAX_HEADER = 2**14
"""Bytes of a request's header that may wait for the rest of it."""
LINGER_SECONDS = 5.0
"""For the rest of a body whose request was answered; closed at once, a client might not get the answer."""
RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: the system drops what the client has not taken, too."""


@dataclass(frozen=True)
class ConnectionLimits:
    """connections: at a time. header: seconds from the opening of a connection, or from the last answer, to
    the end of a request's header. write: seconds in which a client has to take what was written for it."""

    connections: int
    header: float
    write: float


class Connection(H11Protocol):
    """HTTP/1.1 for a client that may be slow, or wicked."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._awaited: object = None
        """The state of the client that a clock runs for."""
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So `pause_writing` says that the system's buffer is full, and `resume_writing` that all was taken.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self._limits.connections:
            logger.warning(
                "a connection was refused: max_connections = %d are open", self._limits.connections
            )
            self._refuse(
                ApiError(
                    503,
                    "the server has as many connections as it takes; try again later",
                    "server_error",
                    code="unavailable",
                    headers={"Retry-After": "10"},
                )
            )
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for clock in (self._reading, self._writing):
            if clock is not None:
                clock.cancel()

    def data_received(self, data: bytes) -> None:
        # h11 bounds a header that is not complete, and the whole of a long one may come in a single read.
        for begin in range(0, len(data), MAX_HEADER):
            if not self.transport.is_closing():
                super().data_received(data[begin : begin + MAX_HEADER])
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self._limits.write, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "the request is not well-formed HTTP, or its header is too long; mend it"))

    def _should_upgrade(self) -> bool:
        return False  # there are no WebSockets, and a client that asks for one is answered as if it had not

    def _watch(self) -> None:
        """Start the clock for what the client has to send now, if it does not run already."""
        awaited: object = self.conn.their_state
        answered = self.cycle is not None and self.cycle.response_complete
        if self.transport.is_closing() or not (
            awaited is h11.IDLE or (awaited is h11.SEND_BODY and answered)
        ):
            awaited = None
        if awaited is self._awaited:
            return
        self._awaited = awaited
        if self._reading is not None:
            self._reading.cancel()
        if awaited is not None:
            seconds = self._limits.header if awaited is h11.IDLE else LINGER_SECONDS
            self._reading = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        begun, _ = self.conn.trailing_data
        if self._awaited is h11.IDLE and begun:
            message = f"the request's header did not come within {self._limits.header:g} s"
            self._refuse(ApiError(408, message))
        else:
            self.transport.close()

    def _give_up(self) -> None:
        """Close the connection of a client that takes nothing, which ends its request as if it had left."""
        logger.warning("a connection was closed: the client took nothing for %g s", self._limits.write)
        opened: socket.socket | None = self.transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Answer without the application, and close. An answer that has begun is only broken off."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = error.response()
            headers = [*response.raw_headers, (b"connection", b"close")]
            reason = HTTPStatus(error.status).phrase.encode()
            for event in (
                h11.Response(status_code=error.status, headers=headers, reason=reason),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # or the application would answer as well
            self.cycle.message_event.set()
        self.transport.close()
