"""What a head gains that learns one domain.

python -m benchmarks.adapting [--tokens 200000] [--asked 48] [--rate 1.2e-3]

SmolLM2 answers questions about SQL, every other one greedily and the others at temperature 0.7, and its head
learns from the answers as `outrider serve --adapt` has it. Then both heads draft for other questions.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from outrider import LLM, CompletionOutput, SamplingParams, SpeculationStats
from outrider.adapting.messages import Passage, Setup
from outrider.adapting.process import lesson_of
from outrider.adapting.rounds import Rounds
from outrider.adapting.settings import AdaptConfig
from outrider.adapting.traffic import Traffic
from outrider.models.head_checkpoint import HeadCheckpoint, locate_head

TABLES = {
    "customers": ("id", "name", "email", "city", "country", "created_at", "status"),
    "orders": ("id", "customer_id", "order_date", "total", "status", "shipped_at"),
    "products": ("id", "name", "category", "price", "stock", "supplier_id"),
    "employees": ("id", "name", "department_id", "salary", "hired_on", "manager_id"),
    "departments": ("id", "name", "budget", "location"),
    "books": ("id", "title", "author_id", "year", "genre", "pages", "price"),
    "flights": ("id", "origin", "destination", "departs_at", "arrives_at", "carrier", "price"),
    "students": ("id", "name", "grade", "school_id", "birth_date", "score"),
    "movies": ("id", "title", "director", "year", "rating", "runtime"),
    "payments": ("id", "invoice_id", "amount", "paid_on", "method"),
    "sensors": ("id", "location", "kind", "installed_on", "last_value"),
    "tickets": ("id", "user_id", "subject", "priority", "opened_at", "closed_at"),
}
ASKED = (
    "Write a SQL query that lists the {a} and {b} of all rows of {t} where {c} is not null, ordered by {b}.",
    "Write a SQL query that counts the rows of {t} by {a}, largest first.",
    "Write a SQL query that finds the {n} rows of {t} with the highest {a}.",
    "Write a SQL query that returns the average {a} per {b} in {t}.",
    "Write SQL to create the table {t} with the columns {a}, {b} and {c}.",
    "Write a SQL statement that updates {a} in {t} for the row whose {b} is {n}.",
    "Write a SQL query joining {t} and {u} and showing {a} and {d}.",
    "Delete from {t} all rows where {a} is older than {n} days. Give the SQL statement and explain it.",
    "Explain what this does: SELECT {a}, COUNT(*) FROM {t} GROUP BY {a} HAVING COUNT(*) > {n};",
    "Write SQL to insert three rows into {t} with {a}, {b} and {c}.",
    "Write a SQL query with a subquery: rows of {t} whose {a} is above the average {a}.",
    "Write a SQL view on {t} that shows {a} and {b} for {c} = {n}.",
)
NUMBERS = (3, 5, 7, 10, 12, 30, 90, 100)
LEARNT, OTHERS = (1, 3000), (777, 400)
"""Seeds of the questions, and how many there are."""
TOGETHER = 32  # requests at a time
LENGTH = 4  # of drafts


def questions(seed: int, number: int) -> list[str]:
    draw, found = random.Random(seed), list[str]()
    for _ in range(number):
        t, u = draw.sample(sorted(TABLES), 2)
        a, b, c = draw.sample(TABLES[t], 3)
        d = draw.choice(TABLES[u])
        found.append(draw.choice(ASKED).format(t=t, u=u, a=a, b=b, c=c, d=d, n=draw.choice(NUMBERS)))
    return found


def answer(llm: LLM, asked: Sequence[str], params: Sequence[SamplingParams]) -> list[CompletionOutput]:
    outputs = llm.chat([[{"role": "user", "content": q}] for q in asked], list(params), use_tqdm=False)
    return [output.outputs[0] for output in outputs]


def traffic(tokens: int) -> list[Passage]:
    """What SmolLM2 says about SQL."""
    llm = LLM("smollm2", max_num_seqs=TOGETHER)
    layers = HeadCheckpoint(locate_head("head")).layers(llm.engine.target.model.config, "smollm2")
    kept: list[Passage] = []
    llm.engine.read_states(Traffic(sorted({*layers, llm.engine.target.model.config.num_layers}), kept.append))
    asked = questions(*LEARNT)
    while asked and sum(len(passage.tokens) for passage in kept) < tokens:
        params = [
            SamplingParams(temperature=0.0 if seed % 2 else 0.7, seed=seed, max_tokens=160)
            for seed in range(TOGETHER)
        ]
        answer(llm, asked[:TOGETHER], params)
        del asked[:TOGETHER]
    llm.shutdown()
    return kept


def drafted(head: str, asked: Sequence[str], temperature: float) -> tuple[float, list[tuple[int, ...]]]:
    """The acceptance length of a head's drafts, and the tokens."""
    llm = LLM("smollm2", speculative_model=head, num_speculative_tokens=LENGTH, max_num_seqs=TOGETHER)
    params = [SamplingParams(temperature=temperature, seed=n, max_tokens=96) for n in range(len(asked))]
    outputs = answer(llm, asked, params)
    llm.shutdown()
    stats = sum((output.speculation for output in outputs), SpeculationStats())
    return stats.acceptance_length, [output.token_ids for output in outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000, help="to learn from")
    parser.add_argument("--asked", type=int, default=48, help="other questions to measure with")
    parser.add_argument("--rate", type=float, default=AdaptConfig().learning_rate, help="of learning")
    given = parser.parse_args()
    config = AdaptConfig(memory=2**33, every=1, learning_rate=given.rate)
    head = locate_head("head")
    passages = traffic(given.tokens)
    rounds = Rounds(lesson_of(Setup("smollm2", None, head, 2, config)), config)
    for passage in passages:
        rounds.add(passage)
    found = rounds.train()
    sys.stdout.write(
        f"{found.tokens} tokens, {found.seconds:.0f} s of processor time: {found.before:.3f} -> "
        f"{found.after:.3f} on the latest traffic\n"
    )
    if found.tensors is None:
        return
    known = {*questions(*LEARNT)}
    others = [question for question in questions(*OTHERS) if question not in known][: given.asked]
    with TemporaryDirectory() as folder:
        HeadCheckpoint(head).with_tensors(found.tensors).save(Path(folder))
        for temperature in (0.0, 0.7):
            before, expected = drafted("head", others, temperature)
            after, tokens = drafted(folder, others, temperature)
            same = "the same tokens" if tokens == expected else "OTHER TOKENS"
            sys.stdout.write(f"temperature {temperature}: {before:.3f} -> {after:.3f}, {same}\n")


if __name__ == "__main__":
    main()
