"""Drafters, which guess the target's next tokens, and the policies that say how many."""
