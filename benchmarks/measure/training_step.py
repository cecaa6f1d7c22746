"""What the boundary loss costs a 3D U-Net's training step: `python -m benchmarks.measure.training_step`.

One step is forward, cross-entropy (plus, but for the first variant, the boundary loss), backward and
AdamW. All variants see the same network, images and labels, in turns, after their boundary losses were
found equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import torch
import typer

from benchmarks.measure.cases import organ_batch
from benchmarks.measure.step_variants import BASELINE, Stopwatch, Variant, step_variants
from benchmarks.measure.timing import Budget, Timing, clock_for, interleaved
from benchmarks.report.console import console, plain_table

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


def main(
    device: Annotated[str, typer.Option()] = "cuda" if torch.cuda.is_available() else "cpu",
    batch: Annotated[int, typer.Option(min=1)] = 2,
    size: Annotated[int, typer.Option(help="Edge of the patch; a multiple of 8.")] = 96,
    seconds: Annotated[float, typer.Option(help="Time budget of a variant.")] = 20.0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Time the step of every variant and show what the map takes of it."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    work = workload(where, batch, size, default_channels(where))
    with console.status(work.title):
        rows = measured_steps(work, where, Budget(seconds))
    table = plain_table(
        f"{work.title}, {where}", ("boundary loss",), ("step, ms", "map, ms", "share", "extra, ms")
    )
    for row in rows:
        table.add_row(row.variant, *step_cells(row))
    console.print(table)


def default_channels(device: torch.device) -> tuple[int, ...]:
    """Width of the network: nnU-Net's on a GPU, half of it on a CPU."""
    return (32, 64, 128, 256) if device.type == "cuda" else (16, 32, 64, 128)


def step_cells(row: StepRow) -> tuple[str, str, str, str]:
    """Step, map, share and extra as tables show them."""
    return (
        f"{1000 * row.step.median_s:.0f}",
        f"{1000 * row.map_s:.1f}",
        f"{100 * row.share:.2f} %",
        f"{1000 * row.extra_s:+.0f}",
    )


if __name__ == "__main__":
    typer.run(main)
