"""`outrider generate`: complete prompts."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from outrider.cli.console import print_json, stderr, stdout
from outrider.cli.flow import Flow
from outrider.cli.options import (
    ANSWERS,
    DrafterOption,
    DraftQuantizationOption,
    EngineOption,
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
from outrider.errors import ConfigError
from outrider.outputs import RequestOutput
from outrider.params import SamplingParams


def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...", help="Prompts, completed together. Without any: one, from stdin."
        ),
    ] = None,
    model: ModelOption = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Lay prompts out as user messages of a chat.", rich_help_panel=ANSWERS),
    ] = False,
    max_tokens: MaxTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    top_p: Annotated[
        float,
        typer.Option(metavar="P", help="Keep the likeliest tokens up to this mass.", rich_help_panel=ANSWERS),
    ] = 1.0,
    top_k: Annotated[
        int,
        typer.Option(
            metavar="N", help="Keep this many of the likeliest tokens; 0: all.", rich_help_panel=ANSWERS
        ),
    ] = 0,
    min_p: Annotated[
        float,
        typer.Option(
            metavar="P", help="Drop tokens less likely than this share of the top.", rich_help_panel=ANSWERS
        ),
    ] = 0.0,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="String that ends the output. Repeatable.", rich_help_panel=ANSWERS
        ),
    ] = None,
    seed: SeedOption = None,
    colour: Annotated[bool, typer.Option("--colour", help="Colour tokens by where they came from.")] = False,
    engine: EngineOption = "outrider",
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Complete one prompt, streaming, or several in one batch."""
    texts = prompts or [sys.stdin.read().rstrip("\n")]
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        stop=tuple(stop or ()),
        seed=seed,
    )
    if any(not text for text in texts):
        raise ConfigError("a prompt is empty; give a prompt as an argument or on stdin")
    llm = load(
        model,
        speculative_model,
        num_speculative_tokens,
        workload,
        draft_quantization,
        setting,
        memory_limit=memory_limit,
        engine=engine,
        quiet=as_json,
    )
    inputs = [llm.chat_prompt([{"role": "user", "content": t}]) for t in texts] if chat else texts
    if len(texts) == 1 and not as_json:
        flow = Flow(stdout)
        for increment in llm.stream(inputs[0], params):
            if colour:
                flow.show(increment)
            else:
                flow.write(increment.text)
        flow.end()
        return
    outputs = llm.generate(inputs, params, use_tqdm=stderr.is_terminal and not as_json)
    if as_json:
        print_json([_as_json(text, output) for text, output in zip(texts, outputs, strict=True)])
        return
    for text, output in zip(texts, outputs, strict=True):
        stdout.rule(text.splitlines()[0], align="left")
        sys.stdout.write(output.outputs[0].text + "\n")


def _as_json(prompt: str, output: RequestOutput) -> dict[str, object]:
    completion = output.outputs[0]
    stats = completion.speculation
    return {
        "prompt": prompt,
        "prompt_tokens": len(output.prompt_token_ids),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
        "speculation": dataclasses.asdict(stats) | {"drafted": stats.drafted, "accepted": stats.accepted},
    }
