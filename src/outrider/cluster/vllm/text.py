"""What is read of a model whose weights vLLM reads: its tokenizer, its ends, and how it should be sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.cluster.vllm.config import VllmConfig
from outrider.engine.defaults import default_params
from outrider.errors import ModelError
from outrider.models.chat_template import read_template
from outrider.models.checkpoint import locate
from outrider.models.end_of_turn import ends_of_tokenizer
from outrider.models.generation import sampling_defaults
from outrider.models.json_file import read_json
from outrider.models.settings import stop_tokens
from outrider.models.tokenizer import Tokenizer, load_tokenizer

FILES = ("*.json", "*.jinja", "tokenizer.model")
"""What of a hub's repository is brought here; vLLM brings the weights where it computes."""
ENDS = "eos_token_id"


@dataclass(frozen=True)
class ModelText:
    """ends: the tokens that end an output; defaults: of sampling, by the names of SamplingParams."""

    tokenizer: Tokenizer
    ends: tuple[int, ...]
    defaults: Mapping[str, Any]


def read_text(config: VllmConfig) -> ModelText:
    """Read it. The model may be of any family, since its layers are not looked at. Raises ModelError."""
    path = locate(config.model, config.revision, FILES)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no config.json; vLLM reads folders of Hugging Face's layout")
    words = path if config.tokenizer is None else locate(config.tokenizer, files=FILES)
    raw = read_json(path / "config.json")
    text = {**raw, **(raw.get("text_config") or {})}
    generation = _generation(path)
    tokenizer = load_tokenizer(words)
    if config.chat_template is not None:
        tokenizer = tokenizer.with_template(read_template(config.chat_template))
    vocab = text.get("vocab_size") or tokenizer.backend.get_vocab_size()
    named = {
        **{f"{ENDS} of config.json": each.get(ENDS) for each in (raw, text)},
        f"{ENDS} of generation_config.json": generation.get(ENDS),
        **ends_of_tokenizer(words),
    }
    ends = stop_tokens(named, vocab, str(path))
    defaults = default_params(config, sampling_defaults(generation or raw), ends, vocab)
    return ModelText(tokenizer, ends, defaults)


def _generation(path: Path) -> Mapping[str, Any]:
    file = path / "generation_config.json"
    return read_json(file) if file.is_file() else {}
