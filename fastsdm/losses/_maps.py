"""The map a loss weighs with: making it, adopting one that is handed in, normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch

from fastsdm import _validate
from fastsdm._distance_map import forget
from fastsdm._sdm import signed_distance, signed_distance_of_masks
from fastsdm._settings import MapSettings
from fastsdm._types import SpacingLike
from fastsdm.losses._options import Normalization
from fastsdm.losses._target import Target, selected, without


class PendingMap(Protocol):
    """A map that is still being computed, such as :func:`fastsdm.prefetch` returns."""

    def result(self) -> torch.Tensor:
        """Wait for the map and hand it over."""


def target_map(truth: Target, settings: MapSettings, spacing: SpacingLike, backend: str) -> torch.Tensor:
    """The target's map ``[B, K, *S]``; labels among which none is ignored are taken as they are."""
    if truth.classes is None or truth.ignored is not None:
        return _map_of(truth.masks(), None, truth.ignored, settings, spacing, backend)
    return _map_of(truth.values, truth.classes, None, settings, spacing, backend)


def paired_maps(
    masks: torch.Tensor,
    ignored: torch.Tensor | None,
    settings: MapSettings,
    spacing: SpacingLike,
    backend: str,
) -> torch.Tensor:
    """The maps of several masks of the same samples, in one call.

    Args:
        masks: bool ``[n, B, K, *S]``, False at ignored voxels.
        ignored: bool ``[B, 1, *S]`` or ``[B, K, *S]``, or None.
        settings: of the maps.
        spacing: of the batch.
        backend: ``"auto"``, or the name of one.

    Returns:
        ``[n, B, K, *S]``, 0 at ignored voxels.
    """
    count, batch, ndim = masks.shape[0], masks.shape[1], masks.ndim - 3
    if torch.compiler.is_compiling() or _validate.spacing_row(spacing, ndim) is None:
        spacing = _validate.spacing_rows(spacing, (batch,), ndim).repeat(count, 1)
    if ignored is not None:
        ignored = ignored.repeat(count, *(1 for _ in ignored.shape[1:]))
    return _map_of(masks.flatten(0, 1), None, ignored, settings, spacing, backend).view(masks.shape)


def above_half(prediction: torch.Tensor, truth: Target, out: torch.Tensor | None = None) -> torch.Tensor:
    """Bool ``[B, K, *S]``: the prediction above 0.5, ignored voxels left out; written to ``out`` if given."""
    inside = torch.gt(prediction.detach(), 0.5, out=out)
    return inside if truth.ignored is None else without(inside, truth.ignored, out)


def target_and_prediction(truth: Target, prediction: torch.Tensor) -> torch.Tensor:
    """Bool ``[2, B, K, *S]``: the masks of the target, and those of the prediction above 0.5."""
    if torch.compiler.is_compiling():  # which writes both to where they belong
        return torch.stack([truth.masks(), above_half(prediction, truth)])
    both = torch.empty((2, *prediction.shape), dtype=torch.bool, device=prediction.device)
    truth.masks(out=both[0])
    above_half(prediction, truth, out=both[1])
    return both


def _map_of(
    values: torch.Tensor,
    classes: Sequence[int] | None,
    ignored: torch.Tensor | None,
    settings: MapSettings,
    spacing: SpacingLike,
    backend: str,
) -> torch.Tensor:
    """The map, as :func:`fastsdm.signed_distance` makes it; 0 at ignored voxels, where no distance starts.

    Args:
        values: labels ``[B, *S]`` with their classes, or bool masks ``[B, K, *S]`` without.
        classes: the K label values, or None.
        ignored: bool ``[B, 1, *S]`` or ``[B, K, *S]``, beside masks that are False there; or None.
        settings: of the map; a loss checks them when it is made.
        spacing: of the batch.
        backend: ``"auto"``, or the name of one.
    """
    ndim = values.ndim - (2 if classes is None else 1)
    limit, empty = settings.max_distance, settings.empty
    assert empty is not None
    if ignored is not None:
        rows = _validate.spacing_rows(spacing, values.shape[:1], ndim)
        return signed_distance_of_masks(
            values, ignored, rows, settings.convention, empty, limit, torch.float32, backend
        )
    return signed_distance(
        values,
        classes=classes,
        spatial_dims=ndim,
        spacing=spacing,
        convention=settings.convention,  # type: ignore[arg-type]  # a string there
        empty=empty,  # type: ignore[arg-type]
        max_distance=limit,
        backend=backend,
    )


