"""Reduce values per voxel to one per class, and those to the loss."""

from __future__ import annotations

import math

import numpy as np
import torch

from fastsdm import _validate
from fastsdm.losses._target import Target

#: BLAS takes 32-bit lengths.
_LONGEST_DOT = 2**31 - 1


def voxel_sum(values: torch.Tensor, truth: Target) -> torch.Tensor:
    """Sum over the voxels, ``[B, K]``; if the target has cells, over those of each cell, ``[B * N, K]``."""
    if truth.cells is None:
        return values.flatten(2).sum(dim=2)
    batch, classes = values.shape[:2]
    count = truth.cell_count
    samples = torch.arange(batch, device=values.device).view(-1, 1, 1)
    columns = torch.arange(classes, device=values.device).view(1, -1, 1)
    places = (samples * count + truth.cells.flatten(2)) * classes + columns
    # One float32 added to another, voxel by voxel, would lose digits; MPS has no float64.
    precise = values if values.device.type == "mps" else values.double()
    sums = precise.new_zeros(batch * count * classes).index_add(0, places.flatten(), precise.flatten())
    return sums.to(values.dtype).view(batch * count, classes)


def voxel_mean(values: torch.Tensor, truth: Target) -> torch.Tensor:
    """Mean over the voxels that are not ignored, else like :func:`voxel_sum`.

    ``values`` must be 0 where voxels are ignored.
    """
    sums = voxel_sum(values, truth)
    if truth.cells is not None:
        counted = torch.ones_like(values) if truth.ignored is None else (~truth.ignored).expand_as(values)
        return sums / voxel_sum(counted.to(sums.dtype), truth).clamp_(min=1)
    voxels = math.prod(values.shape[2:])
    if truth.ignored is None:
        return sums / voxels
    return sums / (voxels - truth.ignored.flatten(2).sum(dim=2)).clamp_(min=1)


def reduced(values: torch.Tensor, reduction: str, batch: bool) -> torch.Tensor:
    """Reduce one value per sample (and class) as ``batch`` and ``reduction`` say."""
    if batch:
        values = values.mean(dim=0)
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


def takes_one_dot(one: torch.Tensor, other: torch.Tensor, reduction: str) -> bool:
    """Whether an accelerator can reduce a product in one pass that stores nothing.

    Not on the CPU, where BLAS adds a whole volume up in float32 without compensation.
    """
    if one.device.type == "cpu" or torch.compiler.is_compiling() or reduction == "none":
        return False
    is_dense = one.is_contiguous() and other.is_contiguous() and one.dtype == other.dtype
    return is_dense and 0 < one.numel() <= _LONGEST_DOT


def reduced_by_dot(one: torch.Tensor, other: torch.Tensor, reduction: str, batch: bool) -> torch.Tensor:
    """The reduced mean over all voxels of a product ``[B, K, *S]``, if :func:`takes_one_dot`."""
    count = math.prod(one.shape[2:])
    if reduction == "mean":
        count = one.numel()
    elif batch:
        count *= one.shape[0]
    return torch.dot(one.flatten(), other.flatten()) / count


def class_weights(value: object) -> torch.Tensor:
    """Weights as float32 ``[K]`` or ``[B, K]``, on the device they are on.

    Raises:
        TypeError: not numbers.
        ValueError: another number of axes; on the CPU, weights that are negative or not finite, or all 0.
    """
    weights = _as_floats(value)
    if weights.ndim not in (1, 2) or weights.numel() == 0:
        raise ValueError(
            f"class_weights: must be [K] or, per sample, [B, K], got shape {tuple(weights.shape)}"
        )
    if weights.device.type == "cpu" and not torch.compiler.is_compiling():
        known = bool(((weights >= 0) & weights.isfinite()).all())
        if not (known and bool(weights.any())):
            raise ValueError(
                "class_weights: must be at least 0 and finite, and one of them positive, "
                f"got {weights.tolist()}"
            )
    return weights


def fitting_weights(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The weights on the device of ``values``, ``[B, K]``.

    Raises:
        ValueError: shapes that do not fit.
    """
    batch, classes = values.shape[:2]
    if weights.shape[-1] != classes:
        raise ValueError(
            f"class_weights: must have one value per channel that counts ({classes}), got {weights.shape[-1]}"
        )
    if weights.ndim == 2 and weights.shape[0] != batch:
        raise ValueError(f"class_weights: must have one row per sample ({batch}), got {weights.shape[0]}")
    return weights.to(values.device, non_blocking=True)


def _as_floats(value: object) -> torch.Tensor:
    dtype = getattr(value, "dtype", None)
    if dtype in (torch.bool, np.bool_) or getattr(dtype, "is_complex", False):
        raise TypeError(f"class_weights: must hold numbers, got dtype {dtype}")
    if isinstance(value, torch.Tensor):
        return value.detach().to(torch.float32)
    try:
        return torch.as_tensor(_listed(value), dtype=torch.float32, device="cpu")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"class_weights: must be None, numbers or rows of equal length, got {value!r}"
        ) from error


def _listed(value: object) -> object:
    """Return nested lists of plain numbers; torch cannot convert lists of 0-d tensors of mixed types."""
    if isinstance(value, (list, tuple, np.ndarray, torch.Tensor)) and getattr(value, "ndim", 1) > 0:
        return [_listed(item) for item in value]
    return _validate.number("class_weights", value)
