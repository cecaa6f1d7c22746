"""Drawing a signed distance map on slices: the zero level, contours, a colour scale, true proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.ticker import MaxNLocator

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: Blue inside, white on the boundary, red outside; over a grey image colours that it does not swallow.
COLOURS = "RdBu_r"
_BRIGHT = LinearSegmentedColormap.from_list(
    "bright", [(0, "#1f5bff"), (0.499, "#35e0ff"), (0.501, "#ff9a1f"), (0.75, "#ff3b3b"), (1, "#ff7af2")]
)
_ZERO, _BRIGHT_ZERO = "black", "#ffe100"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "savefig.dpi": 200,
}


@dataclass(frozen=True)
class Plane:
    """How a slice lies on the page, in lengths.

    Attributes:
        spacing: voxel size along rows and columns.
        start: where the first row and the first column lie.
        downwards: whether rows run down the page, as those of an image do.
    """

    spacing: tuple[float, float]
    start: tuple[float, float] = (0.0, 0.0)
    downwards: bool = False

    def coordinates(self, shape: Sequence[int]) -> tuple[Array, Array]:
        """The centres of rows and of columns."""
        rows, columns = (
            first + np.arange(n) * step
            for first, n, step in zip(self.start, shape, self.spacing, strict=True)
        )
        return rows, columns

    def show(self, axes: Axes, values: Array, **style: Any) -> ScalarMappable:
        """Draw the values as an image in true proportions."""
        (top, bottom), (left, right) = (
            (at[0] - step / 2, at[-1] + step / 2)
            for at, step in zip(self.coordinates(values.shape), self.spacing, strict=True)
        )
        if self.downwards:
            return axes.imshow(values, extent=(left, right, bottom, top), origin="upper", **style)
        return axes.imshow(values, extent=(left, right, top, bottom), origin="lower", **style)

    def contour(self, axes: Axes, values: Array, levels: Sequence[float], **style: Any) -> None:
        """Draw those of the levels that the values cross."""
        crossed = [level for level in levels if values.min() < level < values.max()]
        if crossed:
            rows, columns = self.coordinates(values.shape)
            axes.contour(columns, rows, values, levels=crossed, **style)


@dataclass(frozen=True)
class Scale:
    """One colour scale and one set of contour levels for all slices of a figure."""

    norm: Normalize
    levels: tuple[float, ...]

    @classmethod
    def of(cls, slices: Sequence[Array], *, inside: int = 5, outside: int = 8) -> Scale:
        """From the deepest to the farthest distance, with about so many round levels on each side."""
        low = min(-1e-6, *(float(piece.min()) for piece in slices))
        high = max(1e-6, *(float(piece.max()) for piece in slices))
        steps = [1, 2, 2.5, 5, 10]
        levels = [
            *MaxNLocator(nbins=inside, steps=steps).tick_values(low, 0),
            *MaxNLocator(nbins=outside, steps=steps).tick_values(0, high),
        ]
        return cls(TwoSlopeNorm(0.0, low, high), tuple(float(v) for v in levels if low < v < high and v != 0))


def draw_distance(
    axes: Axes, distance: Array, plane: Plane, scale: Scale, *, background: Array | None = None
) -> ScalarMappable:
    """Draw a slice of a map: filled, or as coloured contours over a grey image; the zero level thick.

    Args:
        axes: where to.
        distance: ``[rows, columns]``.
        plane: how it lies on the page.
        scale: colours and contour levels; levels inside are dashed.
        background: an image of the same shape.

    Returns:
        What a colour bar can be made of.
    """
    line: dict[str, Any]
    if background is None:
        shown = plane.show(axes, distance, cmap=COLOURS, norm=scale.norm)
        line, zero = {"colors": "black", "alpha": 0.5, "linewidths": 0.5}, _ZERO
    else:
        plane.show(axes, background, cmap="gray", interpolation="bilinear")
        shown = ScalarMappable(norm=scale.norm, cmap=_BRIGHT)
        line, zero = {"cmap": _BRIGHT, "norm": scale.norm, "linewidths": 0.8}, _BRIGHT_ZERO
    for levels, style in (
        ([level for level in scale.levels if level < 0], (0, (3, 2))),
        ([level for level in scale.levels if level > 0], "solid"),
    ):
        plane.contour(axes, distance, levels, linestyles=[style], **line)
    plane.contour(axes, distance, [0.0], colors=zero, linewidths=1.4)
    return shown


def add_colour_bar(axes: Axes, shown: ScalarMappable, scale: Scale, label: str) -> None:
    """Fill ``axes`` with the colour bar; its ticks are the contour levels."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(shown, cax=axes, ticks=[*scale.levels, 0.0], label=label)
    bar.ax.tick_params(length=2)
    bar.ax.axhline(0.0, color=_ZERO, linewidth=1.4)
