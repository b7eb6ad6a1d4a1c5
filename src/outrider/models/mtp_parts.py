"""The parts of a layer that predicts further tokens (multi-token prediction, MTP), by the public names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outrider.models.families.build import Layer, Sizes
from outrider.models.leaves import Linear, Vector
from outrider.models.parts import Block, Norm
from outrider.models.tensors import Place, Scope, plus_one


@dataclass(frozen=True)
class MtpParts:
    """A decoder layer behind a model's own (DeepSeek-AI, 2024, DeepSeek-V3, section 2.2).

    of_embedding, of_state: the halves of the matrix that reads [embedding, state]; two products are summed,
    so that the two need not be put together. norm: of what the output layer reads. The embedding table and
    the output layer are the model's.
    """

    embedding_norm: Norm
    state_norm: Norm
    of_embedding: Linear
    of_state: Linear
    block: Block
    norm: Norm

    @property
    def width(self) -> int:
        """Numbers of a row that a pass holds at once."""
        hidden = self.of_state.matrices[0].shape[0]
        branches = self.block.attention, self.block.feed_forward
        return 3 * hidden + max(branch.mixer.width for branch in branches)


@dataclass(frozen=True)
class MtpNames:
    """How Hugging Face's layout names the parts: all begin with `begins`, and those of the block with `layer`
    behind it. llama.cpp has one way for all."""

    begins: str
    layer: str
    embedding_norm: str
    state_norm: str
    joined: str
    norm: str


def qwens() -> MtpNames:
    """Qwen3-Next's names, and Qwen3.5's."""
    return MtpNames(
        "mtp.", "layers.0.", "pre_fc_norm_embedding", "pre_fc_norm_hidden", joined="fc", norm="norm"
    )


def deepseeks(layers: int) -> MtpNames:
    """DeepSeek's names, and GLM's: of one more layer behind so many."""
    return MtpNames(
        f"model.layers.{layers}.", "", "enorm", "hnorm", joined="eh_proj", norm="shared_head.norm"
    )


def mtp_parts(
    sizes: Sizes, names: MtpNames, block: Callable[[Layer], Block], *, less_one: bool = False
) -> MtpParts:
    """The first layer behind a model of such sizes. block: makes it, as it would one of the model's own;
    less_one: see `Layer`."""
    hidden = sizes.hidden
    scope = Scope(names.begins, f"blk.{sizes.layers}.nextn.")

    def norm(hf: str, gguf: str) -> Norm:
        from_hf = plus_one if less_one else None
        return Norm(
            Vector(scope.tensor(f"{hf}.weight", f"{gguf}.weight", (hidden,), from_hf=from_hf)), sizes.eps
        )

    def half(column: int) -> Linear:
        hf, gguf = (
            Place(f"{name}.weight", shape=(hidden, 2 * hidden), column=column)
            for name in (names.joined, "eh_proj")
        )
        return Linear((scope.tensor(hf, gguf, (hidden, hidden)),))

    return MtpParts(
        norm(names.embedding_norm, "enorm"),
        norm(names.state_norm, "hnorm"),
        of_embedding=half(0),
        of_state=half(hidden),
        block=block(_MtpLayer(sizes.layers, sizes, less_one, names.begins + names.layer)),
        norm=norm(names.norm, "shared_head_norm"),
    )


@dataclass(frozen=True)
class _MtpLayer(Layer):
    """begins: of the names of its tensors, in Hugging Face's layout."""

    begins: str = ""

    @property
    def scope(self) -> Scope:
        return Scope(self.begins, f"blk.{self.number}.")
