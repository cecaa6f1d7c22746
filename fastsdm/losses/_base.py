"""How a loss reads its target, gets its map and reduces its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._backends import registry
from fastsdm._prefetch import Prefetched, start
from fastsdm._sdm import signed_distance, signed_distance_of_masks
from fastsdm._settings import MapSettings, spacing_rows
from fastsdm._types import SpacingLike
from fastsdm._warn import warn_caller
from fastsdm.losses._constructor import SharedSettings
from fastsdm.losses._maps import check_same, fitting_map, normalized, settings_of, spacing_of
from fastsdm.losses._options import ClassWeights, PendingMap
from fastsdm.losses._reduction import class_weights as weights_tensor
from fastsdm.losses._reduction import fitting_weights, reduced, reduced_by_dot, takes_one_dot, voxel_mean
from fastsdm.losses._target import Target, read_target, selected


@dataclass(frozen=True)
class Batch:
    """What a loss computes its value from.

    Attributes:
        prediction: of the K channels the loss uses, activated, ``[B, K, *S]``.
        truth: the target.
        spacing: voxel size.
        handed: the target's map if the caller brought one; not to be written to.
        weights: of the classes, ``[K]`` or ``[B, K]``, or None.
    """

    prediction: torch.Tensor
    truth: Target
    spacing: SpacingLike
    handed: torch.Tensor | None
    weights: torch.Tensor | None


class DistanceMapLoss(SharedSettings):
    """Base of the losses that weigh a prediction by a distance map of the target.

    ``forward`` reads and checks the target, adopts the map if the caller brought one, activates the
    prediction, and leaves the rest to the loss's ``_value``: make the map, compute, reduce.
    """

    def forward(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        *,
        spacing: SpacingLike | None = None,
        distance_map: torch.Tensor | PendingMap | None = None,
        ignore_mask: torch.Tensor | None = None,
        class_weights: ClassWeights | None = None,
    ) -> torch.Tensor:
        """Compute the loss; its gradient reaches the prediction only.

        Args:
            input: the prediction ``[B, C, *S]`` with 2 or 3 spatial axes; float16 and bfloat16 are
                converted to float32.
            target: a label map ``[B, *S]`` or ``[B, 1, *S]``; or one channel per class or region,
                ``[B, C, *S]``, inside above 0.5; floats from 0 to 1, which the losses that compare with the
                target take as soft labels. With C = 1 all three are a mask.
            spacing: voxel size of this batch, instead of the constructor's.
            distance_map: the target's map, ``[B, K, *S]`` or with all C channels, floats or integers; or
                what :func:`fastsdm.prefetch` returned. It is normalized and masked like one computed here,
                and infinities in it are set to 0 under ``empty="zero"``. A map that records its settings is
                refused if they differ from the loss's; any other map is taken as it is.
            ignore_mask: ``[B, *S]`` or ``[B, 1, *S]``, non-zero at voxels to ignore like ``ignore_index``;
                or one channel per class, ``[B, C, *S]``, where classes are not annotated. Prediction and
                target may be NaN or infinite where all classes are ignored.
            class_weights: of this batch, ``[K]`` or ``[B, K]``, instead of the constructor's. A tensor may
                be on the prediction's device; its values are checked on the CPU only.

        Returns:
            A scalar, or with ``reduction="none"`` one value per sample and class, ``[B, K]``.

        Raises:
            TypeError, ValueError: shapes, dtypes or devices that do not fit; the message says which.
            BackendUnavailableError: the backend asked for cannot run.
        """
        self._check_prediction(input)
        truth = self._read(target, input.shape, input.device, ignore_mask)
        spacing = self.batch_spacing(spacing, target, input.ndim - 2, input, distance_map)
        handed = None
        if distance_map is not None:
            handed = self._adopted(distance_map, truth, input, spacing, masked=ignore_mask is not None)
        prediction = self._activated(input, truth)
        weights = self.class_weights if class_weights is None else weights_tensor(class_weights)
        if weights is not None:
            weights = fitting_weights(weights, prediction)
        return self._value(Batch(prediction, truth, spacing, handed, weights))

    def batch_spacing(
        self,
        given: SpacingLike | None,
        target: torch.Tensor,
        spatial_dims: int,
        input: torch.Tensor | None = None,
        distance_map: object = None,
    ) -> SpacingLike:
        """Return the voxel size of a batch: the call's, else the loss's, else that of the map, else 1.

        A subclass may override it to read the spacing from the batch, such as an image's affine, and
        ``_checked_spacing`` to accept that in the constructor.

        Args:
            given: the call's ``spacing``.
            target: as passed to ``forward``.
            spatial_dims: number of spatial axes, the target's last ones.
            input: the prediction, or None before the forward pass.
            distance_map: as passed to ``forward``.
        """
        if given is not None:
            return given
        return spacing_of(distance_map) if self.spacing is None else self.spacing

    def target_map(
        self,
        target: torch.Tensor,
        channels: int,
        *,
        spatial_dims: int = 3,
        spacing: SpacingLike | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the target's map as ``forward`` would, for its argument ``distance_map``.

        Args:
            target: as in ``forward``.
            channels: number of channels of the prediction.
            spatial_dims: 2 or 3.
            spacing: as in ``forward``.
            ignore_mask: as in ``forward``.

        Returns:
            ``[B, K, *S]`` float32, of the channels the loss uses.

        Raises:
            TypeError, ValueError: as in ``forward``.
        """
        spatial_dims, channels = _validate.spatial_dims(spatial_dims), _channel_count(channels)
        # Tensors are not converted, because a subclass may read the spacing from their metadata.
        target = target if isinstance(target, torch.Tensor) else as_tensor(target, "target")[0]
        if target.ndim <= spatial_dims:
            raise ValueError(
                f"target: must have a batch axis before the axes of spatial_dims={spatial_dims}, "
                f"got shape {tuple(target.shape)}"
            )
        _validate.target_layout(target, spatial_dims)
        shape = torch.Size((target.shape[0], channels, *target.shape[-spatial_dims:]))
        truth = self._read(target, shape, target.device, ignore_mask)
        return self._made(truth, self.batch_spacing(spacing, target, spatial_dims))

    def prefetch(
        self,
        target: torch.Tensor,
        channels: int,
        *,
        spatial_dims: int = 3,
        spacing: SpacingLike | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> Prefetched[torch.Tensor]:
        """Start the map that ``forward`` would compute, to run during the forward pass of the network.

        The arguments are those of :meth:`target_map`.

        Returns:
            What ``forward`` takes as its ``distance_map``; see :func:`fastsdm.prefetch`.
        """
        spacing, channels = self.batch_spacing(spacing, target, spatial_dims), _channel_count(channels)
        mapped = partial(
            self._target_map_by,
            registry.current_choice(self.backend),
            channels=channels,
            spatial_dims=spatial_dims,
            spacing=spacing,
            ignore_mask=ignore_mask,
        )
        return start(mapped, target, self.map_settings(channels, spacing, masked=ignore_mask is not None))

    def map_settings(
        self, channels: int, spacing: SpacingLike | None = None, *, masked: bool = False
    ) -> MapSettings:
        """Return the settings with which this loss makes its map.

        Args:
            channels: number of channels of the prediction.
            spacing: voxel size; None leaves it open.
            masked: whether there is an ``ignore_mask``.
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

    def _target_map_by(self, backend: str, target: torch.Tensor, **options: Any) -> torch.Tensor:
        # `use_backend` of the calling thread does not hold in the worker thread.
        with registry.use_backend(backend):
            return self.target_map(target, **options)

    def _check_prediction(self, input: torch.Tensor) -> None:
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"input: must be a torch tensor, got {type(input).__name__}")
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
            for setting, given in ignored.items():
                if given:
                    warn_caller(f"single channel prediction, `{setting}` ignored.")

    def _read(
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

    def _channels(self, count: int) -> Sequence[int]:
        """Indices of the channels the loss uses, out of ``count``."""
        if self.classes is None:
            return range(0 if self.include_background or count == 1 else 1, count)
        if max(self.classes) >= count:
            raise ValueError(f"classes: must be below the prediction's {count} channels, got {self.classes}")
        return self.classes

    def _activated(self, input: torch.Tensor, truth: Target) -> torch.Tensor:
        """Predictions of the channels the loss uses, at least float32; finite at ignored voxels."""
        if truth.ignored_throughout is not None:
            input = input.masked_fill(truth.ignored_throughout, 0)  # 0 times NaN would be NaN
        is_half = input.dtype in (torch.float16, torch.bfloat16)
        if self.softmax and input.shape[1] > 1:
            # On CUDA the conversion is part of the softmax.
            input = torch.softmax(input, dim=1, dtype=torch.float32 if is_half else None)
        else:
            input = input.float() if is_half else input
            if self.sigmoid:
                input = torch.sigmoid(input)
            elif self.other_act is not None:
                input = self.other_act(input)
        prediction = selected(input, self._channels(input.shape[1]))
        if truth.ignored is not None and truth.ignored.shape[1] > 1:
            prediction = prediction.masked_fill(truth.ignored, 0)
        return prediction

    def _adopted(
        self,
        handed: torch.Tensor | PendingMap,
        truth: Target,
        input: torch.Tensor,
        spacing: SpacingLike,
        *,
        masked: bool,
    ) -> torch.Tensor:
        """The caller's map, checked, of the channels the loss uses, masked and normalized."""
        count, known = input.shape[1], settings_of(handed)
        channels = self._channels(count)
        if known is not None:
            check_same(known, self.map_settings(count, spacing, masked=masked), channels, count)
        maps = fitting_map(handed, input.shape, input.device, channels)
        fill = 0.0 if self.empty == "zero" else self.max_distance
        if fill is not None:
            maps = maps.nan_to_num(nan=math.nan, posinf=fill, neginf=-fill)
        if truth.ignored is not None:
            maps = maps.masked_fill(truth.ignored, 0)
        return normalized(maps, self.normalize)

    def _map(self, batch: Batch) -> torch.Tensor:
        """The target's map: the caller's, which is not to be written to, or one made here."""
        return self._made(batch.truth, batch.spacing) if batch.handed is None else batch.handed

    def _made(self, truth: Target, spacing: SpacingLike) -> torch.Tensor:
        if truth.classes is None or truth.ignored is not None:
            return self._distances(truth.masks(), None, truth.ignored, spacing)
        return self._distances(truth.values, truth.classes, None, spacing)

    def _distances(
        self,
        values: torch.Tensor,
        classes: Sequence[int] | None,
        ignored: torch.Tensor | None,
        spacing: SpacingLike,
    ) -> torch.Tensor:
        """Make a map ``[B, K, *S]`` with the loss's settings: normalized, and 0 at ignored voxels.

        ``values`` are labels ``[B, *S]`` of K ``classes``; or, with ``classes=None``, bool masks
        ``[B, K, *S]`` that are False at ignored voxels.
        """
        ndim = values.ndim - (2 if classes is None else 1)
        if ignored is None:
            maps = signed_distance(
                values,
                classes=classes,
                spatial_dims=ndim,
                spacing=spacing,
                convention=self.convention,
                empty=self.empty,
                max_distance=self.max_distance,
                backend=self.backend,
            )
        else:
            limit = None if self.max_distance is None else float(self.max_distance)
            rows = _validate.spacing_rows(spacing, values.shape[:1], ndim)
            options = (self.convention, self.empty, limit, torch.float32, self.backend)
            maps = signed_distance_of_masks(values, ignored, rows, *options)
        return normalized(maps, self.normalize, in_place=True)

    def _value(self, batch: Batch) -> torch.Tensor:
        """The reduced loss."""
        raise NotImplementedError

    def _mean_of_product(self, one: torch.Tensor, other: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The reduced mean of a product over the known voxels; ``other`` gets no gradient."""
        uniform = batch.truth.ignored is None and batch.weights is None
        if uniform and takes_one_dot(one, other, self.reduction):
            return reduced_by_dot(one, other, self.reduction, self.batch)
        return self._reduced(voxel_mean(one * other, batch.truth), batch.weights)

    def _reduced(self, values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Weigh and reduce values ``[B, K]`` as ``class_weights``, ``batch`` and ``reduction`` say."""
        return reduced(values if weights is None else values * weights, self.reduction, self.batch)


def _channel_count(channels: int) -> int:
    count = _validate.integer("channels", channels)
    if count < 1:
        raise ValueError(f"channels: must be at least 1, got {count}")
    return count
