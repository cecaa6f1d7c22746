"""Prediction and reference of a metric: what the caller says about them, checked, and the masks in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import torch

from fastsdm import _validate
from fastsdm._arrays import above_zero, as_tensor
from fastsdm._sdm import equal_labels
from fastsdm._settings import spacing_rows
from fastsdm._types import SpacingLike


class Options(TypedDict, total=False):
    """Keywords of every metric that MONAI's do not have."""

    num_classes: int | None
    backend: str


class SurfaceOptions(Options, total=False):
    """Those of the metrics whose MONAI counterpart knows one kind of surface only."""

    use_subvoxels: bool


@dataclass(frozen=True)
class Settings:
    """How prediction and reference are read and measured; see ``compute_hausdorff_distance``.

    Raises:
        TypeError, ValueError: a value that no prediction and reference could go with.
    """

    include_background: bool = False
    distance_metric: str = "euclidean"
    spacing: SpacingLike | None = None
    ignore_index: int | None = None
    num_classes: int | None = None
    use_subvoxels: bool = False
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.distance_metric != "euclidean":
            raise ValueError(f"distance_metric: must be 'euclidean', got {self.distance_metric!r}")
        for name in ("include_background", "use_subvoxels"):
            _validate.flag(name, getattr(self, name))
        if self.spacing is not None:
            rows = torch.tensor(spacing_rows(self.spacing), dtype=torch.float64, device="cpu")
            _validate.spacing_values(rows)
        if self.ignore_index is not None:
            _validate.integer("ignore_index", self.ignore_index)
        if self.num_classes is not None:
            count = _validate.integer("num_classes", self.num_classes)
            if count < 2:
                raise ValueError(f"num_classes: must be None or an integer of at least 2, got {count}")
        _validate.backend_name(self.backend)

    def updated(self, options: Mapping[str, Any]) -> Settings:
        """The settings with some of them replaced.

        Raises:
            TypeError: there is no setting of that name.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in options:
            if name not in known:
                raise TypeError(f"{name}: is no argument of the metric; it takes {', '.join(known)}")
        return Settings(**{**known, **options})


class Inputs:
    """Prediction and reference, checked against each other, and the masks in them.

    Args:
        y_pred: ``[B, C, *S]``, or with ``num_classes`` a label map ``[B, *S]`` or ``[B, 1, *S]``.
        y: likewise.
        settings: what the caller says about them.

    Attributes:
        classes: the classes that count; one column of the result each.
        ndim: number of spatial axes.
        spacing: voxel size of each sample.

    Raises:
        TypeError, ValueError: inputs that do not go together, or not with the settings.
    """

    def __init__(self, y_pred: Any, y: Any, settings: Settings) -> None:
        self.is_labels = settings.num_classes is not None
        self.prediction = _read(y_pred, "y_pred", settings.num_classes)
        self.reference = _read(y, "y", settings.num_classes)
        if self.prediction.shape != self.reference.shape:
            raise ValueError(
                f"y: must have the shape of y_pred {tuple(self.prediction.shape)}, "
                f"got {tuple(self.reference.shape)}"
            )
        if self.prediction.device != self.reference.device:
            raise ValueError(
                f"y: must be on the device of y_pred {self.prediction.device}, got {self.reference.device}"
            )
        self.ndim = self.prediction.ndim - 2
        channels = self.prediction.shape[1] if settings.num_classes is None else int(settings.num_classes)
        # A single channel is the class itself, as MONAI has it.
        self.classes = range(0 if settings.include_background or channels == 1 else 1, channels)
        self.batch, self.device = self.prediction.shape[0], self.prediction.device
        rows = _validate.spacing_rows(
            1.0 if settings.spacing is None else settings.spacing, (self.batch,), self.ndim
        )
        _validate.spacing_values(rows)
        self.spacing: list[list[float]] = rows.tolist()
        self.ignore_index = settings.ignore_index

    @property
    def counted(self) -> list[tuple[int, int]]:
        """Column and class of all that count but the ignored one."""
        pairs = enumerate(self.classes)
        return [(column, value) for column, value in pairs if value != self.ignore_index]

    def masks(self, sample: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield column, prediction and reference of every class that counts, without ignored voxels."""
        known = self._known(sample)
        for column, value in self.counted:
            prediction = self._mask(self.prediction[sample], value, "y_pred")
            reference = self._mask(self.reference[sample], value, "y")
            if known is not None:
                prediction, reference = prediction & known, reference & known
            yield column, prediction, reference

    def volumes(self, sample: int) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, int | None]]]:
        """Both volumes ``[C, *S]``, and channel and label (None: above 0) of every class that counts."""
        if self.ignore_index is None:
            pair = self.prediction[sample], self.reference[sample]
            return *pair, [(0, value) if self.is_labels else (value, None) for _, value in self.counted]
        masks = [torch.stack(pair) for _, *pair in self.masks(sample)]
        if not masks:
            return self.prediction[sample], self.reference[sample], []
        prediction, reference = torch.stack(masks, dim=1)
        return prediction, reference, [(channel, None) for channel in range(len(masks))]

    def _mask(self, whole: torch.Tensor, value: int, name: str) -> torch.Tensor:
        if self.is_labels:
            return equal_labels(whole[0], value)
        channel = whole[value]
        _validate.float_labels(channel, whole=False, name=name)
        return channel > 0.5 if channel.is_floating_point() else above_zero(channel)

    def _known(self, sample: int) -> torch.Tensor | None:
        if self.ignore_index is None:
            return None
        truth = self.reference[sample]
        if self.is_labels:
            return ~equal_labels(truth[0], self.ignore_index)
        if 0 <= self.ignore_index < truth.shape[0]:
            return truth[self.ignore_index] == 0
        return (truth != 0).any(dim=0)


def _read(array: Any, name: str, num_classes: int | None) -> torch.Tensor:
    """``[B, C, *S]``, with C = 1 for a label map."""
    tensor = as_tensor(array, name)[0]
    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"{name}: must hold booleans, integers or floats, got dtype {tensor.dtype}")
    received = tuple(tensor.shape)
    if num_classes is not None and not (tensor.ndim in (4, 5) and tensor.shape[1] == 1):
        tensor = tensor.unsqueeze(1) if tensor.ndim > 0 else tensor
    if tensor.ndim not in (4, 5):
        layout = "[B, C, *S]" if num_classes is None else "[B, *S] or [B, 1, *S]"
        raise ValueError(f"{name}: must be {layout} with 2 or 3 spatial axes, got shape {received}")
    if num_classes is not None and tensor.is_floating_point():
        _validate.float_labels(tensor, whole=True, name=name)
        return tensor.round().long()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        _validate.float_labels(tensor, whole=False, name=name)
        return tensor > 0.5
    return tensor
