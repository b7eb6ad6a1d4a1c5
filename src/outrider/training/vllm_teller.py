"""A target that vLLM computes, telling."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from outrider.errors import ModelError
from outrider.extras import VLLM
from outrider.llm import LLM
from outrider.models.tokenizer import Tokenizer
from outrider.params import SamplingParams
from outrider.training.recorder import Recording
from outrider.training.settings import DistillConfig, Pace
from outrider.training.teller import encoded

LONGEST_WAIT = 60.0  # seconds, for a worker to write what has been told
CONNECTOR = {"kv_connector": "StatesConnector", "kv_connector_module_path": "outrider.cluster.vllm.states"}


class VllmTeller:
    """Its workers write states into `folder`, which they and this process have to see; files are read once
    and removed. state_layers: the layers after which states are recorded."""

    def __init__(self, config: DistillConfig, state_layers: Sequence[int], pace: Pace, folder: Path) -> None:
        VLLM.require("`outrider distill --engine vllm`")
        self._folder = folder.resolve()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._llm = LLM(
            config.target,
            engine="vllm",
            **{
                "max_num_seqs": pace.sequences,
                "seed": config.seed,
                "enable_prefix_caching": False,  # states have to be computed at every position
                "speculative_config": extracting(state_layers),
                "kv_transfer_config": _writing_to(self._folder),
                **config.engine_options,
            },
        )
        self._told = 0

    @property
    def tokenizer(self) -> Tokenizer:
        return self._llm.tokenizer

    def tell(self, texts: Sequence[str], params: Sequence[SamplingParams]) -> list[str]:
        prompts = [encoded(self.tokenizer, text) for text in texts]
        outputs = self._llm.generate(prompts, list(params), use_tqdm=False)
        self._told += len(outputs)
        return [output.outputs[0].text for output in outputs]

    def take(self) -> list[Recording]:
        files = written(self._folder, self._told)
        self._told = 0
        recordings = []
        for file in files:
            tensors = load_file(file)
            tokens = tuple(tensors["tokens"].tolist())
            recordings.append(Recording(tokens, int(tensors["own"]), tensors["states"]))
            file.unlink()
        return recordings

    def close(self) -> None:
        self._llm.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def extracting(state_layers: Sequence[int]) -> dict[str, Any]:
    """The `speculative_config` that has vLLM keep what comes into these layers; the number of all layers
    stands for what leaves the last."""
    layers = {"eagle_aux_hidden_state_layer_ids": list(state_layers)}
    return {
        "method": "extract_hidden_states",
        "num_speculative_tokens": 1,
        "draft_model_config": {"hf_config": layers},
    }


def written(
    folder: Path,
    count: int,
    *,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Path]:
    """The files of so many requests, once a worker has written them all; it does so in the step after the one
    that ended a request. Raises ModelError where they do not come."""
    until = clock() + LONGEST_WAIT
    while len(files := sorted(folder.glob("*.safetensors"))) < count:
        if clock() > until:
            raise ModelError(
                f"vLLM has written the states of {len(files)} requests into {str(folder)!r}, and "
                f"{count} ended; the folder has to be one that its workers and this process see"
            )
        wait(0.05)
    return files


def _writing_to(folder: Path) -> Any:
    from vllm.config import KVTransferConfig

    return KVTransferConfig(
        **CONNECTOR,
        kv_role="kv_producer",
        kv_connector_extra_config={"shared_storage_path": str(folder), "use_synchronization_lock": False},
    )
