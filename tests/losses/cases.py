"""Predictions and targets that the loss tests share."""

from __future__ import annotations

import torch

from fastsdm import testing

SHAPES = {2: (9, 11), 3: (9, 8, 7)}


def label_map(ndim: int, *, classes: int = 3, batch: int = 3, seed: int = 0) -> torch.Tensor:
    """Labels ``[batch, *S]`` int64; the last class is absent from sample 1, class 1 fills sample 2."""
    shape = SHAPES[ndim]
    labels = torch.zeros(batch, *shape, dtype=torch.int64)
    for sample in range(batch):
        for value in range(1, classes):
            blobs = testing.blobs(shape, sigma=1.0, seed=seed + 10 * sample + value)
            labels[sample][torch.from_numpy(blobs) > 0] = value
    if batch > 1:
        labels[1][labels[1] == classes - 1] = 0
    if batch > 2:
        labels[2] = 1
    return labels


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Float ``[B, C, *S]``."""
    return torch.nn.functional.one_hot(labels.long(), classes).movedim(-1, 1).float()


def logits(labels: torch.Tensor, channels: int, *, seed: int = 0) -> torch.Tensor:
    """A noisy prediction ``[B, C, *S]`` of the labels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(labels.shape[0], channels, *labels.shape[1:], generator=generator)
    return noise + (one_hot(labels, channels) if channels > 1 else labels.unsqueeze(1) - 0.5)
