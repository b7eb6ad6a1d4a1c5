"""What an EAGLE-3 head is made of, in the public layouts of its config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.config import ModelConfig
from outrider.models.families.build import Sizes
from outrider.models.head_kinds import ARCHITECTURE, OF_QWEN3, refuse_other_configs
from outrider.models.head_settings import EAGLE, HeadSettings
from outrider.models.parts import Attention, Gated
from outrider.models.settings import FULL, SLIDING, Settings
from outrider.ops.shapes import Rope

FIXED: dict[str, tuple[str | int, ...]] = {
    "model_type": ("llama", "qwen3", "phi3", "mistral", "qwen2"),  # the last three have Llama's layer
    "hidden_act": ("silu",),
}
ROPE_KEYS = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "partial_rotary_factor",
)
LAYERS_KEY = "eagle_aux_hidden_state_layer_ids"


@dataclass(frozen=True)
class HeadConfig:
    """sizes: of the head and its layers; the vocabulary is the target's. rope_settings: of the rotary
    embedding, as config.json has them. windows: positions that each layer attends to, None where that is all;
    nothing where it is all for each. head_norms: queries and keys are normed, as in Qwen3.

    state_layers: the layers of the target whose inputs it reads, None where the checkpoint leaves them to
    `usual_layers`. reads_output: it reads what the target's output layer does, and nothing joins states.
    norm_before_fc: the joined states are normed; fc_norm: each of them is. norm_before_residual: the normed
    state is what the first layer adds to. norm_output: it goes on from its normed state. target_layers: how
    many the target has, if the checkpoint says so.
    """

    sizes: Sizes
    max_position_embeddings: int
    draft_vocab_size: int
    target_hidden_size: int
    rope_settings: Mapping[str, Any] = field(default_factory=dict)
    windows: tuple[int | None, ...] = ()
    head_norms: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    state_layers: tuple[int, ...] | None = None
    reads_output: bool = False
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_before_residual: bool = False
    norm_output: bool = False
    target_layers: int | None = None

    @classmethod
    def for_target(
        cls,
        target: ModelConfig,
        *,
        draft_vocab_size: int,
        layers: int = 1,
        state_layers: tuple[int, ...] = (),
    ) -> HeadConfig:
        """A head of so many layers of the target's own proportions: those of its last layer.

        Raises ModelError for a target that has no attention or no gated feed-forward.
        """
        tree = target.tree
        shape = next(reversed(tree.attention_shapes), None)
        attention = [b.attention.mixer for b in tree.blocks if isinstance(b.attention.mixer, Attention)]
        gated = [b.feed_forward.mixer for b in tree.blocks if isinstance(b.feed_forward.mixer, Gated)]
        if shape is None or not gated:
            missing = "attention" if shape is None else "gated feed-forward"
            raise ModelError(
                f"a head takes its proportions from a layer of its target, and {target.architecture} has no "
                f"{missing}"
            )
        sizes = Sizes(
            vocab=tree.vocab_size,
            hidden=tree.hidden_size,
            inner=gated[-1].down.matrices[0].shape[1],
            layers=layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            eps=tree.norm.eps,
        )
        return cls(
            sizes,
            target.max_position_embeddings,
            min(draft_vocab_size, sizes.vocab),
            sizes.hidden,
            # Of the rotary embedding only the base is taken over: a head looks at what is near.
            {"rope_theta": _base([shape.rope for shape in tree.attention_shapes])},
            attention_bias=bool(attention and attention[-1].qkv.biases),
            state_layers=state_layers or usual_layers(target.num_layers),
            target_layers=target.num_layers,
        )

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> HeadConfig:
        """From the contents of config.json, Speculators' layout included. Raises ModelError, naming `source`,
        for another kind of drafter and for a field that is wrong, or not known and not harmless."""
        refuse_other_configs(raw, source)
        c = HeadSettings(raw, source)
        for key, known in FIXED.items():
            if c.get(key) not in (None, *known):
                raise c.error(key, " or ".join(map(str, known)))
        sizes = Sizes.of(c)
        c.rope(sizes.head_dim, partial=1.0)  # raises what is wrong with it
        head = cls(
            sizes,
            max_position_embeddings=c.size("max_position_embeddings", 2048),
            draft_vocab_size=c.size("draft_vocab_size", c.size("truncated_vocab_size", sizes.vocab)),
            target_hidden_size=c.size("target_hidden_size", sizes.hidden),
            rope_settings={key: c.get(key) for key in ROPE_KEYS if c.get(key) is not None},
            windows=_windows(c, sizes.layers),
            head_norms=c.get("model_type") == "qwen3",
            attention_bias=c.flag("attention_bias", False),
            mlp_bias=c.flag("mlp_bias", False),
            tie_word_embeddings=c.flag("tie_word_embeddings", False),
            state_layers=_state_layers(c),
            reads_output=not c.flag(f"{EAGLE}.use_aux_hidden_state", True),
            norm_before_fc=c.flag(f"{EAGLE}.norm_before_fc", c.flag("norm_before_fc", False)),
            fc_norm=c.flag("fc_norm", False),
            norm_before_residual=c.flag("norm_before_residual", False),
            norm_output=c.flag("norm_output", False),
            target_layers=c.optional_size("target_num_hidden_layers"),
        )
        if c.size("num_aux_hidden_states", head.num_states) != head.num_states:
            raise c.error(
                "num_aux_hidden_states", f"{head.num_states}, which is how many states the head reads"
            )
        if head.norm_before_fc and head.fc_norm:
            raise c.error("fc_norm", "false where norm_before_fc is true; a head has one of them")
        if head.reads_output:
            head._check_output(c)
        c.check_rest()
        return head

    @property
    def rope(self) -> Rope:
        """The rotary embedding."""
        settings = {**self.rope_settings, "max_position_embeddings": self.max_position_embeddings}
        return Settings(settings, "the head's configuration").rope(self.sizes.head_dim, partial=1.0)

    def window(self, layer: int) -> int | None:
        """Positions that a layer attends to, None where that is all."""
        return self.windows[layer] if self.windows else None

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
        s, layers = self.sizes, list(self.state_layers or ())
        window = next((window for window in self.windows if window), None)
        types = [SLIDING if window else FULL for window in self.windows]
        return {
            "architectures": [OF_QWEN3 if self.head_norms else ARCHITECTURE],
            "model_type": "qwen3" if self.head_norms else "llama",
            "hidden_act": "silu",
            "hidden_size": s.hidden,
            "intermediate_size": s.inner,
            "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads,
            "num_key_value_heads": s.kv_heads,
            "head_dim": s.head_dim,
            "rms_norm_eps": s.eps,
            "max_position_embeddings": self.max_position_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "vocab_size": s.vocab,
            "draft_vocab_size": self.draft_vocab_size,
            "target_hidden_size": self.target_hidden_size,
            "target_num_hidden_layers": self.target_layers,
            "norm_before_residual": self.norm_before_residual,
            "norm_before_fc": self.norm_before_fc,
            "fc_norm": self.fc_norm,
            "norm_output": self.norm_output,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "bfloat16",
            # vLLM and Speculators read the first and count inputs of layers, SGLang the second and outputs.
            LAYERS_KEY: layers,
            "eagle_config": {
                LAYERS_KEY: [layer - 1 for layer in layers],
                "use_aux_hidden_state": not self.reads_output,
            },
            **({"sliding_window": window, "layer_types": types} if window else {}),
            **self.rope_settings,
        }

    def _check_output(self, c: HeadSettings) -> None:
        """Raises ModelError for what a head without states of layers cannot have."""
        needless = {
            LAYERS_KEY: self.state_layers is not None,
            "norm_before_fc": self.norm_before_fc,
            "fc_norm": self.fc_norm,
            "target_hidden_size": self.target_hidden_size != self.sizes.hidden,
        }
        for name, there in needless.items():
            if there:
                raise c.error(f"{EAGLE}.use_aux_hidden_state", f"true, since the head has {name}")


def usual_layers(target_layers: int) -> tuple[int, int, int]:
    """A low, a middle and a late layer of the target: vLLM's and SGLang's choice where a head names none."""
    if target_layers < 7:
        return 0, target_layers // 2, target_layers  # where theirs would not be three in a row
    return 2, target_layers // 2, target_layers - 3


def _state_layers(c: HeadSettings) -> tuple[int, ...] | None:
    """The layers whose inputs are read. `eagle_config` counts outputs, as in SpecForge and SGLang."""
    inputs, outputs = c.layers(LAYERS_KEY, first=0), c.layers(f"{EAGLE}.{LAYERS_KEY}", first=-1)
    if outputs is None:
        return inputs
    after = tuple(layer + 1 for layer in outputs)
    if inputs not in (None, after):
        raise c.error(
            LAYERS_KEY,
            f"{shown(list(after))} or absent: eagle_config has {shown(list(outputs))}, which are outputs",
        )
    return after


def _windows(c: HeadSettings, layers: int) -> tuple[int | None, ...]:
    """Positions that each layer attends to, None where that is all: `layer_types` decides, and a window by
    itself says nothing, as in vLLM and Speculators."""
    window, types = c.optional_size("sliding_window"), c.get("layer_types")
    if c.flag("use_sliding_window", False) and types is None:
        raise c.error("use_sliding_window", f"false, or layer_types has to name {SLIDING!r} as well")
    if types is None:
        return ()
    known = [FULL, SLIDING] if window else [FULL]
    if not isinstance(types, list) or len(types) != layers or any(kind not in known for kind in types):
        right = f"{FULL!r} for each of {layers} layers, or {SLIDING!r} with a sliding_window"
        raise c.error("layer_types", right)
    return tuple(window if kind == SLIDING else None for kind in types) if SLIDING in types else ()


def _base(ropes: Sequence[Rope | None]) -> int:
    """The base of the rotary embedding of the last layer that has one, of its two highest frequencies."""
    pairs = next((rope.inv_freq for rope in reversed(ropes) if rope is not None), ())
    return round((pairs[0] / pairs[1]) ** len(pairs)) if len(pairs) > 1 else 10000
