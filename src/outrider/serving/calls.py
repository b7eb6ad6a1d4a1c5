"""Running one call for one client: to the end, as a stream, or until the client leaves or time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from outrider.engine.generation import Generation
from outrider.outputs import Increment, RequestOutput
from outrider.serving.answers import Answer
from outrider.serving.deadlines import Deadline
from outrider.serving.errors import check_output

REPLICA = "x-outrider-replica"
CLIENT_LEFT = 499  # as other servers write it in their logs; nobody reads this answer
T = TypeVar("T")


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Call:
    """A generation, how its outputs are told, and when it has to be over.

    log: what is known of the call in the end goes there. counting: whether each event says how many tokens
    there were so far. tracing: whether each says which replica it is of, where there are several.
    """

    def __init__(
        self,
        generation: Generation,
        answer: Answer,
        *,
        deadline: Deadline,
        log: dict[str, Any],
        counting: bool = False,
        tracing: bool = False,
    ) -> None:
        self._log = log
        self._generation = generation
        self._answer = answer
        self._deadline = deadline
        self._counting = counting
        self._tracing = tracing
        self._generated = 0

    async def respond(self, request: Request, *, stream: bool) -> Response:
        """Queue it, and answer as a whole or in chunks; an error on the way is then a chunk.

        Raises ApiError when time is up, and what the engine raises.
        """
        try:
            with ExitStack() as leaving:
                leaving.callback(self._generation.leave)
                await _unless_left(request, self._generation.enter())
                if stream:
                    leaving.pop_all()  # the response sees to it
                    media_type = self._answer.framing.media_type
                    return _Stream(self._generation, self._events(), media_type, self._headers())
                outputs = await _unless_left(request, self._finish())
        except ClientLeft:
            return Response(status_code=CLIENT_LEFT)
        return JSONResponse(self._answer.whole(outputs), headers=self._headers())

    async def _finish(self) -> list[RequestOutput]:
        while await self._next() is not None:
            pass
        return self._outputs()

    async def _events(self) -> AsyncIterator[bytes]:
        answer, frame = self._answer, self._answer.framing.frame
        try:
            for chunk in answer.opening():
                yield frame(self._with_more(chunk))
            while (news := await self._next()) is not None:
                number, increment = news
                self._generated += len(increment.token_ids)
                # What an error leaves is told as an error below, and is no end of a choice.
                if increment.finish_reason not in ("error", "abort"):
                    for chunk in answer.chunks(number, increment):
                        yield frame(self._with_more(chunk))
            for chunk in answer.closing(self._outputs()):
                yield frame(chunk)
        except Exception as error:
            yield frame(answer.failure(error))
        if answer.framing.end:
            yield answer.framing.end

    def _headers(self) -> dict[str, str]:
        """Names the replicas that have answered so far: of a stream, the one that has begun."""
        names = self._generation.replicas
        return {REPLICA: ", ".join(names)} if names else {}

    def _with_more(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The chunk, with what it says besides, if that is asked for."""
        if self._tracing and self._generation.replicas:
            chunk = chunk | {"replica": self._generation.replicas[-1]}
        if not self._counting:
            return chunk
        prompt = sum(len(prompt.token_ids) for prompt in self._generation.prompts)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": self._generated,
            "total_tokens": prompt + self._generated,
        }
        return chunk | {"usage": usage}

    async def _next(self) -> tuple[int, Increment] | None:
        async with self._deadline.kept():
            return await anext(self._generation, None)

    def _outputs(self) -> list[RequestOutput]:
        outputs = self._generation.outputs
        completions = [completion for output in outputs for completion in output.outputs]
        if self._generation.replicas:
            self._log["replicas"] = list(self._generation.replicas)
        self._log["completion_tokens"] = sum(len(completion.token_ids) for completion in completions)
        for output in outputs:
            check_output(output)
        return outputs


class _Stream(StreamingResponse):
    """Whatever ends the response, also a client that has left, ends the generation."""

    def __init__(
        self, generation: Generation, frames: AsyncIterator[bytes], media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(frames, media_type=media_type, headers={"Cache-Control": "no-cache", **headers})
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._generation.leave()


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises ClientLeft."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Returns when the client has closed its connection; the body was read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
