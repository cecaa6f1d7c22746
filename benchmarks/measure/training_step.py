"""What the boundary loss costs a 3D U-Net's training step.

One step is forward, cross-entropy (plus, but for the first variant, the boundary loss), backward and
AdamW. All variants see the same network, images and labels, in turns, after their boundary losses were
found equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch

from benchmarks.measure.cases import organ_batch
from benchmarks.measure.step_variants import BASELINE, Stopwatch, Variant, step_variants
from benchmarks.measure.timing import Budget, Timing, clock_for, interleaved

CLASSES = 3
_WEIGHT = 0.01
_ROUNDING, _APPROXIMATION = 1e-4, 1e-2


@dataclass(frozen=True)
class StepRow:
    """One way to train.

    Attributes:
        variant: where the distance map comes from.
        network: of the step.
        step: seconds of the whole step.
        map_s: median seconds in which the step computed the map or waited for it.
        extra_s: median of the step over that of the step without a boundary loss.
    """

    variant: str
    network: str
    step: Timing
    map_s: float
    extra_s: float

    @property
    def share(self) -> float:
        """Share of the step spent on the map."""
        return self.map_s / self.step.median_s


class WrongLossError(RuntimeError):
    """Two variants disagree about the boundary loss, so there is nothing to compare."""


@dataclass(frozen=True)
class Workload:
    """Network, optimiser and batch of the step."""

    network: torch.nn.Module
    optimiser: torch.optim.Optimizer
    images: torch.Tensor
    labels: torch.Tensor
    title: str


def workload(device: torch.device, batch: int, size: int, channels: Sequence[int]) -> Workload:
    """MONAI's residual 3D U-Net and a batch of noisy label maps."""
    torch.manual_seed(0)
    network: torch.nn.Module = import_module("monai.networks.nets").UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=CLASSES,
        channels=tuple(channels),
        strides=(2,) * (len(channels) - 1),
        num_res_units=2,
    )
    network.to(device)
    labels = torch.from_numpy(organ_batch(batch, (size, size, size), classes=CLASSES))[:, None]
    images = labels + 0.5 * torch.randn(labels.shape)
    title = f"U-Net {'-'.join(map(str, channels))}, batch {batch} x {size}³, {CLASSES} classes"
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    return Workload(network, optimiser, images.to(device), labels.to(device), title)


def measured_steps(work: Workload, device: torch.device, budget: Budget) -> list[StepRow]:
    """Check that all variants compute the same loss, then time their steps in turns.

    Raises:
        WrongLossError: a variant's boundary loss differs.
    """
    watches: dict[str, Stopwatch] = {}
    variants: dict[str, Variant] = {}
    for name, make in step_variants(device, CLASSES).items():
        watches[name] = Stopwatch(device)
        variants[name] = make(watches[name])
    _check_equal(variants, work)
    clock = clock_for(device)
    runs = {name: _step(variant, work) for name, variant in variants.items()}
    first_s = {}
    for name, run in runs.items():
        first_s[name], _ = clock.timed(run, 0)
    for name, watch in watches.items():
        if budget.repeats(first_s[name]):  # else the first step is the one that counts
            watch.clear()
    timings = interleaved(runs, first_s, budget, clock)
    plain_s = timings[BASELINE].median_s
    return [
        StepRow(name, work.title, timing, watches[name].median_per_step(), timing.median_s - plain_s)
        for name, timing in timings.items()
    ]


def _step(variant: Variant, work: Workload) -> Callable[[int], None]:
    def run(_: int) -> None:
        variant.watch.new_step()
        begun = variant.begin(work.labels)
        logits = work.network(work.images)
        loss = torch.nn.functional.cross_entropy(logits, work.labels[:, 0].long())
        loss = loss + _WEIGHT * variant.loss(logits, work.labels, begun)
        loss.backward()
        work.optimiser.step()
        work.optimiser.zero_grad()

    return run


def _check_equal(variants: dict[str, Variant], work: Workload) -> None:
    with torch.no_grad():
        logits = work.network(work.images)
        values = {
            name: float(variant.loss(logits, work.labels, variant.begin(work.labels)))
            for name, variant in variants.items()
            if name != BASELINE
        }
    truth = values[next(iter(values))]
    for name, value in values.items():
        allowed = (_ROUNDING if variants[name].exact else _APPROXIMATION) * abs(truth)
        if not abs(value - truth) <= allowed:
            raise WrongLossError(f"{name}: boundary loss {value}, but {next(iter(values))} says {truth}")


def default_channels(device: torch.device) -> tuple[int, ...]:
    """Width of the network: nnU-Net's on a GPU, half of it on a CPU."""
    return (32, 64, 128, 256) if device.type == "cuda" else (16, 32, 64, 128)