def adopted(
    handed: torch.Tensor | PendingMap,
    shape: Sequence[int],
    device: torch.device,
    *,
    channels: Sequence[int],
    settings: MapSettings,
) -> torch.Tensor:
    """A map that the caller made, checked and cut to the channels the loss looks at.

    Args:
        handed: ``[B, K, *S]``, or with all C channels; or the promise of one.
        shape: the prediction's, ``[B, C, *S]``.
        device: the prediction's.
        channels: those the loss looks at.
        settings: of the loss. Infinities of absent classes read 0 under ``empty="zero"``, else
            ``max_distance`` where it is set.

    Raises:
        TypeError: neither a tensor nor the promise of one; booleans or complex numbers.
        ValueError: a shape or device that does not fit the prediction's, or a map that was made with other
            settings than the loss's.
    """
    maps = handed if isinstance(handed, torch.Tensor) else _result(handed)
    known = settings_of(handed)
    if known is not None:
        _check_same(known, settings, channels, shape[1])
        maps = forget(maps)
    if maps.ndim == len(shape) + 1 and maps.shape[1] == 1:
        maps = maps.squeeze(1)  # of a target [B, 1, *S]
    wanted = (shape[0], len(channels), *shape[2:])
    if tuple(maps.shape) == tuple(shape):
        maps = selected(maps, channels)
    if tuple(maps.shape) != wanted:
        raise ValueError(f"distance_map: must have shape {wanted}, got {tuple(maps.shape)}")
    if maps.device != device:
        raise ValueError(f"distance_map: must be on the prediction's device {device}, got {maps.device}")
    if maps.dtype == torch.bool or maps.is_complex():
        raise TypeError(f"distance_map: must hold distances, got dtype {maps.dtype}")
    maps = maps.detach()
    if maps.dtype not in (torch.float32, torch.float64):
        maps = maps.float()  # squares and sums of distances are beyond what float16 holds
    fill = 0.0 if settings.empty == "zero" else settings.max_distance
    return maps if fill is None else maps.nan_to_num(nan=math.nan, posinf=fill, neginf=-fill)


def settings_of(handed: object) -> MapSettings | None:
    """How a map was made, where it knows."""
    known = getattr(handed, "settings", None)
    return known if isinstance(known, MapSettings) else None


def spacing_of(handed: object) -> SpacingLike:
    """The voxel size of a map that knows it, else 1."""
    known = settings_of(handed)
    return 1.0 if known is None or known.spacing is None else known.spacing_like()


def _check_same(known: MapSettings, wanted: MapSettings, channels: Sequence[int], count: int) -> None:
    difference = known.difference(wanted)
    if difference is None:
        held = None if known.classes is None else list(known.classes)
        fits = count == 1 if held is None else held in (list(channels), list(range(count)))
        if not fits:
            difference = f"classes={held}, not classes={list(channels)}"
    if difference is not None:
        raise ValueError(
            f"distance_map: was made with {difference} as the loss needs; make it with loss.prefetch(...) or "
            "the same settings"
        )


def normalized(maps: torch.Tensor, how: Normalization | None, *, in_place: bool = False) -> torch.Tensor:
    """The map in units of its own extent; where it is 0 throughout it stays 0.

    Args:
        maps: ``[B, K, *S]``.
        how: ``"max"`` divides each sample by its largest absolute distance over all classes; ``"unit"``
            divides, per sample and class, the outside by its largest and the inside by its smallest value,
            so that both phases reach 1; None leaves the map alone.
        in_place: whether the map may be written to.
    """
    if how is None:
        return maps
    space = tuple(range(2, maps.ndim))
    highest = maps.amax(dim=space, keepdim=True).clamp_(min=0)
    lowest = maps.amin(dim=space, keepdim=True).clamp_(max=0).neg_()
    if how == "max":
        extent = _one_if_zero(torch.maximum(lowest, highest).amax(dim=1, keepdim=True))
    else:
        extent = torch.where(maps > 0, _one_if_zero(highest), _one_if_zero(lowest))
    return maps.div_(extent) if in_place else maps / extent


def _result(pending: PendingMap) -> torch.Tensor:
    result = getattr(pending, "result", None)
    maps = result() if callable(result) else pending
    if not isinstance(maps, torch.Tensor):
        raise TypeError(
            "distance_map: must be a tensor or have a result() that returns one, "
            f"got {type(pending).__name__}"
        )
    return maps


def _one_if_zero(extent: torch.Tensor) -> torch.Tensor:
    return torch.where(extent > 0, extent, torch.ones_like(extent))
