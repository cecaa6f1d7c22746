"""The gate: a contender is timed only after its map was compared with scipy's, in the same run.

And the histogram of the errors of jump flooding, which is not exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

import fastsdm
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


_UNIT, _CT = (1.0, 1.0, 1.0), (3.0, 0.8, 0.7)
#: Upper edges of the bins, in the smallest spacing; the first bin holds what is right up to rounding.
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, float("inf"))


@dataclass(frozen=True)
class ErrorHistogram:
    """Absolute errors of one phantom.

    Attributes:
        phantom: its name.
        voxels: how many were compared.
        counts: voxels per bin; `counts[0]` are exact, bin `i` is above `EDGES[i - 1]` up to `EDGES[i]`.
        largest: the largest error, in the smallest spacing.
    """

    phantom: str
    voxels: int
    counts: list[int]
    largest: float


#: Mask of a cube of that edge, and its spacing: what jump flooding finds hard.
PHANTOMS: dict[str, tuple[Callable[[tuple[int, ...]], Array], tuple[float, float, float]]] = {
    "blobs": (testing.blobs, _UNIT),
    "blobs, 3 x 0.8 x 0.7": (testing.blobs, _CT),
    "thin vessels, 3 x 0.8 x 0.7": (testing.vessels, _CT),
    "0.1 % of the voxels": (partial(testing.noise, fraction=0.001), _UNIT),
}


def error_histogram(phantom: str, device: torch.device, size: int) -> ErrorHistogram:
    """Errors of jump flooding, the backend that is not exact, on one of `PHANTOMS`."""
    approximate = next(name for name, status in fastsdm.backends().items() if not status.exact)
    make, spacing = PHANTOMS[phantom]
    mask = make((size,) * 3)
    target = torch.from_numpy(mask).to(device)
    maps = fastsdm.signed_distance(target, spacing=spacing, convention="plain", backend=approximate)
    truth = testing.reference_signed_distance(mask[None], (1,), np.array([spacing]))[0, 0]
    errors = np.abs(maps.cpu().numpy() - truth)
    errors[errors <= testing.ROUNDING * np.abs(truth)] = 0
    errors /= min(spacing)
    counts = [int((errors == 0).sum())]
    counts += [int(((errors > low) & (errors <= high)).sum()) for low, high in pairwise(EDGES)]
    return ErrorHistogram(phantom, errors.size, counts, float(errors.max()))
