"""The Hausdorff distance-transform loss and its logarithm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import mse_loss

from fastsdm import _validate
from fastsdm._types import SpacingLike
from fastsdm.losses._base import DistanceMapLoss
from fastsdm.losses._constructor import documented
from fastsdm.losses._maps import above_half, normalized, paired_maps, target_and_prediction
from fastsdm.losses._options import LossOptions
from fastsdm.losses._target import Target

if TYPE_CHECKING:
    from typing_extensions import Unpack


@documented
class HausdorffDTLoss(DistanceMapLoss):
    """Compute the squared error weighed by the distances to the boundaries of target and prediction.

    Per voxel ``(p - t)^2 * (D_p^alpha + D_t^alpha)``, where ``D`` is the unsigned distance to the boundary of
    the target, and of the prediction thresholded at 0.5: Karimi and Salcudean, "Reducing the Hausdorff
    distance in medical image segmentation with convolutional neural networks", IEEE Transactions on Medical
    Imaging 39(2), 2020, doi:10.1109/TMI.2019.2930068 (``Loss_DT``). At unit spacing the values are those of
    ``monai.losses.HausdorffDTLoss``, whose arguments come first. ``D`` is the absolute value of the plain
    signed map. The maps of target and prediction are made in one call.

    The settings of the map hold for both maps; ``normalize`` divides each by its own largest distance. With a
    ``convention`` other than ``"plain"`` the values are not those of the paper and MONAI. With
    ``reduction="none"`` the result is ``[B, K, 1, ...]``, or ``[1, K, 1, ...]`` with ``batch=True``.

    Args:
        alpha: exponent of the distances.
        one_sided: leave out the prediction's distances, which halves the cost of the maps.
    """

    _defaults: ClassVar[LossOptions] = {"include_background": False, "convention": "plain"}

    def __init__(
        self, alpha: float = 2.0, *monai: Any, one_sided: bool = False, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(*monai, **options)
        self.alpha = _validate.number("alpha", alpha)
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha: must be positive and finite, got {alpha!r}")
        self.one_sided = _validate.flag("one_sided", one_sided)

    def _value(
        self,
        prediction: torch.Tensor,
        truth: Target,
        spacing: SpacingLike,
        handed: torch.Tensor | None,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        masks = None
        if self.one_sided:
            field = self._power(self._map(truth, spacing, handed), in_place=handed is None)
        elif handed is None:
            masks = target_and_prediction(truth, prediction)
            field = self._sum_of_powers(self._maps_of(masks, truth, spacing))
        else:
            (of_prediction,) = self._maps_of(above_half(prediction, truth).unsqueeze(0), truth, spacing)
            field = self._power(handed, in_place=False).add_(self._power(of_prediction, in_place=True))
        target = truth.probabilities(prediction.dtype, None if masks is None else masks[0])
        squares = mse_loss(prediction, target, reduction="none")
        value = self._reduced_mean_of_product(squares, field, truth, weights)
        if self.reduction != "none":
            return value
        return value.reshape(1 if self.batch else -1, prediction.shape[1], *(1 for _ in prediction.shape[2:]))

    def _maps_of(self, masks: torch.Tensor, truth: Target, spacing: SpacingLike) -> torch.Tensor:
        """Normalized maps of masks ``[n, B, K, *S]``, in one call."""
        maps = paired_maps(masks, truth.ignored, self.map_settings(1), spacing, self.backend)
        return normalized(maps.flatten(0, 1), self.normalize, in_place=True).view(maps.shape)

    def _sum_of_powers(self, maps: torch.Tensor) -> torch.Tensor:
        """Of two maps ``[2, B, K, *S]``, in the memory of the first."""
        if self.alpha == 2:
            return maps[0].square_().addcmul_(maps[1], maps[1])
        powers = self._power(maps, in_place=True)
        return powers[0].add_(powers[1])

    def _power(self, maps: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        if self.alpha == 2:
            return maps.square_() if in_place else maps.square()
        distances = maps.abs_() if in_place else maps.abs()
        return distances if self.alpha == 1 else distances.pow_(self.alpha)


@documented
class LogHausdorffDTLoss(HausdorffDTLoss):
    """Compute ``log(1 + x)`` of :class:`HausdorffDTLoss`, as ``monai.losses.LogHausdorffDTLoss`` does.

    Args:
        alpha: exponent of the distances.
        one_sided: leave out the prediction's distances, which halves the cost of the maps.
    """

    def _value(self, *arguments: Any) -> torch.Tensor:
        return torch.log(super()._value(*arguments) + 1)
