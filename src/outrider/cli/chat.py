"""`outrider chat`: a conversation in the terminal."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from outrider.cli.console import LEGEND, coloured, stderr, stdout
from outrider.cli.options import (
    DrafterOption,
    DraftQuantizationOption,
    JsonOption,
    LengthOption,
    MaxTokensOption,
    MemoryOption,
    ModelOption,
    SeedOption,
    SettingOption,
    TemperatureOption,
    WorkloadOption,
    load,
)
from outrider.outputs import SpeculationStats
from outrider.params import SamplingParams

HELP = "Ctrl-D or /exit leaves, /reset starts anew."


def chat(
    model: ModelOption = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    system: Annotated[str | None, typer.Option(help="System message of the conversation.")] = None,
    max_tokens: MaxTokensOption = 512,
    temperature: TemperatureOption = 0.7,
    seed: SeedOption = None,
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk with a model; answers stream, with accepted draft tokens in colour.

    Questions are lines of stdin. With --json every answer is one JSON object on a line of stdout.
    """
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    llm = load(
        model,
        speculative_model,
        num_speculative_tokens,
        workload,
        draft_quantization,
        setting,
        memory_limit=memory_limit,
        quiet=as_json,
    )
    opening = [] if system is None else [{"role": "system", "content": system}]
    messages = list(opening)
    if llm.engine.drafters.drafters:
        stderr.print(LEGEND)
    stderr.print(HELP, style="dim")
    while (question := _ask()) is not None:
        if question == "/exit":
            return
        if question == "/reset":
            messages = list(opening)
            continue
        if not question:
            continue
        messages.append({"role": "user", "content": question})
        answer, stats = "", SpeculationStats()
        for increment in llm.stream(llm.chat_prompt(messages), params):
            answer += increment.text
            stats += SpeculationStats.of_draft(increment.drafted, increment.accepted)
            if not as_json:
                stdout.print(coloured(increment), end="", soft_wrap=True)
        messages.append({"role": "assistant", "content": answer})
        if as_json:
            line = {"answer": answer, "drafted": stats.drafted, "accepted": stats.accepted}
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        else:
            stdout.print()


def _ask() -> str | None:
    """The next question, or None at the end of the input."""
    if sys.stdin.isatty():
        stderr.print("> ", end="", style="bold")
    line = sys.stdin.readline()
    return line.strip() if line else None
