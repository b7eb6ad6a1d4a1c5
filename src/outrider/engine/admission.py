"""From a prompt and parameters to requests that can run, or one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from outrider.engine.detokenizer import Detokenizer, OutputText
from outrider.engine.request import Request, RequestGroup
from outrider.errors import ConfigError, RequestError
from outrider.messages import shown
from outrider.models.runner import ModelRunner
from outrider.models.tokenizer import Tokenizer
from outrider.option_types import SchedulingPolicy
from outrider.params import SamplingParams
from outrider.sampling.grammar import Grammars, InGrammar
from outrider.sampling.sampler import build_sampler
from outrider.verification.noise import Noise

PRIORITY_SECONDS = 10.0
MOST_PRIORITY = 10**6  # to either side
MOST_SEQUENCES = 16_384  # of a request, as vLLM's


def admit(
    request_id: str,
    tokens: Sequence[int],
    params: SamplingParams,
    *,
    prompt: str | None,
    seed: int,
    target: ModelRunner,
    tokenizer: Tokenizer,
    max_model_len: int,
    grammars: Grammars,
    now: float,
    priority: int = 0,
) -> RequestGroup:
    """The `params.n` sequences of one request, ready to be scheduled. Raises RequestError, and ConfigError
    for parameters that exclude each other. Whoever changes `params` later changes nothing here.

    priority: lower goes first, as if it had come `PRIORITY_SECONDS` earlier for each. now: seconds.
    """
    config = target.model.config
    params = params.copied()
    tokens = checked_tokens(tokens, max_model_len, config.vocab_size)
    if params.n > MOST_SEQUENCES:
        raise RequestError(f"n = {shown(params.n)}: a request can have {MOST_SEQUENCES} sequences at most")
    stop_tokens = frozenset(params.stop_token_ids)
    if not params.ignore_eos:
        stop_tokens = stop_tokens.union(config.eos_token_ids)
    sampler = build_sampler(
        params,
        prompt=tokens,
        bad_words=_bad_words(params, tokenizer),
        stop_tokens=stop_tokens,
        vocab=config.vocab_size,
    )
    wanted = params.structured_outputs
    max_tokens = max_model_len if params.max_tokens is None else params.max_tokens

    def sequence(number: int) -> Request:
        detokenizer = Detokenizer(tokenizer, tokens, skip_special_tokens=params.skip_special_tokens)
        return Request(
            id=request_id,
            index=number,
            prompt_length=len(tokens),
            tokens=list(tokens),
            params=params,
            sampler=sampler if wanted is None else sampler.within(InGrammar(grammars, wanted)),
            noise=Noise(seed, number),
            stop_tokens=stop_tokens,
            max_length=min(max_model_len, len(tokens) + max_tokens),
            table=target.table(params.cache_salt),
            text=OutputText(detokenizer, params.stop, include_stop=params.include_stop_str_in_output),
            arrival_time=now,
            turn=now + priority * PRIORITY_SECONDS,
        )

    return RequestGroup(prompt, tuple(map(sequence, range(params.n))))


def check_priority(priority: int, policy: SchedulingPolicy) -> None:
    """Raise ConfigError for a priority that requests cannot have."""
    if policy == "fcfs" and priority != 0:
        raise ConfigError(
            f"priority = {shown(priority)} with scheduling_policy = 'fcfs': requests are served in order of "
            "arrival; leave priority out, or serve with --scheduling-policy priority",
            "priority",
        )
    if not isinstance(priority, int) or abs(priority) > MOST_PRIORITY:
        raise ConfigError(
            f"priority = {shown(priority)}: give an integer from -{MOST_PRIORITY} to {MOST_PRIORITY}",
            "priority",
        )


def checked_tokens(tokens: Sequence[int], max_model_len: int, vocab: int) -> list[int]:
    """The prompt, as Python's own integers."""
    if not len(tokens):
        raise RequestError("the prompt is empty; give at least one token")
    if len(tokens) >= max_model_len:
        raise RequestError(
            f"the prompt has {len(tokens)} tokens; with max_model_len = {max_model_len} it can have "
            f"{max_model_len - 1} at most, so that one can be generated"
        )
    return [_token_id(token, position, vocab) for position, token in enumerate(tokens)]


def _token_id(token: int, position: int, vocab: int) -> int:
    try:
        number = index(token)
    except TypeError:
        raise RequestError(
            f"{shown(token)} at position {position} of the prompt is no token id; give integers"
        ) from None
    if not 0 <= number < vocab:
        raise RequestError(
            f"token id {shown(number)} at position {position} of the prompt is not in the vocabulary; "
            f"the model's ids are 0 to {vocab - 1}"
        )
    return number


def _bad_words(params: SamplingParams, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Token sequences of each bad word, as it stands at the beginning of a text and after a space."""
    texts = [text for word in params.bad_words for text in (word, " " + word.lstrip())]
    sequences = dict.fromkeys(tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    return [sequence for sequence in sequences if sequence]
