"""What drafts, in the words of vLLM's `speculative_config`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from outrider.cluster.vllm.config import OF_DRAFTS, OWNER, VllmConfig
from outrider.cluster.vllm.exported import exported
from outrider.errors import ConfigError, ModelError
from outrider.messages import shown
from outrider.models.checkpoint import locate
from outrider.models.head_checkpoint import HeadCheckpoint, locate_head
from outrider.models.head_kinds import is_drafter
from outrider.models.json_file import read_json

METHODS: Mapping[str, str] = MappingProxyType(
    {"ngram": "ngram", "[ngram]": "ngram", "suffix": "suffix", "mtp": "mtp"}
)
"""vLLM's methods by the names of drafters that are no models."""
HEAD = "eagle3"
OUR_METHODS: Mapping[str, str] = MappingProxyType({"head": HEAD})
MOST_DRAFTED = 128
"""vLLM's worker fails at a longer draft (`MAX_SPEC_LEN` of its `rejection_sampler.py`)."""
REFUSED_SAMPLING = ("min_p", "logit_bias")
"""Parameters that vLLM does not take together with drafts (`SamplingParams._validate_spec_decode`)."""
ARCTIC = "arctic-inference==0.1.1"


def speculation_of(config: VllmConfig) -> dict[str, Any] | None:
    """The `speculative_config` that the options mean in either form; None where nothing drafts.

    As `drafting_of`; heads of ours are exported. Raises ConfigError for a method whose package is not here.
    """
    drafting = drafting_of(config)
    if drafting is None:
        return None
    if drafting.get("method") == "suffix" and find_spec("arctic_inference") is None:
        raise ConfigError(f"vLLM's 'suffix' needs a package that is not installed; run: pip install {ARCTIC}")
    if drafting.get("method") != HEAD or "model" not in drafting:
        return drafting
    head = head_of(drafting["model"])
    return {**drafting, "model": str(exported(head))} if head and head.quantized else drafting


def drafting_of(config: VllmConfig) -> dict[str, Any] | None:
    """What drafts, as `speculative_config` says it, with heads by the names that they were given.

    Raises ConfigError for what vLLM cannot draft with, and for other options that it would refuse beside
    drafts.
    """
    asked = config.speculative_config or _of_flat(config)
    if asked is None:
        return None
    drafting = {**asked, **_drafter(asked)}
    drafting = {name: value for name, value in drafting.items() if value is not None}
    _refuse(config, drafting)
    return drafting


def _of_flat(config: VllmConfig) -> dict[str, Any] | None:
    if config.speculative_model is None:
        return None
    flat = {name: getattr(config, name) for name in OF_DRAFTS}
    return {"model": flat.pop("speculative_model"), **flat}


def _drafter(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`method` and `model` as vLLM reads them."""
    name = asked.get("model") or ""
    method = OUR_METHODS.get(asked.get("method", ""), asked.get("method"))
    if name in METHODS:
        return {"method": method or METHODS[name], "model": None}
    if not name or method not in (None, HEAD, "draft_model"):
        return {"method": method}
    if name.startswith("self:"):
        raise ConfigError(
            f"speculative_model = {shown(name)}: vLLM cannot draft with the target's own weights"
        )
    if name.lower().endswith(".gguf") or name == "smollm2":
        raise ConfigError(
            f"speculative_model = {shown(name)}: vLLM reads no GGUF file; give a folder of Hugging Face's"
        )
    return {"method": method, **_model(name)}


def _model(name: str) -> dict[str, Any]:
    """A head, or a model that drafts: what it is, is seen in its config.json."""
    folder = locate_head(name) if name == "head" else locate(name, files=("config.json",))
    if not is_drafter(read_json(folder / "config.json")):
        return {"method": "draft_model", "model": name}
    return {"method": HEAD, "model": name} if head_of(name) else {"model": name}


def head_of(name: str) -> HeadCheckpoint | None:
    """A head; None for a drafter of a kind that vLLM may know by its name."""
    try:
        return HeadCheckpoint(locate_head(name))
    except ModelError:
        return None


def _refuse(config: VllmConfig, drafting: Mapping[str, Any]) -> None:
    """Raise ConfigError for what vLLM refuses with drafts, by the name that it was given by."""
    method, length = drafting.get("method"), drafting.get("num_speculative_tokens")
    for name in REFUSED_SAMPLING:
        if config.override_generation_config.get(name):
            raise _with_drafts(f"override_generation_config has {name}", "leave it out")
    if isinstance(length, int) and length > MOST_DRAFTED:
        raise ConfigError(f"num_speculative_tokens = {length}: vLLM drafts {MOST_DRAFTED} tokens at most")
    if config.others.get("async_scheduling") and method in ("ngram", "suffix"):
        raise _with_drafts(f"async_scheduling = True and {method!r}", "leave async_scheduling out")
    if config.others.get("enable_dbo"):
        raise _with_drafts("enable_dbo = True", "leave it out")


def _with_drafts(what: str, right: str) -> ConfigError:
    return ConfigError(f"{OWNER}: {what}, which vLLM refuses together with drafts; {right}, or draft nothing")
