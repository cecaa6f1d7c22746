"""An exact signed map in plain torch operations, axis by axis: what jump flooding is compared with.

The last axis by running maxima, each other one by comparing every voxel with its whole column, in blocks of
broadcast sums: `O(n)` work per voxel and axis, two operations per block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

#: Sums that are held at once: on the CPU they stay in the cache, on an accelerator they fill it.
_CPU_BLOCK, _DEVICE_BLOCK = 1 << 19, 1 << 26


def signed_distance(
    labels: torch.Tensor, classes: Sequence[int], spacing: torch.Tensor, max_distance: float | None
) -> torch.Tensor:
    """The plain map; see :class:`fastsdm._backends.contract.Backend`."""
    del max_distance
    samples = [
        _plain_maps(torch.stack([sample == value for value in classes]), steps)
        for sample, steps in zip(labels, spacing.tolist(), strict=True)
    ]
    return torch.stack(samples)


def _plain_maps(inside: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """`[K, *S]` bool to the plain map, float32."""
    squared = _row_distance(torch.stack((inside, ~inside))).square_().mul_(spacing[-1] ** 2)
    for axis, step in enumerate(spacing[:-1], start=2):
        squared = _column_minimum(squared, axis, step)
    to_inside, to_outside = squared.sqrt_().unbind()
    return to_inside.sub_(to_outside)


def _row_distance(targets: torch.Tensor) -> torch.Tensor:
    """Distance along the last axis to the nearest target, in voxels; infinite in rows without."""
    place = torch.arange(targets.shape[-1], dtype=torch.float32, device=targets.device)
    before = torch.where(targets, place, -math.inf).cummax(-1).values
    after = torch.where(targets, place, math.inf).flip(-1).cummin(-1).values.flip(-1)
    return torch.minimum(place - before, after - place)


def _column_minimum(squared: torch.Tensor, axis: int, step: float) -> torch.Tensor:
    """`min over q of squared[q] + (step * (p - q))^2` along an axis."""
    size, inner = squared.shape[axis], math.prod(squared.shape[axis + 1 :])
    columns = squared.reshape(-1, size, inner)
    place = torch.arange(size, dtype=torch.float32, device=squared.device)
    gap = (place[:, None] - place).square_().mul_(step**2)[..., None]
    block = _CPU_BLOCK if squared.device.type == "cpu" else _DEVICE_BLOCK
    rows = min(size, max(1, block // (size * inner)))
    planes = max(1, block // (rows * size * inner))
    result = torch.empty_like(columns)
    for first in range(0, len(columns), planes):
        for row in range(0, size, rows):
            sums = columns[first : first + planes, None] + gap[row : row + rows]
            torch.amin(sums, dim=2, out=result[first : first + planes, row : row + rows])
    return result.view_as(squared)
