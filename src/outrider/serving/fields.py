"""Which fields of a request change an answer, of those that are not read here.

Clients send what their other servers know. A field that cannot change the answer is taken, and told in a
header; one that would change it is refused, unless its value asks for nothing. The fields that are read are
those of the bodies.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

BILLING = "store metadata service_tier safety_identifier request_id name"
CACHING = "prompt_cache_key prompt_cache_retention cache_control cache_prompt keep_alive"
RUNNING = """
    prediction include_obfuscation kv_transfer_params disable_fallback disable_log_requests id_slot slot_id
    timings_per_token return_progress
"""
"""`prediction` is a hint for speculation."""
LOADING = """
    num_keep num_batch num_gpu num_thread main_gpu numa low_vram f16_kv logits_all vocab_only use_mmap
    use_mlock embedding_only mirostat_tau mirostat_eta
"""
"""Ollama's options of how a model is loaded, and those of what is refused already."""
OF_BEAMS = "length_penalty early_stopping"
"""Beam search itself is refused."""
HARMLESS = frozenset(f"{BILLING} {CACHING} {RUNNING} {LOADING} {OF_BEAMS}".split())
"""Fields of OpenAI's API, of Anthropic's text parts, of vLLM, llama.cpp and Ollama that change no answer."""

TOOLS = "tools tool_choice parallel_tool_calls functions function_call max_tool_calls web_search_options"
THINKING = "reasoning reasoning_effort thinking think thinking_token_budget verbosity"
SENSES = "audio modalities image_url input_audio file video_url mm_processor_kwargs media_io_kwargs"
PROMPTS = """
    prompt messages system input instructions suffix echo documents template raw chat_template
    chat_template_kwargs add_generation_prompt continue_final_message truncate_prompt_tokens prompt_embeds
"""
FORMS = """
    format grammar json_schema guided_json guided_regex guided_choice guided_grammar structural_tag
    whitespace_pattern disable_additional_properties spaces_between_special_tokens
    top_logprobs n_probs return_tokens_as_token_ids
"""
SAMPLING = """
    best_of use_beam_search beam_width num_beams num_return_sequences do_sample temp typical_p tfs_z top_a
    samplers mirostat dynatemp_range dry_multiplier xtc_probability repeat_penalty repeat_last_n
    penalize_newline no_repeat_ngram_size repetition_detection guidance_scale bad_words_ids logits_processors
    vllm_xargs n_predict num_predict num_ctx max_length options
"""
CHANGING: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(f"{TOOLS} {THINKING} {SENSES} {PROMPTS} {FORMS} {SAMPLING}".split(), ()),
    **dict.fromkeys(("tool_choice", "function_call"), ("none",)),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "repeat_last_n": (-1,),
    **dict.fromkeys(("add_generation_prompt", "spaces_between_special_tokens", "penalize_newline"), (True,)),
    **dict.fromkeys(("typical_p", "tfs_z", "repeat_penalty", "guidance_scale", "num_beams"), (1,)),
    **dict.fromkeys(
        ("dry_multiplier", "mirostat", "n_probs", "no_repeat_ngram_size", "xtc_probability"), (0,)
    ),
}
"""Fields that would change an answer, where a body does not read them, and the values that ask for nothing.
So do null, false, and what is empty, since clients send some fields whether they use them or not."""

CLOSE = 0.8
"""From which likeness on a name is taken for a typing error: 'temprature' has 0.95."""
MOST_UNKNOWN = 64
"""Names of one request that nobody knows. To compare each with all fields takes half a millisecond."""


@dataclass(frozen=True)
class Unread:
    """The fields of one HTTP request that were taken and not read. strict: none may be; unknown: those
    that nobody knows."""

    strict: bool = False
    names: dict[str, None] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


unread: ContextVar[Unread | None] = ContextVar("unread", default=None)
"""What the request that is being served has of such fields."""


class Unsupported(Exception):
    """A field that is not read and would change the answer. Its text says what to do; name: without halves of
    surrogate pairs, which JSON can hold and UTF-8 cannot."""

    def __init__(self, name: str, more: str = "") -> None:
        super().__init__(f"leave it out{more}")
        self.name = name.encode("utf-8", "backslashreplace").decode("utf-8")


def passed_over(given: Mapping[str, Any], read: Collection[str], place: str) -> list[str]:
    """The names in a body that are not read and change no answer. Raises Unsupported for another.

    read: the names that the body knows; place: where it stands in a request, for the header.
    """
    request = unread.get() or Unread()
    names = [name for name in given if name not in read]
    for name in names:
        value = given[name]
        if name in CHANGING:
            if not _asks_nothing(value) and value not in CHANGING[name]:
                raise Unsupported(name)
            continue
        if name not in HARMLESS:
            _check_unknown(request, name, read, place)
        if not _asks_nothing(value):
            if request.strict:
                raise Unsupported(name)
            request.names[f"{place}{name}"] = None
    return names


def _check_unknown(request: Unread, name: str, read: Collection[str], place: str) -> None:
    """Raise Unsupported for an unknown name that may be meant for another one, or is one too many."""
    if f"{place}{name}" in request.unknown:
        return
    if len(request.unknown) >= MOST_UNKNOWN:
        raise Unsupported(name, f"; {MOST_UNKNOWN} other fields of the request are not known either")
    meant = _nearest(name, {*read, *CHANGING})
    if meant is not None:
        raise Unsupported(name, f", or did you mean {meant!r}?")
    if request.strict:
        raise Unsupported(name)
    request.unknown.add(f"{place}{name}")


def _asks_nothing(value: object) -> bool:
    return value is None or value is False or value == [] or value == {}


def _nearest(name: str, known: Collection[str]) -> str | None:
    """The field that a client meant: the same one written in another way, or with a typing error."""
    plain = {_plain(one): one for one in known}
    found = get_close_matches(_plain(name), plain, n=1, cutoff=CLOSE)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
