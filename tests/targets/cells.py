"""Labels of touching cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from fastsdm import testing


def cells(shape: tuple[int, ...], count: int, *, gap: float = 0.2, seed: int = 0) -> np.ndarray[Any, Any]:
    """Touching cells, with a share of the volume left as background."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, np.int64)
    seeds.flat[rng.choice(seeds.size, count, replace=False)] = np.arange(1, count + 1)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    labels: np.ndarray[Any, Any] = seeds[tuple(nearest)]
    labels[testing.blobs(shape, fraction=gap, sigma=2, seed=seed) > 0] = 0
    return labels
