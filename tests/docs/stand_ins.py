"""What the documents' names of models stand for where their code is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from outrider import LLM, SamplingParams
from outrider.engine.seam import Prepared
from outrider.option_types import parse_bytes

FEW = 6  # tokens of an answer: the code is to run, not to impress


@dataclass(frozen=True)
class Models:
    """Tiny random models: a target, a draft model and a head for it, and a target that brings a layer for
    multi-token prediction. SmolLM2 stands for itself."""

    target: str
    draft: str
    head: str
    with_mtp: str

    def of(self, name: str, target: str) -> str:
        """The model that `name` means where `target` is the target's own name in the document."""
        drafts = ("path", "path/to/draft", "org/name", "small", "D")
        if target == "smollm2" and name in drafts:
            return "smollm2"  # the only one here with its tokenizer
        llamas = ("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.2-1B-Instruct")  # of vLLM's fake
        targets = {
            **dict.fromkeys(llamas, self.target),
            "big": self.target,
            "M": self.target,
            "Qwen/Qwen3.6-27B": self.with_mtp,
        }
        stands_for = {**targets, "path/of/a/head": self.head}
        return {**stands_for, **dict.fromkeys(drafts, self.draft)}.get(name, name)


def stand_in(models: Models) -> type[LLM]:
    """LLM, but that it knows the documents' names and answers briefly."""

    class StandIn(LLM):
        def __init__(self, model: str, **options: Any) -> None:
            if isinstance(drafter := options.get("speculative_model"), str):
                options["speculative_model"] = models.of(drafter, model)
            elif drafter:
                options["speculative_model"] = [models.of(name, model) for name in drafter]
            if limit := options.get("memory_limit"):
                # The document's process is a fresh one; that of the tests holds much already.
                options["memory_limit"] = _size(limit) + psutil.Process().memory_info().rss
            where: dict[str, Any] = {} if options.get("engine") == "vllm" else {"device": "cpu"}
            super().__init__(models.of(model, model), **where, **options)

        def _prepare(self, prompt: Any, params: SamplingParams, *others: Any, **named: Any) -> Prepared:
            brief = {"max_tokens": min(FEW, params.max_tokens or FEW)}
            return super()._prepare(prompt, params.model_copy(update=brief), *others, **named)

    return StandIn


def _size(value: Any) -> int:
    size = parse_bytes(value)
    assert isinstance(size, int)
    return size
