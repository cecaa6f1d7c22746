"""Weights that make a network learn the borders between touching cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from fastsdm import _validate
from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._sdm import signed_distance
from fastsdm._types import SpacingLike
from fastsdm.targets._labels import checked, numbered

#: Beyond that many sigmas the border term is below a rounding of float32: exp(-r^2 / 2) < 2^-24.
_REACH = math.sqrt(2 * 24 * math.log(2))


def border_weights(
    labels: ArrayT,
    *,
    spatial_dims: int = 3,
    spacing: SpacingLike = 1.0,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] = (1.0, 1.0),
    inside: bool = False,
    background: int = 0,
    backend: str = "auto",
) -> ArrayT:
    """Compute the U-Net's weight map: voxels in a narrow gap between two cells weigh most.

    ``w = w_c + w0 * exp(-(d1 + d2)^2 / (2 sigma^2))`` with the distances to the nearest and to the second
    nearest cell. Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28. Distances are exact and run to
    the centre of a cell's nearest voxel. Inside a cell the distance to it is 0. The cost grows with the
    logarithm of the number of cells: two maps per binary digit of their numbers.

    Args:
        labels: torch tensor, numpy array or cupy array of shape ``[..., *S]``: an integer per cell, where
            ``S`` is the last ``spatial_dims`` axes. Floats are rounded as in :func:`fastsdm.signed_distance`
            with ``classes``.
        spatial_dims: 2 or 3.
        spacing: voxel size, as in :func:`fastsdm.signed_distance`; ``sigma`` has its unit.
        w0: weight of the border term, at least 0.
        sigma: width of the border term, positive.
        class_weights: ``w_c`` of the background and of the cells.
        inside: whether the border term is added within the cells as well as in the background.
        background: the label of voxels between the cells.
        backend: as in :func:`fastsdm.signed_distance`.

    Returns:
        float32 of the labels' shape, kind and device. The border term is 0 where it would be below
        ``w0 * 2^-24``, and in a volume with fewer than two cells.

    Raises:
        TypeError: an argument of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
        BackendUnavailableError: the backend asked for cannot run.
    """
    tensor, restore = as_tensor(labels, "labels")
    tensor, leading, shape = checked(tensor, spatial_dims, background)
    w0 = _checked_number("w0", w0)
    sigma = _checked_number("sigma", sigma, may_be_zero=False)
    weights = _checked_weights(class_weights)
    _validate.flag("inside", inside)
    rows = _validate.spacing_rows(spacing, leading, spatial_dims)
    _validate.spacing_values(rows)
    _validate.backend_name(backend)
    numbers = numbered(tensor, background)
    ids = numbers.numbers.reshape(math.prod(leading), *shape)
    empty = ids < 0
    result = torch.where(empty, weights[0], weights[1]).to(torch.float32)
    if numbers.count > 1 and w0 > 0:
        reach = float(np.float32(_REACH * sigma))  # as the maps are cut
        sums = _sum_of_two_nearest(ids, numbers.count, rows, reach, backend)
        term = torch.exp(-0.5 * (sums / sigma).square()).mul_(w0).masked_fill_(sums >= reach, 0)
        result += term if inside else term.masked_fill_(~empty, 0)
    return cast("ArrayT", restore(result.reshape(tensor.shape)))


def _sum_of_two_nearest(
    ids: torch.Tensor, count: int, rows: torch.Tensor, reach: float, backend: str
) -> torch.Tensor:
    """Distance to the nearest cell plus that to the second nearest; at least ``reach`` where it is not below.

    Two cells differ in some binary digit of their numbers. For each digit there is a distance to the cells
    that have it and one to those that have not. The nearest cell is on one side, and the larger distance is
    that to the nearest cell on the other side. The smallest of these over the digits is the distance to the
    second nearest cell; the smaller distance of any digit is that to the nearest one.
    """
    nearest = second = None
    for digit in range((count - 1).bit_length()):
        has = (ids >> digit & 1).bool() & (ids >= 0)
        sides = torch.stack([has, (ids >= 0) & ~has], dim=1)
        maps = signed_distance(
            sides,
            spatial_dims=ids.ndim - 1,
            spacing=rows,
            convention="plain",
            max_distance=reach,
            backend=backend,
        )
        low, high = maps.clamp_(min=0).aminmax(dim=1)
        nearest = low if nearest is None else nearest
        second = high if second is None else torch.minimum(second, high)
    assert nearest is not None
    assert second is not None
    return nearest + second


def _checked_number(name: str, value: object, *, may_be_zero: bool = True) -> float:
    held = _validate.number(name, value)
    if not (0 < held < math.inf or (may_be_zero and held == 0)):
        rule = "at least 0" if may_be_zero else "positive"
        raise ValueError(f"{name}: must be {rule} and finite, got {value!r}")
    return held


def _checked_weights(class_weights: Sequence[float]) -> tuple[float, float]:
    if not isinstance(class_weights, (tuple, list)):
        raise TypeError(f"class_weights: must be a pair of numbers, got {class_weights!r}")
    if len(class_weights) != 2:
        raise ValueError(f"class_weights: must be two numbers (background, cells), got {class_weights!r}")
    background, cells = (_checked_number("class_weights", weight) for weight in class_weights)
    return background, cells
