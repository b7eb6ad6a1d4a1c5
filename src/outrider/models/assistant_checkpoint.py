"""Gemma 4's assistants on disk: config.json, and tensors by Hugging Face's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from outrider.errors import ModelError
from outrider.formats.format import Floats
from outrider.formats.weight import Weight
from outrider.messages import listed
from outrider.models.families.build import Layer
from outrider.models.families.gemma4 import gemma4
from outrider.models.families.gemma4_layers import Layers
from outrider.models.json_file import read_json
from outrider.models.leaves import Linear, Table, Tied, Vector
from outrider.models.parts import Attention, Block, Norm
from outrider.models.registry import config_settings
from outrider.models.schemes import open_weights
from outrider.models.settings import Settings
from outrider.models.source import HUGGING_FACE, StoredModel
from outrider.models.tensors import Place, Tensor

MODEL_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")
SHORTLIST = ("use_ordered_embeddings", "num_centroids", "centroid_intermediate_top_k")
"""Settings of a short list of tokens, among which alone the best is looked for. All tokens are looked at
here, of which the best is as good or better."""
SHORTLIST_TENSORS = "masked_embedding."
NOT_OF_DRAFTS = ("eos_token_id", "dtype", "torch_dtype")
"""Settings that say nothing of what is drafted: where a text ends, and how weights were stored."""


@dataclass(frozen=True)
class AssistantParts:
    """of_embedding, of_state: the halves of the layer that joins the target's embedding of a token and a
    state of the target's width. after: makes such a state of the assistant's own."""

    table: Table
    output: Tied
    of_embedding: Linear
    of_state: Linear
    blocks: tuple[Block, ...]
    norm: Norm
    after: Linear

    @property
    def width(self) -> int:
        """Numbers of a row that a pass holds at once."""
        hidden, backbone = self.table.tensor.shape[1], self.after.matrices[0].shape[0]
        mixers = (branch.mixer for block in self.blocks for branch in (block.attention, block.feed_forward))
        return 2 * (hidden + backbone) + max(mixer.width for mixer in mixers)


class AssistantCheckpoint:
    """An assistant in a folder, weights memory-mapped: a `Source` of its `parts`.

    backbone: the hidden size of its target. logit_cap: of its logits. Raises ModelError for what is missing
    or broken, and for a setting that would change what it drafts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        raw, source = read_json(path / "config.json"), str(path / "config.json")
        top = Settings(raw, source)
        text = top.get("text_config")
        if not isinstance(text, Mapping):
            raise top.error("text_config", "an object")
        for key in (*SHORTLIST, *NOT_OF_DRAFTS):
            top.get(key)
        self.backbone = top.size("backbone_hidden_size", 1536)
        top.always("tie_word_embeddings", True)
        top.check_rest()
        family, c = config_settings(text, f"{source}: text_config", None)
        if family.build is not gemma4:
            raise top.error("text_config", "a Gemma 4 text model's")
        layers = Layers.of(c, shared=c.size("num_hidden_layers"))
        self.logit_cap = c.optional_number("final_logit_softcapping")
        for key in (*NOT_OF_DRAFTS, "max_position_embeddings"):
            c.get(key)
        c.always("tie_word_embeddings", True)
        c.check_rest()
        if layers.attentions.own:
            raise c.error("num_kv_shared_layers", "num_hidden_layers: an assistant has no K and V of its own")
        if layers.double or layers.per_layer:
            key = "use_double_wide_mlp" if layers.double else "hidden_size_per_layer_input"
            raise c.error(key, "off, as all assistants have it")
        self.vocab_size = layers.sizes.vocab
        self.parts = _parts(layers, self.backbone)
        stored = open_weights(path, raw)
        self._model = StoredModel(stored, HUGGING_FACE)
        self._model.check(self.parts, str(path), "config.json implies")
        known = {*self._model.names(self.parts), "lm_head.weight"}
        unread = [name for name in stored if name not in known and not name.startswith(SHORTLIST_TENSORS)]
        if unread:
            raise ModelError(f"{path} has tensors that are not read: {listed(unread)}")

    def weight(self, tensor: Tensor) -> Weight:
        return self._model.weight(tensor)

    def floats(self, tensor: Tensor) -> Floats:
        return self._model.floats(tensor)

    def release(self, tensor: Tensor) -> None:
        self._model.release(tensor)


def is_assistant(path: Path) -> bool:
    """Whether a folder holds an assistant, by its config.json."""
    config = path / "config.json"
    return config.is_file() and read_json(config).get("model_type") in MODEL_TYPES


def _parts(layers: Layers, backbone: int) -> AssistantParts:
    sizes = layers.sizes
    table = Table(_tensor("model.embed_tokens.weight", sizes.vocab, sizes.hidden))
    of_embedding, of_state = (
        Linear((replace(_tensor("pre_projection.weight", sizes.hidden, backbone), hf=place),))
        for place in (
            Place("pre_projection.weight", shape=(sizes.hidden, 2 * backbone), column=column)
            for column in (0, backbone)
        )
    )
    return AssistantParts(
        table=table,
        output=Tied(table),
        of_embedding=of_embedding,
        of_state=of_state,
        blocks=tuple(_beside(layers.block(Layer(number, sizes))) for number in range(sizes.layers)),
        norm=Norm(Vector(_tensor("model.norm.weight", sizes.hidden)), sizes.eps),
        after=Linear((_tensor("post_projection.weight", backbone, sizes.hidden),)),
    )


def _beside(block: Block) -> Block:
    """A layer whose rows stand at the target's last computed position and turn as the token behind it, of
    which the target has no K and V yet. What it sees is the window of that token."""
    mixer = block.attention.mixer
    assert isinstance(mixer, Attention)
    shape = mixer.shape
    assert shape.rope is not None
    shape = replace(
        shape,
        rope=replace(shape.rope, ahead=1),
        window=None if shape.window is None else max(1, shape.window - 1),
    )
    return replace(block, attention=replace(block.attention, mixer=replace(mixer, shape=shape)))


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(Place(name), Place(name), shape)
