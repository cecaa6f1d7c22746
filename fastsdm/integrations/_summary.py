"""What labels hold and how far a map reaches, put together from blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_FEW_CLASSES = 32


@dataclass
class Census:
    """How many voxels are not ignored, and how many of them each class has (None: the mask).

    ``negative`` counts negative labels, which are outside of a mask; it is 0 with classes.
    """

    voxels: int
    inside: dict[int | None, int]
    negative: int = 0

    @classmethod
    def of(cls, labels: Array, classes: Sequence[int] | None) -> Census:
        """Count the voxels of each class among labels that are not ignored."""
        if classes is None:
            has_sign = labels.dtype.kind == "i" and labels.min(initial=0) < 0
            negative = int(np.count_nonzero(labels < 0)) if has_sign else 0
            return cls(labels.size, {None: int(np.count_nonzero(labels)) - negative}, negative)
        if len(classes) <= _FEW_CLASSES:  # a pass for each is faster than sorting all voxels
            return cls(labels.size, {value: int(np.count_nonzero(labels == value)) for value in classes})
        found = dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))
        return cls(labels.size, {value: found.get(value, 0) for value in classes})

    def include(self, other: Census) -> None:
        """Add what another part of the same labels holds."""
        self.voxels += other.voxels
        self.negative += other.negative
        for value, count in other.inside.items():
            self.inside[value] += count

    def lacks(self, value: int | None, sign: int) -> bool:
        """Whether a class has no inside (1) or no outside voxel (-1)."""
        return self.inside[value] == (0 if sign > 0 else self.voxels)

    def missing(self, value: int | None) -> int:
        """1 for a class without inside voxels, -1 for one without outside voxels, else 0."""
        return 1 if self.lacks(value, 1) else -1 if self.lacks(value, -1) else 0

    def refuse_missing(self) -> None:
        """Raise ValueError where a class has no inside or no outside voxel."""
        for value in self.inside:
            if self.missing(value):
                lacks = "inside" if self.missing(value) > 0 else "outside"
                who = "the mask" if value is None else f"class {value}"
                raise ValueError(
                    "empty='raise': every class needs inside and outside voxels, "
                    f"but {who} has no {lacks} voxel"
                )


@dataclass
class Extent:
    """The smallest and largest finite distance of a map; ``inf`` and ``-inf`` where there is none."""

    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, maps: Array) -> Extent:
        """The smallest and largest finite distance."""
        finite = maps[np.isfinite(maps)]
        return cls(float(finite.min()), float(finite.max())) if finite.size else cls()

    def include(self, other: Extent) -> None:
        """Add what another part of the same map holds."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
