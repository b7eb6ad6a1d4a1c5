"""What an installed wheel has to do, wherever it was built: `make wheels` runs this for each."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

from outrider import __version__
from outrider.ops.cpu import extension

assert __version__ == version("outrider")
assert extension.native is not None, "the wheel has no native kernels"
assert "portable" in extension.native.instruction_sets()
for arguments in (["models"], ["serve", "--help"], ["--version"]):
    subprocess.run([sys.executable, "-m", "outrider", *arguments], check=True, stdout=subprocess.DEVNULL)
