"""Responses that are kept in memory, for those that go on with them and for who asks for them again."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from outrider.serving.errors import ApiError
from outrider.serving.responses.bodies import Item, Reference

MOST_RESPONSES = 1024
MOST_BYTES = 2**26
"""The JSON of all that is kept. A conversation counts in each of its responses."""
AS_ITEMS: TypeAdapter[tuple[Item, ...]] = TypeAdapter(tuple[Item, ...])


@dataclass(frozen=True)
class Kept:
    """response: as it was told; conversation: all its items up to its end, without instructions; size: bytes
    that it counts."""

    response: dict[str, Any]
    conversation: tuple[Item, ...]
    size: int


class ResponseStore:
    """The latest responses; beyond the bounds, those that were used least lately are forgotten."""

    def __init__(self, most_responses: int = MOST_RESPONSES, most_bytes: int = MOST_BYTES) -> None:
        self._most_responses, self._most_bytes = most_responses, most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0

    def keep(self, response: dict[str, Any], conversation: Sequence[Item]) -> None:
        """Keep a response. conversation: what it answers."""
        items = (*conversation, *AS_ITEMS.validate_python(tuple(response["output"])))
        size = len(json.dumps(response)) + len(AS_ITEMS.dump_json(items))
        self._kept[response["id"]] = Kept(response, items, size)
        self._size += size
        while len(self._kept) > self._most_responses or self._size > self._most_bytes:
            self._size -= self._kept.popitem(last=False)[1].size

    def get(self, response_id: str, param: str | None = None) -> Kept:
        """Raises ApiError for one that is not kept. param: the field that names it."""
        try:
            self._kept.move_to_end(response_id)
        except KeyError:
            message = f"there is no response {response_id!r}: it was not stored, was deleted, or is too old"
            raise ApiError(404, message, param=param, code="response_not_found") from None
        return self._kept[response_id]

    def delete(self, response_id: str) -> None:
        """Raises ApiError for one that is not kept."""
        self._size -= self.get(response_id).size
        del self._kept[response_id]

    def resolved(self, items: Iterable[Item]) -> list[Item]:
        """The items, with those that are referred to in place of the references. Raises ApiError."""
        return [self._referred(item.id) if isinstance(item, Reference) else item for item in items]

    def _referred(self, item_id: str) -> Item:
        for kept in reversed(self._kept.values()):
            for item in kept.conversation:
                if not isinstance(item, Reference) and item.id == item_id:
                    return item
        raise ApiError(404, f"there is no item {item_id!r}; send the item itself", param="input")
