"""What an EAGLE-3 head is made of, in the public layouts of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import LlamaConfig

from outrider.errors import ModelError
from outrider.messages import reason
from outrider.models.config import DecoderConfig, decoder_config
from outrider.models.head_fields import Fields
from outrider.models.head_kinds import ARCHITECTURE, refuse_other_configs

LAYER_TYPES = ("llama", "phi3", "mistral")  # values of model_type whose layer is Llama's
ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters")
LAYERS_KEY = "eagle_aux_hidden_state_layer_ids"
LARGEST_HEAD = 2**12  # dimensions of a head of attention; a table of half as many frequencies is made


@dataclass(frozen=True)
class HeadConfig:
    """decoder: the head as a decoder of one layer, with the target's vocabulary.

    state_layers: the layers of the target whose inputs it reads, None where the checkpoint leaves them to
    `usual_layers`. reads_output: it reads what the target's output layer does, and nothing joins states.
    norm_before_fc: the joined states are normed; fc_norm: each of them is. norm_before_residual: the normed
    state is what the layer adds to. norm_output: it goes on from its normed state. target_layers: how many
    the target has, if the checkpoint says so. rope: the settings of the rotary embedding, as config.json has
    them.
    """

    decoder: DecoderConfig
    draft_vocab_size: int
    target_hidden_size: int
    state_layers: tuple[int, ...] | None = None
    reads_output: bool = False
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_before_residual: bool = False
    norm_output: bool = False
    target_layers: int | None = None
    rope: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def for_target(
        cls, target: DecoderConfig, *, draft_vocab_size: int, state_layers: tuple[int, ...] | None = None
    ) -> HeadConfig:
        """A head of the target's own proportions."""
        # Of the rotary embedding only the base is taken over: a head looks at what is near.
        rope = {"rope_theta": round(target.rope_inv_freq[1] ** (-target.head_dim / 2))}
        decoder = replace(
            target, tie_word_embeddings=False, attention_bias=False, mlp_bias=False, sliding_window=None
        )
        layers = state_layers or usual_layers(target.num_layers)
        size = min(draft_vocab_size, target.vocab_size)
        head = cls(decoder, size, target.hidden_size, layers, target_layers=target.num_layers, rope=rope)
        return cls.parse(head.to_json(), "the head's configuration")

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> HeadConfig:
        """From the contents of config.json, Speculators' layout included. Raises ModelError, naming `source`,
        for another kind of drafter and for a field that is wrong, or not known and not harmless."""
        refuse_other_configs(raw, source)
        fields = Fields(raw, source).spread("transformer_layer_config")
        eagle = fields.mapping("eagle_config")
        decoder, rope = _decoder(fields, source)
        target_layers = fields.size("target_num_hidden_layers", 0)
        head = cls(
            decoder=decoder,
            draft_vocab_size=fields.size(
                "draft_vocab_size", fields.size("truncated_vocab_size", decoder.vocab_size)
            ),
            target_hidden_size=fields.size("target_hidden_size", decoder.hidden_size),
            state_layers=_state_layers(fields, eagle),
            reads_output=not eagle.flag("use_aux_hidden_state", True),
            norm_before_fc=eagle.flag("norm_before_fc", fields.flag("norm_before_fc")),
            fc_norm=fields.flag("fc_norm"),
            norm_before_residual=fields.flag("norm_before_residual"),
            norm_output=fields.flag("norm_output"),
            target_layers=target_layers or None,
            rope=rope,
        )
        if fields.size("num_aux_hidden_states", head.num_states) != head.num_states:
            raise fields.error("num_aux_hidden_states", f"the head reads {head.num_states} states")
        if head.norm_before_fc and head.fc_norm:
            raise fields.error("fc_norm", "norm_before_fc is true as well; a head has one of them")
        if head.reads_output:
            head._check_output(fields, eagle)
        fields.refuse_rest()
        eagle.refuse_rest()
        return head

    @property
    def num_states(self) -> int:
        """How many of the target's states it reads at a position."""
        return 1 if self.reads_output else len(self.state_layers or usual_layers(0))

    @property
    def width(self) -> int:
        """Numbers that it reads at a position: the states beside each other."""
        return self.num_states * self.target_hidden_size

    def to_json(self) -> dict[str, Any]:
        """The contents of config.json."""
        decoder, layers = self.decoder, list(self.state_layers or ())
        sliding = {"sliding_window": decoder.sliding_window, "layer_types": ["sliding_attention"]}
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
            "attention_bias": decoder.attention_bias,
            "mlp_bias": decoder.mlp_bias,
            "vocab_size": decoder.vocab_size,
            "draft_vocab_size": self.draft_vocab_size,
            "target_hidden_size": self.target_hidden_size,
            "target_num_hidden_layers": self.target_layers,
            "norm_before_residual": self.norm_before_residual,
            "norm_before_fc": self.norm_before_fc,
            "fc_norm": self.fc_norm,
            "norm_output": self.norm_output,
            "tie_word_embeddings": decoder.tie_word_embeddings,
            "torch_dtype": "bfloat16",
            # vLLM and Speculators read the first and count inputs of layers, SGLang the second and outputs.
            LAYERS_KEY: layers,
            "eagle_config": {
                LAYERS_KEY: [layer - 1 for layer in layers],
                "use_aux_hidden_state": not self.reads_output,
            },
            **(sliding if decoder.sliding_window else {}),
            **self.rope,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor by its public name, besides the embedding table, which is the target's if it lacks."""
        decoder = self.decoder
        hidden, inner = decoder.hidden_size, decoder.intermediate_size
        q, kv = decoder.num_heads * decoder.head_dim, decoder.num_kv_heads * decoder.head_dim
        linears = {
            "self_attn.q_proj": (q, 2 * hidden),
            "self_attn.k_proj": (kv, 2 * hidden),
            "self_attn.v_proj": (kv, 2 * hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        if self.norm_before_fc:
            shapes["input_norm.weight"] = (self.width,)
        if self.fc_norm:
            shapes |= {f"fc_norm.{i}.weight": (self.target_hidden_size,) for i in range(self.num_states)}
        if not self.reads_output:
            shapes["fc.weight"] = (hidden, self.width)
        for name in ("input_layernorm", "hidden_norm", "post_attention_layernorm"):
            shapes[f"midlayer.{name}.weight"] = (hidden,)
        for name, shape in linears.items():
            shapes[f"midlayer.{name}.weight"] = shape
            if decoder.attention_bias if name.startswith("self_attn") else decoder.mlp_bias:
                shapes[f"midlayer.{name}.bias"] = shape[:1]
        return shapes | {"norm.weight": (hidden,), "lm_head.weight": (self.draft_vocab_size, hidden)}

    def _check_output(self, fields: Fields, eagle: Fields) -> None:
        """Raises ModelError for what a head without states of layers cannot have."""
        needless = {
            LAYERS_KEY: self.state_layers is not None,
            "norm_before_fc": self.norm_before_fc,
            "fc_norm": self.fc_norm,
            "target_hidden_size": self.target_hidden_size != self.decoder.hidden_size,
        }
        for name, there in needless.items():
            if there:
                raise eagle.error("use_aux_hidden_state", f"the head would read no layers, and has {name}")


def usual_layers(target_layers: int) -> tuple[int, int, int]:
    """A low, a middle and a late layer of the target: vLLM's and SGLang's choice where a head names none."""
    if target_layers < 7:
        return 0, target_layers // 2, target_layers  # where theirs would not be three in a row
    return 2, target_layers // 2, target_layers - 3


def _state_layers(fields: Fields, eagle: Fields) -> tuple[int, ...] | None:
    """The layers whose inputs are read. `eagle_config` counts outputs, as in SpecForge and SGLang."""
    inputs, outputs = fields.layers(LAYERS_KEY, first=0), eagle.layers(LAYERS_KEY, first=-1)
    if outputs is None:
        return inputs
    after = tuple(layer + 1 for layer in outputs)
    if inputs not in (None, after):
        raise fields.error(
            LAYERS_KEY,
            f"eagle_config has {list(outputs)}, which are outputs of layers, and {list(after)} would be the "
            "same as inputs; give one of the two",
        )
    return after


def _decoder(fields: Fields, source: str) -> tuple[DecoderConfig, dict[str, Any]]:
    """The layer of the head, and its rotary settings. Only what is known goes to transformers, which makes
    tables as large as it is told to."""
    for key, known in (("model_type", LAYER_TYPES), ("hidden_act", ("silu",)), ("num_hidden_layers", (1,))):
        if fields.get(key) not in (None, *known):
            raise fields.error(key, f"a head's has to be {' or '.join(map(str, known))}")
    heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
    head_dim = fields.size("head_dim", max(1, hidden // heads))
    if head_dim > LARGEST_HEAD:
        raise fields.error("head_dim", f"heads of {LARGEST_HEAD} dimensions are the largest")
    rope = _rope(fields)
    plain = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 1,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "head_dim": head_dim,
        "num_key_value_heads": fields.size("num_key_value_heads", heads),
        "intermediate_size": fields.size("intermediate_size"),
        "vocab_size": fields.size("vocab_size"),
        "max_position_embeddings": fields.size("max_position_embeddings", 2048),
        "rms_norm_eps": fields.positive("rms_norm_eps", 1e-6),
        "attention_bias": fields.flag("attention_bias"),
        "mlp_bias": fields.flag("mlp_bias"),
        "tie_word_embeddings": fields.flag("tie_word_embeddings"),
        "sliding_window": _window(fields),
    }
    try:
        decoder = decoder_config(LlamaConfig.from_dict({**plain, **rope}), source)
    except ModelError:
        raise
    except Exception as error:  # validation errors of many kinds
        raise ModelError(f"{source} is not a valid configuration: {reason(error)}") from error
    return decoder, rope


def _rope(fields: Fields) -> dict[str, Any]:
    rope = {key: fields.get(key) for key in ROPE_KEYS if fields.get(key) is not None}
    if "rope_theta" in rope:
        rope["rope_theta"] = fields.positive("rope_theta", 0.0)
    for key in set(rope) - {"rope_theta"}:
        if not isinstance(rope[key], dict) or any(isinstance(value, dict) for value in rope[key].values()):
            raise fields.error(key, "give an object of numbers, for the one layer")
    return rope


def _window(fields: Fields) -> int | None:
    """Positions that the layer attends to, None where that is all: `layer_types` decides, and a window by
    itself says nothing, as in vLLM."""
    window = fields.size("sliding_window", 0)
    types = fields.get("layer_types")
    if fields.flag("use_sliding_window") and types is None:
        raise fields.error("use_sliding_window", "give layer_types = ['sliding_attention'] as well")
    if types is None or _all(types, "full_attention"):
        return None
    if not _all(types, "sliding_attention") or not window:
        raise fields.error(
            "layer_types", "give ['full_attention'], or ['sliding_attention'] with a sliding_window"
        )
    return window


def _all(types: Any, one: str) -> bool:
    return isinstance(types, list) and bool(types) and all(kind == one for kind in types)
