"""Metrics of segmentations: Hausdorff distance, average surface distance, surface Dice, Dice."""

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
