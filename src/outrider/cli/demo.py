"""`outrider demo`: what speculation does, on a real model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.rule import Rule
from rich.text import Text

from outrider.cli.console import print_json, say, stderr, stdout
from outrider.cli.flow import LEGEND, Flow
from outrider.cli.options import (
    DrafterOption,
    DraftQuantizationOption,
    JsonOption,
    LengthOption,
    MaxTokensOption,
    MemoryOption,
    ModelOption,
    SettingOption,
    VerboseOption,
    WorkloadOption,
    load,
    measured_drafters,
    one_or_list,
)
from outrider.cli.report import print_headline, print_results
from outrider.measurement.bench import AFRESH, BenchRound, Result, Run, join_rounds
from outrider.measurement.prompts import BUILT_IN, Conversation
from outrider.outputs import Increment
from outrider.params import SamplingParams

if TYPE_CHECKING:
    from outrider.llm import LLM


def demo(
    model: ModelOption = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    max_tokens: MaxTokensOption = 128,
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what speculation does: speeds with and without it.

    Answers a few prompts twice and compares the tokens. Exit status 1 if any output differs.
    """
    console = stderr if as_json else stdout
    llm = load(
        model,
        speculative_model,
        num_speculative_tokens,
        workload,
        draft_quantization,
        setting,
        memory_limit=memory_limit,
        quiet=as_json,
        **AFRESH,
    )
    drafters = measured_drafters(llm)
    _run(llm, BUILT_IN[0], 16, 0)  # warm-up: the first pass allocates
    say(console, Text.assemble(f"target {model}, drafter {', '.join(drafters)}: ", LEGEND))
    rounds: dict[str, BenchRound] = {}
    for conversation in BUILT_IN:
        console.print(Rule(conversation.category, align="left"))
        say(console, conversation.turns[0].splitlines()[0], "dim")
        with console.status("target only"):
            plain = _run(llm, conversation, max_tokens, 0)
        flow = Flow(console)
        speculative = _run(llm, conversation, max_tokens, None, show=flow.show)
        flow.end()
        rounds[conversation.category] = BenchRound(plain, speculative)
    joined = join_rounds(list(rounds.values()))
    results = [Result(1, name, 0.0, (r,)) for name, r in {"all": joined, **rounds}.items()]
    print_results(console, results, verbose=verbose)
    print_headline(console, results)
    total = results[0]
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
