"""Tiny inputs, so that the machinery is tested and not the machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.measure.cases import MapCase, mask_case, organs
from benchmarks.measure.maps import Settings
from benchmarks.measure.timing import Budget
from fastsdm import testing

CPU = torch.device("cpu")
SHAPE = (18, 20, 22)


@pytest.fixture
def settings() -> Settings:
    return Settings(CPU, 1, Budget(0.01, most=3), reference_s=5.0)


@pytest.fixture
def anisotropic() -> MapCase:
    make = lambda: testing.blobs(SHAPE, sigma=3)  # noqa: E731
    return mask_case("tiny", "tiny blobs", SHAPE, make, spacing=(3.0, 0.8, 0.7))


@pytest.fixture
def label_batch() -> MapCase:
    def make() -> testing.Array:
        return np.stack([organs(SHAPE, classes=3, fraction=0.3, seed=seed) for seed in range(2)])

    return MapCase("batch", "tiny batch", (2, *SHAPE), (0, 1, 2), (1.0, 1.0, 1.0), make)


@pytest.fixture
def one_absent() -> MapCase:
    make = lambda: np.zeros((1, *SHAPE), np.uint8)  # noqa: E731
    return MapCase("absent", "nothing", (1, *SHAPE), None, (1.0, 1.0, 1.0), make)
