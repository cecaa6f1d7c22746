"""What the losses share: their arguments, reading prediction, target and map, and the reduction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TypeAlias

import torch

from fastsdm import _validate
from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm.losses._maps import Normalization, PendingMap, adopted, check_options, normalized
from fastsdm.losses._targets import Target, read_target

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class DistanceMapLoss(torch.nn.Module):
    """Base of the losses that weigh a prediction by a distance map.

    Its arguments mean the same in every loss; :class:`fastsdm.losses.BoundaryLoss` documents them.
    """

    def __init__(
        self,
        include_background: bool,
        to_onehot_y: bool,
        sigmoid: bool,
        softmax: bool,
        other_act: Activation | None,
        reduction: str,
        batch: bool,
        *,
        spacing: SpacingLike,
        convention: Convention,
        empty: EmptyPolicy,
        max_distance: float | None,
        normalize: Normalization | None,
        ignore_index: int | None,
        backend: str,
    ) -> None:
        super().__init__()
        if other_act is not None and not callable(other_act):
            raise TypeError(f"other_act: must be None or callable, got {type(other_act).__name__}")
        if int(sigmoid) + int(softmax) + int(other_act is not None) > 1:
            raise ValueError(
                "sigmoid, softmax, other_act: at most one can be applied, "
                f"got sigmoid={sigmoid}, softmax={softmax}, other_act={other_act}"
            )
        reduction = getattr(reduction, "value", reduction)  # MONAI's users pass a member of its enumeration
        _validate.choice("reduction", reduction, ("none", "mean", "sum"))
        _validate.convention(convention)
        _validate.empty_policy(empty)
        _validate.max_distance(max_distance)
        check_options(empty, max_distance, normalize)
        if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
            raise TypeError(f"ignore_index: must be None or an integer, got {ignore_index!r}")
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.other_act = other_act
        self.reduction = reduction
        self.batch = batch
        self.spacing = spacing
        self.convention = convention
        self.empty = empty
        self.max_distance = max_distance
        self.normalize = normalize
        self.ignore_index = ignore_index
        self.backend = backend

    def extra_repr(self) -> str:
        """Every setting, so that a logged loss can be built again."""
        settings = (item for item in vars(self).items() if item[0] != "training" and item[0][0] != "_")
        return ", ".join(f"{name}={value!r}" for name, value in settings)

    def target_map(
        self,
        target: torch.Tensor,
        channels: int,
        *,
        spatial_dims: int = 3,
        spacing: SpacingLike | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The target's map as ``forward`` would compute it, to hand in as its ``distance_map``.

        Args:
            target: as in ``forward``.
            channels: of the prediction.
            spatial_dims: 2 or 3.
            spacing: as in ``forward``.
            ignore_mask: as in ``forward``.

        Returns:
            ``[B, K, *S]`` float32, without the background's channel if the loss leaves it out.

        Raises:
            TypeError, ValueError: as in ``forward``.
        """
        _validate.spatial_dims(spatial_dims)
        _validate.target_layout(target, spatial_dims + 1)
        shape = (target.shape[0], channels, *target.shape[-spatial_dims:])
        truth = self._truth(target, torch.Size(shape), target.device, ignore_mask)
        return self._target_map(truth, spacing)

    def _first_channel(self, channels: int) -> int:
        return 0 if self.include_background or channels == 1 else 1

    def _truth(
        self,
        target: torch.Tensor,
        shape: torch.Size,
        device: torch.device,
        ignore_mask: torch.Tensor | None,
    ) -> Target:
        return read_target(
            target,
            shape,
            device,
            first_channel=self._first_channel(shape[1]),
            to_onehot_y=self.to_onehot_y,
            ignore_index=self.ignore_index,
            ignore_mask=ignore_mask,
        )

    def _target_map(
        self,
        truth: Target,
        spacing: SpacingLike | None,
    ) -> torch.Tensor:
        maps = truth.signed_distance(
            spacing=self.spacing if spacing is None else spacing,
            convention=self.convention,
            empty=self.empty,
            max_distance=self.max_distance,
            backend=self.backend,
        )
        return normalized(maps, self.normalize)

    def _weights(
        self,
        truth: Target,
        input: torch.Tensor,
        spacing: SpacingLike | None,
        handed: torch.Tensor | PendingMap | None,
    ) -> torch.Tensor:
        """The target's map ``[B, K, *S]``, computed here or handed in; 0 where voxels are ignored."""
        if handed is None:
            return self._target_map(truth, spacing)
        maps = adopted(
            handed,
            input.shape,
            input.device,
            first_channel=self._first_channel(input.shape[1]),
            empty=self.empty,
            max_distance=self.max_distance,
        )
        if truth.ignored is not None:
            maps = maps.masked_fill(truth.ignored, 0)
        return normalized(maps, self.normalize)

    def _check_prediction(self, input: torch.Tensor) -> None:
        if input.ndim not in (4, 5):
            raise ValueError(
                f"input: must be [B, C, H, W] or [B, C, D, H, W], got shape {tuple(input.shape)}"
            )
        if not input.is_floating_point():
            raise TypeError(f"input: must hold floats, got dtype {input.dtype}")
        if input.shape[1] == 1:
            ignored = {
                "softmax=True": self.softmax,
                "to_onehot_y=True": self.to_onehot_y,
                "include_background=False": not self.include_background,
            }
            for setting in (setting for setting, given in ignored.items() if given):
                warnings.warn(f"single channel prediction, `{setting}` ignored.", stacklevel=4)

    def _activated(self, input: torch.Tensor) -> torch.Tensor:
        """Probabilities of the channels the loss looks at, at least float32."""
        if input.dtype in (torch.float16, torch.bfloat16):
            input = input.float()
        if self.sigmoid:
            input = torch.sigmoid(input)
        elif self.softmax and input.shape[1] > 1:
            input = torch.softmax(input, dim=1)
        elif self.other_act is not None:
            input = self.other_act(input)
        return input[:, self._first_channel(input.shape[1]) :]

    def _reduced(self, per_class: torch.Tensor) -> torch.Tensor:
        """From one value per sample and class ``[B, K]`` to what ``reduction`` and ``batch`` ask for."""
        if self.batch:
            per_class = per_class.mean(dim=0)
        if self.reduction == "mean":
            return per_class.mean()
        return per_class.sum() if self.reduction == "sum" else per_class


def voxel_count(truth: Target, shape: torch.Size) -> torch.Tensor | int:
    """How many voxels supervise: a number; where some are ignored, one per sample ``[B, 1]``, at least 1."""
    if truth.ignored is None:
        return math.prod(shape[2:])
    return (~truth.ignored).flatten(2).sum(dim=2).clamp_(min=1)
