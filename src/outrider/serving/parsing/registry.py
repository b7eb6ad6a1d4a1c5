"""The forms that are known, by vLLM's names, and which of them a model has."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TypeVar

from outrider.errors import ConfigError
from outrider.serving.parsing.deepseek import DeepSeekV3, DeepSeekV31
from outrider.serving.parsing.dialect import Dialect, Tagged
from outrider.serving.parsing.format import ToolFormat
from outrider.serving.parsing.gemma import FunctionGemma, Gemma4
from outrider.serving.parsing.harmony import Harmony, HarmonyCalls
from outrider.serving.parsing.hermes import Hermes
from outrider.serving.parsing.llama3 import Llama3Json
from outrider.serving.parsing.mistral import Mistral, MistralNamed
from outrider.serving.parsing.phi import Phi4Mini
from outrider.serving.parsing.pythonic import Llama4Pythonic, Pythonic
from outrider.serving.parsing.qwen3_coder import Qwen3Coder
from outrider.serving.parsing.thinking import BRACKETS, CHANNEL, TAGS, Thinking

TOOL_PARSERS: Mapping[str, tuple[ToolFormat, ...]] = {
    "openai": (HarmonyCalls(),),
    "gemma4": (Gemma4(),),
    "functiongemma": (FunctionGemma(),),
    "deepseek_v31": (DeepSeekV31(),),
    "deepseek_v3": (DeepSeekV3(),),
    "mistral": (MistralNamed(), Mistral()),
    "qwen3_coder": (Qwen3Coder(),),
    "hermes": (Hermes(),),
    "phi4_mini_json": (Phi4Mini(),),
    "llama4_pythonic": (Llama4Pythonic(),),
    "pythonic": (Pythonic(),),
    "llama3_json": (Llama3Json(),),
}
"""In the order in which a template is asked; of several forms of one name the last is taken for any."""
REASONING_PARSERS: Mapping[str, Thinking | None] = {
    "openai_gptoss": None,
    "gemma4": CHANNEL,
    "mistral": BRACKETS,
    "deepseek_r1": TAGS,
    "deepseek_v3": TAGS,
    "qwen3": TAGS,
    "glm45": TAGS,
}
(FALLBACK,) = TOOL_PARSERS["hermes"]
"""The form for models whose templates know no tools, or in no form that is known."""
HARMONY = ("openai", "openai_gptoss")
T = TypeVar("T")


def format_of(template: str, name: str | None) -> ToolFormat | None:
    """The form of calls in a chat template, or the one of this name; None where none is known.

    Raises ConfigError for a name that is not known.
    """
    if name is None:
        return next((form for form in chain(*TOOL_PARSERS.values()) if form.is_of(template)), None)
    forms = _named("tool_call_parser", name, TOOL_PARSERS)
    return next((form for form in forms if form.is_of(template)), forms[-1])


def dialect_of(template: str, tools: ToolFormat, reasoning: str | None) -> Dialect:
    """How a model with this chat template and this form of calls answers. reasoning: a parser's name.

    Raises ConfigError for a name that is not known.
    """
    thinking = None if reasoning is None else _named("reasoning_parser", reasoning, REASONING_PARSERS)
    if isinstance(tools, HarmonyCalls) or reasoning in HARMONY:
        return Harmony()
    known = (each for each in REASONING_PARSERS.values() if each is not None and each.is_of(template))
    return Tagged(tools, thinking or next(known, None))


def _named(option: str, name: str, parsers: Mapping[str, T]) -> T:
    if name not in parsers:
        raise ConfigError(
            f"{option} = {name!r} is not known; give one of {', '.join(sorted(parsers))}", option
        )
    return parsers[name]
