"""The target's own weights at fewer bits, as a draft model."""

from __future__ import annotations

from outrider.config import Quantization
from outrider.errors import ConfigError
from outrider.models.checkpoint import Checkpoint
from outrider.models.llama import Llama
from outrider.ops.base import Backend
from outrider.quantization.quantize import QUANTIZED
from outrider.quantization.weight import BITS, Format


def self_draft(
    target: Llama, checkpoint: Checkpoint, backend: Backend, quantization: Quantization, *, option: str
) -> Llama:
    """The model of the target's `checkpoint` on `backend`, which quantises it.

    Norms and embedding table are the target's own, and so is a tied output layer that is no larger than the
    draft's would be.

    option: what the user wrote to have it. Raises ConfigError as `refuse_same_bits` does.
    """
    refuse_same_bits(target.linear[0].format, quantization, option=option)
    _, table = QUANTIZED[quantization]
    return Llama(checkpoint, backend, target.share(output=BITS[target.table.format] <= BITS[table]))


def refuse_same_bits(found: Format, quantization: Quantization, *, option: str) -> None:
    """Raise ConfigError for a target whose weights, of format `found`, have so few bits already: each step of
    the draft would cost as much as one of the target, so it could never pay."""
    linear, _ = QUANTIZED[quantization]
    if BITS[found] <= BITS[linear]:
        fewer = [repr(f"self:{name}") for name, (made, _) in QUANTIZED.items() if BITS[made] < BITS[found]]
        raise ConfigError(
            f"{option}: the target's weights have {BITS[found]} bits already (format {found}), so a draft of "
            f"them at {BITS[linear]} would cost as much as the target; give "
            f"{', '.join([*fewer, repr('ngram')])} or a smaller draft model"
        )
