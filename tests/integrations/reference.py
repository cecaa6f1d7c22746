"""The boundary loss by scipy and numpy alone, for one batch of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt


def boundary_by_scipy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    spacing: Sequence[Sequence[float]],
    *,
    include_background: bool = True,
    normalized: bool = False,
) -> float:
    """Mean of softmax times map over voxels, classes and samples; absent classes weigh nothing.

    Args:
        logits: ``[B, C, *S]``.
        labels: ``[B, 1, *S]``.
        spacing: one row per sample.
        include_background: whether class 0 counts.
        normalized: whether each sample's map is divided by its largest absolute distance.
    """
    probabilities = logits.detach().double().softmax(dim=1).numpy()
    maps = np.zeros(probabilities.shape)
    for b, k in np.ndindex(probabilities.shape[:2]):
        inside = labels[b, 0].numpy() == k
        if inside.any() and not inside.all():
            outer = distance_transform_edt(~inside, sampling=spacing[b])
            inner = distance_transform_edt(inside, sampling=spacing[b])
            maps[b, k] = outer - np.maximum(inner - min(spacing[b]), 0)
    if normalized:
        maps /= np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True).clip(min=1e-9)
    first = 0 if include_background else 1
    return float((probabilities * maps)[:, first:].mean())
