"""What `outrider serve` says on a terminal: what it serves and where, and then its log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil
from rich.text import Text

from outrider import __version__
from outrider.cli.console import stderr
from outrider.serving import API_KEY

if TYPE_CHECKING:
    from outrider.cluster.config import ClusterConfig
    from outrider.serving.service import Service

HELLO = {"messages": [{"role": "user", "content": "Name three colours."}]}


def show(service: Service, url: str) -> None:
    """The banner. url: where the server listens."""
    _print(facts(service, url))
    stderr.print(Text("  try it:", "dim"))
    stderr.print(Text(curl(service, url)), soft_wrap=True)


def show_replicas(config: ClusterConfig, url: str) -> None:
    """The banner of replicas. url: where their ingress listens."""
    many = f"{config.replicas}" if config.most == config.replicas else f"{config.replicas} to {config.most}"
    each = f"{config.gpus:g} GPUs" if config.gpus else f"{config.cores} cores"
    rows = [("model", config.server_config().model_name), ("replicas", f"{many}, each with {each}")]
    _print([*rows, ("API", f"{url}/v1"), ("playground", f"{url}/"), ("metrics", f"{url}/metrics")])


def _print(rows: Sequence[tuple[str, str]]) -> None:
    stderr.print(Text(f"Outrider {__version__}", "bold"))
    for name, value in rows:
        stderr.print(Text.assemble((f"  {name:<11}", "dim"), value), soft_wrap=True)


def facts(service: Service, url: str) -> list[tuple[str, str]]:
    """What is served, and where."""
    model, config = service.model, service.config
    drafters = ", ".join(model.drafters) or "none (plain decoding)"
    rows = [
        ("model", f"{config.model_name}, up to {model.max_model_len} tokens"),
        ("drafters", drafters),
        ("threads", model.threads),
        (
            "memory",
            _size(psutil.Process().memory_info().rss) + _cache(model.kv_cache_memory),
        ),
    ]
    if service.sampling_defaults:
        params = ", ".join(f"{name} {value}" for name, value in service.sampling_defaults.items())
        rows.append(("sampling", f"{params} (the model's defaults)"))
    return [*rows, ("API", f"{url}/v1"), ("playground", f"{url}/")]


def curl(service: Service, url: str) -> str:
    """A command to copy."""
    chats = service.model.tokenizer.chat_template is not None
    path, body = ("/v1/chat/completions", HELLO) if chats else ("/v1/completions", {"prompt": "Once"})
    key = f' -H "Authorization: Bearer ${API_KEY}"' if service.config.api_keys else ""
    header = "-H 'Content-Type: application/json'"
    return f"curl {url}{path}{key} \\\n  {header} \\\n  -d '{json.dumps(body)}'"


def _cache(memory: int | None) -> str:
    return "" if memory is None else f"; the cache may take {_size(memory)}"


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
