"""Check, cut and normalize the map that a loss is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastsdm._arrays import as_tensor
from fastsdm._settings import MapSettings
from fastsdm._types import SpacingLike
from fastsdm.losses._options import Normalization, PendingMap
from fastsdm.losses._target import selected


def fitting_map(
    handed: torch.Tensor | PendingMap, shape: Sequence[int], device: torch.device, channels: Sequence[int]
) -> torch.Tensor:
    """Return the caller's map, of K or all C channels, as floats ``[B, K, *S]`` of at least 32 bits.

    ``shape`` ``[B, C, *S]`` and ``device`` are those of the prediction.

    Raises:
        TypeError: not a map; booleans or complex numbers.
        ValueError: a shape or device other than the prediction's.
    """
    result = getattr(handed, "result", None)
    maps = result() if callable(result) else handed
    if not isinstance(maps, torch.Tensor):
        raise TypeError(
            f"distance_map: must be a tensor or have a result() that returns one, got {type(handed).__name__}"
        )
    maps, _ = as_tensor(maps, "distance_map")
    if maps.ndim == len(shape) + 1 and maps.shape[1] == 1:
        maps = maps.squeeze(1)  # of a target [B, 1, *S]
    if tuple(maps.shape) == tuple(shape):
        maps = selected(maps, channels)
    wanted = (shape[0], len(channels), *shape[2:])
    if tuple(maps.shape) != wanted:
        raise ValueError(f"distance_map: must have shape {wanted}, got {tuple(maps.shape)}")
    if maps.device != device:
        raise ValueError(f"distance_map: must be on the prediction's device {device}, got {maps.device}")
    if maps.dtype == torch.bool or maps.is_complex():
        raise TypeError(f"distance_map: must hold distances, got dtype {maps.dtype}")
    # Squares and sums of distances overflow float16.
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


def settings_of(handed: object) -> MapSettings | None:
    """Return the settings that a map records, or None."""
    known = getattr(handed, "settings", None)
    return known if isinstance(known, MapSettings) else None


def spacing_of(handed: object) -> SpacingLike:
    """Return the voxel size that a map records, else 1."""
    known = settings_of(handed)
    return 1.0 if known is None or known.spacing is None else known.spacing_like()


def check_same(known: MapSettings, wanted: MapSettings, channels: Sequence[int], count: int) -> None:
    """Raise ValueError for a map of other settings or channels than the loss needs, out of ``count``."""
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
    """Divide a map by its own largest distances; a map of zeros stays as it is.

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


def _one_if_zero(extent: torch.Tensor) -> torch.Tensor:
    return torch.where(extent > 0, extent, torch.ones_like(extent))
