"""The parts of an EAGLE-3 head, by the names of the public layout."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.models.families.build import Layer
from outrider.models.head_config import HeadConfig
from outrider.models.leaves import Linear, Table, Vector
from outrider.models.parts import Block, Gated, Norm, Residual
from outrider.models.tensors import Place, Scope, Tensor
from outrider.ops.shapes import AttentionShape

TABLE, OUTPUT = "embed_tokens.weight", "lm_head.weight"
LAYER = "midlayer."


@dataclass(frozen=True)
class HeadParts:
    """A head, in the order in which it is loaded; None for what it does not have, or shares with its target.

    joined_norm: of all of the target's states beside each other; state_norms: of each of them. qkv_embedding,
    qkv_state: of [embedding, state]; two products are summed, so that the two need not be put together.
    q_norm to feed_forward: of the first layer; further: the layers after it, which are a Llama's or Qwen3's.
    """

    table: Table | None
    joined_norm: Norm | None
    state_norms: tuple[Norm, ...]
    fc: Linear | None
    embedding_norm: Norm
    state_norm: Norm
    qkv_embedding: Linear
    qkv_state: Linear
    q_norm: Vector | None
    k_norm: Vector | None
    shape: AttentionShape
    out: Linear
    feed_forward: Residual
    further: tuple[Block, ...]
    norm: Norm
    output: Linear | None

    @property
    def width(self) -> int:
        """Numbers of a row that a pass holds at once."""
        shape, hidden = self.shape, self.out.matrices[0].shape[0]
        return 2 * hidden + max(
            2 * (shape.heads + shape.kv_heads) * shape.head_dim, self.feed_forward.mixer.width
        )


def head_parts(config: HeadConfig, *, table: bool = False, output: bool = True) -> HeadParts:
    """table, output: whether it has an embedding table and an output layer of its own."""
    s, hidden = config.sizes, config.sizes.hidden
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim

    def norm(name: str, size: int = hidden) -> Norm:
        return Norm(Vector(_tensor(f"{name}.weight", size)), s.eps)

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = False) -> Linear:
        biases = (_tensor(f"{name}.bias", outputs),) if bias else ()
        return Linear((_tensor(f"{name}.weight", outputs, inputs),), biases)

    def head_norm(name: str) -> Vector | None:
        return Vector(_tensor(f"{LAYER}self_attn.{name}.weight", s.head_dim)) if config.head_norms else None

    def qkv(kind: str) -> tuple[tuple[str, int], ...]:
        return tuple(
            (f"{LAYER}self_attn.{one}_proj.{kind}", size) for one, size in (("q", q), ("k", kv), ("v", kv))
        )

    def half(column: int) -> tuple[Tensor, ...]:
        """The tensors of the matrices that read [embedding, state], the inputs from `column` on."""
        return tuple(
            _tensor(name, size, hidden, of=2 * hidden, column=column) for name, size in qkv("weight")
        )

    def mlp(name: str, outputs: int, inputs: int) -> Linear:
        return linear(f"{LAYER}mlp.{name}_proj", outputs, inputs, bias=config.mlp_bias)

    return HeadParts(
        table=Table(_tensor(TABLE, s.vocab, hidden)) if table else None,
        joined_norm=norm("input_norm", config.width) if config.norm_before_fc else None,
        state_norms=tuple(norm(f"fc_norm.{i}", config.target_hidden_size) for i in range(config.num_states))
        if config.fc_norm
        else (),
        fc=None if config.reads_output else linear("fc", hidden, config.width),
        embedding_norm=norm(f"{LAYER}input_layernorm"),
        state_norm=norm(f"{LAYER}hidden_norm"),
        qkv_embedding=Linear(
            half(0), tuple(_tensor(name, size) for name, size in qkv("bias")) if config.attention_bias else ()
        ),
        qkv_state=Linear(half(hidden)),
        q_norm=head_norm("q_norm"),
        k_norm=head_norm("k_norm"),
        shape=AttentionShape(
            s.heads,
            s.kv_heads,
            s.head_dim,
            s.head_dim**-0.5,
            config.rope,
            config.window(0),
            norm_eps=s.eps,
        ),
        out=linear(f"{LAYER}self_attn.o_proj", hidden, q, bias=config.attention_bias),
        feed_forward=Residual(
            Gated(mlp("gate", s.inner, hidden), mlp("up", s.inner, hidden), mlp("down", hidden, s.inner)),
            before=norm(f"{LAYER}post_attention_layernorm"),
        ),
        further=tuple(_FurtherLayer(number, s).block(config) for number in range(1, s.layers)),
        norm=norm("norm"),
        output=linear("lm_head", config.draft_vocab_size, hidden) if output else None,
    )


class _FurtherLayer(Layer):
    """By vLLM's and Speculators' names."""

    @property
    def scope(self) -> Scope:
        return Scope(f"layers.{self.number}.", f"layers.{self.number}.")

    def block(self, config: HeadConfig) -> Block:
        attention = self.attention(
            config.rope,
            window=config.window(self.number),
            norms="head" if config.head_norms else None,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
        )
        return Block(
            Residual(attention, before=self.norm("input_layernorm", "")),
            Residual(self.gated(bias=config.mlp_bias), before=self.norm("post_attention_layernorm", "")),
        )


def _tensor(name: str, *shape: int, of: int = 0, column: int = 0) -> Tensor:
    """of: inputs of the stored matrix, where that has more; column: the first of them."""
    place = Place(name, shape=(shape[0], of) if of else None, column=column)
    return Tensor(place, place, shape)
