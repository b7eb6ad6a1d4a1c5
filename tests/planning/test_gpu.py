"""Plans of a GPU's memory: what is counted, what is refused and in which words. A card is two numbers."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from outrider import LLM, ConfigError
from outrider.cli.app import app
from outrider.config import EngineConfig, resolve
from outrider.engine.backend import triton_formats
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import Linear, Table, leaves
from outrider.models.model import Model
from outrider.models.runner import group_sizes
from outrider.ops.cuda import layout, linear
from outrider.ops.cuda.backend import GpuBackend
from outrider.planning import gpu
from outrider.planning.footprint import model_footprint
from outrider.planning.gpu import GpuLedger
from outrider.planning.ledger import Outline, ledger_of
from outrider.planning.limit import within_limit
from outrider.planning.passes import PassSize
from outrider.planning.plan import Ground, MemoryPlan, make_plan
from outrider.planning.process import DRIVER

MIB, GIB = 2**20, 2**30
SIZE = PassSize(rows=8, logit_rows=2, requests=2, positions=64, ahead=5, drafted=3)
ON_IT: dict[str, Any] = {"device": "cpu", "backend": "triton"}  # in the interpreter


def card(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    monkeypatch.setattr("outrider.ops.cuda.device.memory", lambda device: (total, free))


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("an engine was built")

    monkeypatch.setattr("outrider.engines.build_engine", build)


def plan(model: str, limit: int = 80 * GIB, **options: Any) -> MemoryPlan:
    """For a GPU that is not here."""
    config = resolve(model, **{"device": "cuda", **options})
    return make_plan(config, Ground(limit, DRIVER, open_checkpoint(model), open_checkpoint))


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "bfloat16"}, {"quantization": "int8"}, {"quantization": "int4"}]
)
def test_weights_and_cache_are_those_of_the_kernels(target: str, options: dict[str, Any]) -> None:
    config, checkpoint = resolve(target, **ON_IT, **options), open_checkpoint(target)
    ledger = ledger_of(config, checkpoint)
    assert isinstance(ledger, GpuLedger)
    found = model_footprint(Model(Outline(checkpoint), ledger), ledger, SIZE, config.block_size)
    formats = triton_formats(config, checkpoint)
    backend = GpuBackend("cpu", formats.linear, formats.table, cache_dtype=formats.cache_dtype)
    model = Model(checkpoint, backend)
    packed = [model.packed(leaf) for leaf in leaves(model.tree) if isinstance(leaf, Linear | Table)]
    matrices = [one for each in packed for one in (each if isinstance(each, tuple) else (each,))]
    assert found.weights == sum(matrix.nbytes for matrix in matrices)
    assert found.groups == group_sizes(model, config.block_size, SIZE.ahead, SIZE.drafted)
    assert found.peak > found.weights


def test_passes_are_cut_as_the_kernels_cut_them() -> None:
    assert (gpu.SPLIT, gpu.PIECE, gpu.SCRATCH) == (layout.SPLIT, layout.PIECE, layout.SCRATCH)
    assert gpu.SUMS == linear.PROGRAMS * linear.TILE
    for outputs, inputs in ((1024, 4096), (4096, 14336), (128256, 4096)):
        splits = linear.Cut.of(outputs, inputs).splits
        assert splits == 1 or splits * outputs <= gpu.SUMS


def test_nothing_of_the_processor_counts(target: str) -> None:
    found = plan(target, max_num_seqs=2, speculative_model="ngram")
    assert found.runtime == DRIVER
    assert found.drafts == 0  # texts lie elsewhere
    assert found.block == found.cache_block
    assert found.fits
    assert not plan(target, DRIVER + MIB).fits


def test_what_is_not_recorded_takes_nothing(target: str) -> None:
    assert plan(target).activations - plan(target, enforce_eager=True).activations == gpu.GRAPHS


def test_a_plan_without_kernels_is_refused(target: str) -> None:
    with pytest.raises(
        ConfigError, match=r"'cuda' \(cuda, where PyTorch computes, since dtype = 'float64' is not"
    ):
        plan(target, dtype="float64")


@pytest.mark.usefixtures("nothing_is_built")
class TestBeforeAnythingIsBuilt:
    def test_a_share_is_what_the_plan_keeps_to(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        total = 2 * plan(target, max_num_seqs=1, **ON_IT).least
        card(monkeypatch, total, total)
        tight, roomy = (
            within_limit(resolve(target, **ON_IT, gpu_memory_utilization=share)) for share in (0.5, 1.0)
        )
        wanted = plan(target, total // 2, **ON_IT)
        assert (tight.kv_cache_memory, tight.max_num_seqs) == (wanted.kv_cache_memory, wanted.max_num_seqs)
        assert tight.kv_cache_memory < roomy.kv_cache_memory

    def test_more_than_is_free(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        card(monkeypatch, 8 * GIB, 4 * GIB)
        said = r"gpu_memory_utilization = 0.9 of the GPU's 8192 MiB \(7373 MiB\) is more than the 4864 MiB"
        with pytest.raises(ConfigError, match=said):
            LLM(target, **ON_IT, gpu_memory_utilization=0.9)
        with pytest.raises(
            ConfigError, match=r"memory_limit = 6442450944 bytes \(6144 MiB\) is more than the 4864"
        ):
            LLM(target, **ON_IT, memory_limit="6GiB")

    def test_too_little_for_the_model(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        card(monkeypatch, 8 * GIB, 8 * GIB)
        said = r"= 0.1 of .* does not hold .*, which needs \d+ MiB: runtime 768 MiB, target .* to 0.12 for"
        with pytest.raises(ConfigError, match=said):
            LLM(target, **ON_IT, gpu_memory_utilization=0.1)

    def test_a_card_that_is_too_small(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        card(monkeypatch, 850 * MIB, 850 * MIB)
        with pytest.raises(ConfigError, match="take a GPU of more than 850 MiB"):
            LLM(target, **ON_IT, gpu_memory_utilization=1.0)

    def test_without_a_limit_what_is_free_has_to_do(
        self, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card(monkeypatch, 80 * GIB, 100 * MIB)
        said = r"the free memory of the GPU \(868 MiB\) does not hold .*: free memory there, of which \d+"
        with pytest.raises(ConfigError, match=said):
            LLM(target, **ON_IT)
        card(monkeypatch, 80 * GIB, 60 * GIB)
        asked = resolve(target, **ON_IT, kv_cache_memory=12345678)
        kept = within_limit(asked)
        assert kept.max_num_seqs == EngineConfig.model_fields["max_num_seqs"].default
        assert kept.kv_cache_memory <= 12345678

    def test_two_limits(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        card(monkeypatch, 8 * GIB, 8 * GIB)
        with pytest.raises(ConfigError, match="both say what may be taken of the GPU; drop one"):
            LLM(target, **ON_IT, gpu_memory_utilization=0.5, memory_limit="1GiB")

    @pytest.mark.parametrize("share", [0, -0.5, 1.5])
    def test_no_share_at_all(self, target: str, share: float) -> None:
        with pytest.raises(ConfigError, match="gpu_memory_utilization"):
            LLM(target, gpu_memory_utilization=share)


def test_on_the_cpu_a_share_has_no_effect(target: str, caplog: pytest.LogCaptureFixture) -> None:
    asked = resolve(target, device="cpu", gpu_memory_utilization=0.9)
    assert within_limit(asked) == asked
    assert "gpu_memory_utilization = 0.9 has no effect" in caplog.text


def report(target: str, *arguments: str) -> Any:
    result = CliRunner().invoke(
        app, ["plan", target, "--json", "-s", "device=cuda", "-d", "ngram", *arguments]
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_plans_for_a_card_that_is_not_here(target: str) -> None:
    whole = report(target, "--memory", "80GiB")
    assert whole["memory_bytes"] == 80 * GIB
    assert {choice["format"] for choice in whole["choices"]} == {"as stored", "bfloat16", "int8", "int4"}
    assert all(choice["bytes"]["runtime"] == DRIVER for choice in whole["choices"])
    assert whole["read_bandwidth_bytes_per_s"] is None
    half = report(target, "--memory", "80GiB", "-s", "gpu_memory_utilization=0.5")
    assert half["memory_bytes"] == 40 * GIB
    text = CliRunner().invoke(app, ["plan", target, "-s", "device=cuda", "--memory", "80GiB", "-d", "ngram"])
    assert "in 81920 MiB, 768 MiB of it for its driver" in " ".join(text.stdout.split())
    assert f"outrider run {target} -d suffix -s device=cuda -s memory_limit=80GiB" in text.stdout
