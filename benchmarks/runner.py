"""One run of everything, part by part, with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.bandwidth import measured_bandwidth
from benchmarks.cases import CASES
from benchmarks.console import console
from benchmarks.contenders import Contender, OurBackend, our_contenders, peer_contenders
from benchmarks.environment import environment
from benchmarks.errors import ErrorHistogram, error_histograms
from benchmarks.maps import MapRow, Settings, measured, warm_up
from benchmarks.memory import MemoryRow, can_measure, peak_memory
from benchmarks.monai_losses import LossRow, measured_losses
from benchmarks.results import FORMAT, Results
from benchmarks.scaling import ScalingRow, measured_point, scaling_points
from benchmarks.timing import Budget
from benchmarks.training_step import StepRow, default_channels, measured_steps, workload

PARTS = ("maps", "memory", "losses", "step", "scaling", "errors")


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    Attributes:
        device: where.
        threads: of the CPU contenders.
        cases: names of map cases.
        backends: of ours, or None for all that run there but scipy.
        parts: some of `PARTS`.
        quick: smaller volumes and budgets.
    """

    device: torch.device
    threads: int
    cases: Sequence[str]
    backends: Sequence[str] | None
    parts: Sequence[str]
    quick: bool

    @property
    def settings(self) -> Settings:
        """Budgets: they keep a full run on two cores under 25 minutes, a quick one under 3."""
        if self.quick:
            return Settings(
                self.device, self.threads, Budget(1.0, most=9, longest_call_s=3.0), reference_s=4.0
            )
        return Settings(
            self.device, self.threads, Budget(8.0, most=15, longest_call_s=25.0), reference_s=25.0
        )


def results_of(plan: Plan, command: str) -> Results:
    """Measure everything in the plan."""
    start = time.perf_counter()
    peers, missing = peer_contenders(plan.device)
    for name, reason in missing.items():
        console.print(f"[dim]without {name}: {reason}[/]")
    ours = our_contenders(plan.device, plan.backends)
    everyone = [*ours, *peers]
    settings = plan.settings
    warm_up(everyone, settings)
    torch.set_num_threads(plan.threads)
    bandwidth = measured_bandwidth(plan.device)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        maps = _maps(plan, settings, everyone, progress) if "maps" in plan.parts else []
        memory = _memory(plan, everyone, progress) if "memory" in plan.parts else []
        losses = _losses(plan, progress) if "losses" in plan.parts else []
        steps = _steps(plan, progress) if "step" in plan.parts else []
        scaling, wrong = _scaling(plan, everyone, progress) if "scaling" in plan.parts else ([], [])
        errors = _errors(plan, progress) if "errors" in plan.parts else []
    return Results(
        format=FORMAT,
        environment=environment(plan.device, plan.threads),
        command=command,
        minutes=(time.perf_counter() - start) / 60,
        bandwidth=bandwidth,
        maps=maps + wrong,
        memory=memory,
        losses=losses,
        steps=steps,
        scaling=scaling,
        errors=errors,
    )


def _maps(plan: Plan, settings: Settings, everyone: Sequence[Contender], progress: Progress) -> list[MapRow]:
    rows: list[MapRow] = []
    bar = progress.add_task("maps", total=len(plan.cases))
    for name in plan.cases:
        progress.update(bar, description=f"maps: {CASES[name].title}")
        rows += measured(CASES[name], everyone, settings)
        progress.advance(bar)
    return rows


def _memory(plan: Plan, everyone: Sequence[Contender], progress: Progress) -> list[MemoryRow]:
    if not can_measure(plan.device):
        console.print("[dim]without memory: the peak of a process can be reset on Linux only[/]")
        return []
    names = [each.name for each in everyone if each.name != "one_hot2dist" and "torch" not in each.name]
    cases = ("blobs-128",) if plan.quick else ("blobs-256", "mni")
    rows = []
    for case in cases:
        for name in progress.track(names, description=f"memory: {case}"):
            rows.append(peak_memory(case, name, plan.device, plan.threads))  # noqa: PERF401  # shows progress
    return rows


def _losses(plan: Plan, progress: Progress) -> list[LossRow]:
    torch.set_num_threads(plan.threads)
    size, budget = (48, Budget(1.0)) if plan.quick else (96, Budget(10.0))
    bar = progress.add_task("losses", total=1)
    rows = measured_losses(size, plan.device, budget)
    progress.advance(bar)
    return rows


def _steps(plan: Plan, progress: Progress) -> list[StepRow]:
    torch.set_num_threads(plan.threads)
    size, budget = (48, Budget(3.0)) if plan.quick else (96, Budget(25.0))
    bar = progress.add_task("training step", total=1)
    work = workload(plan.device, batch=2, size=size, channels=default_channels(plan.device))
    rows = measured_steps(work, plan.device, budget)
    progress.advance(bar)
    return rows


def _scaling(
    plan: Plan, everyone: Sequence[Contender], progress: Progress
) -> tuple[list[ScalingRow], list[MapRow]]:
    ours = next(each for each in everyone if isinstance(each, OurBackend))
    peers = [each for each in everyone if not each.ours]
    budget = (
        Budget(0.5, most=9, longest_call_s=1.0) if plan.quick else Budget(2.0, most=15, longest_call_s=10.0)
    )
    settings = replace(plan.settings, budget=budget)
    points = list(scaling_points(ours, peers, settings, quick=plan.quick))
    bar = progress.add_task("scaling", total=len(points))
    found: list[ScalingRow] = []
    wrong: list[MapRow] = []
    for point in points:
        progress.update(bar, description=f"scaling: {point.curve}")
        timed, rows = measured_point(point)
        found += timed
        wrong += [row for row in rows if row.wrong]
        progress.advance(bar)
    return found, wrong


def _errors(plan: Plan, progress: Progress) -> list[ErrorHistogram]:
    torch.set_num_threads(plan.threads)
    bar = progress.add_task("errors of jump flooding", total=1)
    found = error_histograms(plan.device, 48 if plan.quick else 96)
    progress.advance(bar)
    return found
