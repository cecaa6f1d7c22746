"""The Hausdorff distance-transform loss and its logarithm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import mse_loss

from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm.losses._base import Activation, DistanceMapLoss, voxel_mean
from fastsdm.losses._map_settings import Normalization, normalized
from fastsdm.losses._target import Target, map_of_masks


class HausdorffDTLoss(DistanceMapLoss):
    """Mean of the squared error, weighed by the distances to the boundaries of target and prediction.

    Per voxel ``(p - t)^2 * (D_p^alpha + D_t^alpha)``, where ``D`` is the unsigned distance to the boundary of
    the target, and of the prediction thresholded at 0.5: Karimi and Salcudean, "Reducing the Hausdorff
    distance in medical image segmentation with convolutional neural networks", IEEE Transactions on Medical
    Imaging 39(2), 2020, doi:10.1109/TMI.2019.2930068 (``Loss_DT``). At unit spacing the values are those of
    ``monai.losses.HausdorffDTLoss``, whose arguments come first. The absolute plain signed map is both
    distance transforms at once, so a call costs one map of the target and one of the prediction.

    Args:
        alpha: exponent of the distances.
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"`` or ``"sum"`` over samples and classes, or ``"none"`` for ``[B, K, 1, ...]``.
        batch: average over the batch before the reduction (``[1, K, 1, ...]`` with ``"none"``).
        one_sided: leave out the prediction's distances, which halves the cost.
        classes: as in :class:`BoundaryLoss`.
        spacing: as in :class:`BoundaryLoss`.
        convention: as in :class:`BoundaryLoss`; anything but ``"plain"`` departs from the paper and MONAI.
        empty: as in :class:`BoundaryLoss`, of both maps.
        max_distance: as in :class:`BoundaryLoss`, of both maps.
        normalize: as in :class:`BoundaryLoss`, of both maps, each by its own extent.
        ignore_index: as in :class:`BoundaryLoss`, for both maps.
        backend: as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        include_background: bool = False,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Activation | None = None,
        reduction: str = "mean",
        batch: bool = False,
        *,
        one_sided: bool = False,
        classes: Sequence[int] | None = None,
        spacing: SpacingLike | None = None,
        convention: Convention = "plain",
        empty: EmptyPolicy = "zero",
        max_distance: float | None = None,
        normalize: Normalization | None = None,
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
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha: must be positive and finite, got {alpha!r}")
        self.alpha = alpha
        self.one_sided = one_sided

    def _value(
        self, prediction: torch.Tensor, truth: Target, maps: torch.Tensor, spacing: SpacingLike
    ) -> torch.Tensor:
        weights = self._powers(maps)
        if not self.one_sided:
            weights.add_(self._powers(self._map_of_prediction(prediction, truth, spacing)))
        squares = mse_loss(prediction, truth.probabilities(prediction.dtype), reduction="none")
        values = voxel_mean(squares * weights, truth)
        if self.reduction != "none":
            return self._reduced(values)
        if self.batch:
            values = values.mean(dim=0, keepdim=True)
        return values.reshape(*values.shape, *(1 for _ in prediction.shape[2:]))

    def _powers(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.square() if self.alpha == 2 else maps.abs().pow_(self.alpha)

    def _map_of_prediction(
        self, prediction: torch.Tensor, truth: Target, spacing: SpacingLike
    ) -> torch.Tensor:
        inside = prediction.detach() > 0.5
        if truth.ignored is not None:
            inside = inside & ~truth.ignored
        maps = map_of_masks(inside, truth.ignored, self.map_settings(1), spacing, self.backend)
        return normalized(maps, self.normalize)


class LogHausdorffDTLoss(HausdorffDTLoss):
    """Logarithm of one plus :class:`HausdorffDTLoss`, whose arguments it takes; MONAI's loss of that name."""

    def _value(
        self, prediction: torch.Tensor, truth: Target, maps: torch.Tensor, spacing: SpacingLike
    ) -> torch.Tensor:
        return torch.log(super()._value(prediction, truth, maps, spacing) + 1)
