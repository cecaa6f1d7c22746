"""Jump flooding in plain torch operations: approximate, on any torch device.

Every voxel keeps the vector to the nearest voxel of the other phase found so far, and compares it with those
of neighbours at shrinking distances (Rong and Tan 2006, doi:10.1145/1111411.1111431). The small steps before
and after the halving ones are those of the variants 1+JFA and JFA+2 (2007, doi:10.1109/ISVD.2007.41), plus
one. They were chosen by their errors (docs/backends.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch

from fastsdm._backends.contract import Classes, inside

#: Working memory beside the result, unless a single map needs more.
_BUDGET_BYTES = 1 << 30


class JumpFloodingBackend:
    """Jump flooding with 26 neighbours (8 in 2D), both phases at once, maps flooded in batches."""

    name = "jump-flooding"
    exact = False
    device_types = None

    def unavailable(self, device: torch.device) -> str | None:
        """See the contract: it runs on every device."""
        return None

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,  # not used: fewer steps would hardly be faster
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.contract.Backend.signed_distance`."""
        shape = (labels.shape[0], len(classes), *labels.shape[1:])
        maps = torch.empty(shape, dtype=torch.float32, device=labels.device)
        if maps.numel() == 0:
            return maps
        squared_steps = spacing.square().tolist()
        pairs = [(sample, k) for sample in range(shape[0]) for k in range(shape[1])]
        at_once = max(1, _BUDGET_BYTES // (_bytes_per_voxel(spacing.shape[1]) * math.prod(shape[2:])))
        flat = maps.flatten(0, 1)
        for start in range(0, len(pairs), at_once):
            part = pairs[start : start + at_once]
            masks = torch.stack([inside(labels[sample], classes[k]) for sample, k in part])
            weights = _weights([squared_steps[sample] for sample, _ in part], masks.device)
            distance = _squared_distance(masks, weights).sqrt_()
            torch.where(masks, -distance, distance, out=flat[start : start + at_once])
        return maps


def _squared_distance(masks: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the squared distance to the other phase, ``[M, *S]``; infinite in volumes without it.

    Args:
        masks: ``[M, *S]`` bool.
        weights: squared spacing along each axis, ``[M, 1, ...]``.
    """
    best = torch.full(masks.shape, math.inf, dtype=torch.float32, device=masks.device)
    # In voxels: exact in float32.
    vectors = [torch.full_like(best, math.inf) for _ in weights]
    for here, there, offset in _neighbours(masks.shape[1:]):
        # A neighbour of the other phase is itself the candidate.
        same = masks[here] == masks[there]
        candidate = [
            torch.where(same, vector[there], 0.0).add_(step)
            for vector, step in zip(vectors, offset, strict=True)
        ]
        squared = torch.zeros_like(candidate[0])
        for component, weight in zip(candidate, weights, strict=True):
            squared.add_(component.square().mul_(weight))
        closer = squared < best[here]
        best[here].copy_(torch.minimum(squared, best[here]))
        for vector, component in zip(vectors, candidate, strict=True):
            vector[here].copy_(torch.where(closer, component, vector[here]))
    return best


_Region = tuple[slice, ...]


def _neighbours(shape: Sequence[int]) -> Iterator[tuple[_Region, _Region, tuple[int, ...]]]:
    """Yield voxels with a neighbour at an offset, these neighbours and the offset, step by step."""
    for jump in _jumps(max(shape)):
        for offset in itertools.product((-jump, 0, jump), repeat=len(shape)):
            if any(offset) and all(abs(step) < size for step, size in zip(offset, shape, strict=True)):
                here = (
                    slice(max(0, -step), size - max(0, step))
                    for step, size in zip(offset, shape, strict=True)
                )
                there = (
                    slice(max(0, step), size + min(0, step)) for step, size in zip(offset, shape, strict=True)
                )
                yield (slice(None), *here), (slice(None), *there), offset


def _jumps(longest: int) -> list[int]:
    halving = [1 << power for power in reversed(range((longest - 1).bit_length()))]
    return [2, 1, *halving, 2, 1]


def _weights(rows: Sequence[Sequence[float]], device: torch.device) -> list[torch.Tensor]:
    columns = list(zip(*rows, strict=True))
    shape = (len(rows), *(1 for _ in columns))
    weights = [torch.empty(shape, dtype=torch.float32, device=device) for _ in columns]
    for weight, column in zip(weights, columns, strict=True):
        for place, value in zip(weight, column, strict=True):
            place.fill_(value)  # a tensor made of the list would be copied from the host, which waits
    return weights


def _bytes_per_voxel(ndim: int) -> int:
    # float32 vectors, candidates and two temporaries, best, squared; four booleans
    return 4 * (2 * ndim + 4) + 4


BACKEND = JumpFloodingBackend()
