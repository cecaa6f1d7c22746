"""What a metric makes of the distances between two surfaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fastsdm import _validate
from fastsdm.metrics._surface import Array, Directed, SurfaceDistances


class Measure(Protocol):
    """A number for the surfaces of each class."""

    @property
    def symmetric(self) -> bool:
        """Whether it needs the distances from the reference's surface, too."""

    def check(self, classes: int) -> None:
        """Raise ValueError unless it can measure that many classes."""

    def value(self, measured: SurfaceDistances, column: int) -> float:
        """The number for the class of that column; not both masks are empty."""


@dataclass(frozen=True)
class HausdorffDistance:
    """The largest distance, or a percentile of them, from one surface or the larger one of both."""

    percentile: float | None
    directed: bool

    def __post_init__(self) -> None:
        if self.percentile is not None:
            _validate.number("percentile", self.percentile)
            if not 0 < self.percentile <= 100:
                raise ValueError(
                    f"percentile: must be None, or above 0 and at most 100; got {self.percentile!r}"
                )
        _validate.flag("directed", self.directed)

    @property
    def symmetric(self) -> bool:
        """See :class:`Measure`."""
        return not self.directed

    def check(self, classes: int) -> None:
        """See :class:`Measure`."""

    def value(self, measured: SurfaceDistances, column: int) -> float:
        """See :class:`Measure`."""
        if measured.one_empty:
            return math.inf
        share = 1.0 if self.percentile is None else float(self.percentile) / 100
        ways = measured.ways if self.symmetric else measured.ways[:1]
        return max(_quantile(way, share) for way in ways)


@dataclass(frozen=True)
class AverageDistance:
    """The mean over the elements of the prediction's surface, or of both surfaces."""

    symmetric: bool

    def __post_init__(self) -> None:
        _validate.flag("symmetric", self.symmetric)

    def check(self, classes: int) -> None:
        """See :class:`Measure`."""

    def value(self, measured: SurfaceDistances, column: int) -> float:
        """See :class:`Measure`."""
        if measured.one_empty:
            return math.inf
        ways = measured.ways if self.symmetric else measured.ways[:1]
        sums = [_weighted_sums(way, way.distances) for way in ways]
        return sum(total for total, _ in sums) / sum(weight for _, weight in sums)


class SurfaceDice:
    """The share of both surfaces within a tolerance of the other one.

    Args:
        class_thresholds: tolerance of each class that counts.

    Raises:
        TypeError, ValueError: no sequence of numbers from 0 on.
    """

    symmetric = True

    def __init__(self, class_thresholds: Sequence[float]) -> None:
        if isinstance(class_thresholds, (str, bytes)) or not hasattr(class_thresholds, "__iter__"):
            raise TypeError(
                f"class_thresholds: must be a sequence of numbers, got {type(class_thresholds).__name__}"
            )
        self.thresholds = [_validate.number("class_thresholds", threshold) for threshold in class_thresholds]
        if not all(0 <= threshold < math.inf for threshold in self.thresholds):
            raise ValueError(f"class_thresholds: must be at least 0 and finite, got {self.thresholds}")

    def check(self, classes: int) -> None:
        """See :class:`Measure`."""
        if len(self.thresholds) != classes:
            raise ValueError(
                f"class_thresholds: must have one value per class that counts ({classes}), "
                f"got {len(self.thresholds)}"
            )

    def value(self, measured: SurfaceDistances, column: int) -> float:
        """See :class:`Measure`."""
        sums = [_weighted_sums(way, way.distances <= self.thresholds[column]) for way in measured.ways]
        return sum(close for close, _ in sums) / sum(weight for _, weight in sums)


# In numpy: a surface is small, and there its sort takes a tenth of torch's.


def _weighted_sums(way: Directed, values: Array) -> tuple[float, float]:
    """Sum of the values and of their weights, in float64."""
    if way.areas is None:
        return float(values.sum(dtype=np.float64)), float(len(values))
    return float((values * way.areas).sum(dtype=np.float64)), float(way.areas.sum(dtype=np.float64))


def _quantile(way: Directed, share: float) -> float:
    """The distance that this share of the surface does not exceed."""
    if share == 1.0:
        return float(way.distances.max())
    if way.areas is not None:
        order = way.distances.argsort()
        covered = way.areas[order].cumsum(dtype=np.float64)
        first = int(np.searchsorted(covered / covered[-1], share))
        return float(way.distances[order[min(first, len(order) - 1)]])
    place = share * (len(way.distances) - 1)
    low = math.floor(place)
    high = min(low + 1, len(way.distances) - 1)
    ordered = np.partition(way.distances, (low, high))
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
