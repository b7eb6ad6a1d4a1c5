"""Native kernels for the CPU, made for a few rows against a large weight; row-invariant bit for bit."""
