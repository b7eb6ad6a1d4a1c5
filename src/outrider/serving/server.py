"""Listening, and the end of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from outrider.errors import ConfigError
from outrider.serving.app import build_app
from outrider.serving.connections import MAX_HEADER, Connection, ConnectionLimits
from outrider.serving.service import Service

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5  # to send what has been generated, once nothing runs any more
END_SECONDS = (
    2 * FLUSH_SECONDS
)  # for all else once requests have ended; then the process ends, whatever runs in it
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SEND_BUFFER = 2**18  # bytes that the system keeps for a client; left to itself it keeps megabytes
OWN_DESCRIPTORS = 128
"""Open files that the process needs besides its connections."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, before a model is loaded for it. Raises ConfigError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
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


def reserve_descriptors(connections: int) -> None:
    """See to it that so many connections can be open. Raises ConfigError where the system forbids it."""
    needed = connections + OWN_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        except (ValueError, OSError):
            raise ConfigError(
                f"max_connections = {connections} needs {needed} open files, and the system allows {hard}; "
                "lower it, or raise the system's limit ('ulimit -Hn')"
            ) from None


class _Server(uvicorn.Server):
    """Signals are left to `Stopping`: uvicorn itself would end by the one that it got, with its status."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[str], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_on_loop_error)
        await super().startup(sockets)
        for bound in sockets or []:
            self._listening(url_of(bound))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A lack of descriptors is the system's, and no fault whose traceback would help.

    For each connection that it could not accept asyncio tries anew a second later, when the server may have
    closed its socket.
    """
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        logger.warning("connections cannot be accepted for now: %s", error.strerror)
    elif not (isinstance(error, ValueError) and "._start_serving(" in context["message"]):
        loop.default_exception_handler(context)


def _end_process() -> None:
    logger.critical("the process did not end in time, and is ended with what still runs in it")
    os._exit(1)


class Stopping:
    """The way from a first SIGTERM or SIGINT to the end: no more requests are taken, those that run are
    waited for, and what is left is ended. A second signal does not wait.

    A thread cannot be ended, and the process would wait for one that does not return, be it the engine's. So
    `end` is called `grace` seconds after all should be over, and ends the process with whatever runs in it.
    """

    def __init__(
        self,
        service: Service,
        server: uvicorn.Server,
        *,
        grace: float = END_SECONDS,
        end: Callable[[], object] = _end_process,
    ) -> None:
        self._service = service
        self._server = server
        self._grace = grace
        self._end = end
        self._signals = 0
        self._draining: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Also heard while the event loop is busy."""
        self._signals += 1
        timeout = self._service.config.shutdown_timeout if self._signals == 1 else 0.0
        end = threading.Timer(timeout + self._grace, self._end)
        end.daemon = True  # so that a process that ends in time does not wait for it
        end.start()
        self._loop.call_soon_threadsafe(self._begin, timeout)

    def _begin(self, timeout: float) -> None:
        task = asyncio.create_task(self._drain(timeout))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _drain(self, timeout: float) -> None:
        engine = self._service.engine
        logger.info("stopping", extra={"fields": {"sequences": engine.num_sequences, "timeout": timeout}})
        if not await engine.drain(timeout):
            logger.warning("some requests had not ended in time, and were ended")
        self._server.should_exit = True


def log_listening(service: Service, url: str) -> None:
    """Say where the server is, on how many threads it computes, and by which defaults it samples."""
    logger.info("listening", extra={"fields": {"url": url, "threads": service.model.threads}})
    if service.sampling_defaults:
        logger.info("sampling defaults", extra={"fields": {"params": dict(service.sampling_defaults)}})


def http_server(service: Service, announce: Callable[[Service, str], None] = log_listening) -> uvicorn.Server:
    """An HTTP server that ends when its `should_exit` is set. announce: is told the URL once it listens."""
    config = service.config
    limits = ConnectionLimits(config.max_connections, config.header_timeout, config.write_timeout)
    protocol: Any = functools.partial(Connection, limits=limits)
    return _Server(
        uvicorn.Config(
            build_app(service),
            http=protocol,
            ws="none",
            loop="asyncio",  # also where uvloop is installed, as Ray Serve has it
            h11_max_incomplete_event_size=MAX_HEADER,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=FLUSH_SECONDS,
        ),
        functools.partial(announce, service),
    )


async def run(
    service: Service,
    bound: socket.socket,
    announce: Callable[[Service, str], None] = log_listening,
) -> None:
    """Serve until a signal says to stop; then the process has to end as well. announce: see `http_server`."""
    server = http_server(service, announce)
    stopping = Stopping(service, server)
    before = {number: signal.signal(number, stopping.on_signal) for number in SIGNALS}
    try:
        await server.serve(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    logger.info("stopped")
