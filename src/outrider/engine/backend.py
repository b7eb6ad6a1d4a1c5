"""Choosing the backend that a configuration means."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import NamedTuple

from outrider.config import EngineConfig
from outrider.errors import ConfigError
from outrider.extras import CUDA, TORCH
from outrider.formats.format import Format
from outrider.formats.quantization import QUANTIZED, FormatPair
from outrider.formats.registry import FORMATS
from outrider.messages import reason
from outrider.models.checkpoint import Checkpoint
from outrider.ops.base import Backend, Facts
from outrider.ops.cpu import extension
from outrider.ops.cpu.backend import STORED, NativeBackend
from outrider.option_types import Quantization

logger = logging.getLogger(__name__)

CPU = "cpu"
FLOATS = ("F32", "F16", "BF16")  # types of a checkpoint that are not quantised
NATIVE_CACHES = tuple(STORED)
NATIVE_DTYPES = ("auto", "float32", "bfloat16")
TRITON_DTYPES = (*NATIVE_DTYPES, "float16")  # of weights, and of K and V
ASKED_FOR: dict[str, FormatPair] = QUANTIZED | {
    "float32": FormatPair(FORMATS["F32"], FORMATS["F32"]),
    "bfloat16": FormatPair(FORMATS["BF16"], FORMATS["BF16"]),
    "float16": FormatPair(FORMATS["F16"], FORMATS["F16"]),
}
"""What weights become by `quantization` or `dtype`."""

GPUS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""What Linux shows where PyTorch may find a GPU: NVIDIA's driver, that of its boards, Windows' own, AMD's."""


NAMED = re.compile(r"cuda(:\d+)?")  # a GPU, as PyTorch names it


class WeightFormats(NamedTuple):
    """What a model is loaded as. linear, table: what weights become; None: they stay as they are stored.
    cache_dtype: of K and V, as `Facts` names it."""

    linear: Format | None
    table: Format | None
    cache_dtype: str


def choose_backend(config: EngineConfig, checkpoint: Checkpoint) -> Backend:
    """The native kernels on the CPU, Triton's on a GPU, PyTorch elsewhere. Raises ConfigError for what no
    backend can do."""
    device = choose_device(config.device)
    if is_native(config, device):
        _tell_of_no_graphs(config)
        _tell_of_changes(config, checkpoint.stored_as)
        linear, table, cache_dtype = native_formats(config, checkpoint)
        return NativeBackend(
            linear,
            table,
            cache_dtype=cache_dtype,
            num_threads=config.num_threads,
            instruction_set=config.instruction_set,
        )
    if is_triton(config, device):
        _check_options(config, device, "Triton's kernels", ("num_threads", "instruction_set"))
        _tell_of_changes(config, checkpoint.stored_as)
        linear, table, cache_dtype = triton_formats(config, checkpoint)
        from outrider.ops.cuda.backend import GpuBackend  # it imports PyTorch

        return GpuBackend(device, linear, table, cache_dtype=cache_dtype, eager=config.enforce_eager)
    _tell_of_no_graphs(config)
    _tell_of_pytorch(config, device)
    _check_options(config, device, "PyTorch", ("quantization", "num_threads", "instruction_set"))
    dtype = torch_dtype(config, checkpoint, device)
    cache_dtype = torch_cache_dtype(config, dtype)
    from outrider.ops.torch import TorchBackend  # it takes seconds, and memory that a plan counts

    return TorchBackend(device, dtype, cache_dtype=cache_dtype)


def draft_backend(
    config: EngineConfig,
    target: Backend,
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    *,
    option: str,
) -> Backend:
    """The target's backend, for a draft whose weights it quantises, or takes as they are stored.

    option: what the user wrote to have it so. Raises ConfigError where there are no kernels for it.
    """
    linear, table, cache_dtype = draft_formats(config, target.facts, checkpoint, quantization, option=option)
    return target.with_formats(linear, table, cache_dtype=cache_dtype)


def draft_formats(
    config: EngineConfig,
    target: Facts,
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    *,
    option: str,
) -> WeightFormats:
    """What a draft is loaded as beside a target of these facts; otherwise like `draft_backend`."""
    if target.exact:
        own = config.model_copy(update={"quantization": quantization, "dtype": "auto"})
        return (native_formats if target.device == CPU else triton_formats)(own, checkpoint)
    if quantization is not None:
        raise ConfigError(
            f"{option} is for the native CPU kernels; this engine uses PyTorch on {target.device} "
            f"(backend = {config.backend!r}, dtype = {config.dtype!r}); give a draft model without "
            "draft_quantization, or run on the CPU with backend = 'native'"
        )
    return WeightFormats(None, None, target.cache_dtype)


