"""The study of nearest voxels and instances, on a small volume."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies import nearest
from fastsdm import testing


def test_everyone_is_timed() -> None:
    found = nearest.timings(24, 1, 0.01)
    assert set(found) == {"nearest", "instances"}
    assert all(timing.median_s > 0 for study in found.values() for timing in study.values())


def test_a_wrong_result_is_not_timed() -> None:
    mask = testing.blobs((12, 13, 14), sigma=2)
    indices = nearest.scipy_nearest(mask)
    nearest.check_nearest(indices, mask)
    indices[0, 3, 4, 5] = (indices[0, 3, 4, 5] + 1) % 12
    with pytest.raises(AssertionError, match="nearest: an index is wrong"):
        nearest.check_nearest(indices, mask)
    labels = nearest.cells((12, 13, 14), 5)
    with pytest.raises(AssertionError, match="instances: a distance is wrong"):
        nearest.check_instances(np.ones(labels.shape, np.float32), labels)
