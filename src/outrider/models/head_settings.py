"""The settings of a head's config.json. Unlike a model's, they are refused where they are not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.settings import MOST, PLACES_OF_ROPE, Settings, is_same, is_whole

LAYER, EAGLE = "transformer_layer_config", "eagle_config"
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
    decoder_sparse_step router_aux_loss_coef output_router_logits
    modal_type image_token_id video_token_id vision_token_id vision_start_token_id vision_end_token_id
    add_classification_head attention_head_dim cla_share_factor class_num dense_list org_vocab_size pool_type
    eod_token_id pad_id im_start_id im_end_id im_newline_id mask_init_id text_start_id text_end_id
    use_mrope use_qk_norm
"""
HARMLESS = frozenset(_HARMLESS.split())
"""For training, for generation, for a tokenizer, a label, or copied from the target's config.json and of its
experts, its pictures, or its own layers: they say nothing about what a draft is."""
OF_PICTURES = ("mrope_section", "mrope_interleaved")
"""Settings of a rope with several axes, on all of which a text's positions are the same."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "pruned_heads": ({},),
    "bias": (False,),
    "qkv_bias": (False,),
    "logit_scale": (1,),
    "position_embedding_type": ("rope",),
    "norm_type": ("rms",),
    "use_cla": (False,),
    "use_rotary_pos_emb": (True,),
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


class HeadSettings(Settings):
    """Null is as good as absent.

    Fields of the object `eagle_config` go by its name and theirs, as 'eagle_config.norm_before_fc'; those of
    `transformer_layer_config`, in Speculators' layout, are the file's own, and go first.
    """

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        values = {"num_hidden_layers": 1, **_named(raw)}
        layer = values.pop(LAYER, {})
        if not isinstance(layer, dict):
            raise Settings(raw, source).error(LAYER, "an object")
        values |= _named(layer)
        eagle = values.pop(EAGLE, {})
        if not isinstance(eagle, dict):
            raise Settings({EAGLE: eagle}, source).error(EAGLE, "an object")
        values |= {key: _of_text(values[key]) for key in PLACES_OF_ROPE if key in values}
        super().__init__(
            {**values, **{f"{EAGLE}.{key}": value for key, value in _named(eagle).items()}}, source
        )

    def layers(self, key: str, *, first: int) -> tuple[int, ...] | None:
        """Numbers of layers in ascending order, from `first` on; None where it is missing or empty."""
        value = self.get(key)
        if value in (None, []):
            return None
        if (
            not isinstance(value, list)
            or any(not is_whole(layer) or not first <= layer <= MOST for layer in value)
            or sorted(set(value)) != value
        ):
            raise self.error(key, f"layers from {first} on in ascending order")
        return tuple(value)

    def check_rest(self) -> None:
        """A field that nobody has asked for has to be harmless, or to have the value that changes nothing."""
        for key, value in self._values.items():
            field = key.removeprefix(f"{EAGLE}.")
            if key in self._asked or field in HARMLESS or field.startswith("_"):
                continue
            if field not in NEUTRAL:
                why = "this field of a head is not known, and may change what it drafts"
            elif not any(is_same(value, neutral) for neutral in NEUTRAL[field]):
                right = " or ".join(map(shown, NEUTRAL[field])) or "null"
                why = f"this field of a head is not supported, unless it is {right}"
            else:
                continue
            name = key if key.isprintable() else shown(key)
            raise ModelError(f"{self.source}: {name:.80} = {shown(value)}; {why}")


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not null."""
    return {key: value for key, value in values.items() if value is not None}


def _of_text(rope: Any) -> Any:
    """A rope's settings without those that only pictures need."""
    if not isinstance(rope, Mapping):
        return rope
    kinds = ("type", "rope_type")
    return {
        key: value
        for key, value in rope.items()
        if key not in OF_PICTURES and not (key in kinds and value == "mrope")
    }
