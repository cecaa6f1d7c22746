"""Labels of any value as consecutive numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastsdm import _validate

#: A table of label values may have that many entries, or as many as there are voxels.
_SMALL_TABLE = 1 << 20


@dataclass(frozen=True)
class Numbered:
    """Labels numbered in ascending order, over all samples together.

    Attributes:
        numbers: int64, shaped like the labels; -1 in the background.
        count: how many labels there are, without the background.
    """

    numbers: torch.Tensor
    count: int


def numbered(labels: torch.Tensor, background: int) -> Numbered:
    """Number the labels; waits for the device.

    Args:
        labels: bool or integers.
        background: a value that the dtype can hold.
    """
    empty = labels == background
    if labels.numel() == 0 or bool(empty.all()):
        return Numbered(torch.full(labels.shape, -1, dtype=torch.int64, device=labels.device), 0)
    values = labels.long()
    low, high = (int(extreme) for extreme in values.aminmax())
    if high - low <= max(_SMALL_TABLE, labels.numel()):
        values = values - low
        present = torch.zeros(high - low + 1, dtype=torch.bool, device=labels.device)
        present[values[~empty]] = True
        numbers = (present.cumsum(0) - 1)[values]
        count = int(present.sum())
    else:
        kinds, numbers = torch.unique(values[~empty], return_inverse=True)
        count = len(kinds)
        numbers = torch.zeros_like(values).masked_scatter_(~empty, numbers)
    return Numbered(numbers.masked_fill_(empty, -1), count)


def checked(
    labels: torch.Tensor, spatial_dims: int, background: int
) -> tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]:
    """Check labels of instances, and return them as integers, their leading axes and their spatial shape.

    Raises:
        TypeError, ValueError: labels or arguments that cannot be used.
    """
    _validate.spatial_dims(spatial_dims)
    _validate.target_layout(labels, spatial_dims, "labels")
    labels = _validate.integer_labels(labels, whole=True, name="labels")
    _validate.label_value("background", background, labels.dtype)
    split = labels.ndim - spatial_dims
    return labels, tuple(labels.shape[:split]), tuple(labels.shape[split:])
