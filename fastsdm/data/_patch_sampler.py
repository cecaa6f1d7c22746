"""Where training patches are taken: drawn from one seed, biased towards the foreground."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from fastsdm import _validate
from fastsdm._errors import shown
from fastsdm.data._patch_dataset import PatchDataset, PatchPosition
from fastsdm.data._volume import PaddedSource

#: Voxels of a class that are remembered per volume; a class that has more is represented by a sample.
_REMEMBERED = 10_000
#: Slices along the first axis that are searched for foreground at a time.
_SLAB = 16


class PatchSampler(Sampler[PatchPosition]):
    """Draw the positions of an epoch's patches, for ``DataLoader(dataset, sampler=...)``.

    All positions come from the process that iterates the loader, and a patch is a function of its position:
    the same ``seed`` gives the same patches whatever the number of workers and however they were started.
    Every epoch draws new ones.

    The volume of a patch is chosen uniformly. With probability ``foreground`` the patch is centred on a
    random voxel of a random foreground class of that volume, and moved where it would reach past the volume's
    edge. Otherwise, and in a volume without foreground, its position is uniform.

    The labels are read once, slab by slab, to find the foreground.

    Args:
        dataset: the data set whose patches are drawn.
        patches_per_epoch: number of patches, of all processes together.
        foreground: share of patches that are centred on a foreground voxel.
        foreground_classes: which label values are foreground; None for the dataset's ``classes``, without 0,
            ``ignore_index`` and ``pad_label`` (for a mask: all positive values).
        seed: of all draws, at least 0.
        rank: index of this process in distributed training.
        world_size: number of processes. Each takes every ``world_size``-th position, and all take equally
            many.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range, or a foreground class that no volume holds.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        *,
        patches_per_epoch: int,
        foreground: float = 1 / 3,
        foreground_classes: Sequence[int] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not isinstance(dataset, PatchDataset):
            raise TypeError(f"dataset: must be a PatchDataset, got {type(dataset).__name__}")
        if foreground_classes is not None:
            foreground_classes = _labels("foreground_classes", foreground_classes)
        patches_per_epoch = _validate.integer("patches_per_epoch", patches_per_epoch)
        seed, rank = _validate.integer("seed", seed), _validate.integer("rank", rank)
        world_size = _validate.integer("world_size", world_size)
        foreground = _validate.number("foreground", foreground)
        if patches_per_epoch < 1:
            raise ValueError(f"patches_per_epoch: must be at least 1, got {patches_per_epoch}")
        if not 0 <= foreground <= 1:
            raise ValueError(f"foreground: must be from 0 to 1, got {foreground}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if patches_per_epoch % world_size:
            raise ValueError(
                f"patches_per_epoch: must be a multiple of world_size = {world_size} (else processes wait "
                f"for each other), got {patches_per_epoch}"
            )
        if seed < 0:
            raise ValueError(f"seed: must not be negative, got {seed}")
        self._size, self._sources = dataset.size, dataset.label_sources
        self._count, self._foreground, self._seed = patches_per_epoch, foreground, seed
        self._rank, self._world_size = rank, world_size
        self._epoch = 0
        wanted = dataset.classes if foreground_classes is None else foreground_classes
        unwanted = {0, dataset.ignore_index} if foreground_classes is None else set()
        found = [
            _foreground_voxels(source, wanted, unwanted, seed) if foreground > 0 else {}
            for source in self._sources
        ]
        absent = set(foreground_classes or ()).difference(*found)
        if foreground > 0 and absent:
            raise ValueError(
                f"foreground_classes: every class must be in a volume, {sorted(absent)} are in none"
            )
        self._voxels = [list(classes.values()) for classes in found]

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one, for a resumed training; by default epochs count from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Positions that this process draws per epoch."""
        return len(range(self._rank, self._count, self._world_size))

    def __iter__(self) -> Iterator[PatchPosition]:
        """The positions of the next epoch."""
        rng = np.random.default_rng([self._seed, self._epoch])
        self._epoch += 1
        positions = [self._position(rng) for _ in range(self._count)]
        return iter(positions[self._rank :: self._world_size])

    def _position(self, rng: np.random.Generator) -> PatchPosition:
        volume = int(rng.integers(len(self._sources)))
        source, classes = self._sources[volume], self._voxels[volume]
        room = np.subtract(source.shape, self._size)
        if classes and rng.random() < self._foreground:
            voxels = classes[rng.integers(len(classes))]
            centre = np.unravel_index(voxels[rng.integers(len(voxels))], source.shape)
            start = np.clip(np.subtract(centre, np.floor_divide(self._size, 2)), 0, room)
        else:
            start = rng.integers(0, room, endpoint=True)
        start = start - source.before
        return PatchPosition(volume, tuple(start.tolist()), int(rng.integers(2**63)))


def _labels(name: str, values: object) -> list[int]:
    if not isinstance(values, Iterable) or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"{name}: must be None or a sequence of label values, got {shown(values)}")
    return [_validate.integer(name, value) for value in values]


def _foreground_voxels(
    source: PaddedSource, classes: Sequence[int] | None, unwanted: set[int | None], seed: int
) -> dict[int, NDArray[np.int64]]:
    """Indices, in the flat padded volume, of voxels of each foreground class that it holds."""
    rng = np.random.default_rng(seed)
    kept: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    stride = math.prod(source.shape[1:])
    for first in range(0, source.shape[0], _SLAB):
        last = min(first + _SLAB, source.shape[0])
        slab = source[(slice(first, last), *(slice(0, n) for n in source.shape[1:]))].cpu().numpy()
        for value in np.unique(slab).tolist():
            if value in unwanted or (unwanted and value == source.fill):
                continue
            if value <= 0 if classes is None else value not in classes:
                continue
            voxels = np.flatnonzero(slab == value) + first * stride
            keys = rng.random(len(voxels))
            if value in kept:
                voxels = np.concatenate([kept[value][0], voxels])
                keys = np.concatenate([kept[value][1], keys])
            # The voxels with the smallest of independent keys are a uniform sample, however many slabs.
            chosen = np.argsort(keys)[:_REMEMBERED]
            kept[value] = (voxels[chosen], keys[chosen])
    return {value: kept[value][0] for value in sorted(kept)}
