"""Decoders, and reading their weights, configurations and tokenizers."""
