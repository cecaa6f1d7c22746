"""The U-Net and the Dice functions that the examples share."""

from __future__ import annotations

import torch

from examples.networks import UNet3d, dice_loss, dice_scores


def test_unet_gives_logits_for_every_voxel_and_uses_every_scale() -> None:
    network = UNet3d(2, 5, widths=(4, 6, 8))
    logits = network(torch.randn(3, 2, 8, 12, 16))
    assert logits.shape == (3, 5, 8, 12, 16)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_dice_of_a_sure_prediction_is_right_and_of_a_wrong_one_is_not() -> None:
    labels = torch.randint(0, 3, (2, 1, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1) * 50.0
    assert dice_loss(right, labels).item() < 0.01
    assert dice_loss(-right, labels).item() > 0.5
    assert dice_scores(labels, labels, 3) == [1.0, 1.0]
    assert dice_scores(torch.zeros_like(labels), labels, 3) == [0.0, 0.0]
