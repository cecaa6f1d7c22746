"""What a data set asks of its maps: settings given by name, or those of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypedDict, cast

from fastsdm._settings import MapOptions, MapSettings
from fastsdm._types import Convention, EmptyPolicy


class PatchOptions(TypedDict, total=False):
    """Settings of a data set's maps, which a loss can bring instead."""

    max_distance: float | None
    convention: Convention | None
    ignore_index: int | None
    backend: str | None


class MapLoss(Protocol):
    """What a data set takes from a loss of :mod:`fastsdm.losses`."""

    max_distance: float | None
    convention: Convention
    ignore_index: int | None
    backend: str
    empty: EmptyPolicy


_NAMES = ("max_distance", "convention", "ignore_index", "backend")


def requested_maps(
    loss: MapLoss | None, options: PatchOptions, classes: int | Sequence[int] | None
) -> tuple[MapSettings, str]:
    """The settings of the maps, without a spacing, and the backend that computes them.

    Raises:
        TypeError, ValueError: a setting that cannot be used, or one that is given beside a loss.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    empty: str | None = None
    if loss is not None:
        loss = getattr(loss, "boundary", loss)  # of a RegionBoundaryLoss
        if not all(hasattr(loss, name) for name in (*_NAMES, "empty")):
            raise TypeError(f"loss: must be one of fastsdm.losses, got {type(loss).__name__}")
        for name, value in given.items():
            raise ValueError(f"{name}: must not be given beside loss, which brings its own; got {value!r}")
        given, empty = {name: getattr(loss, name) for name in _NAMES}, loss.empty
    settings = MapSettings.checked(cast("MapOptions", {**given, "classes": classes}))
    return replace(settings, spacing=None, empty=empty), given.get("backend", "auto")
