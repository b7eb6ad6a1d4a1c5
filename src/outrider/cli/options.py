"""Options that several commands share."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from outrider.cli.importing import importing
from outrider.cli.startup import starting
from outrider.errors import ConfigError

if TYPE_CHECKING:
    from outrider.llm import LLM

ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="Target: a folder, a hub id, a GGUF file, or 'smollm2'."),
]
_DRAFTER = (
    "Drafter: 'ngram', an EAGLE-3 head ('head' is SmolLM2's), a draft model with the target's tokenizer, or "
    "'self:int4' for the target's own weights at 4 bits. Repeatable: each is asked where those before it "
    "have nothing to offer."
)
DrafterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--speculative-model", "-d", help=f"{_DRAFTER} Default: none, for SmolLM2 'ngram' and 'head'."
    ),
]
MeasuredDrafterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--speculative-model", "-d", help=f"{_DRAFTER} Default 'ngram', for SmolLM2 'head' after it."
    ),
]
LengthOption = Annotated[
    str | None,
    typer.Option(
        "--num-speculative-tokens",
        "-k",
        metavar="N|auto",
        help="Draft length; 0 is plain decoding, 'auto' (the default) what pays best.",
    ),
]
WorkloadOption = Annotated[
    str | None,
    typer.Option(
        metavar="structured|creative",
        help="Bounds of the automatic draft length: longer drafts for code and the like, shorter ones for "
        "open-ended text.",
    ),
]
DraftQuantizationOption = Annotated[
    str | None,
    typer.Option(
        metavar="int8|int4", help="Quantise the weights of draft models when they are loaded, on the CPU."
    ),
]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="Tokens to generate at most.")]
TemperatureOption = Annotated[float, typer.Option(min=0.0, help="0 chooses the likeliest token.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the sampling noise.")]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="JSON lines with 'turns' and 'category' (the form of Spec-Bench); else built-in ones.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Take at most this many prompts of each category.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="Resident memory that this process may take, for example 512MiB; what does not fit is refused "
        "before it is loaded. See [b]outrider plan[/b].",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable results on stdout.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="Another option of LLM, for example [b]-s max_model_len=2048[/b]; a mapping is given as JSON. "
        "Repeatable.",
    ),
]


def usual_drafters(model: str) -> list[str]:
    """What a target gets where no drafter is named."""
    return ["ngram", "head"] if model == "smollm2" else []


def measured_drafters(model: str, named: list[str] | None) -> list[str]:
    """What is measured: without a drafter there is nothing to compare."""
    return named or usual_drafters(model) or ["ngram"]


def load(
    model: str,
    drafters: list[str] | None,
    length: str | None,
    workload: str | None,
    draft_quantization: str | None,
    settings: list[str] | None,
    memory_limit: str | None = None,
    *,
    quiet: bool = False,
    **defaults: Any,
) -> LLM:
    """The LLM that the options describe; `settings` win over `defaults`. quiet: without a line that says what
    is being loaded."""
    if memory_limit is not None:
        defaults["memory_limit"] = memory_limit
    options = options_of(drafters, length, workload, draft_quantization, settings, **defaults)
    if usual_drafters(model) and not options.keys() & {"speculative_model", "speculative_config"}:
        options["speculative_model"] = usual_drafters(model)
    with starting(quiet=quiet) as listener:
        with importing():
            from outrider.llm import LLM

        return LLM(model, listener=listener, **options)


def options_of(
    drafters: list[str] | None,
    length: str | None,
    workload: str | None,
    draft_quantization: str | None,
    settings: list[str] | None,
    **defaults: Any,
) -> dict[str, Any]:
    """The options of LLM that those of the command line mean; `settings` win over `defaults`."""
    options = defaults | dict(_setting(setting) for setting in settings or [])
    if drafters:
        options["speculative_model"] = one_or_list(drafters)
    if length is not None:
        options["num_speculative_tokens"] = _length(length)
    if workload is not None:
        options["workload"] = workload
    if draft_quantization is not None:
        options["draft_quantization"] = draft_quantization
    return options


def one_or_list(drafters: list[str]) -> str | list[str]:
    """`speculative_model` as LLM takes it: one drafter's name, or the names of a chain."""
    return drafters[0] if len(drafters) == 1 else drafters


def _length(text: str) -> str | int:
    if text == "auto":
        return text
    if text.isdecimal():
        return int(text)
    raise ConfigError(f"num_speculative_tokens = {text!r}: give a number from 0 on, or 'auto'")


def _setting(setting: str) -> tuple[str, Any]:
    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{setting!r}: give NAME=VALUE", param_hint="--set")
    from outrider.config import MAPPINGS, OPTIONS
    from outrider.validation import refuse_unknown

    name = name.strip().replace("-", "_")
    refuse_unknown([name], OPTIONS, "LLM")
    return name, mapping(name, value) if name in MAPPINGS else value


def mapping(name: str, text: str) -> Any:
    """An option that is given as JSON. Raises ConfigError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r} is not JSON ({error}); give a mapping, in quotes") from None


class Command(TyperCommand):
    """A command that says how to give an option of LLM that it has none of its own for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for parameter in self.params for option in parameter.opts}
        given = (arg.partition("=")[0] for arg in takewhile(lambda arg: arg != "--", args))
        foreign = [option for option in given if option.startswith("--") and option not in own]
        if foreign and "--set" in own:
            from outrider.config import OPTIONS

            for option in foreign:
                name = option.removeprefix("--").replace("-", "_")
                if name in OPTIONS:
                    raise ConfigError(
                        f"`outrider {self.name}` has no option {option}; give it as -s {name}=VALUE"
                    )
        return super().parse_args(ctx, args)
