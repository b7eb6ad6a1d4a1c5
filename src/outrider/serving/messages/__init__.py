"""Anthropic's Messages API, by conversion to chat."""
