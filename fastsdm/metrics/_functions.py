"""Surface metrics of a segmentation, per sample and class; MONAI's names, arguments and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from fastsdm._types import SpacingLike
from fastsdm.metrics._inputs import Inputs, Options, Settings, SurfaceOptions
from fastsdm.metrics._measures import AverageDistance, HausdorffDistance, Measure, SurfaceDice
from fastsdm.metrics._surface import surfaces_of_sample

if TYPE_CHECKING:
    from typing_extensions import Unpack


def compute_hausdorff_distance(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    distance_metric: str = "euclidean",
    percentile: float | None = None,
    directed: bool = False,
    spacing: SpacingLike | None = None,
    ignore_index: int | None = None,
    **options: Unpack[SurfaceOptions],
) -> torch.Tensor:
    """Compute the Hausdorff distance between the surfaces of prediction and reference.

    The largest distance (or its ``percentile``, as in HD95) from a surface element of one mask to the surface
    of the other, in the direction where it is larger. Huttenlocher et al. 1993, doi:10.1109/34.232073. The
    values are those of ``monai.metrics.compute_hausdorff_distance``, whose arguments come first.

    Args:
        y_pred: prediction, one channel per class ``[B, C, *S]``, inside above 0 (floats: above 0.5);
            or with ``num_classes`` a label map ``[B, *S]`` or ``[B, 1, *S]``. 2 or 3 spatial axes.
        y: reference, like ``y_pred``, on the same device.
        include_background: whether class 0 counts.
        distance_metric: ``"euclidean"``, the only one offered.
        percentile: None for the maximum, else above 0 and at most 100; linear between two distances.
        directed: measure from the prediction to the reference only.
        spacing: voxel size: None for 1, a number, one per spatial axis, or one such row per sample.
        ignore_index: label of voxels that belong to neither mask; the result of that class itself is NaN.
            With one channel per class, a number outside the range of channels stands for the voxels of ``y``
            that have no class.
        options: ``num_classes`` (None): both inputs are label maps with labels from 0 to ``num_classes - 1``.
            ``use_subvoxels`` (False): surface elements lie between voxel centres and count with their area,
            as in :func:`compute_surface_dice`; the percentile is then that of the area. ``backend``
            (``"auto"``): as in :func:`fastsdm.signed_distance`.

    Returns:
        ``[B, K]`` float32 in the units of ``spacing``, on the inputs' device. NaN where both masks are empty,
        infinite where one is.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
        BackendUnavailableError: the backend asked for cannot run.
    """
    settings = Settings(include_background, distance_metric, spacing, ignore_index).updated(options)
    return evaluate([HausdorffDistance(percentile, directed)], y_pred, y, settings)[0]


def compute_average_surface_distance(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    symmetric: bool = False,
    distance_metric: str = "euclidean",
    spacing: SpacingLike | None = None,
    ignore_index: int | None = None,
    **options: Unpack[SurfaceOptions],
) -> torch.Tensor:
    """Compute the average distance between the surfaces of prediction and reference.

    The values are those of ``monai.metrics.compute_average_surface_distance``, whose arguments come first.

    Args:
        y_pred: as in :func:`compute_hausdorff_distance`.
        y: as in :func:`compute_hausdorff_distance`.
        include_background: as in :func:`compute_hausdorff_distance`.
        symmetric: average over the elements of both surfaces (ASSD), not the prediction's alone.
        distance_metric: as in :func:`compute_hausdorff_distance`.
        spacing: as in :func:`compute_hausdorff_distance`.
        ignore_index: as in :func:`compute_hausdorff_distance`.
        options: as in :func:`compute_hausdorff_distance`; with ``use_subvoxels`` the average is weighted by
            area.

    Returns:
        ``[B, K]`` float32 in the units of ``spacing``, on the inputs' device. NaN where both masks are empty,
        infinite where one is.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`compute_hausdorff_distance`.
    """
    settings = Settings(include_background, distance_metric, spacing, ignore_index).updated(options)
    return evaluate([AverageDistance(symmetric)], y_pred, y, settings)[0]


def compute_surface_dice(
    y_pred: Any,
    y: Any,
    class_thresholds: Sequence[float],
    include_background: bool = False,
    distance_metric: str = "euclidean",
    spacing: SpacingLike | None = None,
    use_subvoxels: bool = False,
    ignore_index: int | None = None,
    **options: Unpack[Options],
) -> torch.Tensor:
    """Compute the surface Dice at a tolerance: the share of both surfaces that lies close to the other one.

    Also called normalized surface distance (NSD). Nikolov et al. 2021, doi:10.2196/26151. The values are
    those of ``monai.metrics.compute_surface_dice``, whose arguments come first.

    Args:
        y_pred: as in :func:`compute_hausdorff_distance`.
        y: as in :func:`compute_hausdorff_distance`.
        class_thresholds: tolerance of each class that counts, in the units of ``spacing``.
        include_background: as in :func:`compute_hausdorff_distance`.
        distance_metric: as in :func:`compute_hausdorff_distance`.
        spacing: as in :func:`compute_hausdorff_distance`.
        use_subvoxels: False: a surface is the inside voxels with a face neighbour outside, all counting
            alike. True: it passes between the voxel centres, and each element counts with its area
            (DeepMind's definition).
        ignore_index: as in :func:`compute_hausdorff_distance`.
        options: ``num_classes`` and ``backend``, as in :func:`compute_hausdorff_distance`.

    Returns:
        ``[B, K]`` float32 from 0 to 1, on the inputs' device. NaN where both masks are empty, 0 where one is.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as in :func:`compute_hausdorff_distance`.
    """
    settings = Settings(
        include_background, distance_metric, spacing, ignore_index, use_subvoxels=use_subvoxels
    ).updated(options)
    return evaluate([SurfaceDice(class_thresholds)], y_pred, y, settings)[0]


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
        y: as in :func:`compute_hausdorff_distance`.
        include_background: as in :func:`compute_hausdorff_distance`.
        ignore_index: as in :func:`compute_hausdorff_distance`.
        num_classes: as in :func:`compute_hausdorff_distance`.

    Returns:
        ``[B, K]`` float32 from 0 to 1, on the inputs' device; NaN where both masks are empty.

    Raises:
        TypeError, ValueError: as in :func:`compute_hausdorff_distance`.
    """
    settings = Settings(include_background, ignore_index=ignore_index, num_classes=num_classes)
    return dice_of(y_pred, y, settings)


def evaluate(measures: Sequence[Measure], y_pred: Any, y: Any, settings: Settings) -> list[torch.Tensor]:
    """Measure the surfaces of every class once, and return ``[B, K]`` for each of the measures."""
    inputs = Inputs(y_pred, y, settings)
    for measure in measures:
        measure.check(len(inputs.classes))
    shape = (inputs.batch, len(inputs.classes))
    results = [torch.full(shape, math.nan, dtype=torch.float32, device="cpu") for _ in measures]
    symmetric = any(measure.symmetric for measure in measures)
    for sample in range(inputs.batch):
        found = surfaces_of_sample(
            inputs,
            sample,
            use_subvoxels=settings.use_subvoxels,
            symmetric=symmetric,
            backend=settings.backend,
        )
        for column, distances in found:
            if distances.both_empty:
                continue
            for values, measure in zip(results, measures, strict=True):
                values[sample, column] = measure.value(distances, column)
    return [values.to(inputs.device) for values in results]


def dice_of(y_pred: Any, y: Any, settings: Settings) -> torch.Tensor:
    """:func:`compute_dice` with its arguments in one."""
    inputs = Inputs(y_pred, y, settings)
    shape = (inputs.batch, len(inputs.classes))
    scores = torch.full(shape, math.nan, dtype=torch.float32, device=inputs.device)
    for sample in range(inputs.batch):
        for column, prediction, reference in inputs.masks(sample):
            size = int(prediction.sum()) + int(reference.sum())
            if size:
                scores[sample, column] = 2 * int((prediction & reference).sum()) / size
    return scores
