"""The errors a user can meet. Each message names the thing, its value, and what would be right."""

INTERNAL_ERROR = "an internal error ended this request; the log says more"
"""`RequestOutput.error` where Outrider is to blame, and neither the request nor the model."""


class OutriderError(Exception):
    """Base of every error that Outrider raises on purpose."""


class ConfigError(OutriderError, ValueError):
    """An argument or a combination of arguments that cannot be honoured. field: its name, if it is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ModelError(OutriderError):
    """A model, checkpoint or tokenizer that cannot be used."""


class RequestError(OutriderError, ValueError):
    """One request that cannot be served; other requests are not affected."""
