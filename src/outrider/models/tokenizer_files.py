"""What stands beside a folder's tokenizer.json: special tokens, tokens that are added, chat templates.

The rules are those of transformers, which writes these files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from outrider.errors import ModelError
from outrider.messages import reason, shown
from outrider.models.json_file import read_json

SETTINGS, TOKENS, SPECIAL = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
ADDED = "added_tokens.json"
TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PROPERTIES = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class TokenizerSettings:
    """named: special tokens by role; extra: special tokens without one.

    older: tokens by id where tokenizer.json does not have one; listed: tokens by id, whatever that has.
    split_special: special tokens in a text are text. clean_up: decoding is to take spaces away.
    """

    named: Mapping[str, AddedToken]
    extra: tuple[AddedToken, ...]
    older: Mapping[int, AddedToken]
    listed: Mapping[int, AddedToken]
    templates: Mapping[str, str]
    split_special: bool
    clean_up: bool


def read_tokenizer_settings(folder: Path) -> TokenizerSettings:
    """Raises ModelError for a file that is broken, or holds a value of a wrong type."""
    source = folder / SETTINGS
    settings = _object(source)
    files = [(settings, source)]
    is_older = "added_tokens_decoder" not in settings
    if is_older:  # there are two more files then
        files.append((_object(folder / SPECIAL), folder / SPECIAL))
    named: dict[str, AddedToken] = {}
    extra: list[AddedToken] = []
    for values, file in files:
        names, others = _special(values, file)
        named, extra = named | names, [*extra, *others]
    special = {token.content for token in (*named.values(), *extra)}
    return TokenizerSettings(
        {role: named[role] for role in (*ROLES, *named) if role in named},
        tuple(extra),
        _of_older_file(folder / ADDED, special) if is_older else {},
        _listed(settings.get("added_tokens_decoder"), source),
        _chat_templates(folder, settings),
        split_special=_flag(settings, "split_special_tokens", source),
        clean_up=_flag(settings, "clean_up_tokenization_spaces", source),
    )


def _special(settings: Mapping[str, Any], source: Path) -> tuple[dict[str, AddedToken], list[AddedToken]]:
    """Special tokens by role, and those without one. A model may have roles of its own."""
    given = {role: settings.get(role) for role in ROLES}
    given |= {k: v for k, v in settings.items() if k.endswith("_token") and _is_token(v)}
    given |= _mapping(settings.get("model_specific_special_tokens"), source, "model_specific_special_tokens")
    name = "extra_special_tokens"
    more = settings.get(name) or settings.get("additional_special_tokens") or []
    if isinstance(more, Mapping):
        given, more = given | dict(more), []
    if not isinstance(more, list):
        raise _wrong(source, name, more, "a list of tokens, or tokens by name")
    named = {role: _token(value, source, role) for role, value in given.items() if value is not None}
    return named, [_token(value, source, name) for value in more]


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and "content" in value)


def _mapping(value: Any, source: Path, name: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise _wrong(source, name, value, "tokens by name")
    return dict(value or {})


def _chat_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name. Files of their own come before what tokenizer_config.json has. Raises ModelError."""
    files = {"default": folder / TEMPLATE} if (folder / TEMPLATE).is_file() else {}
    files |= {file.stem: file for file in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    if files:
        return {name: _read_text(file) for name, file in files.items()}
    given = settings.get("chat_template")
    match given:
        case None:
            return {}
        case str():
            templates: Mapping[Any, Any] = {"default": given}
        case Mapping():
            templates = given
        case list() if all(isinstance(each, Mapping) for each in given):
            templates = {each.get("name"): each.get("template") for each in given}
        case _:
            raise _wrong(folder / SETTINGS, "chat_template", given, "a text, or a list of named templates")
    for name, template in templates.items():
        if not isinstance(name, str) or not isinstance(template, str):
            raise _wrong(folder / SETTINGS, "chat_template", {name: template}, "a name and a text")
    return dict(templates)


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none. Raises ModelError."""
    return read_json(file) if file.exists() else {}


def _listed(entries: Any, source: Path) -> dict[int, AddedToken]:
    name = "added_tokens_decoder"
    return {
        _id(key, source, name): _described(value, source, name)
        for key, value in _mapping(entries, source, name).items()
    }


def _of_older_file(file: Path, special: set[str]) -> dict[int, AddedToken]:
    """Ids by token."""
    return {
        _id(i, file, token): _described({"content": token, "special": token in special}, file, token)
        for token, i in _object(file).items()
    }


def _token(value: Any, source: Path, name: str) -> AddedToken:
    """A special token, which is a text or an object."""
    if isinstance(value, str):
        return _described({"content": value, "special": True}, source, name)
    token = _described(value, source, name)
    token.special = token.special or source.name == SPECIAL
    return token


def _described(value: Any, source: Path, name: str) -> AddedToken:
    """A token from an object with its text, and how it is found in others."""
    if not _is_token(value) or isinstance(value, str):
        raise _wrong(source, name, value, "an object with a token's `content`")
    try:
        return AddedToken(**{key: value[key] for key in PROPERTIES if key in value})
    except (TypeError, ValueError) as error:  # half of a surrogate pair is no text
        raise _wrong(source, name, value, reason(error)) from error


def _id(value: Any, source: Path, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(source, name, value, "token ids, which are integers") from None


def _flag(settings: Mapping[str, Any], name: str, source: Path) -> bool:
    value = settings.get(name) or False
    if not isinstance(value, bool):
        raise _wrong(source, name, value, "true or false")
    return value


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {reason(error)}") from error


def _wrong(source: Path, name: str, value: Any, right: str) -> ModelError:
    return ModelError(
        f"{source.parent}: the tokenizer cannot be loaded: {source.name} has {name} = {shown(value)}; {right}"
    )
