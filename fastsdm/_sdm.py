"""The public distance maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from fastsdm import _validate
from fastsdm._arrays import ArrayT, above_zero, as_tensor
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
    ignore_index: int | None = None,
    black_border: bool = False,
    dtype: object = None,
    backend: str = "auto",
) -> ArrayT:
    """Compute the exact Euclidean signed distance map of a mask or a label map, on the target's device.

    Distances run between voxel centres, in the units of ``spacing``; negative is inside. The map has no
    gradient. Under ``torch.vmap`` all mapped calls become one batched call. The default convention is that of
    the boundary loss (Kervadec et al., Medical Image Analysis 67, 2021, doi:10.1016/j.media.2020.101851).

    Args:
        target: torch tensor, numpy array or cupy array of shape ``[..., *S]``, bool or any integer dtype,
            where ``S`` is the last ``spatial_dims`` axes. With ``classes=None`` a mask: inside are integers
            above 0 and floats above 0.5. With ``classes``, floats within 0.001 of a whole number are rounded
            to it. On the CPU NaN and other values are refused; elsewhere, and under ``torch.vmap`` and
            ``torch.compile``, values are not checked.
        classes: None for a mask; K for the label values 0 to K-1; or the label values themselves.
            Voxels with any other label are outside of all classes.
        spatial_dims: 2 or 3.
        spacing: voxel size: a number, one per spatial axis, or one such row per sample, shaped like the
            first leading axes. A tensor must be on the CPU.
        convention: ``"kervadec"`` (inside ``-(d_in - h)``, ``h`` the smallest spacing),
            ``"kervadec-literal"`` (``-(d_in - 1)`` whatever the spacing), ``"plain"`` (``-d_in``) or
            ``"midline"`` (``d - h/2`` on both sides).
        empty: value for a class without inside (``+``) or without outside (``-``) voxels: ``"inf"``,
            ``"zero"``, ``"max"`` (``max_distance``, or else the volume's diagonal); or ``"raise"``, a
            ``ValueError``, for which the host waits for the device.
        max_distance: the result is clamped to ``[-max_distance, max_distance]``, infinities included, and
            backends may stop searching there.
        ignore_index: label of voxels that are neither inside nor outside of any class. No distance is
            measured to them, and the map is 0 at them. Costs a second map.
        black_border: whether everything beyond the volume is outside of every class. An inside voxel is then
            at most as far from the outside as from the first voxel past the border. By default nothing is
            known beyond the border, and no distance is measured to it. Costs a copy of the labels.
        dtype: of the result: float32 (None), float64, float16 or bfloat16. Distances are computed in float32.
        backend: ``"auto"``, or the name of a backend, which then makes the map or raises.

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
        ignore_index=ignore_index,
        black_border=black_border,
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
    black_border: bool = False,
    backend: str = "auto",
) -> ArrayT:
    """Compute the distance of each non-zero voxel to the nearest zero voxel, batched.

    The result is that of ``scipy.ndimage.distance_transform_edt``, except in a volume without a zero voxel:
    there every voxel is ``inf`` (or ``max_distance``).

    Args:
        mask: torch tensor, numpy array or cupy array of shape ``[..., *S]``, where ``S`` is the
            last ``spatial_dims`` axes. All non-zero voxels are measured, negative ones included.
        spatial_dims: 2 or 3.
        spacing: voxel size, as in :func:`signed_distance`.
        max_distance: larger distances become ``max_distance``.
        black_border: whether everything beyond the volume is zero.
        backend: ``"auto"``, or the name of one.

    Returns:
        float32 of the mask's shape, kind and device, in the units of ``spacing``.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`signed_distance`.
    """
    tensor, restore = as_tensor(mask, "mask")
    _validate.target_layout(tensor, 0, "mask")
    _validate.float_labels(tensor, whole=False, name="mask")
    if tensor.is_floating_point():
        tensor = tensor != 0
    shape, region = tensor.shape, None
    if _validate.flag("black_border", black_border):
        ndim = _validate.spatial_dims(spatial_dims)
        _validate.target_layout(tensor, ndim, "mask")
        tensor = torch.constant_pad_nd(tensor, [1, 1] * ndim, 0)
        region = [1] * ndim, shape[len(shape) - ndim :]
    # As in scipy, and unlike in a mask of objects, every value but 0 is measured: the outside of class 0.
    distances = _checked_map(
        tensor,
        "mask",
        classes=[0],
        spatial_dims=spatial_dims,
        spacing=spacing,
        convention="plain",
        empty="inf",
        max_distance=max_distance,
        dtype=None,
        backend=backend,
        region=region,
    )
    return cast("ArrayT", restore(distances.clamp_(min=0).reshape(shape)))


