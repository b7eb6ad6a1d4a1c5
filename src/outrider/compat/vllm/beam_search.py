"""What a beam search returns, by vLLM's names."""

from outrider.beam_search import BeamSearchOutput, BeamSearchSequence

__all__ = ["BeamSearchOutput", "BeamSearchSequence"]
