"""Several prompts as one call: what each is asked with, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outrider.errors import ConfigError, RequestError
from outrider.outputs import RequestOutput
from outrider.params import SamplingParams
from outrider.prompts import Prompt


class RequestsFailed(RequestError):
    """Some requests of a batch could not be served; the others were finished.

    errors: reason by index in the batch; outputs: one a prompt, None where it failed before it started.
    """

    def __init__(self, errors: Mapping[int, str], outputs: Sequence[RequestOutput | None]) -> None:
        self.errors = dict(errors)
        self.outputs = tuple(outputs)
        if len(outputs) == 1:
            super().__init__(self.errors[0])
        else:
            reasons = "; ".join(f"prompt {index}: {reason}" for index, reason in self.errors.items())
            super().__init__(
                f"{len(self.errors)} of {len(outputs)} requests failed, the others are in this error's "
                f"`outputs`: {reasons}"
            )


def together(
    prompts: Sequence[Prompt],
    params: SamplingParams | Sequence[SamplingParams],
    priority: int | Sequence[int],
) -> list[tuple[Prompt, SamplingParams, int]]:
    """Each prompt with its parameters and its priority. Raises ConfigError where their numbers differ."""
    if isinstance(params, SamplingParams):
        params = [params] * len(prompts)
    if not isinstance(priority, Sequence):
        priority = [priority] * len(prompts)
    for name, given in (("sampling_params", len(params)), ("priority", len(priority))):
        if given != len(prompts):
            raise ConfigError(f"{len(prompts)} prompts with {given} {name}; give one for all or one a prompt")
    return list(zip(prompts, params, priority, strict=True))
