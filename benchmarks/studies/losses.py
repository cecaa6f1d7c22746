"""Time and peak memory of our losses, forward and backward, beside MONAI's.

`python -m benchmarks.studies.losses` prints the table of docs/losses.md. Gradients are compared first. Peak
memory is that of torch's allocator, beyond logits and labels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Annotated

import torch
import typer
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure.losses import NAMES, LossBatch, largest_difference
from benchmarks.measure.timing import Budget, HostClock, interleaved
from benchmarks.report.markdown import table


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that torch's CPU allocator held at once of what it handed out during the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    assert watched.profiler is not None
    assert watched.profiler.kineto_results is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(int(event.nbytes()) for event in events))


def rows(batch: LossBatch, name: str, budget: Budget) -> list[tuple[str, ...]]:
    """Time, its factor over the first contender, and peak memory of a loss by all who have it."""
    runs = batch.runs(name)
    results = {owner: run() for owner, run in runs.items()}
    if len(results) > 1:
        largest_difference(name, results)
    del results
    clock = HostClock()
    timed = {owner: lambda _, run=run: run() for owner, run in runs.items()}
    first_s = {owner: clock.timed(run, 0)[0] for owner, run in timed.items()}
    timings = interleaved(timed, first_s, budget, clock)
    slowest = max(timing.median_s for timing in timings.values())
    return [
        (
            name,
            owner,
            f"{1e3 * timing.median_s:.1f}",
            f"{slowest / timing.median_s:.1f}x",
            f"{peak_bytes(runs[owner]) / 2**20:.0f}",
        )
        for owner, timing in timings.items()
    ]


def main(
    size: Annotated[int, typer.Option(help="Edge of the cubes.")] = 96,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seconds: Annotated[float, typer.Option(help="For each contender.")] = 10.0,
) -> None:
    """Time and print."""
    torch.set_num_threads(threads)
    batch = LossBatch.of_size(size, torch.device("cpu"))
    names = (*NAMES, "GeneralizedSurfaceLoss", "SDMRegressionLoss")
    cells = [row for name in names for row in rows(batch, name, Budget(seconds))]
    print(table(("loss", "of", "ms", "factor", "peak MiB"), cells, numbers=(2, 3, 4)))


if __name__ == "__main__":
    typer.run(main)
