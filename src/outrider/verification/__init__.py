"""Checking drafts: the acceptance rules and the randomness they use."""
