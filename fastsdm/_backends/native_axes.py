"""The C++ kernel one axis at a time, for volumes that do not fit into memory.

A map takes one pass per axis. A pass searches along its own axis only, so a block must be whole along that
axis and may be small along the others. Between two passes the volume is cut into other blocks. The passes of
a volume are::

    order = axis_order(shape)                                     # of the whole volume
    squares = scan_axis(labels, classes, order[0])                # blocks whole along order[0]
    for axis in order[1:-1]:
        squares = relax_axis(squares, axis, shape, spacing)       # blocks whole along `axis`
    maps = relax_axis(squares, order[-1], shape, spacing, finish)  # blocks whole along order[-1]

The result equals the map of the whole volume bit for bit: the arithmetic of a voxel depends on its row, its
column and the order of the axes, not on the blocks. The search has no limit; ``finish.limit`` clamps the
result. With ``dask`` each line is a ``map_blocks`` after a ``rechunk``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from fastsdm._arrays import tensor_from_numpy
from fastsdm._backends.contract import Classes, Finish
from fastsdm._backends.native import pattern

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def axis_order(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of a volume in the order of their passes, the scanned axis first.

    Args:
        shape: shape of the whole volume, 2 or 3 sizes.

    Returns:
        At least two axes. Axes of size 1 need no pass and are left out, unless fewer than two axes remain.
    """
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    for axis in reversed(range(len(shape))):
        if len(axes) < 2 and axis not in axes:
            axes.insert(0, axis)
    return (axes[-1], *axes[-2:0:-1], axes[0])


def scan_axis(
    labels: Array,
    classes: Classes,
    axis: int,
    *,
    threads: int | None = None,
    isa: str | None = None,
) -> Array:
    """Compute the signed squared distance to the other phase along one axis, from labels.

    Args:
        labels: block ``[*S]`` of an integer or bool volume, whole along ``axis``.
        classes: see :data:`fastsdm._backends.contract.Classes`.
        axis: ``axis_order(shape)[0]``.
        threads: how many to use at most; None for ``torch.get_num_threads()``.
        isa: instruction set; None for the best this CPU has.

    Returns:
        ``[K, *S]`` float32: squares in units of this axis' spacing, positive outside, negative inside,
        infinite in rows without a voxel of the other phase.
    """
    from fastsdm._backends import _native_ext  # noqa: PLC0415 (it may not have been built)

    tensor = tensor_from_numpy(labels, "labels").movedim(axis, -1).contiguous()
    squares = np.empty((len(classes), *tensor.shape), np.float32)
    rows = tensor.numpy().reshape(-1, tensor.shape[-1])
    for value, of_class in zip(classes, squares, strict=True):
        labels_of_class = pattern(value, tensor.dtype)
        _native_ext.scan_rows(rows, labels_of_class, of_class, threads=_threads(threads), isa=isa)
    return np.ascontiguousarray(np.moveaxis(squares, -1, axis + 1))


def relax_axis(
    squares: Array,
    axis: int,
    shape: Sequence[int],
    spacing: Sequence[float],
    finish: Finish | None = None,
    *,
    threads: int | None = None,
    isa: str | None = None,
) -> Array:
    """Include one more axis in the signed squares; with ``finish``, return the signed distance map.

    Args:
        squares: block ``[K, *S]`` of the previous pass' result, whole along ``axis``; it is not changed.
        axis: spatial axis, counted without K.
        shape: shape of the whole volume.
        spacing: voxel size, one number per axis.
        finish: for the last axis of ``axis_order(shape)``: shift, empty classes and clamp, of one sample.
        threads: as in :func:`scan_axis`.
        isa: as in :func:`scan_axis`.

    Returns:
        ``[K, *S]`` float32: signed squares, or distances in the units of ``spacing``.
    """
    from fastsdm._backends import _native_ext  # noqa: PLC0415 (it may not have been built)

    order = axis_order(shape)
    unit = spacing[order[0]]
    steps = {a: (spacing[a] / unit) ** 2 if shape[a] > 1 else 1.0 for a in order[1:]}
    so_far = [steps[a] for a in order[1 : order.index(axis)]]
    result = np.array(squares, np.float32, order="C")
    missing = [_missing_phase(of_class, axis) for of_class in result] if finish is not None else []
    last = None
    if finish is not None:
        shift = finish.shifts[0]
        last = (unit, shift if finish.both_sides else 0.0, shift, finish.limit)
    inner = math.prod(result.shape[axis + 2 :])
    columns = result.reshape(-1, result.shape[axis + 1], inner) if result.size else result.reshape(0, 1, 1)
    _native_ext.relax_axis(
        columns, steps[axis], all(map(float.is_integer, so_far)), last, threads=_threads(threads), isa=isa
    )
    for sign, of_class in zip(missing, result, strict=False):
        if finish is not None and sign:
            of_class[...] = sign * min(finish.missing[0], finish.limit)
    return result


def _missing_phase(squares: Array, axis: int) -> int:
    """Return 1 for a volume without inside voxels, -1 without outside voxels, else 0.

    Before the last pass any one column tells.
    """
    if squares.size == 0:
        return 0
    column = np.moveaxis(squares, axis, -1).reshape(-1, squares.shape[axis])[0]
    if not np.isinf(column).all():
        return 0
    return int(column[0] > 0) - int(column[0] < 0) if (column == column[0]).all() else 0


def _threads(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else threads
