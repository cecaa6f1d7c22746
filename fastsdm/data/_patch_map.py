"""True distances on patches: the map of a piece of a volume, from the piece and the voxels around it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict

import numpy as np
import torch

from fastsdm import _conventions, _validate
from fastsdm._arrays import as_tensor
from fastsdm._backends.contract import spacing_rows
from fastsdm._sdm import signed_distance_region
from fastsdm._settings import check_options
from fastsdm._types import Convention, SpacingLike

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ArraySource(Protocol):
    """Gives a torch tensor or a numpy array for a tuple of slices: an array, a memory map, an open file."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of the axes."""

    def __getitem__(self, index: Any, /) -> Any:
        """The block that a tuple of slices cuts out."""


class PatchMapOptions(TypedDict, total=False):
    """Settings of the map of a patch, as :func:`fastsdm.signed_distance` takes them."""

    spacing: SpacingLike
    convention: Convention
    ignore_index: int | None
    dtype: object
    backend: str


#: One row of whole numbers, or one per patch.
Starts: TypeAlias = "Sequence[int] | Sequence[Sequence[int]] | np.ndarray[Any, Any] | torch.Tensor"


def signed_distance_patch(
    labels: ArraySource | Sequence[ArraySource],
    start: Starts,
    size: Sequence[int],
    *,
    classes: int | Sequence[int] | None,
    max_distance: float,
    **options: Unpack[PatchMapOptions],
) -> Any:
    """Compute exactly the crop of the whole volume's clamped signed distance map from the patch and a halo.

    Equals the patch cut out of ``signed_distance(labels, ..., empty="max")`` of the whole volume, with the
    same ``classes``, ``spacing``, ``convention`` and ``max_distance``. Only the patch and the voxels around
    it that ``max_distance`` reaches are read (:func:`patch_halo` tells how many), fewer at the volume's
    edges. The map of a class is ``+max_distance`` where they hold no voxel of it, and ``-max_distance`` where
    they hold nothing else. At equal spacing along all axes the two are the same bit for bit, else within
    float32 rounding.

    Args:
        labels: one volume ``[*S]`` that all patches are taken from; or one volume per patch, as an array
            ``[N, *S]`` or as a sequence of N arrays, which may differ in shape. A mask or labels, as in
            :func:`fastsdm.signed_distance`: torch tensors on any device, numpy arrays, memory maps, and
            other objects that have a ``shape`` and give an array for a tuple of slices.
        start: index of the patch's first voxel, ``[ndim]``; or one row per patch, ``[N, ndim]``.
        size: shape of the patch, 2 or 3 numbers. The patch must lie inside the volume.
        classes: None for a mask, K for the labels 0 to K-1, or the label values themselves.
        max_distance: the map is clamped to ``[-max_distance, max_distance]``; in the units of ``spacing``.
        options: ``convention``, ``ignore_index``, ``dtype`` and ``backend`` of
            :func:`fastsdm.signed_distance`, and ``spacing``: voxel size, a number, one per spatial axis, or
            one such row per patch.

    Returns:
        ``[*size]`` for a mask, ``[K, *size]`` with ``classes``; ``[N, ...]`` where ``start`` has rows. Kind
        and device are those of the blocks that ``labels`` gives.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range, such as a patch that reaches out of its volume.
        BackendUnavailableError: the backend asked for cannot run, with the reason and the fix.
    """
    check_options(signed_distance_patch, options, PatchMapOptions)
    spacing = options.get("spacing", 1.0)
    convention = options.get("convention", "kervadec")
    size = checked_patch_size(size)
    starts = _start_rows(start, len(size))
    is_single = np.ndim(start) == 1
    volumes = _volume_of_each_patch(labels, len(starts), len(size))
    rows = _validate.spacing_rows(spacing, () if is_single else (len(starts),), len(size)).tolist()
    blocks = [
        patch_block(first, size, patch_halo(max_distance, spacing=row, convention=convention), volume.shape)
        for first, row, volume in zip(starts, rows, volumes, strict=True)
    ]

    # Patches whose blocks have one shape make one batch: all of them, but for those at a volume's edge.
    alike: dict[PatchBlock, list[int]] = defaultdict(list)
    for i, block in enumerate(blocks):
        alike[block.moved_to_origin()].append(i)
    maps: list[Any] = [None] * len(blocks)
    for members in alike.values():
        parts, restores = zip(
            *(as_tensor(volumes[i].read(blocks[i].slices), "labels") for i in members), strict=True
        )
        options["spacing"] = [rows[i] for i in members]
        batch = signed_distance_region(
            _stacked(parts),
            blocks[members[0]].offset,
            size,
            classes=classes,
            max_distance=max_distance,
            **options,
        )
        if len(members) == len(blocks):
            return restores[0](batch[0] if is_single else batch)
        for i, patch_map in zip(members, batch, strict=True):
            maps[i] = patch_map
    return restores[0](torch.stack(maps))


