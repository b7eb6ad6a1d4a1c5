"""The server that speaks OpenAI's and vLLM's API. Needs the optional dependencies `outrider[server]`."""
