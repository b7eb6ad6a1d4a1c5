"""The tokens of a folder's tokenizer with which an output ends.

config.json and generation_config.json name some, and often not the one that ends a turn of a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from outrider.models.end_texts import END_TEXTS, ends_among
from outrider.models.json_file import read_json
from outrider.models.tokenizer_files import SETTINGS, TOKENS, read_tokenizer_settings


def ends_of_tokenizer(folder: Path) -> dict[str, int]:
    """By where they stand: the tokenizer's EOS, and known ends of a turn that its chat template writes.

    A known text counts only where it is a special token and the template writes it: that is how the model's
    turns were ended in training, whatever the configurations forget. Raises ModelError for a broken file.
    """
    if not (folder / TOKENS).exists():
        return {}
    settings = read_tokenizer_settings(folder)
    eos = settings.named["eos_token"].content if "eos_token" in settings.named else None
    tokens = read_json(folder / TOKENS)
    added = {entry["content"]: entry for entry in _added(tokens)}
    ends = {}
    if eos is not None:
        token = added[eos]["id"] if eos in added else _vocabulary(tokens).get(eos)
        if token is not None:
            ends[f"eos_token of {SETTINGS}"] = token
    template = "\n".join(settings.templates.values())
    special = {text for text, entry in added.items() if entry.get("special") is True}
    for text in ends_among(END_TEXTS & special):
        if text in template:
            ends[f"{text!r} of {TOKENS}"] = added[text]["id"]
    return ends


def _added(tokens: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    entries = tokens.get("added_tokens")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("content"), str) and "id" in entry:
            yield entry


def _vocabulary(tokens: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokens.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    return vocabulary if isinstance(vocabulary, Mapping) else {}
