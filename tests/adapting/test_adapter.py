"""Versions of a head that come and go while its engine serves."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outrider import SamplingParams
from outrider.adapting.live import LiveCheck
from outrider.adapting.messages import GoBack, Passage
from outrider.adapting.settings import AdaptConfig
from outrider.engine.scheduler import Schedule
from outrider.engine.seam import StepEngine
from outrider.engine.verify import Judged
from outrider.engine.watcher import Watcher
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.outputs import Increment
from tests.adapting.helpers import Adapting, adapting, head_of, round_of, scaled
from tests.engine.helpers import BLOCK, PROMPTS, expected
from tests.serving.harness import until
from tests.watchers import check, record

SAMPLED = SamplingParams(temperature=0.8, seed=3, max_tokens=60, ignore_eos=True)
GREEDY = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)


def plain(target: str, params: SamplingParams) -> list[tuple[int, ...]]:
    return [expected(target, prompt, params).outputs[0].token_ids for prompt in PROMPTS]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("blocks", [None, 14], ids=["roomy", "preempted"])
def test_tokens_stay_the_same_while_versions_change(
    target: str, head: str, params: SamplingParams, blocks: int | None
) -> None:
    """In every third step another one, of which every other one is useless."""
    options: dict[str, Any] = {}
    if blocks is not None:
        options = {"kv_cache_memory": blocks * (BLOCK + BLOCK // 2), "max_model_len": 150}
    with adapting(target, head, **options) as running:
        engine, recorded = running.llm.engine, record(running.llm)
        ids = [engine.add(prompt, params) for prompt in PROMPTS]
        steps = version = 0
        while engine.unfinished:
            if steps % 3 == 0:
                version += 1
                running.offer(version, -1.0 if version % 2 else 1.0)
                until(lambda: not running.orders.waiting.empty())
            running.step()
            steps += 1
        outputs = [engine.take(request_id) for request_id in ids]
        assert [output.outputs[0].token_ids for output in outputs] == plain(target, params)
        assert version > 5
        assert running.adapter.figures["adapt_exchanges"] == version
        assert running.adapter.figures["head_version"] == version
        assert any(recorded.preempted) == (blocks is not None)
        assert any(increment.accepted for increment in recorded.increments)


def test_a_version_that_takes_over_drafts(target: str, head: str) -> None:
    """From the next step on, with the cache of running requests."""
    with adapting(target, head) as running:
        recorded = record(running.llm)
        engine = running.llm.engine
        request_id = engine.add(PROMPTS[0], GREEDY)
        for _ in range(8):
            running.step()
        before = sum(increment.accepted for increment in recorded.increments)
        assert before
        running.offer(1, -1.0)
        until(lambda: not running.orders.waiting.empty())
        assert running.adapter.figures["head_version"] == 0
        recorded.increments.clear()
        while engine.unfinished:
            running.step()
        assert running.adapter.figures["head_version"] == 1
        assert sum(increment.drafted for increment in recorded.increments)
        assert not sum(increment.accepted for increment in recorded.increments)
        engine.take(request_id)


class Loaded(Watcher):
    """Looks at the trainer in every moment of every step."""

    def __init__(self, running: Adapting) -> None:
        self._running = running
        self.looks = 0

    def _look(self) -> None:
        self.looks += 1
        check(self._running.trainer.held, "the trainer runs while the engine computes")

    def scheduled(self, schedule: Schedule) -> None:
        self._look()

    def verified(self, judged: Sequence[Judged]) -> None:
        self._look()

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        if engine.unfinished:
            self._look()


def test_a_loaded_server_does_not_train(target: str, head: str) -> None:
    """Not for a moment, however long it is; afterwards it does, until the next request."""
    with adapting(target, head) as running:
        until(lambda: not running.trainer.held)  # before the first request
        watcher = Loaded(running)
        running.llm.engine.watchers.append(watcher)
        for rounds in (1, 2):
            running.run(PROMPTS * 3, GREEDY)
            assert watcher.looks > 60 * rounds
            until(lambda: not running.trainer.held)
            assert running.trainer.releases == 1 + rounds


def test_a_request_that_is_given_up_leaves_an_idle_server(target: str, head: str) -> None:
    with adapting(target, head) as running:
        engine = running.llm.engine
        request_id = engine.add(PROMPTS[0], GREEDY)
        for _ in range(3):
            running.step()
        assert running.trainer.held
        engine.discard(request_id)
        until(lambda: not running.trainer.held)


def test_a_server_that_embeds_does_not_train(target: str, head: str) -> None:
    """It counts as idle again some time after the last text."""
    with adapting(target, head, config=AdaptConfig(idle=3600), pooling="mean") as running:
        running.trainer.held = False
        running.llm.embed([PROMPTS[0]])
        assert running.trainer.held
    with adapting(target, head, pooling="mean") as running:
        running.llm.embed([PROMPTS[0]])
        until(lambda: not running.trainer.held)


def test_with_cores_of_its_own_it_always_trains(target: str, head: str) -> None:
    with adapting(target, head, config=AdaptConfig(cores=1)) as running:
        until(lambda: not running.trainer.held)
        running.run(PROMPTS, GREEDY)
        assert running.trainer.releases == 1
        until(lambda: len(running.trainer.sent) == len(PROMPTS))


def test_traffic_that_waits_is_bounded(target: str, head: str) -> None:
    """While the trainer may not work, the latest is kept."""
    with adapting(target, head, config=AdaptConfig(memory=300_000, idle=3600)) as running:
        outputs = running.run(PROMPTS * 4, GREEDY)
        assert 0 < running.adapter.waiting_bytes <= 300_000 // 8
        assert not running.trainer.sent
        waiting = list(running.adapter._waiting)
        assert sum(passage.nbytes for passage in waiting) == running.adapter.waiting_bytes
        assert waiting[-1].tokens[-1] in outputs[-1]


def test_all_that_was_said_is_handed_over(target: str, head: str) -> None:
    with adapting(target, head) as running:
        running.run(PROMPTS, GREEDY)
        until(lambda: len(running.trainer.sent) == len(PROMPTS))
        assert all(isinstance(message, Passage) for message in running.trainer.sent)
        assert running.adapter.waiting_bytes == 0
        width = running.trainer.sent[0].states.shape[1]
        assert width == 48 * len({*head_of(running.llm).state_layers, 2})


def test_a_worse_version_is_taken_back(target: str, head: str, tmp_path: Path) -> None:
    """Trusted by the trainer, planted: its drafts never stand, so the one before it drafts again."""
    saved = tmp_path / "saved"
    config = AdaptConfig(idle=0.0, save=saved)
    with adapting(target, head, live=LiveCheck(drafts=150), config=config) as running:
        figures = running.adapter.figures
        running.run(PROMPTS, GREEDY)
        running.offer(1, -1.0)
        until(lambda: not running.orders.waiting.empty())
        until(lambda: (saved / "config.json").is_file())
        worse = HeadCheckpoint(saved).stored["lm_head.weight"].floats()
        assert running.run(PROMPTS, GREEDY) == plain(target, GREEDY)
        assert figures["adapt_exchanges"] == 1
        assert figures["adapt_rollbacks"] == 1
        assert figures["head_version"] == 0
        until(lambda: GoBack(1) in running.trainer.sent)
        loaded = HeadCheckpoint(Path(head)).stored["lm_head.weight"].floats()
        assert np.array_equal(worse, -loaded)
        until(lambda: np.array_equal(HeadCheckpoint(saved).stored["lm_head.weight"].floats(), loaded))
        recorded = record(running.llm)
        running.run(PROMPTS, GREEDY)
        assert any(increment.accepted for increment in recorded.increments)


def test_a_version_that_drafts_as_well_stays(target: str, head: str) -> None:
    with adapting(target, head, live=LiveCheck(drafts=150)) as running:
        running.run(PROMPTS, GREEDY)
        running.offer(1, 1.0)
        until(lambda: not running.orders.waiting.empty())
        running.run(PROMPTS, GREEDY)
        assert running.adapter.figures["adapt_rollbacks"] == 0
        assert running.adapter.figures["head_version"] == 1
        assert running.adapter._before is None  # its memory is free


def test_a_round_without_a_better_head_changes_nothing(target: str, head: str) -> None:
    with adapting(target, head) as running:
        running.trainer.says.put(round_of(None, 0))
        figures = running.adapter.figures
        until(lambda: figures["adapt_rounds"] == 1)
        assert figures["adapt_tokens"] == 100
        assert figures["adapt_seconds"] == 1.5
        assert figures["adapt_acceptance_length_before"] == 2.0
        assert figures["adapt_acceptance_length_after"] == 2.5
        assert running.orders.waiting.empty()


def test_what_is_learnt_is_saved_and_can_be_loaded(target: str, head: str, tmp_path: Path) -> None:
    """In place of what was there, in the public layout."""
    saved = tmp_path / "saved"
    shutil.copytree(head, saved)
    with adapting(target, head, config=AdaptConfig(idle=0.0, save=saved)) as running:
        running.offer(1, 2.0)
        stored = HeadCheckpoint(Path(head)).stored["lm_head.weight"].floats()
        until(lambda: np.array_equal(HeadCheckpoint(saved).stored["lm_head.weight"].floats(), 2 * stored))
    assert {file.name for file in saved.iterdir()} == {"config.json", "model.safetensors"}
    with adapting(target, str(saved)) as running:
        assert running.run(PROMPTS, GREEDY) == plain(target, GREEDY)


def test_a_head_that_cannot_be_used_is_told(target: str, head: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of another shape, planted: the one that there is goes on."""
    with adapting(target, head) as running, caplog.at_level(logging.ERROR):
        broken = scaled(head, 1.0)
        broken["fc.weight"] = broken["fc.weight"][:, :-16]
        running.trainer.says.put(round_of(broken, 1))
        until(lambda: bool(caplog.records))
        assert running.run(PROMPTS, GREEDY) == plain(target, GREEDY)
        assert running.adapter.figures["head_version"] == 0


def test_the_end_of_the_trainer_ends_nothing_else(
    target: str, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    with adapting(target, head) as running, caplog.at_level(logging.WARNING):
        running.offer(1, 1.0)
        until(lambda: not running.orders.waiting.empty())
        running.step()
        running.trainer.says.put(EOFError())
        until(lambda: bool(caplog.records))
        assert caplog.records[0].getMessage() == (
            "the head learns no more: the training process was ended by signal 9 (SIGKILL); the server goes "
            "on with version 1"
        )
        until(lambda: running.trainer.closed)
        assert running.adapter.figures["adapt_running"] == 0
        assert running.run(PROMPTS, GREEDY) == plain(target, GREEDY)
        assert running.adapter.waiting_bytes == 0
