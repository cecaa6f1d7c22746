"""The Hausdorff distance-transform loss and its logarithm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import mse_loss

from fastsdm import _validate
from fastsdm.losses._base import Batch, DistanceMapLoss
from fastsdm.losses._constructor import documented
from fastsdm.losses._options import LossOptions
from fastsdm.losses._target import Target, without

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

    def _value(self, batch: Batch) -> torch.Tensor:
        prediction, truth = batch.prediction, batch.truth
        masks = None
        if self.one_sided:
            field = self._power(self._map(batch), in_place=batch.handed is None)
        elif batch.handed is None:
            masks = _target_and_prediction(truth, prediction)
            field = self._sum_of_powers(self._maps_of(masks, batch))
        else:
            (of_prediction,) = self._maps_of(_above_half(prediction, truth).unsqueeze(0), batch)
            field = self._power(batch.handed, in_place=False).add_(self._power(of_prediction, in_place=True))
        target = truth.probabilities(prediction.dtype, None if masks is None else masks[0])
        value = self._mean_of_product(mse_loss(prediction, target, reduction="none"), field, batch)
        if self.reduction != "none":
            return value
        return value.reshape(1 if self.batch else -1, prediction.shape[1], *(1 for _ in prediction.shape[2:]))

    def _maps_of(self, masks: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Maps of bool masks ``[n, B, K, *S]`` of the batch's samples, in one call."""
        count, samples, ndim = len(masks), masks.shape[1], masks.ndim - 3
        spacing, ignored = batch.spacing, batch.truth.ignored
        if batch.truth.cells is not None:
            return self._maps_in_cells(masks, batch.truth, _validate.spacing_rows(spacing, (samples,), ndim))
        if torch.compiler.is_compiling() or _validate.spacing_row(spacing, ndim) is None:
            spacing = _validate.spacing_rows(spacing, (samples,), ndim).repeat(count, 1)
        if ignored is not None:
            ignored = ignored.repeat(count, *(1 for _ in ignored.shape[1:]))
        return self._distances(masks.flatten(0, 1), None, ignored, spacing).view(masks.shape)

    def _maps_in_cells(self, masks: torch.Tensor, truth: Target, rows: torch.Tensor) -> torch.Tensor:
        """The same, each cell as if it were the volume; ``rows`` is the spacing of each sample."""
        assert truth.cells is not None
        maps = torch.zeros(masks.shape, dtype=torch.float32, device=masks.device)
        for place in np.ndindex(*masks.shape[:3]):
            sample, cells = place[1], truth.cells[place[1:]]
            for number, box in enumerate(ndimage.find_objects(cells.cpu().numpy() + 1)):
                elsewhere = cells[box] != number
                if truth.ignored is not None:
                    elsewhere |= truth.ignored.expand(masks.shape[1:])[place[1:]][box]
                inside = masks[place][box] & ~elsewhere
                found = self._distances(inside[None, None], None, elsewhere[None, None], rows[sample])
                maps[place][box] += found[0, 0]
        return maps

    def _sum_of_powers(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the sum of the powers of two maps ``[2, B, K, *S]``; overwrites them."""
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

    def _value(self, batch: Batch) -> torch.Tensor:
        return torch.log(super()._value(batch) + 1)


def _above_half(prediction: torch.Tensor, truth: Target, out: torch.Tensor | None = None) -> torch.Tensor:
    """Bool ``[B, K, *S]``: the prediction above 0.5, ignored voxels left out; written to ``out`` if given."""
    inside = torch.gt(prediction.detach(), 0.5, out=out)
    return inside if truth.ignored is None else without(inside, truth.ignored, out)


def _target_and_prediction(truth: Target, prediction: torch.Tensor) -> torch.Tensor:
    """Bool ``[2, B, K, *S]``: the masks of the target, and those of the prediction above 0.5."""
    # The compiler removes the copies, and vmap has no `out`.
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(prediction):
        return torch.stack([truth.masks(), _above_half(prediction, truth)])
    both = torch.empty((2, *prediction.shape), dtype=torch.bool, device=prediction.device)
    truth.masks(out=both[0])
    _above_half(prediction, truth, out=both[1])
    return both
