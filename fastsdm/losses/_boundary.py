"""The boundary loss."""

from __future__ import annotations

import torch

from fastsdm._types import SpacingLike
from fastsdm.losses._base import DistanceMapLoss, voxel_mean
from fastsdm.losses._target import Target


class BoundaryLoss(DistanceMapLoss):
    """Mean over the voxels of predicted probability times signed distance to the target's boundary.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", Medical Image Analysis 67 (2021),
    doi:10.1016/j.media.2020.101851. The map is computed on the fly, on the target's device. At
    unit spacing the values are those of ``monai.losses.BoundaryLoss``, whose arguments come first. The value
    of a good prediction is negative. The loss says nothing about a class that is absent from the volume, so
    it is used beside a region loss (see :class:`fastsdm.losses.RegionBoundaryLoss`).

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"`` or ``"sum"`` over samples and classes, or ``"none"`` for ``[B, K]``.
        batch: average over the batch before the reduction.
        classes: the channels that count, instead of what ``include_background`` says; K is their number.
            A softmax is over all channels still.
        spacing: voxel size, when ``forward`` is given none: a number, one per spatial axis, or ``[B, ndim]``.
        convention: of the map, as in :func:`fastsdm.signed_distance`.
        empty: what an absent class, or one that fills the volume, weighs: ``"zero"`` (nothing: the other
            classes supervise these voxels), ``"max"``, ``"raise"``, or with ``max_distance`` also ``"inf"``.
        max_distance: clamp of the map.
        normalize: None; ``"max"``: divide each sample's map by its largest absolute distance; ``"unit"``:
            divide, per sample and class, each phase by its largest absolute distance.
        ignore_index: label of voxels that neither supervise nor shape the map: they count as neither inside
            nor outside of any class. Needs a label map (or a single channel) as target.
        backend: as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def _value(
        self, prediction: torch.Tensor, truth: Target, maps: torch.Tensor, spacing: SpacingLike
    ) -> torch.Tensor:
        return self._reduced(voxel_mean(prediction * maps, truth))
