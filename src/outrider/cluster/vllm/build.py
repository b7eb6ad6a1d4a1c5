"""Starting vLLM for a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from outrider.cluster.vllm.arguments import engine_arguments
from outrider.cluster.vllm.config import VllmConfig
from outrider.cluster.vllm.devices import device_here
from outrider.cluster.vllm.engine import VllmEngine
from outrider.cluster.vllm.plan import check_fits
from outrider.cluster.vllm.recorder import StepRecorder
from outrider.cluster.vllm.text import read_text
from outrider.engine.watcher import Watcher
from outrider.errors import ModelError, OutriderError
from outrider.extras import VLLM
from outrider.loading import Listener, Loading
from outrider.messages import reason

MODULES = (
    "vllm.engine.arg_utils",
    "vllm.exceptions",
    "vllm.platforms",
    "vllm.sampling_params",
    "vllm.v1.engine.exceptions",
)


def build_vllm(config: VllmConfig, *, listener: Listener, watchers: Sequence[Watcher] = ()) -> VllmEngine:
    """Have vLLM load what the configuration names. Raises ConfigError for what it cannot do, and for what the
    devices here cannot hold, before anything is loaded, and ModelError for a model that it cannot load."""
    VLLM.require("engine = 'vllm'")
    listener(Loading(f"reading the tokenizer of {config.model}"))
    text = read_text(config)
    listener(Loading("importing vLLM"))
    vllm = import_module("vllm")
    for name in MODULES:
        import_module(name)
    arguments = engine_arguments(config)
    if config.distributed_executor_backend != "ray":  # whose devices may be elsewhere
        check_fits(config, device_here(vllm.platforms.current_platform), os.environ)
    if config.drafters:
        arguments["per_request_spec_decode_metrics"] = "detailed"
    listener(Loading(f"starting vLLM with {config.model}"))
    recorder = StepRecorder()
    try:
        engine = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**arguments), stat_loggers=[recorder.made])
    except OutriderError:
        raise
    except Exception as error:  # of whatever library of vLLM's
        raise ModelError(f"vLLM cannot load {config.model!r}: {reason(error)}") from error
    return VllmEngine(engine, vllm, config, text, recorder, watchers=watchers)
