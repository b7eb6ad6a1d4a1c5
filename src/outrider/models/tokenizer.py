"""The tokenizer of a model: text to token ids and back, its special tokens and its chat template."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.models import BPE

from outrider.errors import ModelError
from outrider.messages import listed, reason
from outrider.models.chat_template import ChatTemplate
from outrider.models.tokenizer_files import SETTINGS, TOKENS, TokenizerSettings, read_tokenizer_settings

logger = logging.getLogger(__name__)

OTHERS = ("tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files in which older tokenizers are stored."""
PROBE = "\n\nThe end of the line, isn't it?  na\u00efve \u65e5\u672c\u8a9e \U0001f642 12345\t."
"""Words and marks, spaces, digits, and characters of one to four bytes."""


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """What a model's tokenizer does is what the library `tokenizers` makes of its file; this is what stands
    around it. Nothing of it changes, so threads may share it.

    special_tokens: by role, `bos_token` and so on; templates: chat templates by name.
    """

    backend: tokenizers.Tokenizer
    special_tokens: Mapping[str, str]
    templates: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.backend.no_truncation()  # which a file may ask for, for training
        self.backend.no_padding()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """add_special_tokens: those that the tokenizer puts before and after a text, BOS for example. Special
        tokens that the text itself has are found in any case."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of all tokens; what has no token is left out. See `Detokenizer` for one at a time."""
        text: str = self.backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def token_to_id(self, token: str) -> int | None:
        number: int | None = self.backend.token_to_id(token)
        return number

    def id_to_token(self, token_id: int) -> str | None:
        """A token as the vocabulary writes it; None for an id that has none."""
        token: str | None = self.backend.id_to_token(token_id)
        return token

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, of those too that were added."""
        ids: dict[str, int] = self.backend.get_vocab(with_added_tokens=True)
        return ids

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def bos_token(self) -> str | None:
        return self.special_tokens.get("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        return None if self.bos_token is None else self.token_to_id(self.bos_token)

    @property
    def eos_token(self) -> str | None:
        return self.special_tokens.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        return None if self.eos_token is None else self.token_to_id(self.eos_token)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The default one of its templates."""
        source = self.templates.get("default")
        return ChatTemplate(source, self.special_tokens) if source else None

    def with_template(self, source: str) -> Tokenizer:
        """The same with another chat template."""
        return replace(self, templates={**self.templates, "default": source})

    def save(self, folder: Path) -> None:
        """Write the files that `load_tokenizer` reads, and transformers too."""
        self.backend.save(str(folder / TOKENS))
        templates = [{"name": name, "template": template} for name, template in self.templates.items()]
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special_tokens}
        if templates:
            settings["chat_template"] = templates
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a folder, which need not hold a model. Raises ModelError.

    It is what its tokenizer.json says, whatever class tokenizer_config.json names: transformers has classes
    that take the vocabulary of the file and split text in their own way. So `legacy`, `add_prefix_space`,
    `add_bos_token` and `add_eos_token`, which are for those classes, change nothing.
    """
    if not (path / TOKENS).is_file():
        raise ModelError(f"{path}: the tokenizer cannot be loaded without a {TOKENS}: {_instead(path)}")
    settings = read_tokenizer_settings(path)
    try:
        backend = tokenizers.Tokenizer.from_file(str(path / TOKENS))
        _add(backend, settings)
        backend.encode_special_tokens = settings.split_special
        padding = {"pad_token": backend.padding["pad_token"]} if backend.padding else {}
        special = padding | {role: token.content for role, token in settings.named.items()}
        tokenizer = Tokenizer(backend, special, settings.templates)
        tokenizer.decode(tokenizer.encode(PROBE))  # some of what a file may have wrong comes up only here
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises anything, and a panic of Rust is no Exception
        raise ModelError(f"{path}: the tokenizer cannot be loaded: {reason(error)}") from error
    if settings.clean_up and not isinstance(backend.model, BPE):
        logger.warning(
            "%s: clean_up_tokenization_spaces = true is not followed: a text is what the tokens say", path
        )
    return tokenizer


def _add(backend: tokenizers.Tokenizer, settings: TokenizerSettings) -> None:
    """Add the tokens that the settings have and tokenizer.json has not, or has with other properties."""
    there = backend.get_added_tokens_decoder()
    held = {repr(token) for token in there.values()}
    by_id = {**settings.older, **there, **settings.listed}
    added = {token.content: token for _, token in sorted(by_id.items()) if repr(token) not in held}
    known = {token.content for token in there.values()}
    for token in (*settings.named.values(), *settings.extra):
        if token.content not in known:
            added.setdefault(token.content, token)
    named = {token.content for token in settings.named.values()}
    for token in added.values():
        token.special = token.special or token.content in named
    backend.add_tokens(list(added.values()))


def _instead(path: Path) -> str:
    """What there is, and what to do about it."""
    there = [name for name in OTHERS if (path / name).is_file()]
    what = f"{listed(there)} can be turned into one" if there else "there is none of any kind"
    how = (
        " where transformers is installed, by AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        if there
        else ""
    )
    return f"{what}{how}; or give a folder that has it with tokenizer="
