"""Products over the voxels: as one dot product of an accelerator, value and gradient are the plain ones."""

from __future__ import annotations

import pytest
import torch

from fastsdm import losses
from fastsdm.losses import _reduction


def factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 3, 7, 5, 6, generator=generator) for _ in range(2))
    return one.requires_grad_(), other


def test_a_long_sum_of_one_sign_keeps_its_digits() -> None:
    """BLAS's dot product loses four of them at this length on the CPU, which is why it is not used there."""
    prediction, maps = torch.full((1, 1, 4, 1024, 2048), 0.1), torch.full((1, 1, 4, 1024, 2048), 3.0)
    labels = torch.zeros(1, 4, 1024, 2048, dtype=torch.uint8)
    value = losses.BoundaryLoss()(prediction, labels, distance_map=maps)
    torch.testing.assert_close(value.double(), torch.tensor(0.3, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch", [False, True])
def test_one_dot_product_is_the_reduced_mean(reduction: str, batch: bool) -> None:
    one, other = factors()
    value = _reduction.reduced_by_dot(one, other, reduction, batch)
    expected = _reduction.reduced((one * other).mean(dim=(2, 3, 4)), reduction, batch)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, one), torch.autograd.grad(expected, one))


def test_where_one_dot_product_serves() -> None:
    one, other = (torch.zeros(2, 3, 4, 5, 6, device="meta") for _ in range(2))
    assert _reduction.takes_one_dot(one, other, "mean")
    assert _reduction.takes_one_dot(one, other, "sum")
    long = torch.zeros(1, device="meta").expand(2, 1, 1 << 15, 1 << 15)
    for a, b, reduction in (
        (one, other, "none"),
        (one[:, 1:], other[:, 1:], "mean"),
        (one, other[:, :2], "mean"),
        (one.double(), other, "mean"),
        (one[:0], other[:0], "mean"),
        (torch.empty_like(long), torch.empty_like(long).contiguous(), "mean"),
        (torch.zeros(one.shape), torch.zeros(one.shape), "mean"),
    ):
        assert not _reduction.takes_one_dot(a, b, reduction)