def native_formats(config: EngineConfig, checkpoint: Checkpoint) -> WeightFormats:
    """What the native kernels load a model as."""
    linear, table = ASKED_FOR.get(config.quantization or config.dtype, (None, None))
    return WeightFormats(linear, table, _native_cache_dtype(config, checkpoint))


def triton_formats(config: EngineConfig, checkpoint: Checkpoint) -> WeightFormats:
    """What Triton's kernels load a model as. Linear layers read the type of K and V, which so is that of
    weights that are floats."""
    linear, table = ASKED_FOR.get(config.quantization or config.dtype, (None, None))
    if config.kv_cache_dtype != "auto":
        return WeightFormats(linear, table, config.kv_cache_dtype)
    stored = checkpoint.stored_as if linear is None else linear.name
    return WeightFormats(linear, table, {"F32": "float32", "F16": "float16"}.get(stored, "bfloat16"))


def is_triton(config: EngineConfig, device: str) -> bool:
    """Whether Triton's kernels compute, where the native ones do not. Raises ConfigError where they are asked
    for and cannot."""
    if config.backend == "triton":
        CUDA.require("backend = 'triton'")
        if name := _unknown_to_triton(config):
            raise ConfigError(
                f"backend = 'triton' with {name} = {getattr(config, name)!r}: Triton's kernels take "
                f"{', '.join(TRITON_DTYPES)}"
            )
        return True
    lacks = without_triton(config)
    if config.backend != "auto" or device == CPU:
        return False
    if lacks:
        logger.warning(
            "%s: %s, so PyTorch is used on %s: slower, and equal tokens with and without speculation only up "
            "to rounding",
            config.model,
            lacks,
            device,
        )
    return not lacks


def _unknown_to_triton(config: EngineConfig) -> str | None:
    """The option that names a type which Triton's kernels do not have."""
    names = ("dtype", "kv_cache_dtype")
    return next((name for name in names if getattr(config, name) not in TRITON_DTYPES), None)


def without_triton(config: EngineConfig) -> str | None:
    """Why Triton's kernels cannot compute here."""
    if CUDA.missing:
        return f"the package {CUDA.missing!r} is not installed ({CUDA.command})"
    return lack_of_triton(config)


def lack_of_triton(config: EngineConfig) -> str | None:
    """Why Triton's kernels cannot compute where they are installed."""
    if name := _unknown_to_triton(config):
        return f"{name} = {getattr(config, name)!r} is not for Triton's kernels"
    return None


def is_native(config: EngineConfig, device: str) -> bool:
    """Whether the native kernels compute, or PyTorch. Raises ConfigError where they are asked for and cannot,
    and where PyTorch would have to and is not installed."""
    fits = device == CPU and config.dtype in NATIVE_DTYPES
    if config.backend == "native":
        if not fits:
            raise ConfigError(
                f"backend = 'native' with device = {device!r} and dtype = {config.dtype!r}: the native "
                f"kernels run on the CPU, with dtype {', '.join(NATIVE_DTYPES)}"
            )
        extension.require()
        return True
    if config.backend == "triton":
        return False
    if config.backend == "auto" and fits and extension.native is not None:
        return True
    if config.backend == "auto" and fits and TORCH.missing:
        raise ConfigError(f"{extension.missing()}; or let PyTorch compute, more slowly: {TORCH.command}")
    TORCH.require(_why_pytorch(config, device))
    return False


def takes_formats(config: EngineConfig) -> bool:
    """Whether weights may become others when they are loaded: on the native kernels, and on Triton's. Raises
    ConfigError as `is_native` does."""
    device = planned_device(config.device)
    return is_gpu(config, device) or is_native(config, device)


def is_gpu(config: EngineConfig, device: str) -> bool:
    """Whether a plan is for a GPU's kernels, or for the processor's. They may be interpreted on the CPU."""
    named = NAMED.fullmatch(device) is not None
    return config.backend == "triton" or (named and config.backend == "auto")


