"""What drafters are planned to take, against what their loading packs and caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from outrider import LLM, ConfigError, ModelError
from outrider.config import resolve
from outrider.finding.auto import with_found
from outrider.models import words
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, quantized, save_head
from outrider.models.head_parts import TABLE
from outrider.ops.cpu.backend import NativeBackend
from outrider.planning import drafters
from outrider.planning.allowed import Limit
from outrider.planning.limit import survey
from outrider.speculative_config import DrafterConfig
from tests.models.assistants import TARGETS, target_config, write_assistant
from tests.models.factories import tiny_config, write_hf
from tests.models.head_features import FEATURES, arrays, random_head
from tests.planning.test_limit import plan, surveyed
from tests.tokenizers_of_kinds import of_bytes

SIZE: dict[str, Any] = {"num_speculative_tokens": 3, "max_num_seqs": 2, "max_model_len": 100}


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every matrix that the native kernels pack, once something is loaded."""
    sizes: list[int] = []
    pack: Callable[..., Any] = NativeBackend._pack

    def counted(self: NativeBackend, *args: Any) -> Any:
        matrix = pack(self, *args)
        sizes.append(matrix.nbytes)
        return matrix

    monkeypatch.setattr(NativeBackend, "_pack", counted)
    return sizes


@pytest.mark.parametrize(
    "options",
    [
        {"speculative_model": "HEAD"},
        {"speculative_model": "HEAD", "draft_quantization": "int8"},
        {"speculative_model": "HEAD", "draft_quantization": "int4", "quantization": "int4"},
        {"speculative_model": "DRAFT"},
        {"speculative_model": "DRAFT", "quantization": "int8"},
        {"speculative_model": "WORDS", "draft_vocabulary": "text"},
        {"speculative_model": "DRAFT", "draft_quantization": "int4", "dtype": "bfloat16"},
        {"speculative_model": "TARGET"},
        {"speculative_model": "TARGET", "draft_quantization": "int8"},
        {"speculative_model": "self:int4"},
        {"speculative_model": "self:int4", "quantization": "int8"},
        {
            "speculative_model": ["suffix", "self:int8", "HEAD"],
            "draft_quantization": "int4",
            "suffix_memory": 0,
        },
    ],
    ids=str,
)
def test_bytes_are_those_that_are_packed_and_cached(
    target: str, draft: str, head: str, packed: list[int], options: dict[str, Any], tmp_path: Path
) -> None:
    """WORDS has the target's shape and another vocabulary."""
    write_hf(tmp_path)
    of_bytes(("<|im_end|>",)).save(tmp_path)
    paths = {"HEAD": head, "DRAFT": draft, "TARGET": target, "WORDS": str(tmp_path)}
    given = options["speculative_model"]
    names = [paths.get(name, name) for name in ([given] if isinstance(given, str) else given)]
    options = {**options, **SIZE, "speculative_model": names}
    found = plan(target, **options)
    llm = LLM(target, device="cpu", kv_cache_memory=found.kv_cache_memory, **options)
    assert sum(packed) == found.target + found.drafts
    assert llm.engine.target.pool.num_blocks == found.blocks == 2 * 7  # of 16 positions


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_output_layer_of_a_self_draft(tmp_path: Path, packed: list[int], tied: bool, dtype: str) -> None:
    """It has one of its own, unless the table that serves as one has 8 bits already."""
    write_hf(tmp_path, tiny_config(tie_word_embeddings=tied))
    options = {"dtype": dtype, "speculative_model": "self:int8", **SIZE}
    found = plan(str(tmp_path), **options)
    LLM(str(tmp_path), device="cpu", **options)
    assert sum(packed) == found.target + found.drafts


