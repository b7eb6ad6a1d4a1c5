"""Listening, and the end of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn

from outrider.errors import ConfigError
from outrider.serving.app import build_app
from outrider.serving.service import Service

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5  # to send what has been generated, once nothing runs any more
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, before a model is loaded for it. Raises ConfigError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigError(
            f"host = {host!r}, port = {port}: cannot listen there, {error.strerror or error}; choose another"
        ) from None
    bound.set_inheritable(True)
    return bound


def url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Signals are left to `Stopping`: uvicorn itself would end by the one that it got, with its status."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or []:
            logger.info("listening", extra={"fields": {"url": url_of(bound)}})

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Stopping:
    """The way from a first SIGTERM or SIGINT to the end: no more requests are taken, those that run are
    waited for, and what is left is ended. A second signal does not wait."""

    def __init__(self, service: Service, server: uvicorn.Server) -> None:
        self._service = service
        self._server = server
        self._draining: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        else:
            self._draining.cancel()

    async def _drain(self) -> None:
        engine, timeout = self._service.engine, self._service.config.shutdown_timeout
        logger.info("stopping", extra={"fields": {"sequences": engine.num_sequences, "timeout": timeout}})
        try:
            finished = await engine.drain(timeout)
        except asyncio.CancelledError:
            finished = await engine.drain(0)
        if not finished:
            logger.warning("some requests had not ended in time, and were ended")
        self._server.should_exit = True


def http_server(service: Service) -> uvicorn.Server:
    """An HTTP server that ends when its `should_exit` is set."""
    return _Server(
        uvicorn.Config(
            build_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=FLUSH_SECONDS,
        )
    )


async def run(service: Service, bound: socket.socket) -> None:
    """Serve until a signal says to stop."""
    server = http_server(service)
    stopping = Stopping(service, server)
    before = {number: signal.signal(number, stopping.on_signal) for number in SIGNALS}
    try:
        await server.serve(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    logger.info("stopped")
