"""`outrider serve --replicas`: an application on Ray, for as long as the command runs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from outrider.cluster.config import ClusterConfig
from outrider.cluster.replicas import app
from outrider.errors import ConfigError, ModelError
from outrider.machine.cores import default_threads
from outrider.serving.server import listen

logger = logging.getLogger(__name__)

Builder = Callable[[Mapping[str, Any]], Application]
APPLICATION = "outrider"
DIRECT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Has a token pass fewer threads and no object store; what the environment says goes before."""
OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory for a Ray of our own, which is about the least that it takes: nothing lies there."""


@contextmanager
def ray_of(address: str | None, *, cores: int, quiet: bool) -> Iterator[None]:
    """The Ray at an address, or, for None, one of our own on this machine, which ends with the command.

    cores: that all replicas together may reserve on this machine. Raises ConfigError for an address where
    there is none.
    """
    for name, value in DIRECT.items():
        os.environ.setdefault(name, value)
    own: dict[str, Any] = {
        "num_cpus": cores, "object_store_memory": OBJECT_STORE, "include_dashboard": False
    }  # fmt: skip
    try:
        ray.init(address or "local", log_to_driver=not quiet, **({} if address else own))
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray_address = {address!r}: {_line(error)}; start one with 'ray start --head', or leave it "
            "out for one on this machine"
        ) from None
    # Ray's own handler of SIGTERM aborts the process, and would leave all others running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if address is None:
            serve.shutdown()
        else:
            serve.delete(APPLICATION)
        ray.shutdown()
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def cores_each(address: str | None, replicas: int) -> int:
    """An equal share of the cores that there are: of this machine, or of the Ray that is connected."""
    there = default_threads() if address is None else int(ray.cluster_resources().get("CPU", 1))
    return max(1, there // replicas)


@contextmanager
def deployed(arguments: Mapping[str, Any], host: str, port: int, build: Builder) -> Iterator[str]:
    """The application, and the URL that it has once it answers. arguments: the fields of ClusterConfig.

    Raises ConfigError and ModelError for a model that cannot be served like this.
    """
    application = build(arguments)
    with listen(host, port):
        pass  # Serve would say less of a port that is taken
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        details = serve.status().applications[APPLICATION].deployments.values()
        said = next((one.message for one in details if one.message), str(error))
        raise ModelError(f"{arguments['model']} cannot be served by replicas: {_line(said)}") from None
    yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def replicated(
    arguments: Mapping[str, Any],
    *,
    address: str | None,
    host: str,
    port: int,
    quiet: bool = True,
    build: Builder = app,
) -> Iterator[tuple[ClusterConfig, str]]:
    """Replicas that serve, and their URL. In the end requests that run have the time that the configuration
    gives them.

    arguments: the fields of ClusterConfig; without `cores`, each gets an equal share. address: of a Ray that
    runs; None: one is started. quiet: what Ray's processes log is in its files alone.
    Raises ConfigError and ModelError for what cannot be served like this.
    """
    if not port:
        raise ConfigError("port = 0: Ray Serve looks for no free port; give one")
    most = ClusterConfig(**arguments).most
    cores = arguments.get("cores") or cores_each(None, most)
    with ray_of(address, cores=cores * most, quiet=quiet):
        if address is not None:
            cores = arguments.get("cores") or cores_each(address, most)
        given = {**arguments, "cores": cores}
        with deployed(given, host, port, build) as url:
            yield ClusterConfig(**given), url


def log_replicas(config: ClusterConfig, url: str) -> None:
    """Say where the server is, and what it consists of."""
    fields = {"url": url, "replicas": config.replicas, "max_replicas": config.most, "cores": config.cores}
    logger.info("listening", extra={"fields": fields})


def until_told() -> None:
    """Wait for SIGINT or SIGTERM, while Ray runs."""
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    logger.info("stopping")


def _line(error: object) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
