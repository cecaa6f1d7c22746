"""Orthogonal slices on one page: all to one scale in lengths, with one colour bar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fastsdm._files import VolumeFile
from fastsdm.cli.figure import STYLE, Array, Plane, Scale, add_colour_bar, draw_distance

_ORIENTATION = {
    "R": "left to right",
    "L": "right to left",
    "A": "posterior to anterior",
    "P": "anterior to posterior",
    "S": "inferior to superior",
    "I": "superior to inferior",
}
# The page, in inches.
_WIDTH, _HEIGHT, _LEFT, _GAP, _BAR, _BOTTOM, _TOP, _TITLE = 11.0, 5.0, 0.6, 0.6, 0.95, 0.55, 0.3, 0.3
#: Width of a letter of an axis's name, and length below which an axis has a single number.
_LETTER, _SMALL = 0.065, 0.7


@dataclass(frozen=True)
class Subject:
    """What is drawn: map and image, cropped to the surroundings of the object.

    The crop begins at the voxel ``first`` of the volume, the slices go through its voxel ``cut``.
    """

    distance: Array
    background: Array | None
    first: tuple[int, ...]
    cut: tuple[int, ...]
    source: VolumeFile


class _Place(NamedTuple):
    """The axes of a slice: the one it is cut across (None in 2D), and those along rows and columns."""

    across: int | None
    row: int
    column: int


def cropped(
    inside: Array, distance: Array, background: Array | None, cut: tuple[int, ...], source: VolumeFile
) -> Subject:
    """Crop to the object and the cut, with a margin of an eighth of the object's largest extent."""
    voxels = np.argwhere(inside)
    low, high = np.minimum(voxels.min(axis=0), cut), np.maximum(voxels.max(axis=0), cut)
    steps = np.array(source.spacing)
    margin = np.ceil(((high - low + 1) * steps).max() / 8 / steps).astype(int)
    first, last = np.maximum(low - margin, 0), np.minimum(high + margin, np.array(inside.shape) - 1)
    box = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    return Subject(
        distance[box], None if background is None else background[box], tuple(map(int, first)), cut, source
    )


def save(subject: Subject, path: Path, format_: str, title: str | None, limit: float | None) -> None:
    """Draw the slices into a file."""
    with rc_context(STYLE):
        figure(subject, title, limit).savefig(path, format=format_)


def figure(subject: Subject, title: str | None, limit: float | None) -> Figure:
    """Draw the slices; colours end at ``limit``, or at the largest distance that is drawn."""
    source, layout = subject.source, _layout(subject)
    steps, names = source.spacing, [_axis_name(source, axis) for axis in range(len(source.shape))]
    lengths = [n * step for n, step in zip(subject.distance.shape, steps, strict=True)]
    top, gaps = _TOP + (_TITLE if title else 0), _GAP * (len(layout) - 1)
    scale_by = min(
        (_WIDTH - _LEFT - _BAR - gaps) / sum(lengths[place.column] for place in layout),
        (_HEIGHT - _BOTTOM - top) / max(lengths[place.row] for place in layout),
    )
    inches = [length * scale_by for length in lengths]
    unit = f" ({source.unit})" if source.unit else ""
    label = f"signed distance{unit}"
    # A slice may be smaller than the names beside it; it has as much room as they take.
    rooms = [max(size, _LETTER * len(name)) for size, name in zip(inches, names, strict=True)]
    width = sum(rooms[place.column] for place in layout) + _LEFT + _BAR + gaps
    height = max(_LETTER * len(label), *(rooms[place.row] for place in layout)) + _BOTTOM + top
    page = Figure(figsize=(width, height))
    if title:
        page.suptitle(title, x=_LEFT / width, ha="left", y=1 - 0.12 / height, va="top", fontsize=9.5)
    scale = Scale.of([_slice(subject.distance, subject, place) for place in layout], limit=limit)
    left = _LEFT
    for place in layout:
        across, down = inches[place.column], inches[place.row]
        bottom = height - top - (rooms[place.row] + down) / 2
        axes = page.add_axes((left / width, bottom / height, across / width, down / height))
        plane = Plane(
            spacing=(steps[place.row], steps[place.column]),
            start=(
                subject.first[place.row] * steps[place.row],
                subject.first[place.column] * steps[place.column],
            ),
            downwards=source.image is None,
        )
        background = None if subject.background is None else _slice(subject.background, subject, place)
        shown = draw_distance(
            axes, _slice(subject.distance, subject, place), plane, scale, background=background
        )
        axes.set_xlabel(names[place.column], loc="center" if across == rooms[place.column] else "left")
        axes.set_ylabel(names[place.row])
        for line, axis in ((axes.xaxis, place.column), (axes.yaxis, place.row)):
            if inches[axis] < _SMALL:  # numbers would stand over each other
                line.set_ticks([subject.cut[axis] * steps[axis]])
        if place.across is not None:
            axes.set_title(f"axis {place.across} at {subject.cut[place.across]}", loc="left")
        if len(layout) > 1:
            for draw, axis in ((axes.axvline, place.column), (axes.axhline, place.row)):
                draw(subject.cut[axis] * steps[axis], color="0.45", linewidth=0.5, linestyle=(0, (1, 3)))
        left += rooms[place.column] + _GAP
    bar = ((left - _GAP + 0.15) / width, _BOTTOM / height, 0.13 / width, 1 - (_BOTTOM + top) / height)
    add_colour_bar(page.add_axes(bar), shown, scale, label)
    return page


def _layout(subject: Subject) -> list[_Place]:
    """One slice for each axis to cut across; a volume of one slice is drawn as that slice."""
    flat = [axis for axis, n in enumerate(subject.source.shape) if n == 1]
    axes = range(len(subject.source.shape))
    cuts: list[int | None] = [None] if len(axes) == 2 else [flat[0]] if flat else list(axes)
    places = []
    for across in cuts:
        row, column = (axis for axis in axes if axis != across)
        # NIfTI axes point to the patient's sides: drawn rightwards and upwards. Array rows run down the page.
        places.append(
            _Place(across, row, column) if subject.source.image is None else _Place(across, column, row)
        )
    return places


def _slice(values: Array, subject: Subject, place: _Place) -> Array:
    if place.across is not None:
        values = np.take(values, subject.cut[place.across] - subject.first[place.across], axis=place.across)
    return values if place.row < place.column else values.T


def _axis_name(source: VolumeFile, axis: int) -> str:
    name = f"axis {axis}"
    if source.image is not None:
        import nibabel  # noqa: PLC0415  # the image came from it

        code = nibabel.aff2axcodes(source.image.affine)[axis]  # type: ignore[no-untyped-call]
        name = _ORIENTATION.get(code, name)
    return f"{name} ({source.unit})" if source.unit else name
