"""Checks of the voxel size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from fastsdm._errors import shown
from fastsdm._types import SpacingLike
from fastsdm._validate.values import is_number

# Squares of spacings and of their ratios stay well within float32.
_SPACING_RANGE = (1e-12, 1e12)
_SPACING_RATIO = 1e9


def spacing_row(value: SpacingLike, ndim: int) -> list[float] | None:
    """Spacing that is one number or ``ndim`` of them, checked; None for what :func:`spacing_rows` reads.

    Raises:
        ValueError: a value out of range.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf":
        value = value.tolist()
    if is_number(value):
        row = [float(value)] * ndim  # type: ignore[arg-type]  # a number, as was just seen
    elif isinstance(value, (tuple, list)) and len(value) == ndim and all(map(is_number, value)):
        row = [float(number) for number in value]
    else:
        return None
    _spacing_numbers(row)
    return row


def spacing_rows(value: SpacingLike, leading: Sequence[int], ndim: int) -> torch.Tensor:
    """Spacing of every sample, ``[prod(leading), ndim]`` float64 on the CPU.

    Only shape and type are checked: the values of a tensor may be unknown while a graph is traced.

    Raises:
        TypeError: not numbers.
        ValueError: a shape that is neither scalar, ``[ndim]``, nor ``[*first leading axes, ndim]``;
            or a tensor on an accelerator.
    """
    rows = spacing_tensor(value)
    leading = tuple(leading)
    if rows.ndim == 0:
        rows = rows.expand(ndim)
    per_sample = tuple(rows.shape[:-1])
    if rows.shape[-1] != ndim or per_sample != leading[: len(per_sample)]:
        raise ValueError(
            f"spacing: must be a number, {ndim} numbers (one per spatial axis), or one such row per sample "
            f"with leading axes {leading}; got shape {tuple(rows.shape)}"
        )
    rows = rows.reshape(*per_sample, *(1 for _ in leading[len(per_sample) :]), ndim)
    return rows.expand(*leading, ndim).reshape(-1, ndim) if leading else rows.reshape(1, ndim)


def spacing_values(spacing: torch.Tensor) -> None:
    """Raise ValueError unless every value is positive, and its square and those of ratios fit float32.

    Args:
        spacing: ``[B, ndim]`` on the CPU.
    """
    for row in spacing.tolist():
        _spacing_numbers(row)


def spacing_tensor(value: SpacingLike) -> torch.Tensor:
    """The numbers as float64 on the CPU; their shape and range are not looked at.

    Raises:
        TypeError: not numbers, or rows that differ in length.
        ValueError: a tensor on an accelerator.
    """
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise ValueError(
                f"spacing: must be on the CPU (reading it from {value.device} would stall that device); "
                "pass spacing.cpu()"
            )
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"spacing: must hold numbers, got dtype {value.dtype}")
        return value.detach().to(torch.float64)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iuf":
            raise TypeError(f"spacing: must hold numbers, got dtype {value.dtype}")
        return torch.from_numpy(np.array(value, dtype=np.float64))
    if isinstance(value, (bool, str)):
        raise TypeError(f"spacing: must be a number or numbers, got {shown(value)}")
    try:
        if isinstance(value, Sequence) and not all(map(is_number, value)):
            return torch.stack([spacing_tensor(row) for row in value])
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"spacing: must be a number or rows of equal length, got {shown(value)}") from error


def _spacing_numbers(row: Sequence[float]) -> None:
    low, high = _SPACING_RANGE
    for value in row:
        if not low <= value <= high:
            if not 0 < value < math.inf:
                raise ValueError(f"spacing: must be positive and finite, got {value!r}")
            raise ValueError(f"spacing: must lie between {low:g} and {high:g}, got {value!r}")
    if max(row) > _SPACING_RATIO * min(row):
        raise ValueError(f"spacing: axes may differ by a factor of {_SPACING_RATIO:g} at most, got {row}")
