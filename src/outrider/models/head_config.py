"""What an EAGLE-3 head is made of, in the public layout of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import LlamaConfig

from outrider.errors import ModelError
from outrider.models.config import DecoderConfig, decoder_config

ARCHITECTURE = "LlamaForCausalLMEagle3"
ARCHITECTURES = (ARCHITECTURE, "LlamaForCausalLM", "Eagle3LlamaForCausalLM")
ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters")
LAYERS_KEY = "eagle_aux_hidden_state_layer_ids"


@dataclass(frozen=True)
class HeadConfig:
    """decoder: the head as a decoder of one layer, with the target's vocabulary.

    state_layers: the three layers of the target whose inputs it reads, None where the checkpoint leaves them
    to `usual_layers`. norm_before_residual: whether the normed state is what the layer adds to.
    target_layers: how many the target has, if the checkpoint says so. rope: the settings of the rotary
    embedding, as config.json has them.
    """

    decoder: DecoderConfig
    draft_vocab_size: int
    target_hidden_size: int
    state_layers: tuple[int, int, int] | None = None
    norm_before_residual: bool = False
    target_layers: int | None = None
    rope: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def for_target(
        cls, target: DecoderConfig, *, draft_vocab_size: int, state_layers: tuple[int, int, int] | None = None
    ) -> HeadConfig:
        """A head of the target's own proportions."""
        # Of the rotary embedding only the base is taken over: a head looks at what is near.
        rope = {"rope_theta": round(target.rope_inv_freq[1] ** (-target.head_dim / 2))}
        decoder = replace(target, tie_word_embeddings=False, attention_bias=False, mlp_bias=False)
        layers = state_layers or usual_layers(target.num_layers)
        size = min(draft_vocab_size, target.vocab_size)
        head = cls(decoder, size, target.hidden_size, layers, target_layers=target.num_layers, rope=rope)
        return cls.parse(head.to_json(), "the head's configuration")

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> HeadConfig:
        """From the contents of config.json. Raises ModelError, naming `source`."""
        architecture = (raw.get("architectures") or [None])[0]
        if architecture not in ARCHITECTURES:
            raise ModelError(
                f"{source}: architecture {architecture!r} is not an EAGLE-3 head; supported are "
                f"{', '.join(ARCHITECTURES)}"
            )
        if raw.get("num_hidden_layers", 1) != 1:
            raise ModelError(f"{source}: num_hidden_layers = {raw['num_hidden_layers']}; a head has 1")
        try:
            plain = LlamaConfig.from_dict({**raw, "architectures": ["LlamaForCausalLM"]})
        except Exception as error:  # validation errors of many kinds
            raise ModelError(f"{source} is not a valid configuration: {error}") from error
        decoder = decoder_config(plain, source)
        eagle = raw.get("eagle_config") or {}
        layers = eagle.get(LAYERS_KEY, raw.get(LAYERS_KEY))
        if layers is not None and (len(layers) != 3 or sorted(set(layers)) != list(layers)):
            raise ModelError(f"{source}: {LAYERS_KEY} = {layers}; give three layers in ascending order")
        return cls(
            decoder=decoder,
            draft_vocab_size=raw.get("draft_vocab_size") or decoder.vocab_size,
            target_hidden_size=raw.get("target_hidden_size") or decoder.hidden_size,
            state_layers=None if layers is None else (layers[0], layers[1], layers[2]),
            norm_before_residual=bool(raw.get("norm_before_residual", False)),
            target_layers=raw.get("target_num_hidden_layers"),
            rope={key: raw[key] for key in ROPE_KEYS if raw.get(key) is not None},
        )

    def to_json(self) -> dict[str, Any]:
        """The contents of config.json."""
        decoder = self.decoder
        return {
            "architectures": [ARCHITECTURE],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": decoder.hidden_size,
            "intermediate_size": decoder.intermediate_size,
            "num_hidden_layers": 1,
            "num_attention_heads": decoder.num_heads,
            "num_key_value_heads": decoder.num_kv_heads,
            "head_dim": decoder.head_dim,
            "rms_norm_eps": decoder.rms_norm_eps,
            "max_position_embeddings": decoder.max_position_embeddings,
            "vocab_size": decoder.vocab_size,
            "draft_vocab_size": self.draft_vocab_size,
            "target_hidden_size": self.target_hidden_size,
            "target_num_hidden_layers": self.target_layers,
            "norm_before_residual": self.norm_before_residual,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "eagle_config": {LAYERS_KEY: list(self.state_layers or ()), "use_aux_hidden_state": True},
            **self.rope,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor by its public name, besides the embedding table, which is the target's if it lacks."""
        decoder = self.decoder
        hidden, inner = decoder.hidden_size, decoder.intermediate_size
        q, kv = decoder.num_heads * decoder.head_dim, decoder.num_kv_heads * decoder.head_dim
        return {
            "fc.weight": (hidden, 3 * self.target_hidden_size),
            "midlayer.input_layernorm.weight": (hidden,),
            "midlayer.hidden_norm.weight": (hidden,),
            "midlayer.self_attn.q_proj.weight": (q, 2 * hidden),
            "midlayer.self_attn.k_proj.weight": (kv, 2 * hidden),
            "midlayer.self_attn.v_proj.weight": (kv, 2 * hidden),
            "midlayer.self_attn.o_proj.weight": (hidden, q),
            "midlayer.post_attention_layernorm.weight": (hidden,),
            "midlayer.mlp.gate_proj.weight": (inner, hidden),
            "midlayer.mlp.up_proj.weight": (inner, hidden),
            "midlayer.mlp.down_proj.weight": (hidden, inner),
            "norm.weight": (hidden,),
            "lm_head.weight": (self.draft_vocab_size, hidden),
        }


def usual_layers(target_layers: int) -> tuple[int, int, int]:
    """A low, a middle and a late layer of the target: vLLM's and SGLang's choice where a head names none."""
    if target_layers < 7:
        return 0, target_layers // 2, target_layers  # where theirs would not be three in a row
    return 2, target_layers // 2, target_layers - 3
