"""The errors a user can meet. Each message names the thing, its value, and what would be right."""


class OutriderError(Exception):
    """Base of every error that Outrider raises on purpose."""


class ConfigError(OutriderError, ValueError):
    """An argument or a combination of arguments that cannot be honoured."""


class ModelError(OutriderError):
    """A model, checkpoint or tokenizer that cannot be used."""


class RequestError(OutriderError, ValueError):
    """One request that cannot be served; other requests are not affected."""
