"""Surface metrics of segmentations, measured through exact distance maps on the labels' device."""

from fastsdm.metrics._accumulate import (
    DiceMetric,
    HausdorffDistanceMetric,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
)
from fastsdm.metrics._functions import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)

__all__ = [
    "DiceMetric",
    "HausdorffDistanceMetric",
    "SurfaceDiceMetric",
    "SurfaceDistanceMetric",
    "compute_average_surface_distance",
    "compute_dice",
    "compute_hausdorff_distance",
    "compute_surface_dice",
]
