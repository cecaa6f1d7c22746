"""Phantoms, the scipy reference in float64, the published recipe, and tolerances.

Used by the test suite, by ``fastsdm check`` and by the benchmarks, which refuse to time a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import ndimage

__all__ = [
    "APPROXIMATE",
    "EXACT",
    "ROUNDING",
    "Agreement",
    "Array",
    "Case",
    "Tolerance",
    "agreement",
    "blobs",
    "checkerboard",
    "hard_cases",
    "noise",
    "one_voxel",
    "published_map",
    "published_maps",
    "reference_signed_distance",
    "shells",
    "vessels",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """One input that backends are checked on: labels ``[B, *S]``, K classes, spacing ``[B, ndim]``."""

    name: str
    labels: Array
    classes: tuple[int, ...]
    spacing: Array

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.labels.ndim - 1


@dataclass(frozen=True)
class Tolerance:
    """How far a backend may be from the reference.

    Attributes:
        relative: largest allowed error, as a share of the true distance.
        voxels: the same in units of the largest spacing. A voxel may have the larger of the two errors.
        share_off: largest share of voxels that differ by more than float32 rounding.
    """

    relative: float
    voxels: float
    share_off: float


#: Two units in the last place of float32: the rounding of a squared distance and of its root.
ROUNDING = 2.4e-7
EXACT = Tolerance(relative=ROUNDING, voxels=0.0, share_off=0.0)
#: Jump flooding; docs/backends.md gives the measured errors.
APPROXIMATE = Tolerance(relative=0.01, voxels=1.0, share_off=0.001)


@dataclass(frozen=True)
class Agreement:
    """Comparison of a map with the reference: largest errors, share of voxels off, whether it passed."""

    max_abs: float
    max_rel: float
    share_off: float
    passed: bool


def reference_signed_distance(labels: Array, classes: Sequence[int], spacing: Array) -> Array:
    """Compute the plain map by scipy in float64.

    Args:
        labels: ``[B, *S]``.
        classes: K label values.
        spacing: ``[B, ndim]``.

    Returns:
        ``[B, K, *S]`` float64: ``+d_out`` outside, ``-d_in`` inside, infinite where a phase is missing.
    """
    maps = np.empty((labels.shape[0], len(classes), *labels.shape[1:]))
    for b, k in np.ndindex(maps.shape[:2]):
        inside = labels[b] == classes[k]
        if inside.all() or not inside.any():
            maps[b, k] = -np.inf if inside.any() else np.inf
            continue
        maps[b, k] = ndimage.distance_transform_edt(~inside, sampling=spacing[b])
        maps[b, k] -= ndimage.distance_transform_edt(inside, sampling=spacing[b])
    return maps


def published_map(mask: Array, spacing: Sequence[float] | None = None) -> Array:
    """Compute the map of one mask as the boundary loss's authors do in their data loader, by scipy.

    Written from the description in Kervadec et al. 2021, doi:10.1016/j.media.2020.101851. Equals
    ``convention="kervadec-literal"`` with ``empty="zero"``.

    Args:
        mask: ``[*S]`` bool.
        spacing: voxel size along each axis; None for 1.

    Returns:
        ``[*S]`` float32: ``d_out`` outside, ``-(d_in - 1)`` inside, zeros if the mask is empty or full.
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    outside = ~mask
    d_out = ndimage.distance_transform_edt(outside, sampling=spacing)
    d_in = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.asarray(d_out * outside - (d_in - 1) * mask, np.float32)


def published_maps(labels: Array, classes: Sequence[int]) -> Array:
    """:func:`published_map` of every sample and class: labels ``[B, *S]`` to ``[B, K, *S]``."""
    return np.stack([[published_map(sample == value) for value in classes] for sample in labels])


def agreement(got: Array, reference: Array, spacing: Array, tolerance: Tolerance) -> Agreement:
    """Compare a plain map with the reference; infinities and signs must be equal for every tolerance."""
    finite = np.isfinite(reference)
    same_rest = np.array_equal(got[~finite], reference[~finite]) and np.array_equal(
        np.sign(got[finite]), np.sign(reference[finite])
    )
    truth = np.abs(reference[finite])
    error = np.abs(got.astype(np.float64)[finite] - reference[finite])
    if error.size == 0:
        return Agreement(0.0, 0.0, 0.0, bool(same_rest))
    allowed = np.maximum(tolerance.relative * truth, tolerance.voxels * float(np.max(spacing)))
    share_off = float(np.mean(error > ROUNDING * truth))
    passed = same_rest and bool(np.all(error <= allowed)) and share_off <= tolerance.share_off
    return Agreement(float(error.max()), float(np.max(error / truth)), share_off, bool(passed))


