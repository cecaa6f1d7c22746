"""Area of the surface element that passes through a cell of 2 x 2 (x 2) voxel centres.

The element is the one that marching cubes makes (Lorensen and Cline 1987, doi:10.1145/37402.37422), with its
corners halfway between voxel centres. The triangulation of the ambiguous cells is that of DeepMind's
surface-distance (Nikolov et al. 2021, doi:10.2196/26151), so that areas are equal to theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import numpy as np
import torch

#: Normals of the triangles, scaled by eight times the area at unit spacing, by the corners that are inside.
#: Corner ``4 x + 2 y + z``; all other cells are mirrored, turned or inverted ones.
_NORMALS: dict[tuple[int, ...], tuple[tuple[int, int, int], ...]] = {
    (7,): ((1, 1, 1),),
    (6, 7): ((2, 2, 0), (2, 2, 0)),
    (5, 6): ((1, 1, 1), (1, 1, 1)),
    (5, 6, 7): ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    (4, 5, 6, 7): ((4, 0, 0), (4, 0, 0)),
    (3, 5, 6): ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    (3, 5, 6, 7): ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    (3, 4): ((1, 1, 1), (1, 1, 1)),
    (3, 4, 7): ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    (3, 4, 6, 7): ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    (3, 4, 5, 6): ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    (2, 3, 4, 5): ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)),
    (1, 2, 4, 7): ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
}


def surface_area(spacing: Sequence[float]) -> torch.Tensor:
    """Area (3D) or contour length (2D) of the element in a cell, by the cell's code.

    Args:
        spacing: voxel size along each of the 2 or 3 axes.

    Returns:
        ``[2 ** 2 ** ndim]`` float32 on the CPU; bit ``i`` of a code says whether corner ``i`` is inside, with
        corners numbered along the last axis first.
    """
    return _contour_lengths(spacing) if len(spacing) == 2 else _areas(spacing)


def _contour_lengths(spacing: Sequence[float]) -> torch.Tensor:
    diagonal = math.hypot(*spacing) / 2
    lengths = [diagonal] * 16
    lengths[0b0000] = lengths[0b1111] = 0.0
    lengths[0b0011] = lengths[0b1100] = spacing[1]
    lengths[0b0101] = lengths[0b1010] = spacing[0]
    lengths[0b0110] = lengths[0b1001] = 2 * diagonal
    return torch.tensor(lengths, dtype=torch.float32, device="cpu")


def _areas(spacing: Sequence[float]) -> torch.Tensor:
    x, y, z = spacing
    vectors = _normals_of_every_code() * np.array([y * z, x * z, x * y])
    areas = np.sqrt((vectors**2).sum(axis=-1)).sum(axis=-1)
    return torch.from_numpy(areas.astype(np.float32))


@cache
def _normals_of_every_code() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """``[256, 4, 3]``: absolute components, zero where a cell has fewer triangles."""
    normals = np.zeros((256, 4, 3))
    for corners, triangles in _NORMALS.items():
        inside = np.zeros(8, bool)
        inside[list(corners)] = True
        cell = inside.reshape(2, 2, 2)
        for axes, mirrored in product(permutations(range(3)), product((False, True), repeat=3)):
            turned = np.flip(cell.transpose(axes), tuple(axis for axis in range(3) if mirrored[axis]))
            components = np.array(triangles, float)[:, list(axes)] / 8
            for variant in (turned, ~turned):
                code = int((variant.ravel() << np.arange(8)).sum())
                normals[code, : len(triangles)] = components
    return normals
