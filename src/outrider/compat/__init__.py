"""Names of other engines' modules, for scripts that were written for them."""
