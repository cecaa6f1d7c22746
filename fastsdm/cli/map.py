"""``fastsdm map``: read a label volume, write its signed distance map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from rich.markup import escape
from rich.progress import Progress

import fastsdm
from fastsdm import _files
from fastsdm._arrays import tensor_from_numpy
from fastsdm._backends import registry
from fastsdm._settings import MapOptions, MapSettings
from fastsdm._types import EmptyPolicy
from fastsdm.cli.map_job import Job, Outcome, note_empty_classes, report
from fastsdm.cli.map_stored import ChunksOption, MemoryOption, StoredOptions, stored_map
from fastsdm.cli.options import (
    BackendOption,
    ClassesOption,
    ConventionOption,
    DeviceOption,
    DtypeOption,
    IgnoreOption,
    LimitOption,
    NanOption,
    NegativeOption,
    SpacingOption,
    classes_option,
    spacing_option,
    usable_device,
)
from fastsdm.cli.terminal import note, one_line_errors, progress_bar
from fastsdm.integrations._summary import Census, Extent


def map_labels(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Label volume: .nii, .nii.gz, .npy, .npz or .zarr.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Where the map goes, same formats.")],
    classes: ClassesOption = None,
    spacing: SpacingOption = None,
    convention: ConventionOption = "kervadec",
    empty: Annotated[
        str, typer.Option(help=f"Value of absent or all-filling classes: {', '.join(get_args(EmptyPolicy))}.")
    ] = "inf",
    max_distance: LimitOption = None,
    nan_as: NanOption = None,
    negative_inside: NegativeOption = False,
    ignore_index: IgnoreOption = None,
    dtype: DtypeOption = "float32",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    chunks: ChunksOption = None,
    memory: MemoryOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT; never IN.")] = False,
) -> None:
    """Compute the signed distance map of a label volume.

    Distances are in the units of the voxel size, which NIfTI, .npz and .zarr bring along; axes stay as
    stored. With --classes there is one map per class: the last axis in NIfTI, the first in other formats.
    A map in a .zarr store is made block by block, and may be larger than the memory.
    """
    options: MapOptions = {
        "classes": classes_option(classes),
        "convention": convention,  # type: ignore[typeddict-item]  # checked with the others
        "empty": empty,  # type: ignore[typeddict-item]
        "max_distance": max_distance,
        "ignore_index": ignore_index,
    }
    steps, place = spacing_option(spacing), usable_device(device)
    stored = StoredOptions.of(output, chunks, memory, place)
    with (
        progress_bar() as progress,
        one_line_errors(TypeError, ValueError, fastsdm.BackendUnavailableError),
    ):
        _files.check_format(output, reading=False)
        _files.check_dtype(output, dtype)
        registry.select(backend, place)
        opened = _files.open_volume(source, steps)
        settings = MapSettings.checked({**options, "spacing": opened.spacing})
        job = Job(opened, output, settings, dtype, backend, place, nan_as, negative_inside)
        job.check_classes(opened.dtype)
        _files.check_output(output, [source], force=force)
        outcome = _map_in_memory(job, progress) if stored is None else stored_map(job, stored, progress)
    report(output, outcome, opened)
    note(source, [*opened.notes, *outcome.changes])
    if empty != "raise":
        note_empty_classes(outcome.census, empty)


def _map_in_memory(job: Job, progress: Progress) -> Outcome:
    """Make the map of a whole volume at once."""
    settings = job.settings
    task = progress.add_task(f"reading {escape(job.opened.path.name)}", total=3)
    _require_memory(job)
    labels, changes = job.read_whole()
    progress.update(task, advance=1, description="computing")
    backend = registry.select(job.backend, job.device).name
    options: MapOptions = {
        **settings.options(),
        "spatial_dims": labels.ndim,
        "dtype": job.dtype,
        "backend": backend,
    }
    maps = fastsdm.signed_distance(tensor_from_numpy(labels, "IN").to(job.device), **options).cpu().numpy()
    progress.update(task, advance=1, description=f"writing {escape(job.output.name)}")
    _files.write_map(job.output, maps, job.opened, settings)
    known = labels if settings.ignore_index is None else labels[labels != settings.ignore_index]
    how = f"computed by {backend} on {job.device}"
    return Outcome(Census.of(known, settings.classes), Extent.of(maps), job.dtype, how, changes)


def _require_memory(job: Job) -> None:
    opened = job.opened
    count = 1 if job.settings.classes is None else len(job.settings.classes)
    maps = opened.voxels * count
    needs = {
        f"labels {opened.dtype.name}": opened.voxels * opened.dtype.itemsize,
        f"map float32{f' of {count} classes' if count > 1 else ''}": 4 * maps,
    }
    if job.dtype != "float32":
        needs[f"map {job.dtype}"] = maps * np.dtype(job.dtype).itemsize
    _files.require_memory(opened.path, opened.shape, needs)
