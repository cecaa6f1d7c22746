"""What the losses share: their arguments, the way from prediction and target to a value, the reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

from fastsdm import _validate
from fastsdm._backends import registry
from fastsdm._prefetch import Prefetched, start
from fastsdm._settings import MapSettings, spacing_rows
from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm._warn import warn_caller
from fastsdm.losses._map_settings import (
    Normalization,
    PendingMap,
    adopted,
    check_options,
    check_spacing,
    normalized,
    spacing_of,
)
from fastsdm.losses._target import Target, check_classes, read_target, selected

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class DistanceMapLoss(torch.nn.Module):
    """Base of the losses that weigh a prediction by a distance map of the target.

    A loss says in ``_value`` what it makes of prediction and map; reading and checking both is done here.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        batch: average over the batch before the reduction.
        classes: the channels that count, instead of what ``include_background`` says; K is their number.
            A softmax is over all channels still.
        spacing: voxel size, when ``forward`` is given none: a number, one per spatial axis, or ``[B, ndim]``.
            None is that of a map that is handed in and knows it, else 1.
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
        normalize: Normalization | None = None,
        ignore_index: int | None = None,
        backend: str = "auto",
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
        if spacing is not None:
            check_spacing(spacing)
        if backend != "auto":
            registry.get(backend)
        if ignore_index is not None:
            ignore_index = _validate.integer("ignore_index", ignore_index)
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.other_act = other_act
        self.reduction = reduction
        self.batch = batch
        self.classes = None if classes is None else check_classes(classes)
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
            input: the prediction ``[B, C, *S]`` with 2 or 3 spatial axes; float16 and bfloat16 are computed
                with in float32.
            target: a label map ``[B, *S]`` or ``[B, 1, *S]``; or one channel per class or region,
                ``[B, C, *S]``, inside above 0.5; floats from 0 to 1, which the losses that compare with the
                target take as soft labels. With C = 1 all three are a mask.
            spacing: voxel size of this batch, instead of the constructor's.
            distance_map: the target's map, ``[B, K, *S]`` or with all C channels, floats or integers; or
                what :func:`fastsdm.prefetch` returned. It is normalized and masked like one computed here,
                and infinities in it follow ``empty="zero"``; all else is its maker's choice.
            ignore_mask: ``[B, *S]`` or ``[B, 1, *S]``, non-zero at voxels to ignore like ``ignore_index``;
                or one channel per class, ``[B, C, *S]``, as where a class is not annotated. Neither
                prediction nor target need be finite where all classes are ignored.

        Returns:
            A scalar, or with ``reduction="none"`` one value per sample and class, ``[B, K]``.

        Raises:
            TypeError, ValueError: shapes, dtypes or devices that do not fit; the message says which.
            BackendUnavailableError: the backend asked for cannot run.
        """
        self._check_prediction(input)
        truth = self._truth(target, input.shape, input.device, ignore_mask)
        spacing = self._spacing(spacing, distance_map)
        if distance_map is None:
            maps = self._map_of(truth, spacing)
        else:
            maps = self._adopted(distance_map, truth, input, spacing, ignore_mask is not None)
        if truth.ignored is not None:
            # A factor of 0 would let NaN and infinity through.
            input = input.masked_fill(truth.ignored.all(dim=1, keepdim=True), 0)
        prediction = self._activated(input)
        if truth.ignored is not None and truth.ignored.shape[1] > 1:
            prediction = prediction.masked_fill(truth.ignored, 0)
        return self._value(prediction, truth, maps, spacing)

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
            ``[B, K, *S]`` float32, of the channels that count.

        Raises:
            TypeError, ValueError: as in ``forward``.
        """
        _validate.spatial_dims(spatial_dims)
        _validate.target_layout(target, spatial_dims + 1)
        shape = torch.Size((target.shape[0], channels, *target.shape[-spatial_dims:]))
        truth = self._truth(target, shape, target.device, ignore_mask)
        return self._map_of(truth, self._spacing(spacing, None))

    def prefetch(
        self,
        target: torch.Tensor,
        channels: int,
        *,
        spatial_dims: int = 3,
        spacing: SpacingLike | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> Prefetched[torch.Tensor]:
        """Start the map that ``forward`` would compute, beside the forward pass of the network.

        Args:
            target: as in ``forward``.
            channels: of the prediction.
            spatial_dims: 2 or 3.
            spacing: as in ``forward``.
            ignore_mask: as in ``forward``.

        Returns:
            What ``forward`` takes as its ``distance_map``; see :func:`fastsdm.prefetch`.
        """
        spacing = self._spacing(spacing, None)
        options: dict[str, Any] = {
            "spatial_dims": spatial_dims,
            "spacing": spacing,
            "ignore_mask": ignore_mask,
        }
        settings = self.map_settings(channels, spacing, masked=ignore_mask is not None)
        with_backend = partial(
            self._target_map_by, registry.current_choice(self.backend), channels, **options
        )
        return start(with_backend, target, settings)

    def map_settings(
        self, channels: int, spacing: SpacingLike | None = None, *, masked: bool = False
    ) -> MapSettings:
        """How this loss makes its map.

        Args:
            channels: of the prediction.
            spacing: voxel size; None leaves it open.
            masked: whether voxels are ignored by a mask, too.
        """
        limit = None if self.max_distance is None else float(self.max_distance)
        return MapSettings(
            classes=None if channels == 1 else tuple(self._channels(channels)),
            spacing=None if spacing is None else spacing_rows(spacing),
            convention=self.convention,
            empty=self.empty,
            max_distance=limit,
            ignore_index=self.ignore_index,
            ignore_mask=masked,
        )

    def _target_map_by(
        self, backend: str, channels: int, target: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        # The worker thread does not see what `use_backend` chose in this one.
        with registry.use_backend(backend):
            return self.target_map(target, channels, **options)

    def _value(
        self, prediction: torch.Tensor, truth: Target, maps: torch.Tensor, spacing: SpacingLike
    ) -> torch.Tensor:
        """The loss of activated predictions ``[B, K, *S]`` for maps of the same shape."""
        raise NotImplementedError

    def _truth(
        self, target: torch.Tensor, shape: torch.Size, device: torch.device, ignore_mask: torch.Tensor | None
    ) -> Target:
        return read_target(
            target,
            shape,
            device,
            channels=self._channels(shape[1]),
            to_onehot_y=self.to_onehot_y,
            ignore_index=self.ignore_index,
            ignore_mask=ignore_mask,
        )

    def _spacing(self, given: SpacingLike | None, handed: object) -> SpacingLike:
        """The voxel size of a call: its own, the loss's, that of a map which knows it, or 1."""
        if given is not None:
            return given
        if self.spacing is not None:
            return self.spacing
        return spacing_of(handed)

    def _map_of(self, truth: Target, spacing: SpacingLike) -> torch.Tensor:
        maps = truth.signed_distance(self.map_settings(1), spacing, self.backend)
        return normalized(maps, self.normalize)

    def _adopted(
        self,
        handed: torch.Tensor | PendingMap,
        truth: Target,
        input: torch.Tensor,
        spacing: SpacingLike,
        masked: bool,
    ) -> torch.Tensor:
        maps = adopted(
            handed,
            input.shape,
            input.device,
            channels=self._channels(input.shape[1]),
            settings=self.map_settings(input.shape[1], spacing, masked=masked),
        )
        if truth.ignored is not None:
            maps = maps.masked_fill(truth.ignored, 0)
        return normalized(maps, self.normalize)

    def _channels(self, of: int) -> Sequence[int]:
        """Indices of the channels the loss uses, out of ``of``."""
        if self.classes is None:
            return range(0 if self.include_background or of == 1 else 1, of)
        if max(self.classes) >= of:
            raise ValueError(f"classes: must be below the prediction's {of} channels, got {self.classes}")
        return self.classes

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
                warn_caller(f"single channel prediction, `{setting}` ignored.")

    def _activated(self, input: torch.Tensor) -> torch.Tensor:
        """Predictions of the channels the loss looks at, at least float32."""
        if input.dtype in (torch.float16, torch.bfloat16):
            input = input.float()
        if self.sigmoid:
            input = torch.sigmoid(input)
        elif self.softmax and input.shape[1] > 1:
            input = torch.softmax(input, dim=1)
        elif self.other_act is not None:
            input = self.other_act(input)
        return selected(input, self._channels(input.shape[1]))

    def _reduced(self, values: torch.Tensor) -> torch.Tensor:
        """From values per sample (and class) to what ``batch`` and ``reduction`` ask for."""
        if self.batch:
            values = values.mean(dim=0)
        if self.reduction == "mean":
            return values.mean()
        return values.sum() if self.reduction == "sum" else values


def voxel_mean(values: torch.Tensor, truth: Target) -> torch.Tensor:
    """Mean over the voxels that are not ignored, ``[B, K]``; ``values`` must be 0 where they are."""
    sums = values.flatten(2).sum(dim=2)
    if truth.ignored is None:
        return sums / math.prod(values.shape[2:])
    return sums / (~truth.ignored).flatten(2).sum(dim=2).clamp_(min=1)
