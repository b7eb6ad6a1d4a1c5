"""Choosing the backend that a configuration means."""

from __future__ import annotations

import logging

import torch

from outrider.config import EngineConfig, Quantization
from outrider.errors import ConfigError
from outrider.formats.convert import convert
from outrider.formats.format import Format
from outrider.formats.quantization import QUANTIZED, FormatPair
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.messages import reason
from outrider.models.checkpoint import Checkpoint
from outrider.ops.base import Backend
from outrider.ops.cpu import extension
from outrider.ops.cpu.backend import Convert, Formats, NativeBackend
from outrider.ops.torch import TorchBackend

logger = logging.getLogger(__name__)

FLOATS = ("F32", "F16", "BF16")  # types of a checkpoint that are not quantised
NATIVE_DTYPES = ("auto", "float32", "bfloat16")
ASKED_FOR: dict[str, FormatPair] = QUANTIZED | {
    "float32": FormatPair(FORMATS["F32"], FORMATS["F32"]),
    "bfloat16": FormatPair(FORMATS["BF16"], FORMATS["BF16"]),
}
"""What weights become by `quantization` or `dtype`."""


def choose_backend(config: EngineConfig, checkpoint: Checkpoint) -> Backend:
    """The native kernels on the CPU, PyTorch elsewhere. Raises ConfigError for what no backend can do."""
    device = choose_device(config.device)
    if is_native(config, device):
        _tell_of_changes(config, checkpoint.stored_as)
        return NativeBackend(
            _formats(config),
            cache_dtype=native_cache_dtype(config, checkpoint),
            num_threads=config.num_threads,
            instruction_set=config.instruction_set,
        )
    _tell_of_pytorch(config, device)
    for name in ("quantization", "num_threads", "instruction_set"):
        if getattr(config, name) not in (None, "auto"):
            raise ConfigError(
                f"{name} = {getattr(config, name)!r} is for the native CPU kernels; this engine uses PyTorch "
                f"on {device.type} (backend = {config.backend!r}, dtype = {config.dtype!r})"
            )
    dtype = torch_dtype(config, checkpoint, device)
    if config.kv_cache_dtype not in ("auto", str(dtype).removeprefix("torch.")):
        raise ConfigError(
            f"kv_cache_dtype = {config.kv_cache_dtype!r}: on PyTorch the cache has the model's dtype"
        )
    return TorchBackend(device, dtype)


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
    own = draft_config(config, quantization, native=isinstance(target, NativeBackend), option=option)
    if not isinstance(target, NativeBackend):
        return target
    return target.with_formats(_formats(own), cache_dtype=native_cache_dtype(own, checkpoint))


def draft_config(
    config: EngineConfig, quantization: Quantization | None, *, native: bool, option: str
) -> EngineConfig:
    """What says of a draft's weights what `config` says of the target's; otherwise like `draft_backend`."""
    if native:
        return config.model_copy(update={"quantization": quantization, "dtype": "auto"})
    if quantization is not None:
        raise ConfigError(
            f"{option} is for the native CPU kernels; this engine uses PyTorch on "
            f"{choose_device(config.device).type} (backend = {config.backend!r}, dtype = {config.dtype!r}); "
            "give a draft model without draft_quantization, or run on the CPU with backend = 'native'"
        )
    return config


def native_formats(config: EngineConfig) -> tuple[Format | None, Format | None]:
    """What the native kernels turn linear layers, and tables of tokens, into; None: as they are stored."""
    return ASKED_FOR.get(config.quantization or config.dtype, (None, None))


def is_native(config: EngineConfig, device: torch.device) -> bool:
    """Whether the native kernels compute. Raises ConfigError where they are asked for and cannot."""
    if config.backend == "native":
        if device.type != "cpu" or config.dtype not in NATIVE_DTYPES:
            raise ConfigError(
                f"backend = 'native' with device = {device.type!r} and dtype = {config.dtype!r}: the native "
                f"kernels run on the CPU, with dtype {', '.join(NATIVE_DTYPES)}"
            )
        extension.require()
        return True
    on_pytorch = config.backend == "torch" or device.type != "cpu" or config.dtype not in NATIVE_DTYPES
    return not on_pytorch and extension.native is not None


def _tell_of_pytorch(config: EngineConfig, device: torch.device) -> None:
    """Say why the native kernels do not compute where they might have been expected to."""
    if config.backend != "auto" or device.type != "cpu":
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


def _formats(config: EngineConfig) -> Formats:
    linear, table = native_formats(config)
    return Formats(_convert(linear), _convert(table))


def _convert(format: Format | None) -> Convert:
    """To `format`, or as it is stored."""

    def as_asked(weight: Weight) -> Weight:
        return weight if format is None else convert(weight, format)

    return as_asked


def native_cache_dtype(config: EngineConfig, checkpoint: Checkpoint) -> torch.dtype:
    """Of K and V: float32 with weights in float32 or float16, else bfloat16."""
    if config.kv_cache_dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.kv_cache_dtype]
    if config.quantization is None and config.dtype == "float32":
        return torch.float32
    exact = config.quantization is None and config.dtype == "auto" and checkpoint.stored_as in FLOATS[:2]
    return torch.float32 if exact else torch.bfloat16


def choose_device(name: str) -> torch.device:
    """The device that `name` means. Raises ConfigError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device = {name!r} cannot be used: {reason(error)}; try 'cpu'") from error
    return device


def torch_dtype(config: EngineConfig, checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """float32 on the CPU: PyTorch's kernels there are not row-invariant, and rounding to fewer bits would
    turn their last-bit differences into different tokens."""
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    stored: torch.dtype = getattr(torch, checkpoint.config.dtype)
    return torch.float32 if device.type == "cpu" else stored
