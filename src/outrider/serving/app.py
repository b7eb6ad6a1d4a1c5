"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from outrider import __version__
from outrider.serving import embeddings, errors, generation, information, pages
from outrider.serving.calls import REPLICA
from outrider.serving.messages import routes as messages
from outrider.serving.middleware import (
    IGNORED,
    REQUEST_ID,
    HeadAsGet,
    LimitBody,
    LimitTime,
    RequestLog,
    RequireKey,
)
from outrider.serving.ollama import routes as ollama
from outrider.serving.origins import OwnPagesOnly, names_of
from outrider.serving.responses import routes as responses
from outrider.serving.service import Service


def build_app(service: Service) -> FastAPI:
    """The application that serves `service`; its engine runs from the application's start to its end.

    Its description is at `/openapi.json`. FastAPI's pages that show it are left out: they load scripts from
    elsewhere.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        await service.engine.close()

    app = FastAPI(
        title="Outrider",
        version=__version__,
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would tell whatever name the client gave as the server's
    )
    app.include_router(generation.routes(service))
    for api in (responses, messages, ollama):
        app.include_router(api.routes(service))
    app.include_router(embeddings.routes(service))
    app.include_router(information.routes(service))
    app.include_router(pages.routes())
    errors.install(app)
    # The last that is added is the first that a request passes.
    config = service.config
    app.add_middleware(LimitBody, limit=config.max_body_size, seconds=config.body_timeout)
    app.add_middleware(LimitTime, seconds=config.request_timeout)
    if config.api_keys:
        app.add_middleware(RequireKey, keys=[key.get_secret_value() for key in config.api_keys])
    app.add_middleware(HeadAsGet)
    app.add_middleware(
        OwnPagesOnly, names=names_of(config.host, config.allowed_hosts, config.allowed_origins)
    )
    app.add_middleware(RequestLog, count=service.metrics.answered, strict=config.strict)
    if config.allowed_origins:
        # Around all others, so that a page can read every answer, also one that tells of an error.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=["DELETE", "GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID, IGNORED, REPLICA, "retry-after"],
        )
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """FastAPI describes its own form of errors, with status 422; here it is 400, in OpenAI's form."""
    described: dict[str, Any] = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for path in described["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        described.get("components", {}).get("schemas", {}).pop(name, None)
    app.openapi_schema = described
