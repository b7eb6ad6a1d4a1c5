"""Conversations to measure with: a few built in, or a file in the form of Spec-Bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from outrider.errors import ConfigError

T = TypeVar("T")

REPORT = """\
Acme Ltd sold 1,240 pumps in March, 1,310 in April and 1,655 in May. Revenue was 62,000 euros in March, \
65,500 euros in April and 82,750 euros in May. The sales manager, Jo Lind, said that the new distributor in \
Oslo explains most of the growth, and that the price per pump will stay at 50 euros until the autumn."""
FUNCTION = """def total_price(items):
    total = 0
    for item in items:
        total = total + item.price * item.quantity
    return total"""


@dataclass(frozen=True)
class Conversation:
    """User turns that are asked one after the other, each after the model's answer to the one before."""

    category: str
    turns: tuple[str, ...]


BUILT_IN: tuple[Conversation, ...] = (
    Conversation(
        "code", (f"Add a docstring to this function and print it again:\n```python\n{FUNCTION}\n```",)
    ),
    Conversation("json", (f"Copy the sales figures of this report into a JSON list of objects.\n{REPORT}",)),
    Conversation("rewriting", (f"Repeat this report word for word, but in capital letters.\n{REPORT}",)),
    Conversation("summary", (f"Summarise this report in two sentences.\n{REPORT}",)),
    Conversation("open", ("Write a short market report about electric bicycles in Europe.",)),
)


@validated(config=ConfigDict(extra="ignore"))
class SpecBenchLine:
    """The fields of a Spec-Bench line that are used."""

    turns: tuple[str, ...]
    category: str = "other"


def read_conversations(path: Path, *, limit: int | None = None) -> tuple[Conversation, ...]:
    """JSON lines with `turns` and, if there are kinds of them, `category`; at most `limit` of each category.

    Raises ConfigError that names the file and the line.
    """
    adapter = TypeAdapter(SpecBenchLine)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompts file {str(path)!r} cannot be read: {error}") from error
    taken: dict[str, int] = {}
    conversations = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed = adapter.validate_json(line)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(
                f"{path}, line {number}: {reason}; give a JSON object with 'turns' and, if any, 'category'"
            ) from None
        if not parsed.turns or not all(parsed.turns):
            raise ConfigError(f"{path}, line {number}: 'turns' needs at least one text, none of them empty")
        taken[parsed.category] = taken.get(parsed.category, 0) + 1
        if limit is None or taken[parsed.category] <= limit:
            conversations.append(Conversation(parsed.category, parsed.turns))
    if not conversations:
        raise ConfigError(f"prompts file {str(path)!r} holds no prompts")
    return tuple(conversations)


def categories(conversations: Sequence[Conversation]) -> list[str]:
    """The categories, in order of their first conversation."""
    return list(dict.fromkeys(c.category for c in conversations))


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive runs of at most `size` items."""
    return [items[i : i + size] for i in range(0, len(items), size)]
