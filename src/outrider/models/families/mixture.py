"""What families of mixtures have in common: experts by llama.cpp's names, and the usual settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from outrider.models.families.build import Layer
from outrider.models.leaves import Stack, Vector
from outrider.models.parts import Experts, Gated
from outrider.models.settings import Settings
from outrider.models.tensors import Place, Tensor
from outrider.ops.shapes import Activation, Routing

Places = Callable[[int], Place]
"""Where Hugging Face's layout keeps what belongs to an expert, by its number, below a layer's names."""
MOST = 2**15
"""Experts of all layers: many times what models have, and few enough to loop over."""
LIKE_MIXTRAL = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
"""Keys of GGUF files, and what Mixtral's config.json calls them."""


def routing(c: Settings, *, normalised: bool = True) -> Routing:
    """Qwen says num_experts and GLM n_routed_experts, where transformers 5 writes num_local_experts."""
    count = c.size_of("num_local_experts", "num_experts", "n_routed_experts")
    chosen, layers = c.size_of("num_experts_per_tok", "experts_per_token"), c.size("num_hidden_layers")
    if count * layers > MOST:
        raise c.error("num_local_experts", f"at most {MOST // layers} in each of {layers} layers")
    if chosen > count:
        raise c.error("num_experts_per_tok", f"at most the number of experts, {count}")
    return Routing(count, chosen, normalised)


def each(name: str, *shape: int, first: int = 0, step: int = 1) -> Places:
    """Every expert in a tensor of its own. name: with '{}' for its number; the rest: as for `stacked`."""
    return lambda expert: Place(name.format(expert), first, shape or None, step=step)


def stacked(name: str, *shape: int, first: int = 0, step: int = 1, turned: bool = False) -> Places:
    """All experts in one tensor, of which each has rows from `first` on, every `step`-th.

    shape: of the stored tensor, experts first; turned: its matrices are [in, out].
    """
    rows = shape[2] if turned else shape[1]
    return lambda expert: Place(name, expert * rows + first, shape, step=step, turned=turned)


class Three(NamedTuple):
    """The places of the matrices of an expert, or of their biases."""

    gate: Places
    up: Places
    down: Places


def experts(
    layer: Layer,
    routing: Routing,
    inner: int,
    activation: Activation,
    router: str,
    weights: Three,
    biases: Three | None = None,
    shared: Gated | None = None,
    or_weights: Three | None = None,
    bias: str | None = None,
) -> Experts:
    """inner: outputs of an expert's gate. router, bias: names in Hugging Face's layout, of the scores, which
    have a bias where experts have, and of what is added where experts are chosen. shared: an expert that all
    rows go to. or_weights: where weights may be too."""
    hidden = layer.sizes.hidden
    scores = layer.linear(router, "ffn_gate_inp", routing.count, hidden, bias=biases is not None)
    shapes = (inner, hidden), (inner, hidden), (hidden, inner)

    def tensors(
        name: str, kind: str, shape: tuple[int, ...], places: Places, others: Places | None = None
    ) -> tuple[Tensor, ...]:
        in_gguf = stacked(f"ffn_{name}_exps.{kind}", routing.count, *shape)
        return tuple(
            layer.scope.tensor(places(one), in_gguf(one), shape, or_hf=others(one) if others else None)
            for one in range(routing.count)
        )

    def stack(index: int) -> Stack:
        name, shape = Three._fields[index], shapes[index]
        return Stack(
            tensors(name, "weight", shape, weights[index], or_weights[index] if or_weights else None),
            tensors(name, "bias", shape[:1], biases[index]) if biases else (),
        )

    of_choice = layer.scope.tensor(bias, "exp_probs_b.bias", (routing.count,)) if bias else None
    return Experts(
        replace(scores, float32=True),
        stack(0),
        stack(1),
        stack(2),
        routing,
        activation,
        shared=shared,
        bias=None if of_choice is None else Vector(of_choice),
    )
