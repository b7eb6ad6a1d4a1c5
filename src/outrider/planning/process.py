"""What the process takes before and beside models, of the memory that is planned.

Of the processor's these are Python, the libraries, and tokenizers; of a GPU's it is what its driver takes.

What is imported is measured, since it differs by machine and by what else the process holds. What comes
only with the first model is not there to be measured, and is a constant below; `python -m benchmarks.memory
--parts` measures each.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from outrider.cache.pages import release_freed
from outrider.machine.control_groups import memory_left


@dataclass(frozen=True)
class Keeps:
    """Bytes of the planned memory that are no model's.

    late: libraries that the first use loads, threads, and the engine's own objects. For each token of a
    vocabulary: tokenizer: kept by its tokenizer; making: while that is made, what it keeps and the file's own
    lists counted; vocabularies: while two tokenizers are compared, beside them; spelt: where a draft model
    drafts text; dropped: that stay of a draft's tokenizer, parts of pages that hold other things too. For
    each position of a request: position: its token in lists, its share of a block's hash; matched: in a
    suffix automaton, of source code and prose. texts: the share of `suffix_memory` that lies there.
    """

    late: int = 0
    tokenizer: int = 0
    making: int = 0
    vocabularies: int = 0
    spelt: int = 0
    dropped: int = 0
    position: int = 0
    matched: int = 0
    texts: int = 0


OF_PROCESSOR = Keeps(
    late=16 * 2**20,
    tokenizer=230,
    making=690,
    vocabularies=450,
    spelt=150,
    dropped=200,
    position=100,
    matched=65,
    texts=1,
)
OF_GPU = Keeps()
"""All that lies in the processor's memory."""
DRIVER = 768 * 2**20
"""Of a GPU: the driver's context, and the code of kernels. It was not measured: no GPU was at hand."""


def process_bytes() -> int:
    """Resident memory of this process as it is, what it has freed not counted."""
    release_freed()
    return int(psutil.Process().memory_info().rss)


def free_bytes() -> int:
    """Memory that the process could have beside its own: of the machine's, and of its control groups'."""
    return int(min(psutil.virtual_memory().available, memory_left()))
