"""Prompts as the token ids that every engine gets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, cycle, islice

from benchmarks.peers.base import CLIENT_PROMPT
from outrider.measurement.prompts import BUILT_IN, Conversation
from outrider.models.checkpoint import open_checkpoint


def token_ids(model: str, conversations: Sequence[Conversation]) -> list[list[int]]:
    """First turns, as the model's chat template lays them out."""
    tokenizer = open_checkpoint(model).tokenizer()
    template = tokenizer.chat_template
    assert template is not None, f"{model} has no chat template"
    texts = [
        template.render([{"role": "user", "content": each.turns[0]}], add_generation_prompt=True)
        for each in conversations
    ]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def long_prompt(model: str, tokens: int) -> list[int]:
    """The built-in prompts again and again, `tokens` tokens of them."""
    return list(islice(cycle(chain.from_iterable(token_ids(model, BUILT_IN))), tokens))


def client_prompts(model: str, clients: int) -> list[list[int]]:
    """A prompt for each client: pieces of the long one that begin at places of their own."""
    text = long_prompt(model, CLIENT_PROMPT + clients)
    return [text[client : client + CLIENT_PROMPT] for client in range(clients)]
