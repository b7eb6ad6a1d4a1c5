"""What a model takes of the devices that vLLM computes on, from configurations and headers alone.

vLLM gives each device the same budget, loads a rank of the model there, runs the largest pass, and makes
what is left its cache of K and V (`determine_available_memory` of its workers). Weights and K and V are
counted here as vLLM lays them out; what a pass and vLLM itself take is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from outrider.cache.division import Division
from outrider.cluster.vllm.config import VllmConfig
from outrider.cluster.vllm.described import described
from outrider.cluster.vllm.devices import Device, with_space
from outrider.cluster.vllm.layout import RankLayout, Unplanned
from outrider.cluster.vllm.ranks import layers_of
from outrider.cluster.vllm.speculation import drafting_of
from outrider.errors import ConfigError, ModelError
from outrider.planning.allowed import Limit, in_words, mib
from outrider.planning.footprint import Footprint
from outrider.planning.passes import PassSize

BATCHED_TOKENS, SEQUENCES = 2048, 128
"""What vLLM's engine takes at a time where nobody says (`DEFAULT_MAX_NUM_BATCHED_TOKENS`, `_SEQS`)."""
MOST_RANKS = 64  # that are tried where fewer do not do
UNPLANNED = ("cpu_offload_gb", "data_parallel_size", "decode_context_parallel_size", "enable_lora")


@dataclass(frozen=True)
class RankPlan:
    """Bytes of a device of one stage of the pipeline. layers: of the target; runtime: vLLM's own; passes: of
    the largest one; cache: what K and V of a block take."""

    layers: range
    runtime: int
    weights: int
    drafter: int
    passes: int
    cache: Division

    @property
    def fixed(self) -> int:
        """All but the cache."""
        return self.runtime + self.weights + self.drafter + self.passes

    def requests(self, room: int, positions: int) -> float:
        """How many of so many positions K and V have room for, in whole blocks, as vLLM counts them."""
        block = sum(size.block_bytes for size in self.cache.sizes)
        return room // block * block / self.cache.bytes_of_one(positions)


@dataclass(frozen=True)
class VllmPlan:
    """limit: of each device; ranks: one for each stage; wanted: positions that a request has to have."""

    config: VllmConfig
    limit: Limit
    ranks: tuple[RankPlan, ...]
    wanted: int
    max_num_seqs: int

    def room(self, rank: RankPlan) -> int:
        """Bytes of its cache."""
        told = self.config.kv_cache_memory
        return max(0, self.limit.bytes - rank.fixed) if told is None else told

    def needs(self, rank: RankPlan) -> int:
        """Bytes of such a device with which vLLM starts."""
        least = rank.cache.bytes_of_one(self.wanted)
        return rank.fixed + max(least, self.config.kv_cache_memory or 0)

    @property
    def fullest(self) -> RankPlan:
        return max(self.ranks, key=self.needs)

    @property
    def least(self) -> int:
        """The limit with which vLLM starts."""
        return self.needs(self.fullest)

    @property
    def context(self) -> int:
        """The positions of one request that there is room for, up to those that it has to have."""
        return min(rank.cache.longest_of_one(self.room(rank), self.wanted) for rank in self.ranks)

    @property
    def fits(self) -> bool:
        return self.least <= self.limit.bytes and self.context == self.wanted

    @property
    def requests(self) -> float:
        """Requests of the wanted length that there is room for, as vLLM's log tells them ("concurrency")."""
        return min(rank.requests(self.room(rank), self.wanted) for rank in self.ranks)

    @property
    def positions(self) -> int:
        """Positions of all requests together, as vLLM's log tells them ("KV cache size")."""
        return int(self.requests * self.wanted)

    @property
    def counted(self) -> VllmPlan:
        """The same, without what is estimated."""
        return replace(self, ranks=tuple(replace(rank, runtime=0, passes=0) for rank in self.ranks))

    @property
    def breakdown(self) -> str:
        """What the fullest device needs, part by part."""
        rank = self.fullest
        parts = {
            "vLLM": rank.runtime,
            "weights": rank.weights,
            "draft": rank.drafter,
            "passes": rank.passes,
            f"K/V of {self.wanted} positions": rank.cache.bytes_of_one(self.wanted),
        }
        return in_words(parts)


