"""Drafters made to fit a target: data from the target itself, training, and what is saved."""
