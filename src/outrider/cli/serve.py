"""`outrider serve`: an OpenAI-compatible server."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from outrider.cli.startup import starting
from outrider.cli.vllm_flags import ServeCommand
from outrider.errors import ConfigError
from outrider.extras import CLUSTER, SERVER, TORCH

if TYPE_CHECKING:
    from outrider.adapting.settings import AdaptConfig

LEARNING = "Learning while serving"
REPLICAS = "Replicas on Ray"
FORMATS = ("auto", "text", "json")
LEVELS = ("debug", "info", "warning", "error")
command_class = ServeCommand


def serve(
    model: Annotated[
        str, typer.Argument(help="Target: a folder, a hub id, a GGUF file, or 'smollm2'.")
    ] = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    engine: EngineOption = "outrider",
    host: Annotated[
        str, typer.Option(help="Address to listen at. The default is reached from this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: one that is free.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="OUTRIDER_API_KEY",
            help="Key that clients have to give. Repeatable. Others on the machine can read a command line: "
            "better set it in the environment.",
            show_envvar=True,
        ),
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model; else the name of its file or folder.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer; else what model and cache allow.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="auto|float32|bfloat16|float16", help="What weights become.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option("--quantization", metavar="int8|int4", help="Quantise the weights.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(help="A file with a Jinja template, or the template itself.")
    ] = None,
    tool_call_parser: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Form in which the model calls tools; else what its chat template shows."
        ),
    ] = None,
    reasoning_parser: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same for its reasoning.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            metavar="mean|last",
            help="How embeddings are made; else as the model says, if it is meant for that.",
        ),
    ] = None,
    generation_config: Annotated[
        str | None,
        typer.Option(
            metavar="auto|vllm|PATH",
            help="Where defaults of sampling come from: the model, nowhere, or a generation_config.json.",
        ),
    ] = None,
    speculative_config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Speculation in vLLM's form, in place of the options above."),
    ] = None,
    scheduling_policy: Annotated[
        str,
        typer.Option(
            metavar="fcfs|priority",
            help="Serve requests in order of arrival, or those earlier that have a lower priority, which any "
            "client may give.",
        ),
    ] = "fcfs",
    max_queue: Annotated[
        int, typer.Option(help="Sequences that may wait; then clients are told to come back (429).")
    ] = 256,
    max_output_tokens: Annotated[
        int | None, typer.Option(help="Tokens of one sequence at most; else what the context holds.")
    ] = None,
    max_body_size: Annotated[str, typer.Option(help="Of one HTTP request, as in '4MiB'.")] = "4MiB",
    max_connections: Annotated[
        int, typer.Option(help="Connections at a time; one more is told to come back (503).")
    ] = 512,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name that clients may call the server by, such as a proxy's. Repeatable."),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-origins",
            metavar="ORIGIN",
            help="Pages that may use the server from a browser (CORS), as in 'https://chat.example'; '*': "
            "all. Repeatable.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse fields that are not known although they change no answer."),
    ] = False,
    header_timeout: Annotated[
        float, typer.Option(help="Seconds until a request's header has to be there, from the connection on.")
    ] = 10.0,
    body_timeout: Annotated[
        float, typer.Option(help="Seconds until a request's body has to be there, from its header on.")
    ] = 60.0,
    request_timeout: Annotated[
        float, typer.Option(help="Seconds that a request may take, from its header to its last token.")
    ] = 600.0,
    write_timeout: Annotated[
        float, typer.Option(help="Seconds in which a client has to take what was sent to it.")
    ] = 30.0,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="Have the head learn from what the model says, in idle time, and draft with what came of it "
            "where that is better. Answers stay the same.",
            rich_help_panel=LEARNING,
        ),
    ] = False,
    adapt_memory: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Memory for what is learnt from.", rich_help_panel=LEARNING),
    ] = "256MiB",
    adapt_cores: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Cores to learn on all the time, which the model then leaves free; 0: on all of them, in "
            "idle time.",
            rich_help_panel=LEARNING,
        ),
    ] = 0,
    adapt_save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the head that drafts last; without one, what was learnt is never written down.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Engines to serve with, each a process of its own on Ray, behind one address.",
            rich_help_panel=REPLICAS,
        ),
    ] = None,
    max_replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Start up to so many where requests queue up, and end them where they do not.",
            rich_help_panel=REPLICAS,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Ray cluster, as in 'auto' or '10.0.0.1:6379'; else one is started on this machine.",
            rich_help_panel=REPLICAS,
        ),
    ] = None,
    cores_per_replica: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Cores of each, which are its threads; else an equal share.",
            rich_help_panel=REPLICAS,
        ),
    ] = None,
    gpus_per_replica: Annotated[
        float, typer.Option(min=0, metavar="N", help="GPUs of each.", rich_help_panel=REPLICAS)
    ] = 0,
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds that running requests have left once the server is told to stop.")
    ] = 60.0,
    log_level: Annotated[
        str, typer.Option(metavar="debug|info|warning|error", help="What is logged, on stderr.")
    ] = "info",
    log_format: Annotated[
        str,
        typer.Option(
            metavar="auto|text|json",
            help="Words for people, or a JSON object a line; 'auto': words on a terminal.",
        ),
    ] = "auto",
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
        _serve_replicas(
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


def _serve_replicas(arguments: dict[str, Any], address: str | None, *, in_words: bool, quiet: bool) -> None:
    CLUSTER.require("`outrider serve --replicas`")
    with ExitStack() as serving:
        with starting() as listener:
            with importing():
                from outrider.cli import banner
                from outrider.loading import Loading

                try:
                    from outrider.cluster.run import log_replicas, replicated, until_told
                except (KeyError, OSError) as error:  # what `amdsmi` raises, which Ray imports
                    raise ConfigError(
                        f"Ray cannot be imported: {error}; where the package 'amdsmi' is installed without "
                        "AMD's driver (the extra 'energy' brings it), uninstall it"
                    ) from None

            listener(Loading("starting replicas"))
            server = arguments["server"]
            config, url = serving.enter_context(
                replicated(arguments, address=address, host=server["host"], port=server["port"], quiet=quiet)
            )
        (banner.show_replicas if in_words else log_replicas)(config, url)
        until_told()


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
