"""llama.cpp through llama-cpp-python.

Its `generate` costs nothing measurable over bare `eval` calls. The binding leaves flash attention off unless
told, llama.cpp itself turns it on, so it is on. Of llama.cpp's speculation the binding offers prompt lookup,
with the 2 tokens that its documentation recommends for CPUs; llama-server has more kinds.

The binding's own server answers one request after the other. So requests that come at once go through
llama.cpp's batches, as llama-server fills them: in each, a token of every sequence that decodes, then prompts
up to the size of a batch. No HTTP is in the way, and a token is chosen by NumPy's argmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np

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
        self.batches = None
        if setup.clients > 1 and not setup.speculate:
            self.batches = Batches(self.library, self.llama, setup.clients, setup.client_tokens)

    @property
    def about(self) -> str:
        info = self.library.llama_print_system_info().decode()
        return f"llama-cpp-python {self.library.__version__}, {info.strip(' |')}"

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        if len(prompts) > 1:
            assert self.batches is not None, "it was not told that there are clients"
            return self.batches.generate(prompts, tokens)
        self.llama.reset()  # or the common prefix with the last request would be reused
        return [list(islice(self.llama.generate(list(prompts[0]), temp=0.0), tokens))]


class Batches:
    """A context with a sequence for each client, which share no cells, as llama.cpp advises without common
    prefixes."""

    def __init__(self, library: Any, llama: Any, clients: int, tokens: int) -> None:
        self.library, self.vocab = library, llama.n_vocab()
        params = library.llama_context_params.from_buffer_copy(llama.context_params)
        params.n_seq_max, params.n_ctx, params.kv_unified = clients, clients * tokens, False
        self.context = library.llama_init_from_model(llama.model, params)
        if not self.context:
            raise MemoryError(f"no context of {params.n_ctx} positions for {clients} sequences")
        self.batch = library.llama_batch_init(PROMPT, 0, 1)

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), False)
        texts, computed = [list(prompt) for prompt in prompts], [0] * len(prompts)
        ends = [len(prompt) + tokens for prompt in prompts]
        while unfinished := [n for n, text in enumerate(texts) if len(text) < ends[n]]:
            self.batch.n_tokens = 0
            chosen: dict[int, int] = {}  # rows that a sequence's next token is chosen from
            # Those that decode come first: they lack one token.
            for n in sorted(unfinished, key=lambda n: len(texts[n]) - computed[n] > 1):
                for token in texts[n][computed[n] : computed[n] + PROMPT - self.batch.n_tokens]:
                    last = computed[n] + 1 == len(texts[n])
                    row = self._add(token, computed[n], n, last)
                    computed[n] += 1
                    if last:
                        chosen[n] = row
            if error := self.library.llama_decode(self.context, self.batch):
                raise RuntimeError(f"llama_decode returned {error}")
            for n, row in chosen.items():
                logits = self.library.llama_get_logits_ith(self.context, row)
                texts[n].append(int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax()))
        return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]

    def _add(self, token: int, position: int, sequence: int, last: bool) -> int:
        """Adds a row, and returns its number."""
        batch, row = self.batch, self.batch.n_tokens
        batch.token[row], batch.pos[row], batch.logits[row] = token, position, last
        batch.n_seq_id[row] = 1
        batch.seq_id[row][0] = sequence
        batch.n_tokens = row + 1
        return int(row)
