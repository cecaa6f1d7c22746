"""Distances between surfaces in C++ (see ``cpp/surface.cpp``), without a map of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastsdm._backends.native import pattern

#: Most bytes that one call keeps for masks and surfaces; more classes take further calls.
_MEMORY = 1 << 28


@dataclass(frozen=True)
class SurfaceElements:
    """The elements of one surface, in the order of the volume.

    Attributes:
        count: number of elements.
        distances: ``[count]`` float32, to the other surface, infinite if that has no element; ``[0]`` if they
            were not measured.
        codes: ``[count]`` uint8 for elements between voxels: which corners of the cell are inside, one bit
            each, last axis first; otherwise ``[0]``.
    """

    count: int
    distances: np.ndarray[Any, Any]
    codes: np.ndarray[Any, Any]


def surface_distances(
    prediction: torch.Tensor,
    reference: torch.Tensor,
    classes: Sequence[tuple[int, int | None]],
    spacing: Sequence[float],
    *,
    use_subvoxels: bool,
    symmetric: bool,
    threads: int | None = None,
    isa: str | None = None,
) -> list[tuple[SurfaceElements, SurfaceElements]]:
    """Measure the surfaces of each class in two volumes against each other.

    Args:
        prediction: ``[C, *S]`` on the CPU, with 2 or 3 spatial axes, any strides; bool, integers, float32 or
            float64.
        reference: likewise.
        classes: channel and label value of each class; with None for the value, labels above 0, or floats
            above 0.5.
        spacing: voxel size along each axis.
        use_subvoxels: the surface passes between the voxels, and its elements are cells of 2 x 2 (x 2) voxels
            of both phases; else they are the inside voxels with a face neighbour outside.
        symmetric: whether the reference's elements are measured, too.
        threads: how many to use at most; None for ``torch.get_num_threads()``.
        isa: instruction set that reads the labels and makes maps; None for the best this CPU has.

    Returns:
        The surfaces of prediction and reference for each class.

    Raises:
        ValueError: float labels that are NaN; or the CPU does not have ``isa``.
        MemoryError: there is no room for the surfaces.
    """
    from fastsdm._backends import _native_ext  # noqa: PLC0415 (unavailable() answers where it is missing)

    shape = prediction.shape[1:]
    planar = len(shape) == 2
    found: list[Any] = []
    row_bytes = 8 * (shape[-1] // 64 + 3)
    together = max(1, _MEMORY // (4 * row_bytes * max(1, int(np.prod(shape[:-1])))))
    for first in range(0, len(classes), together):
        group = classes[first : first + together]
        found += _native_ext.surface_distances(
            _as_solid(prediction),
            _as_solid(reference),
            [channel for channel, _ in group],
            [[_pattern(value, volume.dtype) for _, value in group] for volume in (prediction, reference)],
            (1.0, spacing[0], spacing[1]) if planar else (spacing[0], spacing[1], spacing[2]),
            planar=planar,
            between=use_subvoxels,
            symmetric=symmetric,
            threads=torch.get_num_threads() if threads is None else threads,
            isa=isa,
        )
    elements = [SurfaceElements(*each) for each in found]
    return list(zip(elements[::2], elements[1::2], strict=True))


def _as_solid(volume: torch.Tensor) -> np.ndarray[Any, Any]:
    """``[C, D, H, W]``: 2D is a volume of one slice."""
    return (volume.unsqueeze(1) if volume.ndim == 3 else volume).numpy()


def _pattern(value: int | None, dtype: torch.dtype) -> tuple[int, int] | None:
    return None if dtype.is_floating_point else pattern(value, dtype)
