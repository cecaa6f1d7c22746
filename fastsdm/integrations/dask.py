"""Signed distance maps of chunked label volumes that need not fit into memory, as dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import dask
import dask.array as da
import numpy as np
import torch

from fastsdm import _conventions, _validate
from fastsdm._backends.contract import Finish
from fastsdm._backends.native_axes import axis_order, relax_axis, scan_axis
from fastsdm._settings import spacing_rows
from fastsdm._types import Convention
from fastsdm.data import patch_halo, signed_distance_patch

__all__ = ["signed_distance"]

_DTYPES = ("float32", "float16", "float64")


def signed_distance(
    labels: da.Array,
    *,
    classes: int | Sequence[int] | None,
    spacing: float | Sequence[float] = 1.0,
    convention: Convention = "kervadec",
    max_distance: float | None = None,
    ignore_index: int | None = None,
    dtype: str = "float32",
) -> da.Array:
    """Compute the signed distance map of a chunked label volume, lazily, on any dask scheduler.

    With ``max_distance`` every chunk is computed from itself and the voxels around it that the limit reaches.
    Without it the map is exact all the same: the transform is separable (Saito and Toriwaki 1994,
    doi:10.1016/0031-3203(94)90133-3), so one pass per axis is made over chunks that are whole along that
    axis, with rechunking between. Either way it equals the map of the whole volume in memory.

    Args:
        labels: 2 or 3 axes, boolean or integer, chunks of any shape.
        classes: None for a mask (non-zero inside), K for the labels 0 to K-1, or the label values themselves.
        spacing: voxel size: one number or one per axis.
        convention: as in :func:`fastsdm.signed_distance`.
        max_distance: the map is clamped to it; a class that is absent reads ``max_distance``.
        ignore_index: as in :func:`fastsdm.signed_distance`.
        dtype: of the map: ``"float32"``, ``"float16"`` or ``"float64"``.

    Returns:
        ``[*S]`` for a mask, ``[K, *S]`` with ``classes``, in the labels' chunks and one class a chunk.
        Without ``max_distance`` an absent class reads ``inf``, and one that fills the volume ``-inf``.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
    """
    _check_labels(labels)
    values = None if classes is None else _validate.class_values(classes, torch.int64)
    row = _row(spacing, labels.ndim)
    _validate.convention(convention)
    _validate.max_distance(max_distance)
    _validate.choice("dtype", dtype, _DTYPES)
    if ignore_index is not None:
        ignore_index = _validate.integer("ignore_index", ignore_index)
    made = []
    each: list[int | None] = [None] if values is None else [*values]
    for value in each:
        if max_distance is None:
            finish = _conventions.finish(convention, "inf", (row,), labels.shape, None)
            made.append(_exact(labels, value, row, ignore_index, finish).astype(dtype))
        else:
            options = {
                "classes": None if value is None else [value],
                "spacing": row,
                "convention": convention,
                "max_distance": float(max_distance),
                "ignore_index": ignore_index,
                "dtype": dtype,
            }
            made.append(_limited(labels, options))
    return made[0] if values is None else da.stack(made)


def _limited(labels: da.Array, options: dict[str, Any]) -> da.Array:
    """The clamped map of one class: every chunk from a block that is larger by the halo."""
    halo = patch_halo(options["max_distance"], spacing=options["spacing"], convention=options["convention"])
    starts = [np.cumsum([0, *sizes]).tolist() for sizes in labels.chunks]
    make = dask.delayed(partial(_patch, **options), pure=True)
    blocks: Any = np.empty(labels.numblocks, dtype=object)
    for index in product(*map(range, labels.numblocks)):
        first = [starts[axis][i] for axis, i in enumerate(index)]
        size = tuple(labels.chunks[axis][i] for axis, i in enumerate(index))
        low = [max(a - margin, 0) for a, margin in zip(first, halo, strict=True)]
        high = [
            min(a + n + margin, whole)
            for a, n, margin, whole in zip(first, size, halo, labels.shape, strict=True)
        ]
        block = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        # As one chunk: the pieces are put together by the worker that computes the patch.
        inside = tuple(a - b for a, b in zip(first, low, strict=True))
        whole_block = block.rechunk(block.shape).to_delayed().item()
        blocks[index] = da.from_delayed(make(whole_block, inside, size), size, options["dtype"])
    return da.block(blocks.tolist())


def _patch(block: Any, start: Sequence[int], size: Sequence[int], **options: Any) -> Any:
    maps = signed_distance_patch(np.asarray(block), start, size, **options)
    return maps if options["classes"] is None else maps[0]


def _exact(
    labels: da.Array, value: int | None, row: tuple[float, ...], ignore_index: int | None, finish: Finish
) -> da.Array:
    """The map of one class by one pass per axis."""
    if ignore_index is None:
        masks = labels > 0 if value is None and labels.dtype.kind == "i" else labels
        return _passes(masks, None if value is None else [value], row, finish)
    # Of two maps, with the ignored voxels outside and inside, each is right in one of the phases.
    phases = labels.map_blocks(partial(_phases, value=value, ignore_index=ignore_index), dtype=np.uint8)
    outside = _passes(phases, [1], row, finish)
    inside = _passes(phases != 0, None, row, finish)
    return da.map_blocks(_chosen, phases, outside, inside, dtype=np.float32)


def _passes(labels: da.Array, values: list[int] | None, row: tuple[float, ...], finish: Finish) -> da.Array:
    order = axis_order(labels.shape)
    shape = tuple(labels.shape)
    squares = _whole_along(labels, order[0]).map_blocks(
        partial(_scan, values=values, axis=order[0]), dtype=np.float32
    )
    for axis in order[1:]:
        last = finish if axis == order[-1] else None
        squares = _whole_along(squares, axis).map_blocks(
            partial(_relax, axis=axis, shape=shape, spacing=row, finish=last), dtype=np.float32
        )
    return squares.rechunk(labels.chunks)


def _whole_along(array: da.Array, axis: int) -> da.Array:
    """Chunks that are whole along one axis, and no larger in bytes than they must be."""
    voxels = max(int(np.prod([max(sizes) for sizes in array.chunks])), array.shape[axis])
    return array.rechunk(
        {other: -1 if other == axis else "auto" for other in range(array.ndim)},
        block_size_limit=voxels * array.dtype.itemsize,
    )


def _scan(block: Any, *, values: list[int] | None, axis: int) -> Any:
    return scan_axis(np.asarray(block), values, axis)[0]


def _relax(block: Any, *, axis: int, shape: Any, spacing: Any, finish: Finish | None) -> Any:
    return relax_axis(np.asarray(block)[None], axis, shape, spacing, finish)[0]


def _phases(block: Any, *, value: int | None, ignore_index: int) -> Any:
    """0 outside, 1 inside, 2 ignored."""
    inside = block > 0 if value is None else block == value
    return np.where(block == ignore_index, 2, inside).astype(np.uint8)


def _chosen(phases: Any, outside: Any, inside: Any) -> Any:
    return np.where(phases == 2, 0, np.where(phases == 1, inside, outside)).astype(np.float32)


def _row(spacing: float | Sequence[float], ndim: int) -> tuple[float, ...]:
    rows = spacing_rows(spacing)
    if len(rows) != 1 or len(rows[0]) not in (1, ndim):
        raise ValueError(f"spacing: must be a number or {ndim} numbers, got {spacing!r}")
    row = rows[0] * (ndim // len(rows[0]))
    _validate.spacing_values(torch.tensor([row], dtype=torch.float64, device="cpu"))
    return row


def _check_labels(labels: object) -> None:
    if not isinstance(labels, da.Array):
        raise TypeError(
            f"labels: must be a dask array, got {type(labels).__name__}; fastsdm.signed_distance takes others"
        )
    if labels.ndim not in (2, 3):
        raise ValueError(f"labels: must have 2 or 3 axes, got shape {labels.shape}")
    if labels.dtype.kind not in "biu":
        raise TypeError(f"labels: must hold booleans or integers, got dtype {labels.dtype}")
    if any(np.isnan(sizes).any() for sizes in labels.chunks):
        raise ValueError(
            f"labels: must have chunks of known sizes, got {labels.chunks}; compute_chunk_sizes()"
        )
