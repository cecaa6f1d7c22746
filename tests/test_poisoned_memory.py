"""The fixture of ``conftest.py`` that shows voxels which no kernel wrote."""

from __future__ import annotations

import numpy as np
import torch


def test_torch_gives_nan_or_the_largest_integer() -> None:
    assert torch.empty(2, 3).isnan().all()
    assert torch.empty(3, requires_grad=True).isnan().all()
    assert torch.empty_like(torch.zeros(4, dtype=torch.float16)).isnan().all()
    assert (torch.empty(3, dtype=torch.int16) == 32767).all()
    assert torch.empty(3, dtype=torch.bool).dtype == torch.bool


def test_numpy_gives_nan_or_the_largest_integer() -> None:
    assert np.isnan(np.empty((2, 3), np.float32)).all()
    assert (np.empty_like(np.zeros(3, np.uint8)) == 255).all()
    assert np.empty(2, object).tolist() == [None, None]
