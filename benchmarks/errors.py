"""How far jump flooding is off: a histogram over the voxels of phantoms that are hard for it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

import fastsdm
from fastsdm import testing
from fastsdm.testing import Array

#: Upper edges of the bins in voxels; the first bin holds what is right up to rounding.
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, float("inf"))


@dataclass(frozen=True)
class ErrorHistogram:
    """Absolute errors of one phantom.

    Attributes:
        phantom: its name.
        voxels: how many were compared.
        counts: voxels per bin; `counts[0]` are exact, bin `i` is above `EDGES[i - 1]` up to `EDGES[i]`.
        largest: the largest error, in voxels.
    """

    phantom: str
    voxels: int
    counts: list[int]
    largest: float


def error_histograms(device: torch.device, size: int) -> list[ErrorHistogram]:
    """Errors of the `torch` backend in cubes of `size` at unit spacing."""
    shape = (size,) * 3
    phantoms = {
        "blobs": testing.blobs(shape),
        "thin vessels": testing.vessels(shape),
        "0.1 % of the voxels": testing.noise(shape, fraction=0.001),
        "nested shells": testing.shells(shape, classes=2, thickness=5),
    }
    return [_histogram(name, mask, device) for name, mask in phantoms.items()]


def _histogram(name: str, mask: Array, device: torch.device) -> ErrorHistogram:
    target = torch.from_numpy(mask).to(device)
    got = fastsdm.signed_distance(target, convention="plain", backend="torch").cpu().numpy()
    truth = testing.reference_signed_distance(mask[None], (1,), np.ones((1, 3)))[0, 0]
    errors = np.abs(got - truth)
    errors[errors <= testing.ROUNDING * np.abs(truth)] = 0
    counts = [int((errors == 0).sum())]
    counts += [int(((errors > low) & (errors <= high)).sum()) for low, high in pairwise(EDGES)]
    return ErrorHistogram(name, errors.size, counts, float(errors.max()))
