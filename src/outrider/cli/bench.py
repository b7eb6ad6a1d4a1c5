"""`outrider bench`: target-only against speculative decoding."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.progress import Progress

from outrider.cli.console import print_json, stderr, stdout
from outrider.cli.options import (
    JsonOption,
    LengthOption,
    LimitOption,
    MaxTokensOption,
    ModelOption,
    PromptsOption,
    SettingOption,
    TemperatureOption,
    load,
)
from outrider.cli.report import results_table
from outrider.measurement.bench import bench as measure
from outrider.measurement.bench import count_runs
from outrider.measurement.memory import peak_memory_bytes
from outrider.measurement.prompts import BUILT_IN, read_conversations


def bench(
    model: ModelOption = "smollm2",
    speculative_model: Annotated[
        str, typer.Option("--speculative-model", "-d", help="Drafter: 'ngram' or a draft model.")
    ] = "ngram",
    num_speculative_tokens: LengthOption = None,
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option("--batch-size", "-b", min=1, help="Prompts at a time. Repeatable; default 1."),
    ] = None,
    prompts: PromptsOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians over them are reported.")] = 3,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure tokens/s, time to first token, time between tokens, acceptance and memory.

    Each round runs every category without and then with speculation in this one process, so that a noisy
    machine slows both; the speed-up is the median of the rounds' ratios. The prefix cache is off. Batches
    stay within a category, whose prompts are repeated if they do not fill one.
    """
    conversations = BUILT_IN if prompts is None else read_conversations(prompts, limit=limit)
    batch_sizes = batch_sizes or [1]
    with stderr.status(f"loading {model}"):
        llm = load(model, speculative_model, num_speculative_tokens, setting, enable_prefix_caching=False)
    with Progress(console=stderr, transient=True) as progress:
        task = progress.add_task("", total=count_runs(conversations, batch_sizes, rounds))
        results = measure(
            llm,
            conversations,
            batch_sizes=batch_sizes,
            temperature=temperature,
            max_tokens=max_tokens,
            rounds=rounds,
            advance=lambda what: progress.update(task, advance=1, description=what),
        )
    memory = peak_memory_bytes()
    if as_json:
        config = llm.config
        device = llm.engine.target.model.backend.device
        settings: dict[str, Any] = config.model_dump(exclude={"model"})
        settings |= {"max_tokens": max_tokens, "rounds": rounds, "prompts": str(prompts or "built-in")}
        settings["max_model_len"] = llm.engine.max_model_len
        print_json(
            {
                "model": model,
                "speculative_model": speculative_model,
                "device": str(device),
                "settings": settings,
                "peak_memory_bytes": memory,
                "results": [result.as_json() for result in results],
            }
        )
    else:
        stdout.print(results_table(results, latency=True))
        if memory is not None:
            stdout.print(f"peak memory {memory / 2**20:.0f} MiB", highlight=False)
