"""When a request has to be over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from outrider.serving.errors import ApiError


@dataclass(frozen=True)
class Deadline:
    """at: of the event loop's clock; seconds: that were allowed, for the message."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(asyncio.get_running_loop().time() + seconds, seconds)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[asyncio.Timeout]:
        """Ends what it holds, with an ApiError, once time is up, which may be at once."""
        try:
            async with asyncio.timeout_at(self.at) as clock:
                if asyncio.get_running_loop().time() >= self.at:
                    raise TimeoutError  # what never waits would not be interrupted
                yield clock
        except TimeoutError:
            message = f"the request took longer than {self.seconds:g} s; ask for fewer tokens"
            raise ApiError(504, message, "server_error", code="timeout") from None
