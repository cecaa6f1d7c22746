"""Nearest voxels: the distance recomputed from the index is the distance, whatever voxel a tie goes to."""

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
SPACINGS = [(1.0, 1.0, 1.0), (2.0, 3.0, 1.0), (1.3, 0.7, 2.1), (1.0, 0.7, 1.0)]


def assert_nearest(indices: np.ndarray, inside: np.ndarray, spacing, limit=None) -> None:
    """Each index names a voxel of the other phase, as far away as scipy says."""
    indices = np.asarray(indices)
    truth = np.abs(testing.reference_signed_distance(inside[None], [1], np.array([spacing]))[0, 0])
    none = np.isinf(truth)
    if limit is not None:
        rounded = truth.astype(np.float32)
        close = np.abs(rounded - np.float32(limit)) <= 2 * testing.ROUNDING * limit
        none = np.where(close, (indices < 0).all(axis=0), rounded > limit)
    assert ((indices < 0) == none).all()
    assert (indices[:, none] == -1).all()
    here = np.stack(np.nonzero(~none))
    there = indices[:, ~none]
    assert (inside[tuple(here)] != inside[tuple(there)]).all()
    steps = (here - there) * np.asarray(spacing)[:, None]
    np.testing.assert_allclose(np.sqrt((steps**2).sum(axis=0)), truth[~none], rtol=testing.ROUNDING)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_random_volumes(backend, data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    sizes = st.sampled_from([1, 2, 3, 5, 8, 9, 17, 33, 70])
    shape = data.draw(st.lists(sizes, min_size=ndim, max_size=ndim))
    fraction = data.draw(st.sampled_from([0.0, 0.002, 0.05, 0.5, 0.98, 1.0]))
    mask = testing.noise(shape, fraction=fraction, seed=data.draw(st.integers(0, 10**6)))
    spacing = data.draw(st.sampled_from(SPACINGS))[:ndim]
    limit = data.draw(st.sampled_from([None, 0.3, 1.0, 2.6, 9.0, 1e6]))
    options = {}
    if backend == "native":
        options = {
            "isa": data.draw(st.sampled_from(_native_ext.isas())),
            "threads": data.draw(st.sampled_from([1, 3])),
        }
    rows = torch.tensor([spacing], dtype=torch.float64)
    got = registry.get(backend).nearest(torch.from_numpy(mask)[None], (1,), rows, limit, **options)
    assert got.dtype == torch.int32
    assert_nearest(got[0, 0], mask, spacing, limit)


def assert_all_nearest(indices: np.ndarray, inside: np.ndarray, spacing: np.ndarray, limit) -> None:
    """As :func:`assert_nearest`, of a batch at once."""
    truth = np.abs(testing.reference_signed_distance(inside, [1], spacing)[:, 0])
    none = np.isinf(truth)
    if limit is not None:
        rounded = truth.astype(np.float32)
        close = np.abs(rounded - np.float32(limit)) <= 2 * testing.ROUNDING * limit
        none = np.where(close, (indices < 0).all(axis=1), rounded > limit)
    np.testing.assert_array_equal(indices < 0, np.broadcast_to(none[:, None], indices.shape))
    assert (indices[np.broadcast_to(none[:, None], indices.shape)] == -1).all()
    sample, *here = np.nonzero(~none)
    there = [indices[:, axis][~none] for axis in range(indices.shape[1])]
    assert (inside[(sample, *here)] != inside[(sample, *there)]).all()
    steps = (np.stack(here) - np.stack(there)) * spacing[sample].T
    np.testing.assert_allclose(np.sqrt((steps**2).sum(axis=0)), truth[~none], rtol=testing.ROUNDING)


@pytest.mark.parametrize("seed", range(40))
def test_ten_thousand_random_volumes(seed) -> None:
    """250 volumes at a time, each with a spacing and a density of its own, empty and full ones among them."""
    rng = np.random.default_rng(seed)
    ndim = 2 + seed % 2
    shape = tuple(rng.choice([1, 2, 3, 5, 8, 9, 12], ndim))
    if seed % 10 == 9:  # farther than words of near voxels reach
        shape = (*shape[:-1], 80) if seed % 20 == 9 else (80, *shape[1:])
    density = rng.choice([0.0, 0.02, 0.1, 0.5, 0.9, 0.98, 1.0], 250)
    inside = (rng.random((250, *shape)) < density.reshape(-1, *(1,) * ndim)).astype(np.uint8)
    spacing = np.asarray(SPACINGS)[rng.integers(0, len(SPACINGS), 250), -ndim:]
    limit = (None, None, 1.0, 2.6, 9.0)[seed % 5]
    got = fastsdm.nearest(inside, spatial_dims=ndim, spacing=spacing, max_distance=limit, backend="native")
    assert_all_nearest(got, inside, spacing, limit)


@pytest.mark.parametrize("case", list(testing.hard_cases()), ids=lambda case: case.name)
@pytest.mark.parametrize("backend", BACKENDS)
def test_hard_case(case, backend) -> None:
    got = fastsdm.nearest(
        case.labels, classes=case.classes, spatial_dims=case.ndim, spacing=case.spacing, backend=backend
    )
    assert got.shape == (case.labels.shape[0], len(case.classes), case.ndim, *case.labels.shape[1:])
    for b, k in np.ndindex(got.shape[:2]):
        assert_nearest(got[b, k], (case.labels[b] == case.classes[k]).astype(np.uint8), case.spacing[b])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [181, 182, 183, 300])
