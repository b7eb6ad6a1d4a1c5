"""The table of public drafts: its form, and which of its entries a model gets."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from importlib.resources import files

import pytest

from outrider import ConfigError
from outrider.finding.names import words
from outrider.finding.public import KINDS, PublicTable, public_table
from outrider.models.registry import FAMILIES

TABLE = public_table()


def repositories(*names: str) -> list[str]:
    return [draft.repository for draft in TABLE.named(names)]


def test_each_entry_is_whole() -> None:
    assert date(2026, 1, 1) < TABLE.checked <= date.today()
    assert len({(draft.repository, draft.kind, draft.targets) for draft in TABLE.draft}) == len(TABLE.draft)
    for draft in TABLE.draft:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", draft.repository)
        assert re.match(r"https://(huggingface\.co|github\.com|ai\.google\.dev)/", draft.source)
        assert draft.kind in KINDS
        assert all("/" not in target for target in draft.targets)
        assert draft.command.startswith(f"hf download {draft.repository}")
        assert draft.file is None or draft.file.endswith(".gguf")
        assert draft.size is None or 10**7 < draft.size < 10**11
        assert repositories(draft.targets[0]).count(draft.repository) >= 1  # its own target finds it


def test_every_family_that_drafts_are_listed_for_is_named() -> None:
    for draft in TABLE.draft:
        assert TABLE.family(None, draft.targets) is not None, draft.repository
    known = {family.architecture for family in FAMILIES}
    listed = {architecture for own in TABLE.families.values() for architecture in own}
    assert listed - {"Gemma4ForCausalLM"} <= known


@pytest.mark.parametrize("change", [{"kind": "medusa"}, {"targets": []}, {"licens": "MIT"}, {"bytes": -1}])
def test_a_wrong_entry_is_refused(change: dict[str, object]) -> None:
    raw = tomllib.loads((files("outrider") / "finding" / "public.toml").read_text(encoding="utf-8"))
    raw["draft"] = [raw["draft"][0] | change]
    with pytest.raises(ConfigError):
        PublicTable(**raw)


def test_words_of_names() -> None:
    assert words("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf") == {
        *("qwen2.5", "coder", "1.5b", "instruct", "q4", "k", "m")
    }
    assert words("SmolLM2-135M-Instruct.Q4_1.gguf") == {"smollm2", "135m", "instruct", "q4", "1"}


def test_the_most_special_entry_of_each_kind() -> None:
    assert "AngelSlim/Qwen3-8B_eagle3" in repositories("Qwen3-8B-Q4_K_M.gguf")
    special = repositories("Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert "RedHatAI/Qwen3-30B-A3B-Instruct-2507-speculator.eagle3" in special
    assert "AngelSlim/Qwen3-a3B_eagle3" not in special
    assert "Qwen/Qwen3-0.6B" in special  # of another kind
    assert repositories("Qwen3-80B", "nothing") == []
    assert repositories("unheard-of") == []


def test_names_go_before_architectures() -> None:
    assert TABLE.family("LlamaForCausalLM", ["SmolLM2-1.7B"]) == "SmolLM2"
    assert TABLE.family("LlamaForCausalLM", ["mine"]) == "Llama"
    assert TABLE.family("Qwen3_5ForCausalLM", ["Qwen3.6-27B"]) == "Qwen3.6"
    assert TABLE.family("Unheard", ["mine"]) is None


def test_sizes() -> None:
    of = {draft.repository: draft for draft in TABLE.draft}
    assert of["meta-llama/Llama-3.2-1B-Instruct"].size == 2 * 1_230_000_000
    assert of["Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"].command.endswith("q4_k_m.gguf")
    assert of["RedHatAI/Qwen3-8B-speculator.eagle3"].size is None
