"""The study of nearest voxels, nearest labels and instances, on a small volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.studies import nearest
from fastsdm import testing


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_everyone_is_checked_and_timed() -> None:
    found = nearest.studies(24, 1, 0.01)
    assert [len(rows) for rows in found.values()] == [4, 2, 3, 4]
    assert all(timing.median_s > 0 for rows in found.values() for timing, _ in rows.values())
    off = {name for rows in found.values() for name, (_, share) in rows.items() if share > 0}
    assert all("Danielsson" in name for name in off)


def test_a_wrong_index_is_not_timed() -> None:
    mask = testing.blobs((12, 13, 14), sigma=2)
    indices = nearest.scipy_nearest(mask)
    assert nearest.check_nearest(indices, mask) == 0
    indices[0, 3, 4, 5] = (indices[0, 3, 4, 5] + 1) % 12
    with pytest.raises(AssertionError, match=r"nearest: a share of 0\.00046 of the indices is wrong"):
        nearest.check_nearest(indices, mask)


def test_an_index_of_the_same_phase_is_not_timed_however_few() -> None:
    mask = testing.blobs((12, 13, 14), sigma=2)
    indices = nearest.scipy_nearest(mask)
    indices[:, 3, 4, 5] = 3, 4, 5
    with pytest.raises(AssertionError, match="nearest: "):
        nearest.check_nearest(indices, mask, share=0.5)


def test_wrong_labels_are_not_timed() -> None:
    labels = nearest.seeds((12, 13, 14), 5)
    filled = nearest.scipy_label(labels)
    assert nearest.check_labels(filled, labels) == 0
    with pytest.raises(AssertionError, match="labels: a share"):
        nearest.check_labels(np.ones_like(filled), labels)


def test_wrong_instances_are_not_timed() -> None:
    labels = nearest.cells((12, 13, 14), 5)
    assert nearest.check_instances(nearest.maurer_instances(labels), labels) == 0
    with pytest.raises(AssertionError, match="instances: a distance is wrong"):
        nearest.check_instances(np.ones(labels.shape, np.float32), labels)
