"""A draft model in a language that it does not know: it is not asked, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from outrider.drafting import language
from outrider.drafting.costs import DraftCost
from outrider.drafting.language import knows
from outrider.drafting.text import Speaker, Translation
from outrider.models.checkpoint import locate, open_checkpoint
from outrider.models.spelling import Spelling
from tests.fakes import Player, World, stub, target_cost

if TYPE_CHECKING:
    from outrider.engine.request import Request

READ, ANSWER = 40, 20
COST = DraftCost(1e-3, 1e-4, catch_up=5e-4)
"""To read a prompt takes as long as two steps."""


@pytest.fixture(scope="module")
def smollm2() -> Speaker:
    checkpoint = open_checkpoint(str(locate("smollm2")))
    config = checkpoint.config
    return Speaker("smollm2", checkpoint.tokenizer(), config.vocab_size, config.eos_token_ids)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Write a short mail to a colleague that the meeting is moved to Thursday.", True),
        ("Write a SQL query that lists customers without any order in the last year.", True),
        ("def total(prices):\n    return sum(price for price in prices if price > 0)", True),
        ("Quelle est la capitale de la France ?", False),
        ("Escribe un correo corto a mi jefe para pedir un día libre.", False),
        ("Schreibe eine kurze Mail an meine Kollegin.", False),
        ("Ответь одним предложением: какая столица России?", False),
        ("请用中文 简单介绍一下 机器学习。", False),
        ("3.14159 26535 8979", None),
        ("Bonjour", None),
    ],
)
def test_a_language_is_told_by_how_many_tokens_words_take(
    smollm2: Speaker, text: str, known: bool | None
) -> None:
    assert knows(Spelling(smollm2.tokenizer, smollm2.rows), text) is known


@pytest.mark.parametrize(
    ("messages", "known"),
    [
        (("You are a helpful assistant.", "Quelle est la capitale de la France ?"), False),
        (("Quelle est la capitale de la France ?", "Write a haiku in English, please."), True),
        (("Quelle est la capitale de la France ?", "1 + 1 = ?"), False),
        (("1 + 1 = ?",), True),
        (("Quelle est la capitale ? " * 40, "1 " * 200), False),
    ],
)
def test_the_last_message_counts(smollm2: Speaker, messages: tuple[str, ...], known: bool) -> None:
    """The last one of some words; where there is none, nothing is held against the draft."""
    turns = [{"role": "user", "content": message} for message in messages]
    tokens = smollm2.tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    assert isinstance(tokens, list)
    assert Translation(smollm2, smollm2).is_known(tokens) == known


@dataclass
class Monoglot(Player):
    """A player that knows the language of requests of even numbers."""

    def knows(self, request: Request) -> bool:
        return int(request.id) % 2 == 0


def answered(chance: Callable[[Request], float], numbers: range, **player: float) -> World:
    """Short answers, one after the other, each of a prompt that has to be read."""
    world = World([Monoglot(COST, chance, unread=READ)])
    for number in numbers:
        request = stub(number, room=1000)
        before = world.tokens
        while world.tokens < before + ANSWER:
            world.step([request])
        world.policy.end(request)
    return world


def slower(world: World) -> float:
    """By how much, in steps without drafts."""
    step = target_cost().one_pass(1)
    return (world.seconds - world.tokens * step) / step


def test_short_answers_in_a_language_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stands. A drafter that is asked all the same reads each prompt for nothing."""
    world = answered(lambda _: 0.05, range(1, 200, 2))
    assert slower(world) < 0.01 * world.tokens
    monkeypatch.setattr(language, "UNKNOWN", 0.6)
    assert slower(answered(lambda _: 0.05, range(1, 7, 2))) > 3


def test_what_it_knows_is_drafted_at_once_whatever_became_of_others() -> None:
    def chance(request: Request) -> float:
        return 0.05 if int(request.id) % 2 else 0.8

    world = answered(chance, range(100))
    alone = answered(chance, range(0, 100, 2))
    assert slower(alone) < 0
    assert slower(world) < 0.9 * slower(alone)


def test_one_that_knows_more_than_it_seemed_is_found_out() -> None:
    """By trials, which are a small share of the time."""
    world = answered(lambda _: 0.8, range(1, 400, 2))
    asked = [bool(drafts[0].tokens) for drafts in world.drafts]
    assert sum(asked[-200:]) > 100
