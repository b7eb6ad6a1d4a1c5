"""transformers, in bfloat16 whatever the file: it dequantises. Its speculation is prompt lookup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.peers.base import Setup

DRAFT_LENGTH = 10  # as in its documentation


def load(path: Path, device: str = "cpu") -> Any:
    """The model of a GGUF file or of a folder, which ends no text by itself."""
    folder, file = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **file)
    model.generation_config.eos_token_id = None
    return model.eval().to(device)


@torch.inference_mode()
def generated(
    model: Any, prompts: Sequence[Sequence[int]], tokens: int, options: Mapping[str, Any]
) -> list[list[int]]:
    """So many tokens for each prompt, which are as long as each other. options: of `generate`."""
    ids = torch.tensor(prompts, device=model.device)
    mask = torch.ones_like(ids)
    output = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, **options)
    answers: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return answers


class Transformers:
    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self.model = load(setup.path)
        self.options = {"prompt_lookup_num_tokens": DRAFT_LENGTH} if setup.speculate else {}

    @property
    def about(self) -> str:
        return f"{transformers.__version__} in bfloat16, torch {torch.__version__}"

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        return generated(self.model, prompts, tokens, self.options)
