"""The server's routes in front of replicas, which die where a test says; no Ray is needed for that."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from outrider import LLM
from outrider.cluster.engine import ReplicatedEngine
from outrider.cluster.news import ReplicaCall, ReplicaLost, ReplicaNews, Taken
from outrider.formats.format import Floats
from outrider.metrics import Metric
from outrider.serving.model import LocalEngine, ServedModel
from outrider.serving.ollama.card import Card
from outrider.serving.service import Service
from outrider.serving.settings import ServerConfig
from tests.engine.helpers import load
from tests.serving.harness import MODEL, Served, running, serving

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "the end of the end"}], "max_tokens": 40}


class LocalReplicas:
    """Engines in this process that take turns. lives: increments until the one that is asked dies, one a
    call; when they are used up, none dies any more."""

    def __init__(self, llms: Sequence[LLM]) -> None:
        self._engines = [LocalEngine(llm, queue=math.inf) for llm in llms]
        self._started = False
        self.lives: list[int] = []
        self.calls: list[ReplicaCall] = []

    async def send(self, call: ReplicaCall) -> AsyncGenerator[ReplicaNews, None]:
        if not self._started:
            self._started = True
            for engine in self._engines:
                engine.start()
        number = len(self.calls) % len(self._engines)
        self.calls.append(call)
        left = self.lives.pop(0) if self.lives else math.inf
        generation = self._engines[number].generate([call.prompt], call.params, priority=call.priority)
        async with generation:
            yield Taken(f"replica-{number}")
            async for _, increment in generation:
                if left <= 0:
                    raise ReplicaLost("it died")
                yield increment
                left -= 1
            yield generation.outputs[0]

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        return await self._engines[0].embed(token_ids)

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        told = [await engine.metrics({**labels, "replica": str(n)}) for n, engine in enumerate(self._engines)]
        return [metric for each in told for metric in each]

    async def card(self, name: str, modified: str) -> Card:
        return await self._engines[0].card(name, modified)


@contextmanager
def replicated(llms: Sequence[LLM]) -> Iterator[tuple[Served, LocalReplicas]]:
    """A server in front of replicas, and these."""
    replicas, config = LocalReplicas(llms), ServerConfig(model_name=MODEL, port=0)
    model = ServedModel.of(llms[0])
    service = Service(model, ReplicatedEngine(replicas, model, capacity=64), config)
    with serving(service, llms[0], replicas._engines[0]) as served:
        yield served, replicas


@pytest.fixture(scope="module")
def both(target: str, draft: str) -> Iterator[tuple[Served, LocalReplicas]]:
    """One that drafts, and one that does not, which changes no token."""
    with replicated([load(target, draft, num_speculative_tokens=3), load(target)]) as both:
        yield both


@pytest.fixture(scope="module")
def alone(target: str) -> Iterator[Served]:
    """A server without replicas."""
    with running(load(target)) as served:
        yield served


def chunks(served: Served, path: str, body: dict[str, Any]) -> list[Any]:
    events = served.post(path, **body, stream=True).content.decode().split("\n\n")
    return [json.loads(e.removeprefix("data: ")) for e in events if e and e != "data: [DONE]"]


SAMPLED = [
    {"temperature": 0},
    {"temperature": 1.0, "seed": 3, "logprobs": True, "top_logprobs": 2},
    {"temperature": 1.3, "seed": 4, "n": 3, "presence_penalty": 1.0},
    {"temperature": 1.0, "seed": 5, "stop": ["e t", "zzz"]},
    {"temperature": 1.0, "seed": 6, "response_format": {"type": "json_object"}, "max_tokens": 200},
]


@pytest.mark.parametrize("fields", SAMPLED)
@pytest.mark.parametrize("lives", [[1], [0, 3, 0, 5, 2]])
def test_a_stream_is_that_of_one_engine(
    both: tuple[Served, LocalReplicas], alone: Served, fields: dict[str, Any], lives: list[int]
) -> None:
    """Token for token, text, log-probabilities and ends included."""
    served, replicas = both
    body = CHAT | fields | {"return_token_ids": True}
    before = len(replicas.calls)
    replicas.lives = [*lives]
    assert _told(chunks(served, "/v1/chat/completions", body)) == _told(
        chunks(alone, "/v1/chat/completions", body)
    )
    assert len(replicas.calls) - before > 1
    replicas.lives = [*lives]
    again = served.post("/v1/chat/completions", **body)
    whole, expected = again.json(), alone.post("/v1/chat/completions", **body).json()
    assert whole["choices"] == expected["choices"]
    assert whole["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
    assert again.headers["x-outrider-replica"].count("replica-") > 1


def _told(chunks: list[Any]) -> Any:
    """What the chunks come to, a choice each."""
    told: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            of = told.setdefault(choice["index"], {"text": "", "tokens": [], "logprobs": [], "end": []})
            of["text"] += choice["delta"].get("content") or ""
            of["tokens"] += choice.get("token_ids") or []
            of["logprobs"] += (choice["logprobs"] or {}).get("content", [])
            of["end"] += [choice["finish_reason"]] if choice["finish_reason"] else []
    return told


def test_a_trace_says_which_replica_a_chunk_is_of(both: tuple[Served, LocalReplicas], alone: Served) -> None:
    served, replicas = both
    replicas.lives = [4]
    body = CHAT | {"temperature": 0, "speculation_trace": True}
    named = [chunk["replica"] for chunk in chunks(served, "/v1/chat/completions", body)]
    assert len(dict.fromkeys(named)) == 2
    assert named == sorted(named, key=named.index), "one after the other"
    assert all("replica" not in chunk for chunk in chunks(alone, "/v1/chat/completions", body))
    assert all("replica" not in chunk for chunk in chunks(served, "/v1/chat/completions", CHAT))


def test_other_routes(both: tuple[Served, LocalReplicas]) -> None:
    served, _ = both
    tokens = served.post("/tokenize", prompt="the end").json()["tokens"]
    assert served.post("/detokenize", tokens=tokens).json() == {"prompt": "the end"}
    assert served.http.get("/api/tags").json()["models"][0]["name"] == MODEL
    answer = served.post("/v1/responses", model=MODEL, input="the end", max_output_tokens=4)
    assert answer.status_code == 200
    assert answer.headers["x-outrider-replica"].startswith("replica-")
    told = served.post("/api/chat", model=MODEL, messages=CHAT["messages"], stream=False)
    assert told.json()["done"]


def test_what_an_engine_refuses_is_refused(both: tuple[Served, LocalReplicas], alone: Served) -> None:
    served, _ = both
    for body in ({"prompt": [1] * 5000}, {"prompt": "x", "allowed_token_ids": [10**6]}):
        ours, theirs = served.post("/v1/completions", **body), alone.post("/v1/completions", **body)
        assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
        assert ours.status_code == 400


def test_metrics_are_those_of_all_replicas(both: tuple[Served, LocalReplicas]) -> None:
    served, _ = both
    families = {f.name: f for f in text_string_to_metric_families(served.http.get("/metrics").text)}
    samples = families["outrider:generation_tokens"].samples
    assert [sample.labels["replica"] for sample in samples] == ["0", "1"]
    assert all(sample.value > 0 for sample in samples)
    assert len(families["outrider:inter_token_latency_seconds"].samples) % 2 == 0
