"""What fits in memory, from configurations and file headers alone."""
