"""The layer that predicts further tokens, of Qwen3-Next and Qwen3.5: one with attention."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import Sizes
from outrider.models.families.qwen_hybrid import FeedForwards, attention, block_of
from outrider.models.mtp_parts import MtpParts, mtp_parts, qwens
from outrider.models.settings import Settings


def mtp(feed_forwards: FeedForwards) -> Callable[[Settings], MtpParts | None]:
    """Makes the layer: None where the settings say that there is none, or one with an embedding table of its
    own, whose place is not known."""

    def make(c: Settings) -> MtpParts | None:
        if c.get("mtp_num_hidden_layers") == 0 or c.get("mtp_use_dedicated_embeddings"):
            return None
        sizes = Sizes.of(c)
        attend, feed_forward = attention(c, sizes), feed_forwards(c, sizes)
        return mtp_parts(
            sizes, qwens(), lambda layer: block_of(layer, attend(layer), feed_forward), less_one=True
        )

    return make
