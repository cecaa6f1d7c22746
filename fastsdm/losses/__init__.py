"""Losses that weigh a segmentation network's prediction by exact distance maps, computed on the fly."""

from fastsdm.losses.boundary import BoundaryLoss

__all__ = ["BoundaryLoss"]
