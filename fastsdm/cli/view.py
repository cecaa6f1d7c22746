"""``fastsdm view``: draw slices through a label volume with the contours of its distance map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from rich.markup import escape

import fastsdm
from fastsdm import _files
from fastsdm._arrays import tensor_from_numpy
from fastsdm.cli.options import (
    BackendOption,
    NanOption,
    NegativeOption,
    SpacingOption,
    integers,
    spacing_option,
)
from fastsdm.cli.terminal import USAGE, console, fail, note, one_line_errors, progress_bar

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_FORMATS = (".png", ".pdf", ".svg")
#: Bytes a voxel: the mask and its float32 map.
_WORK_BYTES = 5


def view(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Label volume: .nii, .nii.gz, .npy or .npz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png, .pdf or .svg.")],
    label: Annotated[int | None, typer.Option(help="Label value to show; else above 0 is inside.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image of the same shape to draw over.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Voxel 'i,j,k' to cut at; else where the object is widest.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Text above the slices; else there is none.")] = None,
    limit: Annotated[
        float | None, typer.Option(help="Distance at which the colours end; else the largest shown.")
    ] = None,
    spacing: SpacingOption = None,
    nan_as: NanOption = None,
    negative_inside: NegativeOption = False,
    backend: BackendOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure; never IN.")] = False,
) -> None:
    """Draw three orthogonal slices through an object, with its boundary and distance contours.

    Distances are those of the convention 'midline', whose zero level runs between the voxels. They are
    computed in the whole volume; the slices are cropped to the surroundings of the object.
    """
    if output.suffix.lower() not in _FORMATS:
        fail(f"{output}: the name must end in one of {', '.join(_FORMATS)}", USAGE)
    if limit is not None and not 0 < limit < float("inf"):
        fail(f"--limit: must be positive and finite, got {limit:g}", USAGE)
    steps = spacing_option(spacing)
    from fastsdm.cli import slices  # noqa: PLC0415  # matplotlib takes as long to import as all the rest

    what = "above 0" if label is None else f"label {label}"
    with (
        progress_bar() as progress,
        one_line_errors(TypeError, ValueError, fastsdm.BackendUnavailableError),
    ):
        task = progress.add_task(f"reading {escape(source.name)}", total=3)
        opened = _files.open_volume(source, steps)
        _files.check_output(output, [source] if image is None else [source, image], force=force)
        _require_drawable(opened)
        labels, changes = _files.read_labels(
            opened, mask=label is None, nan_as=nan_as, negative_inside=negative_inside
        )
        inside = labels != 0 if label is None else labels == label
        if not inside.any() or inside.all():
            state = "fills the volume" if inside.any() else "is absent"
            fail(f"{source}: nothing to draw, {'the mask' if label is None else what} {state}")
        cut = _widest(inside) if at is None else _voxel_option(at, inside.shape)
        background, more = (None, []) if image is None else _background(image, opened)
        progress.update(task, advance=1, description="computing")
        distance = fastsdm.signed_distance(
            tensor_from_numpy(inside, "IN"),
            spatial_dims=inside.ndim,
            spacing=opened.spacing,
            convention="midline",
            backend=backend,
        ).numpy()
        progress.update(task, advance=1, description=f"drawing {escape(output.name)}")
        subject = slices.cropped(inside, distance, background, cut, opened)
        with _files.whole_file(output) as temporary:
            slices.save(subject, temporary, output.suffix[1:].lower(), title, limit)
    voxel = ", ".join(map(str, cut))
    unit = f" {opened.unit}" if opened.unit else ""
    console.print(
        f"[bold]{escape(str(output))}[/]: {escape(source.name)} ({what}) cut at voxel {voxel}; "
        f"distances from {distance.min():.4g} to {distance.max():.4g}{unit}",
        soft_wrap=True,
    )
    note(source, [*opened.notes, *changes])
    if image is not None:
        note(image, more)


def _require_drawable(opened: _files.VolumeFile) -> None:
    if sum(n > 1 for n in opened.shape) < 2:
        raise _files.FileError(
            f"{opened.path}: a figure needs two axes of more than one voxel, got shape {opened.shape}"
        )
    needs = {
        f"labels {opened.dtype.name}": opened.voxels * opened.dtype.itemsize,
        "mask and map": _WORK_BYTES * opened.voxels,
    }
    _files.require_memory(opened.path, opened.shape, needs)


def _voxel_option(text: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    voxel = tuple(integers(text))
    if len(voxel) != len(shape) or not all(0 <= i < n for i, n in zip(voxel, shape, strict=True)):
        fail(f"--at: must be a voxel of the volume of shape {shape}, as 'i,j,k'; got {text!r}", USAGE)
    return voxel


def _widest(inside: Array) -> tuple[int, ...]:
    """Along each axis, the slice that holds most of the object; of several such slices the middle one."""
    axes = range(inside.ndim)
    counts = [inside.sum(axis=tuple(set(axes) - {axis})) for axis in axes]
    widest = [np.flatnonzero(count == count.max()) for count in counts]
    return tuple(int(slices[len(slices) // 2]) for slices in widest)


def _background(path: Path, labels: _files.VolumeFile) -> tuple[Array, list[str]]:
    """The image's values, and a note if it lies elsewhere than the labels."""
    image = _files.open_volume(path)
    if image.shape != labels.shape:
        fail(f"--image: must have the shape of the labels, {labels.shape}; got {image.shape}", USAGE)
    values = image.read()
    if values.dtype.kind not in "biuf":
        raise _files.FileError(f"{path}: must hold booleans, integers or floats, got dtype {values.dtype}")
    both = image.image is not None and labels.image is not None
    moved = both and not np.allclose(image.image.affine, labels.image.affine, rtol=1e-3, atol=1e-3)
    return values, [
        "its affine differs from that of the labels; voxels are drawn over each other"
    ] if moved else []
