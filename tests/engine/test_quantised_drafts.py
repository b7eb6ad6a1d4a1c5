"""Drafts at fewer bits than they are stored in: quantised indeed, lossless still, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from outrider import LLM, ConfigError, SamplingParams, SpeculationStats
from outrider.drafting import registry
from outrider.drafting.model import ModelDrafter
from outrider.engine import build
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import Vector, leaves
from outrider.models.model import Model
from outrider.models.runner import group_sizes
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.span import Span
from tests.engine.helpers import BLOCK, PROMPTS, drafters_of, load, token_ids
from tests.factories import tiny_config, tiny_tokenizer, write_model
from tests.models.factories import write_gguf
from tests.watchers import record

FORMATS = ("int8", "int4")


def draft_of(llm: LLM) -> Model:
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, ModelDrafter)
    return drafter.runner.model


def native(model: Model) -> NativeBackend:
    assert isinstance(model.backend, NativeBackend)
    return model.backend


def requests(temperature: float) -> list[SamplingParams]:
    return [SamplingParams(temperature=temperature, seed=seed, max_tokens=24) for seed in range(len(PROMPTS))]


def generated(llm: LLM, temperature: float, length: int | None = None) -> tuple[list[Any], SpeculationStats]:
    """Token ids of all prompts in one batch, and what became of the drafts."""
    params = [r.model_copy(update={"num_speculative_tokens": length}) for r in requests(temperature)]
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    return [token_ids(o) for o in outputs], sum(
        (o.outputs[0].speculation for o in outputs), SpeculationStats()
    )


def assert_lossless(llm: LLM, plain: LLM) -> None:
    """Greedy and sampled, in a batch; and the drafts do stand now and then."""
    for temperature in (0.0, 0.7, 1.0):
        tokens, stats = generated(llm, temperature)
        assert tokens == generated(plain, temperature)[0]
        assert 0 < stats.accepted <= stats.drafted


# draft_quantization


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("target_options", [{}, {"dtype": "bfloat16"}, {"quantization": "int8"}], ids=str)
def test_same_tokens(target: str, draft: str, format: str, target_options: dict[str, Any]) -> None:
    plain = load(target, **target_options)
    llm = load(target, draft, draft_quantization=format, num_speculative_tokens=4, **target_options)
    assert_lossless(llm, plain)


@pytest.mark.parametrize("format", FORMATS)
def test_same_tokens_under_preemption(target: str, draft: str, format: str) -> None:
    """The draft's cache counts, in its own type: bfloat16 beside the target's float32."""
    blocks, both = 12, BLOCK + BLOCK // 2
    options: dict[str, Any] = {"max_model_len": 192, "max_num_seqs": 8}
    llm = load(
        target,
        draft,
        draft_quantization=format,
        num_speculative_tokens=3,
        kv_cache_memory=blocks * both + both // 2,
        **options,
    )
    assert llm.engine.target.pool.num_blocks == blocks
    assert [size.block_bytes for size in group_sizes(draft_of(llm), 16, 1, 0)] == [BLOCK // 2]
    recorded = record(llm)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(8)]
    params = [SamplingParams(temperature=0.7, seed=seed, max_tokens=70) for seed in range(8)]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert any(recorded.preempted)
    plain = load(target, **options).generate(prompts, params, use_tqdm=False)
    assert [token_ids(output) for output in outputs] == [token_ids(output) for output in plain]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("of_target", [None, "int8", "int4"])
def test_the_draft_is_quantised_and_the_target_is_not(
    target: str, draft: str, format: str, of_target: str | None
) -> None:
    alone = native(load(target, quantization=of_target).engine.target.model).weight_bytes
    llm = load(target, draft, quantization=of_target, draft_quantization=format)
    assert native(llm.engine.target.model).weight_bytes == alone
    expected = native(load(draft, quantization=format).engine.target.model).weight_bytes
    assert native(draft_of(llm)).weight_bytes == expected
    assert (expected == alone) == (format == of_target)


@pytest.mark.parametrize("format", FORMATS)
def test_its_bytes(target: str, tmp_path: Path, format: str) -> None:
    """By hand, for sizes that fill the panels: codes and scales of linear layers, and of table and head."""
    size = 64
    write_model(tmp_path, tiny_config(hidden_size=size, intermediate_size=size, head_dim=16))
    llm = load(target, str(tmp_path), draft_quantization=format)
    vocab = len(tiny_tokenizer())
    layers = 2 * size * (2 * size + 2 * 32 + 3 * size)
    rows = 2 * (2 * size + 2 * 32 + 3 * size)
    panels = -(-vocab // 16) * 16
    table = panels * size + panels * 4  # a scale for each row
    expected = {
        "int8": layers + rows * 4 + 2 * table,
        "int4": (layers + panels * size) * (4 + 16 / 32) / 8 + table,  # a float16 scale for 32 weights
    }[format]
    assert native(draft_of(llm)).weight_bytes == pytest.approx(expected, rel=0.05)


def test_its_logits_are_those_of_the_quantised_model(target: str, draft: str) -> None:
    """The very bits that it has as a target of that format."""
    llm = load(target, draft, draft_quantization="int4", num_speculative_tokens=4)
    alone = load(draft, quantization="int4", kv_cache_dtype="bfloat16")
    span = Span([5, 6, 7, 8], 0, ([0],), 4)
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, ModelDrafter)
    ours = drafter.runner.forward([span])
    assert np.array_equal(ours, alone.engine.target.forward([span]))


def test_a_chain_quantises_its_models(target: str, draft: str) -> None:
    llm = load(
        target, None, speculative_model=["ngram", draft], draft_quantization="int8", prompt_lookup_min=1
    )
    drafters = drafters_of(llm)
    assert isinstance(drafters[1], ModelDrafter)
    packed = native(drafters[1].runner.model).weight_bytes
    assert packed == native(load(draft, quantization="int8").engine.target.model).weight_bytes
    tokens, stats = generated(llm, 0.7, 3)
    assert tokens == generated(load(target), 0.7)[0]
    assert stats.accepted > 0


@pytest.mark.parametrize("options", [{"backend": "torch"}, {"dtype": "float64"}], ids=str)
def test_refused_on_pytorch(target: str, draft: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(target, draft, draft_quantization="int4", **options)
    text = str(refusal.value)
    assert text.startswith(
        "draft_quantization = 'int4' is for the native CPU kernels; this engine uses PyTorch"
    )
    assert "give a draft model without draft_quantization, or run on the CPU with backend = 'native'" in text


def test_both_forms(target: str, draft: str) -> None:
    mapping = {"model": draft, "draft_quantization": "int4", "num_speculative_tokens": 3}
    llm = LLM(target, device="cpu", speculative_config=mapping)
    assert llm.config == load(target, draft, draft_quantization="int4", num_speculative_tokens=3).config
    assert native(draft_of(llm)).weight_bytes < native(llm.engine.target.model).weight_bytes / 3


# self


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A target whose output layer is, or is not, its embedding table."""
    path = tmp_path_factory.mktemp("model")
    write_model(path, tiny_config(tie_word_embeddings=request.param, initializer_range=0.15))
    return str(path)


