"""The short CPU comparison: `python -m benchmarks.cpu` (two threads, about four minutes).

Maps of five cases by fastsdm, scipy, edt, SimpleITK and, where installed, DIPlib; BoundaryLoss beside
MONAI's; time per voxel over size; memory. Every result is checked against scipy before it is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.cases import CASES, MapCase, blob_case
from benchmarks.console import console, plain_table
from benchmarks.contenders import OurBackend, our_contenders, peer_contenders
from benchmarks.environment import environment
from benchmarks.maps import MapRow, Settings, measured, warm_up
from benchmarks.memory import can_measure, peak_memory
from benchmarks.monai_losses import MONAI, OURS, LossRow, measured_losses
from benchmarks.timing import Budget

_MAP_CASES = ("blobs-128", "blobs-256", "voxel-256", "ct-64x512x512", "mni")
_CPU = torch.device("cpu")


def main(
    threads: Annotated[int, typer.Option(min=1, help="Of every contender that has threads.")] = 2,
    seconds: Annotated[float, typer.Option(help="Time budget of a contender on a case.")] = 12.0,
    backend: Annotated[str, typer.Option(help="Which of our CPU backends.")] = "auto",
    cases: Annotated[str, typer.Option(help="Some of these, separated by commas.")] = ",".join(_MAP_CASES),
    size: Annotated[int, typer.Option(help="Edge of the loss's batch, and first point of the scaling.")] = 96,
) -> None:
    """Check and time signed distance maps and BoundaryLoss on the CPU."""
    torch.set_num_threads(threads)
    settings = Settings(_CPU, threads, Budget(seconds, most=31), reference_s=60.0)
    ours = our_contenders(_CPU, [backend])
    here = environment(_CPU, threads)
    console.print(f"{here.machine}, {threads} threads, {here.simd}, commit {here.commit}, {here.date}")
    peers, missing = peer_contenders(_CPU)
    for name, reason in missing.items():
        if "cuda" not in reason:
            console.print(f"without {name}: {reason}")
    everyone = [*ours, *peers]
    warm_up(everyone, settings)

    rows: list[MapRow] = []
    for name in cases.split(","):
        with console.status(f"{CASES[name].title}: checking and timing"):
            rows += measured(CASES[name], everyone, settings)
    console.print(map_table(rows, [contender.name for contender in everyone], ours[0].name))
    with console.status("BoundaryLoss"):
        losses = measured_losses(size, _CPU, settings.budget, ["BoundaryLoss"])
    console.print(loss_table(losses))
    with console.status("time per voxel"):
        scaling = _per_voxel([blob_case(size), blob_case(4 * size)], ours[0].name, settings)
    console.print(scaling)
    if can_measure(_CPU):
        with console.status("memory"):
            peaks = [
                peak_memory("blobs-256", contender.name, _CPU, threads)
                for contender in everyone
                if contender.name != "one_hot2dist"
            ]
        table = plain_table("Peak memory of one call, blobs 256³", ("contender",), ("size of the map",))
        for peak in peaks:
            table.add_row(peak.contender, f"{peak.peak_over_output:.2f}x")
        console.print(table)
    wrong = [row for row in rows if row.wrong]
    for row in wrong:
        console.print(f"[bold red]WRONG[/] {row.contender} on {row.title}: {row.agreement}")
    if any(row.ours for row in wrong):
        raise typer.Exit(1)


def map_table(rows: Sequence[MapRow], contenders: Sequence[str], ours: str) -> Table:
    """Milliseconds of everyone, and how many times longer each takes than `ours`."""
    title = "Signed distance map, median ms (and how many times as long as ours)"
    table = plain_table(title, ("case",), (*contenders, "checked on"))
    for case in dict.fromkeys(row.case for row in rows):
        by_name = {row.contender: row for row in rows if row.case == case}
        own = by_name[ours]
        cells = [_cell(by_name[name], own) for name in contenders]
        table.add_row(own.title, *cells, own.checked)
    return table


def _cell(row: MapRow, own: MapRow) -> str:
    if row.timing is None:
        return "[red]wrong[/]" if row.wrong else "-"
    text = f"{1000 * row.timing.median_s:.1f}"
    if row is own or own.timing is None:
        return f"[bold]{text}[/]"
    return f"{text} ({row.timing.median_s / own.timing.median_s:.1f}x)"


def loss_table(rows: Sequence[LossRow]) -> Table:
    """Milliseconds of both sides of every task, and their ratio."""
    table = plain_table(
        "Losses, forward and backward, median ms", ("task", "batch"), (OURS, MONAI, "ratio", "max difference")
    )
    for task in dict.fromkeys(row.task for row in rows):
        ours, theirs = (
            next(row for row in rows if row.task == task and row.contender == name) for name in (OURS, MONAI)
        )
        own_s, their_s = ours.timing.median_s, theirs.timing.median_s
        texts = (f"{1000 * own_s:.1f}", f"{1000 * their_s:.1f}", f"{their_s / own_s:.1f}x")
        table.add_row(task, ours.title, *texts, f"{ours.max_abs:.1g}")
    return table


def _per_voxel(cases: Sequence[MapCase], name: str, settings: Settings) -> str:
    backend = OurBackend(name.removeprefix("fastsdm "), settings.device)
    rows = [measured(case, [backend], settings)[0] for case in cases]
    nanoseconds = [1e9 / row.voxels_per_second for row in rows]
    texts = [f"{row.title} {time:.2f} ns" for row, time in zip(rows, nanoseconds, strict=True)]
    return f"time per voxel: {', '.join(texts)}: {nanoseconds[-1] / nanoseconds[0]:.2f}x"


if __name__ == "__main__":
    typer.run(main)
