"""transformers beside Outrider: the same weights in bfloat16, one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers

from benchmarks.gpu.card import Card
from benchmarks.gpu.models import Pair
from benchmarks.gpu.report import Finding
from benchmarks.gpu.sizes import Sizes
from benchmarks.peers.huggingface import DRAFT_LENGTH, generated, load
from benchmarks.peers.prompts import long_prompt
from outrider import LLM, SamplingParams
from outrider.measurement.bench import AFRESH, AUTO, Length

Options = dict[str, Any]
PLAIN: dict[str, Options] = {
    "transformers": {},
    "transformers, compiled": {"cache_implementation": "static"},  # with which it compiles passes on a GPU
}
LOOKUP: Options = {"prompt_lookup_num_tokens": DRAFT_LENGTH}


def beside(pair: Pair) -> Iterator[Finding]:
    """Tokens a second of the same weights in bfloat16, one request, by Outrider and by transformers."""
    tokens, size, clock = pair.sizes.answer, pair.sizes.prompt, pair.card.clock
    text = long_prompt(str(pair.path), size * len(pair.sizes.batches))
    prompts = [text[first : first + size] for first in range(0, len(text), size)]
    llm = pair.loaded(dtype="bfloat16", **AFRESH)
    yield "outrider", rate(ours(llm, tokens, 0), prompts, tokens, clock)
    yield "outrider, drafts", rate(ours(llm, tokens, AUTO), prompts, tokens, clock)
    llm.shutdown()
    model = load(pair.path, pair.card.name)
    for name, options in {**PLAIN, "transformers, prompt lookup": LOOKUP}.items():
        yield name, rate(theirs(model, tokens, options), prompts, tokens, clock)


def large_beside(card: Card, sizes: Sizes) -> Iterator[Finding]:
    """Tokens a second of transformers on random weights of the large shape in bfloat16, one request."""
    of = sizes.large
    settings = transformers.LlamaConfig(
        vocab_size=of.vocab,
        hidden_size=of.hidden,
        intermediate_size=of.inner,
        num_hidden_layers=of.layers,
        num_attention_heads=of.heads,
        num_key_value_heads=of.kv_heads,
        rope_theta=of.rope_base,
    )
    with torch.device(card.device):
        model = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    prompts = [[*range(1, sizes.prompt + 1)]]
    for name, options in PLAIN.items():
        yield name, rate(theirs(model, sizes.tokens, options), prompts, sizes.tokens, card.clock)


def ours(llm: LLM, tokens: int, length: Length) -> Callable[[Sequence[int]], object]:
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, num_speculative_tokens=length)
    return lambda prompt: llm.generate(list(prompt), params, use_tqdm=False)


def theirs(model: Any, tokens: int, options: Options) -> Callable[[Sequence[int]], object]:
    return lambda prompt: generated(model, [prompt], tokens, options)


def rate(
    generate: Callable[[Sequence[int]], object],
    prompts: Sequence[Sequence[int]],
    tokens: int,
    clock: Callable[[], float],
) -> float:
    """Tokens a second over all prompts, which are as long as each other, one at a time; the first once more
    before that, to warm up."""
    generate(prompts[0])
    began = clock()
    for prompt in prompts:
        generate(prompt)
    return tokens * len(prompts) / (clock() - began)