def patch_halo(
    max_distance: float, *, spacing: Sequence[float], convention: Convention = "kervadec"
) -> tuple[int, ...]:
    """Return how many voxels around a patch, along each axis, its map clamped to ``max_distance`` depends on.

    Args:
        max_distance: what the map is clamped to, in the units of ``spacing``.
        spacing: voxel size along each axis.
        convention: as in :func:`fastsdm.signed_distance`; a shifted distance reaches further by the shift.

    Returns:
        One number per axis.

    Raises:
        TypeError: ``max_distance`` or ``spacing`` is not a number.
        ValueError: one of the arguments is out of its range, or ``spacing`` is not one row.
    """
    if max_distance is None:
        raise TypeError("max_distance: must be a number (it bounds the halo), got None")
    _validate.max_distance(max_distance)
    _validate.convention(convention)
    row = _validate.spacing_tensor(spacing)
    if row.ndim != 1 or len(row) == 0:
        raise ValueError(f"spacing: must be one number per spatial axis, got {spacing!r}")
    row = row.unsqueeze(0)
    _validate.spacing_values(row)
    limit = _conventions.search_limit(convention, spacing_rows(row), max_distance)
    assert limit is not None
    # Include voxels at exactly the limit: their rounded distance may fall on either side of it.
    return tuple(math.floor(limit / step * (1 + 1e-6)) for step in row[0].tolist())


@dataclass(frozen=True)
class _Part:
    """One volume: a source, or one entry along the first axis of a source."""

    source: ArraySource
    shape: tuple[int, ...]
    entry: tuple[int, ...] = ()

    def read(self, block: tuple[slice, ...]) -> Any:
        return self.source[(*self.entry, *block)]


@dataclass(frozen=True)
class PatchBlock:
    """What is read for a patch, in the volume's indices, and where the patch lies in it."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    offset: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.shape, strict=True))

    def moved_to_origin(self) -> PatchBlock:
        return replace(self, start=(0,) * len(self.start))


def patch_block(
    start: Sequence[int], size: Sequence[int], halo: Sequence[int], shape: Sequence[int]
) -> PatchBlock:
    """The block of a patch in a volume of that shape; ValueError unless the patch lies inside."""
    if any(not 0 <= first <= whole - n for first, n, whole in zip(start, size, shape, strict=True)):
        raise ValueError(
            f"start: the patch must lie inside its volume of shape {tuple(shape)}, "
            f"got start {tuple(start)} for size {tuple(size)}"
        )
    low = tuple(max(first - margin, 0) for first, margin in zip(start, halo, strict=True))
    high = [min(a + n + margin, whole) for a, n, margin, whole in zip(start, size, halo, shape, strict=True)]
    extent = tuple(b - a for a, b in zip(low, high, strict=True))
    return PatchBlock(low, extent, tuple(a - b for a, b in zip(start, low, strict=True)))


def _stacked(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    if blocks[0].device.type != "cpu" or blocks[0].is_floating_point():
        return torch.stack(tuple(blocks))
    # numpy asks for huge pages, so the first touch of the copy costs a fraction of what it does in torch.
    return torch.from_numpy(np.stack([block.numpy() for block in blocks]))


def _start_rows(start: Starts, ndim: int) -> list[list[int]]:
    rows = _validate.integers("start", start)
    if rows.ndim not in (1, 2) or rows.size == 0 or rows.shape[-1] != ndim:
        raise ValueError(
            f"start: must be {ndim} indices (as many as size has), or one such row per patch; "
            f"got shape {rows.shape}"
        )
    listed: list[list[int]] = np.atleast_2d(rows).tolist()
    return listed


def checked_patch_size(size: Sequence[int]) -> tuple[int, ...]:
    """The shape of a patch; TypeError or ValueError unless it is 2 or 3 positive integers."""
    row = _validate.integers("size", size)
    if row.shape not in ((2,), (3,)) or row.min() < 1:
        raise ValueError(f"size: must be 2 or 3 positive numbers, got {size!r}")
    return tuple(row.tolist())


def shape_of(name: str, source: ArraySource) -> tuple[int, ...]:
    """The shape of a volume; TypeError for what has none, such as a nested list or a file's name."""
    if not hasattr(source, "shape"):
        raise TypeError(
            f"{name}: must be arrays, or objects that have a shape and give a block for a tuple of slices; "
            f"got {type(source).__name__}"
        )
    return tuple(source.shape)


def _volume_of_each_patch(labels: ArraySource | Sequence[ArraySource], count: int, ndim: int) -> list[_Part]:
    if isinstance(labels, Sequence):
        volumes = [_Part(source, shape_of("labels", source)) for source in labels]
    elif len(shape := shape_of("labels", labels)) == ndim:
        volumes = [_Part(labels, shape)] * count
    else:
        volumes = [_Part(labels, shape[1:], (i,)) for i in range(shape[0] if shape else 0)]
    if len(volumes) != count or any(len(volume.shape) != ndim for volume in volumes):
        raise ValueError(
            f"labels: must be one volume of {ndim} axes (as many as size has), or one such volume for each "
            f"of the {count} rows of start; got shapes {[volume.shape for volume in volumes]}"
        )
    return volumes
