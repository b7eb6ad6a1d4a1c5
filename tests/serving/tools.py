"""Tiny models whose templates lay out tools and reasoning, and what tests ask of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from tests.factories import CHAT_TEMPLATE, tiny_config, tiny_tokenizer, write_model

HERMES = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
THINKING = HERMES.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% elif reasoning_effort == 'high' %}<think>\n{% endif %}{% endif %}",
)
HARMONY = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content or '' }}<|end|>{% endfor %}"
    "<|start|>assistant{# <|channel|>analysis #}"
)
HARMONY_TOKENS = (
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
    "<|constrain|>",
    "<|return|>",
    "<|call|>",
)
SHORT: dict[str, Any] = {"type": "string", "maxLength": 5}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A tool, all of whose arguments are required."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "does", "parameters": schema}}


TOOLS: Any = [
    tool("weather", unit={"enum": ["C", "F"]}, days={"type": "integer", "minimum": 0, "maximum": 31}),
    tool("now"),
    tool("say", it=SHORT),
]
MESSAGES: Any = [{"role": "user", "content": "hi"}]


def write(path: Path, template: str = CHAT_TEMPLATE, *special: str, added: tuple[str, ...] = ()) -> str:
    """A tiny model with this template; `special` and `added` are tokens of its tokenizer."""
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer(added)
    backend = tokenizer.backend_tokenizer
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    write_model(path, tiny_config(vocab_size=len(tokenizer)), tokenizer=tokenizer)
    return str(path)


def check_call(call: Any) -> None:
    """Raise where a call is not of one of the tools, or its arguments do not fit."""
    schemas = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}
    jsonschema_rs.validate(schemas[call.function.name], json.loads(call.function.arguments))
    assert call.type == "function"
    assert call.id.startswith("call_")


def streamed(chunks: Any) -> dict[str, Any]:
    """What a stream of one sequence comes to, as OpenAI's documentation says how to put it together."""
    message: dict[str, Any] = {"content": "", "reasoning": "", "calls": [], "reason": None}
    for chunk in chunks:
        (choice,) = chunk.choices
        delta = choice.delta
        message["content"] += delta.content or ""
        message["reasoning"] += getattr(delta, "reasoning_content", None) or ""
        message["reason"] = choice.finish_reason or message["reason"]
        for piece in delta.tool_calls or ():
            if piece.index == len(message["calls"]):
                assert piece.type == "function"
                message["calls"].append([piece.id, piece.function.name, ""])
            message["calls"][piece.index][2] += piece.function.arguments or ""
    return message


def in_one(answer: Any) -> dict[str, Any]:
    """The same of a whole answer."""
    (choice,) = answer.choices
    message = choice.message
    calls = [[call.id, call.function.name, call.function.arguments] for call in message.tool_calls or ()]
    return {
        "content": message.content or "",
        "reasoning": getattr(message, "reasoning_content", None) or "",
        "calls": calls,
        "reason": choice.finish_reason,
    }
