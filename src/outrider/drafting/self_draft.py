"""The target's own weights at fewer bits, as a draft model."""

from __future__ import annotations

from outrider.errors import ConfigError
from outrider.formats.format import Format
from outrider.formats.quantization import QUANTIZED
from outrider.formats.registry import FORMATS
from outrider.loading import Listener, unheard
from outrider.models.model import Model, Weights
from outrider.ops.base import Backend
from outrider.option_types import Quantization

WORTH = 1.25
"""A weight of this many times the draft's bits is worth to be quantised for a draft: a step of it takes as
long as it has bits to read."""


def self_draft(
    target: Model,
    checkpoint: Weights,
    backend: Backend,
    quantization: Quantization,
    *,
    words: int | None = None,
    option: str,
    listener: Listener = unheard,
) -> Model:
    """The model of the target's `checkpoint` on `backend`, which quantises it.

    Norms and embedding table are the target's own, and so is a tied output layer that is no larger than the
    draft's would be.

    words: see `Model`; option: what the user wrote to have it. Raises ConfigError as `refuse_same_bits` does.
    """
    refuse_same_bits(FORMATS[target.linear[0].format], quantization, option=option)
    own_output = FORMATS[target.table.format].bits > WORTH * QUANTIZED[quantization].table.bits
    return Model(
        checkpoint,
        backend,
        target.shared(),
        own_output=own_output,
        words=words,
        name=f"the target's weights again, in {quantization}",
        listener=listener,
    )


def refuse_same_bits(found: Format, quantization: Quantization, *, option: str) -> None:
    """Raise ConfigError for a target whose weights, of format `found`, have so few bits already: each step of
    the draft would cost as much as one of the target, so it could never pay."""
    made = QUANTIZED[quantization].linear
    if found.bits < WORTH * made.bits:
        fewer = [
            repr(f"self:{name}")
            for name, kinds in QUANTIZED.items()
            if found.bits >= WORTH * kinds.linear.bits
        ]
        raise ConfigError(
            f"{option}: the target's weights have {int(found.bits)} bits already (format {found.name}), so a "
            f"draft of them at {int(made.bits)} would cost as much as the target; give "
            f"{', '.join([*fewer, repr('suffix')])} or a smaller draft model"
        )
