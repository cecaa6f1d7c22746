"""Nearest voxels by the kernels under Triton's interpreter; `test_triton.py` runs this file.

Why not collected by itself: see `interpreted_triton.py`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import fastsdm
from fastsdm import testing
from fastsdm._backends import triton_launcher
from tests._backends.interpreted_triton import GPU_TILES, fenced
from tests.test_nearest import assert_nearest

SPACINGS = [(1.0, 1.0, 1.0), (2.0, 3.0, 1.0), (1.3, 0.7, 2.1), (3.0, 0.8, 0.8)]


def found(labels: np.ndarray, classes, spacings, limit=None) -> np.ndarray:
    indices = triton_launcher.BACKEND.nearest(
        torch.as_tensor(labels), classes, torch.as_tensor(spacings, dtype=torch.float64), limit
    )
    assert indices.dtype == torch.int32
    assert indices.shape[:3] == (len(labels), len(classes), labels.ndim - 1)
    return indices.numpy()


def first_of_the_nearest(inside: np.ndarray) -> np.ndarray:
    """At unit spacing, by comparing every voxel with every other one; the first in memory of several."""
    voxels = np.argwhere(np.ones_like(inside))
    phase = inside.ravel() != 0
    squared = ((voxels[:, None] - voxels) ** 2).sum(axis=-1)
    squared[phase[:, None] == phase] = np.iinfo(squared.dtype).max
    if phase.all() or not phase.any():
        return np.full((inside.ndim, *inside.shape), -1)
    return voxels[squared.argmin(axis=1)].T.reshape(inside.ndim, *inside.shape)


@pytest.mark.parametrize("case", list(testing.hard_cases()), ids=lambda case: case.name)
def test_hard_case(case) -> None:
    indices = found(case.labels, case.classes, case.spacing)
    for b, k in np.ndindex(indices.shape[:2]):
        assert_nearest(indices[b, k], (case.labels[b] == case.classes[k]).astype(np.uint8), case.spacing[b])


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_random_volumes(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    sizes = st.sampled_from([1, 2, 3, 5, 8, 9, 17, 33])
    shape = data.draw(st.lists(sizes, min_size=ndim, max_size=ndim))
    fraction = data.draw(st.sampled_from([0.0, 0.002, 0.05, 0.5, 0.98, 1.0]))
    mask = testing.noise(shape, fraction=fraction, seed=data.draw(st.integers(0, 10**6)))
    spacing = data.draw(st.sampled_from(SPACINGS))[:ndim]
    limit = data.draw(st.sampled_from([None, 0.3, 1.0, 2.6, 9.0, 1e6]))
    assert_nearest(found(mask[None], (1,), [spacing], limit)[0, 0], mask, spacing, limit)


@pytest.mark.parametrize("tiles", GPU_TILES)
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((5, 67), (1.0, 1.0)),
        ((66, 35), (2.5, 0.4)),  # more than a segment of rows, more than a tile of columns
        ((2, 65, 3), (0.7, 1.3, 2.0)),
        ((65, 2, 3), (2.0, 1.0, 1.0)),
    ],
)
def test_tiles_of_the_gpu(monkeypatch, tiles, shape, spacing) -> None:
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: GPU_TILES[tiles])
    mask = testing.noise(shape, fraction=0.04)
    for limit in (None, 3.0):
        assert_nearest(found(mask[None], (1,), [spacing], limit)[0, 0], mask, spacing, limit)


@pytest.mark.parametrize("limit", [None, 20.0])
def test_nearest_voxel_in_another_segment(monkeypatch, limit) -> None:
    """It is closer than the one in the row, but far from the end of the segment."""
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: GPU_TILES["nvidia"])
    mask = np.zeros((120, 40), np.uint8)
    mask[:, 0] = mask[104, 30] = 1
    for each in (mask, mask[::-1].copy()):
        assert_nearest(found(each[None], (1,), [(0.4, 2.5)], limit)[0, 0], each, (0.4, 2.5), limit)


@pytest.mark.parametrize("tiles", [None, "nvidia"])
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("shape", [(7, 34), (70, 9), (6, 7, 8), (2, 67, 3), (3, 2, 40)])
def test_of_equally_near_voxels_the_first_in_memory(monkeypatch, shape, fraction, tiles) -> None:
    if tiles:
        monkeypatch.setattr(triton_launcher, "_tiles", lambda device: GPU_TILES[tiles])
    mask = testing.noise(shape, fraction=fraction, seed=3)
    for spacing in (1.0, 0.5):
        got = found(mask[None], (1,), [[spacing] * len(shape)])[0, 0]
        np.testing.assert_array_equal(got, first_of_the_nearest(mask))


def test_a_voxel_at_the_limit_counts_and_one_beyond_does_not() -> None:
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[4, 4, 4] = 1
    distance = ndimage.distance_transform_edt(mask == 0)
    for limit in (1.0, 2.0, 3.0, math.sqrt(5)):
        indices = found(mask[None], (1,), [(1.0, 1.0, 1.0)], limit)[0, 0]
        near = (distance <= np.float32(limit)) & (mask == 0)
        assert (indices[:, near] == 4).all()
        assert (indices[:, ~near & (mask == 0)] == -1).all()


def test_the_limit_is_in_the_units_of_each_samples_spacing() -> None:
    mask = np.zeros((2, 3, 40), np.uint8)
    mask[:, 1, 0] = 1
    indices = found(mask, (1,), [(1.0, 1.0), (0.5, 0.25)], 4.0)
    assert (indices[:, 0, 1, 1, 1:] == 0).sum(axis=1).tolist() == [4, 16]
    for sample, spacing in zip(indices, [(1.0, 1.0), (0.5, 0.25)], strict=True):
        assert_nearest(sample[0], mask[0], spacing, 4.0)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint16", "int32", "int64", "uint64"])
def test_a_mask_is_every_label_above_0(dtype) -> None:
    mask = testing.shells((1, 5, 6, 37), classes=4).astype(dtype)
    if dtype.startswith("int"):
        mask[mask == 2], mask[mask == 3] = -1, np.iinfo(dtype).min
    expected = found(mask > 0, (1,), [(1.0, 1.0, 1.0)])
    np.testing.assert_array_equal(found(mask, (None,), [(1.0, 1.0, 1.0)]), expected)


@pytest.mark.parametrize("classes", [(0, 1, 2), (2, 7, 0), (None,)], ids=str)
def test_classes_and_spacing_per_sample(classes) -> None:
    labels = np.stack([testing.shells((6, 9, 11), classes=3), np.full((6, 9, 11), 2)])
    spacings = [(2.0, 0.5, 0.7), (1.0, 1.0, 1.0)]
    indices = found(labels, classes, spacings, 5.0)
    for b, k in np.ndindex(indices.shape[:2]):
        inside = labels[b] > 0 if classes[k] is None else labels[b] == classes[k]
        assert_nearest(indices[b, k], inside.astype(np.uint8), spacings[b], 5.0)


@pytest.mark.parametrize("shape", [(2, 2300), (2, 2, 2300)])
def test_rows_too_long_for_half_precision(shape) -> None:
    mask = testing.one_voxel(shape)
    mask[..., 0] = 0
    assert_nearest(found(mask[None], (1,), [[1.0] * len(shape)])[0, 0], mask, [1.0] * len(shape))


def test_a_plane_with_as_many_columns_as_its_places_can_note() -> None:
    mask = testing.noise((1, 2, 2**15), fraction=0.1)
    assert_nearest(found(mask[None], (1,), [(1.0, 1.0, 1.0)])[0, 0], mask, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("at_end", [False, True], ids=["at the start", "at the end"])
@pytest.mark.parametrize(
    ("shape", "tiles"),
    [((35, 33), "nvidia"), ((66, 3), "nvidia"), ((3, 5, 7), "nvidia"), ((2, 3, 5), "amd")],
)
def test_every_pass_stays_within_its_fields(monkeypatch, shape, tiles, at_end) -> None:
    """All that a call allocates lies at a fence: a step across ends the process."""
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: GPU_TILES[tiles])
    real = torch.empty

    def empty(*size, dtype, device):
        made = real(*size, dtype=dtype, device=device)
        return fenced(made, at_end).view(made.shape)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(
        triton_launcher, "_on_device", lambda table, device: fenced(torch.from_numpy(table), at_end)
    )
    labels = np.stack([testing.shells(shape, classes=3, thickness=2.0)] * 2).astype(np.uint8)
    at_fence = fenced(torch.from_numpy(labels), at_end).view(labels.shape)
    spacings = torch.tensor([[1.0] * len(shape), [2.0] * len(shape)], dtype=torch.float64)
    indices = triton_launcher.BACKEND.nearest(at_fence, (2, 1), spacings, None).numpy()
    for b, k in np.ndindex(2, 2):
        inside = (labels[b] == (2, 1)[k]).astype(np.uint8)
        np.testing.assert_array_equal(indices[b, k], first_of_the_nearest(inside))


def test_the_public_functions() -> None:
    labels = np.zeros((2, 6, 7, 9), np.int16)
    rng = np.random.default_rng(0)
    for sample, _ in itertools.product(labels, range(5)):
        sample[tuple(rng.integers(0, size) for size in sample.shape)] = rng.integers(1, 200)
    spacing = (1.5, 1.0, 0.8)
    indices = fastsdm.nearest(labels, spacing=spacing, backend="triton")
    for b in range(2):
        assert_nearest(indices[b], (labels[b] != 0).astype(np.uint8), spacing)
    filled = fastsdm.nearest_label(labels, spacing=spacing, max_distance=3.0, backend="triton")
    for b in range(2):
        gaps = ndimage.distance_transform_edt(labels[b] == 0, sampling=spacing)
        near = gaps <= 3.0
        at_nearest = labels[b][tuple(indices[b])]
        assert (filled[b][near & (labels[b] == 0)] == at_nearest[near & (labels[b] == 0)]).all()
        assert (filled[b][~near] == 0).all()
        assert (filled[b][labels[b] != 0] == labels[b][labels[b] != 0]).all()
