"""A distance map that remembers how it was made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from fastsdm._settings import MapSettings


class DistanceMap(torch.Tensor):
    """A tensor of distances with the settings that made it.

    What :func:`fastsdm.prefetch` and :class:`fastsdm.data.PatchDataset` hand over. The losses compare its
    settings with their own and refuse a map that was made with others. Moving, copying, converting, pinning
    and stacking (as a ``DataLoader`` does, in workers too) keep the settings; every other operation returns a
    plain tensor, which losses take as it is.

    Attributes:
        settings: how it was made.
    """

    settings: MapSettings

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """A copy that keeps the settings; torch copies no subclass by itself."""
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
        """Run an operation on plain tensors and pass the settings on where they still hold."""
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
    """The same tensor, knowing how it was made."""
    known = maps.as_subclass(DistanceMap)
    known.settings = settings
    return known


def forget(maps: torch.Tensor) -> torch.Tensor:
    """The plain tensor beneath."""
    return maps.as_subclass(torch.Tensor) if isinstance(maps, DistanceMap) else maps


def _stacked(parts: Sequence[MapSettings | None]) -> MapSettings | None:
    """The settings of a batch of maps; None where they differ in more than their voxel size."""
    first = parts[0]
    if first is None or any(part is None or replace(part, spacing=first.spacing) != first for part in parts):
        return None
    rows = [row for part in parts for row in (part.spacing if part is not None and part.spacing else ())]
    if len(rows) != len(parts):
        return None
    return replace(first, spacing=tuple(rows) if len(set(rows)) > 1 else (rows[0],))
