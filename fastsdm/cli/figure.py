"""Drawing a signed distance map on slices: the zero level, contours, a colour scale, true proportions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

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
    """How a slice lies on the page: voxel size along rows and columns, and where the first of them lie.

    Rows run ``downwards`` as those of an image do, or upwards.
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
    """One colour scale and one set of contour levels for all slices of a figure, alike on both sides of 0.

    Attributes:
        norm: colours; the same distance has the same strength inside and outside.
        levels: contour levels, all multiples of one step, without 0.
        low: smallest distance that is drawn, at most 0.
        high: largest distance that is drawn, at least 0.
    """

    norm: Normalize
    levels: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, slices: Sequence[Array], *, limit: float | None = None) -> Scale:
        """Cover the distances of the slices, or those up to ``limit``, with round levels."""
        low = min(0.0, *(float(piece.min()) for piece in slices))
        high = max(0.0, *(float(piece.max()) for piece in slices))
        end = max(-low, high) if limit is None else limit
        step = _step(min(-low, end), min(high, end))
        count = int(end / step * (1 + 1e-9))
        levels = [k * step for k in range(-count, count + 1) if k and low < k * step < high]
        return cls(Normalize(-end, end), tuple(levels), low, high)


class Drawn(NamedTuple):
    """What a colour bar is made of: the colours, and that of the zero level."""

    mappable: ScalarMappable
    zero: str


def _step(inside: float, outside: float) -> float:
    """The largest round step with two levels on the shorter side and 6 to 16 on the longer one."""
    longer, shorter = max(inside, outside), min(inside, outside)
    power = 10.0 ** math.floor(math.log10(longer / 16))
    steps = [power * k for k in (1, 2, 2.5, 5, 10, 20, 25, 50) if longer / (power * k) <= 16]
    enough = [step for step in steps if longer / step >= 6]
    return max((step for step in enough if shorter / step >= 2), default=enough[0] if shorter else enough[-1])


def draw_distance(
    axes: Axes, distance: Array, plane: Plane, scale: Scale, *, background: Array | None = None
) -> Drawn:
    """Draw a slice of a map: filled, or as coloured contours over a grey image of the same shape.

    The zero level is thick, levels inside are dashed.
    """
    line: dict[str, Any]
    if background is None:
        drawn = Drawn(plane.show(axes, distance, cmap=COLOURS, norm=scale.norm), _ZERO)
        line = {"colors": "black", "alpha": 0.5, "linewidths": 0.5}
    else:
        plane.show(axes, background, cmap="gray", interpolation="bilinear")
        drawn = Drawn(ScalarMappable(norm=scale.norm, cmap=_BRIGHT), _BRIGHT_ZERO)
        line = {"cmap": _BRIGHT, "norm": scale.norm, "linewidths": 0.8}
    for levels, style in (
        ([level for level in scale.levels if level < 0], (0, (3, 2))),
        ([level for level in scale.levels if level > 0], "solid"),
    ):
        plane.contour(axes, distance, levels, linestyles=[style], **line)
    plane.contour(axes, distance, [0.0], colors=drawn.zero, linewidths=1.4)
    return drawn


def add_colour_bar(axes: Axes, drawn: Drawn, scale: Scale, label: str) -> None:
    """Fill ``axes`` with the colour bar; its ticks are the contour levels, its ends what is drawn."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    end = float(scale.norm.vmax or 0)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (scale.low < -end, scale.high > end), "neither"
    )
    bar = figure.colorbar(
        drawn.mappable, cax=axes, ticks=[*scale.levels, 0.0], label=label, extend=extend, extendfrac=0.04
    )
    bar.ax.set_ylim(max(scale.low, -end), min(scale.high, end))
    bar.ax.tick_params(length=2)
    bar.ax.axhline(0.0, color=drawn.zero, linewidth=1.4)