def test_distances_beyond_16_bit_lanes(axis, size) -> None:
    shape = [3, 5, 20]
    shape[axis] = size
    for mask in (np.zeros(shape, np.uint8), np.ones(shape, np.uint8)):
        mask[0, 1, 2] = 1 - mask[0, 1, 2]
        for spacing in ((1.0, 1.0, 1.0), (2.0, 2.0, 1.0)):
            assert_nearest(fastsdm.nearest(mask, spacing=spacing), mask, spacing)


def test_instruction_sets_and_threads_give_the_same_voxels() -> None:
    labels = torch.from_numpy(testing.shells((33, 47, 70), classes=3))[None]
    for spacing in SPACINGS:
        rows = torch.tensor([spacing], dtype=torch.float64)
        found = [
            registry.get("native").nearest(labels, (0, 1, 2), rows, None, isa=isa, threads=threads)
            for isa in _native_ext.isas()
            for threads in (1, 2)
        ]
        assert all(torch.equal(found[0], other) for other in found[1:])


def test_classes_leading_axes_and_kinds() -> None:
    labels = np.stack([testing.shells((8, 9, 10), classes=3), testing.shells((8, 9, 10), classes=2)])
    spacing = np.array([[1.0, 1.0, 1.0], [2.0, 0.5, 0.7]])
    got = fastsdm.nearest(labels, classes=[2, 1], spacing=spacing)
    assert got.shape == (2, 2, 3, 8, 9, 10)
    assert got.dtype == np.int32
    for b, k in np.ndindex(2, 2):
        assert_nearest(got[b, k], (labels[b] == (2, 1)[k]).astype(np.uint8), spacing[b])
    assert (got[1, 0] == -1).all(), "class 2 is absent from the second sample"
    tensor = fastsdm.nearest(torch.from_numpy(labels), classes=[2, 1], spacing=spacing)
    np.testing.assert_array_equal(tensor, got)
    for dtype in (np.int8, np.uint16, np.float32):
        np.testing.assert_array_equal(
            fastsdm.nearest(labels.astype(dtype), classes=[2, 1], spacing=spacing), got
        )
    np.testing.assert_array_equal(fastsdm.nearest(labels * 0.6 - 1e-3), fastsdm.nearest(labels > 0))
    np.testing.assert_array_equal(fastsdm.nearest(labels * 0.3), fastsdm.nearest(labels > 1))
    np.testing.assert_array_equal(fastsdm.nearest(labels.astype(np.int8) - 2), fastsdm.nearest(labels > 2))
    assert fastsdm.nearest(np.zeros((2, 0, 3, 4))).shape == (2, 3, 0, 3, 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [None, 2.0, 3.5])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_nearest_label(backend, limit, dtype) -> None:
    labels = np.zeros((2, 14, 15, 33), dtype)
    rng = np.random.default_rng(0)
    for sample in range(2):
        labels[sample][tuple(rng.integers(0, size, 9) for size in (14, 15, 33))] = rng.integers(1, 200, 9)
    spacing = (1.5, 1.0, 0.8)
    got = fastsdm.nearest_label(labels, spacing=spacing, max_distance=limit, backend=backend)
    assert got.dtype == labels.dtype
    for sample, filled in zip(labels, got, strict=True):
        distance = ndimage.distance_transform_edt(sample == 0, sampling=spacing)
        assert (filled[sample != 0] == sample[sample != 0]).all()
        reached = distance <= (math.inf if limit is None else limit)
        assert (filled[~reached] == 0).all()
        per_label = {
            value: ndimage.distance_transform_edt(sample != value, sampling=spacing)
            for value in np.unique(sample[sample != 0])
        }
        for value, to_label in per_label.items():
            voxels = reached & (filled == value)
            np.testing.assert_allclose(to_label[voxels], distance[voxels], rtol=1e-6)
        assert np.isin(filled[reached], list(per_label)).all()


