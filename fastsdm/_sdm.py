"""The public distance maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from fastsdm import _validate
from fastsdm._arrays import ArrayT, above_zero, as_tensor
from fastsdm._operator import signed_distance_operator
from fastsdm._settings import MapOptions
from fastsdm._types import Convention, EmptyPolicy, SpacingLike

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
        target: torch tensor, numpy array or cupy array of shape ``[..., *S]``, where ``S`` is the last
            ``spatial_dims`` axes. With ``classes=None`` a mask: inside are True, integers above 0 and floats
            above 0.5. With ``classes`` a label map: booleans, integers, or floats within 0.001 of a whole
            number, which are rounded. On the CPU NaN and other values are refused; elsewhere, and under
            ``torch.vmap`` and ``torch.compile``, values are not checked.
        classes: None for a mask; K for the label values 0 to K-1; or the label values themselves.
            Voxels with any other label are outside of all classes.
        spatial_dims: 2 or 3.
        spacing: voxel size: a number, one per spatial axis, or one such row per sample, shaped like the
            first leading axes. A tensor must be on the CPU.
        convention: ``"kervadec"`` (inside ``-(d_in - h)``, ``h`` the smallest spacing),
            ``"kervadec-literal"`` (``-(d_in - 1)`` whatever the spacing), ``"plain"`` (``-d_in``) or
            ``"midline"`` (``d - h/2`` on both sides).
        empty: value for a class without inside (``+``) or without outside (``-``) voxels: ``"inf"``,
            ``"zero"``, or ``"max"`` (``max_distance``, or else the volume's diagonal). ``"raise"`` raises a
            ``ValueError``; the host waits for the device.
        max_distance: clamp of the result to ``[-max_distance, max_distance]``, infinities included. Backends
            may stop searching there. None for no clamp.
        ignore_index: label of voxels that are neither inside nor outside of any class. No distance is
            measured to them, and the map is 0 at them. Costs a second map.
        black_border: whether everything beyond the volume is outside of every class. A distance inside is
            then at most that to the first voxel past the border. By default distances are measured within
            the volume only. Costs a copy of the labels.
        dtype: of the result: float32 (None), float64, float16 or bfloat16. Distances are computed in float32.
        backend: ``"auto"``, or a backend's name; that backend makes the map or raises.

    Returns:
        Same kind and device as ``target``: ``[..., *S]`` for a mask, ``[..., K, *S]`` with ``classes``.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
        BackendUnavailableError: the named backend cannot run; the message gives the reason and the fix.
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
        backend: ``"auto"``, or a backend's name.

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
        region,
        classes=[0],
        spatial_dims=spatial_dims,
        spacing=spacing,
        convention="plain",
        max_distance=max_distance,
        backend=backend,
    )
    return cast("ArrayT", restore(distances.clamp_(min=0).reshape(shape)))


def signed_distance_region(
    labels: torch.Tensor, start: Sequence[int], size: Sequence[int], **options: Unpack[MapOptions]
) -> torch.Tensor:
    """Compute the clamped map of volumes ``[B, *S]``, cut to the region from ``start`` of shape ``size``.

    Some backends compute only what the region needs. The region must lie inside the volumes. An absent or
    full class is ``max_distance`` away.

    Returns:
        ``[B, *size]`` for masks, ``[B, K, *size]`` with ``classes``.
    """
    options |= {"spatial_dims": len(size), "empty": "inf"}
    return _checked_map(labels, "labels", (start, size), **options)


def _checked_map(
    labels: torch.Tensor,
    name: str,
    region: tuple[Sequence[int], Sequence[int]] | None = None,
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
        holding = given if values is None else labels  # integer_labels turns a mask into 0 and 1
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
    """Compute the map of masks with ignored voxels, which are neither inside nor outside.

    Outside of a mask the distance runs to its nearest voxel, and inside to the nearest voxel known to be
    outside. So two maps are made: one with the ignored voxels outside, which is right outside of the mask,
    and one with them inside, which is right inside. ``masks`` ``[B, K, *S]`` and ``ignored`` ``[B, 1, *S]``
    are bool, ``masks`` is False at ignored voxels, ``rows`` is the spacing ``[B, ndim]``, and ``region`` the
    first voxel and the shape of the part to compute. The options are those of :func:`signed_distance`.

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
    """Return where the labels have that value: nowhere, if their dtype cannot hold it."""
    if not labels.is_floating_point():
        low, high = _validate.label_range(labels.dtype)
        if not low <= value <= high:  # compared, it would be wrapped into the dtype: -1 would find 255
            return torch.zeros_like(labels, dtype=torch.bool)
    return labels == value
