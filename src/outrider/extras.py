"""What is installed only where it is asked for, and what is said where it is missing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from outrider.errors import ConfigError, OutriderError


@dataclass(frozen=True)
class Extra:
    """Optional packages. name: of the extra in pyproject.toml; modules: what has to be there to import;
    options: of pip; note: what else there is to say of the command."""

    name: str
    modules: tuple[str, ...]
    options: str = ""
    note: str = ""

    @property
    def command(self) -> str:
        """Installs them, also where the package itself was installed from a clone."""
        return f"pip install 'outrider[{self.name}]'{self.options}"

    @property
    def missing(self) -> str | None:
        """The first module that is not installed."""
        return next((module for module in self.modules if find_spec(module) is None), None)

    def lack(self, what: str, module: str) -> str:
        """One sentence about `what` cannot be done without `module`."""
        return (
            f"{what} needs the package {module!r}, which is not installed; it comes with the extra "
            f"{self.name!r}: {self.command}{self.note}"
        )

    def require(self, what: str, error: type[OutriderError] = ConfigError) -> None:
        """Raise `error` where one is missing. what: that needs them, the beginning of the message."""
        if self.missing is not None:
            raise error(self.lack(what, self.missing))


TORCH = Extra(
    "torch",
    ("torch",),
    " --extra-index-url https://download.pytorch.org/whl/cpu",
    " (the CPU's build; without that index, gigabytes of CUDA come with it on Linux)",
)
CUDA = Extra("cuda", ("torch", "triton"))
SERVER = Extra("server", ("fastapi", "prometheus_client", "uvicorn"))
CLUSTER = Extra("cluster", ("ray", "fastapi", "prometheus_client", "uvicorn"))
VLLM = Extra("vllm", ("vllm",), note=" (its build for the CPU: `make vllm-env`)")
PLOT = Extra("plot", ("matplotlib",))
CHAT = Extra("chat", ("prompt_toolkit",))
ENERGY = Extra("energy", ("zeus",))
