"""Passes over a vocabulary say the same in every type, and change nothing that they should not."""

from __future__ import annotations

import pytest
import torch

from outrider.sampling.passes import bar, copied, is_empty


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_passes(dtype: torch.dtype) -> None:
    given = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=dtype)
    rows = copied(given)
    assert rows.dtype == dtype
    bar(rows[1], torch.tensor([True, False, True]))
    assert rows.tolist() == [[1, 2, 3], [-torch.inf, 5, -torch.inf]]
    assert given.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not is_empty(rows[1])
    bar(rows[1], torch.tensor([False, True, False]))
    assert is_empty(rows[1])
    rows[1, 0] = torch.nan
    assert not is_empty(rows[1])
