"""What the routes of a server share: the engine, the model's tokenizer and name, and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from outrider.engine.generation import TextPrompt
from outrider.errors import ConfigError
from outrider.params import SamplingParams
from outrider.prompts import PromptReader
from outrider.serving.answers import Answer, Asked, plain_text
from outrider.serving.calls import Call
from outrider.serving.errors import ApiError
from outrider.serving.metrics import Metrics
from outrider.serving.model import ServedEngine, ServedModel
from outrider.serving.parsing.events import Parser
from outrider.serving.prompts import Prompts
from outrider.serving.requests import ChatRequest, Sampling
from outrider.serving.settings import ServerConfig
from outrider.serving.traces import Tracer
from outrider.serving.turns import Turns


class Service:
    """A model that is served under a name, and the engine that computes it."""

    def __init__(self, model: ServedModel, engine: ServedEngine, config: ServerConfig) -> None:
        self.model = model
        self.engine = engine
        self.config = config
        self.created = int(time.time())
        self.metrics = Metrics(config.model_name, engine)
        self.prompts = Prompts(PromptReader(model.tokenizer, model.max_model_len), model.vocab_size)
        self.sampling_defaults = _within(config.max_output_tokens, model.sampling_defaults)
        """What a request is sampled with where it does not say, by the names of SamplingParams."""
        self.turns = Turns(model.tokenizer, config, self.prompts, self.sampling_defaults)

    def _tracer(self, body: Sampling) -> Tracer | None:
        """What tells the drafts of a call, if it asks for that."""
        return Tracer(self.model.drafters, self.prompts.pieces_of) if body.speculation_trace else None

    def check_model(self, name: str | None) -> None:
        """Raise ApiError for another model than the one that is served. No name means that one."""
        if name not in (None, self.config.model_name):
            message = f"the model {name!r} does not exist; this server has {self.config.model_name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def chat(self, request: Request, body: ChatRequest, answer: Callable[[Asked], Answer]) -> Response:
        """Serve a chat, and tell its answer in the form of `answer`. All APIs that chat come here.

        Raises what the engine, or the model's template, refuses a request with.
        """
        self.check_model(body.model)
        turn = await self.turns.of(body, request.state.request_id)
        asked = self.asked(request, body, [turn.prompt], turn.params, turn.parser)
        return await self.serve(request, body, [turn.prompt], turn.params, answer(asked))

    def asked(
        self,
        request: Request,
        body: Sampling,
        prompts: Sequence[TextPrompt],
        params: SamplingParams,
        parser: Callable[[int, bool], Parser] = plain_text,
    ) -> Asked:
        """The call, as its answer has to know it."""
        return Asked(
            request.state.request_id,
            int(time.time()),
            self.config.model_name,
            body,
            params,
            sum(len(prompt.token_ids) for prompt in prompts),
            self._tracer(body),
            parser,
        )

    async def serve(
        self,
        request: Request,
        body: Sampling,
        prompts: Sequence[TextPrompt],
        params: SamplingParams,
        answer: Answer,
    ) -> Response:
        """Generate and answer, as `body` asks. Raises what the engine refuses a request with."""
        log = request.state.log
        log["prompt_tokens"] = sum(len(prompt.token_ids) for prompt in prompts)
        log["sequences"] = len(prompts) * params.n
        if body.user is not None:
            log["user"] = body.user
        generation = self.engine.generate(prompts, self._limited(params), priority=body.priority or 0)
        call = Call(
            generation,
            answer,
            deadline=request.state.deadline,
            log=log,
            counting=body.continuous_usage,
            tracing=bool(body.speculation_trace),
        )
        return await call.respond(request, stream=bool(body.stream))

    def _limited(self, params: SamplingParams) -> SamplingParams:
        limit = self.config.max_output_tokens
        if limit is None:
            return params
        for name in ("max_tokens", "min_tokens"):
            asked = getattr(params, name)
            if asked is not None and asked > limit:
                raise ConfigError(f"{name} = {asked}: this server generates {limit} at most; lower it", name)
        return params if params.max_tokens is not None else params.model_copy(update={"max_tokens": limit})


def _within(limit: int | None, defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """The defaults, with no more tokens than the server generates."""
    wanted = defaults.get("max_tokens")
    return defaults if limit is None or wanted is None else {**defaults, "max_tokens": min(wanted, limit)}
