"""The torch operator beneath the public maps: selects a backend, computes, applies the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fastsdm import _conventions, _validate
from fastsdm._backends import registry
from fastsdm._backends.contract import Classes, SpacingRows, finishing, spacing_rows

_SCHEMA = (
    "signed_distance(Tensor labels, Tensor? spacing, float[] row, int[]? classes, str convention, str empty, "
    "float? max_distance, ScalarType dtype, str backend, SymInt[]? region=None, bool black_border=False) "
    "-> Tensor"
)
# `custom_op` would do, at three times the cost of a call and two seconds of imports at the first one.
_LIBRARY = torch.library.Library("fastsdm", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]


def _signed_distance(
    labels: torch.Tensor,
    spacing: torch.Tensor | None,
    row: list[float],
    classes: list[int] | None,
    convention: str,
    empty: str,
    max_distance: float | None,
    dtype: torch.dtype,
    backend: str,
    region: list[int] | None = None,
    black_border: bool = False,
) -> torch.Tensor:
    """Compute the maps of checked labels, ``[B, K, *S]`` or a region of it.

    torch.compile treats it as one opaque operator. What needs values (the check of a spacing tensor, the
    backend in force) happens here, at run time.

    Args:
        labels: ``[B, *S]`` integer or bool.
        spacing: ``[B, ndim]`` float64 on the CPU, its values unchecked; None for ``row``.
        row: the spacing of all samples, checked; empty if ``spacing`` is given.
        classes: label values; None for a mask.
        convention: see docs/conventions.md.
        empty: see docs/conventions.md.
        max_distance: clamp of the map.
        dtype: of the map.
        backend: ``"auto"`` or a name.
        region: first voxel and shape of the part that is wanted, concatenated.
        black_border: whether everything beyond the volume is outside of every class.
    """
    chosen = registry.select(backend, labels.device)
    rows: SpacingRows
    if spacing is None:
        rows = (tuple(row),)
    else:
        _validate.spacing_values(spacing)
        rows = spacing_rows(spacing)
    if labels.numel() == 0:
        return _empty_map(labels, classes, dtype, region)
    wanted: Classes = [None] if classes is None else classes
    labels, shape = labels.contiguous(), labels.shape[1:]
    start, size = ((0,) * len(shape), shape) if region is None else _halves(region)
    limit = None if max_distance is None else _conventions.search_limit(convention, rows, max_distance)
    finish = _conventions.finish(convention, empty, rows, shape, max_distance)
    if black_border:  # a frame of voxels, which the region leaves out again
        labels, start = _framed(labels, wanted), [first + 1 for first in start]
    fused = finishing(chosen)
    if fused is not None and empty != "raise":
        return fused.finished_region(labels, wanted, rows, limit, finish, start, size, dtype)

    if spacing is None:
        spacing = torch.tensor(rows, dtype=torch.float64, device="cpu").expand(len(labels), -1)
    maps = chosen.signed_distance(labels, wanted, spacing, limit)
    for axis, (first, length) in enumerate(zip(start, size, strict=True), start=2):
        maps = maps.narrow(axis, first, length)
    maps = maps.contiguous()
    if empty == "raise":
        _conventions.refuse_empty(maps, wanted)
    return _conventions.apply_(maps, finish).to(dtype)


def _fake_signed_distance(
    labels: torch.Tensor,
    spacing: torch.Tensor | None,
    row: list[float],
    classes: list[int] | None,
    *options: Any,
) -> torch.Tensor:
    _convention, _empty, _max_distance, dtype, _backend, *rest = options
    return _empty_map(labels, classes, dtype, rest[0] if rest else None)


def _mapped_signed_distance(
    info: Any,
    in_dims: Sequence[Any],
    labels: torch.Tensor,
    spacing: torch.Tensor | None,
    row: list[float],
    *options: Any,
) -> tuple[torch.Tensor, int]:
    """Make one call under ``torch.vmap``, with the mapped axis as a part of the batch.

    The arguments after ``info``, with the length of the mapped axis, and ``in_dims``, the mapped axis of each
    argument, are those of :func:`_signed_distance`. Returns the maps and the place of their mapped axis.
    """
    count, batch = info.batch_size, labels.shape[0 if in_dims[0] != 0 else 1]

    def merged(tensor: torch.Tensor, axis: int | None) -> torch.Tensor:
        mapped = tensor.expand(count, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        return mapped.reshape(count * batch, *mapped.shape[2:])

    rows = None if spacing is None else merged(spacing, in_dims[1])
    maps: torch.Tensor = signed_distance_operator(merged(labels, in_dims[0]), rows, row, *options)
    return maps.view(count, batch, *maps.shape[1:]), 0


_LIBRARY.impl("signed_distance", _signed_distance, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("fastsdm::signed_distance", _fake_signed_distance, lib=_LIBRARY)
torch.library.register_vmap("fastsdm::signed_distance", _mapped_signed_distance, lib=_LIBRARY)

#: Called with the arguments of :func:`_signed_distance`.
signed_distance_operator = torch.ops.fastsdm.signed_distance.default


def _empty_map(
    labels: torch.Tensor, classes: list[int] | None, dtype: torch.dtype, region: Sequence[int] | None
) -> torch.Tensor:
    shape = labels.shape[1:] if region is None else _halves(region)[1]
    maps = 1 if classes is None else len(classes)
    return labels.new_empty((labels.shape[0], maps, *shape), dtype=dtype)


def _framed(labels: torch.Tensor, classes: Classes) -> torch.Tensor:
    """Surround the volumes by one voxel that belongs to no class."""
    low, high = _validate.label_range(labels.dtype)
    # The lowest label is outside of any mask.
    free = next((label for label in range(low, high + 1) if label not in classes), None)
    if free is None:  # every label that the dtype can hold is a class
        labels, free = labels.to(torch.int64), high + 1
    return torch.constant_pad_nd(labels, [1, 1] * (labels.ndim - 1), free)


def _halves(numbers: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
