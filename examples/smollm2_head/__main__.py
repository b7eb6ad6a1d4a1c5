"""The command: write, train, save. See `examples/smollm2_head/__init__.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from examples.smollm2_head import attention
from examples.smollm2_head.batches import OnTheFly
from examples.smollm2_head.prompts import Texts
from examples.smollm2_head.target import Target
from examples.smollm2_head.writer import Conversation, Writer
from outrider.engine.backend import choose_device
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.head_config import HeadConfig
from outrider.training.conversations import Layout
from outrider.training.files import write_whole
from outrider.training.head_lesson import HeadLesson
from outrider.training.teacher import Teacher
from outrider.training.trainer import Recipe, Trainer

HELD_OUT = 800  # conversations that are not trained on, or a tenth of all
FEWEST = 10  # conversations that are written, however long it takes
MOST = 29_000_000  # tokens of all conversations, so that their file stays below 60 MB
SAVED = 30  # seconds between two times that conversations, or a checkpoint, are saved
EVALUATED = 120  # seconds of training between two scores


def main(
    out: Annotated[Path, typer.Option(help="Folder of the head and of what it is made from.")],
    model: Annotated[str, typer.Option(help="A Llama with a chat template as SmolLM2's.")] = "smollm2",
    texts: Annotated[Path | None, typer.Option(help="JSON: lists articles, passages and german.")] = None,
    write: Annotated[float, typer.Option(help="Seconds of writing.")] = 165,
    seconds: Annotated[float, typer.Option("--train", help="Seconds of training.")] = 225,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with what is there, finished or not: conversations, head."),
    ] = False,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 6e-3,
    layers: int = 2,
    state_layers: Annotated[str, typer.Option(help="Layers whose inputs are read.")] = "2,11,20,29",
    vocab: Annotated[int, typer.Option(help="Tokens that the head can say.")] = 8192,
    slots: Annotated[int, typer.Option(help="Conversations at a time.")] = 3072,
    most: Annotated[int, typer.Option(help="Tokens of a conversation at most.")] = 832,
    rows: Annotated[int, typer.Option(help="Of a batch of training.")] = 32_768,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a head for SmolLM2 on conversations that it writes."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    torch.manual_seed(seed)
    where = torch.device(choose_device(device))
    checkpoint = open_checkpoint(model)
    target = Target(checkpoint, most, where, torch.bfloat16 if where.type == "cuda" else torch.float32)
    out.mkdir(parents=True, exist_ok=True)
    data, unfinished, weights = out / "conversations.npz", out / "checkpoint.pt", out / "head.pt"
    about = Texts.read(texts) if texts else Texts()
    written = read(data) if resume and data.is_file() else Written()
    conversations = written.conversations
    # What a head can say is what these say most: once one has begun to learn, there are to be no others.
    if not (resume and (weights.is_file() or unfinished.is_file())):
        conversations = write_on(
            written, checkpoint, target, about, slots, seconds=write, seed=seed, path=data
        )
    say(f"{len(conversations)} conversations, {sum(len(one.tokens) for one in conversations)} tokens")

    config = HeadConfig.for_target(
        checkpoint.config,
        draft_vocab_size=vocab,
        layers=layers,
        state_layers=tuple(int(layer) for layer in state_layers.split(",")),
    )
    draft = frequent(conversations, checkpoint.config.vocab_size, config.draft_vocab_size)
    lesson = HeadLesson(config, Teacher.of(checkpoint, layers), draft, quantized=True, device=where)
    if resume and weights.is_file():
        lesson.net.load_state_dict(torch.load(weights, map_location=where, weights_only=True))
    Random(seed).shuffle(conversations)
    count = min(HELD_OUT, max(1, len(conversations) // 10))
    held_out, taught = conversations[:count], conversations[count:]
    recipe = Recipe(rows=rows, rate=rate, seed=seed, seconds=seconds)
    batches = OnTheFly(target, config.state_layers or ())
    trainer = Trainer(lesson, taught, recipe, device=where, batch=batches.batch)
    if resume and unfinished.is_file():
        trainer.restore(unfinished)
    say(f"at first {trainer.evaluate(held_out)}")
    saved = evaluated = time.monotonic()
    for loss in trainer.steps():
        if time.monotonic() - saved > SAVED:
            say(f"{trainer.part:4.0%} of the training, {trainer.done} steps, loss {loss:.3f}")
            trainer.save(unfinished)
            saved = time.monotonic()
        if time.monotonic() - evaluated > EVALUATED:
            say(f"meanwhile {trainer.evaluate(held_out)}")
            evaluated = time.monotonic()
    write_whole(weights, lambda partial: torch.save(lesson.net.state_dict(), partial))
    unfinished.unlink(missing_ok=True)
    lesson.save(out)
    say(f"at last {trainer.evaluate(held_out)}")


@dataclass(frozen=True)
class Written:
    """Conversations, and the seconds that were spent on them."""

    conversations: list[Conversation] = field(default_factory=list)
    seconds: float = 0.0


def write_on(
    written: Written,
    checkpoint: Checkpoint,
    target: Target,
    about: Texts,
    slots: int,
    *,
    seconds: float,
    seed: int,
    path: Path,
) -> list[Conversation]:
    """More conversations, until they took so many seconds in all; they are kept in a file."""
    conversations = list(written.conversations)
    tokens = sum(len(one.tokens) for one in conversations)
    if written.seconds >= seconds and len(conversations) >= FEWEST:
        return conversations
    tokenizer = checkpoint.tokenizer()
    layout = Layout.of(tokenizer)
    if layout is None:
        raise typer.BadParameter("a model without a chat template cannot write conversations")
    attend = attention.in_triton if target.table.is_cuda else attention.in_torch
    # With other draws than those that are there were written with.
    own_seed = seed + len(conversations)
    end = checkpoint.config.eos_token_ids
    writer = Writer(target, tokenizer, layout, about, attend, slots, end, seed=own_seed)
    began = saved = time.monotonic()
    for ended in writer.conversations():
        conversations += ended
        tokens += sum(len(one.tokens) for one in ended)
        now = time.monotonic()
        spent = written.seconds + now - began
        if len(conversations) >= FEWEST and (spent > seconds or tokens > MOST):
            break
        if conversations and now - saved > SAVED:
            keep(path, Written(conversations, spent))
            saved = time.monotonic()
    keep(path, Written(conversations, spent))
    return conversations


def keep(path: Path, written: Written) -> None:
    arrays = {
        "tokens": np.concatenate([one.tokens for one in written.conversations]),
        "lengths": np.array([len(one.tokens) for one in written.conversations]),
        "own": np.array([one.own for one in written.conversations]),
        "seconds": np.array(written.seconds),
    }

    def store(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_whole(path, store)


def read(path: Path) -> Written:
    stored = np.load(path)
    parts = np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])
    conversations = [Conversation(*each) for each in zip(parts, stored["own"].tolist(), strict=True)]
    return Written(conversations, float(stored["seconds"]))


def frequent(conversations: Sequence[Conversation], vocab: int, count: int) -> Tensor:
    """The tokens that the target says most often, ascending; those of prompts count a fifth."""
    seen = np.zeros(vocab)
    for one in conversations:
        seen += np.bincount(one.tokens[one.own :], minlength=vocab)
        seen += 0.2 * np.bincount(one.tokens, minlength=vocab)
    return torch.from_numpy(np.sort(np.argsort(-seen, kind="stable")[:count]))


if __name__ == "__main__":
    typer.run(main)
