"""What vLLM's scheduler tells of a step beside outputs."""

from __future__ import annotations

from typing import Any

from outrider.engine.facts import Occupancy


class StepRecorder:
    """One of vLLM's stat loggers (`vllm.v1.metrics.loggers.StatLoggerBase`), which keeps what the last step
    told. It is made before vLLM's engine is; `made` gives it to that."""

    def __init__(self) -> None:
        self.occupancy = Occupancy(0, 0, 0.0)
        self.preempted = 0
        """Sequences that lost their cache in the step."""
        self.speculation: Any = None
        """SpecDecodingStats of the step; None where nothing was drafted."""

    def made(self, config: Any, engine_index: int = 0) -> StepRecorder:
        """As vLLM makes its stat loggers."""
        return self

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Keep what a step told."""
        if scheduler_stats is None:
            return
        self.occupancy = Occupancy(
            scheduler_stats.num_running_reqs,
            scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
            scheduler_stats.kv_cache_usage,
        )
        self.preempted = 0 if iteration_stats is None else iteration_stats.num_preempted_reqs
        self.speculation = scheduler_stats.spec_decoding_stats

    def log(self) -> None:
        """It writes no log."""

    def log_engine_initialized(self) -> None:
        """It writes no log."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """It keeps nothing of that."""
