"""What the losses share: their arguments, and the way of a target and a prediction to a value."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from fastsdm import _validate
from fastsdm._backends import registry
from fastsdm._prefetch import Prefetched, start
from fastsdm._settings import MapSettings, spacing_rows
from fastsdm._types import SpacingLike
from fastsdm._warn import warn_caller
from fastsdm.losses._maps import PendingMap, adopted, check_options, check_spacing, normalized, spacing_of
from fastsdm.losses._maps import target_map as map_of_target
from fastsdm.losses._options import ClassWeights, ConstructorSignature, LossOptions, complete
from fastsdm.losses._reduction import class_weights as weights_tensor
from fastsdm.losses._reduction import (
    fitting_weights,
    reduced,
    reduced_by_dot,
    takes_one_dot,
    voxel_mean_of_product,
)
from fastsdm.losses._target import Target, check_classes, read_target, selected

if TYPE_CHECKING:
    from typing_extensions import Unpack


class DistanceMapLoss(torch.nn.Module):
    """Base of the losses that weigh a prediction by a distance map of the target.

    A call takes five steps: the target is read and checked, the prediction activated, the map made or
    adopted, both put together by the loss (``_value``), and the classes' values reduced.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: insist on the target being a label map; without it the shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, over samples and classes.
        batch: average over the batch before the reduction.
        classes: the channels that count, instead of what ``include_background`` says; K is their number.
            A softmax is over all channels still.
        class_weights: what each class's value is multiplied with before the reduction: K numbers, or one
            row per sample, ``[B, K]``, with 0 where a class is not annotated. None weighs all alike.
        spacing: voxel size, when ``forward`` is given none: a number, one per spatial axis, or ``[B, ndim]``.
            None is that of a map that is handed in and knows it, else 1.
        convention: of the map, as in :func:`fastsdm.signed_distance`.
        empty: what an absent class, or one that fills the volume, weighs: ``"zero"`` (nothing: the other
            classes supervise these voxels), ``"max"``, ``"raise"``, or with ``max_distance`` also ``"inf"``.
        max_distance: clamp of the map, in the units of ``spacing``.
        normalize: None; ``"max"``: divide each sample's map by its largest absolute distance; ``"unit"``:
            divide, per sample and class, each phase by its largest absolute distance.
        ignore_index: label of voxels that neither supervise nor shape the map: they count as neither inside
            nor outside of any class. Needs a label map (or a single channel) as target.
        backend: ``"auto"``, or the name of one, as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError: an argument that the loss does not have, or of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
    """

    #: Where a loss departs from the shared defaults.
    _defaults: ClassVar[LossOptions] = {}
    __signature__ = ConstructorSignature()

    class_weights: torch.Tensor | None

    def __init__(self, *monai: Any, **options: Unpack[LossOptions]) -> None:
        super().__init__()
        given = complete(type(self), monai, options)
        self.include_background = _validate.flag("include_background", given["include_background"])
        self.to_onehot_y = _validate.flag("to_onehot_y", given["to_onehot_y"])
        self.sigmoid = _validate.flag("sigmoid", given["sigmoid"])
        self.softmax = _validate.flag("softmax", given["softmax"])
        self.other_act = other_act = given["other_act"]
        if other_act is not None and not callable(other_act):
            raise TypeError(f"other_act: must be None or callable, got {type(other_act).__name__}")
        if int(self.sigmoid) + int(self.softmax) + int(other_act is not None) > 1:
            raise ValueError(
                "sigmoid, softmax, other_act: at most one can be applied, "
                f"got sigmoid={self.sigmoid}, softmax={self.softmax}, other_act={other_act}"
            )
        # MONAI's users pass a member of its enumeration.
        self.reduction: str = getattr(given["reduction"], "value", given["reduction"])
        _validate.choice("reduction", self.reduction, ("none", "mean", "sum"))
        self.batch = _validate.flag("batch", given["batch"])
        self.classes = None if given["classes"] is None else check_classes(given["classes"])
        self.spacing = self._checked_spacing(given["spacing"])
        self.convention, self.empty = given["convention"], given["empty"]
        self.max_distance, self.normalize = given["max_distance"], given["normalize"]
        _validate.convention(self.convention)
        _validate.empty_policy(self.empty)
        _validate.max_distance(self.max_distance)
        check_options(self.empty, self.max_distance, self.normalize)
        index = given["ignore_index"]
        self.ignore_index = None if index is None else _validate.integer("ignore_index", index)
        self.backend = given["backend"]
        _validate.backend_name(self.backend)
        if self.backend != "auto":
            registry.get(self.backend)
        weights = given["class_weights"]
        # A buffer follows the module to its device; it is a setting, so no part of the state.
        self.register_buffer(
            "class_weights", None if weights is None else weights_tensor(weights).clone(), persistent=False
        )

    def extra_repr(self) -> str:
        """Every setting, so that a logged loss can be built again."""
        settings = {name: value for name, value in vars(self).items() if name != "training"}
        settings["class_weights"] = None if self.class_weights is None else self.class_weights.tolist()
        return ", ".join(f"{name}={value!r}" for name, value in settings.items() if name[0] != "_")

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
        spacing = self.batch_spacing(spacing, target, input, distance_map)
        handed = None
        if distance_map is not None:
            settings = self.map_settings(input.shape[1], spacing, masked=ignore_mask is not None)
            handed = self._adopted(distance_map, truth, input, settings)
        prediction = self._activated(input, truth)
        weights = self._weights(class_weights, prediction)
        return self._value(prediction, truth, spacing, handed, weights)

    def batch_spacing(
        self,
        given: SpacingLike | None,
        target: object,
        input: torch.Tensor | None = None,
        distance_map: object = None,
    ) -> SpacingLike:
        """The voxel size of a call: its own, else the loss's, else that of a map which knows it, else 1.

        A subclass may read it from the batch, as from an image's affine. ``_checked_spacing`` is its
        counterpart in the constructor.

        Args:
            given: the call's ``spacing``.
            target: as it was handed in.
            input: the prediction, where there is one by then.
            distance_map: as it was handed in.
        """
        if given is not None:
            return given
        return spacing_of(distance_map) if self.spacing is None else self.spacing

    def _checked_spacing(self, spacing: SpacingLike | None) -> SpacingLike | None:
        """The constructor's spacing, if a batch can have it."""
        if spacing is not None:
            check_spacing(spacing)
        return spacing

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
        spatial_dims, channels = _validate.spatial_dims(spatial_dims), _channel_count(channels)
        _validate.target_layout(target, spatial_dims + 1)
        shape = torch.Size((target.shape[0], channels, *target.shape[-spatial_dims:]))
        truth = self._read(target, shape, target.device, ignore_mask)
        return self._map_of(truth, self.batch_spacing(spacing, target))

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
        spacing, channels = self.batch_spacing(spacing, target), _channel_count(channels)
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
            input = input.masked_fill(truth.ignored_throughout, 0)  # a factor of 0 would let NaN through
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

    def _weights(self, given: ClassWeights | None, prediction: torch.Tensor) -> torch.Tensor | None:
        weights = self.class_weights if given is None else weights_tensor(given)
        return None if weights is None else fitting_weights(weights, prediction)

    def _adopted(
        self, handed: torch.Tensor | PendingMap, truth: Target, input: torch.Tensor, settings: MapSettings
    ) -> torch.Tensor:
        channels = self._channels(input.shape[1])
        maps = adopted(handed, input.shape, input.device, channels=channels, settings=settings)
        if truth.ignored is not None:
            maps = maps.masked_fill(truth.ignored, 0)
        return normalized(maps, self.normalize)

    def _map_of(self, truth: Target, spacing: SpacingLike) -> torch.Tensor:
        maps = map_of_target(truth, self.map_settings(1), spacing, self.backend)
        return normalized(maps, self.normalize, in_place=True)

    def _map(self, truth: Target, spacing: SpacingLike, handed: torch.Tensor | None) -> torch.Tensor:
        """The target's map: the caller's, which is not to be written to, or one made here."""
        return self._map_of(truth, spacing) if handed is None else handed

    def _value(
        self,
        prediction: torch.Tensor,
        truth: Target,
        spacing: SpacingLike,
        handed: torch.Tensor | None,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """The reduced loss.

        Args:
            prediction: activated, ``[B, K, *S]``.
            truth: the target.
            spacing: of the batch.
            handed: the target's map if the caller brought one.
            weights: of the classes, ``[K]`` or ``[B, K]``.
        """
        raise NotImplementedError

    def _reduced_mean_of_product(
        self, one: torch.Tensor, other: torch.Tensor, truth: Target, weights: torch.Tensor | None
    ) -> torch.Tensor:
        """The reduced mean of a product over the voxels that count; ``other`` gets no gradient."""
        every_voxel_counts_alike = truth.ignored is None and weights is None
        if every_voxel_counts_alike and takes_one_dot(one, other, self.reduction):
            return reduced_by_dot(one, other, self.reduction, self.batch)
        return self._reduced(voxel_mean_of_product(one, other, truth), weights)

    def _reduced(self, values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """From values ``[B, K]`` to what ``class_weights``, ``batch`` and ``reduction`` ask for."""
        return reduced(values if weights is None else values * weights, self.reduction, self.batch)


LossT = TypeVar("LossT", bound="type[DistanceMapLoss]")


def documented(loss: LossT) -> LossT:
    """Complete a loss's docstring with the arguments that all losses share."""
    if loss.__doc__ is not None and DistanceMapLoss.__doc__ is not None:  # python -OO has none
        text, _, own = inspect.cleandoc(loss.__doc__).partition("\n\nArgs:\n")
        shared = inspect.cleandoc(DistanceMapLoss.__doc__).partition("\n\nArgs:\n")[2]
        loss.__doc__ = (
            f"{text}\n\nArgs:\n{own.rstrip()}\n{shared}\n" if own else f"{text}\n\nArgs:\n{shared}\n"
        )
    return loss


def _channel_count(channels: int) -> int:
    count = _validate.integer("channels", channels)
    if count < 1:
        raise ValueError(f"channels: must be at least 1, got {count}")
    return count
