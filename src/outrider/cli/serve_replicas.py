"""`outrider serve --replicas`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from outrider.cli.importing import importing
from outrider.cli.startup import starting
from outrider.errors import ConfigError
from outrider.extras import CLUSTER

if TYPE_CHECKING:
    from outrider.cluster.config import ClusterConfig


def serve_replicas(arguments: dict[str, Any], address: str | None, *, in_words: bool, quiet: bool) -> None:
    """Serve until the process is told to stop.

    arguments: the fields of ClusterConfig; address: of a Ray that runs; in_words: whether people read what is
    said; quiet: without what Ray's processes log.
    """
    CLUSTER.require("`outrider serve --replicas`")
    with ExitStack() as shown:
        listener = shown.enter_context(starting())
        with importing():
            from outrider.cli import banner
            from outrider.loading import Loading

            try:
                from outrider.cluster import run
            except (KeyError, OSError) as error:  # what `amdsmi` raises, which Ray imports
                raise ConfigError(
                    f"Ray cannot be imported: {error}; where the package 'amdsmi' is installed without AMD's "
                    "driver (the extra 'energy' brings it), uninstall it"
                ) from None

        def announce(config: ClusterConfig, url: str) -> None:
            shown.close()
            (banner.show_replicas if in_words else run.log_replicas)(config, url)

        listener(Loading("starting replicas"))
        run.serve_replicas(arguments, address=address, announce=announce, quiet=quiet)
