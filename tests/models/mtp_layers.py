"""Tiny models that bring a layer for multi-token prediction (MTP), and what it computes, in PyTorch.

The layer guesses well: the models are made so that a token says most of the one after it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.models.factories import tiny_tokenizer, write_gguf, write_hf
from tests.models.families.table import FAMILIES
from tests.models.gguf_converted import converted, less_one

WEIGHTS = "model.safetensors"
LOUD, QUIET = 2, 0.25  # embeddings, and what layers write, as a share of what they would be
QWENS = ("qwen3.5", "qwen3.5-moe", "qwen3-next")
WITH_MTP = (*QWENS, "glm4-moe")


@dataclass(frozen=True)
class Written:
    """A folder of a model with such a layer. model: of transformers; block: the layer's own, of the same;
    around: fc, and the norms, by their names in Qwen's checkpoints."""

    path: Path
    family: str
    model: Any
    block: Any
    around: Mapping[str, Any]

    @property
    def own(self) -> dict[str, Tensor]:
        """The tensors of the layer, by Qwen's names below `mtp.`."""
        own = {f"layers.0.{name}": values for name, values in self.block.state_dict().items()}
        own |= {f"{name}.weight": part.weight for name, part in self.around.items()}
        return {name: values.detach().clone() for name, values in own.items()}

    @property
    def drafting(self) -> dict[str, Tensor]:
        """The same by their names in the file."""
        if self.family in QWENS:
            return {f"mtp.{name}": values for name, values in self.own.items()}
        begins, found = f"model.layers.{self.model.config.num_hidden_layers}.", {}
        for name, values in self.own.items():
            stem, _, kind = name.rpartition(".")
            glms = NEXTN[stem].replace("shared_head_norm", "shared_head.norm") if stem in NEXTN else None
            found[begins + (f"{glms}.{kind}" if glms else name.removeprefix("layers.0."))] = values
        return found

    @torch.no_grad()
    def states(self, tokens: Sequence[int]) -> Tensor:
        """What the target's output layer reads, [tokens, hidden]."""
        found: Tensor = self.model.model(torch.tensor([tokens])).last_hidden_state[0]
        return found

    @torch.no_grad()
    def logits(self, tokens: Sequence[int], states: Tensor) -> tuple[Tensor, Tensor]:
        """Of all rows, and what the layer goes on from. tokens: those after each of `states`."""
        table, around = self.model.model.embed_tokens, self.around
        embedded = around["pre_fc_norm_embedding"](table(torch.tensor(tokens)))
        x = around["fc"](torch.cat([embedded, around["pre_fc_norm_hidden"](states)], -1))[None]
        rows = len(tokens)
        turns = self.model.model.rotary_emb(x, torch.arange(rows)[None])
        mask = torch.full((rows, rows), -torch.inf).triu(1)[None, None]
        x = around["norm"](self.block(x, position_embeddings=turns, attention_mask=mask)[0])
        return self.model.lm_head(x), x

    def chain(self, tokens: Sequence[int], length: int) -> list[int]:
        """The draft behind a text: `length` times the argmax."""
        states, following = self.states(tokens[:-1]), list(tokens[1:])
        for _ in range(length):
            logits, own = self.logits(following, states)
            following.append(int(logits[-1].argmax()))
            states = torch.cat([states, own[-1:]])
        return following[len(tokens) - 1 :]


def write_with_mtp(path: Path, family: str, *, tied: bool = False) -> Written:
    """A model of that family with such a layer, in a folder. tied: its table is its output layer."""
    config = FAMILIES[family].config()
    config.tie_word_embeddings = tied
    model = write_hf(path, config)
    layers, table = model.model.layers, model.model.embed_tokens.weight
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(layers)
    attending = max(n for n, kind in enumerate(kinds) if kind == "full_attention")
    block = copy.deepcopy(layers[attending])
    norm = type(block.input_layernorm)
    around: dict[str, Any] = {
        name: norm(config.hidden_size, eps=config.rms_norm_eps)
        for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")
    }
    around["fc"] = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
    hidden = config.hidden_size
    with torch.no_grad():
        table *= LOUD
        if not tied:  # where it is, a token says itself
            model.lm_head.weight.copy_(table[torch.randperm(len(table))])
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * parameter.std() + parameter.mean())
        for buffer in block.buffers():  # a bias of the choice of experts
            buffer.copy_(torch.randn_like(buffer) * 0.3)
        block.self_attn.o_proj.weight *= 3 * LOUD
        for part in layers:
            for name, parameter in part.named_parameters():
                if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "down_proj")):
                    parameter *= QUIET
        for name, part in around.items():
            if name != "fc":
                nn.init.normal_(part.weight, mean=0.0 if family in QWENS else 1.0, std=0.1)
        around["fc"].weight.copy_(torch.randn(hidden, 2 * hidden) * 0.12)
        around["fc"].weight[:, :hidden] += torch.eye(hidden)
    written = Written(path, family, model.eval(), block.eval(), around)
    for file in path.glob("model*"):
        file.unlink()
    model.save_pretrained(path)
    save_file(load_file(path / WEIGHTS) | written.drafting, path / WEIGHTS, {"format": "pt"})
    return written


def write_gguf_with_mtp(file: Path, written: Written, **options: Any) -> None:
    """The same in a GGUF file, as llama.cpp's converter writes it."""
    architecture, config = FAMILIES[written.family].gguf, written.model.config
    assert architecture is not None
    count = config.num_hidden_layers
    keys = {f"{architecture}.block_count": count + 1, f"{architecture}.nextn_predict_layers": 1}
    write_gguf(
        file,
        written.model,
        tiny_tokenizer(),
        architecture=architecture,
        metadata=keys,
        tensors=in_gguf(written, architecture),
        **options,
    )


NEXTN = {
    "fc": "eh_proj",
    "pre_fc_norm_embedding": "enorm",
    "pre_fc_norm_hidden": "hnorm",
    "norm": "shared_head_norm",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "mlp.gate.e_score_correction": "exp_probs_b",
}


class _OfLayer:
    """What `converted` reads of a model, of the layer alone."""

    def __init__(self, written: Written) -> None:
        self.config, self._written = written.model.config, written

    def state_dict(self) -> dict[str, Tensor]:
        return self._written.own


def in_gguf(written: Written, architecture: str) -> dict[str, NDArray[np.float32] | None]:
    """The tensors of the layer by llama.cpp's names: it is one more behind the model's own."""
    begins = f"blk.{written.model.config.num_hidden_layers}."
    found: dict[str, NDArray[np.float32] | None] = {}
    for name, values in converted(_OfLayer(written)):
        stem, _, kind = name.rpartition(".")
        own = f"nextn.{NEXTN[stem]}" if stem in NEXTN else LAYER[stem.removeprefix("layers.0.")]
        # The converter has renamed the norms before the layer when it looks at what a name ends with.
        plus = np.float32(less_one(f"{NEXTN.get(stem, stem)}.weight", architecture))
        found[f"{begins}{own}.{kind}"] = np.ascontiguousarray(values + plus)
    return found
