"""Whether two tokenizers mean the same by every token id."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from outrider.errors import ModelError


def check_same_vocabulary(
    target_tokenizer: PreTrainedTokenizerBase,
    draft_tokenizer: PreTrainedTokenizerBase,
    *,
    target: str,
    draft: str,
) -> None:
    """Raise ModelError, with the first difference, unless all ids stand for the same tokens in both."""
    ours = {token_id: token for token, token_id in target_tokenizer.get_vocab().items()}
    theirs = {token_id: token for token, token_id in draft_tokenizer.get_vocab().items()}
    for token_id in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(token_id), theirs.get(token_id)
        if a != b:
            raise ModelError(
                f"draft model {draft!r} does not share the vocabulary of target {target!r}: token id "
                f"{token_id} is {a!r} in the target ({len(ours)} tokens) and {b!r} in the draft "
                f"({len(theirs)} tokens); choose a draft with the target's tokenizer"
            )
