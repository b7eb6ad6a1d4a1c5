"""What `outrider bench` says tokens cost and consume."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zeus.device.cpu
from typer.testing import CliRunner
from zeus.device.cpu import rapl

from outrider.cli import bench as command
from outrider.cli.app import app
from outrider.measurement.energy import Counter, EnergyMeter, NoMeter, find_meter, used

CPU = "cpu"


class FakeMeter:
    """Ten joules pass between any two readings."""

    source = "a fake"
    reason = None

    def __init__(self) -> None:
        self.readings = 0

    def joules(self) -> float:
        self.readings += 1
        return 10.0 * self.readings


def bench(
    target: str, prompts: Path, meter: EnergyMeter, *arguments: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(command, "find_meter", lambda device: meter)
    given = ["bench", "--model", target, "--prompts", str(prompts), "--max-tokens", "5", "--rounds", "3"]
    result = CliRunner().invoke(app, [*given, *arguments], env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Two turns, so two readings of the meter's difference in each run."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"turns": ["the end", "on"]}))
    return path


def test_json(target: str, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["-s", "max_model_len=256", "--price-per-hour", "0.36", "--json"]
    report = json.loads(bench(target, prompts, FakeMeter(), *arguments, monkeypatch=monkeypatch))
    assert report["price_per_hour"] == 0.36
    assert report["energy"] == {"source": "a fake", "not_measurable_because": None}
    row = report["results"][0]
    for side in (row["target_only"], row["speculative"]):
        # 0.36 an hour are 100 a million seconds.
        assert side["cost_per_million_tokens"] == pytest.approx(100 / side["tokens_per_s"], rel=1e-3)
        assert 20 / 10 <= side["joules_per_token"] <= 20 / 2  # two turns of 1 to 5 tokens


def test_without_a_meter_and_a_price(target: str, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nulls with the reason, and no figure in the table."""
    none = NoMeter("the counters are on holiday")
    report = json.loads(bench(target, prompts, none, "--json", monkeypatch=monkeypatch))
    assert report["price_per_hour"] is None
    assert report["energy"] == {"source": None, "not_measurable_because": "the counters are on holiday"}
    for side in ("target_only", "speculative"):
        assert report["results"][0][side]["joules_per_token"] is None
        assert report["results"][0][side]["cost_per_million_tokens"] is None
    table = bench(target, prompts, none, monkeypatch=monkeypatch)
    assert "energy: not measurable here (the counters are on holiday)" in table
    assert "joules" not in table


def test_tables(target: str, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A price without a meter has a dash for energy, a meter without a price one for cost."""
    arguments = ["--price-per-hour", "1"]
    priced = bench(target, prompts, NoMeter("no"), *arguments, monkeypatch=monkeypatch)
    assert "energy: not measurable here (no)" in priced
    row = priced[: priced.index("cost of a million")].splitlines()
    assert sum(line.count(" - ") for line in row if " all " in line) == 2
    metered = bench(target, prompts, FakeMeter(), monkeypatch=monkeypatch)
    assert "energy: a fake" in metered


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "much"])
def test_bad_prices_are_refused_by_name(price: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded."""
    monkeypatch.setattr(command, "load_pair", lambda *a, **b: pytest.fail("it went on"))
    result = CliRunner().invoke(app, ["bench", "--price-per-hour", price])
    assert result.exit_code == 2
    assert "--price-per-hour" in result.stderr


def test_what_counts_as_measured() -> None:
    """A counter that stood still, as in some virtual machines, or that jumped back has measured nothing."""
    assert used(1.0, 3.5) == 2.5
    assert used(None, 3.5) is used(1.0, None) is used(2.0, 2.0) is used(3.0, 1.0) is None


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    assert find_meter(CPU) == NoMeter(
        "reading RAPL or NVML needs the package 'zeus', which is not installed; it comes with the extra "
        "'energy': pip install 'outrider[energy]'"
    )


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine's powercap folder, which Zeus takes for the real one."""
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tmp_path / "intel-rapl"))
    monkeypatch.setattr(zeus.device.cpu, "_cpus", None)
    # Instead of a process that watches for overflows.
    monkeypatch.setattr(rapl, "RaplWraparoundTracker", NoOverflows)
    rapl.rapl_is_available.cache_clear()
    yield tmp_path / "intel-rapl"
    rapl.rapl_is_available.cache_clear()


class NoOverflows:
    def __init__(self, *given: Any) -> None:
        pass

    def get_num_wraparounds(self) -> int:
        return 0


def write_zone(path: Path, name: str, microjoules: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", 2**38)):
        (path / file).write_text(f"{content}\n")


def test_rapl(powercap: Path) -> None:
    """Packages and their memory are summed; the platform's zone, which holds them, is left out."""
    for package in (0, 1):
        write_zone(powercap / f"intel-rapl:{package}", f"package-{package}", 5_000_000)
        write_zone(powercap / f"intel-rapl:{package}" / f"intel-rapl:{package}:0", "dram", 1_000_000)
    write_zone(powercap / "intel-rapl:2", "psys", 900_000_000)
    meter = find_meter(CPU)
    assert isinstance(meter, Counter)
    assert meter.source == "RAPL: CPU packages and memory, whatever runs on the machine"
    assert meter.joules() == 12.0
    write_zone(powercap / "intel-rapl:1", "package-1", 7_500_000)
    assert meter.joules() == 14.5


def test_rapl_that_only_root_may_read(powercap: Path) -> None:
    """As Linux has it since 2020. The error that Zeus makes of it is the reason."""
    write_zone(powercap / "intel-rapl:0", "package-0", 5_000_000)
    energy = powercap / "intel-rapl:0" / "energy_uj"
    energy.unlink()
    energy.mkdir()  # unreadable to root too, who may run the tests
    meter = find_meter(CPU)
    assert meter.source is None
    assert str(meter.reason).startswith("RAPL cannot be read: ")


def test_machines_without_rapl(powercap: Path) -> None:
    meter = find_meter(CPU)
    assert meter.source is None
    assert meter.joules() is None
    assert "no RAPL counters" in str(meter.reason)


def test_a_gpu_that_is_not_there() -> None:
    meter = find_meter("cuda:99")
    assert meter.source is None
    assert "NVML" in str(meter.reason)
