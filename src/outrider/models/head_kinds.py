"""What the drafter in a folder is, by the names in its config.json and of its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from outrider.errors import ModelError

ARCHITECTURE = "LlamaForCausalLMEagle3"
OF_QWEN3 = "Eagle3Qwen3ForCausalLM"
"""vLLM's name of a head whose layers are Qwen3's; its others take no norms of queries and keys."""
EAGLE3 = (ARCHITECTURE, OF_QWEN3, "Eagle3LlamaForCausalLM", "Eagle3Speculator", "Eagle3DraftModel")
ARCHITECTURES = (
    *EAGLE3,
    "LlamaForCausalLM",
)  # the last is the EAGLE repository's own, and a whole model's too
HEAD_KEYS = {"draft_vocab_size", "truncated_vocab_size", "eagle_config", "speculators_config"}
OTHER_KEYS = {"dflash_config", "medusa_num_heads", "hydra_num_heads"}

EAGLE1 = "an EAGLE-1 or EAGLE-2 head"
OTHERS = (
    ("dflash", "a DFlash drafter"),
    ("dspark", "a DSpark drafter"),
    ("p_?eagle", "a P-EAGLE head"),
    ("medusa", "Medusa heads"),
    ("hydra", "Hydra heads"),
    ("mlp_?speculator", "an MLP speculator"),
    ("mtp(model)?$|^mtp|nextn", "a layer for multi-token prediction (MTP)"),
    ("eagle3", "an EAGLE-3 head whose layer is neither Llama's nor Qwen3's"),
    ("eagle$|^eagle(model|speculator|draftmodel|.*forcausallm)$", EAGLE1),
)
"""How the name of another drafter looks, in lower case, and what it is."""


def is_drafter(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a head or of another drafter that is not a whole model."""
    return not HEAD_KEYS.isdisjoint(raw) or _architecture(raw) in EAGLE3 or _other(raw) is not None


def refuse_other_configs(raw: Mapping[str, Any], source: str) -> None:
    """Raises ModelError, which says what it is, for a config.json that is not an EAGLE-3 head's."""
    other = _other(raw)
    if other is not None:
        raise _unsupported(source, other)
    if _architecture(raw) not in ARCHITECTURES:
        raise ModelError(
            f"{source}: architectures = {raw.get('architectures')!r:.80} is not an EAGLE-3 head's; supported "
            f"are {', '.join(ARCHITECTURES)}"
        )


def refuse_other_tensors(names: Collection[str], source: str) -> None:
    """Raises ModelError, which says what it is, for tensors that are another drafter's."""
    if "mask_hidden" in names:
        raise _unsupported(source, "a P-EAGLE head")
    if any("medusa" in name for name in names):
        raise _unsupported(source, "Medusa heads")
    # An EAGLE-1 layer reads what `fc` makes of embedding and state, and has no norm for the state.
    if "fc.weight" in names and not any(name.endswith("hidden_norm.weight") for name in names):
        raise _unsupported(source, EAGLE1)


def _unsupported(source: str, what: str) -> ModelError:
    return ModelError(f"{source} is {what}, which is not supported; supported are EAGLE-3 heads")


def _architecture(raw: Mapping[str, Any]) -> Any:
    architectures = raw.get("architectures")
    return architectures[0] if isinstance(architectures, list) and architectures else None


def _other(raw: Mapping[str, Any]) -> str | None:
    """What drafter it is, if it is none of EAGLE-3 that could be read."""
    speculators = raw.get("speculators_config")
    algorithm = speculators.get("algorithm") if isinstance(speculators, Mapping) else None
    named = (_architecture(raw), raw.get("speculators_model_type"), algorithm, raw.get("model_type"))
    names = [name.lower() for name in named if isinstance(name, str) and name not in (*EAGLE3, "eagle3")]
    names += OTHER_KEYS.intersection(raw)
    return next((what for like, what in OTHERS for name in names if re.search(like, name)), None)