def test_a_draft_of_few_words(
    target: str, draft: str, packed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned with all that it may learn."""
    monkeypatch.setattr(drafters, "MOST_READ", 32)
    monkeypatch.setattr(words, "MOST_READ", 32)
    options = {"speculative_model": draft, "draft_vocab_size": 128, **SIZE}
    found = plan(target, **options)
    llm = LLM(target, device="cpu", **options)
    loaded, sizes = sum(packed), len(packed)
    llm.generate([*range(128, 138), *[1] * 54], use_tqdm=False)
    assert len(packed) > sizes
    assert loaded + max(packed[sizes:]) <= found.target + found.drafts <= 1.02 * sum(packed)
    assert found.drafts_read < plan(target, speculative_model=draft, **SIZE).drafts_read


def test_heads_of_4_bits_and_with_a_table(tmp_path: Path, packed: list[int]) -> None:
    target, plain, small, with_table = (
        str(tmp_path / name) for name in ("target", "plain", "small", "table")
    )
    write_hf(Path(target), tiny_config(hidden_size=64))
    tensors = random_head(Path(plain), open_checkpoint(target).config)
    stored = HeadCheckpoint(Path(plain))
    sizes = stored.config.sizes
    table = torch.randn(sizes.vocab, sizes.hidden)
    save_head(Path(small), stored.config, quantized(arrays(tensors)), stored.targets())
    save_head(Path(with_table), stored.config, arrays({**tensors, TABLE: table}), stored.targets())
    drafts = []
    for head in (small, plain, with_table):
        packed.clear()
        found = plan(target, speculative_model=head, **SIZE)
        LLM(target, device="cpu", speculative_model=head, **SIZE)
        assert sum(packed) == found.target + found.drafts
        drafts.append(found.drafts)
    assert drafts == sorted(drafts)
    assert 4 * drafts[0] < drafts[1]


@pytest.mark.parametrize("feature", [name for name in FEATURES if "bias" not in name])  # a bias is no matrix
def test_what_heads_of_others_have(feature: str, packed: list[int], tmp_path: Path) -> None:
    target, head = str(tmp_path / "target"), str(tmp_path / "head")
    write_hf(Path(target), tiny_config(hidden_size=64, num_hidden_layers=8))
    FEATURES[feature](Path(head), open_checkpoint(target).config)
    found = plan(target, speculative_model=head, **SIZE)
    LLM(target, device="cpu", speculative_model=head, **SIZE)
    assert sum(packed) == found.target + found.drafts


def test_states_that_wait_for_a_head_count(target: str, head: str) -> None:
    """They are kept for every request and position, up to where a head forgets."""
    found = [
        plan(target, speculative_model=head, num_speculative_tokens=3, max_num_seqs=n, max_model_len=length)
        for n, length in ((1, 200), (1, 100), (2, 200), (1, 1000), (1, 900))
    ]
    few, fewer, twice, many, less = (p.activations for p in found)
    state = 4 * 3 * open_checkpoint(target).config.hidden_size
    assert few - fewer >= 100 * state
    assert twice - few >= 200 * state
    assert many - less < 100 * state


def test_refused_as_loading_would(target: str, head: str, tmp_path: Path) -> None:
    write_hf(tmp_path, tiny_config(hidden_size=32))
    refusals: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        (str(tmp_path), {"speculative_model": head}, ModelError, "was not made for the target"),
        (target, {"speculative_model": "head"}, ModelError, "was not made for the target"),
        (
            target,
            {"speculative_model": "self:int4", "quantization": "int4"},
            ConfigError,
            "speculative_model = 'self:int4': the target's weights have 4 bits already",
        ),
        (
            target,
            {"speculative_model": head, "draft_quantization": "int8", "backend": "torch"},
            ConfigError,
            "draft_quantization = 'int8' is for the native CPU kernels; this engine uses PyTorch on cpu",
        ),
    ]
    for model, options, error, said in refusals:
        for build in (lambda m, **o: surveyed(m, 2**40, **o), lambda m, **o: LLM(m, device="cpu", **o)):
            with pytest.raises(error, match=said):
                build(model, **options)


def test_what_the_engine_would_refuse_is_no_choice(target: str) -> None:
    found = surveyed(target, 2**40, speculative_model="self:int4", max_num_seqs=1)
    formats = {choice.format for choice in found.all if choice.drafter == "self:int4"}
    assert formats == {"as stored", "bfloat16", "int8"}
    assert {choice.format for choice in found.all if choice.drafter == "none"} == formats | {"int4"}


def test_options_of_a_choice_mean_it(target: str, draft: str) -> None:
    given = {"speculative_model": ["ngram", draft], "draft_quantization": "int4", "draft_vocabulary": "text"}
    of_dtype = surveyed(target, 2**40, dtype="float16")
    assert [c.format for c in of_dtype.all if c.drafter == "none"] == [
        *("as stored", "float16", "bfloat16", "int8", "int4")
    ]
    for choice in (*surveyed(target, 2**40, **given).all, *of_dtype.all):
        assert resolve(target, device="cpu", **dict(choice.options)) == choice.config


def test_what_lacks_room_beside_lookup_is_a_choice_alone() -> None:
    """As SmolLM2's head on a small device."""
    head = DrafterConfig(method="head", model="head")
    found = survey(resolve("smollm2", device="cpu"), Limit(2**40, "limit"), also=[head]).all
    by_drafter = {choice.drafter: choice.plan for choice in found if choice.format == "as stored"}
    assert list(by_drafter) == ["head", "suffix", "none"]
    assert 0 < by_drafter["head"].drafts < by_drafter["head"].target / 10


def test_what_is_found_is_a_choice() -> None:
    config, _ = with_found(resolve("smollm2", device="cpu", speculative_model="auto", memory_limit=2**40))
    choices = survey(config, Limit(2**40, "limit")).all
    by_drafter = {choice.drafter: choice.plan for choice in choices if choice.format == "as stored"}
    assert list(by_drafter) == ["suffix, head", "suffix", "none"]
    head = by_drafter["suffix, head"].drafts - by_drafter["suffix"].drafts
    assert 0 < head < by_drafter["suffix, head"].target / 10
    assert 0 == by_drafter["suffix"].drafts_read < by_drafter["suffix, head"].drafts_read


@pytest.mark.parametrize("options", [{}, {"draft_quantization": "int8"}], ids=str)
@pytest.mark.parametrize("name", TARGETS)
def test_assistants_take_their_weights_and_no_cache(
    name: str, options: dict[str, Any], packed: list[int], tmp_path: Path
) -> None:
    target, assistant = tmp_path / "target", tmp_path / "assistant"
    write_assistant(assistant, write_hf(target, target_config(name)))
    options = {**options, **SIZE}
    found = plan(str(target), speculative_model=str(assistant), **options)
    alone = plan(str(target), **SIZE | {"num_speculative_tokens": None})
    LLM(str(target), device="cpu", speculative_model=str(assistant), **options)
    assert sum(packed) == found.target + found.drafts
    assert found.drafts > 0
    assert found.kv_cache_memory >= alone.kv_cache_memory
