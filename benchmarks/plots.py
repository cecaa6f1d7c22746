"""The pictures of a result, drawn from its JSON alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.errors import EDGES
from benchmarks.maps import MapRow
from benchmarks.results import Results, by_case
from benchmarks.scaling import AXES, ScalingRow
from benchmarks.small_png import save_small_png
from benchmarks.training_step import StepRow

# Okabe and Ito's colours, which the colour-blind can tell apart; ours are the two blues.
_COLOURS = {
    "fastsdm native": "#0072B2",
    "fastsdm triton": "#0072B2",
    "fastsdm cucim": "#56B4E9",
    "fastsdm cupy": "#56B4E9",
    "fastsdm torch": "#56B4E9",
    "fastsdm scipy": "#B8B8B8",
    "scipy": "#7F7F7F",
    "one_hot2dist": "#4D4D4D",
    "edt": "#009E73",
    "SimpleITK": "#D55E00",
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
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
_DPI = 100

mpl.use("Agg")  # draw to files, also where there is a screen


def throughput(results: Results, path: Path, cases: Sequence[str] | None = None) -> bool:
    """Bars of map voxels per second, a panel per case."""
    found = {name: rows for name, rows in by_case(results.maps).items() if cases is None or name in cases}
    shown = [rows for rows in found.values() if any(row.timing for row in rows)]
    if not shown:
        return False
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)
    with plt.rc_context(_STYLE):
        most = max(sum(row.timing is not None for row in rows) for rows in shown)
        figure, axes = plt.subplots(
            lines, columns, figsize=(3.9 * columns, lines * (0.75 + 0.27 * most) + 0.4), squeeze=False
        )
        for axis, rows in zip(axes.flat, shown, strict=False):
            _throughput_panel(axis, rows)
        for axis in list(axes.flat)[len(shown) :]:
            axis.axis("off")
        figure.suptitle(
            _heading(results, "Signed distance map, million voxels per second"), x=0.01, ha="left"
        )
        save_small_png(figure, path, dpi=_DPI)
        plt.close(figure)
    return True


def _throughput_panel(axis: Any, rows: Sequence[MapRow]) -> None:
    timed = sorted((row for row in rows if row.timing is not None), key=lambda row: row.seconds)
    rates = [row.voxels_per_second / 1e6 for row in timed]
    colours = [_COLOURS.get(row.contender, "#7F7F7F") for row in timed]
    places = range(len(timed))
    axis.barh(places, rates, color=colours, height=0.72)
    for place, row, rate in zip(places, timed, rates, strict=True):
        axis.text(
            rate, place, f" {_three_digits(rate)}", va="center", weight="bold" if row.ours else "normal"
        )
    axis.set_yticks(places, [row.contender for row in timed])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.18 * max(rates))
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.spines["bottom"].set_visible(False)
    axis.set_title(timed[0].title)


def scaling(results: Results, path: Path) -> bool:
    """Nanoseconds per voxel along every curve."""
    curves = {name: [row for row in results.scaling if row.curve == name] for name in AXES}
    shown = {name: rows for name, rows in curves.items() if rows}
    if not shown:
        return False
    with plt.rc_context(_STYLE):
        lines = math.ceil(len(shown) / 3)
        figure, axes = plt.subplots(lines, 3, figsize=(12.5, 3.6 * lines + 0.4), squeeze=False)
        for axis, (name, rows) in zip(axes.flat, shown.items(), strict=False):
            _curve_panel(axis, name, rows)
        for axis in list(axes.flat)[len(shown) :]:
            axis.axis("off")
        figure.suptitle(_heading(results, "Nanoseconds per voxel of the map"), x=0.01, ha="left")
        save_small_png(figure, path, dpi=_DPI)
        plt.close(figure)
    return True


def _curve_panel(axis: Any, curve: str, rows: Sequence[ScalingRow]) -> None:
    ticks = {row.x_label: None for row in rows}
    for name in dict.fromkeys(row.contender for row in rows):
        own = [row for row in rows if row.contender == name]
        places = [list(ticks).index(row.x_label) for row in own]
        colour, marker = _COLOURS.get(name, "#7F7F7F"), _MARKERS.get(name, "o")
        axis.plot(places, [row.ns_per_voxel for row in own], color=colour, marker=marker)
        low = [1e9 * row.timing.p20_s / row.map_voxels for row in own]
        high = [1e9 * row.timing.p80_s / row.map_voxels for row in own]
        axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        end = f"  {name.removeprefix('fastsdm ')}"
        axis.text(places[-1], own[-1].ns_per_voxel, end, color=colour, va="center", fontsize=9)
    axis.set_xticks(range(len(ticks)), [_tick(label) for label in ticks])
    axis.set_xlim(-0.2, (len(ticks) - 1) * 1.32 + 0.2)
    axis.set_yscale("log")
    top = max(1e9 * row.timing.p80_s / row.map_voxels for row in rows)
    bottom = min(1e9 * row.timing.p20_s / row.map_voxels for row in rows)
    axis.set_ylim(bottom / 1.6, max(top * 1.6, 10 * bottom))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axis.set_xlabel(AXES[curve])
    axis.set_title(f"over {curve.replace('_', ' ')}")


def step_share(results: Results, path: Path) -> bool:
    """The training step of every variant: network in grey, distance map in colour."""
    if not results.steps:
        return False
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(8.6, 0.8 + 0.42 * len(results.steps)))
        step_panel(axis, results.steps)
        axis.set_title(_heading(results, f"One training step, ms\n{results.steps[0].network}"))
        save_small_png(figure, path, dpi=_DPI)
        plt.close(figure)
    return True


def step_panel(axis: Any, steps: Sequence[StepRow]) -> None:
    """Horizontal bars of the step and the map's part in it."""
    rows = sorted(steps, key=lambda row: row.step.median_s)
    places = range(len(rows))
    rest = [1000 * (row.step.median_s - row.map_s) for row in rows]
    maps = [1000 * row.map_s for row in rows]
    colours = ["#0072B2" if row.variant.startswith("fastsdm") else "#D55E00" for row in rows]
    axis.barh(places, rest, color="#D9D9D9", height=0.7)
    axis.barh(places, maps, left=rest, color=colours, height=0.7)
    for place, row in zip(places, rows, strict=True):
        share = f", map {100 * row.share:.1f} %" if row.map_s else ""
        axis.text(1000 * row.step.median_s, place, f" {1000 * row.step.median_s:.0f}{share}", va="center")
    axis.set_yticks(places, [row.variant if row.map_s else "no boundary loss" for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, 1300 * max(row.step.median_s for row in rows))
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.spines["bottom"].set_visible(False)


def error_histogram(results: Results, path: Path) -> bool:
    """Share of voxels that jump flooding gets wrong, by how much."""
    if not results.errors:
        return False
    names = [f"to {high:g}" for high in EDGES[1:-1]] + [f"above {EDGES[-2]:g}"]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, len(results.errors), figsize=(12.5, 3.0), sharey=True, squeeze=False)
        shares = [[count / each.voxels for count in each.counts] for each in results.errors]
        top = max(max(share[1:]) for share in shares)
        for axis, each, share in zip(axes.flat, results.errors, shares, strict=True):
            axis.bar(range(len(names)), [100 * part for part in share[1:]], color="#0072B2", width=0.8)
            for place, count in enumerate(each.counts[1:]):
                axis.text(
                    place, 100 * count / each.voxels, f"{count}", ha="center", va="bottom", fontsize=8.5
                )
            axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axis.set_ylim(0, max(115 * top, 1e-9))
            axis.set_xlabel("error, voxels")
            axis.set_title(f"{each.phantom}\n{100 * share[0]:.3f} % exact, worst {each.largest:.2f}")
        axes[0, 0].set_ylabel("share of voxels, %")
        figure.suptitle(
            f"Jump flooding (backend torch): voxels that are not exact, of {results.errors[0].voxels}",
            x=0.01,
            ha="left",
        )
        save_small_png(figure, path, dpi=_DPI)
        plt.close(figure)
    return True


#: Ending of the file name, and what draws it, if the result holds anything to draw.
PLOTS: dict[str, Callable[[Results, Path], bool]] = {
    "throughput": throughput,
    "scaling": scaling,
    "step": step_share,
    "errors": error_histogram,
}


def _heading(results: Results, what: str) -> str:
    here = results.environment
    threads = f", {here.threads} threads" if here.device == "none" else ""
    return f"{what} ({here.machine}{threads})"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _tick(label: str) -> str:
    mantissa, found, exponent = label.partition("e-")
    return f"$10^{{-{int(exponent)}}}$" if found and mantissa == "1" else label
