"""Building an engine from its configuration: models, caches, and how long a request may be."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice

import psutil

from outrider.aside import aside
from outrider.cache.division import Division
from outrider.config import EngineConfig
from outrider.drafting.base import CacheReader, StateReader
from outrider.drafting.chain import Chain
from outrider.drafting.registry import load_drafters, longest_draft
from outrider.engine.backend import CPU, choose_backend, draft_backend
from outrider.engine.defaults import default_params
from outrider.engine.embedding import Embedder
from outrider.engine.engine import Engine
from outrider.engine.lending import Lending
from outrider.engine.policy import length_policy
from outrider.engine.profile import USUAL, Measuring
from outrider.engine.scheduler import Scheduler
from outrider.engine.watcher import Watcher
from outrider.errors import ConfigError
from outrider.loading import Listener, Loading, unheard
from outrider.models.chat_template import read_template
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner, group_sizes
from outrider.ops.base import Backend, Facts
from outrider.verification.rules import RULES

logger = logging.getLogger(__name__)

NATIVE_PROMPT_CHUNK = 64
SHORTEST = 2  # positions that a request takes: a token of a prompt, and one that is generated


def build_engine(
    config: EngineConfig,
    *,
    observer: StateReader | None = None,
    clock: Callable[[], float] | None = None,
    listener: Listener = unheard,
    measuring: Measuring = USUAL,
    watchers: Sequence[Watcher] = (),
    choosing: Callable[[EngineConfig, Checkpoint], Backend] = choose_backend,
) -> Engine:
    """Load what the configuration names. Raises ConfigError or ModelError; nothing is half-built.

    observer: reads the target's states beside the drafters; clock: seconds, by which passes and drafts are
    timed, of the machine if none is given; listener: hears what is being done; measuring: how costs are
    measured, where the policy has to know them; watchers: are told what the engine does; choosing: makes the
    backend.
    """
    if config.max_num_batched_tokens < config.max_num_seqs:
        raise ConfigError(
            f"max_num_batched_tokens = {config.max_num_batched_tokens} is less than max_num_seqs = "
            f"{config.max_num_seqs}: a step could not give every request its token; raise the one or lower "
            "the other"
        )
    listener(Loading(f"reading {config.model}"))
    checkpoint = open_checkpoint(
        config.model,
        revision=config.revision,
        tokenizer=config.tokenizer,
        positions=config.max_model_len,
    )
    _check_scheme(config, checkpoint)
    model_config = checkpoint.config
    defaults = default_params(
        config, checkpoint.sampling_defaults, model_config.eos_token_ids, model_config.vocab_size
    )
    template = None if config.chat_template is None else read_template(config.chat_template)
    making = aside(checkpoint.tokenizer)  # which takes as long as laying out the weights of a small model
    backend = choosing(config, checkpoint)
    facts = backend.facts
    prompt_rows = prompt_rows_of(config, facts)
    model = Model(checkpoint, backend, name=config.model, listener=listener)
    listener(Loading("reading the tokenizer"))
    tokenizer = making.result()
    if template is not None:
        tokenizer = tokenizer.with_template(template)
    sources = load_drafters(
        config,
        checkpoint,
        model,
        tokenizer,
        quantised=partial(draft_backend, config, backend),
        prompt_rows=prompt_rows,
        listener=listener,
    )
    longest = longest_draft(config.speculative)
    groups = group_sizes(model, config.block_size, prompt_rows + longest, longest)
    caches = [groups, *(source.groups for source in sources)]
    division = Division(tuple(chain.from_iterable(caches)), config.max_num_seqs)
    max_model_len = _max_model_len(config, checkpoint, division)
    blocks = division.blocks(division.level(config.kv_cache_memory, max_model_len), max_model_len)
    needed = division.bytes(blocks)
    _check_there_is_memory(config, needed, facts.device)
    each = iter(blocks)
    num_blocks, *of_drafters = [tuple(islice(each, len(cache))) for cache in caches]
    # With the memory of the drafters' caches, too, where that is not taken at once.
    most = num_blocks
    if facts.lazy:
        alone = Division(groups, config.max_num_seqs)
        most = alone.blocks(alone.level(needed, max_model_len), max_model_len)
    drafters = [source.build(own) for source, own in zip(sources, of_drafters, strict=True)]
    readers: list[StateReader] = [drafter for drafter in drafters if isinstance(drafter, StateReader)]
    if observer is not None:
        readers.append(observer)
    all_drafters = Chain(drafters, readers, clock or time.perf_counter)
    target = ModelRunner(
        model,
        num_blocks=num_blocks,
        block_size=config.block_size,
        prefix_caching=config.enable_prefix_caching,
        reserve=[all - own for all, own in zip(most, num_blocks, strict=True)],
        state_layers=all_drafters.state_layers,
    )
    for drafter in drafters:
        if isinstance(drafter, CacheReader):
            drafter.attach(target)
    cached = {
        n: drafter
        for n, (source, drafter) in enumerate(zip(sources, drafters, strict=True), start=1)
        if source.groups
    }
    return Engine(
        config,
        target=target,
        tokenizer=tokenizer,
        drafters=all_drafters,
        acceptance=RULES["coupled" if config.speculative is None else config.speculative.acceptance],
        scheduler=Scheduler(
            length_policy(
                config,
                target,
                tokenizer,
                drafters,
                max_model_len,
                checkpoint.stored_as,
                clock,
                measuring,
                listener=listener,
            ),
            max_num_seqs=config.max_num_seqs,
            max_rows=config.max_num_batched_tokens,
            prompt_rows=prompt_rows,
        ),
        lending=Lending(target, cached),
        embedder=Embedder(
            target,
            config.pooling or checkpoint.pooling,
            rows=prompt_rows,
            max_model_len=max_model_len,
        ),
        max_model_len=max_model_len,
        weights=config.quantization or (checkpoint.stored_as if config.dtype == "auto" else config.dtype),
        sampling_defaults=defaults,
        clock=clock or time.perf_counter,
        watchers=watchers,
    )


def _check_there_is_memory(config: EngineConfig, needed: int, device: str) -> None:
    """Raise ConfigError for caches that this machine cannot hold, before anything is allocated for them."""
    there = psutil.virtual_memory().total
    if device == CPU and needed > there:
        raise ConfigError(
            f"kv_cache_memory = {config.kv_cache_memory} with max_num_seqs = {config.max_num_seqs}: the "
            f"cache would take {needed} bytes, and this machine has {there}; lower one of the two"
        )


def prompt_rows_of(config: EngineConfig, facts: Facts) -> int:
    """Rows of prompts in a step, on a backend of these facts."""
    most, native = config.max_num_batched_tokens, facts.exact and facts.device == CPU
    return min(most, config.prompt_chunk_size or (NATIVE_PROMPT_CHUNK if native else most))


def _check_scheme(config: EngineConfig, checkpoint: Checkpoint) -> None:
    """Raise ConfigError where the files are not quantised as somebody said."""
    said, found = config.stored_quantization, checkpoint.quantised_by
    if said not in (None, found):
        how = "are not quantised" if found is None else f"are quantised by {found!r}"
        raise ConfigError(
            f"quantization = {said!r}, and the files of {config.model!r} {how}; leave it out, or give 'int8' "
            "or 'int4' to quantise what is loaded"
        )


def _max_model_len(config: EngineConfig, checkpoint: Checkpoint, division: Division) -> int:
    """What was asked for, if the model allows it and the cache holds one such request; unasked, what model
    and cache allow beside a window for each of `max_num_seqs` requests."""
    trained = checkpoint.config.max_position_embeddings
    wanted = config.max_model_len
    if wanted is None:
        cached = division.longest_of_many(config.kv_cache_memory, trained)
        if cached < SHORTEST:
            least = division.bytes_of_many(SHORTEST)
            held = f"{cached} position" if cached else f"no block of {config.block_size} positions"
            raise ConfigError(
                f"kv_cache_memory = {config.kv_cache_memory} bytes holds {held}; it needs {least} bytes at "
                "least"
            )
        if cached < trained:
            logger.warning(
                "max_model_len is %d, which kv_cache_memory = %d bytes can hold; the model allows %d",
                cached,
                config.kv_cache_memory,
                trained,
            )
        return cached
    if wanted < SHORTEST:
        raise ConfigError(
            f"max_model_len = {wanted}: give {SHORTEST} at least, for a prompt's token and one that follows"
        )
    if wanted > trained:
        raise ConfigError(
            f"max_model_len = {wanted} is more than the {trained} positions of {config.model!r}"
        )
    needed = division.bytes_of_one(wanted)
    if needed > config.kv_cache_memory:
        cached = division.longest_of_one(config.kv_cache_memory, wanted)
        raise ConfigError(
            f"max_model_len = {wanted} needs kv_cache_memory of {needed} bytes at least, and it is "
            f"{config.kv_cache_memory}, enough for {cached}; raise the one or lower the other"
        )
    return wanted
