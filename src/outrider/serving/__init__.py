"""The server that speaks OpenAI's and vLLM's API. Needs the optional dependencies `outrider[server]`."""

API_KEY = "OUTRIDER_API_KEY"
"""Variable of the environment with the key that clients have to give."""
