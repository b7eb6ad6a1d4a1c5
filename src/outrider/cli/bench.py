"""`outrider bench`: target-only against speculative decoding."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.progress import Progress

from outrider.cli.console import print_json, stderr, stdout
from outrider.cli.options import (
    DraftQuantizationOption,
    JsonOption,
    LengthOption,
    LimitOption,
    MaxTokensOption,
    MeasuredDrafterOption,
    MemoryOption,
    ModelOption,
    PromptsOption,
    SettingOption,
    TemperatureOption,
    WorkloadOption,
    load,
    measured_drafters,
)
from outrider.cli.report import conditions, print_expenses, print_results
from outrider.measurement.bench import bench as measure
from outrider.measurement.bench import count_conversations
from outrider.measurement.energy import find_meter
from outrider.measurement.memory import peak_memory_bytes
from outrider.measurement.prompts import BUILT_IN, read_conversations


def _finite(price: float | None) -> float | None:
    if price is not None and not math.isfinite(price):
        raise typer.BadParameter(f"{price} is not the price of anything; give a number of 0 or more")
    return price


def bench(
    model: ModelOption = "smollm2",
    speculative_model: MeasuredDrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option("--batch-size", "-b", min=1, help="Prompts at a time. Repeatable; default 1."),
    ] = None,
    prompts: PromptsOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians over them are reported.")] = 3,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            callback=_finite,
            help="What an hour of the machine costs, in any currency; adds the cost of a million tokens.",
        ),
    ] = None,
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure tokens/s, time to first token, time between tokens, acceptance, memory, cost and energy.

    Each round runs every category without and then with speculation in this one process, so that a noisy
    machine slows both; the speed-up is the median of the rounds' ratios. The prefix cache is off. Batches
    stay within a category, whose prompts are repeated if they do not fill one. Energy is what RAPL or NVML
    count, with the extra [b]outrider\\[energy][/b] on machines that have them; it is never estimated.
    """
    conversations = BUILT_IN if prompts is None else read_conversations(prompts, limit=limit)
    batch_sizes = batch_sizes or [1]
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
    meter = find_meter(llm.engine.facts.device)
    with Progress(console=stderr, transient=True) as progress:
        total = count_conversations(conversations, batch_sizes, rounds)
        task = progress.add_task("", total=total)
        results = measure(
            llm,
            conversations,
            batch_sizes=batch_sizes,
            temperature=temperature,
            max_tokens=max_tokens,
            rounds=rounds,
            advance=lambda what, n: progress.update(task, advance=n, description=what),
            meter=meter,
        )
    memory = peak_memory_bytes(llm.engine.facts.device)
    if as_json:
        head = conditions(llm, model, drafters, max_tokens=max_tokens, rounds=rounds, prompts=prompts)
        print_json(
            head
            | {
                "peak_memory_bytes": memory,
                "price_per_hour": price_per_hour,
                "energy": {"source": meter.source, "not_measurable_because": meter.reason},
                "results": [result.as_json(price_per_hour) for result in results],
            }
        )
        return
    print_results(stdout, results, latency=True)
    if price_per_hour is not None or meter.source is not None:
        print_expenses(stdout, results, price_per_hour)
    if meter.source is None:
        stdout.print(
            f"energy: not measurable here ({meter.reason})", highlight=False, markup=False, soft_wrap=True
        )
    else:
        stdout.print(f"energy: {meter.source}", highlight=False, markup=False, soft_wrap=True)
    if memory is not None:
        stdout.print(f"peak memory {memory / 2**20:.0f} MiB", highlight=False)
