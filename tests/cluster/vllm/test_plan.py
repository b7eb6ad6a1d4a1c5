"""Plans of what vLLM takes of each device, against the bytes of files, and how too much is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from typer.testing import CliRunner, Result

from outrider import LLM
from outrider.cli.app import app
from outrider.cluster.vllm.config import resolve_vllm
from outrider.cluster.vllm.devices import UTILIZATION, gpu, memory_node, with_space
from outrider.cluster.vllm.layout import Unplanned
from outrider.cluster.vllm.plan import VllmPlan, make_plan, refusal
from outrider.cluster.vllm.ranks import PADDED, layers_of
from outrider.errors import ConfigError, ModelError
from outrider.models.checkpoint import open_checkpoint
from tests.cluster.vllm import fakes
from tests.factories import tiny_config, write_model
from tests.models.head_features import DRAFT_VOCAB, random_head

MIB, GIB = 2**20, 2**30
BF16 = 2  # bytes
SIZES: dict[str, Any] = {"hidden_size": 64, "head_dim": 16, "num_hidden_layers": 5, "vocab_size": 320}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """4 heads, 2 of K and V, and words that need no padding."""
    path = tmp_path_factory.mktemp("planned") / "model"
    write_model(path, tiny_config(**SIZES))
    return str(path)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("planned") / "tied"
    write_model(path, tiny_config(**SIZES, tie_word_embeddings=True))
    return str(path)


def plan(model: str, total: int = 80 * GIB, **options: Any) -> VllmPlan:
    return make_plan(resolve_vllm(model, **options), gpu(total))


def numbers(model: str, *parts: str) -> int:
    """The numbers of the matrices in a folder's file whose names hold one of `parts`."""
    with safe_open(Path(model) / "model.safetensors", "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    found = [shape for name, shape in shapes.items() if any(part in name for part in parts)]
    return sum(shape[0] * shape[1] for shape in found if len(shape) == 2)


ALL = ("layers", "embed_tokens", "lm_head")


def test_one_device_has_all_weights_in_vllms_type(model: str, tied: str) -> None:
    """The files are in float32, of which vLLM makes bfloat16 unless it is told."""
    for each in (model, tied):
        (rank,) = plan(each).ranks
        assert rank.weights == BF16 * numbers(each, *ALL)
        assert plan(each, dtype="float32").ranks[0].weights == 2 * rank.weights


def test_ranks_share_matrices(model: str) -> None:
    whole, half = plan(model).ranks[0], plan(model, tensor_parallel_size=2).ranks[0]
    assert half.weights == whole.weights / 2
    assert half.cache.bytes_of_one(1000) == whole.cache.bytes_of_one(1000) / 2
    assert half.passes < whole.passes


def test_more_ranks_than_heads_of_k_and_v_hold_some_twice(model: str) -> None:
    quarter = plan(model, tensor_parallel_size=4).ranks[0]
    twice = numbers(model, "k_proj", "v_proj")
    assert quarter.weights == BF16 * (numbers(model, *ALL) - twice + 2 * twice) / 4
    assert quarter.cache.bytes_of_one(1000) == plan(model, tensor_parallel_size=2).ranks[
        0
    ].cache.bytes_of_one(1000)


def test_words_are_padded(target: str) -> None:
    """The tiny model has a number of words that vLLM fills up."""
    words, hidden = open_checkpoint(target).config.tree.table.tensor.shape
    assert words % PADDED
    padded = -(-words // PADDED) * PADDED
    more = 2 * (padded - words) * hidden  # of embeddings and the output layer
    assert plan(target).ranks[0].weights == BF16 * (numbers(target, *ALL) + more)


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [(5, 1, [5]), (5, 2, [3, 2]), (5, 3, [2, 2, 1]), (80, 3, [27, 27, 26]), (30, 4, [7, 8, 8, 7])],
)
def test_stages_divide_layers_as_vllm_does(layers: int, stages: int, expected: list[int]) -> None:
    found = layers_of(layers, stages)
    assert [len(each) for each in found] == expected
    assert [layer for each in found for layer in each] == [*range(layers)]


def test_vllm_divides_layers_so() -> None:
    utils = pytest.importorskip("vllm.distributed.utils", reason="vLLM is not installed")
    for layers, stages in ((5, 2), (5, 3), (30, 4), (61, 8), (80, 3)):
        theirs = [range(*utils.get_pp_indices(layers, rank, stages)) for rank in range(stages)]
        assert layers_of(layers, stages) == theirs


def test_stages_have_their_layers_and_the_ends_the_tables(model: str, tied: str) -> None:
    for each, twice in ((model, 0), (tied, numbers(tied, "embed_tokens"))):
        first, middle, last = (rank.weights for rank in plan(each, pipeline_parallel_size=3).ranks)
        assert first + middle + last == BF16 * (numbers(each, *ALL) + twice)
        assert middle == BF16 * numbers(each, "layers.2.", "layers.3.")
        assert first == middle + BF16 * numbers(each, "embed_tokens")
    passes = [rank.passes for rank in plan(model, pipeline_parallel_size=3).ranks]
    assert passes[0] == passes[1] < passes[2]  # which has logits


def test_k_and_v_of_a_position(model: str) -> None:
    def per_block(**options: Any) -> int:
        return plan(model, block_size=32, **options).ranks[0].cache.bytes_of_one(32)

    assert per_block() == 32 * 5 * 2 * 2 * 16 * BF16  # positions, layers, K and V, heads of 16
    assert per_block(kv_cache_dtype="fp8") == per_block() / 2
    assert per_block(dtype="float32") == 2 * per_block()


def test_what_is_left_is_the_cache(model: str) -> None:
    found = plan(model, GIB, gpu_memory_utilization=0.9)
    (rank,) = found.ranks
    assert found.limit.bytes == pytest.approx(0.9 * GIB, abs=1)
    assert found.room(rank) == found.limit.bytes - rank.fixed
    assert found.requests == pytest.approx(found.room(rank) / rank.cache.bytes_of_one(found.wanted), rel=1e-3)
    assert found.positions == int(found.requests * found.wanted)
    assert plan(model, GIB).limit.bytes == pytest.approx(UTILIZATION * GIB, abs=1)
    told = plan(model, GIB, kv_cache_memory="8MiB")
    assert told.room(told.ranks[0]) == 8 * MIB
    assert told.limit.bytes == GIB


def test_a_draft_lies_on_the_last_stage(model: str, tied: str) -> None:
    drafting: dict[str, Any] = {"speculative_model": tied, "num_speculative_tokens": 3}
    first, last = plan(model, pipeline_parallel_size=2, **drafting).ranks
    alone = plan(model, pipeline_parallel_size=2).ranks
    assert (first.drafter, last.drafter) == (0, BF16 * numbers(tied, *ALL))
    assert first.cache == alone[0].cache
    of_draft = plan(tied).ranks[0].cache.bytes_of_one(1000)
    assert last.cache.bytes_of_one(1000) == alone[1].cache.bytes_of_one(1000) + of_draft
    assert plan(model, tensor_parallel_size=2, **drafting).ranks[0].drafter == last.drafter / 2


def test_a_head_shares_the_targets_table_where_it_is_beside_it(model: str, tmp_path: Path) -> None:
    random_head(tmp_path, open_checkpoint(model).config)
    drafting: dict[str, Any] = {"speculative_model": str(tmp_path), "num_speculative_tokens": 3}
    (beside,) = plan(model, **drafting).ranks
    own = numbers(str(tmp_path), "weight")
    padding = (-DRAFT_VOCAB % PADDED) * SIZES["hidden_size"]
    assert beside.drafter == BF16 * (own + padding)
    _, last = plan(model, pipeline_parallel_size=2, **drafting).ranks
    assert last.drafter == beside.drafter + BF16 * numbers(model, "embed_tokens")
    (half,) = plan(model, tensor_parallel_size=2, **drafting).ranks
    joined = BF16 * numbers(str(tmp_path), "fc.weight")  # is on every rank
    assert half.drafter - joined == (beside.drafter - joined) / 2


def test_lookup_takes_nothing(model: str) -> None:
    drafting: dict[str, Any] = {"speculative_model": "ngram", "num_speculative_tokens": 3}
    assert plan(model, **drafting).ranks[0].drafter == 0


def test_weights_that_are_elsewhere_are_as_config_json_implies(model: str, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    assert plan(str(tmp_path)).ranks == plan(model).ranks
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "fp8"}})
    )
    with pytest.raises(ModelError, match=r"quantised \(fp8\) and not on this disk"):
        plan(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tensor_parallel_size": 3}, "so many cannot share the 4 heads of .* and 2 of K and V; give 2"),
        ({"pipeline_parallel_size": 6}, "pipeline_parallel_size = 6: .* has 5 layers"),
    ],
)
def test_what_cannot_be_divided(model: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(model, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpu_offload_gb": 4}, "cpu_offload_gb = 4"),
        ({"quantization": "fp8"}, "quantization = 'fp8': weights that vLLM quantises itself"),
        ({"kv_cache_dtype": "nvfp4"}, "kv_cache_dtype = 'nvfp4'"),
        (
            {"speculative_config": {"method": "medusa", "model": "org/medusa", "num_speculative_tokens": 4}},
            "of a kind that only vLLM knows",
        ),
    ],
)
def test_what_takes_memory_that_is_not_known(model: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(Unplanned, match=said):
        plan(model, **options)


class TestRefusal:
    def said(self, model: str, total: int, **options: Any) -> str:
        found = plan(model, total, **options)
        assert not found.fits
        return refusal(found, gpu(total))

    def test_weights_that_do_not_fit(self, model: str) -> None:
        """And would on more devices."""
        fixed = plan(model, enforce_eager=True).ranks[0]
        total = fixed.runtime + fixed.weights // 2 + fixed.passes
        options = {"gpu_memory_utilization": 1.0, "enforce_eager": True, "max_num_seqs": 128}
        said = self.said(model, total, **options)
        assert f"does not hold {model!r} on 1 x 1 of them" in said
        assert "vLLM 768 MiB, weights 1 MiB, passes" in said
        assert "tensor_parallel_size=2 fits" in said
        assert "take a GPU of more than" in said

    def test_a_context_that_does_not_fit(self, model: str) -> None:
        least = plan(model).least
        found = plan(model, least - MIB // 4, gpu_memory_utilization=1.0)
        said = refusal(found, gpu(found.limit.bytes))
        assert 0 < found.context < found.wanted == 1024
        assert f"max_model_len={found.context} fits" in said
        shorter = plan(model, found.limit.bytes, gpu_memory_utilization=1.0, max_model_len=found.context)
        assert shorter.fits

    def test_a_cache_that_is_too_small(self, model: str) -> None:
        said = self.said(model, GIB * 4, kv_cache_memory=5 * 2 * 2 * 16 * BF16 * 100)
        assert (
            "bytes hold K and V of 96 positions, and a request may have 1024: max_model_len=96 fits" in said
        )


def test_the_environments_cache_is_that_of_the_build_for_the_cpu(model: str) -> None:
    config, space = resolve_vllm(model), {"VLLM_CPU_KVCACHE_SPACE": "2"}
    assert with_space(config, memory_node(8 * GIB), space).kv_cache_memory == 2 * GIB
    with pytest.raises(ConfigError, match=r"VLLM_CPU_KVCACHE_SPACE = '1\.5' in the environment: give GiB"):
        with_space(config, memory_node(8 * GIB), {"VLLM_CPU_KVCACHE_SPACE": "1.5"})
    assert with_space(config, gpu(8 * GIB), space) == with_space(config, memory_node(8 * GIB), {}) == config


@pytest.fixture
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(monkeypatch)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)


@pytest.mark.usefixtures("_vllm")
class TestBeforeAnythingIsLoaded:
    def test_what_is_surely_too_large_is_refused(self, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fakes.PLATFORM, "get_device_total_memory", lambda: MIB)
        monkeypatch.setattr(fakes.LLMEngine, "from_engine_args", None)
        with pytest.raises(ConfigError, match=r"of the memory node's 1 MiB .* does not hold"):
            LLM(model, engine="vllm")

    def test_what_is_only_estimated_refuses_nothing(
        self, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fakes.PLATFORM, "get_device_total_memory", lambda: 16 * MIB)
        assert not make_plan(resolve_vllm(model), memory_node(16 * MIB)).fits
        LLM(model, engine="vllm").shutdown()

    def test_devices_that_may_be_elsewhere_are_vllms_affair(
        self, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fakes.PLATFORM, "get_device_total_memory", lambda: MIB)
        LLM(model, engine="vllm", distributed_executor_backend="ray").shutdown()

    def test_so_are_models_that_only_vllm_knows(self, model: str, tmp_path: Path) -> None:
        shutil.copytree(model, tmp_path, dirs_exist_ok=True)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["FalconForCausalLM"]}))
        LLM(str(tmp_path), engine="vllm").shutdown()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments, "--engine", "vllm"], catch_exceptions=False)


