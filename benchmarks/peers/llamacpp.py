"""llama.cpp through llama-cpp-python.

Its `generate` costs nothing measurable over bare `eval` calls. The binding leaves flash attention off unless
told, llama.cpp itself turns it on, so it is on. Of llama.cpp's speculation the binding offers prompt lookup,
with the 2 tokens that its documentation recommends for CPUs; llama-server has more kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import islice

from benchmarks.peers.base import CONTEXT, PROMPT, Setup

DRAFT_LENGTH = 2


class LlamaCpp:
    def __init__(self, setup: Setup) -> None:
        self.library = import_module("llama_cpp")
        speculation = {}
        if setup.speculate:
            lookup = import_module("llama_cpp.llama_speculative").LlamaPromptLookupDecoding
            # logits_all is implied, but only when it is given is there room for more than n_batch of them
            speculation = {"draft_model": lookup(num_pred_tokens=DRAFT_LENGTH), "logits_all": True}
        self.llama = self.library.Llama(
            str(setup.path),
            n_ctx=CONTEXT,
            n_batch=PROMPT,
            n_threads=setup.threads,
            n_threads_batch=setup.threads,
            flash_attn=True,
            verbose=False,
            **speculation,
        )

    @property
    def about(self) -> str:
        info = self.library.llama_print_system_info().decode()
        return f"llama-cpp-python {self.library.__version__}, {info.strip(' |')}"

    def generate(self, prompt: Sequence[int], tokens: int) -> list[int]:
        self.llama.reset()  # or the common prefix with the last request would be reused
        return list(islice(self.llama.generate(list(prompt), temp=0.0), tokens))
