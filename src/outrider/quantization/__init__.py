"""Weight formats, and how other weights are turned into them."""
