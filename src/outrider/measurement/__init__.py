"""Proving and measuring: plain against speculative runs of one engine."""
