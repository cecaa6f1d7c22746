"""Which voxel is nearest: the argument of the search that a distance map makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch

from fastsdm import _validate
from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._backends import capabilities
from fastsdm._types import SpacingLike

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def nearest(
    target: ArrayT,
    *,
    classes: int | Sequence[int] | None = None,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    max_distance: float | None = None,
    backend: str = "auto",
) -> ArrayT:
    """Find, for each voxel, the nearest voxel of the other phase, to which its distance is measured.

    For a voxel outside a class that is the nearest voxel of the class; for one inside, the nearest voxel
    that is not of the class. Distances run between voxel centres, in the units of ``spacing``.

    Args:
        target: torch tensor, numpy array or cupy array of shape ``[..., *S]``, where ``S`` is the last
            ``spatial_dims`` axes: a mask, or with ``classes`` a label map, both read as in
            :func:`fastsdm.signed_distance`. In a mask integers above 0 and floats above 0.5 are inside.
        classes: None for a mask; K for the label values 0 to K-1; or the label values themselves.
        spatial_dims: 2 or 3.
        spacing: voxel size, as in :func:`fastsdm.signed_distance`.
        max_distance: voxels farther away are not searched.
        backend: ``"auto"``; ``"native"`` or ``"scipy"`` on the CPU, ``"triton"`` on a GPU, ``"torch"``
            anywhere.

    Returns:
        Same kind and device as ``target``: int32 indices ``[..., ndim, *S]``, with ``classes``
        ``[..., K, ndim, *S]``; -1 where there is no such voxel, or none within ``max_distance``. Of several
        equally near voxels any may be returned; one backend always returns the same.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
        BackendUnavailableError: the backend asked for cannot run, or no backend does this on that device.
    """
    tensor, restore = as_tensor(target, "target")
    leading, shape, rows = _checked(tensor, "target", spatial_dims, spacing, max_distance)
    tensor = _validate.integer_labels(tensor, whole=classes is not None, name="target")
    chosen = _chosen(backend, tensor)
    values = None if classes is None else _validate.class_values(classes, tensor.dtype)
    per_class = [] if values is None else [len(values)]
    result_shape = (*leading, *per_class, len(shape), *shape)
    if tensor.numel() == 0:
        return cast("ArrayT", restore(torch.empty(result_shape, dtype=torch.int32, device=tensor.device)))
    samples = tensor.reshape(math.prod(leading), *shape).contiguous()
    indices = chosen.nearest(samples, values or [None], rows, max_distance)
    return cast("ArrayT", restore(indices.reshape(result_shape)))


def nearest_label(
    labels: ArrayT,
    *,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    max_distance: float | None = None,
    background: int = 0,
    backend: str = "auto",
) -> ArrayT:
    """Give every background voxel the label of its nearest labelled voxel.

    Without ``max_distance`` this divides the volume into Voronoi cells of the labels; with it, the labels are
    dilated by that distance and never grow into each other.

    Args:
        labels: torch tensor, numpy array or cupy array of shape ``[..., *S]``, bool, integers, or floats that
            hold whole numbers.
        spatial_dims: 2 or 3; the last axes are spatial.
        spacing: voxel size, as in :func:`fastsdm.signed_distance`.
        max_distance: background voxels that are farther from every label keep ``background``.
        background: the label that is replaced.
        backend: ``"auto"``; ``"native"`` or ``"scipy"`` on the CPU, ``"triton"`` on a GPU, ``"torch"``
            anywhere.

    Returns:
        Labels of the kind, device, dtype and shape of ``labels``. Of several equally near labels any may be
        taken, by one backend always the same. A volume without a label keeps ``background``.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`nearest`.
    """
    given, restore = as_tensor(labels, "labels")
    leading, shape, rows = _checked(given, "labels", spatial_dims, spacing, max_distance)
    tensor = _validate.integer_labels(given, whole=True, name="labels")
    value = _validate.label_value("background", background, tensor.dtype)
    chosen = _chosen(backend, tensor)
    if tensor.numel() == 0:
        return cast("ArrayT", restore(given.clone()))
    samples = tensor.reshape(math.prod(leading), *shape).contiguous()
    if isinstance(chosen, capabilities.LabelBackend):
        labelled = chosen.nearest_label(samples, value, rows, max_distance)
        return cast("ArrayT", restore(labelled.reshape(tensor.shape).to(given.dtype)))
    if tensor.dtype in _SIGNED:  # torch compares and gathers few unsigned types; the bits are the same
        bits = torch.iinfo(tensor.dtype).bits
        samples, value = samples.view(_SIGNED[tensor.dtype]), value - (value >> (bits - 1) << bits)
    empty = samples == value
    found = chosen.nearest(empty, [None], rows, max_distance)[:, 0]
    flat = found[:, 0].long()
    for axis in range(1, len(shape)):
        flat.mul_(shape[axis]).add_(found[:, axis])
    gathered = samples.flatten(1).gather(1, flat.clamp_(min=0).flatten(1)).view_as(samples)
    filled = torch.where(empty & (found[:, 0] >= 0), gathered, samples)
    return cast("ArrayT", restore(filled.view(tensor.dtype).reshape(tensor.shape).to(given.dtype)))


def _chosen(backend: str, tensor: torch.Tensor) -> capabilities.NearestBackend:
    _validate.backend_name(backend)
    kind = capabilities.NearestBackend
    return capabilities.select(kind, backend, tensor.device, "nearest voxels")  # type: ignore[type-abstract]


def _checked(
    tensor: torch.Tensor, name: str, spatial_dims: int, spacing: SpacingLike, max_distance: float | None
) -> tuple[torch.Size, torch.Size, torch.Tensor]:
    spatial_dims = _validate.spatial_dims(spatial_dims)
    _validate.target_layout(tensor, spatial_dims, name)
    _validate.max_distance(max_distance)
    leading, shape = tensor.shape[: tensor.ndim - spatial_dims], tensor.shape[tensor.ndim - spatial_dims :]
    rows = _validate.spacing_rows(spacing, leading, spatial_dims)
    _validate.spacing_values(rows)
    return leading, shape, rows
