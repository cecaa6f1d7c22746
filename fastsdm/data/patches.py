"""True distances on patches: the map of a piece of a volume, from the piece and the voxels around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._types import Convention, SpacingLike


class ArraySource(Protocol):
    """Whatever gives a torch tensor or a numpy array for a tuple of slices: an array, a memory map, a file."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of the axes."""

    def __getitem__(self, index: tuple[slice, ...], /) -> Any:
        """The block that the slices cut out."""


def signed_distance_patch(
    labels: ArraySource | Sequence[ArraySource],
    start: Sequence[int] | Sequence[Sequence[int]] | np.ndarray[Any, Any] | torch.Tensor,
    size: Sequence[int],
    *,
    classes: int | Sequence[int] | None,
    spacing: SpacingLike = 1.0,
    max_distance: float,
    convention: Convention = "kervadec",
    dtype: object = None,
    backend: str = "auto",
) -> Any:
    """Exactly the crop of the whole volume's clamped signed distance map, computed from the patch and a halo.

    Equals ``signed_distance(labels, ..., empty="max", max_distance=max_distance)`` of the whole volume, cut
    to the patch, with the ``classes``, ``spacing`` and ``convention`` given. Only the patch and the voxels
    around it that ``max_distance`` reaches are read (:func:`patch_halo` says how many), less at the
    volume's edges. A class that is absent from them reads ``+max_distance``, one that fills them
    ``-max_distance``: what the whole volume's map reads there too.

    Args:
        labels: one volume ``[*S]``; or one volume per patch, as an array ``[N, *S]`` or as a list of N
            volumes, whose shapes may differ. Mask or labels as in :func:`fastsdm.signed_distance`. Torch
            tensors on any device, numpy arrays, memory maps, and objects of other kinds that have a
            ``shape`` and give an array for a tuple of slices.
        start: first voxel of the patch, one index per spatial axis; or one such row per patch ``[N, ndim]``.
        size: shape of the patch, 2 or 3 numbers; the patch must lie inside the volume.
        classes: None for a mask, K for the labels 0 to K-1, or the label values themselves.
        spacing: voxel size: a number, one per axis, or ``[N, ndim]``, one row per patch.
        max_distance: what the map is clamped to, in the units of ``spacing``.
        convention: as in :func:`fastsdm.signed_distance`.
        dtype: of the result; None means float32.
        backend: ``"auto"``, or the name of one, which then works or raises.

    Returns:
        ``[*size]`` for a mask, ``[K, *size]`` with ``classes``; with a leading N where ``start`` has rows. A
        torch tensor on the labels' device, a numpy array where the labels are numpy's.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range; a patch that does not lie inside its volume.
        BackendUnavailableError: the backend asked for cannot run, with the reason and the fix.
    """
    size = _indices("size", size, least=1)
    ndim = len(size)
    _validate.spatial_dims(ndim)
    _validate.convention(convention)
    _validate.max_distance(max_distance)
    starts, single = _start_rows(start, ndim)
    volumes = _volume_per_patch(labels, len(starts), ndim)
    rows = _validate.spacing_rows(spacing, () if single else (len(starts),), ndim)
    _validate.spacing_values(rows)

    blocks = [
        _block(first, size, patch_halo(max_distance, spacing=row, convention=convention), volume.shape)
        for first, row, volume in zip(starts, rows.tolist(), volumes, strict=True)
    ]
    alike = defaultdict(list)  # patches whose blocks look alike make one batch
    for number, block in enumerate(blocks):
        alike[block.shape, block.inner].append(number)
    maps: list[torch.Tensor] = [torch.empty(0)] * len(blocks)
    for (_, inner), numbers_ in alike.items():
        parts, restores = zip(
            *(as_tensor(volumes[i][blocks[i].outer], "labels") for i in numbers_), strict=True
        )
    ...
