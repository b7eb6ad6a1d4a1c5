"""The playground: a page of static files that come with the package."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).with_name("playground")
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # What a model says is shown as text. Should any of it ever get into the page as code, nothing runs it,
    # and nothing of the conversation can be sent elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> APIRouter:
    """`/` and what its page loads. The files are read once; no other file can be asked for."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES}

    def answer(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"the playground has no file {name!r}")
        return Response(files[name], media_type=TYPES[Path(name).suffix], headers=HEADERS)

    @router.get("/")
    async def index() -> Response:
        return answer(INDEX)

    @router.get("/playground/{name:path}")
    async def file(name: str) -> Response:
        return answer(name)

    return router
