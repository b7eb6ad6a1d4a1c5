"""Headers that Ray Serve's proxy adds to every answer, and that an ingress therefore leaves out."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.serving.middleware import REQUEST_ID


class WithoutRequestId:
    """Leaves out the request's id, which the proxy gives to the request and tells its client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID]
            await send(message)

        await self._app(scope, receive, told)
