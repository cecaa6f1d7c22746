"""``fastsdm precompute``: the maps of many label files, stored with a manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.markup import escape
from rich.progress import TaskID

from fastsdm._types import Convention, EmptyPolicy
from fastsdm.cli.options import (
    ClassesOption,
    ConventionOption,
    DtypeOption,
    IgnoreOption,
    LimitOption,
    SpacingOption,
    classes_option,
    spacing_option,
)
from fastsdm.cli.terminal import FAILED, console, error_console, one_line_errors, progress_bar
from fastsdm.data._precompute import Job, Outcome
from fastsdm.data._precompute import precompute as run


def precompute(
    labels: Annotated[
        list[str],
        typer.Argument(metavar="LABELS...", help="Label files, .zarr stores, folders, or patterns."),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the maps and their manifest; made if need be.")],
    classes: ClassesOption = None,
    spacing: SpacingOption = None,
    convention: ConventionOption = "kervadec",
    empty: Annotated[
        str, typer.Option(help="Value of absent or all-filling classes: inf, zero, max.")
    ] = "inf",
    max_distance: LimitOption = None,
    ignore_index: IgnoreOption = None,
    dtype: DtypeOption = "float32",
    suffix: Annotated[str, typer.Option("--format", help="npy, zarr, npz, nii or nii.gz.")] = "npy",
    workers: Annotated[int, typer.Option(min=1, help="Files worked on at once.")] = 2,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running dask.distributed scheduler.")
    ] = None,
) -> None:
    """Compute and store the signed distance maps of label files.

    Safe to interrupt and to run again: what is done is known by the hash of its labels. A file that
    cannot be used is reported, the others go on, and the exit code is 1 at the end.
    """
    values, steps = classes_option(classes), spacing_option(spacing)
    begun = time.perf_counter()
    voxels = 0
    with one_line_errors(TypeError, ValueError, OSError, ModuleNotFoundError), progress_bar() as progress:
        task: TaskID | None = None

        def on_start(jobs: Sequence[Job]) -> None:
            nonlocal task
            task = progress.add_task("maps", total=len(jobs))

        def on_outcome(outcome: Outcome) -> None:
            nonlocal voxels
            assert task is not None
            voxels += outcome.voxels
            rate = voxels / (time.perf_counter() - begun) / 1e6
            progress.update(task, advance=1, description=f"maps, {rate:.0f} Mvoxel/s")
            if outcome.error is not None:
                where = str(outcome.job.source)
                what = outcome.error if outcome.error.startswith(where) else f"{where}: {outcome.error}"
                error_console.print(f"[bold red]error:[/] {escape(what)}", soft_wrap=True)

        report = run(
            labels,
            out,
            classes=values,
            spacing=steps,
            convention=cast("Convention", convention),  # `run` checks both
            empty=cast("EmptyPolicy", empty),
            max_distance=max_distance,
            ignore_index=ignore_index,
            dtype=dtype,
            suffix=f".{suffix.removeprefix('.')}",
            workers=workers,
            scheduler=scheduler,
            on_start=on_start,
            on_outcome=on_outcome,
        )
    seconds = time.perf_counter() - begun
    console.print(
        f"[bold]{escape(str(out))}[/]: {len(report.made)} maps made, {len(report.kept)} already there, "
        f"{len(report.failed)} failed, in {seconds:.1f} s",
        soft_wrap=True,
    )
    if report.failed:
        raise typer.Exit(FAILED)
