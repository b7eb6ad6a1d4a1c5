"""What has to be known of an engine, as a value that it hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """All that is known of an engine before it computes anything.

    exact: whether what a request returns is a function of target, prompt, parameters and seed alone, to the
    last token; weights: the format of the target's linear layers; num_threads: of the processor, that
    compute, None where the engine does not say; threads: the same in words, with the reason; max_model_len:
    tokens of a prompt and its output; eos_token_ids: those that end an output; embedding_size: numbers of an
    embedding; max_num_seqs: sequences that run at a time; block_size: tokens of a block of the cache;
    kv_cache_memory: bytes that the cache may take, None where the engine
    settles that by itself; drafters: their names, in the order in which they are
    asked.
    """

    exact: bool
    device: str
    weights: str
    num_threads: int | None
    threads: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    embedding_size: int
    max_num_seqs: int
    block_size: int
    kv_cache_memory: int | None
    drafters: tuple[str, ...]
    seed: int


class Occupancy(NamedTuple):
    """What an engine has to do now: sequences that run and wait, and the used share of its cache."""

    running: int
    waiting: int
    cache: float


class StepReport(NamedTuple):
    """What a step took, in seconds, and how many requests lost their cache for it."""

    drafting: float
    verifying: float
    whole: float
    preempted: int


NO_STEP = StepReport(0.0, 0.0, 0.0, 0)
