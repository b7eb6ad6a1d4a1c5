"""One call of the asynchronous engine, as its caller sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from types import TracebackType
from typing import Protocol, Self

from outrider.errors import OutriderError, RequestError
from outrider.outputs import Increment, Logprobs, RequestOutput
from outrider.params import SamplingParams
from outrider.sampling.grammar import Grammar

MAX_UNREAD = 1024
"""Increments of each of its sequences that a call may leave unread."""


class QueueFull(OutriderError):
    """The engine has as many sequences as it takes. retry_after: seconds until some have probably left."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[QueueFull], tuple[str, float]]:
        return type(self), (str(self), self.retry_after)  # a replica may have said it


class EngineStopped(OutriderError):
    """The engine is shutting down, or a fault that it could not confine has stopped it."""


class EngineFailed(OutriderError):
    """A step failed, and with it all requests that ran in it."""


@dataclass(frozen=True)
class Resumption:
    """What another engine has already told of a sequence. logprobs: one a token, where they are asked for."""

    token_ids: Sequence[int] = ()
    logprobs: Sequence[Logprobs] = ()


@dataclass(frozen=True)
class TextPrompt:
    """A prompt as the model reads it, and the text that it was made from, if it was text.

    said: what was told of each of its sequences elsewhere; they go on behind that. Empty: of none.
    """

    token_ids: Sequence[int]
    text: str | None = None
    said: Sequence[Resumption] = ()


News = tuple[int, Increment] | BaseException | None
"""What a generation is told: an increment of one of its prompts, what ended it, or its end."""


class Host(Protocol):
    """Where generations run: `outrider.engine.async_engine.AsyncEngine`."""

    async def enter(self, generation: Generation) -> None:
        """Queue it."""

    def leave(self, generation: Generation) -> None:
        """Give up what of it is not finished."""


@dataclass(eq=False)
class Generation:
    """One call: some prompts that share parameters. Made by `AsyncEngine.generate`.

    `async with` queues it, all prompts or none, and leaving gives up what is not finished. `async for` yields
    the number of a prompt and what a step added to it. `outputs`, one a prompt, are there afterwards.
    """

    engine: Host
    prompts: Sequence[TextPrompt]
    params: SamplingParams
    priority: int
    outputs: list[RequestOutput] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    """The engine's, one a prompt; of the engine's thread."""
    taken: dict[str, RequestOutput] = field(default_factory=dict)
    """Of the engine's thread."""
    inbox: asyncio.Queue[News] = field(default_factory=asyncio.Queue)
    grammar: Grammar | None = None
    """Of its structured outputs. While it is held, the engine's thread finds it compiled."""
    aborted: bool = False
    """Whether its requests are to end where they are; of the engine's thread."""
    queued: asyncio.Future[None] | None = None
    """Whether the engine has taken it, once it was asked."""
    replicas: list[str] = field(default_factory=list)
    """Who has answered, the last one last; nobody has a name where the engine is in this process."""
    given_up: Event = field(default_factory=Event)
    """Set once nobody waits for it any more, or the engine does no more for it."""

    @property
    def sequences(self) -> int:
        return len(self.prompts) * self.params.n

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def enter(self) -> None:
        """What `async with` does first; whoever calls it sees to it that `leave` is called."""
        await self.engine.enter(self)

    def leave(self) -> None:
        """What `async with` does in the end; a second time it does nothing."""
        self.engine.leave(self)

    def tell(self, news: News, unread: float) -> bool:
        """Put news where the caller reads them. False, with an error in place of all, where he does not read
        and the answer would fill the memory; the call is then to be given up. unread: increments of each of
        its sequences that may wait."""
        if self.inbox.qsize() < unread * self.sequences:
            self.inbox.put_nowait(news)
            return True
        while not self.inbox.empty():
            self.inbox.get_nowait()
        late = f"{unread} tokens of each sequence were not read, and the request was ended; read faster"
        self.inbox.put_nowait(RequestError(late))
        return False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Increment]:
        news = await self.inbox.get()
        if isinstance(news, BaseException):
            raise news
        if news is None:
            raise StopAsyncIteration
        return news
