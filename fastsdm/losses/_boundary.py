"""The boundary loss."""

from __future__ import annotations

import torch

from fastsdm.losses._base import Batch, DistanceMapLoss
from fastsdm.losses._constructor import documented


@documented
class BoundaryLoss(DistanceMapLoss):
    """Compute the mean of predicted probability times signed distance to the target's boundary.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", Medical Image Analysis 67 (2021),
    doi:10.1016/j.media.2020.101851. The map is computed on the fly, on the target's device. At unit spacing
    the values are those of ``monai.losses.BoundaryLoss``, whose arguments come first. The value of a good
    prediction is negative. By default (``empty="zero"``) a class that is absent from the volume adds nothing,
    so use the loss beside a region loss (see :class:`fastsdm.losses.RegionBoundaryLoss`). With
    ``reduction="none"`` the result is ``[B, K]``.
    """

    def _value(self, batch: Batch) -> torch.Tensor:
        return self._mean_of_product(batch.prediction, self._map(batch), batch)
