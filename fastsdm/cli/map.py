"""``fastsdm map``: read a label volume, write its signed distance map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from rich.markup import escape

import fastsdm
from fastsdm import _files
from fastsdm._arrays import tensor_from_numpy
from fastsdm._backends import registry
from fastsdm._types import Convention, EmptyPolicy
from fastsdm.cli.terminal import (
    USAGE,
    NanOption,
    NegativeOption,
    SpacingOption,
    console,
    fail,
    note,
    numbers_option,
    one_line_errors,
    progress_bar,
    usable_device,
)

_DTYPES = ("float32", "float64", "float16")
_FEW_CLASSES = 32


def map_labels(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Label volume: .nii, .nii.gz, .npy or .npz.")],
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT; never IN.")] = False,
) -> None:
    """Compute the signed distance map of a label volume.

    Distances are in the units of the voxel size, which NIfTI and .npz files bring along; axes stay as
    stored. With --classes there is one map per class: the last axis in NIfTI, the first in .npy and .npz.
    """
    if dtype not in _DTYPES:
        fail(f"--dtype: must be one of {', '.join(_DTYPES)}; got {dtype!r}", USAGE)
    if dtype == "float16" and _files.is_nifti(output):
        fail("--dtype: NIfTI cannot hold float16; take float32, or write .npy", USAGE)
    values = None if classes is None else classes_option(classes)
    steps = None if spacing is None else numbers_option("--spacing", spacing)
    place = usable_device(device)
    with (
        progress_bar() as progress,
        one_line_errors(TypeError, ValueError, fastsdm.BackendUnavailableError),
    ):
        _files.check_format(output, reading=False)
        chosen = registry.select(backend, place).name
        task = progress.add_task(f"reading {escape(source.name)}", total=3)
        opened = _files.open_volume(source, steps)
        _files.check_output(output, [source], force=force)
        _require_memory(opened, values, dtype)
        labels, changes = _files.read_labels(
            opened,
            mask=values is None,
            nan_as=nan_as,
            negative_inside=negative_inside,
            ignore_index=ignore_index,
        )
        if values is not None:
            _check_values(source, classes, values, labels.dtype)
        progress.update(task, advance=1, description="computing")
        maps = fastsdm.signed_distance(
            tensor_from_numpy(labels, "IN").to(place),
            classes=values,
            spatial_dims=labels.ndim,
            spacing=opened.spacing,
            convention=convention,  # type: ignore[arg-type]  # checked there
            empty=empty,  # type: ignore[arg-type]
            max_distance=max_distance,
            ignore_index=ignore_index,
            dtype=dtype,
            backend=chosen,
        ).cpu()
        progress.update(task, advance=1, description=f"writing {escape(output.name)}")
        _files.write_map(output, maps.numpy(), opened, f"fastsdm {convention} signed distance")
    _report(output, maps, opened, f"computed by {chosen} on {place}")
    note(source, [*opened.notes, *changes])
    if empty != "raise":
        _note_empty_classes(labels if ignore_index is None else labels[labels != ignore_index], values, empty)


def classes_option(text: str) -> int | list[int]:
    """Read ``--classes``: a count, or label values."""
    try:
        values = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        fail(
            f"--classes: must be a count, or label values separated by commas ('1,' for one); got {text!r}",
            USAGE,
        )
    return values if "," in text else values[0]


def _check_values(source: Path, text: str | None, values: int | list[int], dtype: np.dtype[Any]) -> None:
    """Refuse label values that the file's dtype cannot hold; the library speaks of its tensors."""
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


def _require_memory(opened: _files.VolumeFile, values: int | list[int] | None, dtype: str) -> None:
    count = 1 if values is None else values if isinstance(values, int) else len(values)
    maps = opened.voxels * max(count, 1)
    needs = {
        f"labels {opened.dtype.name}": opened.voxels * opened.dtype.itemsize,
        f"map float32{f' of {count} classes' if count > 1 else ''}": 4 * maps,
    }
    if dtype != "float32":
        needs[f"map {dtype}"] = maps * np.dtype(dtype).itemsize
    _files.require_memory(opened.path, opened.shape, needs)


def _report(output: Path, maps: torch.Tensor, opened: _files.VolumeFile, how: str) -> None:
    finite = maps[maps.isfinite()]
    unit = f" {opened.unit}" if opened.unit else ""
    extent = f"{finite.min():.4g} to {finite.max():.4g}{unit}" if finite.numel() else "no finite distance"
    shape = " x ".join(map(str, opened.shape))
    classes = f"{len(maps)} x " if maps.ndim > len(opened.shape) else ""
    step = " x ".join(f"{size:g}" for size in opened.spacing)
    steps = "" if opened.unit == "voxels" else f"voxels of {step}, "
    dtype = str(maps.dtype).removeprefix("torch.")
    console.print(
        f"[bold]{escape(str(output))}[/]: {classes}{shape} {dtype}, {extent}, {steps}{how}",
        soft_wrap=True,
    )


def _note_empty_classes(labels: Any, values: int | list[int] | None, empty: str) -> None:
    """Name the classes whose map follows ``--empty``."""
    if values is None:
        counts = {0: int(np.count_nonzero(labels))}
    else:
        counts = _counts(labels, list(range(values)) if isinstance(values, int) else values)
    for missing, wanted in (("inside", 0), ("outside", labels.size)):
        names = [value for value, count in counts.items() if count == wanted]
        if names:
            who = "class" if len(names) == 1 else "classes"
            who = "the mask" if values is None else f"{who} {_ranges(names)}"
            verb = "has" if len(names) == 1 else "have"
            console.print(
                f"note: {who} {verb} no {missing} voxel; --empty {empty} decides what the map holds there",
                soft_wrap=True,
            )


def _counts(labels: Any, values: list[int]) -> dict[int, int]:
    if len(values) <= _FEW_CLASSES:  # a pass for each is faster than sorting all voxels
        return {value: int(np.count_nonzero(labels == value)) for value in values}
    found = dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))
    return {value: found.get(value, 0) for value in values}


def _ranges(values: list[int]) -> str:
    """The values for people: ``2, 5-9``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
