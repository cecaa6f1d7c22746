"""Signed distance maps of chunked label volumes that need not fit into memory, as dask arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.graph_manipulation import clone

from fastsdm import _conventions, _files, _validate
from fastsdm._settings import MapSettings
from fastsdm._types import Convention
from fastsdm.data._patch_map import patch_block, patch_halo, signed_distance_patch
from fastsdm.integrations._passes import ClassPasses, cut

__all__ = ["signed_distance"]

#: Blocks of the exact map hold about so many voxels, or as many as a chunk of the labels.
_BLOCK = 1 << 22
#: An intermediate step of a rechunk would copy all squares once more.
_DIRECT = 10**6


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
    Without it the map is exact, too: the transform is separable (Saito and Toriwaki 1994,
    doi:10.1016/0031-3203(94)90133-3), so passes are made over blocks that are whole along the axes of the
    pass, with rechunking between. Either way it equals the map of the whole volume in memory:
    bit for bit at equal spacing along all axes, else within float32 rounding.

    The exact map holds the squares of a class, 4 bytes a voxel, on all workers together. Classes are
    computed in turn where the first tasks of the graph read ``labels`` (``da.from_zarr``, or ``map_blocks``
    without an array); labels that are computed serve all classes at once.

    Args:
        labels: 2 or 3 axes, boolean or integer, chunks of any shape.
        classes: None for a mask (inside above 0), K for the labels 0 to K-1, or the label values themselves.
        spacing: voxel size: one number or one per axis.
        convention: as in :func:`fastsdm.signed_distance`.
        max_distance: the map is clamped to ``[-max_distance, max_distance]``, in the units of ``spacing``.
        ignore_index: as in :func:`fastsdm.signed_distance`.
        dtype: of the map: ``"float32"``, ``"float16"`` or ``"float64"``.

    Returns:
        ``[*S]`` for a mask, ``[K, *S]`` with ``classes``, in the labels' chunks and one class a chunk.
        The map of an absent class is ``inf``, or ``max_distance``; that of a class that fills the volume is
        ``-inf``, or ``-max_distance``.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
    """
    _check_labels(labels)
    settings = MapSettings.checked(
        {
            "classes": classes,
            "spacing": spacing,
            "convention": convention,
            "max_distance": max_distance,
            "ignore_index": ignore_index,
        }
    )
    row = _row(settings, spacing, labels.ndim)
    _validate.choice("dtype", dtype, _files.DTYPES)
    made = []
    values: Sequence[int | None] = settings.classes or [None]
    for value in values:
        if settings.max_distance is None:
            finish = _conventions.finish(convention, "inf", (row,), labels.shape, None)
            passes = ClassPasses(labels.shape, row, value, settings.ignore_index, finish)
            made.append(_exact(_own(labels, value) if len(values) > 1 else labels, passes, dtype))
        else:
            options = {
                "classes": None if value is None else [value],
                "spacing": row,
                "convention": convention,
                "max_distance": settings.max_distance,
                "ignore_index": settings.ignore_index,
                "dtype": dtype,
            }
            made.append(_limited(labels, options))
    return made[0] if classes is None else da.stack(made)


def _limited(labels: da.Array, options: dict[str, Any]) -> da.Array:
    """The clamped map of one class: every chunk from a block that is larger by the halo."""
    halo = patch_halo(options["max_distance"], spacing=options["spacing"], convention=options["convention"])
    starts = [np.cumsum([0, *sizes]).tolist() for sizes in labels.chunks]
    make = dask.delayed(partial(_patch, **options), pure=True)
    blocks: Any = np.empty(labels.numblocks, dtype=object)
    for index in product(*map(range, labels.numblocks)):
        first = [starts[axis][i] for axis, i in enumerate(index)]
        size = tuple(labels.chunks[axis][i] for axis, i in enumerate(index))
        place = patch_block(first, size, halo, labels.shape)
        # As one chunk: the pieces are put together by the worker that computes the patch.
        block = labels[place.slices].rechunk(place.shape).to_delayed().item()
        blocks[index] = da.from_delayed(make(block, place.offset, size), size, options["dtype"])
    return da.block(blocks.tolist())


def _patch(block: Any, start: Sequence[int], size: Sequence[int], **options: Any) -> Any:
    maps = signed_distance_patch(np.asarray(block), start, size, **options)
    return maps if options["classes"] is None else maps[0]


def _own(labels: da.Array, value: int | None) -> da.Array:
    """The labels under keys of their own, where they are only read.

    A scheduler computes together what shares a task, and would hold the squares of all classes at once.
    """
    is_read = len(labels.dask.layers) <= 2
    return clone(labels, seed=value) if is_read else labels


def _exact(labels: da.Array, passes: ClassPasses, dtype: str) -> da.Array:
    """The map of one class by passes over blocks that are whole along the axes of the pass."""
    most = max(math.prod(max(sizes, default=0) for sizes in labels.chunks), _BLOCK)
    first, *others = passes.groups()
    blocks = cut(labels.chunks, first, most)
    squares = labels.rechunk(blocks).map_blocks(
        passes.squares, first, dtype=np.float32, chunks=((passes.fields,), *blocks), new_axis=0
    )
    for (axis,) in others[:-1]:
        blocks = cut(labels.chunks, (axis,), most)
        squares = squares.rechunk({0: -1, **dict(enumerate(blocks, 1))}, threshold=_DIRECT)
        squares = squares.map_blocks(passes.relaxed, axis, dtype=np.float32)
    ((axis,),) = others[-1:]
    blocks = cut(labels.chunks, (axis,), most)
    squares = squares.rechunk({0: -1, **dict(enumerate(blocks, 1))}, threshold=_DIRECT)
    pieces = None if passes.ignore_index is None else labels.rechunk(blocks)
    maps = da.map_blocks(
        passes.distances, squares, axis, pieces, np.dtype(dtype), dtype=dtype, chunks=blocks, drop_axis=0
    )
    return maps.rechunk(labels.chunks)


def _row(settings: MapSettings, spacing: object, ndim: int) -> tuple[float, ...]:
    rows = settings.spacing or ()
    if len(rows) != 1 or len(rows[0]) not in (1, ndim):
        raise ValueError(f"spacing: must be a number or {ndim} numbers, got {spacing!r}")
    return rows[0] * (ndim // len(rows[0]))


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
