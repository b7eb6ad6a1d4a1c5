"""Whether a draft and its target mean the same by every token id.

A model's embedding table often has more rows than its tokenizer has tokens: the rest is padding, to a round
number. Padding may differ between draft and target; the tokens may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outrider.errors import ModelError
from outrider.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model by id; what is not in `tokens` is padding. rows: of its embedding table."""

    model: str
    tokens: Mapping[int, str]
    rows: int

    @classmethod
    def of(cls, model: str, tokenizer: Tokenizer, rows: int) -> Vocabulary:
        """Added and special tokens are tokens like any other. Those beyond the table are none of the model's:
        it can neither read nor write them."""
        ids = tokenizer.get_vocab().items()
        return cls(model, {i: token for token, i in ids if i < rows and not _fills(token, i)}, rows)


class OtherVocabulary(ModelError):
    """A draft model's tokens are not its target's."""


def first_difference(target: Vocabulary, draft: Vocabulary) -> int | None:
    """The first id that does not stand for the same token in both."""
    ids = sorted(target.tokens.keys() | draft.tokens.keys())
    return next((i for i in ids if target.tokens.get(i) != draft.tokens.get(i)), None)


def check_same_vocabulary(target: Vocabulary, draft: Vocabulary) -> None:
    """Raise OtherVocabulary, with the first difference, unless all ids stand for the same tokens in both."""
    token_id = first_difference(target, draft)
    if token_id is not None:
        raise OtherVocabulary(
            f"draft model {draft.model!r} does not share the vocabulary of target {target.model!r}: "
            f"token id {token_id} is {_place(target, token_id)} in the target "
            f"({len(target.tokens)} tokens) and {_place(draft, token_id)} in the draft "
            f"({len(draft.tokens)} tokens); choose a draft with the target's tokenizer, or let it draft text "
            "with draft_vocabulary = 'text'"
        )


def _fills(token: str, token_id: int) -> bool:
    """Whether a token only fills a row of the table: llama.cpp's converter gives each a name."""
    return token == f"[PAD{token_id}]"


def _place(vocabulary: Vocabulary, token_id: int) -> str:
    """What stands at an id."""
    token = vocabulary.tokens.get(token_id)
    if token is not None:
        return repr(token)
    return "padding" if token_id < vocabulary.rows else f"beyond the {vocabulary.rows} rows of the table"
