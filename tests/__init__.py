"""Where there is no GPU, Triton interprets its kernels on the CPU. It decides so when it is imported, which
other libraries do: so it is told here, before any of them."""

import os

from outrider.engine.backend import may_have_gpu

if not may_have_gpu():
    os.environ.setdefault("TRITON_INTERPRET", "1")
