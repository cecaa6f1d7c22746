"""The separable transform in plain torch operations: exact, on any torch device, no compiler or package.

The last axis by running maxima; each other one by comparing every voxel with its whole column, in blocks of
broadcast sums (Saito and Toriwaki 1994, doi:10.1016/0031-3203(94)90133-3). Work grows with the length of the
columns, and no step depends on the values: nothing waits for an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

#: Sums that are held at once: on the CPU they stay in the cache, on an accelerator they fill it.
_CPU_BLOCK, _DEVICE_BLOCK = 1 << 19, 1 << 26


class TorchBackend:
    """Running maxima along the last axis, broadcast minima along the others; one map at a time."""

    name = "torch"
    exact = True
    device_types = None

    def unavailable(self, device: torch.device) -> str | None:
        """None: it runs wherever torch does."""
        return None

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Sequence[int],
        spacing: torch.Tensor,
        max_distance: float | None,  # columns are compared whole, so a limit saves nothing
    ) -> torch.Tensor:
        """See :class:`fastsdm._backends.contract.Backend`.

        Working memory beside the result: four times a single map in float32, and blocks of sums.
        """
        shape = (labels.shape[0], len(classes), *labels.shape[1:])
        maps = torch.empty(shape, dtype=torch.float32, device=labels.device)
        if maps.numel() == 0:
            return maps
        for sample, row, sample_maps in zip(labels, spacing.tolist(), maps, strict=True):
            for value, class_map in zip(classes, sample_maps, strict=True):
                class_map.copy_(_plain_map(sample == value, row))
        return maps


def _plain_map(inside: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """``[*S]`` bool to the plain map."""
    # In voxels of the last axis: at equal spacing all squares are whole numbers, and sums do not round.
    unit = spacing[-1]
    squared = _row_distance(torch.stack((inside, ~inside))).square_()
    for axis in reversed(range(len(spacing) - 1)):
        squared = _column_minimum(squared, axis + 1, spacing[axis] / unit)
    to_inside, to_outside = _sqrt_(squared).mul_(unit).unbind()
    return to_inside.sub_(to_outside)


def _sqrt_(squared: torch.Tensor) -> torch.Tensor:
    if squared.device.type != "cpu":
        return squared.sqrt_()
    np.sqrt(squared.numpy(), out=squared.numpy())  # MKL's, which torch takes, may be off by a unit
    return squared


def _row_distance(targets: torch.Tensor) -> torch.Tensor:
    """Distance along the last axis to the nearest target, in voxels; infinite in rows without."""
    place = torch.arange(targets.shape[-1], dtype=torch.float32, device=targets.device)
    before = torch.where(targets, place, -math.inf).cummax(-1).values
    after = torch.where(targets, place, math.inf).flip(-1).cummin(-1).values.flip(-1)
    return torch.minimum(place - before, after - place)


def _column_minimum(squared: torch.Tensor, axis: int, step: float) -> torch.Tensor:
    """``min over q of squared[q] + (step * (p - q))^2`` along an axis."""
    size, inner = squared.shape[axis], math.prod(squared.shape[axis + 1 :])
    columns = squared.reshape(-1, size, inner)
    place = torch.arange(size, dtype=torch.float32, device=squared.device)
    block = _CPU_BLOCK if squared.device.type == "cpu" else _DEVICE_BLOCK
    width = min(inner, max(1, block // size))
    rows = min(size, max(1, block // (size * width)))
    planes = max(1, block // (rows * size * width))
    result = torch.empty_like(columns)
    for row in range(0, size, rows):
        gap = (place[row : row + rows, None] - place).square_().mul_(step**2)[..., None]
        for first in range(0, len(columns), planes):
            for left in range(0, inner, width):
                part = columns[first : first + planes, None, :, left : left + width]
                target = result[first : first + planes, row : row + rows, left : left + width]
                target.copy_((part + gap).amin(dim=2))
    return result.view_as(squared)


BACKEND = TorchBackend()
