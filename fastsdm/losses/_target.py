"""Read the target of a loss: a label map, one-hot masks or regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._sdm import equal_labels

#: torch has neither ``arange`` nor ``aminmax`` for these.
_WITHOUT_RANGES = (torch.uint16, torch.uint32, torch.uint64)


@dataclass(frozen=True)
class Target:
    """The target of the K channels that a loss uses.

    Attributes:
        values: a label map ``[B, *S]``, or one channel per class ``[B, K, *S]``, inside above 0.5.
        classes: the K label values of a label map; None with one channel per class.
        ignored: bool ``[B, 1, *S]`` or ``[B, K, *S]``, the voxels to leave out; or None.
        cells: int64 ``[B, K, *S]``, for losses that are computed in parts of the volume: the part of each
            voxel, from 0 to ``cell_count - 1``; or None.
        cell_count: of a sample and class, at most.
    """

    values: torch.Tensor
    classes: Sequence[int] | None
    ignored: torch.Tensor | None
    cells: torch.Tensor | None = None
    cell_count: int = 1

    @property
    def ignored_throughout(self) -> torch.Tensor | None:
        """Bool ``[B, 1, *S]``, the voxels that all classes ignore; or None."""
        if self.ignored is None or self.ignored.shape[1] == 1:
            return self.ignored
        return self.ignored.all(dim=1, keepdim=True)

    @property
    def is_soft(self) -> bool:
        """Whether the values are probabilities."""
        return self.classes is None and self.values.is_floating_point()

    def masks(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Bool ``[B, K, *S]``, written to ``out`` if it is given; ignored voxels are inside of nothing."""
        if self.classes is not None:
            inside = class_masks(self.values, self.classes, out)
        elif out is not None:
            inside = torch.gt(self.values, 0.5, out=out)
        else:
            inside = self.values if self.values.dtype == torch.bool else self.values > 0.5
        return inside if self.ignored is None else without(inside, self.ignored, out)

    def probabilities(self, dtype: torch.dtype, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Floats ``[B, K, *S]``: soft targets as they are, all others 0 or 1; 0 at ignored voxels.

        Args:
            dtype: of the result.
            masks: what :meth:`masks` returned, where it is known.
        """
        if not self.is_soft:
            return (self.masks() if masks is None else masks).to(dtype)
        soft = self.values.to(dtype)
        return soft if self.ignored is None else soft.masked_fill(self.ignored, 0)

    def complement(self, dtype: torch.dtype) -> torch.Tensor:
        """One minus the probabilities; any finite value at ignored voxels."""
        if self.classes is not None:
            return class_masks(self.values, self.classes, inside=False).to(dtype)
        if not self.is_soft:
            return (self.values <= 0.5).to(dtype)
        return 1 - self.probabilities(dtype)


def class_masks(
    labels: torch.Tensor, classes: Sequence[int], out: torch.Tensor | None = None, *, inside: bool = True
) -> torch.Tensor:
    """Compare labels ``[B, *S]`` with each class: bool ``[B, K, *S]``; with ``inside=False`` its inverse."""
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    compared = torch.eq if inside else torch.ne
    highest = _validate.label_range(labels.dtype)[1]
    if isinstance(classes, range) and classes.stop <= highest and labels.dtype not in _WITHOUT_RANGES:
        row = torch.arange(classes.start, classes.stop, dtype=labels.dtype, device=labels.device)
        return compared(labels.unsqueeze(1), row.reshape(-1, *(1 for _ in labels.shape[1:])), out=out)
    if torch.compiler.is_compiling():
        masks = torch.stack([equal_labels(labels, value) for value in classes], dim=1)
        return masks if inside else ~masks
    if out is None:
        shape = (labels.shape[0], len(classes), *labels.shape[1:])
        out = torch.empty(shape, dtype=torch.bool, device=labels.device)
    for k, value in enumerate(classes):
        if value <= highest:  # torch would wrap a larger value into the dtype
            compared(labels, value, out=out[:, k])
        else:
            out[:, k] = not inside
    return out


def without(masks: torch.Tensor, ignored: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Set masks to False at ignored voxels, in one pass: ``True > False`` is the only case that holds."""
    return torch.gt(masks, ignored, out=out)


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
    """Read a label map or one channel per class, as the shape says, and check it against the prediction.

    ``shape`` ``[B, C, *S]`` and ``device`` are those of the prediction, ``channels`` the indices of the
    channels the loss uses; the rest is as in the loss's constructor and ``forward``.

    Raises:
        TypeError: the target is not a tensor or array.
        ValueError: shapes or devices that do not fit the prediction's; on the CPU also float channels
            outside [0, 1].
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
    """Return the argument ``classes`` of a loss as a list of channels.

    Raises:
        TypeError: not integers in a sequence, an array or a CPU tensor.
        ValueError: no channel, a negative one, or channels that are not ascending.
    """
    if isinstance(classes, torch.Tensor) and classes.device.type != "cpu":
        raise ValueError(
            f"classes: must be on the CPU (reading them from {classes.device} would stall that device); "
            "pass classes.tolist()"
        )
    listed = isinstance(classes, (Sequence, np.ndarray, torch.Tensor)) and not isinstance(classes, str)
    if not listed or getattr(classes, "ndim", 1) != 1:
        raise TypeError(f"classes: must be None or a sequence of channels, got {type(classes).__name__}")
    given = list(classes)  # type: ignore[call-overload]  # checked above
    if not all(map(_validate.is_integer, given)):
        raise TypeError(f"classes: must hold integers, got {given}")
    values = [_validate.integer("classes", value) for value in given]
    if not values or values[0] < 0 or any(low >= high for low, high in pairwise(values)):
        raise ValueError(f"classes: must be one or more channels from 0 on, ascending; got {values}")
    return values


def selected(tensor: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """``[B, K, *S]``: these channels of ``[B, C, *S]``; a view where they are the last ones."""
    if isinstance(channels, range):
        return tensor[:, channels.start :]
    # Indexing by a list would copy it to the device and make the host wait.
    return torch.stack([tensor[:, channel] for channel in channels], dim=1)


def _fitting(name: str, array: object, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the array as ``[B, any, *S]``; raise unless batch size, spatial shape and device fit."""
    tensor, _ = as_tensor(array, name)
    _validate.target_layout(tensor, 0, name)
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
    looks = _validate.may_be_read(labels) and labels.numel() > 0
    is_float = labels.is_floating_point()
    if ignored is not None and (looks or is_float):
        labels = labels.long() if labels.dtype in _WITHOUT_RANGES else labels  # nor does torch fill them
        labels = labels.masked_fill(ignored if ignored.shape[1] == 1 else ignored.all(dim=1, keepdim=True), 0)
    if is_float:
        if looks:
            _validate.float_labels(labels, whole=True)
        labels = labels.round().long()
    if looks and labels.dtype != torch.bool:
        unsigned = labels.dtype in _WITHOUT_RANGES  # nor extrema
        low, high = (extreme.item() for extreme in (labels.long() if unsigned else labels).aminmax())
        if low < 0 or high >= channels:
            raise ValueError(
                f"target: label {low if low < 0 else high} has no channel, the prediction has {channels}; "
                f"labels must be from 0 to {channels - 1}, or be left out by ignore_index or an ignore_mask"
            )
    return labels


def _check_probabilities(masks: torch.Tensor, ignored: torch.Tensor | None) -> None:
    """Raise for float channels outside [0, 1]; only if their values may be read."""
    if not _validate.may_be_read(masks) or not masks.is_floating_point() or masks.numel() == 0:
        return
    counted = masks if ignored is None else masks.masked_fill(ignored, 0)
    for extreme in (extreme.item() for extreme in counted.aminmax()):
        if not -_validate.ROUNDING <= extreme <= 1 + _validate.ROUNDING:  # NaN is both extremes
            raise ValueError(f"target: float channels must hold values from 0 to 1, got {extreme!r}")
