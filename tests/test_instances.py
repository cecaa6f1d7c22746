"""Distances within instances, against scipy instance by instance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import fastsdm
from fastsdm import testing
from fastsdm._backends import _native_ext, registry

BACKENDS = ["native", "scipy", "torch"]


def oracle(labels: np.ndarray, spacing, *, border=False, background=0) -> np.ndarray:
    """A transform of the whole volume for each label, in float64."""
    result = np.zeros(labels.shape)
    for value in np.unique(labels):
        if value == background:
            continue
        mask = np.pad(labels == value, int(border))
        if mask.all():
            result[...] = math.inf
            continue
        distance = ndimage.distance_transform_edt(mask, sampling=spacing)
        if border:
            distance = distance[(slice(1, -1),) * labels.ndim]
        result[labels == value] = distance[labels == value]
    return result


def cells(shape, count, *, gap=0.2, seed=0) -> np.ndarray:
    """Voronoi cells that touch, with a share of the volume left as background."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, np.int64)
    seeds.flat[rng.choice(seeds.size, count, replace=False)] = np.arange(1, count + 1)
    _distance, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    labels = seeds[tuple(nearest)]
    labels[testing.blobs(shape, fraction=gap, sigma=2, seed=seed) > 0] = 0
    return labels


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_random_volumes(backend, data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(st.lists(st.sampled_from([1, 2, 5, 8, 17, 33, 70]), min_size=ndim, max_size=ndim))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    kind = data.draw(st.sampled_from(["cells", "noise", "one", "background"]))
    if kind == "cells":
        labels = cells(shape, min(math.prod(shape), data.draw(st.integers(1, 12))), seed=seed)
    else:
        labels = {
            "noise": rng.integers(0, 3, shape),
            "one": np.ones(shape, int),
            "background": np.zeros(shape, int),
        }[kind]
    spacing = data.draw(
        st.sampled_from([(1.0, 1.0, 1.0), (2.0, 3.0, 1.0), (1.3, 0.7, 2.1), (1.0, 0.7, 1.0)])
    )[:ndim]
    border = data.draw(st.booleans())
    background = data.draw(st.sampled_from([0, 1]))
    limit = data.draw(st.sampled_from([None, 2.5]))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16", "int32", "int64"]))
    got = fastsdm.instance_distance(
        labels.astype(dtype), spatial_dims=ndim, spacing=spacing, black_border=border, background=background,
        max_distance=limit, backend=backend,
    )  # fmt: skip
    expected = oracle(labels, spacing, border=border, background=background)
    if limit is not None:
        expected = expected.clip(max=limit)
    np.testing.assert_allclose(got, expected.astype(np.float32), rtol=2 * testing.ROUNDING, atol=0)


@pytest.mark.parametrize("isa", _native_ext.isas())
@pytest.mark.parametrize("threads", [1, 3])
def test_400_instances_on_every_instruction_set(isa, threads) -> None:
    labels = cells((60, 70, 80), 400)
    assert len(np.unique(labels)) == 401
    for spacing in ((1.0, 1.0, 1.0), (2.5, 0.9, 0.7)):
        rows = torch.tensor([spacing], dtype=torch.float64)
        got = registry.get("native").instance_distance(
            torch.from_numpy(labels)[None], 0, rows, None, False, isa=isa, threads=threads
        )
        np.testing.assert_allclose(got[0], oracle(labels, spacing), rtol=2 * testing.ROUNDING)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("border", [False, True])
def test_distances_beyond_16_bit_lanes(axis, border) -> None:
    shape = [3, 3, 3]
    shape[axis] = 450
    labels = np.ones(shape, np.uint8)
    labels[(slice(None),) * axis + (slice(400, None),)] = 2
    got = fastsdm.instance_distance(labels, black_border=border)
    np.testing.assert_array_equal(got, oracle(labels, 1.0, border=border).astype(np.float32))


def test_batches_with_spacing_per_sample() -> None:
    labels = np.stack([cells((9, 10, 17), 5, seed=seed) for seed in range(4)]).reshape(2, 2, 9, 10, 17)
    spacing = np.array([[1.0, 1.0, 1.0], [2.0, 0.5, 0.9]])
    got = fastsdm.instance_distance(torch.from_numpy(labels), spacing=spacing)
    assert got.shape == labels.shape
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(got[i, j], oracle(labels[i, j], spacing[i]), rtol=1e-6)


def test_labels_that_differ_in_high_bits_only() -> None:
    labels = np.where(cells((8, 9, 10), 2, gap=0.0) == 1, 1, 1 + (1 << 40))
    np.testing.assert_allclose(fastsdm.instance_distance(labels), oracle(labels, 1.0), rtol=1e-6)


def test_negative_background_and_float_labels() -> None:
    labels = cells((8, 9, 10), 4) - 1
    got = fastsdm.instance_distance(labels.astype(np.float32), background=-1)
    np.testing.assert_allclose(got, oracle(labels, 1.0, background=-1), rtol=1e-6)


def test_a_mask_is_one_instance() -> None:
    mask = testing.blobs((12, 13, 14), sigma=2) > 0
    np.testing.assert_array_equal(fastsdm.instance_distance(mask), fastsdm.distance_transform(mask))


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 4, 5), (2, 4, 5, 0)])
def test_no_voxels(shape) -> None:
    assert fastsdm.instance_distance(np.zeros(shape, np.int32)).shape == shape


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"background": 0.5}, TypeError, "background: must be an integer, got 0.5"),
        ({"background": 300}, ValueError, r"must fit the labels' dtype torch.uint8 \(0 to 255\)"),
        ({"black_border": 1}, TypeError, "black_border: must be True or False, got"),
        ({"spatial_dims": 4}, ValueError, "spatial_dims: must be 2 or 3"),
        ({"max_distance": -1}, ValueError, "max_distance"),
        ({"spacing": 0}, ValueError, "spacing: must be positive"),
        ({"backend": "jump-flooding"}, fastsdm.BackendUnavailableError, "does not compute distances"),
        ({"backend": "fast"}, ValueError, "backend: must be 'auto' or one of"),
    ],
)  # fmt: skip
def test_bad_input(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        fastsdm.instance_distance(np.ones((3, 4, 5), np.uint8), **arguments)


def test_resampled_labels_are_rounded() -> None:
    labels = cells((8, 9, 10), 4)
    for off in (-1e-4, 1e-4):
        got = fastsdm.instance_distance(labels.astype(np.float32) + np.float32(off))
        np.testing.assert_array_equal(got, fastsdm.instance_distance(labels))


def test_labels_that_are_none(monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"labels: float label maps must hold whole numbers, got 0\.5"):
        fastsdm.instance_distance(np.full((3, 4, 5), 0.5))
    monkeypatch.setattr(registry, "found", {})
    monkeypatch.setattr(registry, "auto_order", lambda device: ("jump-flooding",))
    with pytest.raises(
        fastsdm.BackendUnavailableError, match=r"no backend computes .* on meta; move .* \.cpu\(\)"
    ):
        fastsdm.instance_distance(torch.zeros(3, 4, 5, device="meta", dtype=torch.int32))
