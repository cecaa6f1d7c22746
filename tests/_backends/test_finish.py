"""What `native` finishes in its last pass is, bit for bit, what is made of a plain map afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsdm import _conventions, testing
from fastsdm._backends import registry
from fastsdm._backends.contract import PLAIN, finishing, spacing_rows

native: Any = registry.get("native")


def isas() -> list[str]:
    from fastsdm._backends import _native_ext  # noqa: PLC0415  # not built everywhere

    return _native_ext.isas()


def finished(labels, classes, spacing, how, limit=None, start=None, size=None, **options):
    shape = labels.shape[1:]
    start, size = start or [0] * len(shape), size or shape
    rows = spacing_rows(spacing)
    return native.finished_region(labels, classes, rows, limit, how, start, size, torch.float32, **options)


def cropped(maps, start, size):
    return maps[(..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))]


def test_native_finishes_and_scipy_does_not() -> None:
    assert finishing(native) is native
    assert finishing(registry.get("scipy")) is None


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_finished_region_is_the_crop_of_the_finished_map(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(st.lists(st.sampled_from([1, 5, 8, 17, 40, 70]), min_size=ndim, max_size=ndim))
    start = [data.draw(st.integers(0, whole - 1)) for whole in shape]
    size = [data.draw(st.integers(1, whole - first)) for first, whole in zip(start, shape, strict=True)]
    if data.draw(st.booleans()):
        start, size = [0] * ndim, shape
    fraction = data.draw(st.sampled_from([0.0, 0.0005, 0.01, 0.3, 1.0]))
    labels = torch.from_numpy(
        np.stack([testing.noise(shape, fraction=fraction, seed=seed) for seed in (1, 2)])
    )
    labels = labels.to(data.draw(st.sampled_from([torch.uint8, torch.int32, torch.int64])))
    classes = data.draw(st.sampled_from([(1,), (0, 1, 5)]))
    spacing = torch.tensor(
        data.draw(st.sampled_from([[[1.0] * ndim, [2.0] * ndim], [[1.3, 0.7, 2.1][:ndim]] * 2]))
    )
    convention = data.draw(st.sampled_from(["kervadec", "kervadec-literal", "plain", "midline"]))
    empty = data.draw(st.sampled_from(["inf", "zero", "max"]))
    limit = data.draw(st.sampled_from([None, 0.4, 1.0, 6.5]))
    options = {"threads": data.draw(st.sampled_from([1, 3])), "isa": data.draw(st.sampled_from(isas()))}

    reach = _conventions.search_limit(convention, spacing_rows(spacing), limit)
    how = _conventions.finish(convention, empty, spacing_rows(spacing), shape, limit)
    plain = finished(labels, classes, spacing, PLAIN, reach, **options)
    got = finished(labels, classes, spacing, how, reach, start, size, **options)
    assert got.is_contiguous()
    np.testing.assert_array_equal(got, cropped(_conventions.apply_(plain, how), start, size))


def test_distances_beyond_16_bit_lanes() -> None:
    """One voxel, more than 181 steps away along both axes that are searched."""
    labels = torch.zeros(1, 400, 420, 3, dtype=torch.uint8)
    labels[0, 5, 7, 1] = 1
    unit = torch.ones(1, 3, dtype=torch.float64)
    how = _conventions.finish("midline", "inf", spacing_rows(unit), labels.shape[1:], None)
    whole = _conventions.apply_(native.signed_distance(labels, (1,), unit, None), how)
    for start, size in (((300, 310, 0), (50, 60, 3)), ((0, 310, 1), (10, 60, 1)), ((300, 0, 0), (60, 30, 2))):
        got = finished(labels, (1,), unit, how, None, start, size)
        np.testing.assert_array_equal(got, cropped(whole, start, size))


def test_regions_too_large_to_be_made_together() -> None:
    """Three maps, each with a field of 5.8 million voxels."""
    labels = torch.from_numpy(testing.shells((200, 180, 172), classes=3, thickness=20))[None]
    unit = torch.ones(1, 3, dtype=torch.float64)
    how = _conventions.finish("kervadec", "inf", spacing_rows(unit), labels.shape[1:], None)
    start, size = (100, 3, 1), (8, 170, 170)
    got = finished(labels, (0, 1, 2), unit, how, None, start, size)
    assert torch.equal(got, cropped(finished(labels, (0, 1, 2), unit, how), start, size))


def test_empty_region() -> None:
    labels, unit = torch.ones(2, 4, 5, 6, dtype=torch.uint8), torch.ones(2, 3, dtype=torch.float64)
    how = _conventions.finish("plain", "inf", spacing_rows(unit), labels.shape[1:], None)
    assert finished(labels, (1,), unit, how, None, (1, 2, 3), (2, 0, 3)).shape == (2, 1, 2, 0, 3)


@pytest.mark.parametrize(("start", "size"), [((0, 0, 1), (4, 5, 6)), ((-1, 0, 0), (2, 2, 2))])
def test_region_outside_the_volume(start, size) -> None:
    labels, unit = torch.ones(1, 4, 5, 6, dtype=torch.uint8), torch.ones(1, 3, dtype=torch.float64)
    how = _conventions.finish("plain", "inf", spacing_rows(unit), labels.shape[1:], None)
    with pytest.raises(ValueError, match="shapes must agree"):
        finished(labels, (1,), unit, how, None, start, size)
