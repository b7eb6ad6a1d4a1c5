"""`outrider serve --replicas`: a server in this process, in front of engines on Ray."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.serve.config import ProxyLocation, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from outrider.cluster.config import ClusterConfig
from outrider.cluster.handle import last_line, service_of
from outrider.cluster.replicas import replicas_of
from outrider.errors import ConfigError, ModelError
from outrider.machine.cores import default_threads
from outrider.serving import server

logger = logging.getLogger(__name__)

Announce = Callable[[ClusterConfig, str], None]
OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory for a Ray of our own, which is about the least that it takes: nothing lies there."""


@contextmanager
def ray_of(address: str | None, *, cores: int, quiet: bool) -> Iterator[None]:
    """The Ray at an address, or, for None, one of our own on this machine, which ends with the command.

    cores: that all replicas together may reserve on this machine. quiet: what Ray logs is in its files alone.
    Raises ConfigError for an address where there is none.
    """
    own: dict[str, Any] = {
        "num_cpus": cores, "object_store_memory": OBJECT_STORE, "include_dashboard": False
    }  # fmt: skip
    level = logging.CRITICAL if quiet else logging.INFO
    for name in ("ray", "ray.serve"):  # which have handlers of their own, beside ours
        logging.getLogger(name).setLevel(level)
    try:
        ray.init(address or "local", log_to_driver=not quiet, logging_level=level, **({} if address else own))
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray_address = {address!r}: {last_line(error)}; start one with 'ray start --head', or leave it "
            "out for one on this machine"
        ) from None
    # Ray's own handler of SIGTERM aborts the process, and would leave all others running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def cores_each(address: str | None, replicas: int) -> int:
    """An equal share of the cores that there are: of this machine, or of the Ray that is connected."""
    there = default_threads() if address is None else int(ray.cluster_resources().get("CPU", 1))
    return max(1, there // replicas)


async def serve_until_told(
    config: ClusterConfig, bound: socket.socket, announce: Announce, router: RequestRouterConfig | None = None
) -> None:
    """Serve by replicas on the Ray that is connected, until a signal says to stop. Requests that run then
    have the time that the configuration gives them.

    announce: is told the URL once the socket, which is bound, listens. router: see `replicas_of`. Raises
    ModelError for a model that cannot be served like this.
    """
    name = f"outrider-{secrets.token_hex(4)}"  # others may serve on the same Ray
    server_config = config.server_config()
    try:
        handle = await asyncio.to_thread(_deploy, config, name, router)
        service = await service_of(handle, server_config, version=config.version, most=config.most)
        await server.run(service, bound, lambda _, url: announce(config, url))
    finally:
        await asyncio.to_thread(serve.delete, name)


def _deploy(config: ClusterConfig, name: str, router: RequestRouterConfig | None) -> DeploymentHandle[Any]:
    """The replicas, once all of them are there."""
    serve.start(proxy_location=ProxyLocation.Disabled)
    try:
        return serve.run(replicas_of(config, router), name=name, route_prefix=None)
    except RuntimeError as error:
        details = serve.status().applications[name].deployments.values()
        said = next((one.message for one in details if one.message), str(error))
        raise ModelError(f"{config.model} cannot be served by replicas: {last_line(said)}") from None


def serve_replicas(
    arguments: Mapping[str, Any],
    *,
    address: str | None,
    announce: Announce,
    quiet: bool = True,
    router: RequestRouterConfig | None = None,
) -> None:
    """Serve at an address of this machine by replicas on Ray, until told to stop.

    arguments: the fields of ClusterConfig; without `cores`, each gets an equal share. address: of a Ray that
    runs; None: one is started. announce, router: see `serve_until_told`. quiet: see `ray_of`. Raises
    ConfigError and ModelError for what cannot be served like this.
    """
    config = ClusterConfig(**arguments)
    server_config = config.server_config()
    cores = arguments.get("cores") or cores_each(None, config.most)
    server.reserve_descriptors(server_config.max_connections)
    with (
        server.listen(server_config.host, server_config.port) as bound,
        ray_of(address, cores=cores * config.most, quiet=quiet),
    ):
        if address is not None:
            cores = arguments.get("cores") or cores_each(address, config.most)
        config = ClusterConfig(**{**arguments, "cores": cores})
        asyncio.run(serve_until_told(config, bound, announce, router))


def log_replicas(config: ClusterConfig, url: str) -> None:
    """Say where the server is, and what it consists of."""
    fields = {"url": url, "replicas": config.replicas, "max_replicas": config.most, "cores": config.cores}
    logger.info("listening", extra={"fields": fields})
