"""How far jump flooding is off: a histogram over the voxels of phantoms that are hard for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

import fastsdm
from fastsdm import testing
from fastsdm.testing import Array

_UNIT, _CT = (1.0, 1.0, 1.0), (3.0, 0.8, 0.7)
#: Upper edges of the bins, in the smallest spacing; the first bin holds what is right up to rounding.
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, float("inf"))


@dataclass(frozen=True)
class ErrorHistogram:
    """Absolute errors of one phantom.

    Attributes:
        phantom: its name.
        voxels: how many were compared.
        counts: voxels per bin; `counts[0]` are exact, bin `i` is above `EDGES[i - 1]` up to `EDGES[i]`.
        largest: the largest error, in the smallest spacing.
    """

    phantom: str
    voxels: int
    counts: list[int]
    largest: float


#: Mask of a cube of that edge, and its spacing: what jump flooding finds hard.
PHANTOMS: dict[str, tuple[Callable[[tuple[int, ...]], Array], tuple[float, float, float]]] = {
    "blobs": (testing.blobs, _UNIT),
    "blobs, 3 x 0.8 x 0.7": (testing.blobs, _CT),
    "thin vessels, 3 x 0.8 x 0.7": (testing.vessels, _CT),
    "0.1 % of the voxels": (partial(testing.noise, fraction=0.001), _UNIT),
}


def error_histogram(phantom: str, device: torch.device, size: int) -> ErrorHistogram:
    """Errors of the `torch` backend on one of `PHANTOMS`."""
    make, spacing = PHANTOMS[phantom]
    mask = make((size,) * 3)
    target = torch.from_numpy(mask).to(device)
    maps = fastsdm.signed_distance(target, spacing=spacing, convention="plain", backend="torch")
    truth = testing.reference_signed_distance(mask[None], (1,), np.array([spacing]))[0, 0]
    errors = np.abs(maps.cpu().numpy() - truth)
    errors[errors <= testing.ROUNDING * np.abs(truth)] = 0
    errors /= min(spacing)
    counts = [int((errors == 0).sum())]
    counts += [int(((errors > low) & (errors <= high)).sum()) for low, high in pairwise(EDGES)]
    return ErrorHistogram(phantom, errors.size, counts, float(errors.max()))
