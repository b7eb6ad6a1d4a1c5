"""`outrider run` and `outrider chat`: a conversation in the terminal."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import Annotated

import typer

from outrider.cli.console import say, stderr, stdout
from outrider.cli.conversation import COMMANDS, QUIT, Talk
from outrider.cli.flow import LEGEND, Flow
from outrider.cli.line_editor import line_reader
from outrider.cli.options import (
    ANSWERS,
    DrafterOption,
    DraftQuantizationOption,
    JsonOption,
    LengthOption,
    MaxTokensOption,
    MemoryOption,
    PositionalModel,
    SameModelOption,
    SeedOption,
    SettingOption,
    TemperatureOption,
    WorkloadOption,
    load,
    one_model,
)
from outrider.errors import OutriderError
from outrider.params import SamplingParams


def chat(
    name: PositionalModel = None,
    model: SameModelOption = None,
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="System message of the conversation.", rich_help_panel=ANSWERS),
    ] = None,
    max_tokens: MaxTokensOption = 512,
    temperature: TemperatureOption = 0.7,
    seed: SeedOption = None,
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk with a model in the terminal.

    Answers stream, with accepted draft tokens in colour. Without a terminal, questions are lines of stdin.
    With --json every answer is one JSON object on a line of stdout. /help lists what else a line can be.
    """
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    llm = load(
        one_model(name, model),
        speculative_model,
        num_speculative_tokens,
        workload,
        draft_quantization,
        setting,
        memory_limit=memory_limit,
        quiet=as_json,
    )
    conversation = Talk(llm, params, system)
    if not as_json:
        if llm.about.drafters:
            say(stderr, LEGEND)
        say(stderr, "/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves.", "dim")
    answer = _answer_as_json if as_json else _answer
    ask = line_reader(COMMANDS)
    while (line := ask()) is not None and line not in QUIT:
        try:
            if line.startswith("/"):
                stderr.print(conversation.obey(line), style="dim", highlight=False, markup=False)
            elif line:
                answer(conversation, line)
        except OutriderError as error:
            say(stderr, f"error: {error}", "bold red")


def _answer(conversation: Talk, question: str) -> None:
    flow = Flow(stdout)
    with (
        suppress(KeyboardInterrupt),
        _stoppable() as stopped,
        closing(conversation.ask(question)) as increments,
    ):
        for increment in increments:
            flow.show(increment)
            if stopped():
                break
    flow.end()
    say(stderr, f"[{conversation.answer.summary}{', stopped' if stopped() else ''}]", "dim")


def _answer_as_json(conversation: Talk, question: str) -> None:
    for _ in conversation.ask(question):
        pass
    answer = conversation.answer
    line = {"answer": answer.text, "drafted": answer.drafts.drafted, "accepted": answer.drafts.accepted}
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed meanwhile. The first does not interrupt a step of the engine; a second one
    does, since a long prompt is many steps before the first token."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    usual = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, usual)


run = chat
"""The same, by the name that Ollama's users look for."""
