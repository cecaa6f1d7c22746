"""What a data set asks of its maps: settings given by name, or those of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

import torch

from fastsdm import _validate
from fastsdm._settings import MapSettings
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


_DEFAULTS: dict[str, Any] = {
    "max_distance": None,
    "convention": "kervadec",
    "ignore_index": None,
    "backend": "auto",
}


def requested_maps(
    loss: MapLoss | None, options: PatchOptions, classes: int | Sequence[int] | None
) -> tuple[MapSettings, str]:
    """The settings of the maps, without a spacing, and the backend that computes them.

    Raises:
        TypeError, ValueError: a setting that cannot be used, or one that is given beside a loss.
    """
    given = {name: value for name, value in options.items() if value is not None}
    empty: str | None = None
    if loss is not None:
        loss = getattr(loss, "boundary", loss)  # of a RegionBoundaryLoss
        if not all(hasattr(loss, name) for name in (*_DEFAULTS, "empty")):
            raise TypeError(f"loss: must be one of fastsdm.losses, got {type(loss).__name__}")
        for name, value in given.items():
            raise ValueError(f"{name}: must not be given beside loss, which brings its own; got {value!r}")
        given, empty = {name: getattr(loss, name) for name in _DEFAULTS}, loss.empty
    held = {**_DEFAULTS, **given}
    _validate.max_distance(held["max_distance"])
    _validate.convention(held["convention"])
    if held["ignore_index"] is not None:
        held["ignore_index"] = _validate.integer("ignore_index", held["ignore_index"])
    settings = MapSettings(
        classes=None if classes is None else tuple(_validate.class_values(classes, torch.int64)),
        spacing=None,
        convention=held["convention"],
        empty=empty,
        max_distance=None if held["max_distance"] is None else float(held["max_distance"]),
        ignore_index=held["ignore_index"],
    )
    return settings, held["backend"]
