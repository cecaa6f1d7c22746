"""The signed-distance regression loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn.functional import l1_loss

from fastsdm.losses._base import Batch, DistanceMapLoss
from fastsdm.losses._constructor import documented
from fastsdm.losses._options import LossOptions
from fastsdm.losses._reduction import voxel_mean, voxel_sum


@documented
class SDMRegressionLoss(DistanceMapLoss):
    """Compute the L1 distance of a predicted map to the target's, plus a term against wrong signs.

    Xue et al., "Shape-aware organ segmentation by predicting signed distance maps", AAAI 2020,
    doi:10.1609/aaai.v34i07.6946 (arXiv:1912.03849): ``L1 + L_product``, where for a class with predicted map
    ``p`` and true map ``y``, ``L_product = -sum(y p) / (sum(y p) + sum(p^2) + sum(y^2))`` (equation 4, sums
    over the voxels), which is -1/3 for a perfect prediction and 1 for the wrong sign everywhere. The true map
    is normalized to [-1, 1], negative inside. So the network must end in a tanh, or the loss be given
    ``other_act=torch.tanh``; ``sigmoid`` and ``softmax`` do not fit.

    The default is ``normalize="unit"``, applied after shift and clamp; ``normalize=None`` regresses distances
    in the units of the spacing. Under ``empty="zero"`` the target of an absent class is 0. With
    ``reduction="none"`` the result is ``[B, K]``.
    """

    _defaults: ClassVar[LossOptions] = {"normalize": "unit"}

    def _value(self, batch: Batch) -> torch.Tensor:
        prediction, truth, maps = batch.prediction, batch.truth, self._map(batch)
        if truth.ignored is not None:  # of tanh 0 is 0, of other activations perhaps not
            prediction = prediction.masked_fill(truth.ignored, 0)
        l1 = voxel_mean(l1_loss(prediction, maps, reduction="none"), truth)
        overlap = voxel_sum(prediction * maps, truth)
        # At least half of the two sums of squares, so it vanishes only where both maps do. (A norm would be
        # one pass, but torch adds its squares up in float32 without compensation on the CPU.)
        extent = overlap + voxel_sum(prediction.square(), truth) + voxel_sum(maps.square(), truth)
        product = -overlap / torch.where(extent > 0, extent, torch.ones_like(extent))
        return self._reduced(l1 + product, batch.weights)
