"""`outrider bench`: target-only against speculative decoding."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from outrider.cli.console import print_json, say, stderr, stdout
from outrider.cli.options import (
    MEASURING,
    BatchSizesOption,
    DrafterOption,
    DraftQuantizationOption,
    EngineOption,
    JsonOption,
    LengthOption,
    LimitOption,
    MaxTokensOption,
    MemoryOption,
    ModelOption,
    PromptsOption,
    RoundsOption,
    SettingOption,
    TemperatureOption,
    VerboseOption,
    WorkloadOption,
    fixed_length,
)
from outrider.cli.pair import load_pair
from outrider.cli.report import conditions, print_expenses, print_headline, print_results
from outrider.measurement.bench import AUTO, count_conversations
from outrider.measurement.bench import bench as measure
from outrider.measurement.energy import EnergyMeter, find_meter
from outrider.measurement.memory import peak_memory_bytes
from outrider.measurement.prompts import BUILT_IN, read_conversations

if TYPE_CHECKING:
    from outrider.llm import LLM


def _finite(price: float | None) -> float | None:
    if price is not None and not math.isfinite(price):
        raise typer.BadParameter(f"{price} is not the price of anything; give a number of 0 or more")
    return price


def bench(
    model: ModelOption = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    batch_sizes: BatchSizesOption = [1],  # noqa: B006  # which nobody changes
    prompts: PromptsOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    rounds: RoundsOption = 3,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="PRICE",
            callback=_finite,
            help="What an hour of the machine costs, in any currency; adds the cost of a million tokens.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    engine: EngineOption = "outrider",
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure speed with and without speculation.

    With --verbose also times to the first token and between tokens, and acceptance.

    Each round runs every category without and then with speculation in this one process, so that a noisy
    machine slows both; the speed-up is the median of the rounds' ratios. Nothing is kept of earlier requests,
    neither prompts nor texts to draft from, since the same ones come again. Batches
    stay within a category, whose prompts are repeated if they do not fill one. Energy is what RAPL or NVML
    count, with the extra outrider[energy] on machines that have them; it is never estimated.
    """
    conversations = BUILT_IN if prompts is None else read_conversations(prompts, limit=limit)
    pair = load_pair(
        engine,
        model,
        speculative_model,
        num_speculative_tokens,
        workload=workload,
        draft_quantization=draft_quantization,
        settings=setting,
        memory_limit=memory_limit,
        afresh=True,
        quiet=as_json,
    )
    meters = cache(find_meter)
    heads: list[dict[str, Any]] = []

    def meter_of(llm: LLM) -> EnergyMeter:
        heads.append(
            conditions(llm, model, pair.drafters, max_tokens=max_tokens, rounds=rounds, prompts=prompts)
        )
        return meters(llm.about.device)

    with Progress(console=stderr, transient=True, disable=as_json) as progress:
        total = count_conversations(conversations, batch_sizes, rounds)
        task = progress.add_task("", total=total)
        results = measure(
            pair.loads,
            conversations,
            length=AUTO if pair.promised else fixed_length(num_speculative_tokens),
            batch_sizes=batch_sizes,
            temperature=temperature,
            max_tokens=max_tokens,
            rounds=rounds,
            advance=lambda what, n: progress.update(task, advance=n, description=what),
            meter=meter_of,
        )
    head = heads[-1]
    meter = meters(head["device"])
    memory = peak_memory_bytes(head["device"]) if pair.promised else None  # vLLM's is in other processes
    if as_json:
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
    print_results(stdout, results, latency=verbose, verbose=verbose)
    if price_per_hour is not None or meter.source is not None:
        print_expenses(stdout, results, price_per_hour)
    if meter.source is None:
        say(stdout, f"energy: not measurable here ({meter.reason})")
    else:
        say(stdout, f"energy: {meter.source}")
    if memory is not None:
        say(stdout, f"peak memory {memory / 2**20:.0f} MiB")
    print_headline(stdout, results)
