"""A head that learns while it serves: what the target says teaches it, in a process of its own."""
