"""No request goes on with another model than the one that its prompt was read for; Ray is not started."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from outrider import SamplingParams
from outrider.cluster.identity import identity_of
from outrider.cluster.news import Described, NotServed, OtherModel, ReplicaCall, ReplicaNews, Taken
from outrider.cluster.resuming import resuming
from outrider.engine.generation import Resumption, TextPrompt
from outrider.outputs import RequestOutput
from tests.cluster.fakes import DyingReplicas, no_pause
from tests.engine.helpers import load

try:
    from outrider.cluster.replicas import Replica
    from outrider.cluster.router import MODEL, PrefixRouter
except Exception as error:  # whatever Ray meets in packages beside it
    pytest.skip(f"Ray cannot be imported (extra 'cluster'): {error!r}", allow_module_level=True)

CALL = ReplicaCall(TextPrompt([1, 2, 3]), SamplingParams(seed=5, max_tokens=4), 0, ())


@pytest.fixture
def _context(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Serve tells an actor of itself."""
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="a"))
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)


@pytest.mark.usefixtures("_context")
def test_a_replica_serves_its_own_model_alone(target: str, draft: str) -> None:
    own, other = identity_of(load(target)), identity_of(load(draft))

    async def run() -> None:
        replica = Replica(target, {"device": "cpu"}, "1")
        assert replica.record_replica_metadata() == {MODEL: own}
        described = await replica.describe("1")
        assert isinstance(described, Described)
        assert described.identity == own
        assert await replica.describe("2") is None

        async def told(model: str) -> list[ReplicaNews]:
            said = Resumption((7,)) if model == other else Resumption()
            call = ReplicaCall(TextPrompt([1, 2, 3], said=(said,)), CALL.params, 0, ())
            return [news async for news in replica.generate(call, model=model)]

        first, *_, last = await told(own)
        assert first == Taken("a")
        assert isinstance(last, RequestOutput)
        (refused,) = await told(other)
        assert isinstance(refused, NotServed)
        assert isinstance(refused.error, OtherModel)
        embedded = await replica.embed([1], model=other)
        assert isinstance(embedded, NotServed)
        assert isinstance(embedded.error, OtherModel)
        with pytest.raises(OtherModel):
            await replica.card("m", "", model=other)

    asyncio.run(run())


def test_a_stream_that_cannot_go_on_says_so() -> None:
    class Replaced(DyingReplicas):
        """After the first replica there is another model alone."""

        async def send(self, call: ReplicaCall) -> Any:
            if self.calls:
                yield NotServed(OtherModel("the model has been replaced by another one"))
            async for news in super().send(call):
                yield news

    told: list[Any] = []

    async def listen() -> None:
        async for news in resuming(Replaced([3]), CALL, taken=lambda _: None, pause=no_pause):
            told.append(news)

    with pytest.raises(OtherModel, match="replaced by another"):
        asyncio.run(listen())
    assert len(told) == 3


def test_a_router_chooses_who_has_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much less others have to do. Where nobody has it, whoever is asked refuses."""
    router = PrefixRouter.__new__(PrefixRouter)
    router.initialize_state()

    async def loads(replicas: list[Any]) -> dict[str, int]:
        return {each.replica_id.unique_id: int(each.replica_metadata[MODEL] == "old") for each in replicas}

    monkeypatch.setattr(router, "_loads", loads)
    there: Any = [
        SimpleNamespace(
            replica_id=SimpleNamespace(unique_id=f"{model}-{number}"), replica_metadata={MODEL: model}
        )
        for model in ("old", "new")
        for number in range(2)
    ]

    def chosen(model: str) -> set[str]:
        pending: Any = SimpleNamespace(args=[CALL], kwargs={MODEL: model})
        ranks = asyncio.run(router.choose_replicas(there, pending))
        return {each.replica_id.unique_id for rank in ranks for each in rank}

    assert chosen("old") == {"old-0", "old-1"}
    assert chosen("new") == {"new-0", "new-1"}
    assert len(chosen("gone")) == 4
