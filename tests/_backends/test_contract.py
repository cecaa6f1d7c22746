"""One suite for every backend, against scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsdm import testing

CASES = {case.name: case for case in testing.hard_cases()}
# Below, at and above the widths of vectors, row blocks and column tiles, and a prime between them.
SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)


def assert_agrees(under_test, labels, classes, spacing) -> None:
    spacing = np.asarray(spacing, dtype=np.float64)
    maps = under_test.plain_map(labels, classes, spacing)
    truth = testing.reference_signed_distance(labels, classes, spacing)
    result = testing.agreement(maps, truth, spacing, under_test.tolerance)
    assert result.passed, f"{result} on {labels.shape}, spacing {spacing.tolist()}"


@pytest.mark.parametrize("name", CASES)
def test_hard_case(under_test, name) -> None:
    case = CASES[name]
    assert_agrees(under_test, case.labels, case.classes, case.spacing)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_along_every_axis(under_test, size, axis) -> None:
    shape = [5, 6, 7]
    shape[axis] = size
    for fraction in (0.3, 0.01):
        labels = testing.noise(shape, fraction=fraction, seed=size)[None]
        assert_agrees(under_test, labels, (1,), [(1.0, 1.0, 1.0)])
        assert_agrees(under_test, labels, (1,), [(1.3, 0.7, 2.1)])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1), (0, 4, 4), (4, 0, 3), (3, 5, 0), (0, 0)])
def test_degenerate_shapes(under_test, shape) -> None:
    labels = np.zeros((2, *shape), np.uint8)
    labels[1] = 1
    spacing = np.ones((2, len(shape)))
    maps = under_test.plain_map(labels, (1,), spacing)
    assert np.array_equal(maps, testing.reference_signed_distance(labels, (1,), spacing))


def test_no_samples_and_many(under_test) -> None:
    for batch in (0, 1, 5):
        labels = np.stack([testing.noise((4, 5, 6), seed=i) for i in range(5)])[:batch]
        assert_agrees(under_test, labels, (0, 1), np.ones((batch, 3)))


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
)
def test_every_label_dtype(under_test, dtype) -> None:
    labels = testing.shells((9, 10, 11), classes=3)
    if dtype == "bool":
        labels = labels > 1
    classes = (0, 1) if dtype == "bool" else (0, 1, 2)
    assert_agrees(under_test, labels.astype(dtype)[None], classes, [(1.0, 2.0, 1.0)])


def test_label_values_at_the_ends_of_the_dtype(under_test) -> None:
    for dtype in ("int8", "int16", "int64"):
        ends = np.iinfo(dtype)
        labels = np.where(testing.noise((6, 7, 8)), ends.max, ends.min).astype(dtype)[None]
        assert_agrees(under_test, labels, (int(ends.min), int(ends.max)), [(1.0, 1.0, 1.0)])


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
)
def test_a_mask_is_every_label_above_0(under_test, dtype) -> None:
    labels = testing.shells((1, 9, 10, 33), classes=4).astype(dtype)
    if dtype != "bool":
        ends = np.iinfo(dtype)
        labels[labels == 2] = ends.max
        labels[labels == 3] = ends.min  # 0, or negative and 0 when cut to half its bits
        labels[0, :, 4] = 0 if ends.min == 0 else -1
    maps = under_test.plain_map(labels, (None,), np.ones((1, 3)))
    assert np.array_equal(maps, under_test.plain_map(labels > 0, (1,), np.ones((1, 3))))


def test_labels_are_left_alone(under_test) -> None:
    labels = torch.from_numpy(testing.noise((1, 8, 9, 10)))
    before = labels.clone()
    under_test.plain_map(labels, (1,), np.ones((1, 3)))
    assert torch.equal(labels, before)


def test_torch_default_dtype_changes_nothing(under_test) -> None:
    labels = testing.noise((1, 8, 9, 10), fraction=0.1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert_agrees(under_test, labels, (1,), [(1.3, 0.7, 2.1)])
    finally:
        torch.set_default_dtype(before)


def test_integer_distances_are_bit_exact(under_test) -> None:
    if not under_test.backend.exact:
        pytest.skip("an approximate backend is held to its tolerance elsewhere")
    labels = testing.blobs((48, 50, 46), sigma=5)[None]
    truth = testing.reference_signed_distance(labels, (1,), np.ones((1, 3)))
    for step in (1.0, 0.5, 0.7):
        maps = under_test.plain_map(labels, (1,), np.full((1, 3), step))
        if step != 0.7:
            assert np.array_equal(maps, (truth * step).astype(np.float32))
        assert np.abs(maps / (truth * step) - 1).max() < 1.2e-7


@pytest.mark.parametrize("limit", [0.4, 1.0, 2.5, 7.0, 1000.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.7)])
def test_max_distance_changes_nothing_below_it(under_test, limit, spacing) -> None:
    spacing = np.array([spacing])
    for labels in (testing.blobs((24, 25, 70), sigma=3)[None], testing.one_voxel((24, 25, 70))[None]):
        maps = under_test.plain_map(labels, (1,), spacing, limit)
        assert np.isfinite(maps).all(), "beyond the limit a class that exists must read a finite value"
        truth = testing.reference_signed_distance(labels, (1,), spacing)
        result = testing.agreement(
            np.clip(maps, -limit, limit), np.clip(truth, -limit, limit), spacing, under_test.tolerance
        )
        assert result.passed, result


def test_max_distance_keeps_empty_and_full_classes_infinite(under_test) -> None:
    labels = np.full((1, 9, 10, 11), 3, np.uint8)
    maps = under_test.plain_map(labels, (2, 3), np.ones((1, 3)), 4.0)
    assert (maps[0, 0] == np.inf).all()
    assert (maps[0, 1] == -np.inf).all()


def test_large_spacing_ratio_and_large_distances(under_test) -> None:
    labels = testing.one_voxel((3, 300, 2))[None]
    assert_agrees(under_test, labels, (0, 1), [(100.0, 0.01, 50.0)])
    assert_agrees(under_test, labels, (0, 1), [(1e-3, 1e3, 1.0)])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_volumes(under_test, data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(st.lists(st.integers(1, 12), min_size=ndim, max_size=ndim))
    batch = data.draw(st.integers(1, 3))
    seed = data.draw(st.integers(0, 2**31))
    density = data.draw(st.sampled_from([0.02, 0.1, 0.5, 0.9]))
    steps = st.floats(0.1, 10.0)
    spacing = [[data.draw(steps) for _ in range(ndim)] for _ in range(batch)]
    rng = np.random.default_rng(seed)
    labels = (rng.random((batch, *shape)) < density) * rng.integers(1, 3, (batch, *shape))
    assert_agrees(under_test, labels, (0, 1, 2), spacing)
