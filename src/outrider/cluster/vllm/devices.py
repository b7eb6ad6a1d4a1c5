"""What vLLM computes on: a GPU for each rank, or, with its build for the CPU, a memory node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from typing import Any

import psutil

from outrider.cluster.vllm.config import VllmConfig
from outrider.engine.backend import may_have_gpu
from outrider.errors import ConfigError
from outrider.planning.allowed import Limit, Share, gpu_memory
from outrider.planning.gpu import GRAPHS
from outrider.planning.process import DRIVER

UTILIZATION = 0.92
"""The share of a device that vLLM 0.32 takes where nobody says (`gpu_memory_utilization`)."""
SPACE = "VLLM_CPU_KVCACHE_SPACE"
"""GiB of the cache of K and V, in the environment of vLLM's build for the CPU."""
NODE = "memory node"
PROCESS = 830 * 2**20
"""Bytes that a worker's log calls "consumed by non-kv usages" of a memory node, weights and passes aside."""


@dataclass(frozen=True)
class Device:
    """kind: in words; total: bytes of its memory; runtime: what vLLM takes of it before any model; graphs:
    of passes that were recorded; block_size: positions of a block of K and V."""

    kind: str
    total: int
    runtime: int
    graphs: int
    block_size: int

    def taken(self, config: VllmConfig) -> int:
        """Bytes of a rank beside the model, its passes and its cache."""
        return self.runtime + (0 if config.enforce_eager else self.graphs)

    def limit(self, config: VllmConfig) -> Limit:
        """What a rank may take of it. Where the size of the cache is given, vLLM keeps to no share."""
        if config.kv_cache_memory is not None:
            return Limit(self.total, f"memory of each {self.kind}")
        share = config.gpu_memory_utilization or UTILIZATION
        return Share(ceil(share * self.total), "gpu_memory_utilization", self.total, self.kind)


def gpu(total: int) -> Device:
    return Device("GPU", total, DRIVER, GRAPHS, block_size=16)


def memory_node(total: int) -> Device:
    return Device(NODE, total, PROCESS, 0, block_size=128)


def device_of(name: str | None, memory: int | None, environment: Mapping[str, str]) -> Device:
    """The device that is planned for. name: 'cuda' or 'cpu'; None: what the vLLM that is installed computes
    on, else a GPU. memory: bytes of it, which need not be here; None: as this machine's.

    Raises ConfigError for a GPU that is not here, and for another name.
    """
    if name is None:
        on_cpu = SPACE in environment or _is_for_cpu() or (memory is None and not may_have_gpu())
        name = "cpu" if on_cpu else "cuda"
    if name == "cpu":
        return memory_node(psutil.virtual_memory().total if memory is None else memory)
    if name != "cuda":
        raise ConfigError(f"device = {name!r}: plans for vLLM are for 'cuda' or 'cpu'", "device")
    return gpu(gpu_memory(name).total if memory is None else memory)


def device_here(platform: Any) -> Device:
    """The device that a vLLM computes on. platform: `vllm.platforms.current_platform`, which asks no GPU for
    memory of its own."""
    made = memory_node if platform.is_cpu() else gpu
    return made(platform.get_device_total_memory())


def with_space(config: VllmConfig, device: Device, environment: Mapping[str, str]) -> VllmConfig:
    """The configuration with the cache that the environment asks vLLM's build for the CPU for. Raises
    ConfigError for what is no number."""
    space = environment.get(SPACE)
    if device.kind != NODE or not space:
        return config
    if not space.isdecimal():
        raise ConfigError(f"{SPACE} = {space!r} in the environment: give GiB, as a whole number")
    return config.model_copy(update={"kv_cache_memory": int(space) * 2**30})


def _is_for_cpu() -> bool:
    """Whether the vLLM that is installed is the build for the CPU."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
