"""vLLM's helpers that scripts import."""

from uuid import uuid4

from outrider.compat.vllm.utils.argparse_utils import FlexibleArgumentParser


def random_uuid() -> str:
    """32 hexadecimal digits, as an id of a request."""
    return uuid4().hex


__all__ = ["FlexibleArgumentParser", "random_uuid"]
