"""The settings of a map that the frameworks' transforms share, checked when a transform is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from fastsdm import _validate
from fastsdm._settings import check_options, check_settings
from fastsdm._types import Convention, EmptyPolicy


class CropOptions(TypedDict, total=False):
    """Keywords of :func:`fastsdm.signed_distance` that a crop passes on."""

    convention: Convention
    ignore_index: int | None
    dtype: Any
    backend: str


class TransformOptions(CropOptions, total=False):
    """Keywords of :func:`fastsdm.signed_distance` that a transform of whole volumes passes on."""

    empty: EmptyPolicy
    max_distance: float | None
    black_border: bool


def check_transform(
    transform: Callable[..., object],
    name: object,
    classes: int | Sequence[int] | None,
    options: TransformOptions,
) -> None:
    """Raise for arguments of a transform that no sample could be mapped with.

    Raises:
        TypeError, ValueError: the message names argument, rule and value.
    """
    check_options(transform, options, TransformOptions)
    if not isinstance(name, str) or not name:
        raise ValueError(f"name: must be a string that is not empty, got {name!r}")
    check_settings(
        classes,
        options.get("convention", "kervadec"),
        options.get("empty", "inf"),
        options.get("max_distance"),
    )
    if options.get("ignore_index") is not None:
        _validate.integer("ignore_index", options["ignore_index"])
    _validate.flag("black_border", options.get("black_border", False))
    _validate.float_dtype(options.get("dtype"))
    _validate.backend_name(options.get("backend", "auto"))
