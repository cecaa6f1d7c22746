"""An ignored voxel is neither inside nor outside of any class, wherever a map is made, and reads 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsdm
from fastsdm import testing
from fastsdm.data import PatchDataset, PatchPosition, Volume, signed_distance_patch
from fastsdm.losses import BoundaryLoss


def brute_force(labels: np.ndarray, classes, spacing, ignore_index: int, limit: float | None) -> np.ndarray:
    """The plain map by comparing every voxel with every known voxel."""
    places = np.argwhere(np.ones(labels.shape, bool)) * np.asarray(spacing)
    flat = labels.ravel()
    known = flat != ignore_index
    apart = np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=-1))
    maps = np.zeros((len(classes), flat.size))
    for number, value in enumerate(classes):
        inside = (flat == value) & known
        outside = ~inside & known
        to_inside = apart[:, inside].min(axis=1, initial=np.inf)
        to_outside = apart[:, outside].min(axis=1, initial=np.inf)
        maps[number] = np.where(inside, -to_outside, to_inside)
        maps[number, ~known] = 0
    maps = maps.reshape(len(classes), *labels.shape)
    return maps if limit is None else np.clip(maps, -limit, limit)


@st.composite
def sparse_labels(draw):
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 7)) for _ in range(ndim))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shares = draw(st.sampled_from([(0.7, 0.2, 0.1), (0.2, 0.1, 0.7), (0.0, 0.3, 0.7), (0.5, 0.5, 0.0)]))
    labels = rng.choice([0, 1, 255], size=shape, p=shares).astype(draw(st.sampled_from([np.uint8, np.int32])))
    return labels, draw(st.sampled_from([(1.0,) * ndim, (3.0, 0.8, 0.7)[:ndim]]))


@settings(deadline=None, max_examples=80)
@given(sparse_labels(), st.sampled_from([None, 0.9, 2.5]), st.sampled_from(["native", "scipy"]))
def test_maps_are_those_of_brute_force(sparse, limit, backend) -> None:
    labels, spacing = sparse
    got = fastsdm.signed_distance(
        labels,
        classes=[0, 1],
        spatial_dims=labels.ndim,
        spacing=spacing,
        convention="plain",
        max_distance=limit,
        ignore_index=255,
        backend=backend,
    )
    np.testing.assert_allclose(got, brute_force(labels, (0, 1), spacing, 255, limit), rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(sparse_labels(), st.sampled_from([0.9, 2.5, 20.0]), st.sampled_from([0, 255]), st.data())
def test_a_patch_is_the_crop_of_the_whole_map(sparse, limit, pad_label, data) -> None:
    labels, spacing = sparse
    size = [data.draw(st.integers(1, n + 3)) for n in labels.shape]
    before = [max(n - whole, 0) // 2 for n, whole in zip(size, labels.shape, strict=True)]
    after = [max(n - whole, 0) - b for n, whole, b in zip(size, labels.shape, before, strict=True)]
    padded = np.pad(labels, list(zip(before, after, strict=True)), constant_values=pad_label)
    start = [data.draw(st.integers(0, whole - n)) for whole, n in zip(padded.shape, size, strict=True)]
    expected = brute_force(padded, (0, 1), spacing, 255, limit)
    crop = (slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))

    volume = Volume(np.zeros(labels.shape, np.float32), labels, spacing)
    position = PatchPosition(0, tuple(a - b for a, b in zip(start, before, strict=True)))
    for context in ("full", "halo"):
        dataset = PatchDataset(
            [volume],
            size,
            classes=[0, 1],
            context=context,
            max_distance=limit,
            convention="plain",
            ignore_index=255,
            pad_label=pad_label,
        )
        np.testing.assert_allclose(dataset[position]["distance_map"].numpy(), expected[crop], rtol=1e-6)
    got = signed_distance_patch(
        padded,
        start,
        size,
        classes=[0, 1],
        spacing=spacing,
        max_distance=limit,
        convention="plain",
        ignore_index=255,
    )
    np.testing.assert_allclose(got, expected[crop], rtol=1e-6)


def test_sparse_annotation_weighs_as_the_whole_volume_does() -> None:
    """Labels known in every fourth slice only: a patch weighs like the crop of the whole map."""
    dense = testing.shells((16, 18, 20), classes=3, thickness=4).astype(np.uint8)
    labels = np.full_like(dense, 255)
    labels[::4] = dense[::4]
    loss = BoundaryLoss(softmax=True, ignore_index=255, max_distance=10)
    whole = fastsdm.signed_distance(labels, classes=3, max_distance=10, ignore_index=255)
    patch = (slice(4, 12), slice(5, 13), slice(6, 14))
    dataset = PatchDataset(
        [Volume(np.zeros(labels.shape, np.float32), labels)], (8, 8, 8), classes=3, loss=loss
    )
    sample = dataset[PatchPosition(0, (4, 5, 6))]
    np.testing.assert_array_equal(sample["distance_map"].numpy(), whole[(slice(None), *patch)])
    prediction = torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(labels[patch])[None].long()
    handed = loss(prediction, target, distance_map=sample["distance_map"][None])
    assert torch.equal(
        handed, loss(prediction, target, distance_map=torch.from_numpy(whole[(slice(None), *patch)])[None])
    )


def test_a_mask_may_hold_ignored_voxels() -> None:
    mask = np.array([[0, 0, 255, 1, 1, 0]], np.uint8)
    got = fastsdm.signed_distance(mask, spatial_dims=2, convention="plain", ignore_index=255)
    assert got.tolist() == [[3, 2, 0, -2, -1, 1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_a_mask_of_any_dtype_may_hold_ignored_voxels(dtype) -> None:
    mask = np.array([[-1, 0, 255, 1, 1, 0]], np.int16).astype(dtype)
    if np.dtype(dtype).kind == "f":
        mask = mask + np.array([0, 0.4, -2e-5, -0.4, 0, 0.1], dtype)
    got = fastsdm.signed_distance(mask, spatial_dims=2, convention="plain", ignore_index=255)
    assert got.tolist() == [[3, 2, 0, -2, -1, 1]]
    got = fastsdm.signed_distance(mask, spatial_dims=2, convention="plain", ignore_index=-1)
    assert got.tolist() == [[0, 1, -1, -2, -1, 1]]


@pytest.mark.parametrize("value", [255, np.int64(255), torch.tensor(255)])
def test_the_label_may_be_any_integer(value) -> None:
    mask = np.array([[0, 255, 1, 0]], np.uint8)
    got = fastsdm.signed_distance(mask, spatial_dims=2, convention="plain", ignore_index=value)
    assert got.tolist() == [[2, 0, -1, 1]]


def test_a_label_that_the_dtype_cannot_hold_is_nowhere() -> None:
    mask = np.array([[0, 255, 1, 0]], np.uint8)
    got = fastsdm.signed_distance(mask, spatial_dims=2, classes=2, ignore_index=-1)
    assert np.array_equal(got, fastsdm.signed_distance(mask, spatial_dims=2, classes=2))


@pytest.mark.parametrize("value", [True, 1.0, "255"])
def test_other_types_are_refused(value) -> None:
    with pytest.raises(TypeError, match="ignore_index: must be an integer, got"):
        fastsdm.signed_distance(np.zeros((4, 4, 4), np.uint8), ignore_index=value)


def test_prefetch_ignores_too() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).choice([0, 1, 255], size=(2, 6, 7, 8)))
    options = {"classes": 2, "ignore_index": 255}
    assert torch.equal(
        fastsdm.prefetch(labels, **options).result(), fastsdm.signed_distance(labels, **options)
    )
