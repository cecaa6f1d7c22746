"""Shift, fill and clamp a plain map, in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from fastsdm._backends.contract import Finish, SpacingRows

# On the CPU the steps run over pieces that stay in the cache; an accelerator takes the whole map at once.
_CPU_PIECE = 1 << 18
#: Shifted distances up to this share of the shift are rounding errors and become 0, on every backend.
RESIDUE = 2.0**-21


def voxel_shift(convention: str, spacing: Sequence[float]) -> float:
    """Return what the convention subtracts from a distance: ``h = min(spacing)``, ``1``, ``h/2`` or 0."""
    h = min(spacing)
    return {"kervadec": h, "kervadec-literal": 1.0, "midline": h / 2, "plain": 0.0}[convention]


@lru_cache(maxsize=256)
def search_limit(convention: str, spacing: SpacingRows, max_distance: float | None) -> float | None:
    """Return how far a backend must search so that the shifted map is right up to ``max_distance``."""
    if max_distance is None or len(spacing) == 0:
        return max_distance
    shift = max(voxel_shift(convention, row) for row in spacing)
    return shift + max(max_distance, 2 * RESIDUE * shift)  # a clamped distance is more than rounding


def finish(
    convention: str,
    empty: str,
    spacing: SpacingRows,
    shape: tuple[int, ...],
    max_distance: float | None,
) -> Finish:
    """Return the steps from a plain map to the result.

    Args:
        convention: see docs/conventions.md.
        empty: value for a class without inside or outside voxels; ``"raise"`` counts as ``"inf"``.
        spacing: one row for all samples, or one per sample.
        shape: of the volume; ``empty="max"`` uses its diagonal.
        max_distance: the result lies in ``[-max_distance, max_distance]``.
    """
    return _finish(convention, empty, spacing, tuple(shape), max_distance)


@lru_cache(maxsize=256)
def _finish(
    convention: str,
    empty: str,
    spacing: SpacingRows,
    shape: tuple[int, ...],
    max_distance: float | None,
) -> Finish:
    missing = [math.inf] * len(spacing)  # clamped to the limit, if there is one
    if empty == "zero":
        missing = [0.0] * len(spacing)
    elif empty == "max" and max_distance is None:
        missing = [_diagonal(shape, row) for row in spacing]
    return Finish(
        shifts=tuple(voxel_shift(convention, row) for row in spacing),
        both_sides=convention == "midline",
        missing=tuple(missing),
        limit=math.inf if max_distance is None else max_distance,
    )


def apply_(plain: torch.Tensor, how: Finish) -> torch.Tensor:
    """Finish a plain map ``[B, K, *S]`` in place."""
    parts = (plain.flatten(0, 1),) if len(how.shifts) == 1 else plain
    for sample, shift, missing in zip(parts, how.shifts, how.missing, strict=True):
        for piece in _pieces(sample):
            _shift_(piece, float(np.float32(shift)), how.both_sides)
            # After the shift an empty class is still infinite.
            if missing < math.inf:
                piece.nan_to_num_(posinf=missing, neginf=-missing)
            if how.limit < math.inf:
                piece.clamp_(-how.limit, how.limit)
    return plain


def _shift_(piece: torch.Tensor, shift: float, both_sides: bool) -> None:
    if both_sides:  # every distance is larger than half a voxel: no residue
        piece.sub_(piece.sign(), alpha=shift)
    elif shift:
        inside = piece < 0
        piece.add_(inside, alpha=shift)
        piece.masked_fill_(inside & (piece.abs() <= RESIDUE * shift), 0.0)


def refuse_empty(plain: torch.Tensor, classes: Sequence[int | None]) -> None:
    """Raise where a class has no inside or no outside voxel.

    Args:
        plain: ``[B, K, *S]`` as backends return it.
        classes: the K label values, for the message; `[None]` for a mask.

    Raises:
        ValueError: there is such a class.
    """
    first_voxel = plain.flatten(2)[:, :, 0]
    for sample, k in first_voxel.isinf().nonzero().tolist():
        lacks = "inside" if first_voxel[sample, k] > 0 else "outside"
        who = "the mask" if classes[k] is None else f"class {classes[k]}"
        raise ValueError(
            f"empty='raise': every class needs inside and outside voxels, but {who} "
            f"of sample {sample} has no {lacks} voxel"
        )


def _pieces(sample: torch.Tensor) -> Sequence[torch.Tensor]:
    return torch.split(sample.view(-1), _CPU_PIECE) if sample.device.type == "cpu" else (sample,)


def _diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    return math.hypot(*(size * step for size, step in zip(shape, spacing, strict=True)))
