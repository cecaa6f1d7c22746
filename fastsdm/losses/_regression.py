"""The signed-distance regression loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm.losses._base import Activation, DistanceMapLoss, voxel_mean
from fastsdm.losses._map_settings import Normalization
from fastsdm.losses._target import Target


class SDMRegressionLoss(DistanceMapLoss):
    """L1 distance of a predicted signed distance map to the target's, plus a term against wrong signs.

    Xue et al., "Shape-aware organ segmentation by predicting signed distance maps", AAAI 2020,
    doi:10.1609/aaai.v34i07.6946 (arXiv:1912.03849): ``L1 + L_product``, where for a class with predicted map
    ``p`` and true map ``y``, ``L_product = -sum(y p) / (sum(y p) + sum(p^2) + sum(y^2))`` (equation 4, sums
    over the voxels), which is -1/3 for a perfect prediction and 1 for the wrong sign everywhere. The true map
    is normalized to [-1, 1], negative inside; so the network ends in a tanh, or is given
    ``other_act=torch.tanh`` here.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: as in :class:`BoundaryLoss`; of little use here.
        softmax: as in :class:`BoundaryLoss`; of little use here.
        other_act: apply this function to the prediction.
        reduction: ``"mean"`` or ``"sum"`` over samples and classes, or ``"none"`` for ``[B, K]``.
        batch: average over the batch before the reduction.
        classes: as in :class:`BoundaryLoss`.
        spacing: as in :class:`BoundaryLoss`.
        convention: as in :class:`BoundaryLoss`.
        empty: as in :class:`BoundaryLoss`; under ``"zero"`` the map of an absent class is to be 0.
        max_distance: as in :class:`BoundaryLoss`, before the normalization.
        normalize: as in :class:`BoundaryLoss`; None regresses distances in the units of the spacing.
        ignore_index: as in :class:`BoundaryLoss`.
        backend: as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Activation | None = None,
        reduction: str = "mean",
        batch: bool = False,
        *,
        classes: Sequence[int] | None = None,
        spacing: SpacingLike | None = None,
        convention: Convention = "kervadec",
        empty: EmptyPolicy = "zero",
        max_distance: float | None = None,
        normalize: Normalization | None = "unit",
        ignore_index: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            include_background,
            to_onehot_y,
            sigmoid,
            softmax,
            other_act,
            reduction,
            batch,
            classes=classes,
            spacing=spacing,
            convention=convention,
            empty=empty,
            max_distance=max_distance,
            normalize=normalize,
            ignore_index=ignore_index,
            backend=backend,
        )

    def _value(
        self, prediction: torch.Tensor, truth: Target, maps: torch.Tensor, spacing: SpacingLike
    ) -> torch.Tensor:
        if truth.ignored is not None:
            prediction = prediction.masked_fill(truth.ignored, 0)
        l1 = voxel_mean((prediction - maps).abs(), truth)
        overlap = (prediction * maps).flatten(2).sum(dim=2)
        # At least half of the two sums of squares, so it vanishes only where both maps do.
        extent = overlap + prediction.square().flatten(2).sum(dim=2) + maps.square().flatten(2).sum(dim=2)
        product = -overlap / torch.where(extent > 0, extent, torch.ones_like(extent))
        return self._reduced(l1 + product)
