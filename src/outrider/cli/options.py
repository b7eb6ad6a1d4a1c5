"""Options that several commands share."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli.console import say, stderr
from outrider.cli.importing import importing
from outrider.cli.startup import starting
from outrider.errors import ConfigError

if TYPE_CHECKING:
    from outrider.finding.auto import Findings
    from outrider.llm import LLM

MODEL, DRAFTS, ANSWERS, MEASURING = "Model", "Speculation", "Answers", "Measurement"
"""Groups of options, as --help names them."""

TARGET = "Target: a folder, a hub id, a GGUF file, or 'smollm2'."
ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help=TARGET, rich_help_panel=MODEL)
]
DrafterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--speculative-model",
        "-d",
        metavar="NAME",
        help="Drafter: 'auto' (the default) for what is found on this disk, 'none', 'suffix', an EAGLE-3 "
        "head ('head' is SmolLM2's), 'mtp' for the layer that the target brings for it, a draft model with "
        "the target's tokenizer, or 'self:int4' for the target's own weights at 4 bits. Repeatable: each is "
        "asked where those before it have nothing to offer.",
        rich_help_panel=DRAFTS,
    ),
]
LengthOption = Annotated[
    str | None,
    typer.Option(
        "--num-speculative-tokens",
        "-k",
        metavar="N|auto",
        help="Draft length; 0 is plain decoding, 'auto' (the default) what pays best.",
        rich_help_panel=DRAFTS,
    ),
]
WorkloadOption = Annotated[
    str | None,
    typer.Option(
        metavar="structured|creative",
        help="Bounds of the automatic draft length: longer drafts for code and the like, shorter ones for "
        "open-ended text.",
        rich_help_panel=DRAFTS,
    ),
]
DraftQuantizationOption = Annotated[
    str | None,
    typer.Option(
        metavar="int8|int4",
        help="Quantise the weights of draft models when they are loaded, on the CPU.",
        rich_help_panel=DRAFTS,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="outrider|vllm",
        help="What computes. vLLM's own options are given with --set.",
        rich_help_panel=MODEL,
    ),
]
MaxTokensOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="Tokens to generate at most.", rich_help_panel=ANSWERS)
]
TemperatureOption = Annotated[
    float,
    typer.Option(min=0.0, metavar="T", help="0 chooses the likeliest token.", rich_help_panel=ANSWERS),
]
SeedOption = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of the sampling noise.", rich_help_panel=ANSWERS)
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="JSON lines with 'turns' and 'category' (the form of Spec-Bench); else built-in ones.",
        rich_help_panel=MEASURING,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Take at most this many prompts of each category.",
        rich_help_panel=MEASURING,
    ),
]
BatchSizesOption = Annotated[
    list[int],
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        metavar="N",
        help="Prompts at a time. Repeatable.",
        rich_help_panel=MEASURING,
    ),
]
RoundsOption = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Rounds; medians over them are reported.", rich_help_panel=MEASURING
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="Resident memory that this process may take, for example 512MiB; what does not fit is refused "
        "before it is loaded. See `outrider plan`.",
        rich_help_panel=MODEL,
    ),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="Another option of LLM, for example -s max_model_len=2048; a mapping is given as JSON. "
        "Repeatable.",
        rich_help_panel=MODEL,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable results on stdout.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="More columns.")]


PositionalModel = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=f"{TARGET} Default: smollm2.")]
SameModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="The same, as an option.", rich_help_panel=MODEL),
]


def one_model(name: str | None, option: str | None) -> str:
    """The model of a command that takes it with and without --model."""
    if name is not None and option is not None:
        raise ConfigError(f"two models are given, {name!r} and --model {option!r}; drop one")
    return name or option or "smollm2"


def load(
    model: str,
    drafters: list[str] | None,
    length: str | None,
    workload: str | None,
    draft_quantization: str | None,
    settings: list[str] | None,
    memory_limit: str | None = None,
    *,
    engine: str | None = None,
    quiet: bool = False,
    **defaults: Any,
) -> LLM:
    """The LLM that the options describe; `settings` win over `defaults`. quiet: without a line that says what
    is being loaded."""
    given = {"memory_limit": memory_limit, "engine": engine}
    defaults |= {name: value for name, value in given.items() if value is not None}
    options = options_of(drafters, length, workload, draft_quantization, settings, **defaults)
    with starting(quiet=quiet) as listener:
        with importing():
            from outrider.llm import LLM

        llm = LLM(model, listener=listener, **options)
    if not quiet:
        say_found(llm.found)
    return llm


def say_found(found: Findings | None) -> None:
    """The drafters that were found, on a terminal whose log does not say it."""
    logged = logging.getLogger("outrider").isEnabledFor(logging.INFO)
    if found is not None and stderr.is_terminal and not logged:
        say(stderr, str(found), "dim")


def measured_drafters(llm: LLM) -> list[str]:
    """What is compared with the target alone. Raises ConfigError where that is nothing."""
    if not llm.about.drafters:
        raise ConfigError("speculative_model = 'none' leaves nothing to measure; give a drafter, or 'auto'")
    return list(llm.about.drafters)


def options_of(
    drafters: list[str] | None,
    length: str | None,
    workload: str | None,
    draft_quantization: str | None,
    settings: list[str] | None,
    **defaults: Any,
) -> dict[str, Any]:
    """The options of LLM that those of the command line mean; `settings` win over `defaults`. Where they name
    no drafters, our engine is to find some."""
    from outrider.config import OWN_ENGINE

    options = defaults | settings_of(settings)
    seeks = options.get("engine", OWN_ENGINE) == OWN_ENGINE
    if drafters:
        options["speculative_model"] = one_or_list(drafters)
    elif seeks and not options.keys() & {"speculative_model", "speculative_config"}:
        options["speculative_model"] = "auto"
    if length is not None:
        options["num_speculative_tokens"] = _length(length)
    if workload is not None:
        options["workload"] = workload
    if draft_quantization is not None:
        options["draft_quantization"] = draft_quantization
    return options


def settings_of(settings: list[str] | None) -> dict[str, Any]:
    """The options of LLM that --set gives."""
    return dict(_setting(setting) for setting in settings or [])


def one_or_list(drafters: list[str]) -> str | list[str]:
    """`speculative_model` as LLM takes it: one drafter's name, or the names of a chain."""
    return drafters[0] if len(drafters) == 1 else drafters


