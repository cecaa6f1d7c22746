"""``fastsdm view``: slices through a label volume with the contours of its distance map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import typer
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.markup import escape

import fastsdm
from fastsdm.cli import volumes
from fastsdm.cli.figure import STYLE, Array, Plane, Scale, add_colour_bar, draw_distance
from fastsdm.cli.terminal import console, fail, one_line_errors, progress_bar

_FORMATS = (".png", ".pdf", ".svg")
_ORIENTATION = {
    "R": "left to right",
    "L": "right to left",
    "A": "posterior to anterior",
    "P": "anterior to posterior",
    "S": "inferior to superior",
    "I": "superior to inferior",
}
# The page, in inches; all slices are drawn to one scale.
_WIDTH, _HEIGHT, _LEFT, _GAP, _BAR, _BOTTOM, _TOP = 11.0, 5.0, 0.6, 0.6, 0.95, 0.55, 0.6


@dataclass(frozen=True)
class _Subject:
    """What is drawn: everything cropped to the surroundings of the object."""

    distance: Array
    background: Array | None
    first: tuple[int, ...]
    cut: tuple[int, ...]
    volume: volumes.Volume


def view(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Label volume: .nii, .nii.gz, .npy or .npz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png, .pdf or .svg.")],
    label: Annotated[int | None, typer.Option(help="Label value to show; else non-zero is inside.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image of the same shape to draw over.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Voxel 'i,j,k' to cut at; else where the object is widest.")
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Voxel size for .npy and .npz: '1.5' or '3,1,1'.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Name of a backend; it works or fails.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure.")] = False,
) -> None:
    """Draw three orthogonal slices through an object, with its boundary and distance contours.

    Distances are those of the convention 'midline', whose zero level runs between the voxels. They are
    computed in the whole volume; the slices are cropped to the surroundings of the object.
    """
    if output.suffix.lower() not in _FORMATS:
        fail(f"{output}: the name must end in one of {', '.join(_FORMATS)}")
    volumes.check_writable(output, force=force)
    what = "non-zero" if label is None else f"label {label}"
    with progress_bar() as progress:
        task = progress.add_task(f"reading {escape(source.name)}", total=3)
        volume = volumes.read_volume(source, spacing)
        inside = volume.values != 0 if label is None else volume.values == label
        if not inside.any() or inside.all():
            fail(f"{source}: nothing to draw, {what} {'fills the volume' if inside.any() else 'is absent'}")
        cut = _widest(inside) if at is None else _voxel_option(at, inside.shape)
        background = None if image is None else _background(image, volume)
        progress.update(task, advance=1, description="computing")
        with one_line_errors(ValueError, fastsdm.BackendUnavailableError):
            distance = fastsdm.signed_distance(
                inside,
                spatial_dims=inside.ndim,
                spacing=volume.spacing,
                convention="midline",
                backend=backend,
            )
        progress.update(task, advance=1, description=f"drawing {escape(output.name)}")
        subject = _cropped(inside, distance, background, cut, volume)
        with rc_context(STYLE), one_line_errors(OSError), volumes.whole_file(output) as temporary:
            figure = _figure(subject, f"Signed distance to the boundary of {source.name} ({what})")
            figure.savefig(temporary, format=output.suffix[1:].lower())
    voxel = ", ".join(map(str, cut))
    console.print(
        f"[bold]{escape(str(output))}[/]: {escape(source.name)} ({what}) cut at voxel {voxel}; "
        f"distances from {distance.min():.4g} to {distance.max():.4g} {volume.unit}",
        soft_wrap=True,
    )


def _voxel_option(text: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        voxel = tuple(int(part) for part in text.split(","))
    except ValueError:
        voxel = ()
    if len(voxel) != len(shape) or not all(0 <= i < n for i, n in zip(voxel, shape, strict=True)):
        fail(f"--at: must be a voxel of the volume of shape {shape}, as 'i,j,k'; got {text!r}")
    return voxel


def _widest(inside: Array) -> tuple[int, ...]:
    """Along each axis, the slice that holds most of the object."""
    axes = range(inside.ndim)
    return tuple(int(inside.sum(axis=tuple(set(axes) - {axis})).argmax()) for axis in axes)


def _background(path: Path, volume: volumes.Volume) -> Array:
    step = None if volumes.is_nifti(path) else ",".join(map(str, volume.spacing))
    image = volumes.read_volume(path, step).values
    if image.shape != volume.values.shape:
        fail(f"--image: must have the shape of the labels, {volume.values.shape}; got {image.shape}")
    return image


def _cropped(
    inside: Array, distance: Array, background: Array | None, cut: tuple[int, ...], volume: volumes.Volume
) -> _Subject:
    """Crop to the object and the cut, with a margin of an eighth of the object's largest extent."""
    voxels = np.argwhere(inside)
    low, high = np.minimum(voxels.min(axis=0), cut), np.maximum(voxels.max(axis=0), cut)
    steps = np.array(volume.spacing)
    margin = np.ceil(((high - low + 1) * steps).max() / 8 / steps).astype(int)
    first, last = np.maximum(low - margin, 0), np.minimum(high + margin, np.array(inside.shape) - 1)
    box = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    return _Subject(
        distance[box], None if background is None else background[box], tuple(map(int, first)), cut, volume
    )


