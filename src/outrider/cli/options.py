"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.llm import LLM

ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="Target: a folder, a hub id, a GGUF file, or 'smollm2'."),
]
DrafterOption = Annotated[
    str | None,
    typer.Option(
        "--speculative-model", "-d", help="Drafter: 'ngram', or a draft model with the target's tokenizer."
    ),
]
LengthOption = Annotated[
    int | None,
    typer.Option("--num-speculative-tokens", "-k", min=0, help="Draft length; 0 is plain decoding."),
]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="Tokens to generate at most.")]
TemperatureOption = Annotated[float, typer.Option(min=0.0, help="0 chooses the likeliest token.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the sampling noise.")]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="JSON lines with 'category' and 'turns' (the form of Spec-Bench); else built-in ones.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Take at most this many prompts of each category.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable results on stdout.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="Another option of LLM, for example [b]-s max_model_len=2048[/b]. Repeatable.",
    ),
]


def load(
    model: str, drafter: str | None, length: int | None, settings: list[str] | None, **defaults: Any
) -> LLM:
    """The LLM that the options describe; `settings` win over `defaults`."""
    options = defaults | dict(_setting(setting) for setting in settings or [])
    if drafter is not None:
        options["speculative_model"] = drafter
    if length is not None:
        options["num_speculative_tokens"] = length
    return LLM(model, **options)


def _setting(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{setting!r}: give NAME=VALUE", param_hint="--set")
    return name.strip().replace("-", "_"), value
