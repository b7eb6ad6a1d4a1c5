"""What scripts call between two models."""

import gc

from outrider.cache.pages import release_freed


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Give the memory of models back that nobody refers to any more."""
    gc.collect()
    release_freed()


__all__ = ["cleanup_dist_env_and_memory"]
