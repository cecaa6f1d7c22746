"""A distance map that keeps the settings it was made with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from fastsdm._settings import MapSettings


class DistanceMap(torch.Tensor):
    """A tensor of distances with the settings that made it.

    :func:`fastsdm.prefetch` and :class:`fastsdm.data.PatchDataset` return it. The losses refuse a map whose
    settings differ from their own. Moving, copying, converting, pinning and stacking (as a ``DataLoader``
    does, in workers too) keep the settings. Every other operation returns a plain tensor, which the losses
    do not check.

    Attributes:
        settings: with which the map was made.
    """

    settings: MapSettings

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """Return a copy with the settings; torch cannot deep-copy a subclass."""
        settings = getattr(self, "settings", None)
        copied = copy.deepcopy(forget(self), memo)
        memo[id(self)] = copied = copied if settings is None else remember(copied, settings)
        return copied

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation on plain tensors; keep the settings if they still describe the result."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if func not in _KEEP_SETTINGS or type(result) is not torch.Tensor:
            return result
        if func is torch.stack:
            settings = _stacked([getattr(part, "settings", None) for part in args[0]])
        else:
            settings = getattr(args[0], "settings", None)
        return result if settings is None else remember(result, settings)


_KEEP_SETTINGS = frozenset(
    {
        torch.stack,
        torch.Tensor.to,
        torch.Tensor.cpu,
        torch.Tensor.cuda,
        torch.Tensor.pin_memory,
        torch.Tensor.clone,
        torch.Tensor.contiguous,
        torch.Tensor.detach,
        torch.Tensor.float,
        torch.Tensor.half,
        torch.Tensor.bfloat16,
        torch.Tensor.double,
    }
)


def remember(maps: torch.Tensor, settings: MapSettings) -> DistanceMap:
    """Return the same tensor with settings."""
    known = maps.as_subclass(DistanceMap)
    known.settings = settings
    return known


def forget(maps: torch.Tensor) -> torch.Tensor:
    """Return the same tensor without settings."""
    return maps.as_subclass(torch.Tensor) if isinstance(maps, DistanceMap) else maps


def _stacked(parts: Sequence[MapSettings | None]) -> MapSettings | None:
    """Return the settings of a batch of maps; None if they differ in more than their voxel size."""
    first = parts[0]
    if first is None or any(part is None or replace(part, spacing=first.spacing) != first for part in parts):
        return None
    rows = [row for part in parts for row in (part.spacing if part is not None and part.spacing else ())]
    if len(rows) != len(parts):
        return None
    return replace(first, spacing=tuple(rows) if len(set(rows)) > 1 else (rows[0],))
