"""The tokens of a folder's tokenizer with which an output ends.

config.json and generation_config.json name some, and often not the one that ends a turn of a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from outrider.models.end_texts import END_TEXTS, ends_among
from outrider.models.json_file import read_json

SETTINGS, TOKENS, SPECIAL = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"


def ends_of_tokenizer(folder: Path) -> dict[str, int]:
    """By where they stand: the tokenizer's EOS, and known ends of a turn that its chat template writes.

    A known text counts only where it is a special token and the template writes it: that is how the model's
    turns were ended in training, whatever the configurations forget. Raises ModelError for a broken file.
    """
    if not (folder / TOKENS).exists():
        return {}
    settings = _object(folder / SETTINGS)
    eos = _text(settings.get("eos_token") or _object(folder / SPECIAL).get("eos_token"))
    tokens = read_json(folder / TOKENS)
    added = {entry["content"]: entry for entry in _added(tokens)}
    ends = {}
    if eos is not None:
        token = added[eos]["id"] if eos in added else _vocabulary(tokens).get(eos)
        if token is not None:
            ends[f"eos_token of {SETTINGS}"] = token
    template = _template(folder, settings)
    special = {text for text, entry in added.items() if entry.get("special") is True}
    for text in ends_among(END_TEXTS & special):
        if text in template:
            ends[f"{text!r} of {TOKENS}"] = added[text]["id"]
    return ends


def _object(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def _text(token: Any) -> str | None:
    """A special token is a text, or an object that has one."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _added(tokens: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    entries = tokens.get("added_tokens")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("content"), str) and "id" in entry:
            yield entry


def _vocabulary(tokens: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokens.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    return vocabulary if isinstance(vocabulary, Mapping) else {}


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """The text of all chat templates."""
    given = settings.get("chat_template")
    entries = given if isinstance(given, list) else [{"template": given}]
    texts = [entry.get("template") for entry in entries if isinstance(entry, Mapping)]
    file = folder / TEMPLATE
    if file.is_file():
        texts.append(file.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(text for text in texts if isinstance(text, str))
