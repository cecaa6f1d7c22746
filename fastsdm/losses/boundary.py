"""The boundary loss."""

from __future__ import annotations

import torch

from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm.losses._common import Activation, DistanceMapLoss, voxel_count
from fastsdm.losses._maps import Normalization, PendingMap


class BoundaryLoss(DistanceMapLoss):
    """Mean over the voxels of predicted probability times signed distance to the target's boundary.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", Medical Image Analysis 67 (2021),
    doi:10.1016/j.media.2020.101851, equation 5. The map is computed on the fly, on the target's device. At
    unit spacing the values are those of ``monai.losses.BoundaryLoss``, whose arguments come first. The value
    is negative for a good prediction; it has no lower bound of its own, so the loss is used beside a
    region loss (see :class:`fastsdm.losses.RegionBoundaryLoss`).

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"`` or ``"sum"`` over samples and classes, or ``"none"`` for ``[B, K]``.
        batch: average over the batch before the reduction.
        spacing: voxel size, when ``forward`` is given none: a number, one per spatial axis, or ``[B, ndim]``.
        convention: of the map, as in :func:`fastsdm.signed_distance`.
        empty: what an absent class, or one that fills the volume, weighs: ``"zero"`` (nothing: the other
            classes supervise these voxels), ``"max"`` or ``"raise"``.
        max_distance: clamp of the map.
        normalize: None; ``"max"``: divide each sample's map by its largest absolute distance; ``"unit"``:
            divide, per sample and class, each phase by its largest absolute distance.
        ignore_index: label of voxels that neither supervise nor shape the map: they count as neither inside
            nor outside of any class.
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
        spacing: SpacingLike = 1.0,
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
            spacing=spacing,
            convention=convention,
            empty=empty,
            max_distance=max_distance,
            normalize=normalize,
            ignore_index=ignore_index,
            backend=backend,
        )

    def forward(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        *,
        spacing: SpacingLike | None = None,
        distance_map: torch.Tensor | PendingMap | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss; its gradient reaches the prediction only.

        Args:
            input: ``[B, C, *S]`` with 2 or 3 spatial axes, logits or probabilities; float16 and bfloat16 are
                summed in float32.
            target: a label map ``[B, *S]`` or ``[B, 1, *S]``; or one channel per class or region,
                ``[B, C, *S]``, inside above 0.5.
            spacing: voxel size of this batch, instead of the constructor's.
            distance_map: the target's map, ``[B, K, *S]`` or with all C channels, or what
                :func:`fastsdm.prefetch` returned. It is normalized and masked like one computed here, and
                infinities in it follow ``empty="zero"``; all else is its maker's choice.
            ignore_mask: ``[B, *S]`` or ``[B, 1, *S]``, non-zero at voxels to ignore like ``ignore_index``.

        Returns:
            A scalar, or ``[B, K]`` (``[K]`` with ``batch=True``) for ``reduction="none"``.

        Raises:
            TypeError, ValueError: shapes, dtypes or devices that do not fit; the message says which.
            BackendUnavailableError: the backend asked for cannot run.
        """
        self._check_prediction(input)
        truth = self._truth(target, input.shape, input.device, ignore_mask)
        weights = self._weights(truth, input, spacing, distance_map)
        sums = (self._activated(input) * weights).flatten(2).sum(dim=2)
        return self._reduced(sums / voxel_count(truth, input.shape))
