"""One pass per axis over blocks gives, bit for bit, the map of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsdm import _conventions, testing
from fastsdm._backends import _native_ext
from fastsdm._backends.native import BACKEND
from fastsdm._backends.native_axes import axis_order, relax_axis, scan_axis


def in_blocks(function, volume, axis, block, leading=0):
    """``function`` of blocks that are whole along ``axis`` and at most ``block`` voxels long elsewhere."""
    shape = volume.shape[leading:]
    steps = [size if a == axis else block for a, size in enumerate(shape)]
    result = None
    for index in np.ndindex(*(-(-size // step) for size, step in zip(shape, steps, strict=True))):
        part = tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, steps, strict=True))
        got = function(volume[(slice(None),) * leading + part])
        if result is None:
            result = np.full((got.shape[0], *shape), np.nan, np.float32)
        result[(slice(None), *part)] = got
    return result


def axis_by_axis(labels, classes, spacing, how, block, isa):
    shape = labels.shape
    order = axis_order(shape)
    field = in_blocks(lambda part: scan_axis(part, classes, order[0], isa=isa), labels, order[0], block)
    for axis in order[1:]:
        last = how if axis == order[-1] else None

        def relax(part, axis=axis, last=last):
            return relax_axis(part, axis, shape, spacing, last, threads=1, isa=isa)

        field = in_blocks(relax, field, axis, block, leading=1)
    return field


def at_once(labels, classes, spacing, how):
    whole = [0] * labels.ndim, labels.shape
    maps = BACKEND.finished_region(
        torch.from_numpy(labels)[None], classes, (tuple(spacing),), None, how, *whole, torch.float32
    )
    return maps[0].numpy()


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_blocks_equal_the_whole_volume(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    sizes = st.sampled_from([1, 1, 2, 5, 8, 17, 40, 70])
    shape = data.draw(st.lists(sizes, min_size=ndim, max_size=ndim))
    fraction = data.draw(st.sampled_from([0.0, 0.0005, 0.01, 0.3, 1.0]))
    labels = testing.noise(shape, fraction=fraction, seed=data.draw(st.integers(0, 100)))
    if data.draw(st.booleans()):  # single-phase slabs of either phase: infinite columns, but no phase missing
        labels[: shape[0] // 2] = data.draw(st.sampled_from([0, 1]))
    spacing = data.draw(
        st.sampled_from([(1.0, 1.0, 1.0), (2.0, 3.0, 1.0), (1.3, 0.7, 2.1), (0.7, 2.0, 1.0)])
    )[:ndim]
    convention = data.draw(st.sampled_from(["kervadec", "plain", "midline"]))
    empty = data.draw(st.sampled_from(["inf", "zero", "max"]))
    limit = data.draw(st.sampled_from([None, 4.0]))
    classes = data.draw(st.sampled_from([(None,), (1,), (0, 1, 300)]))
    how = _conventions.finish(convention, empty, (spacing,), shape, limit)
    got = axis_by_axis(
        labels, classes, spacing, how, data.draw(st.sampled_from([1, 3, 8, 100])),
        data.draw(st.sampled_from(_native_ext.isas())),
    )  # fmt: skip
    np.testing.assert_array_equal(got, at_once(labels, classes, spacing, how))


def test_distances_beyond_16_bit_lanes() -> None:
    labels = np.zeros((400, 3, 420), np.int32)
    labels[5, 1, 7] = 9
    how = _conventions.finish("plain", "inf", ((1.0, 1.0, 1.0),), labels.shape, None)
    got = axis_by_axis(labels, (9,), (1.0, 1.0, 1.0), how, 100, None)
    np.testing.assert_array_equal(got, at_once(labels, (9,), (1.0, 1.0, 1.0), how))


@pytest.mark.parametrize(
    ("shape", "order"),
    [((4, 5, 6), (2, 1, 0)), ((4, 1, 6), (2, 0)), ((4, 5, 1), (1, 0)), ((4, 6), (1, 0)), ((1, 6), (1, 0)),
     ((4, 1), (0, 1)), ((1, 1, 1), (2, 1)), ((5, 1, 1), (0, 2))],
)  # fmt: skip
def test_order_of_the_axes(shape, order) -> None:
    assert axis_order(shape) == order


def test_blocks_are_left_alone() -> None:
    labels = testing.noise((4, 5, 6))
    field = scan_axis(labels, (1,), 2)
    before = field.copy()
    relax_axis(field, 1, labels.shape, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(field, before)


def test_the_extension_refuses_sizes_that_disagree() -> None:
    with pytest.raises(ValueError, match="sizes must agree"):
        _native_ext.scan_rows(np.zeros((3, 4), np.uint8), None, np.zeros((3, 5), np.float32), threads=1)
