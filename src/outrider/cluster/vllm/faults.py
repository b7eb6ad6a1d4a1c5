"""What the installed vLLM is known to do wrong, seen by trying it."""

from __future__ import annotations


def samples_beside_drafts(device: str) -> bool:
    """Whether a temperature above 0 is honoured where drafts are verified.

    In vLLM 0.32's build for the CPU it is not: the function that gives each drafted token its request's
    temperature writes into a copy of its output (`vllm.utils.cpu_triton_utils._expand_kernel_impl`), and
    logits are divided by whatever was in memory before. device: where vLLM computes.
    """
    if device != "cpu":
        return True
    try:
        import torch
        from vllm.platforms import current_platform
        from vllm.utils.cpu_triton_utils import _expand_kernel_impl as expand
    except ImportError:  # another release, whose function is another one
        return True
    current_platform.import_kernels()
    expanded = torch.zeros(1)
    expand(expanded, torch.ones(1), torch.ones(1, dtype=torch.int32), 0, 0)
    return bool(expanded[0] == 1)
