"""`outrider serve`: an OpenAI-compatible server."""

from __future__ import annotations

import json
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from outrider.cli import serve_options as option
from outrider.cli.console import ConsoleHandler, stderr
from outrider.cli.importing import importing
from outrider.cli.options import (
    DrafterOption,
    DraftQuantizationOption,
    EngineOption,
    LengthOption,
    SettingOption,
    WorkloadOption,
    load,
    mapping,
    options_of,
)
from outrider.cli.serve_replicas import serve_replicas
from outrider.cli.startup import starting
from outrider.cli.vllm_flags import ServeCommand
from outrider.errors import ConfigError
from outrider.extras import SERVER, TORCH

if TYPE_CHECKING:
    from outrider.adapting.settings import AdaptConfig

FORMATS = ("auto", "text", "json")
LEVELS = ("debug", "info", "warning", "error")
command_class = ServeCommand


def serve(
    model: option.Model = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    engine: EngineOption = "outrider",
    host: option.Host = "127.0.0.1",
    port: option.Port = 8000,
    api_key: option.ApiKey = None,
    served_model_name: option.ServedModelName = None,
    max_model_len: option.MaxModelLen = None,
    dtype: option.Dtype = None,
    quantization: option.Quantization = None,
    chat_template: option.ChatTemplate = None,
    tool_call_parser: option.ToolCallParser = None,
    reasoning_parser: option.ReasoningParser = None,
    pooling: option.Pooling = None,
    generation_config: option.GenerationConfig = None,
    speculative_config: option.SpeculativeConfig = None,
    scheduling_policy: option.SchedulingPolicy = "fcfs",
    max_queue: option.MaxQueue = 256,
    max_output_tokens: option.MaxOutputTokens = None,
    max_body_size: option.MaxBodySize = "4MiB",
    max_connections: option.MaxConnections = 512,
    allowed_host: option.AllowedHost = None,
    allowed_origin: option.AllowedOrigin = None,
    strict: option.Strict = False,
    header_timeout: option.HeaderTimeout = 10.0,
    body_timeout: option.BodyTimeout = 60.0,
    request_timeout: option.RequestTimeout = 600.0,
    write_timeout: option.WriteTimeout = 30.0,
    adapt: option.Adapt = False,
    adapt_memory: option.AdaptMemory = "256MiB",
    adapt_cores: option.AdaptCores = 0,
    adapt_save: option.AdaptSave = None,
    replicas: option.Replicas = None,
    max_replicas: option.MaxReplicas = None,
    ray_address: option.RayAddress = None,
    cores_per_replica: option.CoresPerReplica = None,
    gpus_per_replica: option.GpusPerReplica = 0,
    shutdown_timeout: option.ShutdownTimeout = 60.0,
    log_level: option.LogLevel = "info",
    log_format: option.LogFormat = "auto",
    setting: SettingOption = None,
) -> None:
    """Serve a model to clients of OpenAI's and vLLM's API.

    Options of LLM may be given by their own names, as in --max-num-seqs 16. Those of `vllm serve`
    that change no answer are taken.

    SIGTERM and Ctrl-C end it with exit status 0: no more requests are taken, and those that run are finished.
    A second one does not wait for them. What then does not end within seconds is ended, with exit status 1.
    """
    SERVER.require("`outrider serve`")
    with starting(), importing():
        import asyncio

        from outrider.adapting.attach import threads_beside
        from outrider.adapting.footprint import learning_bytes
        from outrider.cli import banner
        from outrider.serving import logs, server
        from outrider.serving.model import LocalEngine, ServedModel
        from outrider.serving.service import Service
        from outrider.serving.settings import ServerConfig, public_name

    if log_level not in LEVELS:
        raise ConfigError(f"log_level = {log_level!r}: give one of {', '.join(LEVELS)}")
    if log_format not in FORMATS:
        raise ConfigError(f"log_format = {log_format!r}: give one of {', '.join(FORMATS)}")
    in_words = log_format == "text" or (log_format == "auto" and stderr.is_terminal)
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "model_name": served_model_name or public_name(model),
        "api_keys": api_key or [],
        "tool_call_parser": tool_call_parser,
        "reasoning_parser": reasoning_parser,
        "max_queue": max_queue,
        "max_output_tokens": max_output_tokens,
        "max_body_size": max_body_size,
        "max_connections": max_connections,
        "allowed_hosts": allowed_host or [],
        "allowed_origins": [origin for given in allowed_origin or [] for origin in _origins(given)],
        "strict": strict,
        "header_timeout": header_timeout,
        "body_timeout": body_timeout,
        "request_timeout": request_timeout,
        "write_timeout": write_timeout,
        "learning": _learning(adapt, memory=adapt_memory, cores=adapt_cores, save=adapt_save),
        "shutdown_timeout": shutdown_timeout,
    }
    config = ServerConfig(**options)
    handler = ConsoleHandler() if in_words else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logs.TextFormatter() if in_words else logs.JsonFormatter())
    logs.log_to(handler, log_level)
    of_llm: dict[str, Any] = {
        "engine": engine,
        "max_model_len": max_model_len,
        "dtype": dtype,
        "quantization": quantization,
        "chat_template": chat_template,
        "pooling": pooling,
        "generation_config": generation_config,
        "num_threads": None if config.learning is None else threads_beside(config.learning),
        "beside": None if config.learning is None else partial(learning_bytes, adapt=config.learning),
        "speculative_config": None
        if speculative_config is None
        else mapping("speculative_config", speculative_config),
    }
    given = {name: value for name, value in of_llm.items() if value is not None}
    given["scheduling_policy"] = scheduling_policy
    on_ray = {
        "max_replicas": max_replicas,
        "ray_address": ray_address,
        "cores_per_replica": cores_per_replica,
        "gpus_per_replica": gpus_per_replica or None,
    }
    if replicas is not None:
        if adapt:
            raise ConfigError("--adapt with --replicas: each would learn by itself; leave one out")
        drafting = options_of(
            speculative_model, num_speculative_tokens, workload, draft_quantization, setting, **given
        )
        serve_replicas(
            {
                "model": model,
                "replicas": replicas,
                "max_replicas": max_replicas,
                "gpus": gpus_per_replica,
                "options": drafting,
                "server": {name: value for name, value in options.items() if name != "learning"},
            }
            | ({} if cores_per_replica is None else {"cores": cores_per_replica}),
            ray_address,
            in_words=in_words,
            quiet=log_level != "debug",
        )
        return
    if alone := [name for name, value in on_ray.items() if value is not None]:
        raise ConfigError(f"{alone[0]} is given without --replicas; add that, or drop it")
    server.reserve_descriptors(config.max_connections)
    with server.listen(config.host, config.port) as bound:
        llm = load(
            model,
            speculative_model,
            num_speculative_tokens,
            workload,
            draft_quantization,
            setting,
            **given,
        )
        announce = banner.show if in_words else server.log_listening
        served = LocalEngine(llm, queue=config.max_queue, learning=config.learning)
        service = Service(ServedModel.of(llm), served, config)
        asyncio.run(server.run(service, bound, announce))


def _learning(adapt: bool, **options: Any) -> AdaptConfig | None:
    """How the head learns. Raises ConfigError for options of learning where nothing is to be learnt, and for
    learning without PyTorch."""
    from outrider.adapting.settings import AdaptConfig

    config = AdaptConfig(**options)
    given = [name for name in options if getattr(config, name) != AdaptConfig.model_fields[name].default]
    if given and not adapt:
        raise ConfigError(f"--adapt-{given[0]} is given without --adapt; add that, or drop it")
    if not adapt:
        return None
    TORCH.require("--adapt")
    return config


def _origins(given: str) -> list[str]:
    """One origin, or several as `vllm serve` takes them: in JSON."""
    if not given.startswith("["):
        return [given]
    try:
        return [str(origin) for origin in json.loads(given)]
    except ValueError:
        raise ConfigError(f"allowed_origins = {given!r} is not JSON; give one origin") from None
