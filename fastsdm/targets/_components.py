"""Connected components of masks, and the part of the volume that is nearest to each."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from scipy import ndimage

from fastsdm import _validate
from fastsdm._arrays import ArrayT, above_zero, as_tensor
from fastsdm._nearest import nearest_label
from fastsdm._types import SpacingLike


def component_weights(
    mask: ArrayT, *, spatial_dims: int = 3, spacing: SpacingLike = 1.0, backend: str = "auto"
) -> ArrayT:
    """Compute voxel weights that make a weighted sum the mean over the mask's connected components.

    Every component owns the voxels that are nearer to it than to any other one (its Voronoi cell), as in
    CC-metrics, Jaus et al. 2024, arXiv:2410.18684. With N components a voxel in the cell of V voxels weighs
    ``1 / (N V)``, so a small lesion counts as much as a large one. Voxels that share a corner are connected.
    Components are found on the CPU by scipy; on an accelerator the mask is copied there.

    Args:
        mask: torch tensor, numpy array or cupy array of shape ``[..., *S]``, where ``S`` is the last
            ``spatial_dims`` axes; inside are integers above 0 and floats above 0.5.
        spatial_dims: 2 or 3.
        spacing: voxel size, as in :func:`fastsdm.signed_distance`.
        backend: finds the nearest component, as in :func:`fastsdm.nearest_label`.

    Returns:
        float32 of the mask's shape, kind and device; the sum over a volume is 1. In a volume
        without a component all voxels weigh the same.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`fastsdm.nearest_label`.
    """
    tensor, restore = as_tensor(mask, "mask")
    _validate.spatial_dims(spatial_dims)
    _validate.target_layout(tensor, spatial_dims, "mask")
    inside = above_zero(_validate.integer_labels(tensor, whole=False, name="mask"))
    split = tensor.ndim - spatial_dims
    leading, shape = tensor.shape[:split], tensor.shape[split:]
    cells = component_cells(
        inside.reshape(math.prod(leading), *shape),
        _validate.spacing_rows(spacing, leading, spatial_dims),
        backend,
    )
    weights = torch.empty(cells.shape, dtype=torch.float32, device="cpu")
    for cell, weight in zip(cells, weights, strict=True):
        sizes = torch.bincount(cell.flatten())
        counted = sizes if len(sizes) == 1 else sizes[1:]
        per_voxel = 1.0 / (len(counted) * counted.double())
        weight.copy_(per_voxel[(cell - 1).clamp_(min=0)])
    return cast("ArrayT", restore(weights.reshape(tensor.shape).to(tensor.device)))


def component_cells(masks: torch.Tensor, spacing: torch.Tensor, backend: str = "auto") -> torch.Tensor:
    """Number of the component that each voxel belongs to or is nearest to, from 1; 0 without a component.

    Args:
        masks: bool ``[N, *S]``, on any device.
        spacing: ``[N, ndim]`` on the CPU.
        backend: as in :func:`fastsdm.nearest_label`.

    Returns:
        int64 ``[N, *S]`` on the CPU.
    """
    ndim = masks.ndim - 1
    connected = ndimage.generate_binary_structure(ndim, ndim)
    labels = np.zeros(masks.shape, np.int32)
    for mask, numbers in zip(masks.cpu().numpy(), labels, strict=True):
        ndimage.label(mask, connected, output=numbers)
    filled = nearest_label(torch.from_numpy(labels), spatial_dims=ndim, spacing=spacing, backend=backend)
    return filled.long()
