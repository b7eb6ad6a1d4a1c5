"""Finding the compiled extension, and what this machine can run of it."""

from __future__ import annotations

import logging
from importlib import import_module
from types import ModuleType

from outrider.errors import ConfigError

logger = logging.getLogger(__name__)

# Without --no-cache-dir pip would take the wheel that it made without a compiler.
INSTALL = (
    "install a C++20 compiler (Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: "
    "xcode-select --install) and run, in a clone of Outrider's repository: pip install --force-reinstall "
    "--no-cache-dir --no-deps ."
)

native: ModuleType | None = None
reason = ""
try:
    native = import_module("outrider.ops.cpu._native")
except ImportError as error:
    reason = str(error)

_warned = False


def require() -> ModuleType:
    """The extension. Raises ConfigError, with what to install, if it was not built."""
    if native is None:
        raise ConfigError(missing())
    return native


def missing() -> str:
    """Why the extension is not there, and what to install."""
    return f"the native CPU kernels cannot be loaded ({reason}); {INSTALL}"


def warn_if_missing() -> None:
    """Say once that PyTorch is used in place of the kernels."""
    global _warned
    if native is None and not _warned:
        _warned = True
        logger.warning(
            "the native CPU kernels cannot be loaded (%s), so PyTorch is used: slower, and equal tokens with "
            "and without speculation only up to rounding; %s",
            reason,
            INSTALL,
        )


def instruction_set(name: str) -> str:
    """`name` itself, or for 'auto' the best that this machine has. Raises ConfigError."""
    known: list[str] = require().instruction_sets()
    if name == "auto":
        return known[0]
    if name not in known:
        raise ConfigError(f"instruction_set = {name!r} cannot run here; this machine has {', '.join(known)}")
    return name
