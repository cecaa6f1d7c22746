"""Weights that count every connected component alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fastsdm import testing
from fastsdm.targets import component_weights


def distances_to_components(mask, spacing):
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    distances = np.stack(
        [ndimage.distance_transform_edt(labels != value, sampling=spacing) for value in range(1, count + 1)]
    )
    return distances, labels, count


@pytest.mark.parametrize(("shape", "spacing"), [((30, 31), (1.0, 1.7)), ((14, 15, 16), (2.3, 1.0, 0.7))])
def test_every_cell_weighs_the_same(shape, spacing) -> None:
    mask = testing.blobs(shape, sigma=1.5, fraction=0.05, seed=3)
    distances, labels, count = distances_to_components(mask, spacing)
    assert count > 3
    weights = component_weights(mask, spatial_dims=len(shape), spacing=spacing)
    assert weights.dtype == np.float32
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    nearest = distances.argmin(axis=0)
    unique = (distances == distances.min(axis=0)).sum(axis=0) == 1
    for cell in range(count):
        inside = np.unique(weights[(labels == cell + 1)])
        assert len(inside) == 1
        # voxels of that weight: the whole cell, but for ties, which may go to either
        assert (weights[unique & (nearest == cell)] == inside[0]).all()
        size = 1 / (count * float(inside[0]))
        assert (
            (unique & (nearest == cell)).sum() - 1e-3
            <= size
            <= (distances[cell] == distances.min(axis=0)).sum() + 1e-3
        )


def test_voxels_that_share_a_corner_are_connected() -> None:
    mask = torch.zeros(4, 4)
    mask[0, 0] = mask[1, 1] = 1
    assert component_weights(mask, spatial_dims=2).unique().tolist() == [1 / 16]
    mask[3, 3] = 1
    assert len(component_weights(mask, spatial_dims=2).unique()) == 2


def test_batches_and_volumes_without_a_component() -> None:
    masks = torch.zeros(2, 2, 5, 6, 7, dtype=torch.uint8)
    masks[0, 0, 2, 2, 2] = masks[0, 0, 4, 5, 6] = 3
    masks[1, 1] = 1
    weights = component_weights(masks, spacing=[(1.0, 2.0, 3.0), (1.0, 1.0, 1.0)])
    assert weights.shape == masks.shape
    torch.testing.assert_close(weights.flatten(2).sum(dim=2), torch.ones(2, 2))
    assert len(weights[0, 0].unique()) == 2
    for empty_or_full in (weights[0, 1], weights[1, 0], weights[1, 1]):
        torch.testing.assert_close(empty_or_full, torch.full((5, 6, 7), 1 / 210))


def test_floats_are_inside_above_a_half() -> None:
    mask = torch.tensor([[0.4, 0.0, 0.6, 0.0, 0.0, 0.0, 0.0, 1.0]])
    assert torch.equal(
        component_weights(mask, spatial_dims=2), component_weights((mask > 0.5).byte(), spatial_dims=2)
    )
    with pytest.raises(ValueError, match="mask: must not contain NaN"):
        component_weights(mask * torch.nan, spatial_dims=2)
    with pytest.raises(ValueError, match="spacing: must be a number, 2 numbers"):
        component_weights(mask, spatial_dims=2, spacing=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_negative_labels_are_no_component(dtype) -> None:
    mask = torch.zeros(1, 9, 9, dtype=dtype)
    mask[0, 2:4, 2:4] = 1
    marked = mask.clone()
    marked[0, 6:, 6:] = -1  # left out, as frameworks mark it
    assert torch.equal(component_weights(marked, spatial_dims=2), component_weights(mask, spatial_dims=2))
