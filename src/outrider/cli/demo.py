"""`outrider demo`: what speculation does, on a real model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.rule import Rule
from rich.text import Text

from outrider.cli.console import LEGEND, coloured, print_json, stderr, stdout
from outrider.cli.options import (
    DraftQuantizationOption,
    JsonOption,
    LengthOption,
    MaxTokensOption,
    MeasuredDrafterOption,
    MemoryOption,
    ModelOption,
    SettingOption,
    WorkloadOption,
    load,
    measured_drafters,
    one_or_list,
)
from outrider.cli.report import print_results
from outrider.measurement.bench import Result, Round, Run, join_rounds
from outrider.measurement.prompts import BUILT_IN, Conversation
from outrider.outputs import Increment
from outrider.params import SamplingParams

if TYPE_CHECKING:
    from outrider.llm import LLM


def demo(
    model: ModelOption = "smollm2",
    speculative_model: MeasuredDrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    max_tokens: MaxTokensOption = 128,
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate for a few prompts without and with speculation, show both speeds, and compare the tokens.

    Exit status 1 if any output differs.
    """
    console = stderr if as_json else stdout
    drafters = measured_drafters(model, speculative_model)
    llm = load(
        model,
        drafters,
        num_speculative_tokens,
        workload,
        draft_quantization,
        setting,
        enable_prefix_caching=False,
        memory_limit=memory_limit,
        quiet=as_json,
    )
    _run(llm, BUILT_IN[0], 16, 0)  # warm-up: the first pass allocates
    console.print(Text.assemble(f"target {model}, drafter {', '.join(drafters)}: ", LEGEND))
    rounds: dict[str, Round] = {}
    for conversation in BUILT_IN:
        console.print(Rule(f"{conversation.category}: {conversation.turns[0].splitlines()[0]}", align="left"))
        with console.status("target only"):
            plain = _run(llm, conversation, max_tokens, 0)
        speculative = _run(
            llm, conversation, max_tokens, None, show=lambda i: console.print(coloured(i), end="")
        )
        console.print()
        rounds[conversation.category] = Round(plain, speculative)
    joined = join_rounds(list(rounds.values()))
    results = [Result(1, name, 0.0, (r,)) for name, r in {"all": joined, **rounds}.items()]
    print_results(console, results, latency=False)
    total = results[0]
    console.print(f"identical output: {total.identical}/{total.compared}", style="bold", highlight=False)
    if as_json:
        print_json(
            {
                "model": model,
                "speculative_model": one_or_list(drafters),
                "results": [result.as_json() for result in results],
            }
        )
    if total.identical != total.compared:
        raise typer.Exit(1)


def _run(
    llm: LLM,
    conversation: Conversation,
    max_tokens: int,
    draft_length: int | None,
    show: Callable[[Increment], None] = lambda increment: None,
) -> Run:
    """Answer the first turn, greedily; draft_length: None for the engine's."""
    prompt = llm.chat_prompt([{"role": "user", "content": conversation.turns[0]}])
    params = SamplingParams(temperature=0, max_tokens=max_tokens, num_speculative_tokens=draft_length)
    began = time.perf_counter()
    increments = llm.stream(prompt, params)
    while True:
        try:
            show(next(increments))
        except StopIteration as end:
            return Run((end.value,), time.perf_counter() - began)
