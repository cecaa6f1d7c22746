"""The map of a patch is the crop of the map of its volume."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastsdm
from fastsdm import testing
from fastsdm.data import patch_halo, signed_distance_patch
from tests.data.sources import RecordingSource

CONVENTIONS = ("kervadec", "kervadec-literal", "plain", "midline")


def crop(array, start, size):
    return array[(..., *(slice(first, first + n) for first, n in zip(start, size, strict=True)))]


def cropped_full_map(labels, start, size, **options):
    return crop(fastsdm.signed_distance(labels, spatial_dims=len(size), empty="max", **options), start, size)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_patch_map_is_the_crop_of_the_full_map(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(st.lists(st.integers(1, 24), min_size=ndim, max_size=ndim))
    start = [data.draw(st.integers(0, whole - 1)) for whole in shape]
    size = [data.draw(st.integers(1, whole - first)) for first, whole in zip(start, shape, strict=True)]
    seed = data.draw(st.integers(0, 2**31))
    density = data.draw(st.sampled_from([0.0, 0.0005, 0.005, 0.1, 0.995, 1.0]))
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < density) * rng.integers(1, 3, shape)
    isotropic = data.draw(st.booleans())
    quarters = data.draw(st.lists(st.integers(1, 12), min_size=ndim, max_size=ndim))
    spacing = [quarters[0] / 4] * ndim if isotropic else [n / 4 for n in quarters]
    options = {
        "classes": data.draw(st.sampled_from([None, 3, [2, 5]])),
        "spacing": spacing,
        "max_distance": data.draw(st.integers(1, 200)) / 4,
        "convention": data.draw(st.sampled_from(CONVENTIONS)),
        "backend": data.draw(st.sampled_from(["native", "scipy"])),
    }
    expected = cropped_full_map(labels, start, size, **options)
    got = signed_distance_patch(labels, start, size, **options)
    # A block may be flat where the volume is not: a backend may then round in the units of another axis.
    atol = 0 if isotropic else testing.ROUNDING * (options["max_distance"] + max(spacing))
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@settings(deadline=None, max_examples=100)
@given(
    steps=st.tuples(*[st.floats(0.2, 4.0)] * 3),
    limit=st.floats(0.1, 12.0),
    seed=st.integers(0, 2**31),
    convention=st.sampled_from(CONVENTIONS),
)
def test_spacings_that_float32_rounds(steps, limit, seed, convention) -> None:
    labels = testing.noise((9, 16, 20), fraction=0.003, seed=seed)
    assume(labels.any())
    options = {"classes": 2, "spacing": steps, "max_distance": limit, "convention": convention}
    got = signed_distance_patch(labels, (3, 5, 0), (4, 6, 11), **options)
    expected = cropped_full_map(labels, (3, 5, 0), (4, 6, 11), **options)
    # A distance that rounds to either side of the limit is clamped or shifted: that is one more rounding.
    np.testing.assert_allclose(
        got, expected, rtol=testing.ROUNDING, atol=testing.ROUNDING * (limit + max(steps))
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_halo_is_no_voxel_short_and_none_too_many(convention) -> None:
    """One voxel seen from a patch, at every distance around the halo's edge, from all six sides."""
    spacing, limit, size = (2.0, 0.5, 1.0), 4.0, (3, 3, 3)
    halo = patch_halo(limit, spacing=spacing, convention=convention)
    reach = limit + {"kervadec": 0.5, "kervadec-literal": 1.0, "plain": 0.0, "midline": 0.25}[convention]
    assert halo == tuple(math.floor(reach / step) for step in spacing)
    shape, start = (13, 33, 17), (5, 15, 7)
    options = {"spacing": spacing, "max_distance": limit, "convention": convention, "classes": None}
    for axis in range(3):
        for gap in range(halo[axis] + 2):
            for position in (start[axis] - 1 - gap, start[axis] + 3 + gap):
                labels = np.zeros(shape, np.uint8)
                labels[tuple(position if a == axis else start[a] + 1 for a in range(3))] = 1
                for volume in (labels, 1 - labels):
                    got = signed_distance_patch(volume, start, size, **options)
                    np.testing.assert_array_equal(got, cropped_full_map(volume, start, size, **options))


