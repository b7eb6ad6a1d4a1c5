"""The recipe of SmolLM2's head, on a tiny target."""

from __future__ import annotations

import importlib.util
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from examples.smollm2_head import attention
from examples.smollm2_head.__main__ import frequent, keep, main, read
from examples.smollm2_head.batches import OnTheFly
from examples.smollm2_head.prompts import Texts, user_turn
from examples.smollm2_head.target import Target
from examples.smollm2_head.writer import Conversation, Lengths, Writer
from outrider import LLM, SamplingParams
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.head_config import HeadConfig
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend
from outrider.training.batches import epoch
from outrider.training.conversations import Layout
from outrider.training.head_lesson import HeadLesson
from outrider.training.teacher import Teacher
from outrider.training.trainer import Recipe, Trainer
from tests.factories import tiny_config, write_model

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICE = torch.device("cpu")
ROWS = 12


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("target")
    write_model(folder, tiny_config(hidden_size=64, intermediate_size=96, head_dim=16))
    return folder


@pytest.fixture(scope="module")
def checkpoint(path: Path) -> Checkpoint:
    return open_checkpoint(str(path))


def engine_pass(checkpoint: Checkpoint, tokens: list[int], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the inputs of a layer."""
    model = Model(checkpoint, TorchBackend("cpu", "float32"))
    runner = ModelRunner(model, num_blocks=2, block_size=16, prefix_caching=False, state_layers=(layer,))
    table = runner.table()
    table.extend(len(tokens))
    passed = runner.run([Span(tokens, 0, table.tables, len(tokens))])
    assert passed.kept is not None
    return torch.from_numpy(passed.logits), passed.kept


def test_the_target_is_the_engines(checkpoint: Checkpoint) -> None:
    """Whole sequences and token by token, padded and at places of their own."""
    target = Target(checkpoint, 32, DEVICE, torch.float32)
    tokens = [[7 + i for i in range(ROWS)], [90 - 2 * i for i in range(ROWS)]]
    expected = [engine_pass(checkpoint, one, 1) for one in tokens]
    cache, slots = target.cache(3), torch.tensor([2, 0])
    kept, last = target.whole(torch.tensor(tokens), keep=(1,), cache=cache, slots=slots)
    found = target.normed(last, target.norm) @ target.output.T
    for row, (logits, states) in enumerate(expected):
        torch.testing.assert_close(kept[0][row], states, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[row], logits, rtol=1e-4, atol=1e-4)
    at = torch.tensor([5, 0, 9])  # of slot 0 the second sequence's sixth token, of slot 2 the first's tenth
    again = torch.tensor([tokens[1][5], 0, tokens[0][9]])
    stepped = target.step(again, at, cache, attention.in_torch)
    torch.testing.assert_close(stepped[0], expected[1][0][5], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stepped[2], expected[0][0][9], rtol=1e-4, atol=1e-4)


def test_conversations_are_the_targets(path: Path, checkpoint: Checkpoint) -> None:
    """Whatever stood in a slot before: greedy answers are those of the engine, and turns are laid out."""
    tokenizer, layout = checkpoint.tokenizer(), Layout.of(checkpoint.tokenizer())
    assert layout is not None
    target = Target(checkpoint, 96, DEVICE, torch.float32)
    end = checkpoint.config.eos_token_ids
    writer = Writer(
        target, tokenizer, layout, Texts(), attention.in_torch, 5, end, Lengths(answer=8, user=6), follow=0
    )
    found = [one for some in islice(writer.conversations(), 12) for one in some]
    assert len(found) > 20
    between = tokenizer.encode(layout.between, add_special_tokens=False)
    llm = LLM(str(path), dtype="float32", device="cpu")
    greedy = 0
    for one in found:
        prompt = one.tokens[: one.own].tolist()
        assert prompt[-len(between) :] == between
        assert 1 <= len(one.tokens) - one.own <= 8
        params = SamplingParams(temperature=0, max_tokens=len(one.tokens) - one.own, ignore_eos=True)
        (answer,) = llm.generate([prompt], params)
        greedy += list(answer.outputs[0].token_ids) == one.tokens[one.own :].tolist()
    assert greedy >= len(found) / 5  # two of five temperatures are 0
    assert greedy < len(found)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_kernel_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    q, (keys, values) = torch.randn(5, 9, 64), torch.randn(2, 5, 3, 200, 64)
    positions = torch.tensor([0, 63, 64, 130, 199])
    found = attention.in_triton(q, keys, values, positions)
    torch.testing.assert_close(found, attention.in_torch(q, keys, values, positions), rtol=1e-4, atol=1e-4)


def test_all_conversations_are_taught_once() -> None:
    draw = Random(0)
    all_of = [Conversation(np.full(draw.randint(5, 60), i, np.uint16), 2) for i in range(50)]
    found = epoch(all_of, rows=200, seed=3)
    assert sorted(int(one.tokens[0]) for batch in found for one in batch) == list(range(50))
    assert all(len(batch) * max(len(one.tokens) for one in batch) <= 200 for batch in found)


def test_prompts_are_about_texts_where_there_are_any() -> None:
    texts = Texts(articles=["ARTICLE"], passages=["PASSAGE"], german=["DEUTSCH"])
    drawn = [user_turn(Random(seed), texts, []).text for seed in range(300)]
    assert {name for name in ("ARTICLE", "PASSAGE", "DEUTSCH") if any(name in text for text in drawn)} == {
        "ARTICLE",
        "PASSAGE",
        "DEUTSCH",
    }
    assert not any("{" in user_turn(Random(seed), Texts(), []).text for seed in range(300))


def test_batches_hold_the_targets_states(checkpoint: Checkpoint) -> None:
    """What the engine records, of padded sequences, and where the target's own words are."""
    texts = [
        Conversation(np.arange(7, 7 + count, dtype=np.uint16), own) for count, own in ((ROWS, 4), (7, 3))
    ]
    batch = OnTheFly(Target(checkpoint, 32, DEVICE, torch.float32), (0, 1)).batch(texts)
    hidden = checkpoint.config.hidden_size
    assert batch.states.shape == (2, ROWS, 3 * hidden)
    for row, one in enumerate(texts):
        count = len(one.tokens)
        assert batch.tokens[row, :count].tolist() == one.tokens.tolist()
        assert batch.real[row].tolist() == [at < count for at in range(ROWS)]
        assert batch.own[row].tolist() == [one.own - 1 <= at < count for at in range(ROWS)]
        logits, states = engine_pass(checkpoint, one.tokens.tolist(), 1)
        torch.testing.assert_close(
            batch.states[row, :count, hidden : 2 * hidden].float(), states, rtol=1e-2, atol=1e-2
        )
        found = Teacher.of(checkpoint).logits(
            batch.states[row, :count, -hidden:], Teacher.of(checkpoint).output
        )
        torch.testing.assert_close(found, logits, rtol=2e-2, atol=2e-2)


def test_training_goes_on_for_seconds(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """It ends when they are spent, also those before an interruption, and what is taught is learnt."""
    draw, vocab = np.random.default_rng(0), checkpoint.config.vocab_size
    texts = [Conversation(draw.integers(3, 40, 30).astype(np.uint16), 4) for _ in range(8)]
    config = HeadConfig.for_target(checkpoint.config, draft_vocab_size=vocab, layers=2, state_layers=(0, 1))
    batches = OnTheFly(Target(checkpoint, 32, DEVICE, torch.float32), (0, 1))

    def trainer() -> Trainer:
        torch.manual_seed(0)
        teacher, tokens = Teacher.of(checkpoint, 2), torch.arange(vocab)
        lesson = HeadLesson(config, teacher, tokens, quantized=True, device=DEVICE)
        recipe = Recipe(unrolled=(1,), rows=128, rate=6e-3, seconds=1)
        clock = count(step=0.1).__next__
        return Trainer(lesson, texts, recipe, device=DEVICE, batch=batches.batch, clock=clock)

    whole = trainer()
    losses = list(whole.steps())
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.1
    first = trainer()
    head = list(islice(first.steps(), 4))
    first.save(tmp_path / "checkpoint.pt")
    second = trainer()
    second.restore(tmp_path / "checkpoint.pt")
    assert head + list(second.steps()) == pytest.approx(losses)


def test_a_head_is_made_and_gone_on_from(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole recipe: what it makes drafts for its target, and more training starts from it."""
    sizes = {"model": str(path), "vocab": 128, "slots": 6, "most": 120, "rows": 512, "state_layers": "0,1"}
    settings = {"rate": 6e-3, "layers": 2, "seed": 0, "texts": None, "device": "cpu", **sizes}
    main(out=tmp_path, write=1.5, seconds=3, resume=False, **settings)  # type: ignore[arg-type]
    written = read(tmp_path / "conversations.npz")
    keep(tmp_path / "again.npz", written)
    again, conversations = read(tmp_path / "again.npz"), written.conversations
    assert again.seconds == written.seconds >= 1.5
    assert all(
        np.array_equal(one.tokens, other.tokens) and one.own == other.own
        for one, other in zip(conversations, again.conversations, strict=True)
    )
    head = HeadCheckpoint(tmp_path)
    vocab = open_checkpoint(str(path)).config.vocab_size
    assert head.targets().tolist() == frequent(conversations, vocab, 128).tolist()
    main(out=tmp_path, write=0, seconds=0.5, resume=True, **settings)  # type: ignore[arg-type]
    assert len(read(tmp_path / "conversations.npz").conversations) == len(conversations)
    _, last, resumed, _ = (
        float(line.split("length=")[1].split(")")[0])
        for line in capsys.readouterr().out.splitlines()
        if "length=" in line
    )
    assert resumed == pytest.approx(last, abs=0.01)
    drafting: dict[str, Any] = {"speculative_model": str(tmp_path), "num_speculative_tokens": 3}
    plain, drafted = (
        LLM(str(path), device="cpu", **options).generate(
            ["Hello"], SamplingParams(temperature=0, max_tokens=16)
        )
        for options in ({}, drafting)
    )
    assert plain[0].outputs[0].token_ids == drafted[0].outputs[0].token_ids
