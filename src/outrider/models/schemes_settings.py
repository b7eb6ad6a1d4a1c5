"""What config.json says of a quantisation scheme."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown

FACTS = ("quant_algo", "quant_type", "format", "fmt", "bits", "load_in_4bit", "load_in_8bit")


@dataclass(frozen=True)
class SchemeSettings:
    """method: the scheme's name; place: the key or file that the values are from."""

    folder: Path
    method: str
    place: str
    values: Mapping[str, Any]

    @property
    def named(self) -> str:
        """The scheme, and the settings that tell its variants apart."""
        facts = [f"{fact} = {shown(self.values[fact])}" for fact in FACTS if self.values.get(fact)]
        spelt = self.method if self.method.isprintable() and len(self.method) < 80 else shown(self.method)
        return f"{spelt} with {', '.join(facts)}" if facts else spelt

    def need(self, key: str, *right: Any, default: Any = None) -> Any:
        """The value of a setting, which has to be one of these, in capitals or not. Raises ModelError."""
        value = self.values.get(key, default)
        if (value.lower() if isinstance(value, str) else value) not in right:
            raise self.unsupported(f"{key} = {shown(value)}; supported is {' or '.join(map(shown, right))}")
        return value

    def unsupported(self, said: str) -> ModelError:
        return ModelError(f"{self.folder}: weights quantised by {self.named} ({self.place}), with {said}")
