"""Forward and backward of our losses beside MONAI's, and what a hand-written gradient would save.

`python -m benchmarks.measure.losses` times batch 2, 3 classes, 96^3 on two threads, checks values and
gradients first, and prints a Markdown table. Peak memory is that of torch's allocator, beyond logits and
labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch.autograd.function import once_differentiable
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure.monai_losses import CLASSES, NAMES, LossBatch
from benchmarks.measure.timing import Budget, HostClock, interleaved
from fastsdm import losses

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
    """Rows of the table: time, its factor over the first contender, and peak memory.

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
        if not abs(value - expected) <= 1e-5 * abs(expected):  # so that NaN is refused
            raise ValueError(f"{title}: values differ, {value} and {expected}")
        if not (gradient - reference).abs().max() <= 1e-5 * reference.abs().max():
            raise ValueError(f"{title}: gradients differ")
    timings = interleaved(runs, first_s, budget, HostClock())
    base = next(iter(timings.values())).median_s
    return [
        f"| {title} | {name} | {1e3 * timing.median_s:.1f} | {base / timing.median_s:.1f}x "
        f"| {peak_bytes(runs[name]) / 2**20:.0f} |"
        for name, timing in timings.items()
    ]


def peak_bytes(run: Step) -> int:
    """The most that torch's CPU allocator held at once of what it handed out during the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run(0)
    assert watched.profiler is not None
    assert watched.profiler.kineto_results is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(int(event.nbytes()) for event in events))


def closed_form(logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The boundary loss by :class:`ClosedForm`, in pieces that stay in the cache and on this thread."""
    value: torch.Tensor = ClosedForm.apply(logits, maps, 1 << 13)  # type: ignore[no-untyped-call]
    return value


def _on(loss: torch.nn.Module, target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = loss(logits, target)
    return value


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each contender")
    args = parser.parse_args()
    from monai import losses as monai_losses  # noqa: PLC0415  # optional

    torch.set_num_threads(args.threads)
    batch = LossBatch.of_size(args.size, torch.device("cpu"))
    logits, target = batch.logits.detach() + 3 * batch.one_hot, batch.labels
    budget = Budget(args.seconds)
    print("| step | of | ms | factor | peak MiB |\n|---|---|---|---|---|")
    for name in NAMES:
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
