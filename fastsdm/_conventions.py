"""From the plain map to the one that was asked for: empty policy, shift, clamp. Works in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from fastsdm._backends.contract import Finish, SpacingRows

# On the CPU the steps run over pieces that stay in the cache; an accelerator takes the whole map at once.
_CPU_PIECE = 1 << 18
#: As a share of the shift: a shifted distance up to it is rounding, and becomes 0. On every backend the same.
RESIDUE = 2.0**-21


def voxel_shift(convention: str, spacing: Sequence[float]) -> float:
    """By how much the convention moves a distance: ``h = min(spacing)``, ``1``, ``h/2`` or 0."""
    h = min(spacing)
    return {"kervadec": h, "kervadec-literal": 1.0, "midline": h / 2, "plain": 0.0}[convention]


@lru_cache(maxsize=256)
def search_limit(convention: str, spacing: SpacingRows, max_distance: float | None) -> float | None:
    """How far a backend must look so that the shifted map is right up to ``max_distance``."""
    if max_distance is None or len(spacing) == 0:
        return max_distance
    shift = max(voxel_shift(convention, row) for row in spacing)
    return shift + max(max_distance, 2 * RESIDUE * shift)  # what is cut to the limit is beyond rounding


def finish(
    convention: str,
    empty: str,
    spacing: SpacingRows,
    shape: tuple[int, ...],
    max_distance: float | None,
) -> Finish:
    """What has to be done to a plain map.

    Args:
        convention: see docs/conventions.md.
        empty: what a class without inside or outside voxels reads; ``"raise"`` counts as ``"inf"``.
        spacing: one row for all samples, or one per sample.
        shape: of the volume whose diagonal ``empty="max"`` stands for.
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
    missing = [math.inf] * len(spacing)  # whatever the limit is, it cuts that too
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
            # The shift leaves infinities alone, so they still tell an empty class.
            if missing < math.inf:
                piece.nan_to_num_(posinf=missing, neginf=-missing)
            if how.limit < math.inf:
                piece.clamp_(-how.limit, how.limit)
    return plain


def _shift_(piece: torch.Tensor, shift: float, both_sides: bool) -> None:
    if both_sides:  # by half a voxel: no distance is that small, so there is no residue
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
