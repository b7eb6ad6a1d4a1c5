"""`outrider plan --engine vllm`: what fits on the devices that vLLM computes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from outrider.cli.columns import Column, in_mib, print_columns
from outrider.cli.console import print_json, say, say_command, stderr, stdout
from outrider.cli.importing import importing

if TYPE_CHECKING:
    from outrider.cluster.vllm.devices import Device
    from outrider.cluster.vllm.plan import RankPlan, VllmPlan


def plan_on_vllm(model: str, options: Mapping[str, Any], memory: int | None, *, as_json: bool) -> None:
    """Print the plan, with what was asked for to draft and without. Exit status 1 if it does not fit.

    options: of `LLM`, and 'device', which may be 'cpu'. memory: bytes of each device, which need not be here;
    None: as this machine's. Raises ConfigError and ModelError, as `make_plan`.
    """
    with importing():
        from outrider.cluster.vllm.config import OF_DRAFTS, resolve_vllm
        from outrider.cluster.vllm.devices import device_of, with_space
        from outrider.cluster.vllm.plan import make_plan, refusal

    device = device_of(options.get("device"), memory, os.environ)
    asked = {name: value for name, value in options.items() if name not in ("device", "engine")}
    config = with_space(resolve_vllm(model, **asked), device, os.environ)
    plan = make_plan(config, device)
    plans = {"none": plan}
    if config.drafters:
        alone = dict.fromkeys((*OF_DRAFTS, "speculative_config"))
        plans = {config.drafters[0]: plan, "none": make_plan(config.model_copy(update=alone), device)}
    if as_json:
        print_json(_as_json(model, device, plans))
    else:
        _print(model, device, plans)
        if plan.fits:
            say_command("to serve it:", ["outrider", "serve", model, "--engine", "vllm", *_settings(asked)])
    if not plan.fits:
        say(stderr, refusal(plan, device), "bold red")
        raise typer.Exit(1)


def _settings(options: Mapping[str, Any]) -> Iterator[str]:
    """Options of `LLM` on the command line."""
    for name, value in options.items():
        yield "-s"
        yield f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _print(model: str, device: Device, plans: Mapping[str, VllmPlan]) -> None:
    """One row a drafter and stage."""
    plan = next(iter(plans.values()))
    rows = [(name, plan, rank) for name, plan in plans.items() for rank in plan.ranks]
    ranks, stages = plan.config.tensor_parallel_size, plan.config.pipeline_parallel_size
    keys = [Column("drafter", [name if rank is plan.ranks[0] else "" for name, plan, rank in rows], "left")]
    if stages > 1:
        layers = [f"{rank.layers.start} to {rank.layers.stop - 1}" for _, _, rank in rows]
        keys.append(Column("layers", layers))
    columns = (
        Column("weights", [in_mib(rank.weights) for _, _, rank in rows]),
        Column("draft", [in_mib(rank.drafter) for _, _, rank in rows]),
        Column("passes", [in_mib(rank.passes) for _, _, rank in rows]),
        Column("K/V", [in_mib(rank.cache.bytes_of_one(1000)) for _, _, rank in rows]),
        Column("needs", [in_mib(plan.needs(rank)) for _, plan, rank in rows]),
        Column("positions", [str(plan.positions) if plan.fits else "-" for _, plan, _ in rows]),
        Column("requests", [f"{plan.requests:.2f}" if plan.fits else "-" for _, plan, _ in rows]),
    )
    print_columns(
        stdout,
        keys,
        columns,
        title=f"{model} on {ranks} x {stages} {device.kind}s, of each {plan.limit}; "
        f"{in_mib(plan.ranks[0].runtime)} MiB of it for vLLM",
        caption=f"MiB of each {device.kind}; K/V: of 1000 positions; needs: with one request of "
        f"{plan.wanted} positions. Positions of all requests, and requests of that length, for which the "
        "rest has room: as vLLM's log tells them (KV cache size, concurrency). What vLLM and passes take "
        "is estimated.",
        styles=[None if plan.fits else "dim" for _, plan, _ in rows],
        ends=[n for n, (_, plan, rank) in enumerate(rows) if rank is plan.ranks[-1]],
    )


def _as_json(model: str, device: Device, plans: Mapping[str, VllmPlan]) -> dict[str, Any]:
    plan = next(iter(plans.values()))
    return {
        "model": model,
        "engine": "vllm",
        "device": device.kind,
        "memory_bytes": device.total,
        "limit_bytes": plan.limit.bytes,
        "tensor_parallel_size": plan.config.tensor_parallel_size,
        "pipeline_parallel_size": plan.config.pipeline_parallel_size,
        "max_model_len": plan.wanted,
        "choices": [
            {
                "drafter": name,
                "fits": plan.fits,
                "needed_bytes": plan.least,
                "positions": plan.positions if plan.fits else 0,
                "full_requests_at_once": plan.requests if plan.fits else 0,
                "stages": [_stage(plan, rank) for rank in plan.ranks],
            }
            for name, plan in plans.items()
        ],
    }


def _stage(plan: VllmPlan, rank: RankPlan) -> dict[str, Any]:
    """Bytes of each device of a stage."""
    return {
        "layers": [rank.layers.start, rank.layers.stop],
        "runtime": rank.runtime,
        "target": rank.weights,
        "draft": rank.drafter,
        "activations": rank.passes,
        "cache": plan.room(rank),
        "cache_per_1000_positions": rank.cache.bytes_of_one(1000),
    }
