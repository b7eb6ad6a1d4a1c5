"""What families have in common: sizes, and layers of the usual parts by the usual names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from outrider.errors import ModelError
from outrider.models.leaves import Linear, Table, Tied, Vector
from outrider.models.parts import Attention, Block, Decoder, Gated, Norm
from outrider.models.settings import Settings
from outrider.models.tensors import Scope, Tensor, plus_one
from outrider.ops.shapes import Activation, AttentionShape, KeyValues, Rope, Temperature

HeadNorm = Literal["head", "all"]
"""RMS norms of q and k: of each head by itself, or of all heads together."""
STORED: dict[KeyValues, str] = {"own": "qkv", "keys": "qk", "shared": "q"}
"""Which of q, k and v have matrices."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that every decoder has. eps: of its norms."""

    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float

    @classmethod
    def of(cls, c: Settings) -> Sizes:
        heads, hidden = c.size("num_attention_heads"), c.size("hidden_size")
        kv_heads = c.size("num_key_value_heads", heads)
        head_dim = c.optional_size("head_dim")
        if head_dim is None:
            if hidden % heads:
                raise ModelError(
                    f"{c.source}: hidden size ({hidden}) is not a multiple of num_attention_heads ({heads}), "
                    "and head_dim is not given"
                )
            head_dim = hidden // heads
        if heads % kv_heads or head_dim % 2:
            raise ModelError(
                f"{c.source}: {heads} heads of {head_dim} dimensions cannot share {kv_heads} K/V heads; "
                "heads must divide evenly and head_dim be even"
            )
        return cls(
            vocab=c.size("vocab_size"),
            hidden=hidden,
            inner=c.size("intermediate_size"),
            layers=c.size("num_hidden_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            eps=c.number("rms_norm_eps", c.number("norm_eps", 1e-6, most=1), most=1),
        )


@dataclass(frozen=True)
class Layer:
    """Makes the parts of one decoder layer. less_one: norms are stored less 1, as Gemma has them."""

    number: int
    sizes: Sizes
    less_one: bool = False

    @property
    def scope(self) -> Scope:
        return Scope(f"model.layers.{self.number}.", f"blk.{self.number}.")

    def norm(self, hf: str, gguf: str) -> Norm:
        return Norm(self.vector(hf, gguf, self.sizes.hidden), self.sizes.eps)

    def vector(self, hf: str, gguf: str, size: int) -> Vector:
        name = f"{hf}.weight", f"{gguf}.weight"
        return Vector(self.scope.tensor(*name, (size,), from_hf=plus_one if self.less_one else None))

    def linear(
        self, hf: str, gguf: str, outputs: int, inputs: int, *, bias: bool = False, pairs: int = 0
    ) -> Linear:
        def tensor(kind: str, *shape: int) -> Tensor:
            return self.scope.tensor(f"{hf}.{kind}", f"{gguf}.{kind}", shape, pairs=pairs)

        return Linear((tensor("weight", outputs, inputs),), (tensor("bias", outputs),) if bias else ())

    def turns(
        self, hf: str, gguf: str, rows: tuple[int, ...], inputs: int, *, times: int = 1, bias: bool = False
    ) -> tuple[Linear, ...]:
        """Linear layers that are stored as one: so many rows of each, one after the other, and that so many
        times."""
        weights = self.scope.slices(f"{hf}.weight", f"{gguf}.weight", rows, inputs, times=times)
        biases = self.scope.slices(f"{hf}.bias", f"{gguf}.bias", rows, times=times)
        return tuple(
            Linear((weight,), (one,) if bias else ()) for weight, one in zip(weights, biases, strict=True)
        )

    def attention(
        self,
        rope: Rope | None,
        *,
        window: int | None = None,
        scale: float | None = None,
        soft_cap: float | None = None,
        temperature: Temperature | None = None,
        norms: HeadNorm | None = None,
        qkv_bias: bool = False,
        out_bias: bool = False,
        fused: bool = False,
        paired: bool = False,
        sinks: bool = False,
        gated: bool = False,
        kv: KeyValues = "own",
        values_normed: bool = False,
    ) -> Attention:
        """scale: of scores, 1 / sqrt(head_dim) by itself. fused: q, k and v are stored as one. paired:
        llama.cpp has the rows of q and k in pairs that turn together. gated: the rows of q are stored with
        those of a gate, head by head. kv, values_normed: see `AttentionShape`; for 'keys' and 'shared' q, k
        and v are neither stored as one nor with a gate."""
        s = self.sizes
        q_width, kv_width = s.heads * s.head_dim, s.kv_heads * s.head_dim
        gate = None
        if fused:
            separate = self.turns(
                "self_attn.qkv_proj", "attn_qkv", (q_width, kv_width, kv_width), s.hidden, bias=qkv_bias
            )
        else:
            separate = tuple(
                self.linear(
                    f"self_attn.{one}_proj",
                    f"attn_{one}",
                    heads * s.head_dim,
                    s.hidden,
                    bias=qkv_bias,
                    pairs=heads if paired and one != "v" else 0,
                )
                for one, heads in (("q", s.heads), ("k", s.kv_heads), ("v", s.kv_heads))
                if one in STORED[kv]
            )
        if gated:
            halves = s.head_dim, s.head_dim
            of_q, gate = self.turns(
                "self_attn.q_proj", "attn_q", halves, s.hidden, times=s.heads, bias=qkv_bias
            )
            separate = (of_q, *separate[1:])
        sizes = {"head": (s.head_dim, s.head_dim), "all": (q_width, kv_width)}.get(norms or "")
        shape = AttentionShape(
            s.heads,
            s.kv_heads,
            s.head_dim,
            scale or s.head_dim**-0.5,
            rope,
            window,
            soft_cap,
            s.eps,
            temperature,
            kv,
            values_normed,
        )
        return Attention(
            joined(*separate),
            self.linear("self_attn.o_proj", "attn_output", s.hidden, q_width, bias=out_bias),
            shape,
            q_norm=self.vector("self_attn.q_norm", "attn_q_norm", sizes[0]) if sizes else None,
            k_norm=self.vector("self_attn.k_norm", "attn_k_norm", sizes[1])
            if sizes and shape.stores
            else None,
            sinks=Vector(self.scope.tensor("self_attn.sinks", "attn_sinks.weight", (s.heads,)))
            if sinks
            else None,
            gate=gate,
        )

    def gated(
        self,
        activation: Activation = "silu",
        *,
        bias: bool = False,
        fused: bool = False,
        hf: Sequence[str] = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        gguf: str = "ffn_{}",
        inner: int | None = None,
    ) -> Gated:
        """fused: gate and up are stored as one. hf, gguf: names of gate, up and down. inner: outputs of gate,
        where they are not those that the sizes say."""
        hidden, inner = self.sizes.hidden, inner or self.sizes.inner
        if fused:
            gate, up = self.turns("mlp.gate_up_proj", "ffn_up", (inner, inner), hidden)
        else:
            gate, up = (
                self.linear(name, gguf.format(one), inner, hidden, bias=bias)
                for one, name in zip(("gate", "up"), hf, strict=False)
            )
        down = self.linear(hf[2], gguf.format("down"), hidden, inner, bias=bias)
        return Gated(gate, up, down, activation)


def decoder(
    c: Settings,
    sizes: Sizes,
    block: Callable[[Layer], Block],
    *,
    tied: bool,
    less_one: bool = False,
    scale: float = 1.0,
    logit_scale: float = 1.0,
    logit_cap: float | None = None,
) -> Decoder:
    """A decoder of such blocks. tied: whether the table is the output layer where the settings do not say it;
    the rest: see `Decoder` and `Layer`."""
    top = Scope("", "")
    shape = (sizes.vocab, sizes.hidden)
    table = Table(top.tensor("model.embed_tokens.weight", "token_embd.weight", shape))
    norm = top.tensor(
        "model.norm.weight", "output_norm.weight", (sizes.hidden,), from_hf=plus_one if less_one else None
    )
    return Decoder(
        table=table,
        output=Tied(table)
        if c.flag("tie_word_embeddings", tied)
        else Linear((top.tensor("lm_head.weight", "output.weight", shape),)),
        blocks=tuple(block(Layer(number, sizes, less_one)) for number in range(sizes.layers)),
        norm=Norm(Vector(norm), sizes.eps),
        scale=scale,
        logit_scale=logit_scale,
        logit_cap=logit_cap,
    )


def joined(*parts: Linear) -> Linear:
    """Linear layers of the same inputs as one."""
    return Linear(
        tuple(matrix for part in parts for matrix in part.matrices),
        tuple(bias for part in parts for bias in part.biases),
    )
