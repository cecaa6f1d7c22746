"""Volumes with stored maps, for the tests of several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsdm import testing
from fastsdm.data import (
    PatchSampler,
    StoredMaps,
    Volume,
    precompute,
)

SHAPE, SIZE = (24, 26, 40), (16, 12, 14)
SPACING = (2.0, 1.0, 0.75)
SETTINGS = {"max_distance": 5.0, "convention": "midline"}
FORMATS = [".npy", ".zarr", ".nii"]


def labels(shape=SHAPE, seed=0) -> np.ndarray:
    return testing.blobs(shape, sigma=3, seed=seed) + testing.blobs(
        shape, sigma=2, fraction=0.05, seed=seed + 1
    )


def stored_volume(folder: Path, values: np.ndarray, *, spacing=SPACING, suffix=".npy", classes=3, **settings):
    """The volume with the map that was stored for it."""
    folder.mkdir(exist_ok=True, parents=True)
    np.save(folder / "case.npy", values)
    report = precompute(
        folder / "case.npy", folder / "maps", classes=classes, spacing=spacing, suffix=suffix, **settings
    )
    assert not report.failed
    stored = StoredMaps(folder / "maps").of(folder / "case.npy")
    return Volume(values.astype(np.float32) / 2, values, spacing, stored)


def drawn(dataset, count=12, **options):
    return list(PatchSampler(dataset, patches_per_epoch=count, seed=4, **options))


def cut(array, start, size=SIZE):
    return array[(..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))]
