"""A network trained with MONAI's boundary loss and with ours follows the same curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from fastsdm import losses, testing

monai_losses = pytest.importorskip("monai.losses")
monai_nets = pytest.importorskip("monai.networks.nets")
SHAPE, STEPS = (16, 16, 16), 50


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Noisy images ``[2, 1, *S]`` of two nested blobs and their labels; one batch for all steps each."""
    made = []
    for seed in range(5):
        outer = torch.from_numpy(testing.blobs((2, *SHAPE), fraction=0.4, sigma=2.5, seed=seed))
        inner = torch.from_numpy(testing.blobs((2, *SHAPE), fraction=0.1, sigma=2.5, seed=seed))
        labels = (outer + inner).long().unsqueeze(1)
        noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
        made.append((labels + 0.3 * noise, labels))
    return made


def loss_curve(boundary: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[float]:
    torch.manual_seed(0)
    network = monai_nets.UNet(3, 1, 3, channels=(4, 8, 16), strides=(2, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    region = monai_losses.DiceLoss(softmax=True, to_onehot_y=True)
    data, curve = batches(), []
    for step in range(STEPS):
        image, labels = data[step % len(data)]
        prediction = network(image)
        loss = region(prediction, labels) + 0.5 * boundary(prediction, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much where other processes hold the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_loss_curves_are_one(one_thread: None) -> None:
    settings = {"softmax": True, "to_onehot_y": True}
    theirs = loss_curve(monai_losses.BoundaryLoss(**settings))
    ours = loss_curve(losses.BoundaryLoss(**settings))
    assert theirs[-1] < theirs[0] - 0.3
    assert ours == pytest.approx(theirs, rel=1e-4)
