"""Running requests, and what they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from platformdirs import user_cache_path

from outrider import LLM, RequestOutput, SamplingParams
from outrider.cache.pool import BlockPool
from outrider.drafting.base import Drafter
from outrider.drafting.grammar import GrammarDrafter
from outrider.engine.engine import Engine

# Bytes of a cache block of the tiny models: float32, K and V, 2 layers, 2 heads, 12 dimensions, 16 positions.
BLOCK = 4 * 2 * 2 * 2 * 12 * 16

PROMPTS: tuple[tuple[int, ...], ...] = (
    (10, 20, 30),
    (5, 6, 7, 5, 6, 7, 5, 6),
    tuple(range(20, 90)),
    (100,),
    (40, 41, 42, 43, 40, 41, 42, 43, 40, 41),
)


def load(target: str, drafter: str | None = None, **options: Any) -> LLM:
    """An LLM on the CPU. Lookup of single tokens, because random models seldom repeat themselves."""
    if drafter is not None:
        options["speculative_model"] = drafter
    if drafter == "ngram":
        options["prompt_lookup_min"] = 1
    return LLM(target, device="cpu", **options)


@cache
def reference_llm(target: str) -> LLM:
    """Target alone, prefix cache off."""
    return load(target, enable_prefix_caching=False)


@cache
def reference(target: str, prompt: tuple[int, ...], params: str) -> RequestOutput:
    """What a request returns alone, without speculation. params: as JSON, to be hashable."""
    plain = SamplingParams.model_validate_json(params)
    return reference_llm(target).generate(prompt, plain, use_tqdm=False)[0]


def expected(target: str, prompt: Sequence[int], params: SamplingParams) -> RequestOutput:
    """The plain result of a request, whatever draft length it names."""
    plain = params.model_copy(update={"num_speculative_tokens": 0})
    return reference(target, tuple(prompt), plain.model_dump_json())


def drafters_of(llm: LLM) -> tuple[Drafter, ...]:
    """Those that the configuration names; what grammars force comes before them."""
    grammar, *others = llm.engine.drafters.drafters
    assert isinstance(grammar, GrammarDrafter)
    return tuple(others)


def output_of(engine: Engine, prompt: Sequence[int], params: SamplingParams) -> RequestOutput:
    """What an engine without an LLM around it returns for one request."""
    request_id = engine.add(prompt, params)
    while not engine.finished(request_id):
        engine.step()
    return engine.take(request_id)


def cost_files() -> set[tuple[str, int, int]]:
    """What has been kept of costs; another set, once any of it is written again."""
    folder = user_cache_path("outrider") / "costs"
    files = [(path, path.stat()) for path in folder.glob("*.json")]
    return {(path.name, stat.st_ino, stat.st_mtime_ns) for path, stat in files}


def held_blocks(engine: Engine) -> Iterator[tuple[BlockPool, set[int]]]:
    """The pool of each group of layers, and the blocks of it that running requests hold."""
    tables = [request.table.tables for request in engine.scheduler.running]
    for group, pool in enumerate(engine.target.pool.of_groups):
        yield pool, {block for table in tables for block in table[group] if block >= 0}


def token_ids(output: RequestOutput) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in output.outputs]
