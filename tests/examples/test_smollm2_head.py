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
from examples.smollm2_head.prompts import Texts, user_turn
from examples.smollm2_head.target import Target
from examples.smollm2_head.training import Lesson, as_stored, distance, train
from examples.smollm2_head.writer import Conversation, Lengths, Writer
from outrider import LLM, SamplingParams
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, four_bits
from outrider.models.head_config import HeadConfig
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend
from outrider.training.batches import epoch
from outrider.training.conversations import Layout
from outrider.training.head_lesson import HeadLesson
from outrider.training.teacher import Teacher
from tests.factories import tiny_config, write_model

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


def test_weights_are_stored_as_they_were_trained() -> None:
    matrix = torch.randn(24, 96) * torch.rand(24, 1)
    matrix[3] = 0
    rounded = as_stored(matrix)
    assert torch.equal(rounded, torch.from_numpy(four_bits(rounded.numpy()).dequantize()))
    assert 0.05 < (rounded - matrix).norm() / matrix.norm() < 0.15


def test_the_loss_is_cross_entropy() -> None:
    """Weighted by rows, with its gradient, and the chance to agree beside it."""
    logits = torch.randn(7, 30, dtype=torch.float64).float().requires_grad_()
    probs, weight = torch.randn(7, 30).softmax(-1), torch.rand(7)
    loss, overlap = distance(logits, probs, weight)
    plain = -(probs * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(loss, (weight * plain).sum())
    torch.testing.assert_close(overlap, torch.minimum(probs, logits.detach().softmax(-1)).sum(-1))
    (slope,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad((weight * plain).sum(), logits)
    torch.testing.assert_close(slope, expected)


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


def test_training_teaches(checkpoint: Checkpoint) -> None:
    draw, vocab = np.random.default_rng(0), checkpoint.config.vocab_size
    conversations = [Conversation(draw.integers(3, 40, 30).astype(np.uint16), 4) for _ in range(8)]
    draft = torch.arange(vocab)
    config = HeadConfig.for_target(checkpoint.config, draft_vocab_size=vocab, layers=2, state_layers=(0, 1))
    net = HeadLesson(config, Teacher.of(checkpoint, 2), draft, quantized=True, device=DEVICE).net
    lesson = Lesson(Target(checkpoint, 32, DEVICE, torch.float32), draft, config.state_layers or (), rows=128)
    before = lesson.loss(net, conversations, 3).item()
    losses: list[float] = []
    train(
        net,
        lesson,
        conversations,
        seconds=2,
        rate=6e-3,
        seed=0,
        told=lambda part, tokens, loss: losses.append(loss),
        clock=count(step=0.1).__next__,
    )
    assert lesson.loss(net, conversations, 3).item() < before - 0.1
    assert len(losses) == 19


def test_a_head_is_made_and_gone_on_from(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole recipe: what it makes drafts for its target, and more training starts from it."""
    sizes = {"model": str(path), "vocab": 128, "slots": 6, "most": 120, "rows": 512, "state_layers": "0,1"}
    settings = {"rate": 6e-3, "layers": 2, "seed": 0, "texts": None, **sizes}
    main(out=tmp_path, write=1.5, seconds=3, resume=False, **settings)  # type: ignore[arg-type]
    conversations = read(tmp_path / "conversations.npz")
    keep(tmp_path / "again.npz", conversations)
    assert all(
        np.array_equal(one.tokens, other.tokens) and one.own == other.own
        for one, other in zip(conversations, read(tmp_path / "again.npz"), strict=True)
    )
    head = HeadCheckpoint(tmp_path)
    vocab = open_checkpoint(str(path)).config.vocab_size
    assert head.targets().tolist() == frequent(conversations, vocab, 128).tolist()
    main(out=tmp_path, write=0, seconds=0.5, resume=True, **settings)  # type: ignore[arg-type]
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
