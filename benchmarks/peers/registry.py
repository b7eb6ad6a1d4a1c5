"""The engines, by the names of the command line and the tables."""

from __future__ import annotations

from benchmarks.peers.base import Build
from benchmarks.peers.huggingface import Transformers
from benchmarks.peers.llamacpp import LlamaCpp
from benchmarks.peers.openvino import OpenVINO
from benchmarks.peers.own import Outrider

OWN = "outrider"
PEERS: dict[str, Build] = {
    OWN: Outrider,
    "llama.cpp": LlamaCpp,
    "openvino": OpenVINO,
    "transformers": Transformers,
}
