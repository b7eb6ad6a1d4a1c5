"""The command: write, train, save. See `examples/smollm2_head/__init__.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from examples.smollm2_head import attention
from examples.smollm2_head.prompts import Texts
from examples.smollm2_head.target import Target
from examples.smollm2_head.training import Lesson, as_stored, train
from examples.smollm2_head.writer import Conversation, Writer
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import quantized, save_head
from outrider.models.head_config import HeadConfig
from outrider.training.conversations import Layout
from outrider.training.files import write_whole
from outrider.training.head_lesson import HeadLesson
from outrider.training.teacher import Teacher

HELD_OUT = 800  # conversations that are not trained on, or a tenth of all
FEWEST = 10  # conversations that are written, however long it takes


def main(
    out: Annotated[Path, typer.Option(help="Folder of the head and of what it is made from.")],
    model: Annotated[str, typer.Option(help="A Llama with a chat template as SmolLM2's.")] = "smollm2",
    texts: Annotated[Path | None, typer.Option(help="JSON: lists articles, passages and german.")] = None,
    write: Annotated[float, typer.Option(help="Seconds of writing.")] = 165,
    seconds: Annotated[float, typer.Option("--train", help="Seconds of training.")] = 225,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the conversations and head there.")
    ] = False,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 6e-3,
    layers: int = 2,
    state_layers: Annotated[str, typer.Option(help="Layers whose inputs are read.")] = "2,11,20,29",
    vocab: Annotated[int, typer.Option(help="Tokens that the head can say.")] = 8192,
    slots: Annotated[int, typer.Option(help="Conversations at a time.")] = 3072,
    most: Annotated[int, typer.Option(help="Tokens of a conversation at most.")] = 832,
    rows: Annotated[int, typer.Option(help="Of a batch of training.")] = 32_768,
    seed: int = 0,
) -> None:
    """Train a head for SmolLM2 on conversations that it writes."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    torch.manual_seed(seed)
    cuda = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
    checkpoint = open_checkpoint(model)
    target = Target(checkpoint, most, device, dtype)
    out.mkdir(parents=True, exist_ok=True)
    data, weights = out / "conversations.npz", out / "head.pt"
    if resume:
        conversations = read(data)
    else:
        tokenizer = checkpoint.tokenizer()
        layout = Layout.of(tokenizer)
        if layout is None:
            raise typer.BadParameter(f"{model} has no chat template, so it cannot write conversations")
        attend = attention.in_triton if cuda else attention.in_torch
        about = Texts.read(texts) if texts else Texts()
        end = checkpoint.config.eos_token_ids
        writer = Writer(target, tokenizer, layout, about, attend, slots, end, seed=seed)
        conversations = []
        until = time.monotonic() + write
        for ended in writer.conversations():
            conversations += ended
            if len(conversations) >= FEWEST and time.monotonic() > until:
                break
        keep(data, conversations)
        del writer  # whose cache is most of the memory
    say(f"{len(conversations)} conversations, {sum(len(one.tokens) for one in conversations)} tokens")

    config = HeadConfig.for_target(
        checkpoint.config,
        draft_vocab_size=vocab,
        layers=layers,
        state_layers=tuple(int(layer) for layer in state_layers.split(",")),
    )
    draft = frequent(conversations, checkpoint.config.vocab_size, config.draft_vocab_size)
    teacher = Teacher.of(checkpoint, layers)
    net = HeadLesson(config, teacher, draft, quantized=True, device=device).net
    if resume:
        net.load_state_dict(torch.load(weights, map_location=device, weights_only=True))
    lesson = Lesson(target, draft.to(device), config.state_layers or (), rows)
    Random(seed).shuffle(conversations)
    count = min(HELD_OUT, max(1, len(conversations) // 10))
    held_out, taught = conversations[:count], conversations[count:]
    say(f"at first {lesson.score(net, held_out)}")
    last = time.monotonic()

    def told(part: float, tokens: int, loss: float) -> None:
        nonlocal last
        if time.monotonic() - last > 15:
            last = time.monotonic()
            say(f"{part:4.0%} of the training, {tokens} tokens, loss {loss:.3f}")

    train(net, lesson, taught, seconds=seconds, rate=rate, seed=seed, told=told)
    write_whole(weights, lambda partial: torch.save(net.state_dict(), partial))
    state = {name: as_stored(values.detach()).cpu().numpy() for name, values in net.state_dict().items()}
    save_head(out, config, quantized(state), draft.numpy())
    say(f"at last {lesson.score(net, held_out)}")


def keep(path: Path, conversations: Sequence[Conversation]) -> None:
    arrays = {
        "tokens": np.concatenate([one.tokens for one in conversations]),
        "lengths": np.array([len(one.tokens) for one in conversations]),
        "own": np.array([one.own for one in conversations]),
    }

    def store(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_whole(path, store)


def read(path: Path) -> list[Conversation]:
    stored = np.load(path)
    parts = np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])
    return [Conversation(tokens, int(own)) for tokens, own in zip(parts, stored["own"], strict=True)]


def frequent(conversations: Sequence[Conversation], vocab: int, count: int) -> Tensor:
    """The tokens that the target says most often, ascending; those of prompts count a fifth."""
    seen = np.zeros(vocab)
    for one in conversations:
        seen += np.bincount(one.tokens[one.own :], minlength=vocab)
        seen += 0.2 * np.bincount(one.tokens, minlength=vocab)
    return torch.from_numpy(np.sort(np.argsort(-seen, kind="stable")[:count]))


if __name__ == "__main__":
    typer.run(main)
