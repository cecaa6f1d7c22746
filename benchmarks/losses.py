"""Forward and backward of our losses beside MONAI's, and what a hand-written gradient would save.

`python -m benchmarks.losses` times batch 2, 3 classes, 96^3 on two threads, checks the values first, and
prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from benchmarks.timing import Budget, HostClock, interleaved
from fastsdm import losses, testing

CLASSES = 3
Step: TypeAlias = Callable[[int], "tuple[float, torch.Tensor]"]


class ClosedForm(torch.autograd.Function):
    """Boundary loss of softmax probabilities, its gradient made in the forward pass and kept instead of them.

    The gradient of a mean of ``p_k phi_k`` with respect to the logits is ``p_k (phi_k - sum_j p_j phi_j)``.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, maps: torch.Tensor, piece: int) -> torch.Tensor:
        flat, weights = logits.flatten(2), maps.flatten(2)
        gradient, total = torch.empty_like(flat), flat.new_zeros(())
        for b in range(len(flat)):
            pieces = (torch.split(tensor[b], piece, dim=1) for tensor in (flat, weights, gradient))
            for z, phi, out in zip(*pieces, strict=True):
                p = torch.softmax(z, dim=0)
                expected = (p * phi).sum(dim=0)
                total += expected.sum()
                torch.sub(phi, expected, out=out).mul_(p)
        ctx.save_for_backward(gradient.view_as(logits))
        return total / logits.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * (grad_output / gradient.numel()), None, None


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``[2, 3, size, size, size]`` and labels ``[2, 1, size, size, size]`` of organ-like blobs."""
    labels = np.zeros((2, size, size, size), np.int64)
    for sample in range(2):
        for value, fraction in ((1, 0.2), (2, 0.1)):
            blobs = testing.blobs(
                labels.shape[1:], fraction=fraction, sigma=size / 16, seed=2 * sample + value
            )
            labels[sample][blobs > 0] = value
    target = torch.from_numpy(labels).unsqueeze(1)
    truth = torch.nn.functional.one_hot(target.squeeze(1), CLASSES).movedim(-1, 1)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(truth.shape, generator=generator) + 3 * truth, target


def training_step(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> Step:
    """Forward and backward; returns value and gradient."""

    def run(_: int) -> tuple[float, torch.Tensor]:
        leaf = logits.detach().requires_grad_()
        value = loss(leaf)
        value.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return value.item(), leaf.grad

    return run


def compared(title: str, runs: dict[str, Step], budget: Budget) -> list[str]:
    """Rows of the table: times in milliseconds and the factor over the first contender.

    Raises:
        ValueError: a value or gradient that differs from the first contender's by more than 1e-5.
    """
    first_s, results = {}, []
    for name, run in runs.items():
        start = time.perf_counter()
        results.append(run(0))
        first_s[name] = time.perf_counter() - start
    expected, reference = results[0]
    for value, gradient in results[1:]:
        if abs(value - expected) > 1e-5 * abs(expected):
            raise ValueError(f"{title}: values differ, {value} and {expected}")
        if (gradient - reference).abs().max() > 1e-5 * reference.abs().max():
            raise ValueError(f"{title}: gradients differ")
    timings = interleaved(runs, first_s, budget, HostClock())
    base = next(iter(timings.values())).median_s
    return [
        f"| {title} | {name} | {1e3 * timing.median_s:.1f} | {base / timing.median_s:.1f}x |"
        for name, timing in timings.items()
    ]


def closed_form(logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The boundary loss by :class:`ClosedForm`, in pieces that stay in the cache."""
    value: torch.Tensor = ClosedForm.apply(logits, maps, 1 << 18)  # type: ignore[no-untyped-call]
    return value


def _on(loss: torch.nn.Module, target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = loss(logits, target)
    return value


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each contender")
    args = parser.parse_args()
    from monai import losses as monai_losses  # noqa: PLC0415  # optional

    torch.set_num_threads(2)
    logits, target = batch(args.size)
    budget = Budget(args.seconds)
    print("| step | of | ms | factor |\n|---|---|---|---|")
    for name in ("BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss"):
        settings = {"softmax": True, "to_onehot_y": True}
        runs: dict[str, Step] = {}
        for owner, module in (("MONAI", monai_losses), ("fastsdm", losses)):
            runs[owner] = training_step(partial(_on, getattr(module, name)(**settings), target), logits)
        print("\n".join(compared(name, runs, budget)), flush=True)
    for name in ("GeneralizedSurfaceLoss", "SDMRegressionLoss"):
        loss = getattr(losses, name)(softmax=True)
        runs = {"fastsdm": training_step(partial(_on, loss, target), logits)}
        print("\n".join(compared(name, runs, budget)), flush=True)
    boundary = losses.BoundaryLoss(softmax=True)
    maps = boundary.target_map(target, CLASSES)
    runs = {
        "autograd": training_step(lambda x: boundary(x, target, distance_map=maps), logits),
        "closed form": training_step(lambda x: closed_form(x, maps), logits),
    }
    print("\n".join(compared("BoundaryLoss, map handed in", runs, budget)))


if __name__ == "__main__":
    main()
