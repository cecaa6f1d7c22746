"""The pictures of a result, drawn from its JSON alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator

from benchmarks.measure.maps import MapRow
from benchmarks.measure.results import Results, best_ours, by_case
from benchmarks.measure.scaling import AXES, ScalingRow
from benchmarks.measure.training_step import StepRow
from benchmarks.report import style
from benchmarks.report.markdown import times

_PANELS_A_ROW = 3


def throughput(results: Results, path: Path) -> bool:
    """Bars of map voxels per second, a panel per case."""
    shown = [rows for rows in by_case(results.maps).values() if any(row.timing for row in rows)]
    if not shown:
        return False
    most = max(sum(row.timing is not None for row in rows) for rows in shown)
    columns = min(_PANELS_A_ROW, len(shown))
    lines = math.ceil(len(shown) / columns)

    def fill(figure: Any, axes: Any) -> None:
        for axis, rows in zip(axes.flat, shown, strict=False):
            _throughput_panel(axis, rows, most)
        _blank(axes, len(shown))

    title = "Signed distance map, million voxels per second; in brackets, times slower than fastsdm"
    size = (max(4.2 * columns, 8.0), lines * (0.5 + 0.27 * most) + 0.8)
    style.drawn(path, results.environment, title, (lines, columns), size, fill)
    return True


def _throughput_panel(axis: Any, rows: Sequence[MapRow], slots: int) -> None:
    timed = sorted((row for row in rows if row.timing is not None), key=lambda row: row.seconds)
    own = best_ours(rows)
    rates = [row.voxels_per_second / 1e6 for row in timed]
    axis.barh(range(len(timed)), rates, color=[style.colour(row.contender) for row in timed], height=0.72)
    for place, row, rate in zip(range(len(timed)), timed, rates, strict=True):
        text = f" {_three_digits(rate)}"
        if own is not None and row is not own:
            text += f"  ({times(row.seconds / own.seconds)})"
        axis.text(rate, place, text, va="center", weight="bold" if row is own else "normal")
    style.bare_bars(axis, [row.contender for row in timed], slots)
    axis.set_xlim(0, 1.2 * max(rates))
    axis.set_title(timed[0].title)


def scaling(results: Results, path: Path) -> bool:
    """Nanoseconds per voxel along every curve."""
    curves = {name: [row for row in results.scaling if row.curve == name] for name in AXES}
    shown = {name: rows for name, rows in curves.items() if rows}
    if not shown:
        return False
    lines = math.ceil(len(shown) / _PANELS_A_ROW)

    def fill(figure: Any, axes: Any) -> None:
        lines_of: dict[str, Any] = {}
        for axis, (name, rows) in zip(axes.flat, shown.items(), strict=False):
            lines_of |= _curve_panel(axis, name, rows)
        _blank(axes, len(shown))
        for axis in axes[:, 0]:
            axis.set_ylabel("ns per voxel of the map")
        figure.legend(lines_of.values(), lines_of, loc="outside upper right", ncols=7, frameon=False)

    title = "Time per voxel of the map; shaded from the 20th to the 80th percentile"
    size = (12.6, 3.2 * lines + 1.0)
    style.drawn(path, results.environment, title, (lines, _PANELS_A_ROW), size, fill)
    return True


def _curve_panel(axis: Any, curve: str, rows: Sequence[ScalingRow]) -> dict[str, Any]:
    ticks = list(dict.fromkeys(row.x_label for row in rows))
    lines = {}
    for name in dict.fromkeys(row.contender for row in rows):
        own = [row for row in rows if row.contender == name]
        places = [ticks.index(row.x_label) for row in own]
        look = {"color": style.colour(name), "marker": style.marker(name)}
        (lines[name],) = axis.plot(places, [row.ns_per_voxel for row in own], **look)
        low = [1e9 * row.timing.p20_s / row.map_voxels for row in own]
        high = [1e9 * row.timing.p80_s / row.map_voxels for row in own]
        axis.fill_between(places, low, high, color=style.colour(name), alpha=0.15, linewidth=0)
    axis.set_xticks(range(len(ticks)), [_tick(label) for label in ticks])
    axis.set_xlim(-0.3, len(ticks) - 0.7)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    heights = [row.ns_per_voxel for row in rows]
    bottom, top = min(heights) / 1.6, max(heights) * 1.6
    axis.set_ylim(bottom, max(top, 12 * bottom))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter("")
    axis.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axis.set_xlabel(AXES[curve])
    axis.set_title(f"over {curve.replace('_', ' ')}")
    return lines


def step_share(results: Results, path: Path) -> bool:
    """The training step of every variant: network in grey, distance map in colour."""
    if not results.steps:
        return False
    title, size = f"Training step of a {results.steps[0].network}, ms", (9.6, 1.1 + 0.34 * len(results.steps))
    fill: style.Fill = lambda _, axes: _step_panel(axes[0, 0], results.steps)  # noqa: E731
    style.drawn(path, results.environment, title, (1, 1), size, fill)
    return True


def _step_panel(axis: Any, steps: Sequence[StepRow]) -> None:
    rows = sorted(steps, key=lambda row: row.step.median_s)
    for place, row in enumerate(rows):
        whole, map_ = 1000 * row.step.median_s, 1000 * row.map_s
        ours = row.variant.startswith("fastsdm")
        axis.barh(place, whole - map_, color=style.NEUTRAL, height=0.7)
        axis.barh(place, map_, left=whole - map_, color=style.OURS if ours else style.OTHERS, height=0.7)
        share = f"  (map {100 * row.share:.1f} %)" if row.map_s else ""
        axis.text(whole, place, f" {whole:.0f}{share}", va="center", weight="bold" if ours else "normal")
    style.bare_bars(axis, [row.variant if row.map_s else "no boundary loss" for row in rows], len(rows))
    axis.set_xlim(0, 1350 * max(row.step.median_s for row in rows))
    axis.set_title("grey: network, losses, optimiser; colour: the map", weight="normal", fontsize=9.5)


def overview(results: Results, path: Path, cases: Sequence[str]) -> bool:
    """For the README: throughput of some cases and, where it was measured, the training step."""
    by_name = by_case(results.maps)
    shown = [by_name[name] for name in cases if name in by_name and any(row.timing for row in by_name[name])]
    if not shown:
        return False
    slots = max(len(results.steps), *(sum(row.timing is not None for row in rows) for rows in shown))
    panels: list[Callable[[Any], None]] = [
        partial(_throughput_panel, rows=rows, slots=slots) for rows in shown
    ]
    if results.steps:
        panels.append(partial(_step_panel, steps=results.steps))

    def fill(figure: Any, axes: Any) -> None:
        for axis, panel in zip(axes.flat, panels, strict=True):
            panel(axis)
        if results.steps:
            axes[0, -1].set_title("training step, ms; map in colour")

    title = "Million voxels of map per second (times slower than fastsdm)"
    size = (4.6 * len(panels), 1.2 + 0.27 * slots)
    style.drawn(path, results.environment, title, (1, len(panels)), size, fill)
    return True


#: Ending of the file name, and what draws it, if the result holds anything to draw.
PLOTS: dict[str, Callable[[Results, Path], bool]] = {
    "throughput": throughput,
    "scaling": scaling,
    "step": step_share,
}


def _blank(axes: Any, used: int) -> None:
    for axis in list(axes.flat)[used:]:
        axis.axis("off")


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _tick(label: str) -> str:
    mantissa, found, exponent = label.partition("e-")
    return f"$10^{{-{int(exponent)}}}$" if found and mantissa == "1" else label