def make_plan(config: VllmConfig, device: Device) -> VllmPlan:
    """The plan of a configuration. Raises ConfigError for what vLLM would refuse, Unplanned for what takes
    memory that is not known, and ModelError for a model that cannot be read."""
    for name in UNPLANNED:
        if config.others.get(name) not in (None, False, 0, 1):
            raise Unplanned(f"{name} = {config.others[name]}: what that takes is not planned; leave it out")
    drafting = drafting_of(config) or {}
    headers = described(config.model, config.revision)
    wanted = config.max_model_len or headers.config.max_position_embeddings
    requests = config.max_num_seqs or SEQUENCES
    drafted = int(drafting.get("num_speculative_tokens") or 0)
    rows = config.max_num_batched_tokens or min(BATCHED_TOKENS, requests * wanted)
    # vLLM tries out the largest pass with one drafted token for each request.
    chosen = min(rows, requests * (2 if drafting else 1))
    size = PassSize(rows, chosen, requests, wanted, rows, drafted)
    layout = RankLayout.of(config, headers, size, config.block_size or device.block_size)
    taken = [layout.stage(number) for number in range(layout.stages)]
    drafters = [Footprint()] * (layout.stages - 1) + [layout.drafter(drafting)]
    ranks = tuple(
        RankPlan(
            layers=layers,
            runtime=device.taken(config),
            weights=stage.weights,
            drafter=drafter.weights,
            passes=max(stage.passing, drafter.passing),
            cache=Division((*stage.groups, *drafter.groups), requests),
        )
        for layers, stage, drafter in zip(
            layers_of(headers.config.num_layers, layout.stages), taken, drafters, strict=True
        )
    )
    return VllmPlan(config, device.limit(config), ranks, wanted, requests)


def check_fits(config: VllmConfig, device: Device, environment: Mapping[str, str]) -> None:
    """Raise ConfigError where weights, K and V alone are more than such a device may hold. What is estimated
    is left out, and so are models that only vLLM knows: those it tells of itself."""
    try:
        plan = make_plan(with_space(config, device, environment), device).counted
    except (Unplanned, ModelError):
        return
    if not plan.fits:
        raise ConfigError(refusal(plan, device))


def refusal(plan: VllmPlan, device: Device) -> str:
    """Why it does not fit, and what would."""
    config = plan.config
    right = [f"max_model_len={plan.context} fits"] if plan.context else []
    if plan.least <= plan.limit.bytes:  # so the cache is what was told
        least = max(rank.cache.bytes_of_one(plan.wanted) for rank in plan.ranks)
        return (
            f"kv_cache_memory = {config.kv_cache_memory} bytes hold K and V of {plan.context} positions, and "
            f"a request may have {plan.wanted}: {' and '.join([*right, f'so does kv_cache_memory={least}'])}"
        )
    if (wider := _wider(config, device)) is not None:
        ranks = wider.config.tensor_parallel_size
        right.append(f"tensor_parallel_size={ranks} fits, with {mib(wider.least)} of each")
    right.append(plan.limit.raised(plan.least))
    return (
        f"{plan.limit} does not hold {config.model!r} on {config.tensor_parallel_size} x "
        f"{config.pipeline_parallel_size} of them, of each of which it needs {mib(plan.least)}: "
        f"{plan.breakdown}; {', or '.join(right)}"
    )


def _wider(config: VllmConfig, device: Device) -> VllmPlan | None:
    """The plan with the fewest ranks more with which it fits."""
    for ranks in range(config.tensor_parallel_size + 1, MOST_RANKS + 1):
        try:
            plan = make_plan(config.model_copy(update={"tensor_parallel_size": ranks}), device)
        except ConfigError:  # heads cannot be divided so
            continue
        if plan.fits:
            return plan
    return None
