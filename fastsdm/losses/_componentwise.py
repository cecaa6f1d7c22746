"""A loss averaged over the connected components of the target."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fastsdm import _validate
from fastsdm._arrays import above_zero
from fastsdm._types import SpacingLike
from fastsdm.losses._base import Batch, DistanceMapLoss
from fastsdm.losses._reduction import fitting_weights
from fastsdm.losses._surface import GeneralizedSurfaceLoss
from fastsdm.targets._components import component_cells, component_weights


class ComponentwiseLoss(torch.nn.Module):
    """Compute the mean of a loss over the connected components of the target.

    Small components count as much as large ones. The cell of a component holds the voxels that are nearer to
    it than to any other component of its class. The loss is computed in each cell as if the cell were the
    volume: ``1/N sum_c L(cell_c)`` for N components, with the value that the loss has with
    ``reduction="none"``. This is what CC-metrics do to a metric (Jaus et al. 2024, arXiv:2410.18684).
    Components are those of full connectivity, found on the CPU by scipy: on an accelerator the target is
    copied, and the device waits.

    Args:
        loss: a loss of :mod:`fastsdm.losses` with a value per sample and class, such as :class:`BoundaryLoss`
            or :class:`HausdorffDTLoss` but not :class:`GeneralizedSurfaceLoss`; or any function of prediction
            and target that returns a value per voxel, ``[B, *S]`` or ``[B, C, *S]``, such as
            ``torch.nn.CrossEntropyLoss(reduction="none")``.
            ``reduction``, ``spacing``, classes and ignored voxels are those of the loss of fastsdm; its
            ``batch`` must be False and its ``normalize`` None. The target's distances are those in the whole
            volume. The distances to the prediction in :class:`HausdorffDTLoss` are those to what the
            prediction holds in the cell.
        reduction: for a function: ``"mean"`` or ``"sum"`` over samples and channels, or ``"none"``.
        backend: finds the nearest component, as in :func:`fastsdm.nearest_label`.

    Raises:
        TypeError: ``loss`` is not callable, or an argument of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def __init__(
        self, loss: Callable[..., torch.Tensor], *, reduction: str = "mean", backend: str = "auto"
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"loss: must be a loss or a function, got {type(loss).__name__}")
        if isinstance(loss, GeneralizedSurfaceLoss):  # class_weights are inside of its ratio
            raise TypeError(
                f"loss: must have a value per sample and class, got {type(loss).__name__}, "
                "which has one per sample"
            )
        if isinstance(loss, DistanceMapLoss):
            if loss.batch:
                raise ValueError("loss: must not average over the batch, as its samples have different cells")
            if loss.normalize is not None:
                raise ValueError(
                    "loss: must have normalize=None, as a cell's largest distance is not the volume's; "
                    f"got {loss.normalize!r}"
                )
            reduction = loss.reduction
        _validate.choice("reduction", reduction, ("none", "mean", "sum"))
        _validate.backend_name(backend)
        self.loss = loss
        self.reduction = reduction
        self.backend = backend

    def forward(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        *,
        spacing: SpacingLike | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the loss; its gradient reaches the prediction only.

        Args:
            input: the prediction ``[B, C, *S]`` with 2 or 3 spatial axes.
            target: a label map ``[B, *S]`` or ``[B, 1, *S]``, or one channel per class ``[B, C, *S]``. A
                function gets it unchanged; where the function's values are ``[B, *S]`` or ``[B, 1, *S]``,
                all labels above 0 form one class.
            spacing: voxel size of this batch.
            ignore_mask: as a loss of fastsdm takes it.

        Returns:
            A scalar, or with ``reduction="none"`` one value per sample and class. A class without a component
            has one cell, the whole volume.

        Raises:
            TypeError, ValueError: shapes, dtypes or devices that do not fit; the message says which.
            BackendUnavailableError: the backend asked for cannot run.
        """
        if isinstance(self.loss, DistanceMapLoss):
            values = self._by_cells(self.loss, input, target, spacing, ignore_mask)
        elif ignore_mask is not None:
            raise ValueError(f"ignore_mask: must be None for a loss of type {type(self.loss).__name__}")
        else:
            values = self._by_weights(input, target, spacing)
        if self.reduction == "mean":
            return values.mean()
        return values.sum() if self.reduction == "sum" else values

    def _by_cells(
        self,
        loss: DistanceMapLoss,
        input: torch.Tensor,
        target: torch.Tensor,
        spacing: SpacingLike | None,
        ignore_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        loss._check_prediction(input)
        truth = loss._read(target, input.shape, input.device, ignore_mask)
        batch, ndim = len(input), input.ndim - 2
        rows = _validate.spacing_rows(loss.batch_spacing(spacing, target, ndim, input), (batch,), ndim)
        maps = loss.target_map(
            target, input.shape[1], spatial_dims=ndim, spacing=rows, ignore_mask=ignore_mask
        )
        masks = truth.masks()
        classes = masks.shape[1]
        numbers = component_cells(masks.flatten(0, 1), rows.repeat_interleave(classes, dim=0), self.backend)
        counts = numbers.flatten(1).amax(dim=1).clamp_(min=1).view(batch, 1, classes)
        most = int(counts.max())
        cells = (numbers - 1).clamp_(min=0).view(masks.shape).to(input.device)
        by_cell = copy.copy(loss)
        by_cell.reduction = "none"
        found = by_cell._value(
            Batch(
                loss._activated(input, truth), replace(truth, cells=cells, cell_count=most), rows, maps, None
            )
        ).view(batch, most, classes)
        exists = torch.arange(most).view(1, -1, 1) < counts
        values = found.masked_fill(~exists.to(input.device), 0).sum(dim=1) / counts[:, 0].to(input.device)
        return values if loss.class_weights is None else values * fitting_weights(loss.class_weights, masks)

    def _by_weights(
        self, input: torch.Tensor, target: torch.Tensor, spacing: SpacingLike | None
    ) -> torch.Tensor:
        found = self.loss(input, target)
        if found.shape == (len(input), *input.shape[2:]):
            found = found.unsqueeze(1)
        if found.ndim != input.ndim or found.shape[2:] != input.shape[2:]:
            raise ValueError(
                f"loss: must return a value per voxel for input of shape {tuple(input.shape)}, "
                f"got shape {tuple(found.shape)}"
            )
        masks = _masks_of(target, found.shape)
        rows = _validate.spacing_rows(1.0 if spacing is None else spacing, (len(input),), input.ndim - 2)
        weights = component_weights(
            masks,
            spatial_dims=input.ndim - 2,
            spacing=rows,
            backend=self.backend,
        )
        return (found * weights.to(found.dtype)).flatten(2).sum(dim=2)


def _masks_of(target: Any, shape: torch.Size) -> torch.Tensor:
    """Bool, of that shape ``[B, C, *S]``: the target's classes, or with C = 1 its foreground."""
    if target.ndim == len(shape) - 1:
        target = target.unsqueeze(1)
    if target.shape[0] != shape[0] or target.shape[2:] != shape[2:] or target.shape[1] not in (1, shape[1]):
        raise ValueError(
            f"target: must be a label map or one channel per class for values of shape {tuple(shape)}, "
            f"got shape {tuple(target.shape)}"
        )
    inside: torch.Tensor
    if target.shape[1] == shape[1]:
        inside = above_zero(_validate.integer_labels(target, whole=False))
    else:
        inside = torch.cat([target == value for value in range(shape[1])], dim=1)
    return inside
