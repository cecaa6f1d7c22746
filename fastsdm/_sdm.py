"""The public distance maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch

from fastsdm import _validate
from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._operator import signed_distance_operator
from fastsdm._types import Convention, EmptyPolicy, SpacingLike


def signed_distance(
    target: ArrayT,
    *,
    classes: int | Sequence[int] | None = None,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    convention: Convention = "kervadec",
    empty: EmptyPolicy = "inf",
    max_distance: float | None = None,
    dtype: object = None,
    backend: str = "auto",
) -> ArrayT:
    """Exact Euclidean signed distance map of a mask or a label map, computed where the target lives.

    Distances run between voxel centres, in the units of ``spacing``; negative is inside. The map has no
    gradient. The default convention is that of the boundary loss (Kervadec et al., Medical Image
    Analysis 67, 2021, doi:10.1016/j.media.2020.101851).

    Args:
        target: torch tensor, numpy array or cupy array of shape ``[..., *S]``, bool or any integer dtype,
            where ``S`` is the last ``spatial_dims`` axes. With ``classes=None`` a mask, non-zero inside.
            Floats are taken too: on the CPU they are checked (no NaN; whole numbers with ``classes``),
            elsewhere a check would stall the device, so none is made.
        classes: None for a mask; K for the label values 0 to K-1; or the label values themselves.
            Labels that no class names count as outside of all.
        spatial_dims: 2 or 3.
        spacing: voxel size: a number, one per spatial axis, or one such row per sample, shaped like the
            first leading axes. A tensor must be on the CPU.
        convention: ``"kervadec"`` (inside ``-(d_in - h)``, ``h`` the smallest spacing),
            ``"kervadec-literal"`` (``-(d_in - 1)`` whatever the spacing), ``"plain"`` (``-d_in``) or
            ``"midline"`` (``d - h/2`` on both sides).
        empty: what a class reads that has no inside (``+``) or no outside voxel (``-``): ``"inf"``,
            ``"zero"``, ``"max"`` (``max_distance``, or else the volume's diagonal) or ``"raise"`` (waits for
            the device).
        max_distance: the result is clamped to ``[-max_distance, max_distance]``, infinities included, and
            backends may stop searching there.
        dtype: of the result: float32 (None), float64, float16 or bfloat16. Distances are computed in float32.
        backend: ``"auto"``, or the name of one, which then works or raises.

    Returns:
        Same kind and device as ``target``: ``[..., *S]`` for a mask, ``[..., K, *S]`` with ``classes``.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
        BackendUnavailableError: the backend asked for cannot run, with the reason and the fix.
    """
    labels, restore = as_tensor(target, "target")
    maps = _checked_map(
        labels,
        "target",
        classes=classes,
        spatial_dims=spatial_dims,
        spacing=spacing,
        convention=convention,
        empty=empty,
        max_distance=max_distance,
        dtype=dtype,
        backend=backend,
    )
    return cast("ArrayT", restore(maps))


def distance_transform(
    mask: ArrayT,
    *,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    max_distance: float | None = None,
    backend: str = "auto",
) -> ArrayT:
    """Distance of each non-zero voxel to the nearest zero voxel, batched.

    Means what ``scipy.ndimage.distance_transform_edt`` means, except where a volume has no zero voxel: there
    every voxel reads ``inf`` (or ``max_distance``).

    Args:
        mask: torch tensor, numpy array or cupy array of shape ``[..., *S]``; non-zero is measured.
        spatial_dims: 2 or 3: how many of the last axes are spatial.
        spacing: voxel size, as in :func:`signed_distance`.
        max_distance: distances beyond it read ``max_distance``.
        backend: ``"auto"``, or the name of one.

    Returns:
        float32 of the mask's shape, kind and device, in the units of ``spacing``.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`signed_distance`.
    """
    tensor, restore = as_tensor(mask, "mask")
    plain = _checked_map(
        tensor,
        "mask",
        classes=None,
        spatial_dims=spatial_dims,
        spacing=spacing,
        convention="plain",
        empty="inf",
        max_distance=max_distance,
        dtype=None,
        backend=backend,
    )
    return cast("ArrayT", restore(plain.neg_().clamp_(min=0)))


def signed_distance_region(
    labels: torch.Tensor,
    start: Sequence[int],
    size: Sequence[int],
    *,
    classes: int | Sequence[int] | None,
    spacing: SpacingLike,
    convention: Convention,
    max_distance: float,
    dtype: object,
    backend: str,
) -> torch.Tensor:
    """The clamped map of a batch of volumes, cut to a region; cheaper than all of it where a backend can.

    Args:
        labels: ``[B, *S]``.
        start: the region's first voxel.
        size: its shape, 2 or 3 numbers; the region lies inside the volumes.
        classes: as in :func:`signed_distance`.
        spacing: as there.
        convention: as there.
        max_distance: as there; an empty or full class reads it, too.
        dtype: as there.
        backend: as there.

    Returns:
        ``[B, *size]`` for masks, ``[B, K, *size]`` with ``classes``.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as there.
    """
    return _checked_map(
        labels,
        "labels",
        classes=classes,
        spatial_dims=len(size),
        spacing=spacing,
        convention=convention,
        empty="inf",
        max_distance=max_distance,
        dtype=dtype,
        backend=backend,
        region=(start, size),
    )


def _checked_map(
    labels: torch.Tensor,
    name: str,
    *,
    classes: int | Sequence[int] | None,
    spatial_dims: int,
    spacing: SpacingLike,
    convention: str,
    empty: str,
    max_distance: float | None,
    dtype: object,
    backend: str,
    region: tuple[Sequence[int], Sequence[int]] | None = None,
) -> torch.Tensor:
    _validate.spatial_dims(spatial_dims)
    _validate.target_layout(labels, spatial_dims, name)
    _validate.convention(convention)
    _validate.empty_policy(empty)
    _validate.max_distance(max_distance)
    result_dtype = _validate.float_dtype(dtype)
    leading, shape = labels.shape[: labels.ndim - spatial_dims], labels.shape[labels.ndim - spatial_dims :]
    rows = _validate.spacing_rows(spacing, leading, spatial_dims)
    if not torch.compiler.is_compiling():
        _validate.float_labels(labels, whole=classes is not None, name=name)

    values = None
    if classes is None:
        labels = labels != 0 if labels.is_floating_point() else labels
    else:
        values = _validate.class_values(classes, labels.dtype)
        labels = labels.long() if labels.is_floating_point() else labels
    maps: torch.Tensor = signed_distance_operator(
        labels.reshape(math.prod(leading), *shape),
        rows,
        values,
        convention,
        empty,
        None if max_distance is None else float(max_distance),
        result_dtype,
        backend,
        None if region is None else [*region[0], *region[1]],
    )
    result_shape = shape if region is None else region[1]
    return maps.reshape((*leading, *([] if values is None else [len(values)]), *result_shape))
