"""A target's hidden states, written by vLLM's worker as it generates.

vLLM's method `extract_hidden_states` keeps the outputs of chosen layers in a cache of their own, and a
connector reads them from there. vLLM's own connector copies by streams of CUDA, and so does not run on its
build for the CPU; this one copies at once, on any device. It imports vLLM at its top, since only vLLM imports
it, by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    PendingSave,
    extract_from_kv_cache,
)

PARTIAL = ".partial"


class _Copied:
    """In place of a CUDA event, since nothing is copied later."""

    def query(self) -> bool:
        return True


@dataclass
class Told(PendingSave):  # type: ignore[misc]
    """A request that has finished. own: where the target's own words begin."""

    own: int


class StatesConnector(ExampleHiddenStatesConnector):  # type: ignore[misc]
    """Writes a file for each request, with what `outrider.training.recorder.Recording` has: `tokens`, `own`,
    and `states`, bfloat16 [tokens, layers * hidden]."""

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        name = self._request_filenames.pop(request.request_id, None)
        if name is None:  # aborted before it began
            return False, None
        tokens = torch.tensor(list(request.all_token_ids)[:-1])  # the last was never read
        self._pending_saves[request.request_id] = Told(
            request.request_id, name, tokens, list(block_ids), request.num_prompt_tokens
        )
        return True, None

    def _submit_async_write(self, pending: Told) -> None:
        if not self._is_tp_rank_zero:
            return
        blocks = torch.tensor(pending.block_ids)[:, None] * self._block_size
        slots = (blocks + torch.arange(self._block_size)).flatten().to(self._kv_cache.device)
        states = extract_from_kv_cache(self._kv_cache, slots, len(pending.token_ids))
        tensors = {
            "tokens": pending.token_ids,
            "own": torch.tensor(pending.own),
            "states": states.flatten(1).to("cpu", torch.bfloat16).contiguous(),
        }
        path = Path(pending.filename)
        partial = path.with_suffix(PARTIAL)
        save_file(tensors, partial)
        partial.replace(path)
        self._req_copy_events[pending.req_id] = _Copied()
