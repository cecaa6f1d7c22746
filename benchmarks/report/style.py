"""What all figures of the benchmarks have in common: colours, markers, fonts, small files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib import pyplot as plt
from PIL import Image

from benchmarks.measure.environment import Environment

# Okabe and Ito's colours, safe for colour-blind readers; ours are the two blues.
OURS, OTHERS, NEUTRAL = "#0072B2", "#D55E00", "#D9D9D9"
_COLOURS = {
    "fastsdm native": OURS,
    "fastsdm triton": OURS,
    "fastsdm cucim": "#56B4E9",
    "fastsdm cupy": "#56B4E9",
    "fastsdm torch": "#56B4E9",
    "fastsdm scipy": "#B8B8B8",
    "scipy": "#7F7F7F",
    "one_hot2dist": "#4D4D4D",
    "edt": "#009E73",
    "SimpleITK": OTHERS,
    "DIPlib": "#CC79A7",
    "CuPy": "#E69F00",
    "cuCIM": "#009E73",
}
_MARKERS = {
    "scipy": "s",
    "one_hot2dist": "D",
    "edt": "^",
    "SimpleITK": "v",
    "DIPlib": "P",
    "CuPy": "s",
    "cuCIM": "^",
}
_RC: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
_DPI = 100
#: Draws into a figure and its axes, `[rows, columns]`.
Fill: TypeAlias = Callable[[Any, Any], None]

mpl.use("Agg")  # draw to files, also where there is a screen


def colour(contender: str) -> str:
    """The colour of a contender in every plot."""
    return _COLOURS.get(contender, "#7F7F7F")


def marker(contender: str) -> str:
    """The marker of a contender in every plot."""
    return _MARKERS.get(contender, "o")


def drawn(
    path: Path,
    here: Environment,
    title: str,
    shape: tuple[int, int],
    size: tuple[float, float],
    fill: Fill,
) -> None:
    """Save a figure of `shape` rows and columns of panels, with where it comes from below it."""
    with plt.rc_context(_RC):
        figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.supxlabel(_origin(here), x=0.01, ha="left", fontsize=8, color="#6A6A6A")
        fill(figure, axes)
        save_small_png(figure, path, dpi=_DPI)


def save_small_png(figure: Any, path: Path, *, dpi: int = 90) -> None:
    """Save a matplotlib figure as a PNG with a palette of 256 colours, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    plt.close(figure)


def _origin(here: Environment) -> str:
    versions = ", ".join(
        f"{name} {here.packages[name]}" for name in ("torch", "scipy") if name in here.packages
    )
    return f"{here.where}; {versions}; commit {here.commit}, {here.date}"


def bare_bars(axis: Any, names: Sequence[str], slots: int) -> None:
    """Horizontal bars without a scale, the first on top, as thick as in panels of up to `slots` bars."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(slots - 0.4, -0.6)
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.spines["bottom"].set_visible(False)
    axis.spines["left"].set_visible(False)
