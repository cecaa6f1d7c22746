"""A small 3D U-Net, the Dice loss and the Dice coefficient: what all examples train with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn


class UNet3d(nn.Module):
    """Encoder and decoder with skip connections (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28).

    Args:
        in_channels: of the image.
        out_channels: number of classes.
        widths: channels of each scale, finest first; every scale halves the resolution.

    Shape:
        ``[B, in_channels, *S]`` to logits ``[B, out_channels, *S]``; each size in ``S`` must be a multiple of
        ``2 ** (len(widths) - 1)``.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        coarser = list(itertools.pairwise(widths))
        self.first = _convolutions(in_channels, widths[0])
        self.down = nn.ModuleList(_convolutions(fine, coarse, stride=2) for fine, coarse in coarser)
        self.up = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in coarser)
        self.merge = nn.ModuleList(_convolutions(2 * fine, fine) for fine, _ in coarser)
        self.last = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of every voxel."""
        scales = [self.first(image)]
        for down in self.down:
            scales.append(down(scales[-1]))
        features = scales.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            features = merge(torch.cat([scales.pop(), up(features)], dim=1))
        logits: torch.Tensor = self.last(features)
        return logits


def _convolutions(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.InstanceNorm3d(out_channels, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
        nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.InstanceNorm3d(out_channels, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )


def dice_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss over the classes but the background; labels ``[B, 1, *S]``.

    Milletari et al. 2016, doi:10.1109/3DV.2016.79.
    """
    probabilities = logits.softmax(dim=1)[:, 1:]
    values = torch.arange(1, logits.shape[1], device=labels.device).reshape(1, -1, 1, 1, 1)
    truth = (labels == values).to(probabilities.dtype)
    axes = (0, 2, 3, 4)
    overlap = (probabilities * truth).sum(axes)
    return 1 - ((2 * overlap + 1) / (probabilities.sum(axes) + truth.sum(axes) + 1)).mean()


def dice_scores(prediction: torch.Tensor, labels: torch.Tensor, classes: int) -> list[float]:
    """Dice coefficient of every class but the background."""
    scores = []
    for value in range(1, classes):
        predicted, truth = prediction == value, labels == value
        scores.append(2 * float((predicted & truth).sum()) / max(float(predicted.sum() + truth.sum()), 1.0))
    return scores
