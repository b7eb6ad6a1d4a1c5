"""The files that were measured: the simulation repeats what the engine did, and `auto` does what pays."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest

from benchmarks.fleet.__main__ import parsed, replay, rows, table
from benchmarks.fleet.costs import Auto, Costs
from benchmarks.fleet.measured import known, path_of, read


@pytest.mark.parametrize("name", known())
def test_the_simulation_repeats_what_the_engine_did(name: str) -> None:
    """One stream, alone. docs/scale.md has all figures; these are what a fleet's are read for."""
    measured = read(path_of(name))
    engine, simulated = asdict(measured.check.plain), asdict(replay(measured, "0"))
    for figure, most in (("tokens_per_second", 0.05), ("ttft_mean", 0.4), ("tpot_mean", 0.35)):
        assert abs(simulated[figure] / engine[figure] - 1) < most, figure


@pytest.mark.parametrize("name", known())
def test_where_it_was_measured_is_told(name: str) -> None:
    machine = read(path_of(name)).machine
    assert machine.cpu
    assert machine.threads <= machine.cores
    assert machine.command.startswith("python -m benchmarks.fleet.measure MODEL ")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", machine.date)


def test_auto_drafts_less_the_more_there_is_to_do() -> None:
    """Down to nothing, where rows are what a step costs."""
    measured = read(path_of("smollm2"))
    auto = Auto(Costs(measured.steps, measured.drafting))
    drafted = [sum(auto.lengths(n, 0, 256.0)) / n for n in (1, 2, 4, 8, 16, 32)]
    assert drafted[0] >= 1
    assert drafted[-1] < 0.1
    assert all(more >= fewer for more, fewer in zip(drafted[1:3], drafted[3:5], strict=True))


def test_the_command_prints_every_combination() -> None:
    args = parsed(["--replicas", "8", "--loads", "0.5", "--lengths", "0,auto", "--seconds", "20"])
    found = rows(read(path_of(args.measured)), args)
    assert len(found) == 2 * 3
    assert len(table(found).splitlines()) == 1 + len(found)
    assert all(row.money > 0 < row.kilowatt_hours for row in found)


@pytest.mark.parametrize("given", [["--lengths", "99"], ["--routers", "nearest"], ["--measured", "nothing"]])
def test_what_is_not_known_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(given)
    assert given[1] in capsys.readouterr().err
