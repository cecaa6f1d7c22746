"""The gate: a contender is timed only after its map was compared with scipy's, in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from benchmarks.measure.cases import MapCase
from fastsdm import testing
from fastsdm.testing import Agreement, Array, Tolerance

#: What of a contender's map means the same as ours: all of it, or the outside distances only.
Half: TypeAlias = Literal["signed", "outside"]


@dataclass(frozen=True)
class Reference:
    """True distances: of every voxel, or of a sample.

    Attributes:
        values: float64, `[B, K, *S]` or one per sampled voxel.
        points: indices into `[B, K, *S]`, or None for all voxels.
        case: whose truth this is.
        scipy_s: seconds that scipy took for all voxels; None where it did not make them.
    """

    values: Array
    points: tuple[Array, ...] | None
    case: MapCase
    scipy_s: float | None = None

    def __str__(self) -> str:
        return "every voxel" if self.points is None else f"{len(self.values)} voxels"

    def agreement(self, maps: Array, tolerance: Tolerance, half: Half = "signed") -> Agreement:
        """How well a plain map `[B, K, *S]`, clamped at the case's `max_distance`, agrees."""
        got = maps if self.points is None else maps[self.points]
        limit = self.case.max_distance
        truth = self.values if limit is None else self.values.clip(-limit, limit)
        if half == "outside":
            got, truth = got[truth > 0], truth[truth > 0]
        return testing.agreement(got, truth, np.asarray(self.case.spacing), tolerance)


def sampled_reference(case: MapCase, labels: Array, *, voxels: int = 20_000, seed: int = 0) -> Reference:
    """Random voxels, by a search tree over the border voxels of the other phase: exact, and quick anywhere.

    The nearest voxel of the other phase always has a face neighbour of the voxel's own phase, or a step
    towards the voxel would lead to a nearer one.
    """
    rng = np.random.default_rng(seed)
    each = max(1, voxels // (len(labels) * len(case.values)))
    points, values = [], []
    for b, k in np.ndindex(len(labels), len(case.values)):
        inside = labels[b] == case.values[k]
        where = np.stack([rng.integers(0, size, each) for size in inside.shape], axis=1)
        points.append(np.column_stack([np.full(each, b), np.full(each, k), where]))
        values.append(_signed_distance_at(where, inside, case.spacing))
    return Reference(np.concatenate(values), tuple(np.concatenate(points).T), case)


def _signed_distance_at(where: Array, inside: Array, spacing: Sequence[float]) -> Array:
    if inside.all() or not inside.any():
        return np.full(len(where), -np.inf if inside.any() else np.inf)
    is_inside = inside[tuple(where.T)]
    distances = np.empty(len(where))
    for phase in (False, True):
        queries = where[is_inside == phase]
        others = inside != phase
        border = np.argwhere(others & ~ndimage.binary_erosion(others, border_value=1))
        nearest, _ = cKDTree(border * spacing).query(queries * np.asarray(spacing))
        distances[is_inside == phase] = -nearest if phase else nearest
    return distances
