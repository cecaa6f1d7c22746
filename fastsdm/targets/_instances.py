"""Distances within instances, each from 0 to 1."""

from __future__ import annotations

import math
from typing import cast

import torch

from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._instances import instance_distance
from fastsdm._types import SpacingLike
from fastsdm.targets._labels import checked, numbered


def normalized_instance_distance(
    labels: ArrayT,
    *,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    black_border: bool = False,
    background: int = 0,
    backend: str = "auto",
) -> ArrayT:
    """Compute each voxel's distance to the border of its instance, divided by the instance's largest.

    The border is the nearest voxel of another instance or of the background. This is the target of networks
    that predict distances and find instances by their maxima: 1 at the innermost voxel of every instance
    whatever its size, small at its border, 0 in the background.

    Args:
        labels: torch tensor, numpy array or cupy array of shape ``[..., *S]``: an integer per instance, where
            ``S`` is the last ``spatial_dims`` axes. The same value in two samples means two instances.
            Floats are rounded as in :func:`fastsdm.signed_distance` with ``classes``.
        spatial_dims: 2 or 3.
        spacing: voxel size, as in :func:`fastsdm.signed_distance`.
        black_border: as in :func:`fastsdm.instance_distance`.
        background: label whose voxels are 0 in the result.
        backend: as in :func:`fastsdm.instance_distance`.

    Returns:
        float32 of the labels' shape, kind and device. An instance that fills its volume is 1 throughout.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`fastsdm.instance_distance`.
    """
    tensor, restore = as_tensor(labels, "labels")
    tensor, leading, _ = checked(tensor, spatial_dims, background)
    distances = instance_distance(
        tensor,
        spatial_dims=spatial_dims,
        spacing=spacing,
        black_border=black_border,
        background=background,
        backend=backend,
    )
    found = numbered(tensor, background)
    if found.count == 0:
        return cast("ArrayT", restore(distances))
    samples = math.prod(leading)
    numbers = found.numbers.reshape(samples, -1)
    # The background's entry is the last one of each sample.
    largest = torch.zeros(samples, found.count + 1, dtype=torch.float32, device=tensor.device)
    numbers = torch.where(numbers < 0, found.count, numbers)
    flat = distances.reshape(samples, -1)
    largest.scatter_reduce_(1, numbers, flat, "amax")
    largest[:, found.count] = 1
    result = torch.where(flat.isinf(), 1.0, flat / largest.gather(1, numbers))
    return cast("ArrayT", restore(result.reshape(tensor.shape)))