def test_absent_and_filling_classes_read_the_limit() -> None:
    labels = np.zeros((40, 40, 40), np.int16)
    labels[:, :, 20:] = 2
    options = {"classes": 3, "max_distance": 5.5}
    got = signed_distance_patch(labels, (10, 10, 2), (8, 8, 8), **options)
    assert (got[0] == -5.5).all()
    assert (got[1:] == 5.5).all()
    np.testing.assert_array_equal(got, cropped_full_map(labels, (10, 10, 2), (8, 8, 8), **options))
    near = signed_distance_patch(labels, (10, 10, 10), (8, 8, 8), **options)
    assert near[2].min() == 3, "class 2 begins three voxels past the patch"


def starts_at_corners_edges_and_inside(shape, size):
    axes = [(0, (whole - n) // 2, whole - n) for whole, n in zip(shape, size, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))


def test_many_patches_of_one_volume() -> None:
    labels = testing.shells((21, 23, 40), classes=4)
    size = (8, 9, 10)
    starts = starts_at_corners_edges_and_inside(labels.shape, size)
    starts = np.concatenate([starts, starts[::3]])  # so that some blocks share their shape, and not all
    options = {"classes": 4, "max_distance": 3.0, "spacing": (1.0, 0.5, 1.5)}
    got = signed_distance_patch(labels, starts, size, **options)
    assert got.shape == (36, 4, *size)
    for start, patch in zip(starts, got, strict=True):
        np.testing.assert_array_equal(patch, cropped_full_map(labels, start, size, **options))
    for same in (starts.tolist(), torch.from_numpy(starts), [tuple(row) for row in starts.tolist()]):
        np.testing.assert_array_equal(signed_distance_patch(labels, same, size, **options), got)


@pytest.mark.parametrize("starts", [[(0, 3, 8), (7, 7, 7), (12, 12, 1)], [(7, 7, 7)] * 3])
@pytest.mark.parametrize("kind", ["array", "list"])
def test_one_volume_per_patch_with_its_own_spacing(kind, starts) -> None:
    """Also in one batch: starts alike, and blocks that are the whole volumes."""
    volumes = np.stack([testing.blobs((20, 20, 20), sigma=2, seed=seed) for seed in range(3)])
    spacing = [(1.0, 1.0, 1.0), (2.0, 0.5, 0.5), (0.25, 1.0, 3.0)]
    source = volumes if kind == "array" else [volumes[0], volumes[1], volumes[2, :, :, :15]]
    for limit in (2.5, 60.0):
        options = {"classes": None, "max_distance": limit}
        got = signed_distance_patch(source, starts, (8, 8, 8), spacing=spacing, **options)
        for i in range(3):
            expected = cropped_full_map(source[i], starts[i], (8, 8, 8), spacing=spacing[i], **options)
            np.testing.assert_array_equal(got[i], expected)


def test_kind_dtype_and_layout_of_the_result() -> None:
    labels = torch.from_numpy(testing.blobs((20, 20, 20), sigma=2))
    options = {"classes": 2, "max_distance": 4}
    got = signed_distance_patch(labels, (1, 2, 3), (9, 8, 7), **options)
    assert got.shape == (2, 9, 8, 7)
    assert got.is_contiguous()
    assert got.dtype == torch.float32
    half = signed_distance_patch(labels, [(1, 2, 3)], (9, 8, 7), dtype=torch.float16, **options)
    assert torch.equal(half, got.half()[None])
    assert isinstance(signed_distance_patch(labels.numpy(), (1, 2, 3), (9, 8, 7), **options), np.ndarray)
    for other in (labels.bool(), labels.float(), labels.bfloat16(), labels.long()):
        assert torch.equal(signed_distance_patch(other, (1, 2, 3), (9, 8, 7), **options), got)


def test_only_the_patch_and_its_halo_are_read() -> None:
    source = RecordingSource(testing.blobs((30, 40, 50), sigma=3))
    options = {"classes": 2, "spacing": (2.0, 1.0, 1.0), "max_distance": 6.0}
    assert patch_halo(6.0, spacing=(2.0, 1.0, 1.0)) == (3, 7, 7)
    got = signed_distance_patch(source, (10, 2, 38), (8, 9, 10), **options)
    assert source.read == [(slice(7, 21), slice(0, 18), slice(31, 50))]
    np.testing.assert_array_equal(got, cropped_full_map(source.array, (10, 2, 38), (8, 9, 10), **options))


def test_memory_map_larger_than_memory(tmp_path) -> None:
    """A sparse file of 1 TiB, of which one block is written: reading more than the halo would not end."""
    shape, start, size = (1 << 13, 1 << 13, 1 << 14), (2000, 3000, 16384 - 12), (12, 12, 12)
    path = tmp_path / "labels.raw"
    with path.open("wb") as file:
        file.truncate(math.prod(shape))
    volume = np.memmap(path, np.uint8, "r+", shape=shape)
    block = testing.blobs((22, 22, 17), sigma=2)
    volume[2000 - 5 : 2012 + 5, 3000 - 5 : 3012 + 5, 16384 - 17 :] = block
    volume.flush()
    read_only = np.memmap(path, np.uint8, "r", shape=shape)
    got = signed_distance_patch(read_only, start, size, classes=2, max_distance=4.0)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, cropped_full_map(block, (5, 5, 5), size, classes=2, max_distance=4.0))


LABELS = np.zeros((8, 9, 10), np.uint8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"start": (0, 0, 7)},
            ValueError,
            r"start: the patch must lie inside .*\(8, 9, 10\), got start \(0, 0, 7\)",
        ),
        ({"start": (-1, 0, 0)}, ValueError, r"start: the patch must lie inside"),
        ({"start": (0, 0)}, ValueError, r"start: must be 3 indices .*got shape \(2,\)"),
        ({"start": []}, (ValueError, TypeError), r"start: must"),
        ({"start": (0.5, 0, 0)}, TypeError, r"start: must hold integers"),
        ({"size": (4, 4)}, ValueError, r"start: must be 2 indices"),
        ({"size": (4, 4, 0)}, ValueError, r"size: must be 2 or 3 positive numbers"),
        ({"size": (4,)}, ValueError, r"size: must be 2 or 3 positive numbers"),
        ({"size": (4.0, 4, 4)}, TypeError, r"size: must hold integers"),
        ({"max_distance": None}, TypeError, r"max_distance: must be a number .*got None"),
        ({"max_distance": -1.0}, ValueError, r"max_distance: must be positive"),
        ({"spacing": (1.0, 0.0, 1.0)}, ValueError, r"spacing: must be positive"),
        ({"spacing": (1.0, 1.0)}, ValueError, r"spacing: must be a number, 3 numbers"),
        ({"convention": "mine"}, ValueError, r"convention: must be one of"),
        ({"start": [(0, 0, 0), (0, 0)]}, ValueError, r"start: must hold rows of equal length"),
        ({"labels": [[0, 1], [1, 0]]}, TypeError, r"labels: must be arrays, .* got list"),
        ({"labels": "labels.npy"}, TypeError, r"labels: must be arrays, .* got str"),
        ({"labels": np.uint8(1)}, ValueError, r"labels: must be one volume of 3 axes"),
        ({"labels": LABELS[0]}, ValueError, r"labels: must be one volume of 3 axes"),
        ({"labels": [LABELS, LABELS]}, ValueError, r"labels: .* for each of the 1 rows of start"),
        ({"labels": LABELS[None, None]}, ValueError, r"labels: must be one volume of 3 axes"),
        ({"labels": LABELS.astype("complex64")}, TypeError, r"labels: must hold booleans"),
        ({"classes": 0}, ValueError, r"classes: must be at least 1"),
        ({"backend": "mine"}, ValueError, r"backend: must be 'auto' or one of"),
    ],
)
def test_bad_input(change, error, message) -> None:
    arguments = {"labels": LABELS, "start": (0, 0, 0), "size": (4, 4, 4), "classes": 2, "max_distance": 3.0}
    with pytest.raises(error, match=message):
        signed_distance_patch(**(arguments | change))


@pytest.mark.parametrize(
    ("spacing", "error"),
    [
        (1.0, ValueError),
        ([], ValueError),
        ([[1.0, 1.0]], ValueError),
        ([[1.0], [1.0, 2.0]], TypeError),
        ((1.0, -1.0), ValueError),
        (("a", "b"), TypeError),
    ],
)
def test_bad_spacing_of_a_halo(spacing, error) -> None:
    with pytest.raises(error, match="spacing: must"):
        patch_halo(3.0, spacing=spacing)


@pytest.mark.gpu
def test_patches_of_a_volume_on_the_device() -> None:
    labels = torch.from_numpy(testing.shells((40, 40, 40), classes=4)).cuda()
    starts, size = [(0, 0, 0), (10, 12, 14), (12, 10, 9)], (16, 16, 16)
    options = {"classes": 4, "max_distance": 6.0}
    got = signed_distance_patch(labels, starts, size, **options)
    assert got.device == labels.device
    for start, patch in zip(starts, got, strict=True):
        assert torch.equal(patch, cropped_full_map(labels, start, size, **options))
