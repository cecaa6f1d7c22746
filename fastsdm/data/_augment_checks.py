"""The checks of what :func:`fastsdm.data.random_affine_elastic` is given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch

from fastsdm import _validate


def volumes(image: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise unless they are an image and its labels.

    Raises:
        TypeError: no tensors, an image that is not floating point, or labels of a dtype that holds none.
        ValueError: shapes or devices that do not fit together.
    """
    for name, value in (("image", image), ("labels", labels)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: must be a tensor, got {type(value).__name__}")
    if image.ndim not in (4, 5):
        raise ValueError(
            f"image: must be [B, C, *S] with 2 or 3 spatial axes, got shape {tuple(image.shape)}"
        )
    if not image.is_floating_point():
        raise TypeError(f"image: must be floating point, got dtype {image.dtype}")
    batch, shape = image.shape[0], tuple(image.shape[2:])
    if tuple(labels.shape) not in ((batch, *shape), (batch, 1, *shape)):
        raise ValueError(
            f"labels: must be {(batch, *shape)} or {(batch, 1, *shape)} to fit the image, "
            f"got {tuple(labels.shape)}"
        )
    _validate.target_layout(labels, len(shape), "labels")
    if labels.device != image.device:
        raise ValueError(f"labels: must be on the image's device {image.device}, got {labels.device}")


def patch_size(value: Sequence[int], ndim: int) -> tuple[int, ...]:
    """The patch's shape; TypeError or ValueError unless there is a positive integer for every axis."""
    size = tuple(_validate.integer("size", n) for n in _listed("size", value))
    if len(size) != ndim or any(n < 1 for n in size):
        raise ValueError(f"size: must be {ndim} positive integers, got {size}")
    return size


def halo(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """The halo along each axis; TypeError or ValueError unless these are voxels."""
    margins = tuple(_validate.integer("halo", n) for n in _of_each_axis("halo", value, ndim))
    if len(margins) != ndim or any(n < 0 for n in margins):
        raise ValueError(f"halo: must be a number of voxels or {ndim} of them, not negative, got {value}")
    return margins


def flip(value: float | Sequence[float], ndim: int) -> list[float]:
    """The probability along each axis; TypeError or ValueError unless these are probabilities."""
    probabilities = [_validate.number("flip", chance) for chance in _of_each_axis("flip", value, ndim)]
    if len(probabilities) != ndim or not all(0 <= probability <= 1 for probability in probabilities):
        raise ValueError(f"flip: must be a probability or {ndim} of them, got {value}")
    return probabilities


def rotation(value: float) -> float:
    """The largest angle; TypeError or ValueError unless it is one."""
    angle = _validate.number("rotation", value)
    if not 0 <= angle <= 180:
        raise ValueError(f"rotation: must be from 0 to 180 degrees, got {value}")
    return angle


def scaling(value: tuple[float, float]) -> tuple[float, float]:
    """Smallest and largest magnification; TypeError or ValueError unless they are such."""
    bounds = tuple(_validate.number("scaling", bound) for bound in _listed("scaling", value))
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < math.inf:
        raise ValueError(f"scaling: must be two positive finite numbers, the smaller first, got {value}")
    return bounds


def elastic(displacement: float, grid: float, spacing: torch.Tensor) -> tuple[float, float]:
    """Displacement and distance of control points; TypeError or ValueError unless they fit the voxels."""
    displacement = _validate.number("elastic", displacement)
    if not 0 <= displacement < math.inf:
        raise ValueError(f"elastic: must be non-negative and finite, got {displacement}")
    grid = _validate.number("elastic_grid", grid)
    if not 0 < grid < math.inf:
        raise ValueError(f"elastic_grid: must be positive and finite, got {grid}")
    smallest = float(spacing.min()) if len(spacing) else 0.0
    if displacement > 0 and grid < smallest:
        raise ValueError(f"elastic_grid: must be at least the smallest voxel size {smallest:g}, got {grid}")
    return displacement, grid


def image_fill(value: float | Literal["min"]) -> float | Literal["min"]:
    """The fill; TypeError or ValueError unless it is a finite number or "min"."""
    if isinstance(value, str):
        _validate.choice("image_fill", value, ("min",))
        return "min"
    number = _validate.number("image_fill", value)
    if not math.isfinite(number):
        raise ValueError(f"image_fill: must be finite or 'min', got {value!r}")
    return number


def _of_each_axis(name: str, value: object, ndim: int) -> list[object]:
    return [value] * ndim if _validate.is_number(value) else _listed(name, value)


def _listed(name: str, value: object) -> list[object]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: must be a sequence of numbers, got {value!r}")
    return list(value)