def _length(text: str) -> str | int:
    if text == "auto":
        return text
    if text.isdecimal():
        return int(text)
    raise ConfigError(f"num_speculative_tokens = {text!r}: give a number from 0 on, or 'auto'")


def fixed_length(text: str | None) -> int:
    """The number of drafted tokens of an engine that finds none by itself. Raises ConfigError."""
    length = "auto" if text is None else _length(text)
    if not isinstance(length, int) or not length:
        raise ConfigError(f"num_speculative_tokens = {length!r}: vLLM drafts a fixed number; give one from 1")
    return length


def _setting(setting: str) -> tuple[str, Any]:
    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{setting!r}: give NAME=VALUE", param_hint="--set")
    from outrider.config import MAPPINGS, OPTIONS, OWN
    from outrider.validation import refuse_unknown

    name = name.strip().replace("-", "_")
    refuse_unknown({name} & {"model"}, OPTIONS, "LLM")  # LLM itself refuses any other one
    if name in MAPPINGS:
        return name, mapping(name, value)
    return name, value if name in OWN else json_or_text(value)


def json_or_text(text: str) -> Any:
    """A value as `LLM` is given it: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def mapping(name: str, text: str) -> Any:
    """An option that is given as JSON. Raises ConfigError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r} is not JSON ({error}); give a mapping, in quotes") from None
