"""Log-probabilities in OpenAI's two forms."""

from __future__ import annotations

from collections.abc import Sequence

from outrider.engine.detokenizer import INCOMPLETE
from outrider.outputs import Logprob, Logprobs
from outrider.serving.replies import ChatLogprob, ChatLogprobs, CompletionLogprobs, finite


def chat_logprobs(tokens: Sequence[int], logprobs: Sequence[Logprobs], count: int) -> ChatLogprobs:
    """count: of the likeliest tokens to show at each position."""
    return {
        "content": [
            {**_entry(of[token]), "top_logprobs": [_entry(lp) for lp in _likeliest(of, count)]}
            for token, of in zip(tokens, logprobs, strict=True)
        ],
        "refusal": None,
    }


def completion_logprobs(
    tokens: Sequence[int], logprobs: Sequence[Logprobs | None], texts: Sequence[str], offset: int
) -> CompletionLogprobs:
    """texts: of each token; offset: of the first of them in the text. None: nothing precedes the token."""
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": list(texts),
        "token_logprobs": [
            None if of is None else finite(of[token].logprob)
            for token, of in zip(tokens, logprobs, strict=True)
        ],
        "top_logprobs": [None if of is None else _by_text(of) for of in logprobs],
        "text_offset": offsets,
    }


def _by_text(logprobs: Logprobs) -> dict[str, float]:
    """The likeliest first; it also stands for others of the same text, as parts of characters are."""
    shown: dict[str, float] = {}
    for logprob in _likeliest(logprobs, len(logprobs)):
        shown.setdefault(logprob.decoded_token, finite(logprob.logprob))
    return shown


def _likeliest(logprobs: Logprobs, count: int) -> list[Logprob]:
    ranked = sorted(logprobs.values(), key=lambda logprob: logprob.rank)
    return ranked[:count]


def _entry(logprob: Logprob) -> ChatLogprob:
    text = logprob.decoded_token
    return {
        "token": text,
        "logprob": finite(logprob.logprob),
        "bytes": None if INCOMPLETE in text else list(text.encode()),
    }
