"""Texts of tokens that chat models are known to end a turn with.

They are those of llama.cpp (src/llama-vocab.cpp, `special_eog_ids`).
"""

from __future__ import annotations

from collections.abc import Set

END_TEXTS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<\N{FULLWIDTH VERTICAL LINE}end\N{LOWER ONE EIGHTH BLOCK}of\N{LOWER ONE EIGHTH BLOCK}sentence"
        "\N{FULLWIDTH VERTICAL LINE}>",
        "[e~[",
    )
)
NO_ENDS = (
    ({"<|return|>", "<|call|>"}, "<|end|>"),
    ({"<|calls|>", "<|flush|>"}, "<|end|>"),
    ({"<|tool_response>"}, "</s>"),
)
"""Where a vocabulary has all of the former, the latter ends a part of a turn only, or nothing."""


def ends_among(known: Set[str]) -> set[str]:
    """Those of some of `END_TEXTS` that end a turn, where all of them stand in one vocabulary."""
    return set(known) - {token for others, token in NO_ENDS if others <= known}
