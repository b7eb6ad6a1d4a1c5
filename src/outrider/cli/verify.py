"""`outrider verify`: proof of the promise on the user's own pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.text import Text

from outrider.cli.columns import Column, print_columns
from outrider.cli.console import print_json, say, stderr, stdout
from outrider.cli.importing import importing
from outrider.cli.options import (
    ANSWERS,
    DRAFTS,
    BatchSizesOption,
    DraftQuantizationOption,
    EngineOption,
    JsonOption,
    LimitOption,
    MaxTokensOption,
    MemoryOption,
    ModelOption,
    PromptsOption,
    SettingOption,
    VerboseOption,
)
from outrider.cli.pair import load_pair
from outrider.measurement.bench import AUTO, Length, shown
from outrider.measurement.prompts import BUILT_IN, read_conversations

if TYPE_CHECKING:
    from outrider.llm import LLM
    from outrider.measurement.verify import Case, Difference

LENGTHS: dict[str, list[Length]] = {"outrider": [*range(1, 9), AUTO], "vllm": [1, 4]}
"""Those of each engine, unless others are asked for. vLLM is loaded for each, and has no automatic one."""


def verify(
    model: ModelOption = "smollm2",
    speculative_model: Annotated[
        list[str] | None,
        typer.Option(
            "--speculative-model",
            "-d",
            metavar="NAME",
            help="Drafter to verify. Repeatable; default 'auto': the chain of what is found on this disk.",
            rich_help_panel=DRAFTS,
        ),
    ] = None,
    chain: Annotated[
        bool,
        typer.Option(
            "--chain",
            help="Verify the drafters together, first asked first, not one by one.",
            rich_help_panel=DRAFTS,
        ),
    ] = False,
    engine: EngineOption = "outrider",
    draft_quantization: DraftQuantizationOption = None,
    lengths: Annotated[
        list[str] | None,
        typer.Option(
            "--length",
            "-k",
            metavar="N|auto",
            help="Draft length. Repeatable; default 1 to 8 and auto, and of vLLM 1 and 4.",
            rich_help_panel=DRAFTS,
        ),
    ] = None,
    temperatures: Annotated[
        list[float],
        typer.Option(
            "--temperature",
            min=0.0,
            metavar="T",
            help="0 chooses the likeliest token. Repeatable.",
            rich_help_panel=ANSWERS,
        ),
    ] = [0.0, 0.7, 1.0],  # noqa: B006  # which nobody changes
    batch_sizes: BatchSizesOption = [1, 4],  # noqa: B006
    prompts: PromptsOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 32,
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that speculation changes no token.

    Compares plain and speculative token ids over drafters, draft lengths, temperatures and batch sizes. A
    difference is traced to its first position and makes the exit status 1. The native CPU kernels are
    held to that without tolerance. On PyTorch, where the two tokens score the same but for rounding that
    the number of rows in a pass changes (measured there), it is reported as a near-tie instead. Of vLLM,
    which promises no equal tokens, each difference counts.
    """
    with importing():
        from outrider.measurement.verify import verify as verify_cases

    conversations = BUILT_IN if prompts is None else read_conversations(prompts, limit=limit)
    cases: list[Case] = []
    named = speculative_model or (["auto"] if engine == "outrider" else None)

    def lay_out(llm: LLM) -> list[list[int]]:
        return [llm.chat_prompt([{"role": "user", "content": c.turns[0]}]) for c in conversations]

    for together in [named] if chain or named is None else [[drafter] for drafter in named]:
        pair = load_pair(
            engine,
            model,
            together,
            draft_quantization=draft_quantization,
            settings=setting,
            memory_limit=memory_limit,
            quiet=as_json,
        )
        wanted = [_length(n) for n in lengths] if lengths else LENGTHS[engine]
        drafter = ", ".join(pair.drafters)
        total = len(wanted) * len(temperatures) * len(batch_sizes)
        with Progress(console=stderr, transient=True, disable=as_json) as progress:
            task = progress.add_task(f"verifying {drafter}", total=total)
            for case in verify_cases(
                pair.loads,
                drafter,
                lay_out,
                lengths=wanted,
                temperatures=temperatures,
                batch_sizes=batch_sizes,
                max_tokens=max_tokens,
                ties=pair.promised,
            ):
                cases.append(case)
                progress.advance(task)
    if as_json:
        print_json(_as_json(model, cases))
    else:
        (_print_cases if verbose else _print)(cases)
    different = [case for case in cases if case.outcome == "different"]
    for case in different:
        say(stderr, f"different: {_where(case, case.differences[0])}", "bold red")
    say(
        stderr,
        f"{sum(case.outcome == 'equal' for case in cases)} of {len(cases)} cases equal, "
        f"{sum(case.outcome == 'near-tie' for case in cases)} with near-ties, {len(different)} different",
    )
    if different:
        raise typer.Exit(1)


