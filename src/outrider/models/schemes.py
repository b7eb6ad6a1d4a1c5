"""The weights of a folder, and the quantisation schemes of other engines that they may be stored by.

A scheme says how codes and scales become weights. Read without it, they are numbers like others, and the
model talks nonsense: a scheme that is not known is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.json_file import read_json
from outrider.models.schemes_awq import awq
from outrider.models.schemes_compressed import compressed
from outrider.models.schemes_fp8 import fbgemm, fp8
from outrider.models.schemes_gptq import gptq
from outrider.models.schemes_layer import Scheme
from outrider.models.schemes_mxfp4 import mxfp4
from outrider.models.schemes_settings import SchemeSettings
from outrider.models.shards import open_shards
from outrider.models.stored import StoredTensor

KEYS = {
    "quantization_config": "",
    "compression_config": "compressed-tensors",
    "quantization": "MLX",
    "quantize_config": "",
}
"""Keys of config.json that hold a scheme, and whose scheme it is where it does not say so itself."""
FILES = {
    "hf_quant_config.json": "modelopt",
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
}
"""Files beside config.json that hold a scheme, and whose it usually is."""
MARKS = {
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
    "group_size": "MLX",
}
"""Settings by which a scheme without a name is known."""
SCHEMES: dict[str, Callable[[SchemeSettings], Scheme]] = {
    "fp8": fp8,
    "fbgemm_fp8": fbgemm,
    "awq": awq,
    "gptq": gptq,
    "compressed-tensors": compressed,
    "mxfp4": mxfp4,
}
UNQUANTISED = Scheme(frozenset())
ADVICE = f"which is not supported; supported are {', '.join(SCHEMES)}, unquantised safetensors and GGUF files"
OLDER = {"w_bit": "bits", "q_group_size": "group_size"}
"""What AutoAWQ's file calls settings that config.json calls otherwise."""


def open_weights(folder: Path, raw: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """The weights of a folder by their names, of which a scheme may make one from several tensors.

    raw: the folder's config.json. Raises ModelError for a scheme that is not supported, and for layers that
    are not as theirs has them. A tensor that no scheme makes a weight of is refused when it is used.
    """
    scheme = scheme_of(raw, folder)
    tensors = open_shards(folder)
    if scheme.make is not None and not scheme.is_used(tensors):
        raise ModelError(f"{folder}: weights are said to be quantised (quantization_config), but none is")
    beside: dict[str, list[str]] = defaultdict(list)
    for name in tensors:
        beside[_layer_of(name)].append(name)
    return scheme.apply(tensors, lambda tensor: tensor.stored(beside[_layer_of(tensor.name)]))


def scheme_of(raw: Mapping[str, Any], folder: Path) -> Scheme:
    """The scheme of a folder's weights. Raises ModelError."""
    text = raw.get("text_config")
    for key, usual in KEYS.items():
        for config in (raw, text if isinstance(text, Mapping) else {}):
            if config.get(key):
                return _scheme(config[key], usual, key, folder)
    for name, usual in FILES.items():
        if (folder / name).exists():
            return _scheme(read_json(folder / name), usual, name, folder)
    return UNQUANTISED


def _scheme(values: Any, usual: str, place: str, folder: Path) -> Scheme:
    if not isinstance(values, Mapping):
        raise ModelError(f"{folder}: weights quantised by {shown(values)} ({place}), {ADVICE}")
    inner = values.get("quantization")
    values = {**values, **inner} if isinstance(inner, Mapping) else values
    values = {OLDER.get(key, key): value for key, value in values.items()}
    marks = (owner for mark, owner in MARKS.items() if values.get(mark))
    method = values.get("quant_method") or usual or next(marks, "a scheme without a name")
    settings = SchemeSettings(folder, method if isinstance(method, str) else shown(method), place, values)
    make = SCHEMES.get(settings.method.lower())
    if make is None:
        raise ModelError(f"{folder}: weights quantised by {settings.named} ({place}), {ADVICE}")
    return replace(make(settings), name=settings.method.lower())


def _layer_of(name: str) -> str:
    """Without '.weight' and all that follows, or else without the last part."""
    stem, found, _ = name.partition(".weight")
    return stem if found else name.rpartition(".")[0]
