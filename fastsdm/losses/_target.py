"""What the network should have predicted: one reading for label maps, one-hot masks and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._sdm import equal_labels, signed_distance, signed_distance_of_masks
from fastsdm._settings import MapSettings
from fastsdm._types import SpacingLike

_ROUNDING = 1e-3  # by which interpolated probabilities may miss [0, 1]


@dataclass(frozen=True)
class Target:
    """The truth of the K channels a loss looks at.

    Attributes:
        values: a label map ``[B, *S]``, or one channel per class ``[B, K, *S]``, inside above 0.5.
        classes: the K label values of a label map; None with one channel per class.
        ignored: bool ``[B, 1, *S]`` or ``[B, K, *S]``, the voxels that belong to no class and to no
            background; or None.
    """

    values: torch.Tensor
    classes: Sequence[int] | None
    ignored: torch.Tensor | None

    def masks(self) -> torch.Tensor:
        """Bool ``[B, K, *S]``; ignored voxels are inside of nothing."""
        if self.classes is not None:
            inside = torch.stack([self.values == value for value in self.classes], dim=1)
        else:
            inside = self.values if self.values.dtype == torch.bool else self.values > 0.5
        return inside if self.ignored is None else inside & ~self.ignored

    def probabilities(self, dtype: torch.dtype) -> torch.Tensor:
        """Floats ``[B, K, *S]``: soft targets as they are, all others 0 or 1; 0 at ignored voxels."""
        if self.classes is not None or not self.values.is_floating_point():
            return self.masks().to(dtype)
        soft = self.values.to(dtype)
        return soft if self.ignored is None else soft.masked_fill(self.ignored, 0)

    def signed_distance(self, settings: MapSettings, spacing: SpacingLike, backend: str) -> torch.Tensor:
        """The map ``[B, K, *S]``, as :func:`fastsdm.signed_distance` makes it; 0 at ignored voxels."""
        if self.ignored is not None or self.classes is None:
            return map_of_masks(self.masks(), self.ignored, settings, spacing, backend)
        return _map_of(self.values, self.classes, settings, spacing, backend)


def map_of_masks(
    masks: torch.Tensor,
    ignored: torch.Tensor | None,
    settings: MapSettings,
    spacing: SpacingLike,
    backend: str,
) -> torch.Tensor:
    """The map ``[B, K, *S]`` of bool masks ``[B, K, *S]``; ignored voxels are no source of distance."""
    if ignored is None:
        return _map_of(masks, None, settings, spacing, backend)
    rows = _validate.spacing_rows(spacing, masks.shape[:1], masks.ndim - 2)
    assert settings.empty is not None
    limit = settings.max_distance
    return signed_distance_of_masks(
        masks, ignored, rows, settings.convention, settings.empty, limit, torch.float32, backend
    )


def _map_of(
    target: torch.Tensor,
    classes: Sequence[int] | None,
    settings: MapSettings,
    spacing: SpacingLike,
    backend: str,
) -> torch.Tensor:
    """The map of labels ``[B, *S]`` with their classes, or of masks ``[B, K, *S]`` without."""
    return signed_distance(
        target,
        classes=classes,
        spatial_dims=target.ndim - (2 if classes is None else 1),
        spacing=spacing,
        convention=settings.convention,  # type: ignore[arg-type]  # a loss checks its settings when made
        empty=settings.empty,  # type: ignore[arg-type]
        max_distance=settings.max_distance,
        backend=backend,
    )


def read_target(
    target: object,
    shape: Sequence[int],
    device: torch.device,
    *,
    channels: Sequence[int],
    to_onehot_y: bool,
    ignore_index: int | None,
    ignore_mask: torch.Tensor | None,
) -> Target:
    """Tell label maps from channels by their shape, and check both against the prediction.

    Args:
        target: ``[B, *S]``, ``[B, 1, *S]`` or ``[B, C, *S]``.
        shape: the prediction's, ``[B, C, *S]``.
        device: the prediction's.
        channels: those the loss looks at.
        to_onehot_y: the caller insists on a label map.
        ignore_index: label value of voxels to ignore.
        ignore_mask: ``[B, *S]``, ``[B, 1, *S]`` or ``[B, C, *S]``, non-zero where to ignore.

    Raises:
        TypeError: the target is no tensor.
        ValueError: shapes or devices that do not fit the prediction's; float channels that are no
            probabilities, on the CPU.
    """
    values = _fitting("target", target, shape, device)
    if values.dtype == torch.bool and values.shape[1] == shape[1] + 1 and ignore_index is None:
        # nnU-Net's targets of regions: the last channel marks the voxels to ignore.
        stored = values[:, -1:]
        values, ignore_mask = values[:, :-1], stored if ignore_mask is None else ignore_mask
        ignore_mask = stored | (_fitting("ignore_mask", ignore_mask, shape, device) != 0)
    is_labels = shape[1] > 1 and (to_onehot_y or values.shape[1] == 1)
    if values.shape[1] != (1 if is_labels else shape[1]):
        wanted = "a label map" if is_labels else f"a label map or one channel per class ({shape[1]})"
        raise ValueError(
            f"target: must be {wanted} for a prediction of shape {tuple(shape)}"
            f"{' and to_onehot_y=True' if to_onehot_y else ''}, got shape {tuple(values.shape)}"
        )
    if ignore_index is not None and values.shape[1] > 1:
        raise ValueError(
            f"ignore_index: needs a label map; got ignore_index={ignore_index} and a target with one channel "
            f"per class, shape {tuple(values.shape)}: pass an ignore_mask instead"
        )
    ignored = None if ignore_index is None else equal_labels(values, ignore_index)
    if ignore_mask is not None:
        marked = _fitting("ignore_mask", ignore_mask, shape, device) != 0
        if marked.shape[1] not in (1, shape[1]):
            raise ValueError(
                f"ignore_mask: must have one channel, {shape[1]} (one per class) or none, "
                f"got shape {tuple(ignore_mask.shape)}"
            )
        if marked.shape[1] > 1:
            marked = selected(marked, channels)
        ignored = marked if ignored is None else ignored | marked
    if is_labels:
        return Target(_read_labels(values, ignored, shape[1]).squeeze(1), channels, ignored)
    masks = selected(values, channels)
    _check_probabilities(masks, ignored)
    return Target(masks, None, ignored)


def check_classes(classes: object) -> list[int]:
    """The channels a loss is to look at, as a list.

    Raises:
        TypeError: not a sequence of integers.
        ValueError: no channel, a negative one, or another order than the ascending one.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise TypeError(f"classes: must be None or a sequence of channels, got {type(classes).__name__}")
    values = list(classes)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise TypeError(f"classes: must hold integers, got {values}")
    if not values or values[0] < 0 or any(low >= high for low, high in pairwise(values)):
        raise ValueError(f"classes: must be one or more channels from 0 on, ascending; got {values}")
    return values


