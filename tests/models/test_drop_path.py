"""Stochastic depth: the same bits as with plain numbers, in every precision."""

from __future__ import annotations

import pytest
import torch

from timesformer.models.drop_path import DropPath


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rate", [0.067, 0.1, 0.3, 0.889])
def test_rows_are_dropped_or_scaled_as_with_plain_numbers(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wanted = (torch.rand(64) >= rate).to(dtype) / (1.0 - rate)
    torch.manual_seed(0)
    found = DropPath(rate)(torch.ones(64, 2, 3, dtype=dtype))
    assert torch.equal(found, wanted.view(-1, 1, 1).expand(-1, 2, 3)) and found.dtype == dtype


def test_the_rate_is_fixed_and_no_part_of_the_state() -> None:
    with torch.device("meta"):
        drop_path = DropPath(0.25)
    assert not drop_path.state_dict() and str(drop_path) == "DropPath(drop_prob=0.25)"
    with pytest.raises(AttributeError):
        drop_path.drop_prob = 0.5
    assert drop_path(torch.ones(8, 2)).shape == (8, 2)  # built on another device, as models are that a file fills
    assert DropPath(0.0).row_factor(torch.ones(2)) is None and drop_path.eval().row_factor(torch.ones(2)) is None