def blobs(shape: Sequence[int], *, fraction: float = 0.2, sigma: float = 6.0, seed: int = 0) -> Array:
    """Organ-like mask, uint8: the highest ``fraction`` of smoothed noise."""
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    return (smooth > np.quantile(smooth, 1 - fraction)).astype(np.uint8)


def one_voxel(shape: Sequence[int]) -> Array:
    """A single foreground voxel, not in the centre."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(size // 3 for size in shape)] = 1
    return mask


def shells(shape: Sequence[int], *, classes: int = 4, thickness: float = 3.0) -> Array:
    """Nested shells around the centre, labels repeating 0 to ``classes - 1``."""
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    squared = np.zeros(shape)
    for axis, size in zip(axes, shape, strict=True):
        squared = squared + (axis - (size - 1) / 2) ** 2
    return np.asarray((np.sqrt(squared) / thickness).astype(np.int64) % classes)


def vessels(shape: Sequence[int], *, count: int = 12, seed: int = 0) -> Array:
    """Thin random walks, one voxel wide."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    limit = np.asarray(shape) - 1
    for _ in range(count):
        steps = rng.integers(-1, 2, size=(4 * max(shape), len(shape)))
        path = np.clip(rng.integers(0, shape) + np.cumsum(steps, axis=0), 0, limit)
        mask[tuple(path.T)] = 1
    return mask


def checkerboard(shape: Sequence[int]) -> Array:
    """Alternating voxels: every distance is the smallest spacing."""
    return np.asarray(np.indices(shape).sum(axis=0) % 2, dtype=np.uint8)


def noise(shape: Sequence[int], *, fraction: float = 0.5, seed: int = 0) -> Array:
    """Independent voxels, ``fraction`` of them foreground."""
    return (np.random.default_rng(seed).random(shape) < fraction).astype(np.uint8)


def hard_cases(size: int = 40) -> Iterator[Case]:
    """Inputs hard for distance transforms: sparse, dense, empty, full, flat, anisotropic, batched, 2D."""
    volume, flat = (size, size + 3, size - 7), (size, 2 * size + 1)
    unit = (1.0, 1.0, 1.0)
    yield _mask_case("blobs", blobs(volume, sigma=size / 12), unit)
    yield _mask_case("blobs, anisotropic", blobs(volume, sigma=size / 12, seed=1), (3.0, 0.8, 0.7))
    yield _mask_case("one voxel", one_voxel(volume), unit)
    yield _mask_case("one voxel, anisotropic", one_voxel(volume), (0.3, 2.5, 1.1))
    yield _mask_case("all but one voxel", 1 - one_voxel(volume), (1.5, 1.0, 1.0))
    yield _mask_case("vessels", vessels(volume), (1.0, 0.5, 0.5))
    yield _mask_case("checkerboard", checkerboard(volume), (1.0, 2.0, 3.0))
    yield _mask_case("noise", noise(volume), unit)
    yield _mask_case("rare noise", noise(volume, fraction=0.001), (2.0, 1.0, 1.0))
    yield _mask_case("empty", np.zeros(volume, np.uint8), unit)
    yield _mask_case("full", np.ones(volume, np.uint8), unit)
    yield _mask_case("thin volume", blobs((1, size, 2 * size), sigma=2), (5.0, 1.0, 1.0))
    yield _mask_case("a column", noise((size, 1, 1), fraction=0.1), (0.1, 1.0, 1.0))
    yield _mask_case("2D blobs", blobs(flat, sigma=4), (1.0, 1.0))
    yield _mask_case("2D, anisotropic", noise(flat, fraction=0.02), (0.7, 1.9))
    shelled = shells(volume).astype(np.int16)
    yield Case("shells, 5 classes, one absent", shelled[None], (0, 1, 2, 3, 7), np.array([unit]))
    batch = np.stack([shelled, blobs(volume, sigma=3, seed=2).astype(np.int16), np.full(volume, 2, np.int16)])
    spacing = np.array([unit, (2.0, 0.9, 0.9), (0.5, 0.5, 0.6)])
    yield Case("batch, spacing per sample", batch, (0, 1, 2), spacing)


def _mask_case(name: str, mask: Array, spacing: Sequence[float]) -> Case:
    return Case(name, mask[None], (1,), np.array([spacing]))
