"""What users ask: about topics, code, problems and texts; the target completes what is only begun."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from outrider.training.openers import OPENERS

PROMPTS: Mapping[str, list[str]] = json.loads(
    (Path(__file__).parent / "prompts.json").read_text(encoding="utf-8")
)
LONGEST = 3600  # characters of a text that a prompt is about


@dataclass(frozen=True)
class Turn:
    """A user's turn. begun: the target writes the rest of it first."""

    text: str
    begun: bool = False


@dataclass(frozen=True)
class Texts:
    """What prompts are about: articles and passages in English, sentences in German. Any may be empty."""

    articles: Sequence[str] = ()
    passages: Sequence[str] = ()
    german: Sequence[str] = ()

    @classmethod
    def read(cls, path: Path) -> Texts:
        """From a JSON object of three lists."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def user_turn(draw: Random, texts: Texts, answers: Sequence[str]) -> Turn:
    """answers: what the target has said to others; it stands in for texts that are not there."""
    kind = draw.random()
    if kind < 0.20:
        return Turn(draw.choice(OPENERS), begun=True)
    if kind < 0.43:
        return Turn(_filled(draw, "about_topics" if kind < 0.38 else "short"))
    if kind < 0.49:
        return Turn(draw.choice(PROMPTS["about_code"]).format(c=draw.choice(PROMPTS["tasks_of_code"])))
    if kind < 0.61:
        return _problem(draw)
    if kind < 0.72 and texts.german:
        return Turn(draw.choice(PROMPTS["translations"]).format(x=draw.choice(texts.german)))
    if kind < 0.80 or not (texts.articles or texts.passages or answers):
        question = draw.choice(PROMPTS["questions"])
        return Turn(question if draw.random() < 0.8 else question.capitalize(), begun=True)
    if kind < 0.91:
        several = 1 if draw.random() < 0.7 else 2
        text = "\n\n".join(_text(draw, texts, answers) for _ in range(several))
        return Turn(draw.choice(PROMPTS["about_a_text"]).format(x=text[:LONGEST]))
    passages = "\n\n".join(_text(draw, texts, answers)[:900] for _ in range(draw.randint(1, 4)))
    return Turn(draw.choice(PROMPTS["about_passages"]).format(x=passages[:LONGEST]), begun=True)


def follow_up(draw: Random) -> str:
    """How the user's next turn begins."""
    return draw.choice(PROMPTS["follow_ups"])


def _text(draw: Random, texts: Texts, answers: Sequence[str]) -> str:
    kinds = [kind for kind in (answers, texts.articles, texts.passages) if kind]
    return draw.choice(draw.choice(kinds))


def _filled(draw: Random, templates: str) -> str:
    topic, other = draw.sample(PROMPTS["topics"], 2)
    return draw.choice(PROMPTS[templates]).format(
        t=topic,
        u=other,
        T=topic[0].upper() + topic[1:],
        j=draw.choice(PROMPTS["jobs"]),
        p=draw.choice(PROMPTS["places"]),
        f=draw.choice(PROMPTS["foods"]),
        w=draw.choice(PROMPTS["words"]),
    )


def _problem(draw: Random) -> Turn:
    """A word problem, or its beginning."""
    n, m, k = draw.randint(2, 90), draw.randint(2, 30), draw.randint(2, 12)
    a, b = draw.sample(PROMPTS["names"], 2)
    x, y = draw.sample(PROMPTS["things"], 2)
    whole = (
        f"{a} has {n} {x}. {b} gives {a} {m} more. How many {x} does {a} have now?",
        f"{a} buys {k} {x} for ${m} each and {m} {y} for ${k} each. How much does {a} spend in total?",
        f"A train travels {n} miles in {k} hours. How far does it travel in {m} hours at the same speed?",
        f"{a} reads {m} pages a day. A book has {n * k} pages. How many days does {a} need to read it?",
        f"{a} is {m} years older than {b}. {b} is {n} years old. How old will {a} be in {k} years?",
        f"A store sells {x} at ${m} each. On Monday it sold {n}, and on Tuesday {k} times as many. How much "
        "money did it make on both days?",
        f"{a} had ${n * 3}. {a} spent half of it on {x} and ${m} on {y}. How much money is left?",
        f"What is {n} + {m} * {k}?",
        f"Solve for x: {k}x + {m} = {n + m}.",
        f"Calculate {draw.randint(5, 95)}% of {n * 10}.",
        f"Find the area of a rectangle with sides {n} and {m}.",
        f"Given that f(x) = {k}x^2 - {m}x + {n}, find the value of f({draw.randint(1, 6)}).",
    )
    begun = (
        f"{a} has {n} {x}.",
        f"{a} bought {n}",
        f"{a} and {b} are",
        f"A farmer has {n}",
        f"Each week {a}",
        f"{a} earns ${m}",
        f"A car travels at {n}",
        f"If {a} has",
        f"{a} sold {n} {x}",
        f"A company has {n * 10} employees.",
    )
    return Turn(draw.choice(whole)) if draw.random() < 0.5 else Turn(draw.choice(begun), begun=True)
