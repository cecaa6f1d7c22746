"""Surface metrics of a segmentation, per sample and class; MONAI's names, arguments and values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._types import SpacingLike
from fastsdm.metrics._surface import Directed, SurfaceDistances, surface_distances


def compute_hausdorff_distance(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    distance_metric: str = "euclidean",
    percentile: float | None = None,
    directed: bool = False,
    spacing: SpacingLike | None = None,
    ignore_index: int | None = None,
    *,
    num_classes: int | None = None,
    use_subvoxels: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """Compute the Hausdorff distance between the surfaces of prediction and reference.

    The largest distance (or its ``percentile``, as in HD95) from a surface element of one mask to the surface
    of the other, the larger of both directions. Huttenlocher et al. 1993, doi:10.1109/34.232073. The values
    are those of ``monai.metrics.compute_hausdorff_distance``, whose arguments come first.

    Args:
        y_pred: prediction, one channel per class ``[B, C, *S]``, inside where non-zero (floats: above 0.5);
            or with ``num_classes`` a label map ``[B, *S]`` or ``[B, 1, *S]``. 2 or 3 spatial axes.
        y: reference, like ``y_pred``, on the same device.
        include_background: whether class 0 counts.
        distance_metric: ``"euclidean"``, the only one offered.
        percentile: None for the maximum, else above 0 and at most 100; linear between two distances.
        directed: measure from the prediction to the reference only.
        spacing: voxel size: None for 1, a number, one per spatial axis, or one such row per sample.
        ignore_index: label of voxels that belong to neither mask; that class itself reads NaN. With one
            channel per class a number that is no channel stands for voxels without any class in ``y``.
        num_classes: both inputs are label maps with labels from 0 to ``num_classes - 1``.
        use_subvoxels: surface elements lie between voxel centres and count with their area, as in
            :func:`compute_surface_dice`; the percentile is then that of the area.
        backend: of the distance transform, as in :func:`fastsdm.signed_distance`.

    Returns:
        ``[B, K]`` float32 in the units of ``spacing``, on the inputs' device. NaN where both masks are empty,
        infinite where one is.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
        BackendUnavailableError: the backend asked for cannot run.
    """
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"percentile: must be None, or above 0 and at most 100; got {percentile!r}")
    share = 1.0 if percentile is None else percentile / 100

    def value(measured: SurfaceDistances) -> float:
        if measured.one_empty:
            return math.inf
        ways = [measured.to_reference] if directed else [measured.to_reference, measured.to_prediction]
        return max(_quantile(way, share) for way in ways)

    inputs = _Inputs(y_pred, y, include_background, distance_metric, spacing, ignore_index, num_classes)
    return inputs.measured(value, use_subvoxels=use_subvoxels, backend=backend)


def compute_average_surface_distance(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    symmetric: bool = False,
    distance_metric: str = "euclidean",
    spacing: SpacingLike | None = None,
    ignore_index: int | None = None,
    *,
    num_classes: int | None = None,
    use_subvoxels: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """Compute the average distance between the surfaces of prediction and reference.

    The values are those of ``monai.metrics.compute_average_surface_distance``, whose arguments come first.

    Args:
        y_pred: as in :func:`compute_hausdorff_distance`.
        y: as there.
        include_background: as there.
        symmetric: average over the elements of both surfaces (ASSD), not the prediction's alone.
        distance_metric: as there.
        spacing: as there.
        ignore_index: as there.
        num_classes: as there.
        use_subvoxels: as there; the average is then weighted by area.
        backend: as there.

    Returns:
        ``[B, K]`` float32 in the units of ``spacing``, on the inputs' device. NaN where both masks are empty,
        infinite where one is.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`compute_hausdorff_distance`.
    """

    def value(measured: SurfaceDistances) -> float:
        if measured.one_empty:
            return math.inf
        ways = [measured.to_reference, measured.to_prediction] if symmetric else [measured.to_reference]
        sums = [_weighted_sums(way, way.distances) for way in ways]
        return sum(total for total, _ in sums) / sum(weight for _, weight in sums)

    inputs = _Inputs(y_pred, y, include_background, distance_metric, spacing, ignore_index, num_classes)
    return inputs.measured(value, use_subvoxels=use_subvoxels, backend=backend)


def compute_surface_dice(
    y_pred: Any,
    y: Any,
    class_thresholds: Sequence[float],
    include_background: bool = False,
    distance_metric: str = "euclidean",
    spacing: SpacingLike | None = None,
    use_subvoxels: bool = False,
    ignore_index: int | None = None,
    *,
    num_classes: int | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Compute the surface Dice at a tolerance: the share of both surfaces that lies close to the other one.

    Also called normalized surface distance (NSD). Nikolov et al. 2021, doi:10.2196/26151. The values are
    those of ``monai.metrics.compute_surface_dice``, whose arguments come first.

    Args:
        y_pred: as in :func:`compute_hausdorff_distance`.
        y: as there.
        class_thresholds: tolerance of each class that counts, in the units of ``spacing``.
        include_background: as there.
        distance_metric: as there.
        spacing: as there.
        use_subvoxels: False: a surface is the inside voxels with a face neighbour outside, all counting
            alike. True: it passes between the voxel centres, and each element counts with its area
            (DeepMind's definition).
        ignore_index: as there.
        num_classes: as there.
        backend: as there.

    Returns:
        ``[B, K]`` float32 from 0 to 1, on the inputs' device. NaN where both masks are empty, 0 where one is.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`compute_hausdorff_distance`.
    """
    inputs = _Inputs(y_pred, y, include_background, distance_metric, spacing, ignore_index, num_classes)
    thresholds = [float(threshold) for threshold in class_thresholds]
    if len(thresholds) != len(inputs.classes):
        raise ValueError(
            f"class_thresholds: must have one value per class that counts ({len(inputs.classes)}), "
            f"got {len(thresholds)}"
        )
    if not all(0 <= threshold < math.inf for threshold in thresholds):
        raise ValueError(f"class_thresholds: must be at least 0 and finite, got {thresholds}")

    def value(measured: SurfaceDistances, threshold: float) -> float:
        ways = (measured.to_reference, measured.to_prediction)
        sums = [_weighted_sums(way, way.distances <= threshold) for way in ways]
        return sum(close for close, _ in sums) / sum(weight for _, weight in sums)

    return inputs.measured(value, thresholds, use_subvoxels=use_subvoxels, backend=backend)


