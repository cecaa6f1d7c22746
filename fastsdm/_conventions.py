"""From the plain map to the one that was asked for: empty policy, shift, clamp. Works in place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# On the CPU the steps run over pieces that stay in the cache, each on the calling thread: torch would divide
# a larger one among threads, which wait for each other whenever other processes hold the cores.
_CPU_PIECE = 1 << 15


def voxel_shift(convention: str, spacing: Sequence[float]) -> float:
    """By how much the convention moves a distance: ``h = min(spacing)``, ``1``, ``h/2`` or 0."""
    h = min(spacing)
    return {"kervadec": h, "kervadec-literal": 1.0, "midline": h / 2, "plain": 0.0}[convention]


def search_limit(convention: str, spacing: torch.Tensor, max_distance: float | None) -> float | None:
    """How far a backend must look so that the shifted map is right up to ``max_distance``."""
    if max_distance is None or len(spacing) == 0:
        return max_distance
    return max_distance + max(voxel_shift(convention, row) for row in spacing.tolist())


def apply_(
    plain: torch.Tensor,
    spacing: torch.Tensor,
    classes: Sequence[int],
    *,
    convention: str,
    empty: str,
    max_distance: float | None,
) -> torch.Tensor:
    """Apply empty policy, shift and clamp to a plain map, in place.

    Args:
        plain: ``[B, K, *S]`` as backends return it; overwritten.
        spacing: ``[B, ndim]`` on the CPU.
        classes: the K label values, for messages.
        convention: see the design of conventions in docs/conventions.md.
        empty: what a class without inside or outside voxels reads.
        max_distance: the result lies in ``[-max_distance, max_distance]``.

    Raises:
        ValueError: ``empty="raise"`` and a class has no inside or no outside voxel.
    """
    if plain.numel() == 0:
        return plain
    if empty == "raise":
        _refuse_empty(plain, classes)
    for row, sample in zip(spacing.tolist(), plain, strict=True):
        shift = voxel_shift(convention, row)
        fill = None
        if empty == "zero":
            fill = 0.0
        elif empty == "max" and max_distance is None:  # else the clamp does it
            fill = _diagonal(sample.shape[1:], row)
        for piece in _pieces(sample):
            if convention == "midline":
                piece.sub_(piece.sign(), alpha=shift)
            elif shift:
                _shift_inside_(piece, shift)
            # The shift leaves infinities alone, so they still tell an empty class.
            if fill is not None:
                piece.nan_to_num_(posinf=fill, neginf=-fill)
            if max_distance is not None:
                piece.clamp_(-max_distance, max_distance)
    return plain


def _shift_inside_(piece: torch.Tensor, shift: float) -> None:
    if piece.device.type == "cpu":
        # Half the time of a comparison, whose result would be converted to floats in a pass of its own.
        piece.add_(piece.sign().clamp_(max=0), alpha=-shift)
    else:
        piece.add_(piece < 0, alpha=shift)


def _pieces(sample: torch.Tensor) -> Sequence[torch.Tensor]:
    return torch.split(sample.view(-1), _CPU_PIECE) if sample.device.type == "cpu" else (sample,)


def _diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    return math.hypot(*(size * step for size, step in zip(shape, spacing, strict=True)))


def _refuse_empty(plain: torch.Tensor, classes: Sequence[int]) -> None:
    first_voxel = plain.flatten(2)[:, :, 0]
    for sample, k in first_voxel.isinf().nonzero().tolist():
        lacks = "inside" if first_voxel[sample, k] > 0 else "outside"
        raise ValueError(
            f"empty='raise': every class needs inside and outside voxels, but class {classes[k]} "
            f"of sample {sample} has no {lacks} voxel"
        )
