"""Numbers and class values that the `triton` backend passes to its kernels, and the table of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fastsdm._backends.contract import Finish, SpacingRows

#: ratio, limit, area, shift inside, shift outside, missing: a search's numbers for one sample.
Numbers: TypeAlias = tuple[float, float, float, float, float, float]


def is_run(values: Sequence[int]) -> bool:
    """Return whether class values are ``lo``, ``lo + 1``, ..., each within 32 bits, or none."""
    if not values:
        return True
    low, count = values[0], len(values)
    return low >= -(2**31) and low + count <= 2**31 and list(values) == list(range(low, low + count))


def search_numbers(
    axis: int, spacing: SpacingRows, max_distance: float | None, finish: Finish
) -> list[Numbers]:
    """Return a search's numbers: one row for all samples, or one per sample.

    A search measures in voxels of its own axis. At equal spacing all distances are then whole numbers, which
    float32 adds without rounding.
    """
    rows = max(len(spacing), len(finish.shifts), len(finish.missing))
    numbers: list[Numbers] = []
    for i in range(rows):
        steps = spacing[i % len(spacing)]
        shift = finish.shifts[i % len(finish.shifts)]
        unit = steps[axis]
        ratio = steps[axis + 1] / unit
        numbers.append(
            (
                ratio * ratio,
                math.inf if max_distance is None else max_distance / unit,
                unit * unit,
                shift,
                shift if finish.both_sides else 0.0,
                finish.missing[i % len(finish.missing)],
            )
        )
    return numbers


def table_of(
    values: Sequence[int], numbers: list[list[Numbers]], labels_dtype: torch.dtype
) -> npt.NDArray[np.float32] | None:
    """Return class values, then the numbers per sample of each search, flat; None if there are none.

    Class values are 64-bit integers, viewed as pairs of float32.
    """
    rows = [row for search in numbers if len(search) > 1 for row in search]
    if not values and not rows:
        return None
    with np.errstate(over="ignore"):  # a limit beyond float32 becomes infinite
        per_sample = np.array(rows, np.float64).astype(np.float32).ravel()
    return np.concatenate([_class_values(values, labels_dtype).view(np.float32), per_sample])


def _class_values(values: Sequence[int], labels_dtype: torch.dtype) -> npt.NDArray[np.int64]:
    """Return the values as the kernel compares them."""
    if labels_dtype.itemsize < 4:  # compared in 32 bits; no label of 16 bits equals the clamped values
        values = [min(max(value, -(2**31)), 2**31 - 1) for value in values]
    return np.array([value - 2**64 if value >= 2**63 else value for value in values], np.int64)
