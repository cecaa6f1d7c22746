"""The volumes that are timed: batches as nnU-Net makes them, large scans, phantoms, a real label map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastsdm import testing
from fastsdm.data import mni_icbm152
from fastsdm.testing import Array

_LARGEST_TILE = 256


@dataclass(frozen=True)
class MapCase:
    """One input of a timing.

    Attributes:
        name: what `--cases` and the results call it.
        title: what tables and plots show.
        shape: `[B, *S]` of the labels.
        classes: label values that get a map each; None for a mask.
        spacing: voxel size along each axis.
        make: builds the labels, uint8, the same on every call.
        quick: part of a `--quick` run.
        max_distance: where our maps of it are clamped; peers have no such option.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    classes: tuple[int, ...] | None
    spacing: tuple[float, float, float]
    make: Callable[[], Array]
    quick: bool = False
    max_distance: float | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """The label values that count as inside, one per map."""
        return (1,) if self.classes is None else self.classes

    @property
    def map_voxels(self) -> int:
        """Voxels of the result: samples x classes x volume."""
        return math.prod(self.shape) * len(self.values)

    @property
    def floor_bytes(self) -> int:
        """What no program can avoid: reading the labels (one byte each) and writing the map in float32."""
        return math.prod(self.shape) + 4 * self.map_voxels


def tiled_blobs(shape: tuple[int, ...], *, fraction: float = 0.2, seed: int = 0) -> Array:
    """`testing.blobs`; it is periodic, so axes over 256 voxels repeat a smaller one without a seam."""
    repeats = [math.ceil(size / _LARGEST_TILE) for size in shape]
    tile = [math.ceil(size / count) for size, count in zip(shape, repeats, strict=True)]
    whole = np.tile(testing.blobs(tile, fraction=fraction, seed=seed), repeats)
    return np.ascontiguousarray(whole[tuple(slice(0, size) for size in shape)])


def organs(shape: tuple[int, ...], *, classes: int, fraction: float = 0.1, seed: int = 0) -> Array:
    """A label map of blobs over background 0; a later class lies on top of the earlier ones."""
    labels = np.zeros(shape, np.uint8)
    for value in range(1, classes):
        labels[tiled_blobs(shape, fraction=fraction, seed=1000 * seed + value) > 0] = value
    return labels


def organ_batch(batch: int, shape: tuple[int, ...], *, classes: int) -> Array:
    """`batch` different label maps."""
    return np.stack([organs(shape, classes=classes, seed=seed) for seed in range(batch)])


def mask_case(
    name: str,
    title: str,
    shape: tuple[int, ...],
    make: Callable[[], Array],
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    quick: bool = False,
) -> MapCase:
    """A case of one mask of that shape."""
    return MapCase(name, title, (1, *shape), None, spacing, lambda: make()[None], quick)


def blob_case(size: int, *, quick: bool = False) -> MapCase:
    """Blobs in a cube, the phantom of the scaling curves."""
    shape = (size,) * 3
    return mask_case(f"blobs-{size}", f"blobs {size}³", shape, lambda: tiled_blobs(shape), quick=quick)


def organ_case(batch: int, shape: tuple[int, int, int], classes: int, *, quick: bool = False) -> MapCase:
    """A batch of label maps as a patch-based trainer makes it."""
    size = "x".join(map(str, shape)) if len(set(shape)) > 1 else f"{shape[0]}³"
    return MapCase(
        name=f"batch-{batch}-classes-{classes}-{'x'.join(map(str, shape))}",
        title=f"{batch} x {classes} classes x {size}",
        shape=(batch, *shape),
        classes=tuple(range(classes)),
        spacing=(1.0, 1.0, 1.0),
        make=lambda: organ_batch(batch, shape, classes=classes),
        quick=quick,
    )


def _cube(size: int) -> tuple[int, int, int]:
    return (size, size, size)


_CASES = (
    blob_case(128, quick=True),
    mask_case("voxel-128", "one voxel 128³", _cube(128), lambda: testing.one_voxel(_cube(128)), quick=True),
    mask_case("vessels-128", "thin vessels 128³", _cube(128), lambda: testing.vessels(_cube(128))),
    mask_case(
        "shells-128",
        "nested shells 128³",
        _cube(128),
        lambda: testing.shells(_cube(128), classes=2, thickness=5),
    ),
    mask_case("noise-128", "random noise 128³", _cube(128), lambda: testing.noise(_cube(128)), quick=True),
    mask_case("empty-128", "all empty 128³", _cube(128), lambda: np.zeros(_cube(128), np.uint8), quick=True),
    organ_case(2, (128, 128, 128), 4),
    organ_case(2, (80, 192, 160), 4),
    mask_case(
        "ct-64x512x512",
        "CT 64x512x512, (3, 0.8, 0.8) mm",
        (64, 512, 512),
        lambda: tiled_blobs((64, 512, 512)),
        spacing=(3.0, 0.8, 0.8),
    ),
    blob_case(256),
    mask_case("voxel-256", "one voxel 256³", _cube(256), lambda: testing.one_voxel(_cube(256))),
    MapCase(
        name="mni",
        title="MNI brain, 3 classes, 197x233x189",
        shape=(1, 197, 233, 189),
        classes=(0, 1, 2),
        spacing=(1.0, 1.0, 1.0),
        make=lambda: mni_icbm152().labels[None],
        quick=True,
    ),
    mask_case(
        "blobs-1024x256x256", "blobs 1024x256x256", (1024, 256, 256), lambda: tiled_blobs((1024, 256, 256))
    ),
    blob_case(512),
)
#: By name, smallest first: the rate on one case predicts the time of the next.
CASES = {case.name: case for case in sorted(_CASES, key=lambda case: case.map_voxels)}
