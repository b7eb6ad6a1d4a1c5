"""Arguments of engines, by vLLM's names."""

from outrider.engine_args import EngineArgs
from outrider.engine_args import EngineArgs as AsyncEngineArgs

__all__ = ["AsyncEngineArgs", "EngineArgs"]