def _length(text: str) -> Length:
    if text == "auto":
        return AUTO
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r}: give a number from 0 on, or 'auto'", param_hint="--length")
    return int(text)


def _where(case: Case, difference: Difference) -> str:
    return (
        f"{case.drafter}, length {shown(case.length)}, temperature {case.temperature}, batch size "
        f"{case.batch_size}, prompt {difference.prompt}: output position {difference.position} is "
        f"{difference.plain} in plain decoding and {difference.speculative} with speculation"
    )


COLOURS = {"equal": "green", "near-tie": "yellow", "different": "bold red"}


def _print(cases: list[Case]) -> None:
    """One row a drafter, temperature and batch size, over all draft lengths."""
    groups: dict[tuple[str, float, int], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.drafter, case.temperature, case.batch_size), []).append(case)
    worst = [max((case.outcome for case in group), key=list(COLOURS).index) for group in groups.values()]
    columns = [
        Column("temperature", [str(temperature) for _, temperature, _ in groups]),
        Column("batch", [str(size) for _, _, size in groups]),
        Column("lengths", [str(len(group)) for group in groups.values()]),
        Column("accepted", [_accepted(group) for group in groups.values()]),
        Column("tokens", [Text(outcome, style=COLOURS[outcome]) for outcome in worst], "left"),
    ]
    print_columns(stdout, [Column("drafter", [drafter for drafter, _, _ in groups], "left")], columns)


def _print_cases(cases: list[Case]) -> None:
    columns = [
        Column("temperature", [str(case.temperature) for case in cases]),
        Column("batch", [str(case.batch_size) for case in cases]),
        Column("length", [str(shown(case.length)) for case in cases]),
        Column("accepted", [_accepted([case]) for case in cases]),
        Column("tokens", [Text(case.outcome, style=COLOURS[case.outcome]) for case in cases], "left"),
    ]
    print_columns(stdout, [Column("drafter", [case.drafter for case in cases], "left")], columns)


def _accepted(cases: list[Case]) -> str:
    return f"{sum(case.accepted for case in cases)}/{sum(case.drafted for case in cases)}"


def _as_json(model: str, cases: list[Case]) -> dict[str, Any]:
    return {
        "model": model,
        "passed": all(case.outcome != "different" for case in cases),
        "cases": [
            {
                "speculative_model": case.drafter,
                "num_speculative_tokens": shown(case.length),
                "temperature": case.temperature,
                "batch_size": case.batch_size,
                "prompts": case.prompts,
                "drafted": case.drafted,
                "accepted": case.accepted,
                "outcome": case.outcome,
                "differences": [
                    {
                        "prompt": d.prompt,
                        "position": d.position,
                        "plain": d.plain,
                        "speculative": d.speculative,
                        "gap": d.gap.size if d.gap else None,
                        "rounding": d.gap.rounding if d.gap else None,
                    }
                    for d in case.differences
                ],
            }
            for case in cases
        ],
    }
