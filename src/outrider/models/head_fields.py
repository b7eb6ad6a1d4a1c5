"""The fields of a head's config.json, each read with its type; what is not read must change nothing."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from outrider.errors import ModelError

MOST = 2**31 - 1  # of a size, and of a layer's number
LARGEST = 1e30
_HARMLESS = """
    architectures model_type speculators_model_type speculators_config speculators_version auto_map
    transformers_version torch_dtype dtype name_or_path
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id
    forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens bad_words_ids
    tokenizer_class prefix num_labels id2label label2id problem_type finetuning_task task_specific_params
    return_dict use_cache output_attentions output_hidden_states return_dict_in_generate output_scores
    torchscript use_bfloat16 tf_legacy_loss remove_invalid_values chunk_size_feed_forward pretraining_tp
    initializer_range attention_dropout embed_requires_grad max_window_layers
    target_model_type has_no_defaults_at_init is_composition base_config_key base_model_tp_plan
    base_model_pp_plan base_model_ep_plan sub_configs attribute_map keys_to_ignore_at_inference
    do_sample temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size num_beams num_beam_groups diversity_penalty early_stopping max_length
    min_length num_return_sequences exponential_decay_length_penalty
"""
HARMLESS = frozenset(_HARMLESS.split())
"""For training, for generation, for a tokenizer, or a label: they say nothing about what a draft is."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "pruned_heads": ({},),
    "bias": (False,),
    "qkv_bias": (False,),
    "logit_scale": (1,),
    "partial_rotary_factor": (1,),
    "position_embedding_type": ("rope",),
    "is_causal": (True,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_encoder_decoder": (False,),
    "quantization_config": (),
    "compression_config": (),
    "mask_token_id": (),
    "ptd_token_id": (),
    "pard_token": (),
    "parallel_drafting": (False,),
    "parallel_draft_step": (1,),
    "parallel_draft_heads_num_layers": (1,),
    "next_layer_regular": (True,),
    "use_input_layernorm_in_first_layer": (True,),
    "use_last_layernorm": (True,),
    "use_mtp_layernorm": (False,),
}
"""What each has to be, since it would change what a draft is; null is as good as absent."""


class Fields:
    """A mapping out of config.json whose fields are asked for one by one. name: of the mapping, if it is not
    the whole file. Raises ModelError, naming `source`, for a value of the wrong type or out of range."""

    def __init__(self, raw: Mapping[str, Any], source: str, name: str = "") -> None:
        self._raw = {key: value for key, value in raw.items() if value is not None}
        self._source = source
        self._name = f"{name}." if name else ""
        self._asked: set[str] = set()

    def error(self, key: str, right: str) -> ModelError:
        """For the value of a field. right: what would be right."""
        return ModelError(
            f"{self._source}: {self._name}{key:.80} = {reprlib.repr(self._raw.get(key))}; {right}"
        )

    def get(self, key: str) -> Any:
        """The value as it stands, None where there is none."""
        self._asked.add(key)
        return self._raw.get(key)

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 on; without a default it has to be there."""
        value = self.get(key)
        if value is None:
            if default is None:
                raise ModelError(f"{self._source}: {self._name}{key} is missing; a head has to name it")
            return default
        if type(value) is not int or not 1 <= value <= MOST:
            raise self.error(key, f"give a whole number from 1 to {MOST}")
        return value

    def positive(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.get(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not 0 < value <= LARGEST:
            raise self.error(key, f"give a number above 0, {LARGEST:g} at most")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.error(key, "give true or false")
        return value

    def mapping(self, key: str) -> Fields:
        """The fields of an object within; none where it is missing."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, "give an object")
        return Fields(value or {}, self._source, f"{self._name}{key}")

    def spread(self, key: str) -> Fields:
        """These fields with those of an object within, in its place; the latter go first."""
        inner = self.mapping(key)._raw
        return Fields({**self._raw, **inner, key: None}, self._source)

    def layers(self, key: str, *, first: int) -> tuple[int, ...] | None:
        """Numbers of layers in ascending order, from `first` on; None where it is missing or empty."""
        value = self.get(key)
        if value in (None, []):
            return None
        if (
            not isinstance(value, list)
            or any(type(layer) is not int or not first <= layer <= MOST for layer in value)
            or sorted(set(value)) != value
        ):
            raise self.error(key, f"give layers from {first} on in ascending order")
        return tuple(value)

    def refuse_rest(self) -> None:
        """Raises ModelError, naming it, for a field that nobody has asked for and that may change drafts."""
        for key, value in self._raw.items():
            if key in self._asked or key in HARMLESS or key.startswith("_"):
                continue
            if key not in NEUTRAL:
                raise self.error(key, "this field of a head is not known, and may change what it drafts")
            if value not in NEUTRAL[key]:
                right = " or ".join(map(str, NEUTRAL[key])) or "null"
                raise self.error(key, f"this field of a head is not supported, unless it is {right}")