def _figure(subject: _Subject, title: str) -> Figure:
    planes = [(None, 0, 1)] if subject.distance.ndim == 2 else [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
    lengths = [n * step for n, step in zip(subject.distance.shape, subject.volume.spacing, strict=True)]
    # NIfTI axes point to the patient's sides: drawn rightwards and upwards. Array rows run down the page.
    anatomical = subject.volume.nifti is not None
    layout = [(across, *((b, a) if anatomical else (a, b))) for across, a, b in planes]
    widths, heights = [lengths[column] for _, _, column in layout], [lengths[row] for _, row, _ in layout]
    room = _WIDTH - _LEFT - _BAR - _GAP * (len(layout) - 1)
    inches = min(room / sum(widths), (_HEIGHT - _BOTTOM - _TOP) / max(heights))
    width = sum(widths) * inches + _LEFT + _BAR + _GAP * (len(layout) - 1)
    height = max(heights) * inches + _BOTTOM + _TOP
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, x=_LEFT / width, ha="left", y=1 - 0.12 / height, va="top", fontsize=9.5)

    def cut_out(values: Array, across: int | None, row: int, column: int) -> Array:
        if across is not None:
            values = np.take(values, subject.cut[across] - subject.first[across], axis=across)
        return values if row < column else values.T

    scale = Scale.of([cut_out(subject.distance, *place) for place in layout])
    left = _LEFT
    for place, panel_width, panel_height in zip(layout, widths, heights, strict=True):
        across, row, column = place
        bottom = height - _TOP - panel_height * inches
        axes = figure.add_axes(
            (left / width, bottom / height, panel_width * inches / width, panel_height * inches / height)
        )
        steps = subject.volume.spacing
        plane = Plane(
            spacing=(steps[row], steps[column]),
            start=(subject.first[row] * steps[row], subject.first[column] * steps[column]),
            downwards=not anatomical,
        )
        background = None if subject.background is None else cut_out(subject.background, *place)
        shown = draw_distance(axes, cut_out(subject.distance, *place), plane, scale, background=background)
        axes.set_xlabel(_axis_name(subject.volume, column))
        axes.set_ylabel(_axis_name(subject.volume, row))
        if across is not None:
            axes.set_title(f"axis {across} at {subject.cut[across]}", loc="left")
            for line, axis in ((axes.axvline, column), (axes.axhline, row)):
                line(subject.cut[axis] * steps[axis], color="0.45", linewidth=0.5, linestyle=(0, (1, 3)))
        left += panel_width * inches + _GAP
    bar = ((left - _GAP + 0.15) / width, _BOTTOM / height, 0.13 / width, 1 - (_BOTTOM + _TOP) / height)
    add_colour_bar(figure.add_axes(bar), shown, scale, f"signed distance ({subject.volume.unit})")
    return figure


def _axis_name(volume: volumes.Volume, axis: int) -> str:
    name = f"axis {axis}"
    if volume.nifti is not None:
        code = nibabel.aff2axcodes(volume.nifti.affine)[axis]  # type: ignore[no-untyped-call]
        name = _ORIENTATION.get(code, name)
    return f"{name} ({volume.unit})"
