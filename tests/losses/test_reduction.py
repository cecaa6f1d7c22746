"""Products over the voxels: in one pass or in pieces, the value and its derivatives are the plain ones."""

from __future__ import annotations

import pytest
import torch

from fastsdm import losses
from fastsdm.losses import _reduction
from fastsdm.losses._target import Target
from tests.losses.cases import label_map, logits

CLASSES = 3
NOTHING_IGNORED = Target(torch.zeros(0), None, None)


def factors(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 3, 7, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    return one.to(dtype).requires_grad_(), other.to(dtype)


@pytest.mark.parametrize("piece", [1, 64, 210, 1000])
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float64, torch.float32)])
def test_pieces_add_up(piece: int, dtypes: tuple[torch.dtype, torch.dtype], monkeypatch) -> None:
    monkeypatch.setattr(_reduction, "_CPU_PIECE", piece)
    one, other = factors(dtypes[0])[0], factors(dtypes[1])[1]
    apart = one[:, 1:], other[:, 1:]  # not contiguous, as without background
    for a, b in ((one, other), apart):
        value = _reduction.voxel_mean_of_product(a, b, NOTHING_IGNORED)
        expected = (a * b).mean(dim=(2, 3, 4))
        assert value.dtype == expected.dtype
        torch.testing.assert_close(value, expected)
        (got,) = torch.autograd.grad(value.square().sum(), one)
        (wanted,) = torch.autograd.grad(expected.square().sum(), one)
        torch.testing.assert_close(got, wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's forward mode uses it
def test_derivatives_of_the_pieces(monkeypatch) -> None:
    monkeypatch.setattr(_reduction, "_CPU_PIECE", 64)
    one, other = factors(torch.float64)

    def sums(values: torch.Tensor) -> torch.Tensor:
        return _reduction.voxel_mean_of_product(values.square(), other, NOTHING_IGNORED)

    torch.autograd.gradcheck(sums, one, check_forward_ad=True)
    torch.autograd.gradgradcheck(sums, one)
    by_function = torch.func.grad(lambda values: sums(values).sum())(one.detach())
    torch.testing.assert_close(by_function, torch.autograd.grad(sums(one).sum(), one)[0])


def test_a_long_sum_of_one_sign_keeps_its_digits() -> None:
    """BLAS's dot product loses four of them at this length on the CPU."""
    one, other = torch.full((1, 1, 4, 1 << 21), 0.1), torch.full((1, 1, 4, 1 << 21), 3.0)
    value = _reduction.voxel_mean_of_product(one, other, NOTHING_IGNORED)
    torch.testing.assert_close(
        value.double(), torch.full((1, 1), 0.3, dtype=torch.float64), rtol=1e-6, atol=0
    )


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


@pytest.mark.parametrize("name", ["BoundaryLoss", "HausdorffDTLoss"])
@pytest.mark.parametrize("background", [False, True])
def test_losses_of_volumes_that_take_pieces(name: str, background: bool, monkeypatch) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES).requires_grad_()
    for settings in (
        {},
        {"reduction": "none"},
        {"ignore_index": 1},
        {"class_weights": [1.0, 2.0, 0.5][not background :]},
    ):
        loss = getattr(losses, name)(include_background=background, softmax=True, **settings)
        expected = loss(prediction, labels)
        monkeypatch.setattr(_reduction, "_CPU_PIECE", 100)
        value = loss(prediction, labels)
        monkeypatch.undo()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            torch.autograd.grad(value.sum(), prediction), torch.autograd.grad(expected.sum(), prediction)
        )
