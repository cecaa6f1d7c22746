"""The metrics as objects that collect batches and reduce them at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch

from fastsdm import _validate
from fastsdm.metrics._functions import dice_of, evaluate
from fastsdm.metrics._inputs import Settings
from fastsdm.metrics._measures import AverageDistance, HausdorffDistance, Measure, SurfaceDice

Reduction: TypeAlias = Literal[
    "none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel"
]


class SurfaceMetric:
    """Base of the metrics: call or :meth:`update` for every batch, :meth:`compute` at the end.

    With ``torch.distributed`` initialised, :meth:`compute` gathers the values of all processes and must be
    called by all of them.

    Args:
        measure: what is measured; None for the Dice overlap.
        settings: how predictions and references are read.
        reduction: see :meth:`compute`.
    """

    def __init__(self, measure: Measure | None, settings: Settings, reduction: str) -> None:
        _validate.choice("reduction", reduction, get_args(Reduction))
        self._measure = measure
        self._settings = settings
        self.reduction = reduction
        self._rows: list[torch.Tensor] = []

    def __call__(self, y_pred: Any, y: Any, **options: Any) -> torch.Tensor:
        """Like :meth:`update`."""
        return self.update(y_pred, y, **options)

    def update(self, y_pred: Any, y: Any, **options: Any) -> torch.Tensor:
        """Add a batch.

        Args:
            y_pred: as the function of the metric takes it.
            y: as the function takes it.
            options: for this batch, instead of the constructor's: ``spacing`` and all else that says how the
                function reads its inputs.

        Returns:
            ``[B, K]``: the batch's values.

        Raises:
            TypeError, ValueError, BackendUnavailableError: as the function raises them.
        """
        settings = self._settings.updated(options)
        if self._measure is None:
            values = dice_of(y_pred, y, settings)
        else:
            (values,) = evaluate([self._measure], y_pred, y, settings)
        self._rows.append(values.detach().cpu())
        return values

    def compute(self, reduction: str | None = None) -> torch.Tensor:
        """Reduce what was added since the last :meth:`reset`, leaving NaN out.

        Args:
            reduction: instead of the constructor's. ``"none"``: ``[N, K]``; ``"mean"``: over the classes,
                then over the samples; ``"sum"``; ``"mean_batch"``, ``"sum_batch"``: ``[K]``;
                ``"mean_channel"``, ``"sum_channel"``: ``[N]``. A mean without any value is NaN.

        Raises:
            ValueError: an unknown reduction, or no batch was added.
        """
        reduction = self.reduction if reduction is None else reduction
        _validate.choice("reduction", reduction, get_args(Reduction))
        values = self._gathered()
        if reduction == "none":
            return values
        if reduction == "sum":
            return values.nansum()
        if reduction == "mean":
            return values.nanmean(dim=1).nanmean()
        over = 0 if reduction.endswith("batch") else 1
        return values.nanmean(dim=over) if reduction.startswith("mean") else values.nansum(dim=over)

    aggregate = compute

    def reset(self) -> None:
        """Forget every batch."""
        self._rows.clear()

    def _gathered(self) -> torch.Tensor:
        rows = self._rows
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, rows)
            rows = [batch for own in everyone for batch in own]
        if not rows:
            raise ValueError("compute: needs at least one batch, none was added since the last reset")
        return torch.cat(rows)


class HausdorffDistanceMetric(SurfaceMetric):
    """Collect :func:`compute_hausdorff_distance` over batches.

    Args:
        include_background: as in :func:`compute_hausdorff_distance`.
        distance_metric: as in :func:`compute_hausdorff_distance`.
        percentile: as in :func:`compute_hausdorff_distance`; 95 for HD95.
        directed: as in :func:`compute_hausdorff_distance`.
        reduction: see :meth:`SurfaceMetric.compute`.
        options: ``spacing``, ``ignore_index``, ``num_classes``, ``use_subvoxels`` and ``backend``, as in
            :func:`compute_hausdorff_distance`.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
    """

    def __init__(
        self,
        include_background: bool = False,
        distance_metric: str = "euclidean",
        percentile: float | None = None,
        directed: bool = False,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = Settings(include_background, distance_metric).updated(options)
        super().__init__(HausdorffDistance(percentile, directed), settings, reduction)


class SurfaceDistanceMetric(SurfaceMetric):
    """Collect :func:`compute_average_surface_distance` over batches.

    Args:
        include_background: as in :func:`compute_average_surface_distance`.
        symmetric: as in :func:`compute_average_surface_distance`.
        distance_metric: as in :func:`compute_average_surface_distance`.
        reduction: see :meth:`SurfaceMetric.compute`.
        options: as in :class:`HausdorffDistanceMetric`.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
    """

    def __init__(
        self,
        include_background: bool = False,
        symmetric: bool = False,
        distance_metric: str = "euclidean",
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = Settings(include_background, distance_metric).updated(options)
        super().__init__(AverageDistance(symmetric), settings, reduction)


class SurfaceDiceMetric(SurfaceMetric):
    """Collect :func:`compute_surface_dice` over batches.

    Args:
        class_thresholds: as in :func:`compute_surface_dice`.
        include_background: as in :func:`compute_surface_dice`.
        distance_metric: as in :func:`compute_surface_dice`.
        reduction: see :meth:`SurfaceMetric.compute`.
        options: as in :class:`HausdorffDistanceMetric`.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
    """

    def __init__(
        self,
        class_thresholds: Sequence[float],
        include_background: bool = False,
        distance_metric: str = "euclidean",
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = Settings(include_background, distance_metric).updated(options)
        super().__init__(SurfaceDice(class_thresholds), settings, reduction)


class DiceMetric(SurfaceMetric):
    """Collect :func:`compute_dice` over batches.

    Args:
        include_background: as in :func:`compute_dice`.
        reduction: see :meth:`SurfaceMetric.compute`.
        options: as in :class:`HausdorffDistanceMetric`.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names argument, rule and value.
    """

    def __init__(self, include_background: bool = False, reduction: str = "mean", **options: Any) -> None:
        super().__init__(None, Settings(include_background).updated(options), reduction)