@pytest.mark.parametrize("isa", _native_ext.isas())
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(20, 37, 70), (70, 1, 131), (90, 67), (1, 5, 64)])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int16,
        torch.uint16,
        torch.int32,
        torch.uint32,
        torch.int64,
        torch.uint64,
    ],
)
def test_native_takes_the_labels_of_the_voxels_it_finds(isa, threads, shape, dtype) -> None:
    """Labels that fill cells and single ones, near and far, with a background that is not 0 and without."""
    native = registry.get("native")
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2 if dtype == torch.bool else 100, (2, *shape))
    values[0][testing.blobs(shape, fraction=0.6) > 0] = 0
    values[1][rng.random(shape) > 0.003] = 0
    labels, flat = torch.from_numpy(values).to(dtype), torch.from_numpy(values).flatten(1)
    for background, spacing, limit in ((0, 1.0, None), (0, 0.7, 2.6), (1, 1.3, None)):
        rows = torch.tensor([[spacing, 1.0, 0.9], [1.0, 1.0, 1.0]], dtype=torch.float64)[:, -len(shape) :]
        got = native.nearest_label(labels, background, rows, limit, isa=isa, threads=threads)
        assert got.dtype == dtype
        is_background = torch.from_numpy(values == background)
        at = native.nearest(is_background, [None], rows, limit, isa=isa)[:, 0]
        place = sum(at[:, axis].long() * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        taken = flat.gather(1, place.clamp(min=0).flatten(1)).view_as(is_background)
        expected = torch.where(is_background & (at[:, 0] >= 0), taken, torch.from_numpy(values))
        np.testing.assert_array_equal(got.numpy(), expected.to(dtype).numpy())


def test_nearest_label_of_another_background_and_of_none() -> None:
    labels = testing.shells((9, 10, 11), classes=3) - 1
    got = fastsdm.nearest_label(labels, background=1)
    assert set(np.unique(got)) == {-1, 0}
    assert (got[labels != 1] == labels[labels != 1]).all()
    full = np.full((3, 4, 5), 7)
    np.testing.assert_array_equal(fastsdm.nearest_label(full, background=7), full)
    np.testing.assert_array_equal(fastsdm.nearest_label(full), full)


@pytest.mark.parametrize("function", [fastsdm.nearest, fastsdm.nearest_label])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spatial_dims": 1}, ValueError, "spatial_dims: must be 2 or 3"),
        ({"spacing": (1, 2)}, ValueError, "spacing"),
        ({"spacing": -1}, ValueError, "spacing: must be positive"),
        ({"max_distance": 0}, ValueError, "max_distance"),
        ({"max_distance": "far"}, TypeError, "max_distance"),
        (
            {"backend": "jump-flooding"},
            fastsdm.BackendUnavailableError,
            "does not compute nearest voxels; use one of",
        ),
    ],
)
def test_bad_input(function, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        function(np.ones((3, 4, 5), np.uint8), **arguments)


def test_more_bad_input() -> None:
    with pytest.raises(TypeError, match=r"background: must be an integer, got 0\.5"):
        fastsdm.nearest_label(np.ones((3, 4, 5), np.uint8), background=0.5)
    with pytest.raises(ValueError, match="300"):
        fastsdm.nearest_label(np.ones((3, 4, 5), np.uint8), background=300)
    with pytest.raises(ValueError, match="labels: must not contain NaN"):
        fastsdm.nearest_label(np.full((3, 4, 5), np.nan))
    for name, function in (("target", fastsdm.nearest), ("labels", fastsdm.nearest_label)):
        with pytest.raises(ValueError, match=name + ".*16383 voxels at most .* use backend='scipy'"):
            function(np.zeros((1, 16384), np.uint8), spatial_dims=2)
    long = np.zeros((16390, 2), np.uint8)
    long[3] = 1
    assert_nearest(fastsdm.nearest(long, spatial_dims=2), long, (1.0, 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_floats_follow_the_rule_of_signed_distance(backend) -> None:
    soft = np.random.default_rng(0).random((7, 8, 9), dtype=np.float32)
    indices = fastsdm.nearest(soft, backend=backend)
    np.testing.assert_array_equal(indices, fastsdm.nearest(soft > 0.5, backend=backend))
    labels = testing.shells((7, 8, 9), classes=3)
    resampled = labels.astype(np.float32) - np.float32(1e-4)  # as some resampling leaves them
    np.testing.assert_array_equal(
        fastsdm.nearest(resampled, classes=3, backend=backend),
        fastsdm.nearest(labels, classes=3, backend=backend),
    )
    filled = fastsdm.nearest_label(resampled, backend=backend)
    np.testing.assert_array_equal(filled, fastsdm.nearest_label(labels, backend=backend))
    assert filled.dtype == np.float32
    with pytest.raises(ValueError, match=r"target: float label maps must hold whole numbers, got 0\.5"):
        fastsdm.nearest(np.full((3, 4, 5), 0.5), classes=2, backend=backend)


def line(*inside: int) -> torch.Tensor:
    """A 2D mask of one row of nine voxels."""
    mask = torch.zeros(1, 1, 9, dtype=torch.bool)
    mask[0, 0, list(inside)] = True
    return mask


def test_ties_of_torch() -> None:
    """The line along the first axis comes before any other slice, then the lowest slice; so within it."""
    rows = torch.ones(1, 2, dtype=torch.float64)
    torch_backend = registry.get("torch")
    assert torch_backend.nearest(line(2, 6), (1,), rows, None)[0, 0, 1, 0, 4] == 2, "the lower of two"
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[0, 3, 1] = mask[0, 3, 5] = mask[0, 1, 3] = mask[0, 5, 3] = True
    assert torch_backend.nearest(mask, (1,), rows, None)[0, 0, :, 3, 3].tolist() == [1, 3]
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[0, 5, 2] = mask[0, 5, 4] = mask[0, 1, 4] = True
    assert torch_backend.nearest(mask, (1,), rows, None)[0, 0, :, 3, 3].tolist() == [1, 4], "the lower slice"


@pytest.mark.parametrize("function", [fastsdm.nearest, fastsdm.nearest_label, fastsdm.instance_distance])
def test_devices_that_nothing_else_runs_on(function) -> None:
    volumes = torch.zeros(2, 3, 4, 5, device="meta", dtype=torch.int32)
    found = function(volumes)
    assert found.device.type == "meta"
    assert found.shape == ((2, 3, 3, 4, 5) if function is fastsdm.nearest else volumes.shape)


def first_of_the_nearest(inside: np.ndarray, spacing) -> np.ndarray:
    """By brute force, the first of the nearest voxels in memory."""
    found = np.full((inside.ndim, *inside.shape), -1)
    for phase in (inside, ~inside):
        here, there = np.argwhere(phase), np.argwhere(~phase)
        steps = there[None] - here[:, None]
        squares = (steps**2 * np.square(spacing)).sum(axis=-1)
        found[(slice(None), *here.T)] = there[squares.argmin(axis=1)].T
    return found


@pytest.mark.parametrize("isa", _native_ext.isas())
@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 1), (1, 3, 1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_equally_near_voxels_the_documented_one(isa, spacing, axis) -> None:
    """In volumes that are longer than the words of near voxels reach, too: both forms go by the same rule."""
    shape = [6, 7, 5]
    shape[axis] = 50
    rng = np.random.default_rng(axis)
    dense, sparse = rng.random(shape) < 0.5, np.zeros(shape, bool)
    dense[(slice(None),) * axis + (slice(8, None),)] = False
    sparse[tuple(rng.integers(0, size, 4) for size in shape)] = True
    rows = torch.tensor([spacing], dtype=torch.float64)
    for mask in (dense, sparse, ~sparse):
        got = registry.get("native").nearest(torch.from_numpy(mask)[None], [None], rows, None, isa=isa)
        np.testing.assert_array_equal(got[0, 0], first_of_the_nearest(mask, spacing))


def test_results_that_are_larger_than_a_cache() -> None:
    """They are written past it, at the ends of its lines: three sizes, of which one has no even lines."""
    for shape in ((96, 192, 192), (95, 191, 193), (260, 128, 128)):
        mask = testing.blobs(shape, sigma=4)
        got = fastsdm.nearest(mask)
        assert got.nbytes > 1 << 25
        distances = np.sqrt(((got - np.indices(shape, np.int32)) ** 2).sum(axis=0)).astype(np.float32)
        np.testing.assert_array_equal(distances, abs(fastsdm.signed_distance(mask, convention="plain")))
        assert (mask[tuple(got)] != mask).all()
