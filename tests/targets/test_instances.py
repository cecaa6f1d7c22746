"""Distances within instances, divided by each instance's largest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fastsdm.targets import normalized_instance_distance
from tests.targets.cells import cells


def oracle(labels: np.ndarray, spacing) -> np.ndarray:
    result = np.zeros(labels.shape)
    for value in np.unique(labels[labels != 0]):
        distance = ndimage.distance_transform_edt(labels == value, sampling=spacing)
        result += distance / distance.max()
    return result


@pytest.mark.parametrize("backend", ["native", "scipy"])
@pytest.mark.parametrize(("shape", "spacing"), [((30, 41), (2.0, 0.7)), ((14, 15, 16), (1.0, 0.5, 3.0))])
def test_equal_to_a_loop_over_the_instances(shape, spacing, backend) -> None:
    batch = np.stack([cells(shape, 9, seed=seed) for seed in (0, 1)])
    batch[1] *= 7  # other values in the second sample, some of them those of the first one
    got = normalized_instance_distance(batch, spatial_dims=len(shape), spacing=spacing, backend=backend)
    assert got.dtype == np.float32
    expected = np.stack([oracle(labels, spacing) for labels in batch])
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32])
def test_every_dtype(dtype) -> None:
    labels = torch.from_numpy(cells((20, 21), 5))
    expected = normalized_instance_distance(labels, spatial_dims=2)
    assert torch.equal(normalized_instance_distance(labels.to(dtype), spatial_dims=2), expected)


def test_resampled_labels_are_rounded() -> None:
    labels = torch.from_numpy(cells((20, 21), 5))
    expected = normalized_instance_distance(labels, spatial_dims=2)
    for miss in (-4e-4, 4e-4):  # cut off instead, 0.9996 would be background and 4e-4 an instance
        assert torch.equal(normalized_instance_distance(labels + miss, spatial_dims=2), expected)


def test_labels_far_apart_need_no_table() -> None:
    labels = torch.from_numpy(cells((20, 21), 3))
    far = torch.tensor([0, -(2**50), 5, 2**60])[labels]
    expected = normalized_instance_distance(labels, spatial_dims=2)
    assert torch.equal(normalized_instance_distance(far, spatial_dims=2), expected)


def test_another_background() -> None:
    labels = torch.from_numpy(cells((20, 21), 4))
    moved = torch.where(labels == 0, -1, labels - 1)
    expected = normalized_instance_distance(labels, spatial_dims=2)
    assert torch.equal(normalized_instance_distance(moved, spatial_dims=2, background=-1), expected)


def test_black_border() -> None:
    labels = torch.ones(1, 5, dtype=torch.uint8)
    assert normalized_instance_distance(labels, spatial_dims=2).tolist() == [[1, 1, 1, 1, 1]]
    labels = torch.ones(5, 5, dtype=torch.uint8)
    bordered = normalized_instance_distance(labels, spatial_dims=2, black_border=True)
    assert bordered[2].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])


def test_volumes_without_an_instance() -> None:
    assert not normalized_instance_distance(torch.zeros(2, 3, 4, 5, dtype=torch.int32)).any()
    assert normalized_instance_distance(torch.zeros(0, 3, 4, 5, dtype=torch.int32)).shape == (0, 3, 4, 5)
