"""`outrider serve`: an OpenAI-compatible server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from outrider.cli.importing import importing
from outrider.cli.options import (
    DrafterOption,
    DraftQuantizationOption,
    LengthOption,
    SettingOption,
    WorkloadOption,
    load,
)
from outrider.errors import ConfigError
from outrider.extras import SERVER

LEVELS = ("debug", "info", "warning", "error")


def serve(
    model: Annotated[
        str, typer.Argument(help="Target: a folder, a hub id, a GGUF file, or 'smollm2'.")
    ] = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
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
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds that running requests have left once the server is told to stop.")
    ] = 60.0,
    log_level: Annotated[
        str, typer.Option(metavar="debug|info|warning|error", help="What is logged, as JSON lines on stderr.")
    ] = "info",
    setting: SettingOption = None,
) -> None:
    """Serve a model to clients of OpenAI's and vLLM's API.

    SIGTERM and Ctrl-C end it with exit status 0: no more requests are taken, and those that run are finished.
    A second one does not wait for them. What then does not end within seconds is ended, with exit status 1.
    """
    SERVER.require("`outrider serve`")
    with importing():
        import asyncio

        from outrider.serving import logs, server
        from outrider.serving.service import Service
        from outrider.serving.settings import ServerConfig, public_name

    if log_level not in LEVELS:
        raise ConfigError(f"log_level = {log_level!r}: give one of {', '.join(LEVELS)}")
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "model_name": served_model_name or public_name(model),
        "api_keys": api_key or [],
        "max_queue": max_queue,
        "max_output_tokens": max_output_tokens,
        "max_body_size": max_body_size,
        "max_connections": max_connections,
        "allowed_hosts": allowed_host or [],
        "header_timeout": header_timeout,
        "body_timeout": body_timeout,
        "request_timeout": request_timeout,
        "write_timeout": write_timeout,
        "shutdown_timeout": shutdown_timeout,
    }
    config = ServerConfig(**options)
    logs.log_to_stderr(log_level)
    server.reserve_descriptors(config.max_connections)
    with server.listen(config.host, config.port) as bound:
        llm = load(
            model,
            speculative_model,
            num_speculative_tokens,
            workload,
            draft_quantization,
            setting,
            scheduling_policy=scheduling_policy,
        )
        asyncio.run(server.run(Service(llm, config), bound))
