"""transformers, in bfloat16 whatever the file: it dequantises. Its speculation is prompt lookup."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers

from benchmarks.peers.base import Setup

DRAFT_LENGTH = 10  # as in its documentation


class Transformers:
    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            setup.path.parent, gguf_file=setup.path.name, dtype=torch.bfloat16
        ).eval()
        self.model.generation_config.eos_token_id = None
        self.options = {"prompt_lookup_num_tokens": DRAFT_LENGTH} if setup.speculate else {}

    @property
    def about(self) -> str:
        return f"{transformers.__version__} in bfloat16, torch {torch.__version__}"

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        mask = torch.ones_like(ids)
        output = self.model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, **self.options
        )
        generated: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return generated
