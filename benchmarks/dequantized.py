"""SmolLM2's GGUF file as a folder in float32, for engines that read no GGUF; or its first layers alone.

    python -m benchmarks.dequantized FOLDER [--layers 24]

Without its last layers it is a draft model that is right now and then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from outrider.models.checkpoint import locate

NOTES = ("_name_or_path", "_model_name_or_path", "quantization_config")
"""What a configuration says of the file that it was read from."""


def write(folder: Path, layers: int | None) -> None:
    file = locate("smollm2")
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
    model.config.architectures = [type(model).__name__]
    for name in NOTES:
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int)
    given = parser.parse_args()
    write(given.folder, given.layers)
