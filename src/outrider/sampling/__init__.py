"""From logits to a distribution over the next token: shared by target and drafter."""
