"""What a call of the `triton` backend hands to its kernels: numbers, class values, and their table."""

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
    """A search's numbers: those of all samples, or of each.

    A search measures in voxels of its own axis: at equal spacing all its numbers are whole, and float32 adds
    them without rounding.
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
    """Class values (64-bit integers), then the numbers per sample of each search; None where there are none.

    Returns:
        Flat; the integers as the float32 numbers with their bits.
    """
    rows = [row for search in numbers if len(search) > 1 for row in search]
    if not values and not rows:
        return None
    with np.errstate(over="ignore"):  # a limit beyond float32 is none
        per_sample = np.array(rows, np.float64).astype(np.float32).ravel()
    return np.concatenate([_class_values(values, labels_dtype).view(np.float32), per_sample])


def _class_values(values: Sequence[int], labels_dtype: torch.dtype) -> npt.NDArray[np.int64]:
    """The values as the kernel compares them."""
    if labels_dtype.itemsize < 4:  # in 32 bits; what lies beyond equals no label there either
        values = [min(max(value, -(2**31)), 2**31 - 1) for value in values]
    return np.array([value - 2**64 if value >= 2**63 else value for value in values], np.int64)
