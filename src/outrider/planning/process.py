"""What the process takes before and beside models: Python, the libraries, and tokenizers.

What is imported is measured, since it differs by machine and by what else the process holds. What comes
only with the first model is not there to be measured, and is a constant below; `python -m benchmarks.memory
--parts` measures each.
"""

from __future__ import annotations

import psutil

from outrider.cache.pages import release_freed
from outrider.machine.control_groups import memory_left

LATE = 16 * 2**20
"""Libraries that the first use loads, threads, and the engine's own objects."""
TOKENIZER = 230
"""Bytes that a tokenizer keeps for each token of its vocabulary."""
TOKENIZER_MADE = 690
"""Bytes for each token while a tokenizer is made, what it keeps and the file's own lists counted."""
VOCABULARIES = 450
"""Bytes for each token while two tokenizers are compared, beside the tokenizers."""
SPELT = 150
"""Bytes for each token whose bytes are known, where a draft model drafts text."""
POSITION = 100
"""Bytes for each position of a request: its token in lists, its share of a block's hash."""
DROPPED = 200
"""Bytes for each token that stay of a draft's tokenizer, though it is dropped: parts of pages that hold other
things too."""


def process_bytes() -> int:
    """Resident memory of this process as it is, what it has freed not counted."""
    release_freed()
    return int(psutil.Process().memory_info().rss)


def free_bytes() -> int:
    """Memory that the process could have beside its own: of the machine's, and of its control groups'."""
    return int(min(psutil.virtual_memory().available, memory_left()))
