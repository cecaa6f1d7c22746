"""The generalized surface loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import mse_loss

from fastsdm import _validate
from fastsdm.losses._base import Batch, DistanceMapLoss
from fastsdm.losses._constructor import documented
from fastsdm.losses._options import LossOptions
from fastsdm.losses._reduction import reduced

if TYPE_CHECKING:
    from typing_extensions import Unpack


@documented
class GeneralizedSurfaceLoss(DistanceMapLoss):
    """Compute how far a prediction is from its target, between 0 and 1, with errors weighed by distance.

    For a sample with map ``phi``, target ``t`` and prediction ``p``:
    ``1 - sum_k w_k sum_i (phi_ik (1 - (t_ik + p_ik)))^2 / sum_k w_k sum_i phi_ik^2``. Celaya, Riviere and
    Fuentes, "A generalized surface loss for reducing the Hausdorff distance in medical imaging
    segmentation", arXiv:2302.03868 (doi:10.48550/arXiv.2302.03868), equation 12. Under ``empty="zero"`` the
    value of a sample without any boundary is 0. The authors' code gives an absent class the volume's
    diagonal as distance, which is ``empty="max"``.

    ``class_weights`` are the ``w_k``; :meth:`inverse_frequency` computes them (equation 13). ``reduction``
    runs over the samples, and ``"none"`` gives ``[B]``; ``batch=True`` computes one ratio for the whole
    batch, a scalar. With ``per_class=True`` the result is the mean of one ratio per class, weighed by
    ``class_weights``.

    Args:
        per_class: the mean of one ratio per class instead of one ratio over all classes. With
            ``include_background=False`` this is what the code of MIST, the authors' framework, computes
            (github.com/mist-medical/MIST, commit 05a59c6).
    """

    def __init__(self, *monai: Any, per_class: bool = False, **options: Unpack[LossOptions]) -> None:
        super().__init__(*monai, **options)
        self.per_class = _validate.flag("per_class", per_class)

    @staticmethod
    def inverse_frequency(voxel_counts: Sequence[float]) -> list[float]:
        """Return the class weights ``(1/N_k) / sum_j (1/N_j)`` for ``class_weights=``.

        Args:
            voxel_counts: ``N_k``, each class's number of voxels in the training set.

        Raises:
            TypeError: a count that is not a number.
            ValueError: a count that is not positive and finite.
        """
        if not isinstance(voxel_counts, Iterable):
            raise TypeError(f"voxel_counts: must be a sequence of numbers, got {voxel_counts!r}")
        counts = [_validate.number("voxel_counts", count) for count in voxel_counts]
        if not all(0 < count < math.inf for count in counts):
            raise ValueError(f"voxel_counts: must be positive and finite, got {list(voxel_counts)}")
        total = sum(1 / count for count in counts)
        return [1 / count / total for count in counts]

    def _value(self, batch: Batch) -> torch.Tensor:
        prediction, maps, weights = batch.prediction, self._map(batch), batch.weights
        squares = maps.square() if maps is batch.handed else maps.square_()
        kept = mse_loss(prediction, batch.truth.complement(prediction.dtype), reduction="none") * squares
        # Per sample and class.
        energy = squares.flatten(2).sum(dim=2)
        lost = energy - kept.flatten(2).sum(dim=2)
        weights = torch.ones_like(energy) if weights is None else weights.expand_as(energy)
        lost, energy = lost * weights, energy * weights
        if self.batch:
            lost, energy, weights = lost.sum(dim=0), energy.sum(dim=0), weights.sum(dim=0)
        if self.per_class:
            values = _ratio((_ratio(lost, energy) * weights).sum(dim=-1), weights.sum(dim=-1))
        else:
            values = _ratio(lost.sum(dim=-1), energy.sum(dim=-1))
        return reduced(values, self.reduction, batch=False)


def _ratio(lost: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
    """Return ``lost / energy``, or 0 without any boundary, where both are 0."""
    return lost / torch.where(energy > 0, energy, torch.ones_like(energy))
