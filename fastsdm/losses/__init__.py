"""Losses that weigh a segmentation network's prediction by exact distance maps, computed on the fly."""

from fastsdm.losses.boundary import BoundaryLoss
from fastsdm.losses.compound import DeepSupervision, RegionBoundaryLoss
from fastsdm.losses.hausdorff import HausdorffDTLoss, LogHausdorffDTLoss
from fastsdm.losses.regression import SDMRegressionLoss
from fastsdm.losses.surface import GeneralizedSurfaceLoss

__all__ = [
    "BoundaryLoss",
    "DeepSupervision",
    "GeneralizedSurfaceLoss",
    "HausdorffDTLoss",
    "LogHausdorffDTLoss",
    "RegionBoundaryLoss",
    "SDMRegressionLoss",
]
