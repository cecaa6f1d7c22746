"""Jump flooding in plain torch operations: approximate, on any torch device, with no compiler or extra package.

Rong and Tan 2006, doi:10.1145/1111411.1111431, and 2007, doi:10.1109/ISVD.2007.41.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch


class TorchBackend:
    """Jump flooding; docs/backends.md gives its error."""

    name = "torch"
    exact = False

    def unavailable(self, device: torch.device) -> str | None:
        """None: it runs wherever torch does."""
        del device
        return None

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Sequence[int],
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :class:`fastsdm._types.Backend`."""
        del max_distance
        shape = labels.shape[1:]
        maps = torch.empty((labels.shape[0], len(classes), *shape), device=labels.device)
        if maps.numel() == 0:
            return maps
        for sample, steps, sample_maps in zip(labels, spacing.tolist(), maps, strict=True):
            for value, class_map in zip(classes, sample_maps, strict=True):
                class_map.copy_(_plain_map(sample == value, steps))
        return maps


def _plain_map(inside: torch.Tensor, steps: Sequence[float]) -> torch.Tensor:
    ndim = inside.ndim
    vectors = torch.full((ndim, *inside.shape), math.inf, device=inside.device)
    best = torch.full(inside.shape, math.inf, device=inside.device)
    for jump in _jumps(max(inside.shape)):
        source, source_best = vectors.clone(), best.clone()
        for offset in itertools.product((-jump, 0, jump), repeat=ndim):
            if not any(offset) or any(abs(o) >= n for o, n in zip(offset, inside.shape, strict=True)):
                continue
            here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, inside.shape, strict=True))
            there = tuple(slice(max(0, o), n + min(0, o)) for o, n in zip(offset, inside.shape, strict=True))
            same = inside[here] == inside[there]
            move = torch.tensor([o * h for o, h in zip(offset, steps, strict=True)], device=inside.device)
            candidate = torch.where(same, source[(slice(None), *there)], 0.0) + move.view(-1, *(1,) * ndim)
            squared = candidate.square().sum(0)
            closer = squared < best[here]
            best[here] = torch.where(closer, squared, best[here])
            vectors[(slice(None), *here)] = torch.where(closer, candidate, vectors[(slice(None), *here)])
        del source, source_best
    distance = best.sqrt()
    return torch.where(inside, -distance, distance)


def _jumps(longest: int) -> list[int]:
    halvings = [2**k for k in reversed(range(max(1, math.ceil(math.log2(max(longest, 2))))))]
    return [1, *halvings, 2, 1]


BACKEND = TorchBackend()
