"""Our losses, beside MONAI's where they have one: the map alone, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

import fastsdm
from benchmarks.measure.cases import organ_case
from benchmarks.measure.timing import Budget, Timing, clock_for, in_turns
from fastsdm import losses

OURS, MONAI = "fastsdm", "MONAI"
NAMES = ("BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss")
TASKS = ("map", *NAMES, "GeneralizedSurfaceLoss", "SDMRegressionLoss")
CLASSES = 3
#: Largest difference, as a share of the largest value of MONAI's map or gradient.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LossRow:
    """One contender at one task.

    Attributes:
        task: "map", or the name of the loss that ran forward and backward.
        title: of the batch.
        contender: `OURS` or `MONAI`.
        timing: of one call.
        max_abs: largest difference from MONAI's map, or gradient; None where MONAI has no such loss.
    """

    task: str
    title: str
    contender: str
    timing: Timing
    max_abs: float | None


class WrongResultError(RuntimeError):
    """Ours and MONAI's differ, so there is nothing to time."""


@dataclass(frozen=True)
class LossBatch:
    """Batch 2, 3 classes: what both sides get.

    Attributes:
        title: of the batch.
        labels: `[2, 1, *S]` uint8.
        logits: `[2, 3, *S]`, a leaf.
        one_hot: the labels as MONAI's map wants them.
    """

    title: str
    labels: torch.Tensor
    logits: torch.Tensor
    one_hot: torch.Tensor

    @classmethod
    def of_size(cls, size: int, device: torch.device) -> LossBatch:
        """A batch of cubes of that edge."""
        case = organ_case(2, (size, size, size), CLASSES)
        labels = torch.from_numpy(case.make()).to(device)[:, None]
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn((2, CLASSES, size, size, size), generator=generator).to(device).requires_grad_()
        return cls(case.title, labels, logits, _from_monai("networks.utils").one_hot(labels, CLASSES))

    def runs(self, task: str) -> dict[str, Callable[[], torch.Tensor]]:
        """The map by both sides, or the gradient of the loss of that name by all who have it.

        Each map is made from what its loss makes it from, labels for ours and one-hot for MONAI's; encoding
        them is not timed there. The whole losses get the same logits and labels and encode in the timed call.
        """
        if task != "map":
            modules = {OURS: losses, MONAI: _from_monai("losses")}
            return {owner: self._gradient(it, task) for owner, it in modules.items() if hasattr(it, task)}
        return {
            OURS: lambda: fastsdm.signed_distance(self.labels[:, 0], classes=CLASSES, empty="zero"),
            MONAI: lambda: _from_monai("losses").BoundaryLoss().compute_distance_map(self.one_hot),
        }

    def _gradient(self, module: Any, name: str) -> Callable[[], torch.Tensor]:
        loss = getattr(module, name)(softmax=True, to_onehot_y=True)

        def run() -> torch.Tensor:
            (found,) = torch.autograd.grad(loss(self.logits, self.labels), self.logits)
            return found

        return run


def measured_losses(
    size: int, device: torch.device, budget: Budget, tasks: Sequence[str] = TASKS
) -> list[LossRow]:
    """The map, then the losses forward and backward by all who have them, checked and timed in turns.

    Raises:
        WrongResultError: maps or gradients differ.
    """
    batch = LossBatch.of_size(size, device)
    rows = []
    for task in tasks:
        runs = batch.runs(task)
        results = {name: run().cpu() for name, run in runs.items()}
        difference = largest_difference(task, results) if MONAI in results else None
        del results
        timings = in_turns(runs, budget, clock_for(device))
        rows += [LossRow(task, batch.title, name, timing, difference) for name, timing in timings.items()]
    return rows


def largest_difference(task: str, results: Mapping[str, torch.Tensor]) -> float:
    """Between our and MONAI's map or gradient.

    Raises:
        WrongResultError: it is more than rounding.
    """
    difference = float((results[OURS] - results[MONAI]).abs().max())
    if not difference <= _TOLERANCE * float(results[MONAI].abs().max()):
        raise WrongResultError(f"{task}: differs from MONAI's by up to {difference}")
    return difference


def _from_monai(module: str) -> Any:
    return import_module(f"monai.{module}")
