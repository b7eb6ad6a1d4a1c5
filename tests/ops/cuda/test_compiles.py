"""Kernels that the interpreter runs are accepted by the compiler, for a GPU that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from outrider.ops.cuda import attention, choice, embedding, experts, gates, heads, norms, products, states

KERNELS = {
    "multiply": products, "add_splits": products, "_attend": attention, "_merge": attention, "_place": heads,
    "_norm": norms, "_gate": gates, "_look_up": embedding, "_route": experts, "_combine": experts,
    "_convolve": states, "_delta": states,
    "peaks": choice, "peak": choice, "tally": choice, "narrow": choice, "ties": choice, "pick": choice,
    "decide": choice, "powers": choice, "likeliest": choice,
}  # fmt: skip


def test_each_kernel_is_compiled(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ops.cuda.compiling"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=170,
        env={"PATH": "", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(KERNELS)
    assert all(hasattr(module, name) for name, module in KERNELS.items())
