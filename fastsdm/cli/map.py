"""``fastsdm map``: read a label volume, write its signed distance map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import numpy as np
import torch
import typer
from rich.markup import escape
from rich.progress import Progress

import fastsdm
from fastsdm import _files
from fastsdm._arrays import tensor_from_numpy
from fastsdm._backends import registry
from fastsdm._settings import MapOptions, MapSettings
from fastsdm._types import Convention, EmptyPolicy
from fastsdm.cli.map_report import Outcome, note_empty_classes, report
from fastsdm.cli.map_stored import ChunksOption, MemoryOption, ReadWhole, StoredOptions, stored_map
from fastsdm.cli.terminal import (
    USAGE,
    NanOption,
    NegativeOption,
    SpacingOption,
    classes_option,
    fail,
    note,
    numbers_option,
    one_line_errors,
    progress_bar,
    usable_device,
)
from fastsdm.integrations._summary import Census, Extent

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_DTYPES = ("float32", "float64", "float16")


def map_labels(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Label volume: .nii, .nii.gz, .npy, .npz or .zarr.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Where the map goes, same formats.")],
    classes: Annotated[
        str | None,
        typer.Option(help="A count K (labels 0 to K-1) or label values '1,3'; else above 0 is inside."),
    ] = None,
    spacing: SpacingOption = None,
    convention: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Convention))}.")] = "kervadec",
    empty: Annotated[
        str, typer.Option(help=f"Value of absent or all-filling classes: {', '.join(get_args(EmptyPolicy))}.")
    ] = "inf",
    max_distance: Annotated[float | None, typer.Option(help="Clamp the map to this distance.")] = None,
    nan_as: NanOption = None,
    negative_inside: NegativeOption = False,
    ignore_index: Annotated[
        int | None, typer.Option(help="Label of voxels that are neither inside nor outside; they read 0.")
    ] = None,
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(_DTYPES)}.")] = "float32",
    backend: Annotated[str, typer.Option(help="Name of a backend; it works or fails.")] = "auto",
    device: Annotated[str, typer.Option(help="Where to compute, for example cuda.")] = "cpu",
    chunks: ChunksOption = None,
    memory: MemoryOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT; never IN.")] = False,
) -> None:
    """Compute the signed distance map of a label volume.

    Distances are in the units of the voxel size, which NIfTI, .npz and .zarr bring along; axes stay as
    stored. With --classes there is one map per class: the last axis in NIfTI, the first in other formats.
    A map in a .zarr store is made block by block, and may be larger than the memory.
    """
    if dtype not in _DTYPES:
        fail(f"--dtype: must be one of {', '.join(_DTYPES)}; got {dtype!r}", USAGE)
    if dtype == "float16" and _files.is_nifti(output):
        fail("--dtype: NIfTI cannot hold float16; take float32, or write .npy", USAGE)
    values = None if classes is None else classes_option(classes)
    steps = None if spacing is None else numbers_option("--spacing", spacing)
    place = usable_device(device)
    stored = StoredOptions.of(output, chunks, memory, place)
    with (
        progress_bar() as progress,
        one_line_errors(TypeError, ValueError, fastsdm.BackendUnavailableError),
    ):
        _files.check_format(output, reading=False)
        chosen = registry.select(backend, place).name
        opened = _files.open_volume(source, steps)
        settings = MapSettings.of(
            {
                "classes": values,
                "spacing": opened.spacing,
                "convention": convention,  # type: ignore[typeddict-item]  # checked by what makes the map
                "empty": empty,  # type: ignore[typeddict-item]
                "max_distance": max_distance,
                "ignore_index": ignore_index,
            }
        )
        _check_values(source, classes, values, opened.dtype)

        def read_whole() -> tuple[Array, list[str]]:
            labels, changes = _files.read_labels(
                opened,
                mask=values is None,
                nan_as=nan_as,
                negative_inside=negative_inside,
                ignore_index=ignore_index,
            )
            _check_values(source, classes, values, labels.dtype)
            return labels, changes

        if stored is None:
            _files.check_output(output, [source], force=force)
            outcome = _map_in_memory(opened, output, settings, read_whole, dtype, chosen, place, progress)
        else:
            _files.check_output_directory(output, source, force=force)
            outcome = stored_map(
                opened,
                output,
                settings,
                read_whole,
                negative_inside=negative_inside,
                dtype=dtype,
                backend=backend,
                options=stored,
                progress=progress,
            )
    report(output, outcome, opened)
    note(source, [*opened.notes, *outcome.changes])
    if empty != "raise":
        note_empty_classes(outcome.census, empty)


def _map_in_memory(
    opened: _files.VolumeFile,
    output: Path,
    settings: MapSettings,
    read_whole: ReadWhole,
    dtype: str,
    backend: str,
    place: torch.device,
    progress: Progress,
) -> Outcome:
    """Make the map of a whole volume at once."""
    task = progress.add_task(f"reading {escape(opened.path.name)}", total=3)
    _require_memory(opened, settings, dtype)
    labels, changes = read_whole()
    progress.update(task, advance=1, description="computing")
    options: MapOptions = {
        **settings.options(),
        "spatial_dims": labels.ndim,
        "dtype": dtype,
        "backend": backend,
    }
    maps = fastsdm.signed_distance(tensor_from_numpy(labels, "IN").to(place), **options).cpu().numpy()
    progress.update(task, advance=1, description=f"writing {escape(output.name)}")
    _files.write_map(output, maps, opened, f"fastsdm {settings.convention} signed distance")
    known = labels if settings.ignore_index is None else labels[labels != settings.ignore_index]
    census, extent = Census.of(known, settings.classes), Extent.of(maps)
    return Outcome(census, extent, dtype, f"computed by {backend} on {place}", changes)


def _check_values(
    source: Path, text: str | None, values: int | list[int] | None, dtype: np.dtype[Any]
) -> None:
    """Refuse label values that the file's dtype cannot hold; the library speaks of its tensors."""
    if values is None or dtype.kind not in "biu":  # floats are labels only once they are read
        return
    if dtype.kind == "b":
        low, high = 0, 1
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if isinstance(values, int):
        if values - 1 > high:
            fail(
                f"--classes: {text} is a count and means the labels 0 to {values - 1}, but {source} holds "
                f"{dtype}, labels up to {high}; for the label {text} alone write '{text},'",
                USAGE,
            )
        return
    for value in values:
        if not low <= value <= high:
            fail(
                f"--classes: label {value} cannot be in {source}, which holds {dtype} ({low} to {high})",
                USAGE,
            )


def _require_memory(opened: _files.VolumeFile, settings: MapSettings, dtype: str) -> None:
    count = 1 if settings.classes is None else len(settings.classes)
    maps = opened.voxels * count
    needs = {
        f"labels {opened.dtype.name}": opened.voxels * opened.dtype.itemsize,
        f"map float32{f' of {count} classes' if count > 1 else ''}": 4 * maps,
    }
    if dtype != "float32":
        needs[f"map {dtype}"] = maps * np.dtype(dtype).itemsize
    _files.require_memory(opened.path, opened.shape, needs)
