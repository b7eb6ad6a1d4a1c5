"""A plan: what one configuration takes, and what a limit leaves for its cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outrider.config import EngineConfig
from outrider.engine.build import prompt_rows_of
from outrider.models.checkpoint import Checkpoint
from outrider.planning.drafters import Drafting, drafter_footprint, longest_draft, profiled_rows
from outrider.planning.footprint import Footprint, PassSize, model_footprint
from outrider.planning.layout import layout_of
from outrider.planning.process import LATE, POSITION, TOKENIZER, TOKENIZER_MADE

LEAST_CONTEXT = 512  # positions that a request should have where nobody asked for a number
HELD_BACK = 64  # one part in so many of a limit is kept free, for what no plan foresees
CONCURRENCY = (64, 32, 16, 8, 4, 2, 1)  # requests at a time that are tried where nobody asked for a number


@dataclass(frozen=True)
class Plan:
    """Bytes of one configuration under a limit.

    runtime: process, libraries and tokenizer; target, drafts: weights that stay; activations: of the largest
    passes, and what the backend keeps beside them; loading: the most while models are loaded, runtime and
    what is loaded counted. block: of one cache block of all models, and what drafters keep for its positions;
    blocks: that the limit leaves room for, or as many as the requests can use; read: of weights, by plain
    decoding of one token.
    """

    limit: int
    runtime: int
    target: int
    drafts: int
    activations: int
    loading: int
    block: int
    cache_block: int
    blocks: int
    block_size: int
    context: int
    """Positions of a request, prompt and output: as asked for, or as many as there is room for."""
    wanted: int
    """Positions that a request is to have at least."""
    max_num_seqs: int
    read: int

    @property
    def fixed(self) -> int:
        """Bytes of all but the cache."""
        return self.runtime + self.target + self.drafts + self.activations

    @property
    def cache(self) -> int:
        """Bytes of K and V, and of what drafters keep for each position."""
        return self.blocks * self.block

    @property
    def total(self) -> int:
        """The peak of resident memory, with the cache full."""
        return max(self.loading, self.fixed + self.cache)

    @property
    def least(self) -> int:
        """The limit with which one request of the wanted length could be served."""
        needed = max(self.loading, self.fixed + self.least_cache)
        return -(-needed * HELD_BACK // (HELD_BACK - 1))

    @property
    def least_cache(self) -> int:
        """Bytes of `cache` with one request of the wanted length."""
        return self.block * -(-self.wanted // self.block_size)

    @property
    def fits(self) -> bool:
        return self.least <= self.limit

    @property
    def concurrency(self) -> int:
        """Requests of the full context at a time; the others wait."""
        return min(self.max_num_seqs, self.positions // max(self.context, 1))

    @property
    def positions(self) -> int:
        """That the cache holds, of all requests together."""
        return self.blocks * self.block_size

    @property
    def kv_cache_memory(self) -> int:
        """The option of this name, with which the engine stays within the plan."""
        return self.blocks * self.cache_block


@dataclass(frozen=True)
class Ground:
    """What a plan stands on.

    limit: bytes; process: bytes of it that the process takes before models; open: the checkpoint of a name,
    of which nothing but headers is read.
    """

    limit: int
    process: int
    target: Checkpoint
    open: Callable[[str], Checkpoint]


def make_plan(config: EngineConfig, ground: Ground) -> Plan:
    """The plan of a configuration.

    Where the configuration does not say how many requests run at a time, as many as leave each
    `LEAST_CONTEXT` positions. Raises ConfigError and ModelError, as building the engine would.
    """
    if "max_num_seqs" in config.model_fields_set:
        return _plan(config, ground, config.max_num_seqs)
    for requests in CONCURRENCY:
        plan = _plan(config, ground, requests)
        if plan.fits and plan.positions >= requests * plan.wanted:
            return plan
    return plan


def _plan(config: EngineConfig, ground: Ground, requests: int) -> Plan:
    checkpoint = ground.target
    layout = layout_of(config, checkpoint)
    trained = checkpoint.config.max_position_embeddings
    most = min(config.max_model_len or trained, trained)
    size = _size(config, exact=layout.exact, requests=requests, positions=most)
    target = model_footprint(checkpoint, layout, size, config.block_size)
    drafts: list[Footprint] = []
    if config.speculative is not None:
        around = Drafting(config, config.speculative, checkpoint, layout, size, requests, ground.open)
        drafts = [drafter_footprint(drafter, around) for drafter in config.speculative.drafters]
    vocab = checkpoint.config.vocab_size
    runtime = ground.process + LATE + TOKENIZER * vocab
    loading = max(ground.process + LATE + TOKENIZER_MADE * vocab, _loading(runtime, [target, *drafts]))
    weights = sum(draft.weights for draft in drafts)
    activations = sum(model.passing for model in (target, *drafts))
    activations += layout.spare(model.weights for model in (target, *drafts))
    cache_block = target.block + sum(draft.block for draft in drafts)
    block = cache_block + config.block_size * (POSITION + sum(draft.position for draft in drafts))
    usable = ground.limit - -(-ground.limit // HELD_BACK)
    left = max(0, usable - runtime - target.weights - weights - activations)
    useful = requests * -(-most // config.block_size)
    blocks = min(left // block, useful)
    if "kv_cache_memory" in config.model_fields_set:
        blocks = min(blocks, config.kv_cache_memory // cache_block)
    return Plan(
        limit=ground.limit,
        runtime=runtime,
        target=target.weights,
        drafts=weights,
        activations=activations,
        loading=loading,
        block=block,
        cache_block=cache_block,
        blocks=blocks,
        block_size=config.block_size,
        context=min(most, blocks * config.block_size),
        wanted=config.max_model_len or min(LEAST_CONTEXT, trained),
        max_num_seqs=requests,
        read=target.read,
    )


def _loading(runtime: int, models: list[Footprint]) -> int:
    """The most while they are loaded one after the other."""
    peak = before = runtime
    for model in models:
        peak = max(peak, before + model.peak)
        before += model.weights
    return peak


def _size(config: EngineConfig, *, exact: bool, requests: int, positions: int) -> PassSize:
    """Of the target's largest pass: a chunk of prompts, and every request's tokens with the longest draft."""
    prompts = prompt_rows_of(config, exact=exact)
    verified = requests * (1 + longest_draft(config.speculative))
    most = config.max_num_batched_tokens
    profiled = profiled_rows(config.speculative)
    return PassSize(
        rows=min(most, max(prompts + verified, profiled)),
        logit_rows=min(most, max(verified, profiled)),
        positions=positions,
    )