def compute_dice(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    ignore_index: int | None = None,
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Compute the Dice overlap of prediction and reference.

    Dice 1945, doi:10.2307/1932409.

    Args:
        y_pred: as in :func:`compute_hausdorff_distance`.
        y: as there.
        include_background: as there.
        ignore_index: as there.
        num_classes: as there.

    Returns:
        ``[B, K]`` float32 from 0 to 1, on the inputs' device; NaN where both masks are empty.

    Raises:
        TypeError, ValueError: as in :func:`compute_hausdorff_distance`.
    """
    inputs = _Inputs(y_pred, y, include_background, "euclidean", None, ignore_index, num_classes)
    scores = torch.full((inputs.batch, len(inputs.classes)), math.nan, device=inputs.device)
    for sample, column, prediction, reference in inputs.masks():
        size = int(prediction.sum()) + int(reference.sum())
        if size:
            scores[sample, column] = 2 * int((prediction & reference).sum()) / size
    return scores


class _Inputs:
    """Prediction and reference, checked, and the masks in them."""

    def __init__(
        self,
        y_pred: Any,
        y: Any,
        include_background: bool,
        distance_metric: str,
        spacing: SpacingLike | None,
        ignore_index: int | None,
        num_classes: int | None,
    ) -> None:
        if distance_metric != "euclidean":
            raise ValueError(f"distance_metric: must be 'euclidean', got {distance_metric!r}")
        self.prediction, self.reference = as_tensor(y_pred, "y_pred")[0], as_tensor(y, "y")[0]
        if num_classes is not None:
            self.prediction = _label_map("y_pred", self.prediction, num_classes)
            self.reference = _label_map("y", self.reference, num_classes)
        if self.prediction.shape != self.reference.shape:
            raise ValueError(
                f"y: must have the shape of y_pred {tuple(self.prediction.shape)}, "
                f"got {tuple(self.reference.shape)}"
            )
        if self.prediction.device != self.reference.device:
            raise ValueError(
                f"y: must be on the device of y_pred {self.prediction.device}, got {self.reference.device}"
            )
        self.ndim = self.prediction.ndim - (2 if num_classes is None else 1)
        if self.ndim not in (2, 3):
            layout = "[B, C, *S]" if num_classes is None else "[B, *S] or [B, 1, *S]"
            raise ValueError(
                f"y_pred: must be {layout} with 2 or 3 spatial axes, got shape {tuple(self.prediction.shape)}"
            )
        self.is_labels = num_classes is not None
        channels = self.prediction.shape[1] if num_classes is None else num_classes
        # A single channel is the class itself, as MONAI has it.
        self.classes = range(0 if include_background or channels == 1 else 1, channels)
        self.batch, self.device = self.prediction.shape[0], self.prediction.device
        rows = _validate.spacing_tensor(1.0 if spacing is None else spacing)
        if rows.ndim == 0 or tuple(rows.shape) == (self.ndim,):
            rows = rows.expand(self.batch, self.ndim)
        if tuple(rows.shape) != (self.batch, self.ndim):
            raise ValueError(
                f"spacing: must be a number, {self.ndim} numbers, or one such row for each of {self.batch} "
                f"samples; got shape {tuple(rows.shape)}"
            )
        _validate.spacing_values(rows)
        self.spacing: list[list[float]] = rows.tolist()
        self.ignore_index = ignore_index

    def masks(self) -> Any:
        """Yield ``sample, column, prediction, reference`` of every class that counts but the ignored one."""
        for sample in range(self.batch):
            known = self._known(sample)
            for column, value in enumerate(self.classes):
                if value == self.ignore_index:
                    continue
                pair = [self._mask(whole[sample], value) for whole in (self.prediction, self.reference)]
                if known is not None:
                    pair = [mask & known for mask in pair]
                yield sample, column, *pair

    def measured(
        self,
        value: Callable[..., float],
        per_class: Sequence[float] | None = None,
        *,
        use_subvoxels: bool,
        backend: str,
    ) -> torch.Tensor:
        """``[B, K]``: the value of every class's surface distances, NaN where neither mask has a voxel."""
        values = torch.full((self.batch, len(self.classes)), math.nan, dtype=torch.float32, device="cpu")
        for sample, column, prediction, reference in self.masks():
            distances = surface_distances(
                prediction,
                reference,
                self.spacing[sample],
                use_subvoxels=use_subvoxels,
                backend=backend,
            )
            if not distances.both_empty:
                extra = () if per_class is None else (per_class[column],)
                values[sample, column] = value(distances, *extra)
        return values.to(self.device)

    def _mask(self, whole: torch.Tensor, value: int) -> torch.Tensor:
        if self.is_labels:
            return whole == value
        channel = whole[value]
        return channel > 0.5 if channel.is_floating_point() else channel != 0

    def _known(self, sample: int) -> torch.Tensor | None:
        if self.ignore_index is None:
            return None
        truth = self.reference[sample]
        if self.is_labels:
            return truth != self.ignore_index
        if 0 <= self.ignore_index < truth.shape[0]:
            return truth[self.ignore_index] == 0
        return (truth != 0).any(dim=0)


def _label_map(name: str, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes: must be None or an integer of at least 2, got {num_classes!r}")
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise ValueError(f"{name}: a label map must hold whole numbers, got dtype {labels.dtype}")
    if labels.ndim in (4, 5) and labels.shape[1] == 1:
        return labels.squeeze(1)
    return labels


def _weighted_sums(way: Directed, values: torch.Tensor) -> tuple[float, float]:
    """Sum of the values and of their weights, in float64."""
    if way.areas is None:
        return values.double().sum().item(), float(len(values))
    return (values * way.areas.double()).sum().item(), way.areas.double().sum().item()


def _quantile(way: Directed, share: float) -> float:
    """The distance that this share of the surface does not exceed."""
    if share == 1.0:
        return way.distances.max().item()
    if way.areas is not None:
        distances, order = way.distances.sort()
        covered = way.areas.double()[order].cumsum(dim=0)
        first = int(torch.searchsorted(covered / covered[-1], share))
        return distances[min(first, len(distances) - 1)].item()
    place = share * (len(way.distances) - 1)
    low = math.floor(place)
    high = min(low + 1, len(way.distances) - 1)
    ordered = np.partition(way.distances.cpu().numpy(), (low, high))
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
