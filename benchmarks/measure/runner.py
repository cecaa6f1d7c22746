"""One run of everything, item by item: failures are recorded, finished items are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.measure.cases import CASES
from benchmarks.measure.contenders import Contender, our_contenders
from benchmarks.measure.environment import environment
from benchmarks.measure.losses import MONAI, NAMES, OURS, TASKS, measured_losses
from benchmarks.measure.maps import Settings, measured, one_line, warm_up
from benchmarks.measure.memory import can_measure, loss_peak, peak_memory
from benchmarks.measure.peers import peer_contenders
from benchmarks.measure.results import FORMAT, Results
from benchmarks.measure.scaling import measured_point, scaling_points
from benchmarks.measure.timing import Budget, measured_bandwidth
from benchmarks.measure.training_step import default_channels, measured_steps, workload

#: Named after the lists of `Results` that they fill.
PARTS = ("maps", "memory", "losses", "steps", "scaling")
_FULL_MINUTES, _QUICK_MINUTES = 22.0, 2.4

#: What to show while it runs, and what makes its rows.
Item: TypeAlias = tuple[str, Callable[[], Sequence[Any]]]


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
        minutes: no item is begun later than this; None for what a full or a quick run is allowed.
    """

    device: torch.device
    threads: int
    cases: Sequence[str]
    backends: Sequence[str] | None
    parts: Sequence[str]
    quick: bool
    minutes: float | None = None

    @property
    def last_start_s(self) -> float:
        """No item is begun after these seconds; a full run then ends within 25 minutes, a quick one in 3."""
        allowed = _QUICK_MINUTES if self.quick else _FULL_MINUTES
        return 60 * (allowed if self.minutes is None else self.minutes)

    @property
    def settings(self) -> Settings:
        """Budgets of the maps."""
        if self.quick:
            budget = Budget(1.0, most=9, longest_call_s=10.0)
            return Settings(self.device, self.threads, budget, reference_s=4.0)
        budget = Budget(10.0, most=15, longest_call_s=25.0)
        return Settings(self.device, self.threads, budget, reference_s=25.0)

    @property
    def scaling_settings(self) -> Settings:
        """Budgets of the curves, which have many points."""
        if self.quick:
            return replace(self.settings, budget=Budget(0.3, most=7, longest_call_s=0.7), reference_s=2.0)
        return replace(self.settings, budget=Budget(2.0, most=15, longest_call_s=8.0), reference_s=8.0)


def results_of(
    plan: Plan, command: str, console: Console, keep: Callable[[Results], None] = lambda results: None
) -> Results:
    """Measure everything in the plan.

    Args:
        plan: what to measure.
        command: what the results say they were made by.
        console: shows what is measured.
        keep: called with the results so far after every item.
    """
    start = time.perf_counter()
    peers, absent = peer_contenders(plan.device)
    settings = plan.settings
    everyone = [*our_contenders(plan.device, plan.backends), *peers]
    broken = warm_up(everyone, settings)
    torch.set_num_threads(plan.threads)
    results = Results(
        format=FORMAT,
        environment=environment(plan.device, plan.threads),
        command=command,
        bandwidth=measured_bandwidth(plan.device),
        absent=absent | {each.name: broken[each.name] for each in peers if each.name in broken},
        failures=[
            f"{each.name}: {broken[each.name]}" for each in everyone if each.ours and each.name in broken
        ],
    )
    lacking = _lacking(plan)
    results.absent.update(lacking)
    plan = replace(
        plan,
        cases=[name for name in plan.cases if name not in lacking],
        parts=[name for name in plan.parts if name not in lacking],
    )
    results.minutes["warm-up"] = (time.perf_counter() - start) / 60
    for name, reason in results.absent.items():
        console.print(f"[dim]without {name}: {escape(reason)}[/]")
    everyone = [each for each in everyone if each.name not in broken]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for part in PARTS:
            if part in plan.parts:
                part_start = time.perf_counter()
                items = list(_ITEMS[part](plan, everyone, settings))
                _work_off(part, items, results, start + plan.last_start_s, keep, progress)
                results.minutes[part] = (time.perf_counter() - part_start) / 60
    return results


#: Packages without which a part or a case cannot be measured.
_NEEDS = {"losses": ("monai",), "steps": ("monai",), "mni": ("nilearn", "nibabel")}