@pytest.mark.parametrize(
    ("drafter", "options"),
    [
        ("self:int4", {}),
        ("self:int8", {}),
        ("self:int4", {"dtype": "bfloat16"}),
        ("self:int8", {"dtype": "bfloat16"}),
        ("self:int4", {"quantization": "int8"}),
    ],
    ids=str,
)
def test_a_target_that_drafts_for_itself_at_fewer_bits(
    model: str, drafter: str, options: dict[str, Any]
) -> None:
    plain = load(model, **options)
    llm = load(model, drafter, num_speculative_tokens=4, **options)
    assert_lossless(llm, plain)
    whole = native(plain.engine.target.model).weight_bytes
    assert native(llm.engine.target.model).weight_bytes == whole
    assert 0 < native(draft_of(llm)).weight_bytes < whole


def test_at_8_bits_most_drafts_stand(model: str) -> None:
    stats = generated(load(model, "self:int8"), 0.0, 4)[1]
    assert stats.accepted > 0.8 * stats.drafted


@pytest.mark.parametrize("drafter", ["self:int4", "self:int8"])
def test_what_it_shares(model: str, drafter: str) -> None:
    """Its table and norms, beside what the same model would take as a draft model of its own."""
    llm = load(model, drafter)
    target, draft = llm.engine.target.model, draft_of(llm)
    assert draft.table is target.table
    assert all(ours is theirs for ours, theirs in zip(norms(draft), norms(target), strict=True))
    alone = load(model, quantization=drafter.removeprefix("self:")).engine.target.model
    saved = 0 if target.tree.tied else alone.table.nbytes
    assert native(draft).weight_bytes == native(alone).weight_bytes - saved
    assert draft.linear[0].format == alone.linear[0].format != target.linear[0].format