def planned_device(name: str) -> str:
    """The device of a plan: a GPU that is named need not be here. Otherwise as `choose_device`."""
    return name if NAMED.fullmatch(name) else choose_device(name)


def choose_device(name: str) -> str:
    """The device that `name` means, as PyTorch names it. Raises ConfigError if it cannot be used.

    PyTorch takes seconds to import, so it is not asked where the answer is known without it.
    """
    if name == CPU or (name == "auto" and (not may_have_gpu() or TORCH.missing)):
        return CPU
    TORCH.require(f"device = {name!r}")
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else CPU
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device = {name!r} cannot be used: {reason(error)}; try 'cpu'") from error
    return CPU if device.type == CPU else str(device)


def torch_dtype(config: EngineConfig, checkpoint: Checkpoint, device: str) -> str:
    """float32 on the CPU: PyTorch's kernels there are not row-invariant, and rounding to fewer bits would
    turn their last-bit differences into different tokens."""
    if config.dtype != "auto":
        return config.dtype
    return "float32" if device == CPU else checkpoint.config.dtype


def torch_cache_dtype(config: EngineConfig, dtype: str) -> str:
    """The type of K and V on PyTorch, of a model of this dtype. Raises ConfigError for another."""
    if config.kv_cache_dtype == "int8":
        return "int8"
    if config.kv_cache_dtype not in ("auto", dtype):
        raise ConfigError(
            f"kv_cache_dtype = {config.kv_cache_dtype!r}: on PyTorch the cache has the model's dtype, "
            f"{dtype}, or 'int8'"
        )
    return dtype


def _why_pytorch(config: EngineConfig, device: str) -> str:
    """What asks for it, as an error names it."""
    if config.backend == "torch":
        return "backend = 'torch'"
    return f"dtype = {config.dtype!r}" if device == CPU else f"device = {device!r}"


def may_have_gpu() -> bool:
    return any(Path(shown).exists() for shown in GPUS) or which("nvidia-smi") is not None


def _native_cache_dtype(config: EngineConfig, checkpoint: Checkpoint) -> str:
    """The type of K and V: float32 with weights in float32 or float16, else bfloat16."""
    if config.kv_cache_dtype in NATIVE_CACHES:
        return config.kv_cache_dtype
    if config.kv_cache_dtype != "auto":
        raise ConfigError(
            f"kv_cache_dtype = {config.kv_cache_dtype!r}: the native kernels keep K and V as "
            f"{', '.join(NATIVE_CACHES)}"
        )
    if config.quantization is None and config.dtype == "float32":
        return "float32"
    exact = config.quantization is None and config.dtype == "auto" and checkpoint.stored_as in FLOATS[:2]
    return "float32" if exact else "bfloat16"


def _check_options(config: EngineConfig, device: str, used: str, names: Sequence[str]) -> None:
    """Raise ConfigError for an option that only the native kernels have."""
    for name in names:
        if getattr(config, name) not in (None, "auto"):
            raise ConfigError(
                f"{name} = {getattr(config, name)!r} is for the native CPU kernels; this engine uses {used} "
                f"on {device} (backend = {config.backend!r}, dtype = {config.dtype!r})"
            )


def _tell_of_no_graphs(config: EngineConfig) -> None:
    """Say that there are none to do without."""
    if config.enforce_eager:
        logger.warning(
            "enforce_eager = True has no effect: %s is not computed by Triton's kernels, and nothing else is "
            "recorded as graphs",
            config.model,
        )


def _tell_of_pytorch(config: EngineConfig, device: str) -> None:
    """Say why the native kernels do not compute where they might have been expected to."""
    if config.backend != "auto" or device != CPU:
        return
    if config.dtype in NATIVE_DTYPES:
        extension.warn_if_missing()
    else:
        logger.warning(
            "dtype = %r is not for the native CPU kernels, so PyTorch is used: slower, and equal tokens with "
            "and without speculation only up to rounding; the kernels take %s",
            config.dtype,
            ", ".join(NATIVE_DTYPES),
        )


def _tell_of_changes(config: EngineConfig, stored: str) -> None:
    """Say what becomes of weights that the native kernels do not take as they are stored."""
    if config.quantization is not None and stored not in FLOATS:
        logger.warning(
            "%s: weights of type %s are quantised a second time, to %s, and lose more; without quantization "
            "they stay as they are",
            config.model,
            stored,
            config.quantization,
        )