def missing_package(what: str) -> str | None:
    """The first missing package that a part or a case needs; None if it can be measured."""
    return next((name for name in _NEEDS.get(what, ()) if find_spec(name) is None), None)


def _lacking(plan: Plan) -> dict[str, str]:
    """Parts and cases of the plan that cannot be measured here, and why."""
    missing = {what: missing_package(what) for what in (*plan.parts, *plan.cases)}
    found = {what: f"package {name} is not installed" for what, name in missing.items() if name}
    if "memory" in plan.parts and not can_measure(plan.device):
        found["memory"] = "the peak of a process can be reset on Linux only"
    return found


def _work_off(
    part: str,
    items: Sequence[Item],
    results: Results,
    last_start: float,
    keep: Callable[[Results], None],
    progress: Progress,
) -> None:
    bar = progress.add_task(part, total=len(items))
    for title, work in items:
        what = f"{part}: {title}"
        progress.update(bar, description=what)
        start = time.perf_counter()
        if start > last_start:
            results.skipped.append(what)
            continue
        torch.set_num_threads(results.environment.threads)
        try:
            rows = work()
        except Exception as error:  # the other items are still worth measuring
            results.failures.append(f"{what}: {one_line(error)}")
            rows = []
        getattr(results, part).extend(rows)
        results.failures.extend(
            f"{what}: {row.contender}: {row.note}" for row in rows if getattr(row, "failed", False)
        )
        keep(results)
        progress.advance(bar)
        progress.console.print(f"[dim]{escape(what)}, {time.perf_counter() - start:.1f} s[/]")


def _maps(plan: Plan, everyone: Sequence[Contender], settings: Settings) -> Iterator[Item]:
    for name in plan.cases:
        yield CASES[name].title, partial(measured, CASES[name], everyone, settings)


def _memory(plan: Plan, everyone: Sequence[Contender], settings: Settings) -> Iterator[Item]:
    here = [each for each in everyone if each.on_host == (plan.device.type == "cpu")]
    # On the CPU jump flooding takes minutes; the recipe is two scipy transforms, as "scipy" is.
    slow = {each.name for each in here if each.on_host and not each.exact} | {"one_hot2dist"}
    names = [each.name for each in here if each.name not in slow]
    cases = ("blobs-128",) if plan.quick else ("blobs-256", "mni")
    for case in (case for case in cases if case != "mni" or not missing_package("mni")):
        for name in names:
            yield (
                f"{name}, {CASES[case].title}",
                partial(_one, peak_memory, case, name, plan.device, plan.threads),
            )
    for task in () if plan.quick or missing_package("losses") else TASKS[1:]:
        for owner in (OURS, MONAI) if task in NAMES else (OURS,):
            yield (
                f"{task} of {owner}",
                partial(_one, loss_peak, task, owner, 96, plan.device, plan.threads),
            )


def _losses(plan: Plan, everyone: Sequence[Contender], settings: Settings) -> Iterator[Item]:
    size, budget = (48, Budget(0.5)) if plan.quick else (96, Budget(8.0))
    for task in TASKS:
        yield task, partial(measured_losses, size, plan.device, budget, [task])


def _steps(plan: Plan, everyone: Sequence[Contender], settings: Settings) -> Iterator[Item]:
    size, budget = (48, Budget(1.5)) if plan.quick else (96, Budget(20.0))

    def work() -> Sequence[Any]:
        step = workload(plan.device, batch=2, size=size, channels=default_channels(plan.device))
        return measured_steps(step, plan.device, budget)

    yield f"batch 2 x {size}³", work


def _scaling(plan: Plan, everyone: Sequence[Contender], settings: Settings) -> Iterator[Item]:
    ours = next((each for each in everyone if each.ours), None)
    if ours is None:
        return
    peers = [each for each in everyone if not each.ours]
    curves = replace(plan.scaling_settings, rates=settings.rates)
    for point in scaling_points(ours, peers, curves, quick=plan.quick):
        yield f"{point.curve} {point.label}", partial(measured_point, point)


def _one(measure: Callable[..., Any], *arguments: Any) -> Sequence[Any]:
    return [measure(*arguments)]


_ITEMS: dict[str, Callable[[Plan, Sequence[Contender], Settings], Iterator[Item]]] = {
    "maps": _maps,
    "memory": _memory,
    "losses": _losses,
    "steps": _steps,
    "scaling": _scaling,
}
