"""Options of `outrider serve` that no other command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.options import TARGET
from outrider.serving import API_KEY

LEARNING, REPLICAS = "Learning while serving", "Replicas on Ray"
"""Groups of options, as --help names them."""

Model = Annotated[str, typer.Argument(help=TARGET)]
Host = Annotated[
    str, typer.Option(help="Address to listen at. The default is reached from this machine alone.")
]
Port = Annotated[int, typer.Option(help="Port to listen at; 0: one that is free.")]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        envvar=API_KEY,
        help="Key that clients have to give. Repeatable. Others on the machine can read a command line: "
        "better set it in the environment.",
        show_envvar=True,
    ),
]
ServedModelName = Annotated[
    str | None, typer.Option(help="What clients call the model; else the name of its file or folder.")
]
MaxModelLen = Annotated[
    int | None, typer.Option(help="Tokens of prompt and answer; else what model and cache allow.")
]
Dtype = Annotated[
    str | None, typer.Option(metavar="auto|float32|bfloat16|float16", help="What weights become.")
]
Quantization = Annotated[
    str | None, typer.Option("--quantization", metavar="int8|int4", help="Quantise the weights.")
]
ChatTemplate = Annotated[
    str | None, typer.Option(help="A file with a Jinja template, or the template itself.")
]
ToolCallParser = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Form in which the model calls tools; else what its chat template shows."
    ),
]
ReasoningParser = Annotated[str | None, typer.Option(metavar="NAME", help="The same for its reasoning.")]
Pooling = Annotated[
    str | None,
    typer.Option(
        metavar="mean|last",
        help="How embeddings are made; else as the model says, if it is meant for that.",
    ),
]
GenerationConfig = Annotated[
    str | None,
    typer.Option(
        metavar="auto|vllm|PATH",
        help="Where defaults of sampling come from: the model, nowhere, or a generation_config.json.",
    ),
]
SpeculativeConfig = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="Speculation in vLLM's form, in place of the options above."),
]
SchedulingPolicy = Annotated[
    str,
    typer.Option(
        metavar="fcfs|priority",
        help="Serve requests in order of arrival, or those earlier that have a lower priority, which any "
        "client may give.",
    ),
]
MaxQueue = Annotated[
    int, typer.Option(help="Sequences that may wait; then clients are told to come back (429).")
]
MaxOutputTokens = Annotated[
    int | None, typer.Option(help="Tokens of one sequence at most; else what the context holds.")
]
MaxBodySize = Annotated[str, typer.Option(help="Of one HTTP request, as in '4MiB'.")]
MaxConnections = Annotated[
    int, typer.Option(help="Connections at a time; one more is told to come back (503).")
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(help="Name that clients may call the server by, such as a proxy's. Repeatable."),
]
AllowedOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-origins",
        metavar="ORIGIN",
        help="Pages that may use the server from a browser (CORS), as in 'https://chat.example'; '*': "
        "all. Repeatable.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse fields that are not known although they change no answer."),
]
HeaderTimeout = Annotated[
    float, typer.Option(help="Seconds until a request's header has to be there, from the connection on.")
]
BodyTimeout = Annotated[
    float, typer.Option(help="Seconds until a request's body has to be there, from its header on.")
]
RequestTimeout = Annotated[
    float, typer.Option(help="Seconds that a request may take, from its header to its last token.")
]
WriteTimeout = Annotated[
    float, typer.Option(help="Seconds in which a client has to take what was sent to it.")
]
Adapt = Annotated[
    bool,
    typer.Option(
        "--adapt",
        help="Have the head learn from what the model says, in idle time, and draft with what came of it "
        "where that is better. Answers stay the same.",
        rich_help_panel=LEARNING,
    ),
]
AdaptMemory = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Memory for what is learnt from.", rich_help_panel=LEARNING),
]
AdaptCores = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Cores to learn on all the time, which the model then leaves free; 0: on all of them, in "
        "idle time.",
        rich_help_panel=LEARNING,
    ),
]
AdaptSave = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for the head that drafts last; without one, what was learnt is never written down.",
        rich_help_panel=LEARNING,
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Engines to serve with, each a process of its own on Ray, behind one address.",
        rich_help_panel=REPLICAS,
    ),
]
MaxReplicas = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Start up to so many where requests queue up, and end them where they do not.",
        rich_help_panel=REPLICAS,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A Ray cluster, as in 'auto' or '10.0.0.1:6379'; else one is started on this machine.",
        rich_help_panel=REPLICAS,
    ),
]
CoresPerReplica = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Cores of each, which are its threads; else an equal share.",
        rich_help_panel=REPLICAS,
    ),
]
GpusPerReplica = Annotated[
    float, typer.Option(min=0, metavar="N", help="GPUs of each.", rich_help_panel=REPLICAS)
]
ShutdownTimeout = Annotated[
    float, typer.Option(help="Seconds that running requests have left once the server is told to stop.")
]
LogLevel = Annotated[str, typer.Option(metavar="debug|info|warning|error", help="What is logged, on stderr.")]
LogFormat = Annotated[
    str,
    typer.Option(
        metavar="auto|text|json",
        help="Words for people, or a JSON object a line; 'auto': words on a terminal.",
    ),
]
