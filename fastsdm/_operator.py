"""The torch operator beneath the public maps: selects a backend, computes, applies the policy."""

from __future__ import annotations

import torch

from fastsdm import _conventions, _validate
from fastsdm._backends import registry
from fastsdm._backends.contract import FusedBackend


@torch.library.custom_op("fastsdm::signed_distance", mutates_args=())
def signed_distance_operator(
    labels: torch.Tensor,
    spacing: torch.Tensor,
    classes: list[int] | None,  # None for one map, of all labels but 0
    convention: str,
    empty: str,
    max_distance: float | None,
    dtype: torch.dtype,
    backend: str,
    region: list[int] | None = None,  # first voxel and shape of the part that is wanted
) -> torch.Tensor:
    # One opaque operator: torch.compile keeps it whole, and what needs values (the spacing's check, the
    # backend in force) happens here, at run time.
    _validate.spacing_values(spacing)
    chosen = registry.select(backend, labels.device)
    if labels.numel() == 0:
        return _empty_map(labels, classes, dtype, region)
    labels, shape = labels.contiguous(), labels.shape[1:]
    start, size = ([0] * len(shape), shape) if region is None else _halves(region)
    rows = _conventions.spacing_rows(spacing)
    limit = _conventions.search_limit(convention, rows, max_distance)
    finish = _conventions.finish(convention, empty, rows, shape, max_distance)
    if isinstance(chosen, FusedBackend) and empty != "raise":
        return chosen.finished_region(labels, classes, rows, limit, finish, start, size, dtype)

    if classes is None:
        labels, classes = labels if labels.dtype == torch.bool else labels != 0, [1]
    maps = chosen.signed_distance(labels, classes, spacing, limit)
    for axis, (first, length) in enumerate(zip(start, size, strict=True), start=2):
        maps = maps.narrow(axis, first, length)
    maps = maps.contiguous()
    if empty == "raise":
        _conventions.refuse_empty(maps, classes)
    return _conventions.apply_(maps, finish).to(dtype)


@signed_distance_operator.register_fake
def _(
    labels: torch.Tensor,
    spacing: torch.Tensor,
    classes: list[int] | None,
    convention: str,
    empty: str,
    max_distance: float | None,
    dtype: torch.dtype,
    backend: str,
    region: list[int] | None = None,
) -> torch.Tensor:
    return _empty_map(labels, classes, dtype, region)


def _empty_map(
    labels: torch.Tensor, classes: list[int] | None, dtype: torch.dtype, region: list[int] | None
) -> torch.Tensor:
    shape = labels.shape[1:] if region is None else _halves(region)[1]
    maps = 1 if classes is None else len(classes)
    return labels.new_empty((labels.shape[0], maps, *shape), dtype=dtype)


def _halves(numbers: list[int]) -> tuple[list[int], list[int]]:
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
