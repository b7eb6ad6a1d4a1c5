"""Adapters, which Outrider does not load."""

from typing import Any

from outrider.foreign import refuse_lora


class LoRARequest:
    """Making one raises ConfigError, which says what to do instead."""

    def __init__(self, lora_name: str, *arguments: Any, **named: Any) -> None:
        refuse_lora(lora_name)


__all__ = ["LoRARequest"]
