"""The generalized surface loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import mse_loss

from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm.losses._base import Activation, DistanceMapLoss
from fastsdm.losses._map_settings import Normalization
from fastsdm.losses._target import Target


class GeneralizedSurfaceLoss(DistanceMapLoss):
    """One minus the share of the map's energy that a prediction preserves; between 0 and 1.

    For a sample with map ``phi``, target ``t`` and prediction ``p``:
    ``1 - sum_k w_k sum_i (phi_ik (1 - (t_ik + p_ik)))^2 / sum_k w_k sum_i phi_ik^2``. Celaya, Riviere and
    Fuentes, "A generalized surface loss for reducing the Hausdorff distance in medical imaging
    segmentation", arXiv:2302.03868 (doi:10.48550/arXiv.2302.03868), equation 12; weights in equation 13.
    Samples without any boundary count as 0 under ``empty="zero"``; the authors' code weighs an absent class
    with the volume's diagonal, which is ``empty="max"``.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"`` for ``[B]``.
        batch: one ratio for the whole batch (a scalar) instead of one per sample.
        class_weights: ``w_k`` of the K channels that count, as :meth:`inverse_frequency` makes them; None
            weighs all alike.
        classes: as in :class:`BoundaryLoss`.
        spacing: as in :class:`BoundaryLoss`.
        convention: as in :class:`BoundaryLoss`.
        empty: as in :class:`BoundaryLoss`.
        max_distance: as in :class:`BoundaryLoss`.
        normalize: as in :class:`BoundaryLoss`.
        ignore_index: as in :class:`BoundaryLoss`.
        backend: as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    class_weights: torch.Tensor | None

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
        class_weights: Sequence[float] | None = None,
        classes: Sequence[int] | None = None,
        spacing: SpacingLike | None = None,
        convention: Convention = "kervadec",
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
        weights = (
            None
            if class_weights is None
            else torch.tensor([float(w) for w in class_weights], dtype=torch.float32, device="cpu")
        )
        if weights is not None and not bool(((weights > 0) & weights.isfinite()).all()):
            raise ValueError(f"class_weights: must be positive and finite, got {list(class_weights or ())}")
        # A buffer follows the module to its device; it is a setting, so no part of the state.
        self.register_buffer("class_weights", weights, persistent=False)

    @staticmethod
    def inverse_frequency(voxel_counts: Sequence[float]) -> list[float]:
        """Class weights ``(1/N_k) / sum_j (1/N_j)`` from each class's voxel count over the training set.

        Raises:
            ValueError: a count that is not positive and finite.
        """
        if not all(0 < count < math.inf for count in voxel_counts):
            raise ValueError(f"voxel_counts: must be positive and finite, got {list(voxel_counts)}")
        total = sum(1 / count for count in voxel_counts)
        return [1 / count / total for count in voxel_counts]

    def extra_repr(self) -> str:
        """Every setting, so that a logged loss can be built again."""
        weights = None if self.class_weights is None else self.class_weights.tolist()
        return f"{super().extra_repr()}, class_weights={weights}"

    def _value(
        self, prediction: torch.Tensor, truth: Target, maps: torch.Tensor, spacing: SpacingLike
    ) -> torch.Tensor:
        squares = maps.square()
        worst = 1 - truth.probabilities(prediction.dtype)
        kept = (mse_loss(prediction, worst, reduction="none") * squares).flatten(2).sum(dim=2)
        energy = squares.flatten(2).sum(dim=2)
        if self.class_weights is not None:
            if len(self.class_weights) != kept.shape[1]:
                raise ValueError(
                    f"class_weights: must have one value per channel that counts ({kept.shape[1]}), "
                    f"got {len(self.class_weights)}"
                )
            kept, energy = kept * self.class_weights, energy * self.class_weights
        axes = (0, 1) if self.batch else (1,)
        kept, energy = kept.sum(dim=axes), energy.sum(dim=axes)
        # Without any boundary both are 0: nothing is lost.
        values = (energy - kept) / torch.where(energy > 0, energy, torch.ones_like(energy))
        if self.reduction == "mean":
            return values.mean()
        return values.sum() if self.reduction == "sum" else values
