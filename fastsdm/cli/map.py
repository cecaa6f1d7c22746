"""``fastsdm map``: a label volume in, its signed distance map out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from rich.markup import escape

import fastsdm
from fastsdm._arrays import tensor_from_numpy
from fastsdm._backends import registry
from fastsdm._types import Convention, EmptyPolicy
from fastsdm.cli import volumes
from fastsdm.cli.terminal import USAGE, console, fail, one_line_errors, progress_bar, usable_device

_DTYPES = ("float32", "float64", "float16")


def map_labels(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Label volume: .nii, .nii.gz, .npy or .npz.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Where the map goes, same formats.")],
    classes: Annotated[
        str | None,
        typer.Option(help="A count K (labels 0 to K-1) or label values '1,3'; else non-zero is inside."),
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Voxel size for .npy and .npz: '1.5' or '3,1,1'.")
    ] = None,
    convention: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Convention))}.")] = "kervadec",
    empty: Annotated[
        str, typer.Option(help=f"Value of absent or all-filling classes: {', '.join(get_args(EmptyPolicy))}.")
    ] = "inf",
    max_distance: Annotated[float | None, typer.Option(help="Clamp the map to this distance.")] = None,
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(_DTYPES)}.")] = "float32",
    backend: Annotated[str, typer.Option(help="Name of a backend; it works or fails.")] = "auto",
    device: Annotated[str, typer.Option(help="Where to compute, for example cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Compute the signed distance map of a label volume.

    Distances are in the units of the voxel size, which a NIfTI file brings in its header; axes stay as
    stored. With --classes there is one map per class: the last axis in NIfTI, the first in .npy and .npz.
    """
    if dtype not in _DTYPES:
        fail(f"--dtype: must be one of {', '.join(_DTYPES)}; got {dtype!r}")
    if dtype == "float16" and volumes.is_nifti(output):
        fail("--dtype: NIfTI cannot hold float16; take float32, or write .npy")
    volumes.check_writable(output, force=force)
    place = usable_device(device)
    values = None if classes is None else _classes_option(classes)
    with progress_bar() as progress:
        task = progress.add_task(f"reading {escape(source.name)}", total=3)
        volume = volumes.read_volume(source, spacing)
        progress.update(task, advance=1, description="computing")
        with (
            one_line_errors(fastsdm.BackendUnavailableError, code=USAGE),
            one_line_errors(TypeError, ValueError),
        ):
            chosen = registry.select(backend, place).name
            labels = tensor_from_numpy(volume.values, "IN").to(place)
            maps = fastsdm.signed_distance(
                labels,
                classes=values,
                spatial_dims=labels.ndim,
                spacing=volume.spacing,
                convention=convention,  # type: ignore[arg-type]  # checked there
                empty=empty,  # type: ignore[arg-type]
                max_distance=max_distance,
                dtype=dtype,
                backend=chosen,
            ).cpu()
        progress.update(task, advance=1, description=f"writing {escape(output.name)}")
        with one_line_errors(OSError):
            volumes.write_map(output, maps.numpy(), volume, f"fastsdm {convention} signed distance")
    _report(output, maps, volume, f"computed by {chosen} on {place}")
    if empty != "raise":
        _note_empty_classes(volume.values, values, empty)


def _classes_option(text: str) -> int | list[int]:
    try:
        values = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        fail(f"--classes: must be a count, or label values separated by commas ('1,' for one); got {text!r}")
    return values if "," in text else values[0]


def _report(output: Path, maps: torch.Tensor, volume: volumes.Volume, how: str) -> None:
    finite = maps[maps.isfinite()]
    extent = (
        f"{finite.min():.4g} to {finite.max():.4g} {volume.unit}" if finite.numel() else "no finite distance"
    )
    shape = " x ".join(map(str, volume.values.shape))
    classes = f"{len(maps)} x " if maps.ndim > volume.values.ndim else ""
    step = " x ".join(f"{size:g}" for size in volume.spacing)
    dtype = str(maps.dtype).removeprefix("torch.")
    console.print(
        f"[bold]{escape(str(output))}[/]: {classes}{shape} {dtype}, {extent}, voxels of {step}, {how}",
        soft_wrap=True,
    )


def _note_empty_classes(labels: Any, values: int | list[int] | None, empty: str) -> None:
    wanted: dict[str, Any] = {"the mask": labels != 0}
    if values is not None:
        listed = range(values) if isinstance(values, int) else values
        wanted = {f"class {value}": labels == value for value in listed}
    for name, inside in wanted.items():
        if not np.any(inside):
            console.print(f"note: {name} has no inside voxel; --empty {empty} decides what it reads")
        elif np.all(inside):
            console.print(f"note: {name} has no outside voxel; --empty {empty} decides what it reads")