def signed_distance_region(
    labels: torch.Tensor,
    start: Sequence[int],
    size: Sequence[int],
    *,
    classes: int | Sequence[int] | None,
    spacing: SpacingLike,
    convention: Convention,
    max_distance: float,
    ignore_index: int | None,
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
        ignore_index: as there.
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
        ignore_index=ignore_index,
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
    ignore_index: int | None = None,
    black_border: bool = False,
    region: tuple[Sequence[int], Sequence[int]] | None = None,
) -> torch.Tensor:
    spatial_dims = _validate.spatial_dims(spatial_dims)
    _validate.backend_name(backend)
    _validate.target_layout(labels, spatial_dims, name)
    _validate.convention(convention)
    _validate.empty_policy(empty)
    _validate.max_distance(max_distance)
    black_border = _validate.flag("black_border", black_border)
    result_dtype = _validate.float_dtype(dtype)
    leading, shape = labels.shape[: labels.ndim - spatial_dims], labels.shape[labels.ndim - spatial_dims :]
    is_compiling = torch.compiler.is_compiling()
    given = labels
    labels = _validate.integer_labels(labels, whole=classes is not None, name=name)

    # A graph holds numbers for good, so a spacing that changes enters it as a tensor.
    row = None if is_compiling else _validate.spacing_row(spacing, spatial_dims)
    options = (
        convention,
        empty,
        None if max_distance is None else float(max_distance),
        result_dtype,
        backend,
        None if region is None else [*region[0], *region[1]],
        black_border,
    )
    values = None if classes is None else _validate.class_values(classes, labels.dtype)
    labels = labels.reshape(math.prod(leading), *shape)
    if ignore_index is None:
        rows = _validate.spacing_rows(spacing, leading, spatial_dims) if row is None else None
        maps: torch.Tensor = signed_distance_operator(labels, rows, row or [], values, *options)
    else:
        rows = _validate.spacing_rows(spacing, leading, spatial_dims)
        holding = given if values is None else labels  # a mask that was read has lost the ignored label
        holding = holding.round() if holding.is_floating_point() else holding
        ignored = equal_labels(holding, _validate.integer("ignore_index", ignore_index))
        maps = _with_ignored(labels, ignored.reshape(labels.shape), rows, values, *options)
    result_shape = shape if region is None else region[1]
    return maps.reshape((*leading, *([] if values is None else [len(values)]), *result_shape))


def _with_ignored(
    labels: torch.Tensor, ignored: torch.Tensor, rows: torch.Tensor, values: list[int] | None, *options: Any
) -> torch.Tensor:
    masks = [above_zero(labels)] if values is None else [labels == value for value in values]
    inside = torch.stack(masks, dim=1)
    ignored = ignored.unsqueeze(1)
    return signed_distance_of_masks(inside & ~ignored, ignored, rows, *options)


def signed_distance_of_masks(
    masks: torch.Tensor,
    ignored: torch.Tensor,
    rows: torch.Tensor,
    convention: str,
    empty: str,
    max_distance: float | None,
    dtype: torch.dtype,
    backend: str,
    region: list[int] | None = None,
    black_border: bool = False,
) -> torch.Tensor:
    """The map of masks among ignored voxels, which are neither inside nor outside.

    Outside of a mask the distance runs to its nearest voxel, and inside of it to the nearest voxel known to
    be outside: two maps, one with the ignored voxels counted as outside and one with them counted as inside,
    of which each is right in one of the phases.

    Args:
        masks: bool ``[B, K, *S]``, False at ignored voxels.
        ignored: bool ``[B, 1, *S]``.
        rows: spacing of every sample, ``[B, ndim]`` float64 on the CPU.
        convention: as in :func:`signed_distance`.
        empty: as there.
        max_distance: as there.
        dtype: of the result.
        backend: as there.
        region: first voxel and shape of the part that is wanted.
        black_border: as there.

    Returns:
        ``[B, K, *S]``, 0 at ignored voxels.
    """
    batch, classes, *shape = masks.shape
    both = torch.stack([masks, masks | ignored], dim=1)
    maps = signed_distance_operator(
        both.reshape(batch * 2 * classes, *shape),
        rows.repeat_interleave(2 * classes, dim=0),
        [],
        None,
        convention,
        empty,
        max_distance,
        dtype,
        backend,
        region,
        black_border,
    )
    if region is not None:
        ndim = len(shape)
        part: tuple[Any, ...] = (
            ...,
            *(slice(a, a + n) for a, n in zip(region[:ndim], region[ndim:], strict=True)),
        )
        masks, ignored = masks[part], ignored[part]
    outside, inside = maps.reshape(batch, 2, classes, *masks.shape[2:]).unbind(dim=1)
    return torch.where(masks, inside, outside).masked_fill_(ignored, 0)


def equal_labels(labels: torch.Tensor, value: int) -> torch.Tensor:
    """Where the labels have that value; a value that their dtype cannot hold is nowhere."""
    if not labels.is_floating_point():
        low, high = _validate.label_range(labels.dtype)
        if not low <= value <= high:  # compared, it would be wrapped into the dtype: -1 would find 255
            return torch.zeros_like(labels, dtype=torch.bool)
    return labels == value
