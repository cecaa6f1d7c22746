"""`BoundaryLoss` beside MONAI's: the map alone, and forward with backward, from the same labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

import fastsdm
from benchmarks.cases import organ_case
from benchmarks.timing import Budget, Run, Timing, clock_for, interleaved
from fastsdm.losses import BoundaryLoss

OURS, MONAI = "fastsdm", "MONAI"
CLASSES = 3


@dataclass(frozen=True)
class LossRow:
    """One contender at one task.

    Attributes:
        task: "map" or "forward and backward".
        title: of the batch.
        contender: `OURS` or `MONAI`.
        timing: of one call.
        max_abs: largest difference from MONAI's map, or gradient.
    """

    task: str
    title: str
    contender: str
    timing: Timing
    max_abs: float


class WrongResultError(RuntimeError):
    """Ours and theirs differ, so there is nothing to time."""


def measured_loss(size: int, device: torch.device, budget: Budget) -> list[LossRow]:
    """Batch 2, 3 classes: MONAI's and our map, then both losses forward and backward.

    Each map is made from what its loss makes it from, labels for ours and one-hot for MONAI's; encoding
    them is not timed there. The whole losses get the same logits and labels and encode in the timed call.

    Raises:
        WrongResultError: map, value or gradient differ.
    """
    case = organ_case(2, (size, size, size), CLASSES)
    labels = torch.from_numpy(case.make()).to(device)[:, None]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, CLASSES, size, size, size), generator=generator).to(device).requires_grad_()
    theirs = _from_monai("losses").BoundaryLoss(softmax=True, to_onehot_y=True)
    ours = BoundaryLoss(softmax=True, to_onehot_y=True)
    encoded = _from_monai("networks.utils").one_hot(labels, num_classes=CLASSES)

    def our_map() -> torch.Tensor:
        return fastsdm.signed_distance(labels[:, 0], classes=CLASSES, empty="zero")

    def their_map() -> torch.Tensor:
        maps: torch.Tensor = theirs.compute_distance_map(encoded)
        return maps

    def gradient(loss: torch.nn.Module) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            (found,) = torch.autograd.grad(loss(logits, labels), logits)
            return found

        return run

    tasks = {"map": (our_map, their_map), "forward and backward": (gradient(ours), gradient(theirs))}
    rows = []
    for task, (our_run, their_run) in tasks.items():
        rows += _measured_pair(task, case.title, our_run, their_run, device, budget)
    return rows


def _from_monai(module: str) -> Any:
    return import_module(f"monai.{module}")


def _any_round(run: Callable[[], object]) -> Run:
    return lambda _: run()


def _measured_pair(
    task: str,
    title: str,
    ours: Callable[[], torch.Tensor],
    theirs: Callable[[], torch.Tensor],
    device: torch.device,
    budget: Budget,
) -> list[LossRow]:
    runs = {OURS: ours, MONAI: theirs}
    results, first_s = {}, {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        results[name] = run().cpu()  # waits for a device
        first_s[name] = time.perf_counter() - start
    difference = float((results[OURS] - results[MONAI]).abs().max())
    if not torch.allclose(results[OURS], results[MONAI], rtol=1e-4, atol=1e-6):
        raise WrongResultError(f"BoundaryLoss, {task}: differs from MONAI's by {difference}")
    del results
    timings = interleaved(
        {name: _any_round(run) for name, run in runs.items()}, first_s, budget, clock_for(device)
    )
    return [LossRow(task, title, name, timing, difference) for name, timing in timings.items()]
