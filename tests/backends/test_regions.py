"""A region's map is the crop of the whole one, bit for bit, whatever is skipped on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsdm import registry, testing
from fastsdm._types import RegionBackend

NATIVE = registry.get("native")


def isas() -> list[str]:
    from fastsdm.backends import _native_ext  # noqa: PLC0415  # not built everywhere

    return _native_ext.isas()


def cropped(maps, start, size):
    return maps[(..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))]


def test_native_computes_regions() -> None:
    assert isinstance(NATIVE, RegionBackend)
    assert not isinstance(registry.get("scipy"), RegionBackend)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_region_is_the_crop(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(st.lists(st.sampled_from([1, 5, 8, 17, 40, 70]), min_size=ndim, max_size=ndim))
    start = [data.draw(st.integers(0, whole - 1)) for whole in shape]
    size = [data.draw(st.integers(1, whole - first)) for first, whole in zip(start, shape, strict=True)]
    fraction = data.draw(st.sampled_from([0.0, 0.0005, 0.01, 0.3, 1.0]))
    labels = np.stack([testing.noise(shape, fraction=fraction, seed=seed) for seed in (1, 2)])
    arguments = (
        torch.from_numpy(labels.astype(data.draw(st.sampled_from(["uint8", "int32", "int64"])))),
        data.draw(st.sampled_from([(1,), (0, 1, 5)])),
        torch.tensor(
            data.draw(st.sampled_from([[[1.0] * ndim, [2.0] * ndim], [[1.3, 0.7, 2.1][:ndim]] * 2]))
        ),
        data.draw(st.sampled_from([None, 1.0, 6.5])),
    )
    options = {"threads": data.draw(st.sampled_from([1, 3])), "isa": data.draw(st.sampled_from(isas()))}
    whole = NATIVE.signed_distance(*arguments, **options)
    region = NATIVE.signed_distance_region(*arguments, start, size, **options)
    assert region.is_contiguous()
    np.testing.assert_array_equal(region, cropped(whole, start, size))


def test_distances_beyond_16_bit_lanes() -> None:
    """One voxel, more than 181 steps away along both axes that are searched."""
    labels = torch.zeros(1, 400, 420, 3, dtype=torch.uint8)
    labels[0, 5, 7, 1] = 1
    arguments = (labels, (1,), torch.ones(1, 3), None)
    for start, size in (((300, 310, 0), (50, 60, 3)), ((0, 310, 1), (10, 60, 1)), ((300, 0, 0), (60, 30, 2))):
        got = NATIVE.signed_distance_region(*arguments, start, size)
        np.testing.assert_array_equal(got, cropped(NATIVE.signed_distance(*arguments), start, size))


def test_empty_region() -> None:
    labels = torch.ones(2, 4, 5, 6, dtype=torch.uint8)
    got = NATIVE.signed_distance_region(labels, (1,), torch.ones(2, 3), None, (1, 2, 3), (2, 0, 3))
    assert got.shape == (2, 1, 2, 0, 3)


@pytest.mark.parametrize(("start", "size"), [((0, 0, 1), (4, 5, 6)), ((-1, 0, 0), (2, 2, 2))])
def test_region_outside_the_volume(start, size) -> None:
    labels = torch.ones(1, 4, 5, 6, dtype=torch.uint8)
    with pytest.raises(ValueError, match="shapes must agree"):
        NATIVE.signed_distance_region(labels, (1,), torch.ones(1, 3), None, start, size)
