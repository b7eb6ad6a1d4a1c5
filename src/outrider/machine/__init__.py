"""What this process may use of the machine: processors and memory."""
