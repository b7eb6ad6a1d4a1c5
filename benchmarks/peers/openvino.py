"""OpenVINO GenAI, which reads GGUF files itself; its speculation is prompt lookup, set as in its samples."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import numpy as np

from benchmarks.peers.base import CONTEXT, Setup

DRAFT_LENGTH, NGRAM = 5, 3


class OpenVINO:
    def __init__(self, setup: Setup) -> None:
        self.genai = import_module("openvino_genai")
        self.tensor = import_module("openvino").Tensor
        self.speculate = setup.speculate
        scheduler = self.genai.SchedulerConfig()  # an explicit one: the implicit one caches prefixes
        scheduler.max_num_batched_tokens = CONTEXT
        options = {"prompt_lookup": True} if setup.speculate else {}
        self.pipeline = self.genai.LLMPipeline(
            str(setup.path),
            "CPU",
            scheduler_config=scheduler,
            INFERENCE_NUM_THREADS=setup.threads,
            **options,
        )

    @property
    def about(self) -> str:
        return f"openvino-genai {self.genai.__version__}"

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        if self.speculate:
            config.num_assistant_tokens = DRAFT_LENGTH
            config.max_ngram_size = NGRAM
        ids = np.array(prompts, dtype=np.int64)
        inputs = self.genai.TokenizedInputs(self.tensor(ids), self.tensor(np.ones_like(ids)))
        return [list(one) for one in self.pipeline.generate(inputs, config).tokens]
