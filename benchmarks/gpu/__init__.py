"""What the kernels in Triton do on a GPU, within minutes: `python -m benchmarks.gpu`."""
