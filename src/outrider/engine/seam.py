"""The seam between what serves requests and what computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from outrider.engine.facts import EngineFacts, Occupancy, StepReport
from outrider.engine.generation import Resumption
from outrider.engine.watcher import Watcher
from outrider.formats.format import Floats
from outrider.models.tokenizer import Tokenizer
from outrider.outputs import Increment, RequestOutput
from outrider.params import SamplingParams, StructuredOutputs
from outrider.sampling.grammar import Grammar

if TYPE_CHECKING:
    from outrider.engine.engine import Engine


class Prepared(Protocol):
    """A request that can be queued."""

    @property
    def id(self) -> str: ...

    def output(self) -> RequestOutput:
        """What there is of its output."""


class StepEngine(Protocol):
    """What computes requests, one `step` at a time, and tells all that `LLM` and the server have to know.

    `outrider.engine.engine.Engine` is ours, whose docstrings say more of each; another project's stands
    behind `LLM` and the server by having these. `prepare` and `compile_grammar` may be called by any thread,
    all else by one at a time.
    """

    watchers: list[Watcher]
    """Who is told what it does."""
    report: StepReport
    """Of the last step."""

    @property
    def about(self) -> EngineFacts: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """What a request should be sampled with where it does not say, by the names of SamplingParams."""

    @property
    def ours(self) -> Engine:
        """Our engine, for what no other can do. Raises ConfigError where another one computes."""

    @property
    def occupancy(self) -> Occupancy: ...

    @property
    def unfinished(self) -> bool:
        """Whether any request still has tokens to come."""

    def now(self) -> float:
        """Seconds, of which requests' times are made."""

    def prepare(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        priority: int = 0,
        said: Sequence[Resumption] = (),
    ) -> Prepared:
        """A request that can be queued. Raises RequestError and ConfigError for one that cannot run."""

    def compile_grammar(self, wanted: StructuredOutputs, given_up: Event) -> Grammar | None:
        """What takes long of structured outputs, done before `prepare`; None where the engine needs none."""

    def queue(self, request: Any, /) -> str:
        """Queue a request that it has prepared; returns its id. It fails for no request."""

    def step(self) -> list[Increment]:
        """Compute, and tell what every request gained by it."""

    def abort(self, request_id: str) -> None:
        """Stop a request; its output so far can still be taken."""

    def take(self, request_id: str) -> RequestOutput:
        """The output of a request; if it has finished, the engine forgets it."""

    def discard(self, request_id: str) -> None:
        """Abort and forget a request, if it is still known."""

    def finished(self, request_id: str) -> bool:
        """Whether a request that was not taken yet has its whole output."""

    def harmed(self) -> list[str]:
        """The requests that a step which failed may have harmed."""

    def embed(self, tokens: Sequence[int]) -> Floats:
        """The embedding of a text, between two steps."""

    def reset_prefix_cache(self) -> bool:
        """Forget all beginnings of prompts that were kept; False, with nothing done, while requests run."""

    def close(self) -> None:
        """End what the engine has running besides this thread."""
