"""What drafters have in common that keep a paged cache of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from outrider.cache.table import BlockTable
from outrider.models.runner import PagedRunner

if TYPE_CHECKING:
    from outrider.engine.request import Request

Runner = TypeVar("Runner", bound=PagedRunner)


class OwnCache(Generic[Runner]):
    """A runner that is made when it is first needed, and a block table in its cache for each request."""

    def __init__(self, make: Callable[[], Runner]) -> None:
        self._make = make
        self._runner: Runner | None = None
        self._tables: dict[Request, BlockTable] = {}

    @property
    def runner(self) -> Runner:
        """What drafts, with its cache."""
        if self._runner is None:
            self._runner = self._make()
        return self._runner

    def end(self, request: Request) -> None:
        """Free the request's blocks."""
        table = self._tables.pop(request, None)
        if table is not None:
            table.truncate(0)

    def rest(self) -> None:
        """Free the cache; the next draft makes another."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None
        self._tables.clear()
