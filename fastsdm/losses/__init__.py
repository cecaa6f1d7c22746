"""Losses that weigh a segmentation network's prediction by exact distance maps, computed on the fly."""

from fastsdm.losses._boundary import BoundaryLoss
from fastsdm.losses._componentwise import ComponentwiseLoss
from fastsdm.losses._compound import RegionBoundaryLoss
from fastsdm.losses._deep_supervision import DeepSupervision
from fastsdm.losses._hausdorff import HausdorffDTLoss, LogHausdorffDTLoss
from fastsdm.losses._regression import SDMRegressionLoss
from fastsdm.losses._surface import GeneralizedSurfaceLoss

__all__ = [
    "BoundaryLoss",
    "ComponentwiseLoss",
    "DeepSupervision",
    "GeneralizedSurfaceLoss",
    "HausdorffDTLoss",
    "LogHausdorffDTLoss",
    "RegionBoundaryLoss",
    "SDMRegressionLoss",
]
