"""From values per voxel to one per class, and from those to the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastsdm import _validate
from fastsdm.losses._target import Target

#: What BLAS takes as a length.
_LONGEST_DOT = 2**31 - 1
#: Voxels whose products stay in a core's cache, and which torch leaves to one thread.
_CPU_PIECE = 1 << 15


def voxel_mean(values: torch.Tensor, truth: Target) -> torch.Tensor:
    """Mean over the voxels that are not ignored, ``[B, K]``; ``values`` must be 0 where they are."""
    return _per_voxel(values.flatten(2).sum(dim=2), values.shape[2:], truth)


def reduced(values: torch.Tensor, reduction: str, batch: bool) -> torch.Tensor:
    """From one value per sample (and class) to what ``batch`` and ``reduction`` ask for."""
    if batch:
        values = values.mean(dim=0)
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


def voxel_mean_of_product(one: torch.Tensor, other: torch.Tensor, truth: Target) -> torch.Tensor:
    """:func:`voxel_mean` of a product, ``[B, K]``, which on the CPU is never stored as a whole.

    Args:
        one: ``[B, K, *S]``, 0 at ignored voxels.
        other: of the same shape; no gradient reaches it.
        truth: the target.
    """
    is_small = one.numel() <= _CPU_PIECE
    if one.device.type != "cpu" or is_small or torch.compiler.is_compiling():  # a compiler fuses by itself
        return voxel_mean(one * other, truth)
    sums: torch.Tensor = _ProductSums.apply(one, other)  # type: ignore[no-untyped-call]  # torch's
    return _per_voxel(sums, one.shape[2:], truth)


def takes_one_dot(one: torch.Tensor, other: torch.Tensor, reduction: str) -> bool:
    """Whether an accelerator can reduce a product in one pass that stores nothing.

    Not on the CPU, where BLAS adds a whole volume up in float32 without compensation.
    """
    if one.device.type == "cpu" or torch.compiler.is_compiling() or reduction == "none":
        return False
    is_dense = one.is_contiguous() and other.is_contiguous() and one.dtype == other.dtype
    return is_dense and 0 < one.numel() <= _LONGEST_DOT


def reduced_by_dot(one: torch.Tensor, other: torch.Tensor, reduction: str, batch: bool) -> torch.Tensor:
    """The reduced mean over all voxels of a product, where :func:`takes_one_dot` says so.

    Args:
        one: ``[B, K, *S]``.
        other: of the same shape; no gradient reaches it.
        reduction: ``"mean"`` or ``"sum"``; under ``"none"`` there is more than one sum.
        batch: whether the batch is averaged before the reduction.
    """
    count = math.prod(one.shape[2:])
    if reduction == "mean":
        count = one.numel()
    elif batch:
        count *= one.shape[0]
    return torch.dot(one.flatten(), other.flatten()) / count


class _ProductSums(torch.autograd.Function):
    """Sums over the voxels of a product, ``[B, K]``, piece by piece; a gradient for the first factor."""

    @staticmethod
    def forward(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        rows, others = one.flatten(2).flatten(0, 1), other.flatten(2).flatten(0, 1)
        voxels = rows.shape[1]
        dtype = torch.result_type(one, other)
        products = torch.empty(min(voxels, _CPU_PIECE), dtype=dtype, device=one.device)
        sums = torch.zeros(len(rows), -(-voxels // _CPU_PIECE), dtype=dtype, device=one.device)
        for first, second, total in zip(rows, others, sums, strict=True):
            for k, (a, b) in enumerate(zip(first.split(_CPU_PIECE), second.split(_CPU_PIECE), strict=True)):
                torch.mul(a, b, out=products[: len(a)])
                torch.sum(products[: len(a)], dim=0, out=total[k])
        return sums.sum(dim=1).reshape(one.shape[:2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (other,) = ctx.saved_tensors
        return gradient.reshape(*gradient.shape, *(1 for _ in other.shape[2:])) * other, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, _: None) -> torch.Tensor:
        (other,) = ctx.saved_tensors
        sums: torch.Tensor = (tangent * other).flatten(2).sum(dim=2)
        return sums


def _per_voxel(sums: torch.Tensor, shape: Sequence[int], truth: Target) -> torch.Tensor:
    voxels = math.prod(shape)
    if truth.ignored is None:
        return sums / voxels
    return sums / (voxels - truth.ignored.flatten(2).sum(dim=2)).clamp_(min=1)


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
    """Nested lists of plain numbers: torch reads no list of 0-d tensors of mixed types."""
    if isinstance(value, (list, tuple, np.ndarray, torch.Tensor)) and getattr(value, "ndim", 1) > 0:
        return [_listed(item) for item in value]
    return _validate.number("class_weights", value)