def selected(tensor: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """``[B, K, *S]``: these channels of ``[B, C, *S]``; a view where they are the last ones."""
    if isinstance(channels, range):
        return tensor[:, channels.start :]
    # An index would be copied to the device, and waited for.
    return torch.stack([tensor[:, channel] for channel in channels], dim=1)


def _fitting(name: str, array: object, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """The array as a plain tensor ``[B, any, *S]`` that goes with a prediction of that shape and device."""
    tensor, _ = as_tensor(array, name)
    if tensor.device != device:
        raise ValueError(f"{name}: must be on the prediction's device {device}, got {tensor.device}")
    received = tuple(tensor.shape)
    if tensor.ndim == len(shape) - 1:
        tensor = tensor.unsqueeze(1)
    if tensor.ndim != len(shape) or (tensor.shape[0], *tensor.shape[2:]) != (shape[0], *shape[2:]):
        raise ValueError(
            f"{name}: must have batch size and spatial shape of the prediction {tuple(shape)}, got {received}"
        )
    return tensor


def _read_labels(labels: torch.Tensor, ignored: torch.Tensor | None, channels: int) -> torch.Tensor:
    """Integer labels ``[B, 1, *S]``; on the CPU each known one has a channel.

    Raises:
        ValueError: floats that are not whole, or labels that no channel stands for.
    """
    looks = labels.device.type == "cpu" and labels.numel() > 0 and not torch.compiler.is_compiling()
    everywhere = None if ignored is None else ignored.all(dim=1, keepdim=True)
    if labels.is_floating_point():
        if everywhere is not None:
            labels = labels.masked_fill(everywhere, 0)
        if looks:
            _validate.float_labels(labels, whole=True)
        labels = labels.round().long()
    if looks and labels.dtype != torch.bool:
        known = labels if everywhere is None else labels.masked_fill(everywhere, 0)
        unsigned = labels.dtype in (torch.uint16, torch.uint32, torch.uint64)  # torch has no extrema of these
        low, high = (extreme.item() for extreme in (known.long() if unsigned else known).aminmax())
        if low < 0 or high >= channels:
            raise ValueError(
                f"target: label {low if low < 0 else high} has no channel, the prediction has {channels}; "
                f"labels must be from 0 to {channels - 1}, or be left out by ignore_index or an ignore_mask"
            )
    return labels


def _check_probabilities(masks: torch.Tensor, ignored: torch.Tensor | None) -> None:
    """Raise for float channels beyond [0, 1]; only where looking at them does not stall an accelerator."""
    if torch.compiler.is_compiling() or masks.device.type != "cpu":
        return
    if not masks.is_floating_point() or masks.numel() == 0:
        return
    counted = masks if ignored is None else masks.masked_fill(ignored, 0)
    for extreme in (extreme.item() for extreme in counted.aminmax()):
        if not -_ROUNDING <= extreme <= 1 + _ROUNDING:  # NaN is both extremes
            raise ValueError(f"target: float channels must hold values from 0 to 1, got {extreme!r}")
