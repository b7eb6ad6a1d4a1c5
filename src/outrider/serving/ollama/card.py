"""What Ollama's clients are told of the model and the server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Any

from outrider.llm import LLM
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import tensors

API_VERSION = "0.12.0"
"""The version of Ollama whose API this is. Clients compare it with what they need, so it is not ours."""
NEVER = "2318-01-01T00:00:00Z"
"""When the model is unloaded; Ollama writes a time this far for `keep_alive: -1`."""


@dataclass(frozen=True)
class Card:
    """One model. size: bytes of its weights as they are stored; format: of its linear layers; context: tokens
    that a request may have; hidden: the width of a row."""

    name: str
    family: str
    parameters: int
    size: int
    format: str
    context: int
    hidden: int
    layers: int
    template: str
    modified: str

    def listed(self) -> dict[str, Any]:
        """An entry of /api/tags."""
        return {
            "name": self.name,
            "model": self.name,
            "modified_at": self.modified,
            "size": self.size,
            "digest": self._digest(),
            "details": self._details(),
        }

    def running(self) -> dict[str, Any]:
        """An entry of /api/ps."""
        entry = {name: value for name, value in self.listed().items() if name != "modified_at"}
        return {**entry, "expires_at": NEVER, "size_vram": 0, "context_length": self.context}

    def shown(self) -> dict[str, Any]:
        """What /api/show answers."""
        return {
            "modelfile": "",
            "parameters": "",
            "template": self.template,
            "details": self._details(),
            "model_info": {
                "general.architecture": self.family,
                "general.parameter_count": self.parameters,
                f"{self.family}.context_length": self.context,
                f"{self.family}.embedding_length": self.hidden,
                f"{self.family}.block_count": self.layers,
            },
            "capabilities": self._capabilities(),
            "modified_at": self.modified,
        }

    def _details(self) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": _short(self.parameters),
            "quantization_level": self.format,
        }

    def _capabilities(self) -> list[str]:
        # A template that can be told how to think is one of a model that thinks.
        thinks = any(variable in self.template for variable in ("enable_thinking", "reasoning_effort"))
        return ["completion", "tools", *(["thinking"] if thinks else [])]

    def _digest(self) -> str:
        """Tells models apart. It is none of a file's contents, which would have to be read for it."""
        return hashlib.sha256(
            f"{self.name} {self.family} {self.parameters} {self.format}".encode()
        ).hexdigest()


def card_of(llm: LLM, name: str, modified: str) -> Card:
    """Reads the headers of the model's files. Raises ModelError where they are gone."""
    config, model = llm.engine.config, llm.engine.target.model.config
    checkpoint = open_checkpoint(
        config.model, revision=config.revision, tokenizer=config.tokenizer, positions=config.max_model_len
    )
    sizes = {tensor: prod(tensor.shape) for tensor in tensors(model.tree)}
    template = llm.tokenizer.chat_template
    return Card(
        name=name,
        family=model.architecture.removesuffix("ForCausalLM").lower(),
        parameters=sum(sizes.values()),
        size=round(sum(size * checkpoint.format(tensor).bits / 8 for tensor, size in sizes.items())),
        format=checkpoint.stored_as,
        context=llm.engine.max_model_len,
        hidden=model.hidden_size,
        layers=model.num_layers,
        template="" if template is None else template.source,
        modified=modified,
    )


def _short(count: int) -> str:
    """A number of parameters, as models are named by it."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
