"""OpenAI's Responses API, by conversion to chat."""