def test_an_output_layer_of_8_bits_is_shared(model: str) -> None:
    llm = load(model, "self:int4", quantization="int8")
    target, draft = llm.engine.target.model, draft_of(llm)
    alone = load(model, quantization="int4").engine.target.model
    saved = alone.table.nbytes  # which is the tied output layer, too
    assert target.table.format == alone.table.format
    assert native(draft).weight_bytes == native(alone).weight_bytes - saved


def norms(model: Model) -> list[Any]:
    shared = model.shared()
    return [shared[leaf] for leaf in leaves(model.tree) if isinstance(leaf, Vector)]


def test_the_checkpoint_is_opened_once(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def noted(*args: Any, **options: Any) -> Any:
        opened.append(args)
        return open_checkpoint(*args, **options)

    monkeypatch.setattr(build, "open_checkpoint", noted)
    monkeypatch.setattr(registry, "open_checkpoint", noted)
    load(model, "self:int4")
    assert len(opened) == 1
    load(model, model, draft_quantization="int4")
    assert len(opened) == 2


def test_the_target_as_its_own_draft_at_fewer_bits(model: str) -> None:
    """Another way to say 'self:int4'."""
    llm = load(model, model, draft_quantization="int4", num_speculative_tokens=4)
    own = load(model, "self:int4", num_speculative_tokens=4)
    assert native(draft_of(llm)).weight_bytes == native(draft_of(own)).weight_bytes
    assert draft_of(llm).table is llm.engine.target.model.table
    assert generated(llm, 0.7) == generated(own, 0.7)


def test_its_cache_counts(model: str) -> None:
    """As that of any draft model: half a block beside each of the target's."""
    memory: dict[str, Any] = {"kv_cache_memory": 20 * BLOCK, "max_model_len": 32}
    both = BLOCK + BLOCK // 2
    assert load(model, **memory).engine.target.pool.num_blocks == 20
    assert load(model, "self:int4", **memory).engine.target.pool.num_blocks == 20 * BLOCK // both
    chained = load(model, None, speculative_model=["self:int8", "self:int4"], **memory)
    assert chained.engine.target.pool.num_blocks == 20 * BLOCK // (2 * BLOCK)


@pytest.mark.parametrize(
    ("kind", "options", "drafter", "found", "instead"),
    [
        (None, {"quantization": "int4"}, "self:int4", "4 bits already (format Q4_0)", "'suffix' or"),
        (None, {"quantization": "int4"}, "self:int8", "4 bits already (format Q4_0)", "'suffix' or"),
        (
            None,
            {"quantization": "int8"},
            "self:int8",
            "8 bits already (format Q8_CHANNEL)",
            "'self:int4', ",
        ),
        ("Q4_1", {}, "self:int4", "5 bits already (format Q4_1)", "'suffix' or"),
        ("Q8_0", {}, "self:int8", "8 bits already (format Q8_0)", "'self:int4', "),
    ],
)
def test_a_target_of_no_more_bits_is_refused(
    tmp_path: Path, kind: str | None, options: dict[str, Any], drafter: str, found: str, instead: str
) -> None:
    """Whether it was quantised on loading or in the file."""
    written = write_model(tmp_path / "model", tiny_config(hidden_size=64, head_dim=16))
    path = tmp_path / "model"
    if kind is not None:
        path = tmp_path / f"{kind}.gguf"
        write_gguf(path, written, tiny_tokenizer(), GGMLQuantizationType[kind])
    with pytest.raises(ConfigError) as refusal:
        load(str(path), drafter, **options)
    text = str(refusal.value)
    assert text.startswith(f"speculative_model = '{drafter}': the target's weights have {found}")
    assert f"give {instead}" in text
    assert "a smaller draft model" in text


@pytest.mark.parametrize("options", [{"backend": "torch"}, {"dtype": "float64"}], ids=str)
def test_a_self_draft_is_refused_on_pytorch(target: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^speculative_model = 'self:int4' is for the native CPU kernels"):
        load(target, "self:int4", **options)


def test_a_quantised_file_at_fewer_bits(tmp_path: Path) -> None:
    written = write_model(tmp_path / "model", tiny_config(hidden_size=64, head_dim=16))
    path = tmp_path / "model.gguf"
    write_gguf(path, written, tiny_tokenizer(), GGMLQuantizationType.Q8_0)
    assert_lossless(load(str(path), "self:int4", num_speculative_tokens=3), load(str(path)))
