"""Quantisation schemes of other engines, which are recognised to be refused.

A scheme says how codes and scales become weights. Read without it, they are numbers like others, and the
model talks nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.json_file import read_json

KEYS = {
    "quantization_config": "",
    "compression_config": "compressed-tensors",
    "quantization": "MLX",
    "quantize_config": "",
}
"""Keys of config.json that hold a scheme, and whose scheme it is where it does not say so itself."""
FILES = {
    "hf_quant_config.json": "modelopt",
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
}
"""Files beside config.json that hold a scheme, and whose it usually is."""
MARKS = {
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
    "group_size": "MLX",
}
"""Settings by which a scheme without a name is known."""
FACTS = ("quant_algo", "quant_type", "format", "fmt", "bits", "w_bit", "load_in_4bit", "load_in_8bit")
ADVICE = "which is not supported; use unquantised safetensors or a GGUF file"


def refuse_scheme(raw: Mapping[str, Any], folder: Path) -> None:
    """Raise ModelError, naming it, if a folder's weights are quantised by a scheme. raw: its config.json."""
    for key, usual in KEYS.items():
        if raw.get(key):
            raise ModelError(f"{folder}: weights quantised by {_named(raw[key], usual)} ({key}), {ADVICE}")
    for name, usual in FILES.items():
        if (folder / name).exists():
            scheme = _named(read_json(folder / name), usual)
            raise ModelError(f"{folder}: weights quantised by {scheme} ({name}), {ADVICE}")


def _named(settings: Any, usual: str) -> str:
    """What a scheme calls itself, and the settings that tell its variants apart."""
    if not isinstance(settings, Mapping):
        return shown(settings)
    inner = settings.get("quantization")
    settings = {**settings, **inner} if isinstance(inner, Mapping) else settings
    marks = (owner for mark, owner in MARKS.items() if settings.get(mark))
    name = settings.get("quant_method") or usual or next(marks, "a scheme without a name")
    facts = [f"{fact} = {shown(settings[fact])}" for fact in FACTS if settings.get(fact)]
    spelt = name if isinstance(name, str) and name.isprintable() and len(name) < 80 else shown(name)
    return f"{spelt} with {', '.join(facts)}" if facts else spelt
