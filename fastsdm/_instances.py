"""Distances within instances."""

from __future__ import annotations

import math
from typing import cast

import torch

from fastsdm import _validate
from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._backends import capabilities
from fastsdm._types import SpacingLike


def instance_distance(
    labels: ArrayT,
    *,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    max_distance: float | None = None,
    black_border: bool = False,
    background: int = 0,
    backend: str = "auto",
) -> ArrayT:
    """Compute the distance of every voxel to the nearest voxel of another label.

    All instances are measured in one pass, and touching instances stay separate. In each instance the result
    equals the distance transform of that instance alone.

    Args:
        labels: torch tensor, numpy array or cupy array of shape ``[..., *S]``: an integer per instance, where
            ``S`` is the last ``spatial_dims`` axes. Parts of one label need not be connected. Floats are
            rounded as in :func:`fastsdm.signed_distance` with ``classes``.
        spatial_dims: 2 or 3.
        spacing: voxel size, as in :func:`fastsdm.signed_distance`.
        max_distance: larger distances become ``max_distance``.
        black_border: whether everything beyond the volume is another label. A distance is then at most that
            to the first voxel past the border. By default distances are measured within the volume only.
        background: label whose voxels are 0 in the result. Instances are measured to it, too.
        backend: ``"auto"``, ``"native"`` or ``"scipy"`` on the CPU, ``"torch"`` on any device.

    Returns:
        float32 of the labels' shape, kind and device, in the units of ``spacing``; ``inf`` (or
        ``max_distance``) where a volume holds a single label that is not the background.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
        BackendUnavailableError: the named backend cannot run, or cannot measure instances on that device.
    """
    tensor, restore = as_tensor(labels, "labels")
    spatial_dims = _validate.spatial_dims(spatial_dims)
    _validate.target_layout(tensor, spatial_dims, "labels")
    _validate.max_distance(max_distance)
    tensor = _validate.integer_labels(tensor, whole=True, name="labels")
    black_border = _validate.flag("black_border", black_border)
    _validate.backend_name(backend)
    leading, shape = tensor.shape[: tensor.ndim - spatial_dims], tensor.shape[tensor.ndim - spatial_dims :]
    rows = _validate.spacing_rows(spacing, leading, spatial_dims)
    _validate.spacing_values(rows)
    kind = capabilities.InstanceBackend
    what = "distances within instances"
    chosen = capabilities.select(kind, backend, tensor.device, what)  # type: ignore[type-abstract]
    value = _validate.label_value("background", background, tensor.dtype)
    if tensor.numel() == 0:
        return cast("ArrayT", restore(torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device)))
    samples = tensor.reshape(math.prod(leading), *shape).contiguous()
    maps = chosen.instance_distance(samples, value, rows, max_distance, black_border)
    return cast("ArrayT", restore(maps.reshape(tensor.shape)))
