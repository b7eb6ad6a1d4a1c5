"""A plan: what one configuration takes, and what a limit leaves for its cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from outrider.cache.division import Division, GroupSize
from outrider.config import EngineConfig
from outrider.drafting.registry import draft_rows, longest_draft
from outrider.engine.build import prompt_rows_of
from outrider.models.checkpoint import Checkpoint
from outrider.models.model import Model
from outrider.ops.base import Facts
from outrider.planning.drafters import Drafting, drafter_footprint, profiled_rows
from outrider.planning.footprint import Footprint, model_footprint
from outrider.planning.ledger import Outline, ledger_of
from outrider.planning.passes import PassSize

LEAST_CONTEXT = 512  # positions that a request should have where nobody asked for a number
HELD_BACK = 64  # one part in so many of a limit is kept free, for what no plan foresees
CONCURRENCY = (64, 32, 16, 8, 4, 2, 1)  # requests at a time that are tried where nobody asked for a number


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one configuration under a limit.

    runtime: process, libraries and tokenizer; beside: what learning takes; target, drafts: weights that stay;
    activations: of the largest passes, and what the backend keeps beside them; loading: the most while models
    are loaded, runtime and what is loaded counted. caches: K and V of all models by group of layers, slots
    for states, and last what is kept for texts; num_blocks: of each of these, as many as the limit leaves
    room for or the requests can use; read, drafts_read: of weights, by plain decoding of one token, and by
    drafting one.
    """

    limit: int
    runtime: int
    beside: int
    target: int
    drafts: int
    activations: int
    loading: int
    caches: Division
    num_blocks: tuple[int, ...]
    block_size: int
    context: int
    """Positions of a request, prompt and output: as asked for, or as many as there is room for."""
    wanted: int
    """Positions that a request is to have at least."""
    least_cache: int
    """The bytes of `cache` at least, for requests of the wanted length."""
    kv_cache_memory: int
    """The option of this name, with which the engine stays within the plan."""
    max_num_seqs: int
    read: int
    drafts_read: int

    @property
    def fixed(self) -> int:
        """Bytes of all but the cache."""
        return self.runtime + self.beside + self.target + self.drafts + self.activations

    @property
    def cache(self) -> int:
        """Bytes of K and V, and of what drafters keep for each position."""
        return self.caches.bytes(self.num_blocks)

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
    def fits(self) -> bool:
        return self.least <= self.limit

    @property
    def concurrency(self) -> int:
        """Requests of the full context at a time; the others wait."""
        context = max(self.context, 1)
        held = zip(self.num_blocks, self.caches.sizes, strict=True)
        return min(self.max_num_seqs, *(number // size.blocks(context) for number, size in held))

    @property
    def cache_of_one(self) -> int:
        """Bytes of K and V of one request of the full context."""
        return Division(self.caches.sizes[:-1], 1).bytes_of_one(self.context)

    @property
    def block(self) -> int:
        """Bytes of a block of every group, and of what is kept for its positions."""
        return sum(size.text_bytes for size in self.caches.sizes)

    @property
    def cache_block(self) -> int:
        """Bytes of a block of every group."""
        return sum(size.text_bytes for size in self.caches.sizes[:-1])

    @property
    def blocks(self) -> int:
        """The blocks that the texts of all requests fill, of a group of layers without a window."""
        return self.num_blocks[-1]

    @property
    def positions(self) -> int:
        """The positions that the cache holds, of all requests together."""
        return self.blocks * self.block_size


@dataclass(frozen=True)
class Ground:
    """What a plan stands on.

    limit: bytes; process: bytes of it that the process takes before models; open: the checkpoint of a name,
    of which nothing but headers is read; beside: bytes that learning takes.
    """

    limit: int
    process: int
    target: Checkpoint
    open: Callable[[str], Checkpoint]
    beside: int = 0


def make_plan(config: EngineConfig, ground: Ground) -> MemoryPlan:
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


def _plan(config: EngineConfig, ground: Ground, requests: int) -> MemoryPlan:
    checkpoint = ground.target
    ledger = ledger_of(config, checkpoint)
    trained = checkpoint.config.max_position_embeddings
    most = min(config.max_model_len or trained, trained)
    keeps = ledger.keeps
    size = _size(config, ledger.facts, requests=requests, positions=most)
    model = Model(Outline(checkpoint), ledger)
    target = model_footprint(model, ledger, size, config.block_size)
    drafts: list[Footprint] = []
    if config.speculative is not None:
        around = Drafting(config, config.speculative, checkpoint, model, ledger, size, requests, ground.open)
        drafts = [drafter_footprint(drafter, around) for drafter in config.speculative.drafters]
    vocab = checkpoint.config.vocab_size
    runtime = ground.process + keeps.late + keeps.tokenizer * vocab
    making = (keeps.making - keeps.tokenizer) * vocab  # while the target is loaded
    loading = _loading(runtime + ground.beside, [replace(target, peak=target.peak + making), *drafts])
    weights = sum(draft.weights for draft in drafts)
    activations = sum(model.passing for model in (target, *drafts))
    activations += ledger.spare(model.weights for model in (target, *drafts))
    position = keeps.position + sum(draft.position for draft in drafts)
    sizes = [size for model in (target, *drafts) for size in model.groups]
    texts = GroupSize(None, 0, config.block_size, config.block_size * position)
    caches = Division((*sizes, texts), requests)
    usable = ground.limit - -(-ground.limit // HELD_BACK)
    left = max(0, usable - runtime - ground.beside - target.weights - weights - activations)
    of_models = Division((*sizes, replace(texts, block_bytes=0)), requests)
    told = config.kv_cache_memory if "kv_cache_memory" in config.model_fields_set else left
    wanted = config.max_model_len or min(LEAST_CONTEXT, trained)
    context = most
    if config.max_model_len is None:
        context = min(caches.longest_of_many(left, most), of_models.longest_of_many(told, most))
    level = min(caches.level(left, context), of_models.level(told, context))
    num_blocks = caches.blocks(level, context)
    return MemoryPlan(
        limit=ground.limit,
        runtime=runtime,
        beside=ground.beside,
        target=target.weights,
        drafts=weights,
        activations=activations,
        loading=loading,
        caches=caches,
        num_blocks=num_blocks,
        block_size=config.block_size,
        context=context,
        wanted=wanted,
        least_cache=(caches.bytes_of_one if config.max_model_len else caches.bytes_of_many)(wanted),
        kv_cache_memory=min(told, of_models.bytes(num_blocks)),
        max_num_seqs=requests,
        read=target.read,
        drafts_read=sum(draft.read for draft in drafts),
    )


def _loading(runtime: int, models: list[Footprint]) -> int:
    """The most while they are loaded one after the other."""
    peak = before = runtime
    for model in models:
        peak = max(peak, before + model.peak)
        before += model.weights
    return peak


def _size(config: EngineConfig, facts: Facts, *, requests: int, positions: int) -> PassSize:
    """The target's largest pass: a chunk of prompts, and all requests' tokens and largest drafts."""
    prompts = prompt_rows_of(config, facts)
    verified = requests * (1 + draft_rows(config.speculative))
    most = config.max_num_batched_tokens
    return PassSize(
        rows=min(most, max(prompts + verified, profiled_rows(config.speculative))),
        logit_rows=min(most, verified),
        requests=requests,
        positions=positions,
        ahead=prompts + longest_draft(config.speculative),
        drafted=longest_draft(config.speculative),
    )