def test_the_command_needs_neither_vllm_nor_a_device(model: str, tied: str) -> None:
    arguments = [model, "--memory", "80GiB", "-s", "device=cuda", "-d", tied, "-k", "3"]
    arguments += ["-s", "tensor_parallel_size=2"]
    report = json.loads(run(*arguments, "--json").stdout)
    expected = plan(model, tensor_parallel_size=2, speculative_model=tied, num_speculative_tokens=3)
    drafting, alone = report["choices"]
    assert (report["device"], report["limit_bytes"]) == ("GPU", expected.limit.bytes)
    assert (drafting["drafter"], drafting["positions"]) == (tied, expected.positions)
    assert (alone["drafter"], alone["stages"][0]["draft"]) == ("none", 0)
    assert drafting["stages"][0]["target"] == expected.ranks[0].weights
    text = run(*arguments).stdout
    assert f"outrider serve {model} --engine vllm" in text
    assert str(expected.positions) in text


def test_a_plan_that_does_not_fit_ends_with_1(model: str) -> None:
    result = run(model, "--memory", "900MiB")
    assert result.exit_code == 1
    assert "does not hold" in result.output
    assert "to serve it" not in result.output


def test_the_plan_for_the_cpu_reads_the_environment(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    report = json.loads(run(model, "--memory", "8GiB", "--json").stdout)
    assert report["device"] == "memory node"
    assert report["choices"][0]["stages"][0]["cache"] == GIB


def test_an_engine_that_there_is_not(model: str) -> None:
    with pytest.raises(ConfigError, match="engine = 'vlm'"):
        CliRunner().invoke(app, ["plan", model, "--engine", "vlm"], catch_exceptions=False)
